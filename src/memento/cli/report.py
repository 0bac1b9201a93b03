"""`memento report`: what a folder of results says, as one page with the paper beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from memento.cli import ui
from memento.cli.options import AsJson
from memento.errors import SettingError

if TYPE_CHECKING:
    from memento.report.sections import Report

__all__ = ["report"]


def report(
    folder: Path, against: Path | None = None, out: Path | None = None, as_json: AsJson = False
) -> None:
    """Write one HTML page with charts and tables: of a memory, a deployment, or results.

    Nothing is changed but the page. Of results nothing is computed again; what is missing, failed
    or still running is listed, with what to do about it.

    Args:
        folder (DIR): A memory; a deployment; results of `memento run`; or what `memento backtest`,
            `memento puffer replay`, `memento puffer analyze`, `memento datacenter replay`,
            `memento demo` wrote.
        against (DIR): Of a memory: another one to compare with, such as an earlier copy.
        out (FILE.html): Default: DIR/report.html; for analyses and demos, which have a page of that
            name, DIR/comparison.html; for a memory, DIR-report.html beside it.

    Example:
        memento report mem --against mem-of-last-week
        memento report results --out week.html
    """
    from memento.report.folders import open_report

    made = open_report(folder, against)
    path = _page(made, out)
    with ui.progress_of("figures", width=32) as tell:
        made.write(path, tell)
    charts = sum(len(section.charts) for section in made.sections)
    tables = sum(len(section.listings) for section in made.sections)
    remark = f"; not there: {', '.join(made.missing)}" if made.missing else ""
    ui.say(
        f"{path}: {len(made.sections)} sections, {charts} figures, {tables} tables{remark}",
        err=True,
    )
    ui.answer(as_json, {**made.document(), "out": str(path)})


def _page(made: Report, out: Path | None) -> Path:
    """Where to write; a page of somebody else is not replaced unless it was named."""
    from memento.report.folders import kinds
    from memento.report.page import GENERATOR

    if out is not None:
        if out.suffix not in (".html", ".htm"):
            raise SettingError(f"--out {out}; give a name that ends with .html")
        if out.is_dir():
            raise SettingError(f"--out {out} is a folder; give the name of a file in it")
        if not out.parent.is_dir():
            raise SettingError(f"--out {out}: there is no folder {out.parent}; make it first")
        return out
    page = kinds()[made.kind].page
    path = made.folder / page
    if page.startswith("-"):  # beside a folder in which nothing else may lie
        path = made.folder.resolve().with_name(f"{made.folder.resolve().name}{page}")
    if path.is_dir():
        raise SettingError(f"{path} is a folder; give another name with --out")
    if path.exists() and GENERATOR.encode() not in path.read_bytes()[:4096]:
        raise SettingError(
            f"{path} was not written by memento report; give another name with --out, or remove it"
        )
    return path
