"""The paper's demo in its three steps: a week of days, what viewers got, memories replayed."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from memento.cli import ui
from memento.days import parse_days
from memento.errors import MementoError, StorageError
from memento.files import storage_errors
from memento_puffer.cli.main import analyze, download, simulate
from memento_puffer.cli.options import DayOptions, StoredDayOptions, TrainingOptions
from memento_puffer.cli.replay import PolicyOptions, ReplayOptions, replay

if TYPE_CHECKING:
    from memento_puffer.cli.demo import DemoOptions

__all__ = ["STEPS", "WEEK", "run_step"]

WEEK = "2023-07-03..2023-07-09"
"""The days of the paper's demo."""

_FIRST = WEEK.partition("..")[0]


def run_step(step: str, options: DemoOptions, out: Path, ask: float) -> None:
    """One step; the page of what is there after it.

    Args:
        step: One of `STEPS`.
        options: Of the demo: viewers of a simulated day, capacity, seed.
        out: Folder of the week.
        ask: Seconds that the release may take to answer; 0: it is not asked.

    Raises:
        StorageError: The days are not there yet, or a folder cannot be written to.
    """
    if step != "download" and not any((out / "days").glob("*")):
        raise StorageError(
            f"{out / 'days'} holds no day; run memento demo download --out {out} first"
        )
    with storage_errors("make the folder", out):
        out.mkdir(parents=True, exist_ok=True)
    try:
        STEPS[step](options, out, ask)
    except typer.Exit:  # some of the days could not be used, which has been said
        _write_page(step, out)
        raise
    _write_page(step, out)


def _write_page(step: str, out: Path) -> None:
    if step != "download":
        from memento.report.folders import open_report

        page = out / "report.html"
        open_report(out).write(page)
        ui.say(f"the page of the week is {page}", err=True)


def _download(options: DemoOptions, out: Path, ask: float) -> None:
    """The week's days, real where the storage answers in time; what is there already stays."""
    left = [day for day in parse_days(WEEK) if not (out / "days" / day).is_dir()]
    if any((out / "days").glob("*/sessions_*.parquet")):  # simulated days, each there as a whole
        if left:
            days = f"{left[0]}..{left[-1]}"
            ui.say(f"days are simulated that are not there yet: {days}", err=True)
            _simulate(days, options, out)
        else:
            ui.say(f"{out / 'days'} holds the week; remove it to begin anew", err=True)
        return
    wrong = "" if any((out / "days").glob("*")) else unreachable(ask)
    if not wrong:
        ui.say("Puffer's storage answers: the week is downloaded, some gigabytes a day", err=True)
        download(WEEK, out / "days", models=True, seed=options.seed)
        return
    ui.say(f"{wrong}: the week is simulated, {options.viewers} viewers a day", err=True)
    _simulate(WEEK, options, out)


def _simulate(days: str, options: DemoOptions, out: Path) -> None:
    simulate(
        days,
        out / "days",
        sessions=options.viewers,
        content=False,
        origin=_FIRST,
        seed=options.seed,
    )


def unreachable(ask: float) -> str:
    """Why real days cannot be had; empty if they can: a small file was fetched in time."""
    if ask <= 0:
        return "Puffer's storage was not asked"
    from memento_puffer.data import download as case

    said: list[str] = []

    def fetch() -> None:
        patience = case.Patience(connect=ask, read=ask, answer=ask, attempts=1)
        with tempfile.TemporaryDirectory(prefix="memento-demo-") as folder:
            try:
                found = case.download(
                    _FIRST,
                    folder,
                    kinds=["expt_settings"],
                    data_url=case.DATA_URL,
                    patience=patience,
                )
            except MementoError as error:
                said.append(str(error))
            else:
                state = found.records[0].state
                said.append("" if state == "fetched" else f"{state}: {found.records[0].error}")

    # The system may wait longer for a name that nobody resolves than for a connection.
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(ask)
    if not said:
        return f"Puffer's storage did not answer within {ask:g} s"
    return f"Puffer's storage gives no day ({said[0]})" if said[0] else ""


def _analysis(options: DemoOptions, out: Path, ask: float) -> None:
    days = DayOptions(WEEK, out / "days", skip_missing=True)
    analyze(days, out / "analysis", seed=options.seed)


def _replay(options: DemoOptions, out: Path, ask: float) -> None:
    replay(
        StoredDayOptions(WEEK, out / "days", skip_missing=True),
        ReplayOptions(interval=1, capacity=options.capacity, seed=options.seed),
        PolicyOptions(),
        TrainingOptions(),
        out / "replay",
    )


STEPS: Mapping[str, Callable[[DemoOptions, Path, float], None]] = {
    "download": _download,
    "analysis": _analysis,
    "replay": _replay,
}
"""The steps by name, in order."""
