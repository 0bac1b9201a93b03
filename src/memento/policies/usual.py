"""Policies by name with what they need to know of a stream, and the one for strangers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from memento import arguments
from memento.distances import Distance, JensenShannon
from memento.policies._policy import Policy, policy_class
from memento.policies._table import policy_from_table
from memento.policies.loss_reservoir import LossReservoir
from memento.policies.reservoir import Reservoir

__all__ = ["recommended_policy", "usual_distances", "usual_policy"]


def recommended_policy(capacity: int, classes: int | None = None) -> Policy:
    """The policy to begin with on a stream that nothing is known of.

    For classes a `LossReservoir`, which needs a column ``loss`` from the learner and training with
    ``memory.weights``, as `memento.run` does it: on ten streams that it was not made for, its mean
    score was better than a random memory's on five (linear models) and six (networks), and worse on
    none by more than chance. For numbers, or where it is not known, a random memory. Neither has a
    better tail than a temperature buys (`training.Calibrated`) on most streams; `memento.backtest`
    says what holds on yours.

    Args:
        capacity: Samples that the memory holds at most.
        classes: How many there are; None for numbers, or if it is not known.

    Raises:
        SettingError: A number below 1.

    Example:
        >>> recommended_policy(1000), recommended_policy(1000, classes=2).kind
        (Reservoir(forget=0.0), 'loss-reservoir')
    """
    arguments.require("capacity", capacity, arguments.whole())
    arguments.require("classes", classes, arguments.optional(arguments.whole()))
    return Reservoir() if classes is None else LossReservoir()


def usual_distances(label: str, *, numbers: bool) -> list[Distance]:
    """How samples are compared if nothing else is said: by prediction and label.

    Args:
        label: Column of the labels.
        numbers: Whether labels and predictions are numbers; else classes and probabilities.
    """
    if numbers:
        return [JensenShannon.of_values("yhat"), JensenShannon.of_values(label)]
    return [JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels(label)]


def usual_policy(
    kind: str,
    label: str = "y",
    *,
    numbers: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Policy:
    """A policy by the name of its kind, for streams with inputs ``x`` and predictions ``yhat``.

    Args:
        kind: One of `named_policies`, or of what other distributions add.
        label: Column of the labels.
        numbers: Whether labels and predictions are numbers; else classes and probabilities.
        settings: What is not as usual; see `policy_from_table`.

    Raises:
        SettingError: There is no such kind, or a setting does not fit.

    Example:
        >>> usual_policy("class-balanced-reservoir", "fraud").label
        'fraud'
    """
    names = {field.name for field in fields(policy_class(kind, "Take one of these"))}  # type: ignore[arg-type]
    defaults = {"label": label, "features": "x"}
    if "distances" in names:
        defaults["missing"] = "skip"  # there are no predictions before the first model
    elif kind == "loss-aware-reservoir":
        defaults["missing"] = "equal"  # nor losses
    elif kind == "loss-reservoir":
        defaults["scale"] = "absolute" if numbers else "log"
    usual = usual_distances(label, numbers=numbers)
    return policy_from_table({**(settings or {}), "kind": kind}, usual=usual, defaults=defaults)
