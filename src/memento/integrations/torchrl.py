"""TorchRL: a policy that chooses what a replay buffer keeps, as its writer."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from multiprocessing.context import get_spawning_popen
from typing import Any
from zipfile import BadZipFile

import numpy as np

from memento import arguments
from memento.errors import DamagedError, ForeignError, SchemaError, SettingError, needs
from memento.files import atomic_write, local_path, storage_errors
from memento.memory import Memory
from memento.policies import Policy
from memento.snapshot import generator_from

with needs("TorchRL", "torchrl", "MementoWriter"):
    import torch
    from tensordict import is_tensor_collection
    from torchrl.data import TensorStorage, Writer

__all__ = ["MementoWriter"]

# The memory's column that says where in the storage a sample lies.
_SLOT = "slot"
_COUNTS = "writer.json"
_POLICY = arguments.instance(Policy, 'a Policy, such as memento.KCenterGreedy("observation")')

_COLUMNS = arguments.Expected(
    f"a mapping of names other than {_SLOT!r} to keys of the data",
    lambda columns: (
        isinstance(columns, Mapping)
        and all(isinstance(name, str) and name != _SLOT for name in columns)
    ),
)


class MementoWriter(Writer):  # type: ignore[misc]
    """Keeps in a replay buffer what a policy would keep of the stream, instead of the latest.

    A round robin forgets what an agent did long ago, however rare it was. With this writer the
    policy chooses at every ``extend`` which of the transitions held and fresh stay; those that stay
    keep their place in the storage. The columns that the policy reads are held a second time, in a
    `Memory`; everything else lies in the storage alone.

    Args:
        policy: Chooses what stays, such as ``KCenterGreedy("observation")`` for coverage.
        columns: Where in the data the policy's columns lie, by name: ``{"x": ("next",
            "observation")}``. If left out, columns are called as the keys are, and the policy's own
            are taken. A last axis of length one is dropped: a reward is a number.
        seed: Of the policy's choices.

    The storage is a ``LazyTensorStorage`` or ``LazyMemmapStorage`` of one dimension, so what is
    offered is flat: ``buffer.extend(rollout.reshape(-1))``. ``add`` decides about one sample at a
    time, which costs as much as a batch; ``extend`` is the way. Samplers that need neighbours in
    time (slices) do not fit, as what is kept has gaps. A sample that changes its place, as few do
    where a policy keeps fewer than before, has its priority set to the default again.

    ``state_dict``, ``dumps`` and pickles hold all that it takes to go on exactly, in ``dumps`` as a
    folder that is a saved `Memory`. Workers that share a buffer cannot share this writer.

    Raises:
        MissingExtraError: TorchRL is not installed.
        SettingError: No policy, or columns that are none.

    Example:
        >>> from tensordict import TensorDict
        >>> from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
        >>> from memento import KCenterGreedy
        >>> from memento.integrations.torchrl import MementoWriter
        >>> buffer = TensorDictReplayBuffer(
        ...     storage=LazyTensorStorage(3, device="cpu"),
        ...     batch_size=3,
        ...     writer=MementoWriter(KCenterGreedy("observation")),
        ... )
        >>> places = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]])
        >>> _ = buffer.extend(TensorDict({"observation": places}, [5]))
        >>> buffer[:]["observation"].flatten().sort().values
        tensor([0., 5., 9.])
    """

    @arguments.checked
    def __init__(
        self,
        policy: Policy,
        columns: Mapping[str, Any] | None = None,
        *,
        seed: int | np.random.Generator = 0,
    ) -> None:
        super().__init__()
        arguments.require("policy", policy, _POLICY)
        if columns is None:
            read = (*policy.reads, *(getattr(policy, "sort_by", None) or ()))
            columns = dict(zip(read, read, strict=True))
        arguments.require("columns", columns, _COLUMNS)
        self._policy = policy
        self._columns = dict(columns)
        self._seed = arguments.generator(seed)
        self._held: Memory | None = None
        self._write_count = 0

    @property
    def memory(self) -> Memory:
        """What the policy sees of what is kept, with the place of each in the column ``slot``.

        Raises:
            SettingError: The writer is not part of a buffer yet.
        """
        if self._held is None:
            raise SettingError(
                "the writer has no storage yet; make a buffer with it: "
                "ReplayBuffer(storage=..., writer=...)"
            )
        return self._held

    @property
    def weights(self) -> Any:
        """``(len,)`` float64 weights of what is kept, in the order of the storage; or None.

        Estimates of how many samples of the stream each stands for, see `Memory.weights`.
        """
        weights = self.memory.weights
        if weights is None:
            return None
        ordered = np.empty(len(weights))
        ordered[self.memory.samples[_SLOT]] = weights
        return torch.from_numpy(ordered)

    def register_storage(self, storage: Any) -> None:
        """Called by the buffer with its storage.

        Raises:
            SettingError: Its slots cannot be chosen, or it holds data already that the writer does
                not know.
        """
        if not isinstance(storage, TensorStorage) or storage.ndim > 1:
            raise SettingError(
                f"the storage is a {type(storage).__name__} of {getattr(storage, 'ndim', 1)} "
                "dimensions; use a LazyTensorStorage or LazyMemmapStorage with ndim=1"
            )
        capacity = int(storage.max_size)
        if self._held is None:
            self._held = Memory(capacity, self._policy, self._seed)
        elif self._held.capacity != capacity:
            raise SettingError(
                f"the storage has {capacity:,} places, the writer was made for "
                f"{self._held.capacity:,}; use one writer a buffer"
            )
        if len(storage) not in (0, len(self._held)):
            raise SettingError(
                f"the storage holds {len(storage):,} samples that the writer never saw; begin with "
                "an empty storage, and extend the buffer by them"
            )
        super().register_storage(storage)

    def add(self, data: Any) -> Any:
        """Offer one sample: its place, or None if it is not kept."""
        if not is_tensor_collection(data):
            raise SchemaError(f"the data is {_described(data)}; offer a tensordict")
        place = self.extend(data.unsqueeze(0))
        return None if int(place[0]) < 0 else int(place[0])

    def extend(self, data: Any) -> Any:
        """Offer samples.

        Args:
            data: ``(n,)`` tensordict.

        Returns:
            ``(n,)`` places in the storage, -1 for those that are not kept.

        Raises:
            SchemaError: No tensordict, or without what the policy reads.
            DomainError: Values that the policy cannot work with.
        """
        given = self._columns_of(data)
        found = torch.full((len(data),), -1, dtype=torch.long, device=data.device)
        if not len(data):
            return found
        self._check_fits(data)
        memory = self.memory
        before = memory.dump()
        try:
            # Fresh samples have no place yet: they are told apart by negative numbers.
            memory.insert({**given, _SLOT: -1 - np.arange(len(data))})
            slots = memory.samples[_SLOT]
            # What is kept lies without gaps from 0 on, as buffers draw from all places up to one.
            homeless = (slots < 0) | (slots >= len(slots))
            places = slots.copy()
            places[homeless] = np.setdiff1d(np.arange(len(slots)), slots)
            if len(slots):
                memory.annotate({_SLOT: places})
            fresh = slots < 0
            moved = homeless & ~fresh
            self._write(slots[moved], places[moved], data, -1 - slots[fresh], places[fresh])
        except BaseException:
            memory.resume(*before)
            raise
        found[torch.from_numpy(-1 - slots[fresh])] = torch.from_numpy(places[fresh]).to(data.device)
        return found

    def _write(
        self, old: np.ndarray, new: np.ndarray, data: Any, rows: np.ndarray, places: np.ndarray
    ) -> None:
        """Move samples within the storage, and write some rows of the data to their places."""
        storage = self._storage
        # Read first: what is moved leaves places behind all that stay.
        moved = storage.get(torch.from_numpy(old)) if len(old) else None
        for target, part in ((places, data[torch.from_numpy(rows)]), (new, moved)):
            if len(target):
                index = torch.from_numpy(target)
                storage.set(index, part)
                for entity in storage._attached_entities_iter():
                    entity.mark_update(index)
        storage._len = len(self.memory)  # it counts what is written over as more
        self._write_count += len(places)

    def _columns_of(self, data: Any) -> dict[str, np.ndarray]:
        """What the policy reads of the data, as arrays."""
        if not is_tensor_collection(data) or not data.ndim:
            raise SchemaError(
                f"the data is {_described(data)}; offer a tensordict with a batch dimension, as "
                'TensorDict({"observation": ...}, [n])'
            )
        columns = {}
        for name, key in self._columns.items():
            value = data.get(key, None)
            if not isinstance(value, torch.Tensor):
                keys = sorted(map(str, data.keys(include_nested=True, leaves_only=True)))
                raise SchemaError(
                    f"the policy reads {name!r}, and the data has no tensor {key!r}; say which of "
                    f"{', '.join(keys)} it is: MementoWriter(policy, columns={{{name!r}: ...}})"
                )
            value = value.detach().cpu()
            value = value.float() if value.dtype == torch.bfloat16 else value
            flat = value.ndim > 1 and value.shape[-1] == 1
            columns[name] = (value.squeeze(-1) if flat else value).numpy()
        return columns

    def _check_fits(self, data: Any) -> None:
        """Refuse data that the storage cannot take, before anything is written over."""
        if not self._storage.initialized or not len(self._storage):
            return
        known = self._storage.get(slice(0, 1))
        for key in known.keys(include_nested=True, leaves_only=True):
            wanted, given = known.get(key), data.get(key, None)
            if given is None or given.shape[1:] != wanted.shape[1:]:
                shape = "absent" if given is None else f"of shape {tuple(given.shape[1:])}"
                raise SchemaError(
                    f"{key!r} is {shape}; the storage holds it in the shape "
                    f"{tuple(wanted.shape[1:])} of before"
                )

    def _become(self, memory: Memory, write_count: Any) -> None:
        """Take a memory that was stored, if it is one of this buffer."""
        slots = memory.samples[_SLOT] if len(memory) else np.empty(0, np.int64)
        arguments.require("write_count", write_count, arguments.whole(0))
        if not np.array_equal(np.sort(slots), np.arange(len(memory))):
            raise DamagedError("the places of the writer's samples are not those of a storage")
        if self._storage is not None:
            place, held = int(self._storage.max_size), len(self._storage)
            if memory.capacity != place or held != len(memory):
                raise ForeignError(
                    f"the writer's state is that of a storage of {memory.capacity} places with "
                    f"{len(memory)} samples, this one has {place} with {held}; load the whole "
                    "buffer into one of the same size"
                )
        self._held, self._write_count = memory, write_count

    def state_dict(self) -> dict[str, Any]:
        """All that it takes to go on exactly, as tensors and texts."""
        arrays, documents = self.memory.dump()
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        return {
            "arrays": torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8),
            "documents": json.dumps(documents),
            "write_count": self._write_count,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            ForeignError: It is that of another policy or storage.
            DamagedError: It is none of this writer.
        """
        try:
            content = io.BytesIO(state_dict["arrays"].cpu().numpy().tobytes())
            with np.load(content, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
            documents, write_count = json.loads(state_dict["documents"]), state_dict["write_count"]
        except (LookupError, TypeError, AttributeError, ValueError, OSError, BadZipFile) as error:
            raise DamagedError(f"this is no state of a MementoWriter: {error!r}") from error
        self._become(Memory.restore(arrays, documents, self._policy), write_count)

    def dumps(self, path: Any) -> None:
        """Write the same to a folder, in which ``memory`` is a saved memory."""
        path = local_path(path, "path")
        with storage_errors("write", path):
            path.mkdir(parents=True, exist_ok=True)
        self.memory.save(path / "memory")
        count = json.dumps({"write_count": self._write_count})
        atomic_write(path / _COUNTS, count.encode())

    def loads(self, path: Any) -> None:
        """Go on from what `dumps` wrote; errors as of `load_state_dict` and `Memory.load`."""
        path = local_path(path, "path")
        with storage_errors("read", path):
            content = (path / _COUNTS).read_bytes()
        try:
            write_count = json.loads(content)["write_count"]
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{path / _COUNTS} holds no count: {error!r}") from error
        self._become(Memory.load(path / "memory", self._policy), write_count)

    def _empty(self, empty_write_count: bool = True) -> None:
        """Hold nothing, as the buffer does from now on; choices go on as they would."""
        if self._held is not None:
            rng = generator_from(self._held.dump()[1]["generator"])
            self._held = Memory(self._held.capacity, self._policy, rng)
        if empty_write_count:
            self._write_count = 0

    def __getstate__(self) -> dict[str, Any]:
        if get_spawning_popen() is not None:
            raise SettingError(
                "a MementoWriter cannot be shared between processes; extend the buffer in the "
                "process that made it"
            )
        return super().__getstate__()

    def __repr__(self) -> str:
        return f"MementoWriter({self._policy!r}, columns={self._columns!r})"


def _described(data: Any) -> str:
    """What was given instead of a tensordict."""
    return "one sample" if is_tensor_collection(data) else f"a {type(data).__name__}"
