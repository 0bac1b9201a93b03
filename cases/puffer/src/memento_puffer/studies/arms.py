"""The arms of this case, by name: how samples are chosen, and what else tells an arm from others.

One table and one glossary for replays, closed loops, experiments, commands and pages:

    random       a uniform sample of all that came (a reservoir)
    forgetting   a random sample that drops a tenth with every insert, as the paper's baseline does
    daily        Fugu's own scheme: 14 days of which recent ones weigh more, trained every day
    static       the first model, never trained again
    memento      as published; ``-T0`` with temperature 0, ``-defaults`` with the library's defaults
    -calibrated  predictions have a softmax temperature that is fitted to each day before it is used
    -arrivals    trained when `memento.OnArrivals` says so

A replay takes every arm of `REPLAYED`, a closed loop those of `CONTROLLED`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from memento.distances import Minkowski
from memento.errors import SettingError
from memento.policies import Policy, named_policies
from memento_puffer.deployment.deploy_settings import puffer_policy

__all__ = ["ARMS", "CONTROLLED", "FORMER", "REPLAYED", "Arm", "named", "policy_of", "renamed"]


@dataclass(frozen=True)
class Arm:
    """A way to choose samples, and when and how to train on them.

    Attributes:
        policy: Kind and settings of its memories' policy, see `puffer_policy`.
        settings: What it changes of the settings of a replay.
        waits: When it is trained in a closed loop: "coverage", once that has risen; "arrivals",
            when what comes is new or worse (`memento.OnArrivals`, by streams); or None, every day.
        weighted: Whether trainings use the weights that the policy states.
        frozen: Whether it stays with the first model, whatever comes.
        share: Capacity of its memory, in capacities of the comparison; above 0.
        softened: Logits of its networks are divided by this when they predict; above 0. More than 1
            says less certain things: it gives up some of the median for the tail.
        calibrated: Whether that number is fitted instead, to each day's labels before anything of
            the day is learned, see `memento.training.Calibrated`.
    """

    policy: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    waits: Literal["coverage", "arrivals"] | None = None
    weighted: bool = True
    frozen: bool = False
    share: float = 1.0
    softened: float = 1.0
    calibrated: bool = False


def _library(kind: str) -> dict[str, Any]:
    """What the library does for those who name nothing but the distances."""
    fields = dataclasses.fields(named_policies[kind])  # type: ignore[arg-type]
    defaults = {f.name: f.default for f in fields if f.name != "distances"}
    return {"kind": kind, **defaults, "missing": "skip"}  # before there is any model


def _metric(column: str, measure: str, **settings: Any) -> dict[str, Any]:
    # The paper's metrics judge single samples.
    return {"kind": "metric", "column": column, "measure": measure, "batch_size": None, **settings}


def _euclidean(column: str, **settings: Any) -> dict[str, Any]:
    """Means of batches instead of distributions."""
    distances = [Minkowski(name).settings() for name in (column, "seconds")]
    return {"kind": "memento", "distances": distances, **settings}


_RANDOM = {"kind": "reservoir"}
_MEMENTO = {"kind": "memento"}
_DENSITY = {"kind": "density-reservoir"}
_PREDICTED = {"predict_first": True}  # knows no sample without a prediction
_DAILY = {"interval": 1, "trigger": "always", "jtt": 1.0, "members": 1}
_UNTIL_EMBEDDED = {"missing": "random"}  # until a last hidden layer tells samples apart

ARMS: Mapping[str, Arm] = {
    "static": Arm(_RANDOM, frozen=True),
    "random": Arm(_RANDOM),
    "memento": Arm(_MEMENTO, waits="coverage"),
    "density-reservoir": Arm(_DENSITY, waits="coverage"),
    "memento-T0": Arm({**_MEMENTO, "temperature": 0.0}, waits="coverage"),
    "density-reservoir-unweighted": Arm(_DENSITY, waits="coverage", weighted=False),
    "daily": Arm({"kind": "daily-window", "days": 14, "decay": 0.9}, _DAILY),
    "forgetting": Arm({**_RANDOM, "forget": 0.1}),
    # Controls of whatever selects: more samples at random, and networks that are less certain.
    "random-triple": Arm(_RANDOM, share=3.0),
    "random-softened": Arm(_RANDOM, softened=1.5),
    "random-calibrated": Arm(_RANDOM, calibrated=True),
    "memento-calibrated": Arm(_MEMENTO, waits="coverage", calibrated=True),
    "density-reservoir-calibrated": Arm(_DENSITY, waits="coverage", calibrated=True),
    # The library's trigger instead of coverage.
    "random-arrivals": Arm(_RANDOM, waits="arrivals"),
    "memento-arrivals": Arm(_MEMENTO, waits="arrivals"),
    "density-reservoir-arrivals": Arm(_DENSITY, waits="arrivals"),
    "memento-defaults": Arm(_library("memento"), waits="coverage"),
    "density-reservoir-defaults": Arm(_library("density-reservoir"), waits="coverage"),
    "fifo": Arm({"kind": "fifo"}),
    "euclidean": Arm(_euclidean("yhat")),
    "euclidean-inputs": Arm(_euclidean("z", sort_by=["y", "x"])),
    "loss": Arm(_metric("loss", "negative"), _PREDICTED),
    "confidence": Arm(_metric("yhat", "confidence"), _PREDICTED),
    "labels": Arm(_metric("y_bin", "frequency", temperature=0.01)),
    "stalled": Arm(_metric("stalled", "unset", temperature=0.01)),
    "loss-aware": Arm({"kind": "loss-aware-reservoir", "missing": "random"}),
    "class-balanced": Arm({"kind": "class-balanced-reservoir"}),
    "herding": Arm({"kind": "herding", **_UNTIL_EMBEDDED}),
    "k-center": Arm({"kind": "k-center-greedy", **_UNTIL_EMBEDDED}),
    "facility-location": Arm({"kind": "facility-location", **_UNTIL_EMBEDDED}),
    "gradient": Arm({"kind": "gradient-sample-selection", **_UNTIL_EMBEDDED}),
    "unbounded": Arm({"kind": "unbounded"}, {"capacity": None}),
    "committee": Arm({"kind": "query-by-committee"}, {"members": 7}),
}

#: Those that a replay takes.
REPLAYED = tuple(
    name
    for name, one in ARMS.items()
    if not one.frozen and one.softened == 1 and one.waits != "arrivals"
)
#: Those that drive Fugu in the end of a closed loop.
CONTROLLED = tuple(ARMS)[: tuple(ARMS).index("fifo")]
#: Names of until 0.1.0 that are still understood. ``random`` of a replay is now ``forgetting``.
FORMER = {"reservoir": "random", "daily-window": "daily", "window": "daily"}

#: Names in results of until 0.1.0, where a random memory that forgets was called random.
_IN_FORMER_RESULTS = {"random": "forgetting", "reservoir": "random"}


def renamed(name: str) -> str:
    """The name of today of an arm, or of one with settings, in results of until 0.1.0.

    Example:
        >>> renamed("random-jtt=2"), renamed("memento-T0")
        ('forgetting-jtt=2', 'memento-T0')
    """
    first, dash, rest = name.partition("-")
    return _IN_FORMER_RESULTS.get(first, first) + dash + rest


def named(name: str, among: Iterable[str] = REPLAYED) -> str:
    """The name of an arm as it is called now.

    Args:
        name: Of an arm, or one of `FORMER`.
        among: Which arms there are.

    Raises:
        SettingError: There is none of this name.

    Example:
        >>> named("reservoir")
        'random'
    """
    now = FORMER.get(name, name)
    if now not in among:
        raise SettingError(f"no arm {name!r}; there are {', '.join(among)}")
    return now


def policy_of(name: str, **fields: Any) -> Policy:
    """The policy of an arm.

    Args:
        name: One of `ARMS`.
        **fields: Settings where its kind has such: temperature, bandwidth, batch_size, ...; None
            for the arm's own. They win over the arm's, except that a batch size which is part of
            what the arm is stays.

    Raises:
        SettingError: A value that does not fit.

    Example:
        >>> policy_of("memento-T0", batch_size=64, forget=0.5).batch_size
        64
    """
    own = dict(ARMS[name].policy)
    kind = own.pop("kind")
    known = [f.name for f in dataclasses.fields(named_policies[kind])]  # type: ignore[arg-type]
    given = {key: value for key, value in fields.items() if key in known and value is not None}
    if "batch_size" in own:
        given.pop("batch_size", None)
    return puffer_policy(kind, **{**own, **given})
