"""Names that options take, as the shell completes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from memento import plugins
from memento.integrations.tabular import MODELS
from memento.policies import named_policies
from memento.retrain import named_triggers

__all__ = ["groups", "listed", "models", "policies", "selecting", "triggers"]

#: Policies that `memento select` can decide by.
SELECTING = ("memento", "density-reservoir", "reservoir", "class-balanced-reservoir")


def policies(incomplete: str) -> list[str]:
    """Kinds of policies, those of other distributions among them.

    Args:
        incomplete: What was typed so far.

    Example:
        >>> policies("density")
        ['density-reservoir']
    """
    return _beginning({*named_policies, *plugins.installed(plugins.POLICIES)}, incomplete)


def selecting(incomplete: str) -> list[str]:
    """Policies that `memento select` can decide by."""
    return _beginning(SELECTING, incomplete)


def triggers(incomplete: str) -> list[str]:
    """Kinds of triggers, likewise; one every few units with the number of units still to type."""
    kinds = {*named_triggers, *plugins.installed(plugins.TRIGGERS)} - {"every"}
    return _beginning({*kinds, "every-"}, incomplete)


def models(incomplete: str) -> list[str]:
    """Models that `memento backtest` has by name."""
    return _beginning(MODELS, incomplete)


def groups(incomplete: str) -> list[str]:
    """Groups of experiments that installed distributions declare."""
    return _beginning(plugins.installed(plugins.EXPERIMENTS), incomplete)


def listed(names: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """The same for lists with commas, of which the last name is completed.

    Example:
        >>> listed(models)("hgb,log")
        ['hgb,logistic']
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names(last)]

    return complete


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
