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


def report(folder: Path, out: Path | None = None, as_json: AsJson = False) -> None:
    """Write one HTML page with charts and tables, and the paper's numbers beside them.

    Nothing is computed again and nothing is changed but the page. What is missing, failed or still
    running is listed, with what to do about it.

    Args:
        folder (DIR): Results of `memento run`; or what `memento backtest`, `memento puffer replay`,
            `memento puffer analyze`, `memento datacenter replay`, `memento demo` wrote; or a
            deployment.
        out (FILE.html): Default: DIR/report.html; for analyses and demos, which have a page of that
            name, DIR/comparison.html.
    """
    from memento.report.folders import open_report

    made = open_report(folder)
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
    path = made.folder / kinds()[made.kind].page
    if path.exists() and GENERATOR.encode() not in path.read_bytes()[:4096]:
        raise SettingError(
            f"{path} was not written by memento report; give another name with --out, or remove it"
        )
    return path
