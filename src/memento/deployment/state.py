"""What a variant remembers between two days: its memory, what serves, and what each day brought.

All of it is one snapshot that is replaced at once, when a day is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from memento import arguments, snapshot
from memento.errors import DamagedError
from memento.memory import Memory
from memento.snapshot import field_of

__all__ = ["STATES", "DayRecord", "VariantState"]

STATES = ("done", "missing", "late", "refused", "failed")
_KIND = "memento-deployment-variant"
_TEXTS = arguments.Expected(
    "a list of texts",
    lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
)


@dataclass(frozen=True)
class DayRecord:
    """What became of a day.

    Attributes:
        day: Such as ``2026-01-07``.
        state: ``done``; ``missing``: no file, and a later day is there; ``late``: the file came
            after a later day was done; ``refused``: done, but the gate kept the new model out;
            ``failed``: nothing of it counts, see the reason.
        trained: Whether a model was trained.
        published: Whether it serves from this day on, under the day's name.
        reason: One sentence.
        served: Version that predicted the day.
        offered: Samples that came.
        held: Samples in the memory afterwards.
        figures: Numbers by name: scores of what served, evidence, what the gate measured.
        digest: SHA-256 of the file of a day that failed.
    """

    day: str
    state: str
    trained: bool = False
    published: bool = False
    reason: str = ""
    served: str | None = None
    offered: int = 0
    held: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    digest: str | None = None

    @property
    def counts(self) -> bool:
        """Whether the day was worked on in its place."""
        return self.state in ("done", "refused")


@dataclass
class VariantState:
    """The state of one variant.

    Attributes:
        memory: What is held; None before the first day.
        serving: Version that serves; None before the first.
        versions: All that were published, in order.
        days: Records by day.
        rollbacks: ``[from, to]`` for each, in order.
        numbers: Whether labels are numbers; else they are classes. None before the first day.
    """

    memory: Memory | None = None
    serving: str | None = None
    versions: list[str] = field(default_factory=list)
    days: dict[str, DayRecord] = field(default_factory=dict)
    rollbacks: list[list[str]] = field(default_factory=list)
    numbers: bool | None = None

    @property
    def last(self) -> str:
        """The last day that counts; an empty text before the first."""
        return max((day for day, record in self.days.items() if record.counts), default="")

    @classmethod
    def load(cls, folder: Path) -> VariantState:
        """What `save` wrote; an empty state where there is none.

        Raises:
            DamagedError, ForeignError: The folder holds something else.
        """
        if not snapshot.exists(folder):
            return cls()
        found = snapshot.read(folder, _KIND)
        document = found.documents.get("state")
        where = f"{folder}: state.json"
        serving = arguments.optional(arguments.text("a version"))
        state = cls(
            serving=field_of(document, "serving", serving, where),
            versions=field_of(document, "versions", _TEXTS, where),
            numbers=field_of(document, "numbers", arguments.optional(arguments.flag()), where),
        )
        try:
            state.days = {row["day"]: DayRecord(**row) for row in document["days"]}  # type: ignore[index]
            state.rollbacks = [list(pair) for pair in document["rollbacks"]]  # type: ignore[index]
        except (KeyError, TypeError) as error:
            raise DamagedError(f"{where} is incomplete ({error!r}); restore a copy") from error
        documents = snapshot.with_prefix(found.documents, "memory/")
        if documents:
            arrays = snapshot.with_prefix(found.arrays, "memory/")
            state.memory = Memory.restore(arrays, documents)
        return state

    def save(self, folder: Path) -> None:
        """Replace what the folder holds, all at once."""
        arrays: dict[str, Any] = {}
        documents: dict[str, Any] = {
            "state": {
                "serving": self.serving,
                "versions": self.versions,
                "days": [asdict(self.days[day]) for day in sorted(self.days)],
                "rollbacks": self.rollbacks,
                "numbers": self.numbers,
            }
        }
        if self.memory is not None:
            held, described = self.memory.dump()
            arrays = {f"memory/{name}": array for name, array in held.items()}
            documents |= {f"memory/{name}": value for name, value in described.items()}
        folder.parent.mkdir(parents=True, exist_ok=True)
        snapshot.write(folder, _KIND, arrays, documents)

    def note(self, record: DayRecord) -> bool:
        """Take down what became of a day; False if it was down already."""
        if self.days.get(record.day) == record:
            return False
        self.days[record.day] = replace(record, figures=dict(record.figures))
        return True
