"""What a variant remembers between two days: the memory of each task, and what each day brought.

All of it is one snapshot that is replaced at once, when a day is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from memento import arguments, snapshot
from memento.errors import DamagedError
from memento.memory import Memory
from memento.snapshot import field_of

__all__ = ["DayRecord", "TaskState", "VariantState"]

_KIND = "memento-deployment-variant"
_NUMBERS = arguments.optional(arguments.flag())
_VERSION = arguments.optional(arguments.text("a version"))


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
        rolled_back: Version that serves again from this day on, because that after it was worse.
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
    rolled_back: str | None = None

    @property
    def counts(self) -> bool:
        """Whether the day was worked on in its place."""
        return self.state in ("done", "refused")


@dataclass
class TaskState:
    """The state of one task of a variant.

    Attributes:
        memory: What is held; None before the first day.
        numbers: Whether labels are numbers; else they are classes. None before the first day.
    """

    memory: Memory | None = None
    numbers: bool | None = None


@dataclass
class VariantState:
    """The state of one variant.

    Attributes:
        tasks: By label.
        days: Records by day.
        serving: What served, in a folder of before there was a history; None since.
    """

    tasks: dict[str, TaskState]
    days: dict[str, DayRecord] = field(default_factory=dict)
    serving: str | None = None

    @property
    def last(self) -> str:
        """The last day that counts; an empty text before the first."""
        return max((day for day, record in self.days.items() if record.counts), default="")

    @property
    def memory(self) -> Memory | None:
        """That of the only task, or of the first."""
        return next(iter(self.tasks.values())).memory

    @property
    def held(self) -> int:
        """Samples in the memories."""
        return sum(len(task.memory) for task in self.tasks.values() if task.memory is not None)

    @classmethod
    def load(cls, folder: Path, labels: Sequence[str]) -> VariantState:
        """What `save` wrote; an empty state where there is none.

        Raises:
            DamagedError, ForeignError: The folder holds something else.
        """
        state = cls({label: TaskState() for label in labels})
        if not snapshot.exists(folder):
            return state
        found = snapshot.read(folder, _KIND)
        document = found.documents.get("state")
        where = f"{folder}: state.json"
        try:
            state.days = {row["day"]: DayRecord(**row) for row in document["days"]}  # type: ignore[index]
            numbers = document["numbers"]  # type: ignore[index]
        except (KeyError, TypeError) as error:
            raise DamagedError(f"{where} is incomplete ({error!r}); restore a copy") from error
        state.serving = field_of(document, "serving", _VERSION, where, absent=True)
        if not isinstance(numbers, Mapping):  # of before there were tasks
            numbers = {labels[0]: numbers}
        for label, task in state.tasks.items():
            task.numbers = field_of(numbers, label, _NUMBERS, where)
            prefix = state._prefix(label)
            documents = snapshot.with_prefix(found.documents, prefix)
            if documents:
                task.memory = Memory.restore(snapshot.with_prefix(found.arrays, prefix), documents)
        return state

    def save(self, folder: Path) -> None:
        """Replace what the folder holds, all at once."""
        arrays: dict[str, Any] = {}
        documents: dict[str, Any] = {
            "state": {
                "days": [asdict(self.days[day]) for day in sorted(self.days)],
                "numbers": {name: task.numbers for name, task in self.tasks.items()},
            }
        }
        for label, task in self.tasks.items():
            if task.memory is not None:
                held, described = task.memory.dump()
                prefix = self._prefix(label)
                arrays |= {f"{prefix}{name}": array for name, array in held.items()}
                documents |= {f"{prefix}{name}": value for name, value in described.items()}
        folder.parent.mkdir(parents=True, exist_ok=True)
        snapshot.write(folder, _KIND, arrays, documents)

    def _prefix(self, label: str) -> str:
        return f"{label}/memory/" if len(self.tasks) > 1 else "memory/"

    def note(self, record: DayRecord) -> bool:
        """Take down what became of a day; False if it was down already."""
        if self.days.get(record.day) == record:
            return False
        self.days[record.day] = replace(record, figures=dict(record.figures))
        return True
