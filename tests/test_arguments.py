"""Wrong arguments of every public constructor are refused in it, by an error of ours."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import memento
from memento import (
    FIFO,
    ClassBalancedReservoir,
    Custom,
    DailyWindow,
    DensityReservoir,
    Every,
    FacilityLocation,
    GradientSampleSelection,
    Group,
    Herding,
    JensenShannon,
    KCenterGreedy,
    Learner,
    LossAwareReservoir,
    LossReservoir,
    Memento,
    Memory,
    Metric,
    Minkowski,
    OnArrivals,
    OnCount,
    OnCoverage,
    OnLoss,
    QueryByCommittee,
    Reservoir,
    Samples,
    SampleSpace,
    Wasserstein,
    arguments,
    coverage_increase,
)
from memento.arguments import Count, checked
from memento.errors import MementoError, SettingError
from memento.testing import ConstantLearner
from memento.training.early_stop import EarlyStop
from memento.training.ensemble import Ensemble
from memento.training.jtt import JustTrainTwice


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


class Truthless:
    def __bool__(self):
        raise RuntimeError("no")

    def __len__(self):
        raise RuntimeError("no")


HOSTILE = [
    *("", "x", "1", "\0", "a" * 10_000, b"x", None, True, False, ..., NotImplemented),
    *(0, -1, 2, 10**30, -(10**30), 10**5000, 0.5, -0.5, 1e308, math.nan, math.inf, -math.inf, 2j),
    *([], (), {}, set(), [[]], [None], ["y"], {"y": 1}, [1, "x"], [math.nan], range(3), iter([1])),
    *(np.array(3), np.array([1, 2]), np.array(["a"]), np.array([None]), np.float32("nan"), np.nan),
    *(np.datetime64("nat"), np.str_("x"), np.bool_(True), np.int64(-1), np.zeros((2, 0))),
    *(Decimal("1.5"), Fraction(1, 3), object(), int, len, lambda: None, Unprintable(), Truthless()),
]

LABELS = [JensenShannon.of_labels("y", 2)]
DATA = {"y": np.array([0, 1] * 20)}

#: Constructors and functions, each with arguments that are right.
CONSTRUCTORS = {
    "Memory": (Memory, {"capacity": 5, "policy": FIFO(), "seed": 0}),
    "Group": (Group, {"memories": [Memory(5, FIFO())], "weights": None, "seed": 0}),
    "SampleSpace": (SampleSpace, {"distances": LABELS}),
    "Memento": (Memento, {"distances": LABELS}),
    "DensityReservoir": (DensityReservoir, {"distances": LABELS}),
    "DailyWindow": (DailyWindow, {}),
    "ClassBalancedReservoir": (ClassBalancedReservoir, {}),
    "FacilityLocation": (FacilityLocation, {}),
    "GradientSampleSelection": (GradientSampleSelection, {}),
    "Herding": (Herding, {}),
    "KCenterGreedy": (KCenterGreedy, {}),
    "LossAwareReservoir": (LossAwareReservoir, {}),
    "LossReservoir": (LossReservoir, {}),
    "Metric": (Metric, {"column": "loss"}),
    "Metric.of_loss": (Metric.of_loss, {}),
    "Metric.of_confidence": (Metric.of_confidence, {}),
    "Metric.of_label_frequency": (Metric.of_label_frequency, {}),
    "Metric.of_flag": (Metric.of_flag, {"column": "stalled"}),
    "QueryByCommittee": (QueryByCommittee, {}),
    "Reservoir": (Reservoir, {}),
    "OnArrivals": (OnArrivals, {}),
    "OnCoverage": (OnCoverage, {}),
    "OnCount": (OnCount, {"samples": 5}),
    "OnLoss": (OnLoss, {}),
    "Every": (Every, {}),
    "Custom": (Custom, {"column": "y", "summary": np.ptp, "distance": np.subtract}),
    "JensenShannon.of_labels": (JensenShannon.of_labels, {"column": "y", "classes": 2}),
    "JensenShannon.of_probabilities": (JensenShannon.of_probabilities, {"column": "y"}),
    "JensenShannon.of_values": (JensenShannon.of_values, {"column": "y"}),
    "JensenShannon.of_densities": (
        JensenShannon.of_densities,
        {"column": "y", "support": [0, 1, 2]},
    ),
    "Wasserstein.of_values": (Wasserstein.of_values, {"column": "y"}),
    "Wasserstein.of_cdfs": (Wasserstein.of_cdfs, {"column": "y", "support": [0, 1, 2]}),
    "Wasserstein.of_normals": (Wasserstein.of_normals, {"mean": "m", "std": "s"}),
    "Minkowski": (Minkowski, {"column": "x"}),
    "coverage_increase": (
        coverage_increase,
        {"samples": DATA, "reference": DATA, "policy": SampleSpace(LABELS, batch_size=5)},
    ),
    "EarlyStop": (EarlyStop, {}),
    "JustTrainTwice": (JustTrainTwice, {"learner": ConstantLearner(classes=2), "factor": 2.0}),
    "Ensemble": (Ensemble, {"learner": ConstantLearner(classes=2)}),
}
# What takes any value: checked where it is used.
ANY = {("coverage_increase", "progress")}


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_wrong_arguments_are_refused_where_they_are_given(name):
    constructor, right = CONSTRUCTORS[name]
    parameters = inspect.signature(constructor).parameters
    named = [
        p.name
        for p in parameters.values()
        if p.kind is not p.VAR_KEYWORD and (name, p.name) not in ANY
    ]
    raw = []
    for argument in named:
        for value in HOSTILE:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    constructor(**{**right, argument: value})
            except MementoError:
                continue
            except Exception as error:
                raw.append(f"{argument}={arguments.shown(value)}: {error!r}")
    assert raw == []


def test_every_public_policy_and_trigger_is_tried():
    kinds = [
        name
        for name in memento.__all__
        if inspect.isclass(found := getattr(memento, name))
        and issubclass(found, (memento.Policy, memento.Trigger, memento.SampleSpace))
        and not inspect.isabstract(found)
        and inspect.signature(found).parameters
    ]
    assert set(kinds) <= set(CONSTRUCTORS)


@pytest.mark.parametrize("policy", [Memento, SampleSpace, DensityReservoir])
def test_distances_are_needed(policy):
    with pytest.raises(SettingError, match="no distances; give at least one"):
        policy()


def test_the_message_names_argument_value_and_expectation():
    with pytest.raises(SettingError, match=r"^seed is -1; expected a whole number, 0 or more"):
        Memory(5, FIFO(), seed=-1)
    with pytest.raises(SettingError, match=r"^forget is '0'; expected a share in"):
        Reservoir(forget="0")
    with pytest.raises(SettingError, match="a Unprintable that cannot be printed"):
        Reservoir(forget=Unprintable())


def test_numbers_of_numpy_will_do():
    assert Memory(np.int64(5), FIFO(), seed=np.int32(3)).capacity == 5
    policy = Memento([JensenShannon.of_labels("y", np.int64(3))], np.int16(4), np.float32(0.5))
    assert policy.settings()["batch_size"] == 4
    assert type(policy.settings()["distances"][0]["classes"]) is int


@checked
def _everything(
    samples: Samples,
    *names: str,
    number: float = 1.0,
    count: Count = 1,
    way: Literal["up", "down"] = "up",
    parts: Mapping[str, Path] | None = None,
    pairs: Sequence[tuple[str, int]] = (),
    function: Callable[[int], int] = abs,
    learner: Learner | None = None,
    array: np.ndarray | None = None,
    **rest: int,
) -> Samples:
    """The docstring stays."""
    return samples


@pytest.mark.parametrize(
    "right",
    [
        {"number": np.float32(3)},
        {"number": 3},
        {"parts": {"a": "b", "c": Path("d")}},
        {"parts": None},
        {"pairs": [("a", 1)]},
        {"pairs": np.zeros(3)},
        {"learner": ConstantLearner()},
        {"array": "anything"},
        {"more": "anything"},
    ],
)
def test_what_a_signature_says_is_taken(right):
    assert _everything({"y": [1, 2]}, "a", "b", **right).size == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"samples": 3},
        {"number": "3"},
        {"number": True},
        {"count": 0},
        {"count": None},
        {"way": "left"},
        {"way": ["up"]},
        {"parts": {"a": 1}},
        {"parts": {1: "a"}},
        {"parts": ["a"]},
        {"pairs": "ab"},
        {"pairs": 3},
        {"pairs": np.array(3)},
        {"function": None},
        {"learner": 3},
    ],
)
def test_what_a_signature_rules_out_is_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(SettingError, match=f"{name} is .*expected "):
        _everything(**{"samples": {"y": [1]}, **wrong})
    with pytest.raises(SettingError, match=r"names is .*expected a list, each a text"):
        _everything({}, "a", 3)


def test_a_checked_function_stays_what_it_is():
    assert _everything.__doc__ == "The docstring stays."
    assert inspect.signature(_everything).parameters["count"].default == 1
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'samples'"):
        _everything()
    samples = Samples(y=[1])
    assert _everything(samples) is samples, "what is right already is passed on"


def test_a_checked_class():
    @checked
    class Counter:
        def __init__(self, start: int) -> None:
            self.value = start

        def add(self, more: int) -> None:
            self.value += more

        def _any(self, more: int) -> None:
            self.value = more

    counter = Counter(3)
    counter._any("a part of its own, not looked at")
    for call in (lambda: Counter("a"), lambda: counter.add("a")):
        with pytest.raises(SettingError, match="expected a whole number"):
            call()
