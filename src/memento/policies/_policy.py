"""What a policy is: a choice of rows, made from columns and a generator alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from memento.arguments import check_fields, shown
from memento.distances import distance_from_settings
from memento.errors import DamagedError, SettingError
from memento.kinds import class_of, described, made_of, settings_of
from memento.landmarks import Approximation
from memento.samples import Samples

__all__ = [
    "Choice",
    "Policy",
    "State",
    "named_policies",
    "policy_class",
    "policy_from_settings",
]

#: Policies by the name that settings use; subclasses of `Policy` with a ``kind`` add themselves.
named_policies: dict[str, type[Policy]] = {}


@dataclass(frozen=True)
class State:
    """What a policy has to remember between inserts. The memory keeps it and saves it.

    Attributes:
        counters: Numbers, such as the samples seen so far.
        marks: Arrays with one entry for every row that is held, such as a key drawn for life.
    """

    counters: Mapping[str, int | float] = field(default_factory=dict)
    marks: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """Which rows stay, and what to remember.

    Attributes:
        rows: ``(m,)`` int64, ascending and without repetition. Numbers below ``held.size`` are rows
            that are held, the others rows of the fresh samples.
        counters: Counters after the choice.
        marks: The new marks, each with ``m`` entries in the order of ``rows``.
        approximations: How densities were made that might be approximate.
    """

    rows: np.ndarray
    counters: Mapping[str, int | float] = field(default_factory=dict)
    marks: Mapping[str, np.ndarray] = field(default_factory=dict)
    approximations: tuple[Approximation, ...] = ()


class Policy(ABC):
    """Chooses which samples a memory keeps.

    A policy sees columns and a generator, never a model or a file. It is immutable: what it has to
    remember lies in the memory's `State`, so one policy can serve many memories, and saving a
    memory saves everything. Subclasses are frozen dataclasses whose fields are their settings; a
    ``kind`` makes them loadable by name.
    """

    #: Name under which settings on disk refer to this policy.
    kind: ClassVar[str | None] = None
    #: Settings that name a column which is read.
    columns_by: ClassVar[tuple[str, ...]] = ("label", "loss", "column", "features", "gradients")
    #: Whether samples that lack what is read wait beside the policy's own until they have it; False
    #: for a policy that can judge them by what they have.
    waits: ClassVar[bool] = True
    #: Whether `choose` can also thin what is held, if it is more than the capacity.
    thins: ClassVar[bool] = False
    #: Marks that are read of what is held, and the kind of their dtype: "f" or "i".
    mark_types: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.kind is not None:
            named_policies[cls.kind] = cls

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def choose(
        self,
        held: Samples,
        fresh: Samples,
        capacity: int | None,
        state: State,
        rng: np.random.Generator,
    ) -> Choice:
        """Choose at most ``capacity`` of the rows held and fresh.

        Args:
            held: What the memory holds; without columns at the first insert.
            fresh: New samples, at least one.
            capacity: Most rows to keep; None for any number.
            state: What the last choice said to remember (empty at first).
            rng: The memory's generator, the only source of randomness.

        Neither ``held``, ``fresh`` nor ``state`` may be changed.
        """

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that choices are made by: those of distances, and those that settings name."""
        named = [getattr(self, setting, None) for setting in self.columns_by]
        distances = [c for d in getattr(self, "distances", ()) for c in d.columns]
        return tuple(dict.fromkeys([*distances, *(name for name in named if name)]))

    @property
    def tolerates(self) -> tuple[str, ...]:
        """Columns that it reads, and in which it takes gaps for what they are."""
        return ()

    def check(self, fresh: Samples) -> None:  # noqa: B027 - most policies accept anything
        """Raise if new samples lack what this policy needs.

        Raises:
            SchemaError: A column is missing or of the wrong kind.
            DomainError: Values are outside their domain.
        """

    def check_capacity(self, capacity: int | None) -> None:  # noqa: B027 - any will usually do
        """Raise if this policy can do nothing with a capacity.

        Raises:
            SettingError: With what would do.
        """

    def check_state(self, state: State, size: int) -> None:
        """Raise if a state, which may come from anybody's file, is none of this policy's.

        Args:
            state: Finite counters, and marks of ``size`` entries.
            size: Number of rows held.

        Raises:
            DamagedError: A mark is missing, or of another type.
        """
        for name, kind in self.mark_types.items() if size else ():
            mark = state.marks.get(name)
            if mark is None or mark.ndim != 1 or mark.dtype.str[1:] != f"{kind}8":
                found = "missing" if mark is None else f"{mark.dtype} of shape {mark.shape}"
                raise DamagedError(f"the mark {name!r} of {self!r} is {found}")
            if not np.isfinite(mark).all():
                raise DamagedError(f"the mark {name!r} of {self!r} is not finite everywhere")

    def weights(self, state: State, size: int) -> np.ndarray | None:
        """Weights for training on what is held.

        Args:
            state: State of the memory.
            size: Number of rows held.

        Returns:
            ``(size,)`` float64, above 0, as estimates of how many samples of the stream each stands
            for; None if the policy cannot say.
        """
        return None

    def merge(self, first: State, second: State, capacity: int | None) -> Choice:
        """Join what two memories with this policy hold, of streams that share no sample.

        Args:
            first: State of one memory.
            second: State of the other.
            capacity: Most rows to keep; None for any number.

        Returns:
            ``rows`` count through the rows of the first memory, then those of the second.

        Raises:
            SettingError: This policy cannot be merged.
        """
        raise SettingError(
            f"{type(self).__name__} cannot merge memories; insert the samples of one into the other"
        )

    def settings(self) -> dict[str, Any]:
        """What `policy_from_settings` needs to make an equal policy; plain JSON values."""
        return {"kind": self.kind or type(self).__qualname__, **described(self)}


_REMEDY = "Import the module that defines it, or give the policy when loading"


def policy_class(kind: object, remedy: str = _REMEDY) -> type[Policy]:
    """The class of policies of a kind: of the library, an imported module, or an entry point.

    Args:
        kind: Kind that is looked for, such as ``"memento"``.
        remedy: What to do about an unknown one, for the message.

    Raises:
        SettingError: There is none; or the entry point of ``memento.policies`` cannot be loaded.
    """
    made: type[Policy] = class_of("policy", kind, named_policies, Policy, remedy)
    if not hasattr(made, "__dataclass_fields__"):
        raise SettingError(f"policy {kind!r} is no dataclass; put @dataclass(frozen=True) over it")
    return made


def policy_from_settings(settings: Mapping[str, Any]) -> Policy:
    """The policy that `Policy.settings` described.

    Raises:
        SettingError: The kind is unknown (import the module that defines it first, or give the
            policy to ``Memory.load``), or the values do not fit.

    Example:
        >>> from memento.policies import Reservoir
        >>> policy_from_settings(Reservoir().settings())
        Reservoir(forget=0.0)
    """
    arguments = settings_of("policy", settings)
    kind = arguments.pop("kind", None)
    made = policy_class(kind)
    if "distances" in arguments:
        several = arguments["distances"]
        if not isinstance(several, (list, tuple)):
            raise SettingError(f"distances is {shown(several)}; expected a list")
        arguments["distances"] = tuple(distance_from_settings(d) for d in several)
    policy: Policy = made_of("policy", kind, made, arguments)
    return policy


def everything(held: Samples, fresh: Samples) -> np.ndarray:
    """All rows: what policies choose while there is room."""
    return np.arange(held.size + fresh.size, dtype=np.int64)


def column_of(name: str, held: Samples, fresh: Samples) -> np.ndarray:
    """One column of held and fresh rows together, copied."""
    return np.concatenate([held[name], fresh[name]]) if held.size else fresh[name].copy()


def extend_mark(state: State, name: str, held: Samples, fresh: np.ndarray) -> np.ndarray:
    """A mark of the rows held, continued by that of the fresh ones."""
    return np.concatenate([state.marks[name], fresh]) if held.size else fresh


def take_marks(marks: Mapping[str, np.ndarray], rows: Sequence[int] | np.ndarray) -> dict[str, Any]:
    """Marks of held and fresh rows together, for the chosen rows only."""
    return {name: values[rows] for name, values in marks.items()}
