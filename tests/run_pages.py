"""Runs the code of a page of the documentation as a reader would: from top to bottom.

- A block of `python` runs in the page's own namespace and folder; with `>>>` it is checked as a
  docstring is.
- A block of `text` right below a block is what that block prints.
- `<!-- before: CODE -->` is code that readers are spared, such as the days that a fragment uses.
- A line `*Not run by the tests: REASON.*` right above a block leaves it out.
- Blocks of `sh` run where the page is meant to be followed to the letter: tutorials and recipes.
  There a block that begins with `# NAME.py` (or `.toml`, `.sh`) is saved as that file instead of
  being run.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_PIECE = re.compile(
    r"^<!-- before:\n(?P<hidden>.*?)^-->$"
    r"|^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_SKIPPED = re.compile(r"\*Not run by the tests: (.+)\.\*\s*\Z")
_FILE = re.compile(r"# (\w+\.(?:py|toml|sh))\b")
_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A piece of code on a page and what is said to come out of it."""

    language: str
    code: str
    line: int
    printed: str | None = None
    skipped: str | None = None


def blocks_of(text: str) -> Iterator[Block]:
    """Code of a page in order; output belongs to the block right above it."""
    pending: Block | None = None
    end = 0
    for found in _PIECE.finditer(text):
        between = text[end : found.start()]
        end = found.end()
        if found["hidden"] is not None:
            block = Block("python", found["hidden"], text.count("\n", 0, found.start()) + 2)
        else:
            indent = found["indent"]
            code = re.sub(f"(?m)^{indent}", "", found["code"])
            if found["language"] == "text" and pending is not None and not between.strip():
                pending = pending._replace(printed=code)
                continue
            reason = _SKIPPED.search(between)
            line = text.count("\n", 0, found.start()) + 2
            block = Block(found["language"], code, line, None, reason[1] if reason else None)
        if pending is not None:
            yield pending
        pending = block
    if pending is not None:
        yield pending


def run_page(path: Path, folder: Path, *, shell: bool) -> int:
    """Runs what is to run; how many blocks that were. The working folder must be `folder`."""
    names: dict[str, Any] = {"__name__": "page"}
    count = 0
    for block in blocks_of(path.read_text(encoding="utf-8")):
        if block.skipped or block.language not in ("python", *(["sh", "toml"] if shell else [])):
            continue
        place = f"{path.name}, line {block.line}"
        name = _FILE.match(block.code)
        if shell and name:
            (folder / name[1]).write_text(block.code, encoding="utf-8")
            continue
        if block.language == "sh":
            printed = _shell(block.code, folder, place)
        elif ">>> " in block.code:
            printed = _examples(block, names, place)
        else:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("\n" * (block.line - 1) + block.code, str(path), "exec"), names)  # noqa: S102
            printed = out.getvalue()
        if block.printed is not None:
            same = doctest.OutputChecker().check_output(block.printed, printed, _OPTIONS)
            assert same, f"{place} prints\n{printed}\nnot\n{block.printed}"
        count += 1
    return count


def _examples(block: Block, names: dict[str, Any], place: str) -> str:
    test = doctest.DocTestParser().get_doctest(block.code, names, place, None, block.line - 1)
    said = io.StringIO()
    failed = doctest.DocTestRunner(verbose=False, optionflags=_OPTIONS).run(
        test, out=said.write, clear_globs=False
    )
    names.update(test.globs)
    assert not failed.failed, said.getvalue()
    return ""


def _shell(code: str, folder: Path, place: str) -> str:
    """What a block prints; `$ ` before lines, as in consoles, is left away."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", re.sub(r"(?m)^\$ ", "", code)],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "100", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{place}: {done.stdout}{done.stderr}"
    return done.stdout
