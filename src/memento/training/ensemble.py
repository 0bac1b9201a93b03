"""Several models at once: the last ones that were trained, as a committee, and who answers what.

    Ensemble             a learner that remembers its last models
    Ensemble.annotate    what the newest predicts, and the committee's votes
    Ensemble.oracle      each sample by the model that does best on it: no rule can do better
    Ensemble.matched     each sample by the model whose training memory is most like it

Sources: Mallick et al., "Matchmaker: Data Drift Mitigation in Machine Learning for Large-Scale
Systems", MLSys 2022; query by committee: Seung et al., COLT 1992; the Memento paper, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal

import numpy as np

from memento.arguments import Column, Count, check_fields, checked, names, number, require, whole
from memento.batching import make_batches
from memento.errors import ModelError, SchemaError, SettingError
from memento.learner import Learner, label_of
from memento.samples import Samples
from memento.training._wrapper import Wrapper

__all__ = ["Ensemble"]

Committee = Literal["none", "members", "mean"]

_ROWS = 1 << 14  # samples that are compared with prototypes at a time


@checked
@dataclass(eq=False, repr=False)
class Ensemble(Wrapper):
    """A learner that remembers the last models of another learner.

    It predicts as the newest of them does. For `QueryByCommittee` it adds a column of votes; the
    other ways to answer with several models are `oracle` and `matched`.

    Args:
        learner: Fits the models; needs ``state`` and ``restore``. `JustTrainTwice` will do.
        members: Most models to remember, at least 1; older ones go. The paper of Memento has 7.
        committee: Column ``committee`` of `annotate`: ``"none"``; ``"members"``, the probabilities
            of each model, ``(n, models, classes)``, newest last; or ``"mean"``, their mean,
            ``(n, 1, classes)``, which has the same entropy and takes less room.
        keep_first: Whether the first model ever trained always stays, as one of them.
        sketch: Samples of each training set that are kept for `matched`; 0 for none.
        inputs: Columns of these that the learner needs to annotate.
        prototypes: Rows that a training set is summarised with.
        bandwidth: Width of the kernel around them, in (0, 1]; distances go from 0 to 1.
        label: Column of the right answers, for `oracle`: ``(n,)`` integers; None: the learner's
            ``label``, or ``y`` where it names none.
        prediction: Column that the learner annotates: ``(n, classes)`` probabilities.

    Raises:
        SettingError: A number out of its range, or a learner that cannot go back.

    Example:
        >>> from memento.testing import ConstantLearner
        >>> ensemble = Ensemble(ConstantLearner(classes=2), sketch=0)
        >>> ensemble.fit(Samples(label=[0, 0, 0, 0, 1, 1]))
        >>> ensemble.fit(Samples(label=[1, 1]))
        >>> ensemble.annotate(Samples(label=[0]))["yhat"]
        array([[0.25, 0.75]])
        >>> ensemble.oracle(Samples(label=[0, 1]))["yhat"]
        array([[0.625, 0.375],
               [0.25 , 0.75 ]])
    """

    learner: Learner
    members: int = 7
    _: KW_ONLY
    committee: Committee = "none"
    keep_first: bool = False
    sketch: Annotated[int, whole(0)] = 2048
    inputs: Sequence[str] = ("x",)
    prototypes: Count = 128
    bandwidth: Annotated[float, number(most=1, above=0, words="a number in (0, 1]")] = 0.1
    label: Column | None = None
    prediction: Column = "yhat"

    def __post_init__(self) -> None:
        check_fields(self)
        self.label = self._label = self.label or label_of(self.learner)
        require("members", self.members, whole(2 if self.keep_first else 1))
        self.inputs = names("inputs", self.inputs)
        self._checkpoints = self._going_back("its earlier models cannot be asked")
        self._models: list[dict[str, np.ndarray]] = []  # oldest first
        self._sketches: list[Samples] = []
        self._seen: list[np.ndarray] = []  # (prototypes, classes), as the newest model sees them

    def __len__(self) -> int:
        """How many models are remembered."""
        return len(self._models)

    def fit(self, samples: Samples, weights: np.ndarray | None = None) -> None:
        """Train a model and remember it. If it raises, everything is as it was.

        Args:
            samples: With what the learner needs, and ``inputs`` if there are sketches.
            weights: ``(n,)`` training weights, handed to the learner.

        Raises:
            SchemaError: A column of ``inputs`` is missing, or there is no prediction.
        """
        kept = self._sketched(samples)
        before = {name: np.array(array) for name, array in self._checkpoints.state().items()}
        try:
            self.learner.fit(samples, weights)
            model = {name: np.array(array) for name, array in self._checkpoints.state().items()}
            models, sketches = [*self._models, model], [*self._sketches, kept]
            if len(models) > self.members:
                gone = 1 if self.keep_first else 0
                del models[gone], sketches[gone]
            seen = [self._summarised(one) for one in sketches] if self.sketch else []
        except BaseException:
            self._checkpoints.restore(before)
            raise
        self._models, self._sketches, self._seen = models, sketches, seen

    def annotate(self, samples: Samples) -> Mapping[str, Any]:
        """Columns of the newest model; and ``committee``, where that is wanted.

        A learner that was trained elsewhere is a committee of one.
        """
        columns = dict(self.learner.annotate(samples))
        if self.committee == "none":
            return columns
        newest = self._probabilities(columns)
        if len(self._models) < 2:
            return {**columns, "committee": newest[:, None]}
        if self.committee == "members":
            votes = np.empty((len(newest), len(self._models), newest.shape[1]), newest.dtype)
            for i, annotated in enumerate(self.each(samples)):
                votes[:, i] = self._probabilities(annotated)
            return {**columns, "committee": votes}
        mean = np.zeros(newest.shape)
        for annotated in self.each(samples):
            mean += self._probabilities(annotated)
        mean /= len(self._models)
        return {**columns, "committee": mean.astype(newest.dtype)[:, None]}

    def each(self, samples: Samples) -> Iterator[Mapping[str, Any]]:
        """Columns of every model, oldest first.

        Raises:
            ModelError: None was trained yet.
        """
        self._require_models()
        for which in range(len(self._models)):
            yield self._annotated_by(which, samples)

    def oracle(self, samples: Samples) -> dict[str, np.ndarray]:
        """Columns of, for each sample, the model that gives its label the highest probability.

        No rule that picks one of these models for each sample scores better: it shows what there
        is to gain, and needs to know the answer.

        Returns:
            The learner's columns, and ``member``: ``(n,)`` int64, who answered, 0 for the oldest.
            Of equals, the newest.

        Raises:
            ModelError: No model was trained yet.
            SchemaError: No label.
        """
        self._require_models()
        if self._label not in samples:
            raise SchemaError(f"no column {self._label!r} (the label) among {sorted(samples)}")
        labels, rows = samples[self._label], np.arange(samples.size)
        best = np.full(samples.size, -math.inf)
        member = np.zeros(samples.size, np.int64)
        chosen: dict[str, np.ndarray] = {}
        for which in reversed(range(len(self._models))):
            columns = self._annotated_by(which, samples)
            chance = self._probabilities(columns)[rows, labels].astype(np.float64)
            better = chance > best
            _copy(columns, chosen, better, samples.size)
            best[better], member[better] = chance[better], which
        return {**chosen, "member": member}

    def matched(self, samples: Samples) -> dict[str, np.ndarray]:
        """Columns of, for each sample, the model whose training set is most like it.

        What a sample is like is what the newest model predicts of it: its distribution p. Each
        training set is described in the same space, by rows q_1 ... q_m: the mean predictions of
        equal parts of its sketch in sorted order. The likeness is the density of the training set
        at the sample, with the Hellinger distance H(p, q) = sqrt(1 - sum sqrt(p q)):

            (1/m) sum_j exp(-(H(p, q_j) / h)^2 / 2)

        So samples of a kind that one memory holds much of go to its model: rare ones to the models
        of memories that kept them, common ones to those trained on what is common. Of equals, the
        newest. Needs no labels.

        Returns:
            As `oracle`.

        Raises:
            ModelError: No model was trained yet.
            SettingError: The ensemble keeps no sketches.
        """
        member = self.match(samples)
        chosen: dict[str, np.ndarray] = {}
        for which in range(len(self._models)):
            mine = member == which
            if mine.any() or (which == 0 and not samples.size):
                for name, column in self._annotated_by(which, samples.take(mine)).items():
                    values = np.asarray(column)
                    room = np.empty((samples.size, *values.shape[1:]), values.dtype)
                    chosen.setdefault(name, room)[mine] = values
        return {**chosen, "member": member}

    def match(self, samples: Samples) -> np.ndarray:
        """``(n,)`` int64: which model `matched` asks about each sample; errors likewise."""
        self._require_models()
        if not self._seen:
            raise SettingError("sketch=0: nothing is known of training sets; give e.g. 2048")
        member = np.full(samples.size, len(self._models) - 1, np.int64)
        if len(self._models) == 1:
            return member
        roots = [np.sqrt(rows, dtype=np.float32) for rows in self._seen]
        for start in range(0, samples.size, _ROWS):
            piece = samples.rows(start, start + _ROWS)
            p = np.sqrt(self._probabilities(self.learner.annotate(piece)), dtype=np.float32)
            best = np.full(len(p), -math.inf, np.float32)
            for which in reversed(range(len(roots))):
                density = _density(p, roots[which], self.bandwidth)
                better = density > best
                best[better] = density[better]
                member[start : start + len(p)][better] = which
        return member

    def state(self) -> dict[str, np.ndarray]:
        """All models, and what is known of their training sets.

        Arrays of all models lie in one, so that there are few of them to store.
        """
        if not self._models:
            return {f"learner/{name}": array for name, array in self._checkpoints.state().items()}
        state: dict[str, np.ndarray] = {}
        for name in self._models[0]:
            state |= _packed(f"model/{name}", [model[name] for model in self._models])
        if self.sketch:
            for name in self.inputs:
                state |= _packed(f"sketch/{name}", [one[name] for one in self._sketches])
            state |= _packed("seen/rows", self._seen)
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a state.

        Raises:
            ModelError: It is not one of such an ensemble, or the learner refuses its part; the
                ensemble is then as it was.
        """
        parts: dict[str, dict[str, list[np.ndarray]]] = {}
        learner: dict[str, np.ndarray] = {}
        for name in state:
            kind, _, rest = name.partition("/")
            if kind == "learner":
                learner[rest] = np.array(state[name])
            elif kind in ("model", "sketch", "seen"):
                if not rest.endswith(_SHAPES):
                    parts.setdefault(kind, {})[rest] = _unpacked(state, name)
            else:
                raise ModelError(f"{name!r} belongs to no state of an ensemble; restore state()'s")
        stored = parts.get("model", {})
        count = len(next(iter(stored.values()), []))
        wanted = {"sketch": set(self.inputs), "seen": {"rows"}} if count and self.sketch else {}
        for kind in ("sketch", "seen"):
            if set(parts.get(kind, {})) != wanted.get(kind, set()):
                raise ModelError(
                    f"the state knows of training sets {sorted(parts.get(kind, {}))}; build the "
                    "ensemble with the sketch and inputs it was saved with"
                )
        if any(len(arrays) != count for part in parts.values() for arrays in part.values()):
            raise ModelError(f"a state of {count} models lacks parts; restore what state() gave")
        models = [{name: arrays[i] for name, arrays in stored.items()} for i in range(count)]
        self._checkpoints.restore(models[-1] if models else learner)
        self._models = models
        self._sketches = [
            Samples({name: arrays[i] for name, arrays in parts.get("sketch", {}).items()})
            for i in range(count)
        ]
        self._seen = parts.get("seen", {}).get("rows", [])

    def _require_models(self) -> None:
        if not self._models:
            raise ModelError("the ensemble has no model before its first fit; call fit first")

    def _annotated_by(self, which: int, samples: Samples) -> Mapping[str, Any]:
        """Columns of one model; the newest is in charge again afterwards."""
        if which == len(self._models) - 1:
            return self.learner.annotate(samples)
        self._checkpoints.restore(self._models[which])
        try:
            return self.learner.annotate(samples)
        finally:
            self._checkpoints.restore(self._models[-1])

    def _probabilities(self, columns: Mapping[str, Any]) -> np.ndarray:
        predictions = self._predictions(columns)
        if predictions.ndim != 2:
            raise SchemaError(
                f"column {self.prediction!r} has shape {predictions.shape}; expected (n, classes)"
            )
        return predictions

    def _sketched(self, samples: Samples) -> Samples:
        """Rows of a training set at equal steps: none is drawn, so fits repeat."""
        if not self.sketch:
            return Samples()
        absent = [name for name in self.inputs if name not in samples]
        if absent:
            raise SchemaError(
                f"no column {absent[0]!r} among {sorted(samples)}; name in `inputs` what the "
                "learner annotates from, or give sketch=0"
            )
        count = min(self.sketch, samples.size)
        return samples.select(self.inputs).take(np.arange(count) * samples.size // max(count, 1))

    def _summarised(self, sketch: Samples) -> np.ndarray:
        """``(m, classes)``: mean predictions of equal parts of a sketch, in sorted order."""
        predictions = self._probabilities(self.learner.annotate(sketch))
        size = -(-sketch.size // self.prototypes)
        named = Samples.borrow({self.prediction: predictions})
        batches = make_batches(named, max(size, 1), [self.prediction], remainder="keep")
        sums = np.add.reduceat(predictions[batches.order].astype(np.float64), batches.offsets[:-1])
        return np.asarray(sums / batches.sizes[:, None])


_SHAPES = "#shapes"


def _packed(name: str, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of one type as one vector, with their shapes."""
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) > 1:
        raise ModelError(f"{name} is of the types {sorted(map(str, dtypes))}; expected one")
    flat = np.concatenate([array.reshape(-1) for array in arrays])
    return {name: flat, f"{name}{_SHAPES}": np.array([array.shape for array in arrays], np.int64)}


def _unpacked(state: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    flat, shapes = np.asarray(state[name]), state.get(f"{name}{_SHAPES}")
    sizes = [] if shapes is None else np.prod(shapes, axis=1, dtype=np.int64).tolist()
    if shapes is None or flat.ndim != 1 or sum(sizes) != len(flat):
        raise ModelError(f"{name!r} does not fit its shapes; restore what state() gave")
    pieces = np.split(flat, np.cumsum(sizes)[:-1])
    return [np.array(p.reshape(shape)) for p, shape in zip(pieces, shapes.tolist(), strict=True)]


def _density(p: np.ndarray, q: np.ndarray, bandwidth: float) -> np.ndarray:
    """Mean kernel of each row of roots ``p`` with the rows of roots ``q``; float32 ``(n,)``."""
    affinity = p @ q.T
    # -(H / h)^2 / 2 with H^2 = 1 - affinity; rounding can leave the affinity above 1.
    np.subtract(1.0, affinity, out=affinity)
    np.maximum(affinity, 0.0, out=affinity)
    affinity *= -0.5 / bandwidth**2
    np.exp(affinity, out=affinity)
    return np.asarray(affinity.mean(axis=1))


def _copy(
    columns: Mapping[str, Any], chosen: dict[str, np.ndarray], rows: np.ndarray, size: int
) -> None:
    """Take over some rows of all columns."""
    for name, column in columns.items():
        values = np.asarray(column)
        if name not in chosen:
            chosen[name] = values.copy()
        else:
            chosen[name][rows] = values[rows]
