"""Avalanche: a policy that chooses what a `ReplayPlugin` replays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memento import arguments
from memento.errors import ForeignError, SchemaError, SettingError, needs
from memento.memory import Memory
from memento.policies import ClassBalancedReservoir, Policy
from memento.samples import Samples

with needs("avalanche-lib", None, "MementoBuffer"):
    import torch
    from avalanche.benchmarks.utils import _make_taskaware_classification_dataset, concat_datasets
    from avalanche.training.storage_policy import ExemplarsBuffer

__all__ = ["MementoBuffer"]

_POLICY = arguments.instance(Policy, 'a Policy, such as memento.ClassBalancedReservoir("y")')
_FUNCTION = arguments.optional(arguments.Expected("a function, or None", callable))


class MementoBuffer(ExemplarsBuffer):  # type: ignore[misc]
    """A storage policy that keeps of the experiences what a policy would keep of the stream.

    For ``ReplayPlugin(mem_size=200, storage_policy=MementoBuffer(200, policy))``. What is kept is
    copied into a `Memory` with the columns ``x`` (inputs), ``y`` (classes) and ``task``, so the
    experiences' own datasets can go. Avalanche's checkpoints pickle the whole strategy, and fail
    with newer versions of PyTorch; `save` and `load` keep the buffer as a folder without pickles,
    and the model and the optimizer have their own ``state_dict``.

    Args:
        max_size: Samples to keep.
        policy: Chooses; `ClassBalancedReservoir` if left out.
        annotate: A function of the strategy and of samples that gives further columns for the
            policy, such as ``yhat``. It is called after each experience, for what is fresh and
            again for all that is held, as the model has changed.
        transform: A function of one input, applied each time that it is replayed, such as a random
            crop. Inputs are then kept as the dataset has them before its own transforms, pictures
            as tensors from 0 to 255 with the colours first; without it, as its transforms for
            evaluation leave them.
        seed: Of the policy's choices.

    Attributes:
        memory: What is held.

    Raises:
        MissingExtraError: Avalanche is not installed.
        SettingError: An argument that is none.
    """

    def __init__(
        self,
        max_size: int,
        policy: Policy | None = None,
        *,
        annotate: Callable[[Any, Samples], Mapping[str, Any]] | None = None,
        transform: Callable[[Any], Any] | None = None,
        seed: int | np.random.Generator = 0,
    ) -> None:
        arguments.require("max_size", max_size, arguments.whole())
        super().__init__(max_size)
        policy = ClassBalancedReservoir("y") if policy is None else policy
        arguments.require("policy", policy, _POLICY)
        arguments.require("annotate", annotate, _FUNCTION)
        arguments.require("transform", transform, _FUNCTION)
        self.memory = Memory(max_size, policy, seed)
        self._annotate, self._transform = annotate, transform

    @property
    def buffer(self) -> Any:
        """What is held, as a dataset of Avalanche's."""
        if not len(self.memory):
            return concat_datasets([])
        kept = self.memory.samples
        labels = kept["y"].tolist()
        return _make_taskaware_classification_dataset(
            _Kept(kept["x"], labels, self._transform),
            targets=labels,
            task_labels=kept["task"].tolist(),
        )

    @buffer.setter
    def buffer(self, dataset: Any) -> None:
        if len(dataset):
            raise SettingError("what is held is chosen by the policy; offer data by post_adapt")

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Offer the samples of an experience; called by the plugin after it was trained on.

        Args:
            agent_state: The strategy, for `annotate`.
            exp: The experience.

        Raises:
            SchemaError: Its items are no inputs with classes, or lack what the policy reads.
        """
        dataset = exp.dataset
        # Random transforms would be kept as they fell once.
        dataset = dataset.remove_current_transform_group() if self._transform else dataset.eval()
        items = [dataset[row] for row in range(len(dataset))]
        if not items:
            return
        if any(not isinstance(item, (tuple, list)) or len(item) < 2 for item in items):
            raise SchemaError("items of the experience are no inputs with classes, (x, y, ...)")
        fresh = Samples(
            x=_stacked([item[0] for item in items]),
            y=np.array([int(item[1]) for item in items]),
            task=np.array(list(getattr(dataset, "targets_task_labels", [0] * len(items)))),
        )
        if self._annotate is not None:
            if len(self.memory):
                self.memory.annotate(self._annotate(agent_state, self.memory.samples))
            fresh = fresh.with_columns(self._annotate(agent_state, fresh))
        self.memory.insert(fresh)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Refused, but for the size that it has: a memory keeps its capacity."""
        if new_size != self.max_size:
            raise SettingError(
                f"a memory of {self.max_size:,} samples cannot become one of {new_size:,}; "
                "make a new buffer, and offer it the data again"
            )

    def save(self, path: Any) -> None:
        """Write what is held to a folder, a saved memory; errors as of `Memory.save`."""
        self.memory.save(Path(path))

    def load(self, path: Any) -> None:
        """Go on from what `save` wrote.

        Args:
            path: That folder.

        Raises:
            ForeignError: It is that of another policy or size. Other errors are those of
                `Memory.load`.
        """
        memory = Memory.load(Path(path), self.memory.policy)
        if memory.capacity != self.max_size:
            raise ForeignError(
                f"{path} holds a memory of {memory.capacity} samples, this buffer is one of "
                f"{self.max_size}; make it as large"
            )
        self.memory = memory


class _Kept(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Inputs and classes as torch reads them."""

    def __init__(
        self, inputs: np.ndarray, targets: list[int], transform: Callable[[Any], Any] | None
    ) -> None:
        self.inputs, self.targets, self.transform = torch.tensor(inputs), targets, transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        x = self.inputs[row]
        return (x if self.transform is None else self.transform(x)), self.targets[row]


def _stacked(inputs: list[Any]) -> np.ndarray:
    """Inputs of one shape as one array; pictures become numbers from 0 to 255, colours first."""
    arrays = [np.asarray(x) for x in inputs]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1 or arrays[0].dtype == object:
        raise SchemaError(
            f"inputs of the shapes {sorted(shapes)[:3]}; bring them to one shape of numbers"
        )
    stacked = np.stack(arrays)
    pictures = not isinstance(inputs[0], (torch.Tensor, np.ndarray)) and stacked.ndim == 4
    return np.moveaxis(stacked, -1, 1) if pictures else stacked
