"""What the loop asks of a model: fit, annotate, and its state as arrays."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from memento import missing
from memento.arguments import numbers
from memento.errors import DomainError, SchemaError, SettingError
from memento.samples import Samples

__all__ = [
    "Adaptive",
    "Checkpointable",
    "Learner",
    "checkpointable",
    "digest_of_state",
    "known_labels",
    "label_of",
    "labels_of",
    "numbers_of",
    "way_back",
    "weights_of",
]


@runtime_checkable
class Learner(Protocol):
    """Anything that learns from samples and says something about others.

    Ready-made ones are in ``memento.integrations``.
    """

    @property
    def trained(self) -> bool:
        """Whether `fit` was called, so that `annotate` can work."""

    def fit(self, samples: Samples, weights: np.ndarray | None = None) -> None:
        """Train on samples.

        Args:
            samples: The content of a memory.
            weights: ``(size,)`` positive training weights, or None for equal ones.
        """

    def annotate(self, samples: Samples) -> Mapping[str, Any]:
        """Columns to add to samples, such as ``yhat`` (predictions) and ``logscore``.

        Args:
            samples: Any; has to work without labels, too, if predictions are all that is wanted.

        Returns:
            Columns with one row a sample, the same names every time.
        """


@runtime_checkable
class Checkpointable(Protocol):
    """A learner that can be stopped and go on."""

    def state(self) -> Mapping[str, np.ndarray]:
        """Everything that later calls depend on, as arrays without Python objects."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become what `state` described."""


@runtime_checkable
class Adaptive(Protocol):
    """A learner that follows what comes in, apart from its trainings; `training.Calibrated` is."""

    def adapt(self, samples: Samples) -> bool:
        """Look at samples that nothing was learned from yet.

        Args:
            samples: A unit of the stream, after it was judged.

        Returns:
            Whether predictions are others now; everything kept is then predicted again.
        """


def digest_of_state(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes of a state: equal models, equal digests.

    Example:
        >>> a = digest_of_state({"w": np.zeros(2)})
        >>> a == digest_of_state({"w": np.zeros(2)}), a == digest_of_state({"w": np.ones(2)})
        (True, False)
    """
    sha = hashlib.sha256()
    for name in sorted(state):
        array = np.asarray(state[name])
        sha.update(f"{name}:{array.dtype}:{array.shape};".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def checkpointable(
    learner: Learner,
    purpose: str = "it cannot be saved",
    remedy: str = "give it both, or run without checkpoint",
) -> Checkpointable:
    """A learner as one with a state.

    Args:
        learner: Any.
        purpose: What comes of having none, for the message.
        remedy: What to do about it, for the message.

    Raises:
        SettingError: It has no ``state`` and ``restore``.
    """
    if not isinstance(learner, Checkpointable):
        raise SettingError(
            f"{type(learner).__name__} has no state() and restore(), so {purpose}; {remedy}"
        )
    return learner


def way_back(learner: Learner) -> Callable[[], None]:
    """Note what a learner is now.

    Args:
        learner: Its ``state`` is taken where it has one that can be given, else a copy of its
            attributes (`copy.deepcopy`).

    Returns:
        A function that makes the learner again what it was.

    Raises:
        SettingError: It has no state, and cannot be copied.

    Example:
        >>> from memento.testing import ConstantLearner
        >>> learner = ConstantLearner(classes=2)
        >>> go_back = way_back(learner)
        >>> learner.fit(Samples(label=[0, 1]))
        >>> go_back()
        >>> learner.trained
        False
    """
    why: Exception | str = "it has no attributes"
    if isinstance(learner, Checkpointable):
        try:
            state = {name: np.array(array) for name, array in learner.state().items()}
        except Exception as error:  # an estimator that cannot be stored, say
            why = error
        else:
            return lambda: learner.restore(state)
    try:
        attributes = copy.deepcopy(vars(learner))
    except Exception as error:
        raise SettingError(
            f"{type(learner).__name__} cannot go back to what it was before a training ({why}; "
            f"copy.deepcopy: {error}); give it state() and restore(), or leave out the gate"
        ) from error

    def go_back() -> None:
        vars(learner).clear()
        vars(learner).update(attributes)

    return go_back


def labels_of(samples: Samples, column: str, classes: int) -> np.ndarray:
    """The labels to learn, checked.

    Args:
        samples: What to learn from.
        column: Name of the labels' column.
        classes: Labels are integers in ``[0, classes)``.

    Returns:
        ``(size,)`` int64.

    Raises:
        SchemaError: The column is missing, or no column of single integers.
        DomainError: A label is out of range.

    Example:
        >>> labels_of(Samples(y=[True, False]), "y", 2)
        array([1, 0])
    """
    labels = _single(samples, column, "iub", "integer")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DomainError(
            f"column {column!r} goes from {labels.min()} to {labels.max()}; expected labels from 0 "
            f"to {classes - 1}, or build the learner with more classes"
        )
    return labels.astype(np.int64)


def weights_of(weights: Any, size: int) -> np.ndarray:
    """The weights of samples to learn from, checked; None are equal ones.

    Returns:
        ``(size,)`` float64.

    Raises:
        SettingError, SchemaError: No numbers, or not one for each sample.
        DomainError: They are negative, not finite or all 0.

    Example:
        >>> weights_of([1, 2], 2)
        array([1., 2.])
    """
    if weights is None:
        return np.ones(size)
    weights = numbers("weights", weights, 1)
    if len(weights) != size:
        raise SchemaError(f"{len(weights):,} weights for {size:,} samples; give one for each")
    if not np.isfinite(weights).all() or (weights < 0).any() or (size and not weights.any()):
        raise DomainError(
            "weights are negative, not finite or all 0; give some above 0, none below"
        )
    return weights


def label_of(learner: Learner) -> str:
    """Column of the labels that a learner learns: its ``label``, or ``y`` where it names none.

    Example:
        >>> from memento.testing import ConstantLearner
        >>> label_of(ConstantLearner(label="fraud"))
        'fraud'
    """
    return str(getattr(learner, "label", None) or "y")


def known_labels(samples: Samples, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Which samples have a label, and these labels.

    Args:
        samples: What to learn from.
        column: Name of the labels' column: integers, bools or texts; missing ones are NaN or empty.

    Returns:
        ``(m,)`` int64 rows, and ``(m,)`` labels: int64 or texts.

    Raises:
        SchemaError: The column is missing, or holds no single labels.

    Example:
        >>> known_labels(Samples(y=[1.0, np.nan, 0.0]), "y")
        (array([0, 2]), array([1, 0]))
    """
    labels = _single(samples, column, "biufUS", "integer, bool or text")
    rows = np.flatnonzero(~missing.lacking(labels))
    known = labels[rows]
    if known.dtype.kind in "US":
        return rows, known
    if known.dtype.kind == "f" and not (np.isfinite(known) & (known == np.trunc(known))).all():
        raise SchemaError(
            f"column {column!r} holds fractions; labels of classes are integers, bools or texts "
            "(for numbers use a regressor)"
        )
    return rows, known if known.dtype.kind == "u" else known.astype(np.int64)


def numbers_of(samples: Samples, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Which samples have a number to predict, and these numbers.

    Args:
        samples: What to learn from.
        column: Name of the column; what is missing is NaN.

    Returns:
        ``(m,)`` int64 rows, and ``(m,)`` float64.

    Raises:
        SchemaError: The column is missing, or holds no single numbers.
        DomainError: A number is infinite.

    Example:
        >>> numbers_of(Samples(y=[1.5, np.nan, 0.0]), "y")
        (array([0, 2]), array([1.5, 0. ]))
    """
    labels = _single(samples, column, "biuf", "number")
    rows = np.flatnonzero(~missing.lacking(labels))
    known = labels[rows].astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(known))
    if len(bad):
        raise DomainError(
            f"column {column!r} is infinite in {len(bad):,} of {len(labels):,} rows, the first is "
            f"row {rows[bad[0]]}; drop or replace them"
        )
    return rows, known


def _single(samples: Samples, column: str, kinds: str, what: str) -> np.ndarray:
    if column not in samples:
        raise SchemaError(f"no column {column!r} (the label) among {sorted(samples)}")
    labels = samples[column]
    if labels.dtype.kind not in kinds or labels.ndim != 1:
        raise SchemaError(
            f"column {column!r} holds {labels.dtype} of shape {labels.shape}; expected one {what} "
            "per row"
        )
    return labels
