"""Learners that a function of the user's makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memento.errors import MementoError, ModelError, SettingError, reason_of
from memento.integrations.sklearn import SklearnLearner
from memento.learner import Learner

__all__ = ["first_line", "made_learner"]


def made_learner(
    factory: Callable[[int], Any],
    seed: int,
    label: str,
    where: str,
    *,
    classes: int | None = None,
) -> Any:
    """What a function makes of a seed, as a learner.

    Args:
        factory: Gives a scikit-learn estimator or a learner.
        seed: Whole number that it is called with.
        label: Column of the labels; a learner that names another one is refused.
        where: What named the function, for messages.
        classes: How many, for estimators, labels being 0, 1, ...; None: those found.

    Raises:
        ModelError: The function fails.
        SettingError: It gives something else, or a learner of another label.
        ModuleNotFoundError: It imports what is not there.

    Example:
        >>> from sklearn.linear_model import Ridge
        >>> made_learner(lambda seed: Ridge(), 0, "price", "the example").label
        'price'
    """
    try:
        made = factory(seed)
    except (MementoError, ModuleNotFoundError, MemoryError):
        raise
    except Exception as error:  # whatever a function of the user's may raise
        raise ModelError(
            f"{where} failed with the seed {seed}: {first_line(error)}; it is called with the "
            "seed, a whole number"
        ) from error
    if isinstance(made, type) or not isinstance(made, Learner):
        try:
            return SklearnLearner(made, label=label, classes=classes)
        except SettingError as error:
            raise SettingError(
                f"{where} gives {type(made).__name__}: {error}; expected a scikit-learn "
                "estimator, or a learner with fit, annotate, trained, state and restore"
            ) from error
    stated = getattr(made, "label", label)
    if stated != label:
        raise SettingError(
            f"{where} gives a learner with label={stated!r}, and the label is {label!r}; make "
            "them agree"
        )
    return made


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    text = reason_of(error)
    return text if isinstance(error, MementoError) else f"{type(error).__name__}: {text}"
