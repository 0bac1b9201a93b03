"""What all commands show: words of the user's as they are, tables, JSON, how far the work is.

Names of columns, files, schemes and experiments are the user's. They are never read as markup, and
characters that would steer a terminal are shown as escapes.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import math
import re
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import typer
from rich import progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memento.cli.signals import terminated_like_interrupted

__all__ = [
    "Progress",
    "answer",
    "cell",
    "columns",
    "print_json",
    "print_table",
    "progress_of",
    "rows",
    "say",
    "show",
    "show_rows",
    "stoppable",
    "visible",
    "warn",
]

# Control characters but for tab and newline, marks that reorder text, and halves of surrogate
# pairs, which stand for bytes of file names that are no text.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_WIDE = 10_000  # columns where no terminal sets a limit: lines for programs are whole


def visible(text: object) -> str:
    r"""Text in which nothing steers a terminal.

    Example:
        >>> visible("\x1b]0;title\x07 of [bold]")
        '\\x1b]0;title\\x07 of [bold]'
    """
    return _STEERING.sub(lambda match: ascii(match[0])[1:-1], str(text))


def cell(value: object, style: str = "") -> Text:
    """What stands in one cell of a table, on one line and without markup."""
    return Text(visible(value).replace("\t", "\\t").replace("\n", "\\n"), style)


def say(text: object, *, err: bool = False) -> None:
    """Print a line."""
    typer.echo(visible(text), err=err)


def warn(text: object) -> None:
    """Print a warning on the error stream."""
    say(f"memento: warning: {text}", err=True)


def print_json(facts: Mapping[str, Any]) -> None:
    """Print one JSON object on one line; what is no finite number becomes null."""
    typer.echo(json.dumps(_plain(facts), default=str))


def answer(as_json: bool, facts: Mapping[str, Any], text: object = None) -> None:
    """End a command with one JSON object if that was asked for, else with a line, if any."""
    if as_json:
        print_json(facts)
    elif text is not None:
        say(text)


def columns(table: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Columns of a table as JSON knows them: NaN becomes null.

    Example:
        >>> columns({"arm": ["a", "b"], "gain": np.array([0.5, np.nan])})
        {'arm': ['a', 'b'], 'gain': [0.5, None]}
    """
    return {name: [_finite(v) for v in np.asarray(table[name]).tolist()] for name in table}


def rows(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same by rows."""
    named = columns(table)
    return [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)]


def _plain(value: Any) -> Any:
    """A value of which every number is one of JSON's."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return _finite(value)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(header: Sequence[object], rows: Iterable[Sequence[object]]) -> None:
    """Print a table of results for people on the error stream: a name, then numbers."""
    print_table(header, rows, err=True, right=range(1, len(header)))


def show_rows(rows: Sequence[Mapping[str, Any]], name: str | None = None) -> None:
    """Print rows as `rows` gives them, numbers with four digits.

    Args:
        rows: Of the same keys; none prints nothing.
        name: Of the first column, if not its key.
    """
    if rows:
        first, *others = rows[0]
        cells = [
            ["" if v is None else f"{v:.4g}" if isinstance(v, float) else v for v in row.values()]
            for row in rows
        ]
        show((name or first, *others), cells)


def print_table(
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    err: bool = False,
    right: Collection[int] = (),
) -> None:
    """Print a table, in whole lines where no terminal sets a width.

    Args:
        header: Names of the columns; empty for none.
        rows: Their cells: anything that is text, or `rich.text.Text`.
        err: On the error stream, which leaves standard output to programs.
        right: Columns to align to the right.
    """
    rows = list(rows)
    table = Table(box=None, pad_edge=False, show_header=bool(header))
    for i, name in enumerate(header or ("",) * max(map(len, rows), default=0)):
        table.add_column(cell(name), justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    console = Console(stderr=err, highlight=False)
    if console.is_terminal:
        console.print(table)
        return
    console.width = _WIDE
    with console.capture() as printed:
        console.print(table)
    lines = [line.rstrip() for line in printed.get().splitlines()]  # for logs and mails
    console.print("\n".join(lines), markup=False, soft_wrap=True)


class Progress(progress.Progress):
    """How far the work is, on the error stream: bars on a terminal, and plain lines elsewhere.

    A line is said for every stage that begins (a task that is new or has another description), but
    not more than one a second; and one every 20 s while nothing else is, so that a log never looks
    as if the work hung.

    Args:
        *columns: Behind the description and the bar; by default the count and the time.
        width: Of the description.
        transient: Whether bars go when they are done.
        after: Seconds from which on lines are said: those of work that is mostly short.
        stages: Whether the beginning of a stage is said.
    """

    every = 20.0

    def __init__(
        self,
        *columns: progress.ProgressColumn,
        width: int = 22,
        transient: bool = False,
        after: float = 0.0,
        stages: bool = True,
    ) -> None:
        console = Console(stderr=True, highlight=False)
        super().__init__(
            progress.TextColumn(f"{{task.description:{width}s}}", markup=False),
            progress.BarColumn(),
            *(columns or (progress.MofNCompleteColumn(),)),
            progress.TimeElapsedColumn(),
            console=console,
            transient=transient,
            disable=not console.is_terminal,
        )
        self._started = time.monotonic()
        self._next = self._started + after  # before this no stage is said
        self._last = self._next  # when something was said
        self._stages = stages
        self._current: progress.TaskID | None = None
        self._named: dict[str, progress.TaskID] = {}
        self._working, self._reminding = threading.Lock(), threading.Lock()

    def start(self) -> None:  # noqa: D102
        super().start()
        if self.disable and self._working.acquire(blocking=False):
            # Where memory is short a thread may end before it begins: `threading.Thread` would
            # wait for it for ever. Work goes on without reminders.
            self._reminding.acquire()
            try:
                _thread.start_new_thread(self._remind, ())
            except (RuntimeError, MemoryError):
                self._reminding.release()

    def stop(self) -> None:  # noqa: D102
        if self._working.locked():
            self._working.release()
            self._reminding.acquire(timeout=1)  # a line that is being said comes to its end
        if not self.disable:
            super().stop()

    def add_task(self, description: str, *args: Any, **kwargs: Any) -> progress.TaskID:  # noqa: D102
        task = super().add_task(visible(description), *args, **kwargs)
        self._begin(task)
        return task

    def update(self, task_id: progress.TaskID, **changes: Any) -> None:  # noqa: D102
        before = self._description(task_id)
        if changes.get("description") is not None:
            changes["description"] = visible(changes["description"])
        super().update(task_id, **changes)
        self._current = task_id
        if self._description(task_id) != before:
            self._begin(task_id)

    def report(self, done: float, total: float | None, name: str) -> None:
        """Say how far something is; it gets a bar of its own when it is named first."""
        if name not in self._named:
            self._named[name] = self.add_task(name, total=total)
        self.update(self._named[name], completed=done, total=total)

    def say(self, text: object) -> None:
        """Print a line, above the bars if there are any."""
        self._last = time.monotonic()
        self.console.print(Text(visible(text)), soft_wrap=True)

    def _description(self, task: progress.TaskID) -> str:
        known = self._tasks.get(task)
        return "" if known is None else known.description

    def _begin(self, task: progress.TaskID) -> None:
        self._current = task
        now = time.monotonic()
        if self.disable and self._stages and now >= self._next and self._description(task):
            self._next = now + 1
            self.say(f"memento: {self._description(task)}")

    def _remind(self) -> None:
        with contextlib.suppress(MemoryError):
            while not self._working.acquire(timeout=min(1.0, self.every)):
                if time.monotonic() - self._last >= self.every:
                    self.say(f"memento: {self._state()}")
        self._reminding.release()

    def _state(self) -> str:
        task = None if self._current is None else self._tasks.get(self._current)
        name = task.description if task is not None and task.description else "still at work"
        share = f", {task.percentage:.0f} %" if task is not None and task.total else ""
        left = None if task is None else task.time_remaining
        ahead = f", about {left:,.0f} s left" if left else ""
        return f"{name}{share}, {time.monotonic() - self._started:,.0f} s so far{ahead}"


@contextlib.contextmanager
def progress_of(
    what: str, total: float | None = None, *, quiet: bool = False, width: int = 22
) -> Iterator[Callable[..., None]]:
    """How far one piece of work is.

    Args:
        what: Its name.
        total: Of its parts, if known.
        quiet: It is mostly short: nothing is said at first, and nothing stays.
        width: Of the name.

    Yields:
        What to call with parts done, parts in all, and what is being worked on; each may be left
        out.
    """
    with Progress(transient=quiet, after=5.0 if quiet else 0.0, width=width) as bar:
        task = bar.add_task(what, total=total)

        def tell(done: float | None = None, total: float | None = None, now: str = "") -> None:
            bar.update(
                task,
                completed=done,
                total=total,
                description=(now if bar.disable else now[:width]) or what,
            )

        yield tell


@contextlib.contextmanager
def stoppable(then: str = "the same command goes on from here") -> Iterator[None]:
    """Ctrl-C and SIGTERM end all that runs, and what to do then is said.

    Args:
        then: What to do.
    """
    with terminated_like_interrupted() as ending:
        try:
            yield
        except KeyboardInterrupt:
            say(f"stopped; {then}", err=True)
            raise typer.Exit(128 + (ending() or signal.SIGINT)) from None
