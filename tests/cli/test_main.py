"""The program itself: what it needs, how it is called, and what it says without its packages."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import memento
from memento.cli import packages
from memento.cli.main import application, main

DAY = "2021-10-17"
# A call of each command that would work if its packages were there.
CALLS: dict[str, list[str]] = {
    "demo": ["--traces", "t.parquet"],
    "run": ["-l", "--scheduler", "local", "--slurm"],
    "report": ["results"],
    "backtest": ["--example", "--out", "kept"],
    "select": ["d.parquet", "--to", "o", "--capacity", "9", "--dask", "tcp://h:1", "--slurm"],
    "puffer simulate": [DAY, "--to", "days", "--model", "m", "--traces", "t.parquet"],
    "puffer features": [DAY, "--from", "days", "--to", "features"],
    "puffer train": [DAY, "--from", "days", "--to", "model"],
    "puffer analyze": [DAY, "--from", "days", "--out", "o", "--model", "a=m"],
    "puffer replay": [DAY, "--from", "days", "--out", "o", "--start", "m", "--published", "p"],
    "puffer deploy init": ["state", "--base", "m"],
    "puffer deploy run": ["state", "days"],
    "puffer deploy record": ["state", "--figure", "f.png"],
    "puffer record": ["state", "--figure", "f.png"],
    "datacenter replay": [],
    "datacenter tune": [],
}


def call(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(list(words))
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def commands(command, words: str = ""):
    inner = getattr(command, "commands", None)
    if inner is None:
        yield words
    for name, one in (inner or {}).items():
        yield from commands(one, f"{words} {name}".strip())


def leave_out(monkeypatch, package: str) -> None:
    """No package of this name is found, and all others of the extras are, installed or not."""
    real = importlib.util.find_spec

    def found(name, *others):
        spec = None if name == package else real(name, *others)
        return real("json") if name in {*packages.EXTRAS} - {package} else spec

    monkeypatch.setattr(importlib.util, "find_spec", found)


def test_every_command_stands_in_the_table_of_packages():
    from typer.main import get_command

    assert set(commands(get_command(application()))) == set(packages.COMMANDS)
    assert {words for words, needs in packages.COMMANDS.items() if needs} == set(CALLS)


@pytest.mark.parametrize(
    ("words", "package"),
    [(w, need.split()[0]) for w, needs in packages.COMMANDS.items() for need in needs],
)
def test_a_missing_package_is_said_before_anything_is_done(
    capsys, monkeypatch, tmp_path, words, package
):
    monkeypatch.chdir(tmp_path)
    leave_out(monkeypatch, package)
    code, out, err = call(capsys, *words.split(), *CALLS[words])
    assert (code, out) == (2, "")
    assert f"memento {words} needs the package {package!r}" in err
    assert f'pip install "memento-replay[{packages.EXTRAS[package]}]"' in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("group", "package"),
    [("puffer-preprocess", "polars"), ("datacenter-tuning", "optuna"), ("demo", "matplotlib")],
)
def test_a_group_of_experiments_says_so_too(capsys, monkeypatch, tmp_path, group, package):
    monkeypatch.chdir(tmp_path)
    leave_out(monkeypatch, package)
    code, _, err = call(capsys, "run", group)
    assert code == 2
    assert f"memento run {group} needs the package {package!r}" in err


HIDE = """
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec
machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, path=None, target=None:
        None if name.split(".")[0] in {hidden!r} else find(name, path, target)
)
"""


@pytest.fixture
def without(tmp_path):
    """Run the command in a process that does not find some packages."""

    def run(hidden: set[str], *words: str):
        (tmp_path / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
        path = os.pathsep.join([str(tmp_path), str(Path(memento.__file__).parents[1])])
        return subprocess.run(
            [sys.executable, "-m", "memento", *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
        )

    return run


ALL = {*packages.EXTRAS, "sklearn", "scipy", "pandas", "dask", "altair", "mlflow", "tensorboard",
       "onnxruntime"}  # fmt: skip


@pytest.mark.slow
def test_no_command_needs_more_than_the_table_says(without, tmp_path):
    """Days from the simulator to the analysis, each step with its own packages only."""
    steps = [
        ("puffer simulate", [DAY, "--to", "days", "--sessions", "3", "--no-content"]),
        ("puffer features", [DAY, "--from", "days", "--to", "features"]),
        ("puffer train", [DAY, "--from", "features", "--to", "model", "--epochs", "1"]),
        ("puffer replay", [f"{DAY}..2021-10-18", "--from", "days", "--out", "replayed",
                           "--capacity", "50", "--skip-missing", "--start", "model", "--interval",
                           "1", "--arm", "random", "--epochs", "1", "--no-daily"]),
        ("puffer analyze", [DAY, "--from", "days", "--out", "analysis"]),
        ("report", ["analysis"]),
        ("puffer deploy init", ["state"]),
        ("puffer deploy status", ["state"]),
    ]  # fmt: skip
    for words, rest in steps:
        needed = {need.split()[0] for need in packages.COMMANDS[words]} | {"pyarrow"}
        done = without(ALL - needed, *words.split(), *rest)
        assert done.returncode == 0, (words, done.stderr[-600:])


# --- the program alone -----------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_the_library_alone_answers_version_and_help(without, missing):
    done = without({missing}, "--version")
    assert (done.returncode, done.stdout) == (0, f"memento {memento.__version__}\n")
    for words in (["--help"], ["-h"], ["memory", "--help"]):
        done = without({missing}, *words)
        assert done.returncode == 0, done.stderr
        assert 'pip install "memento-replay[cli]"' in done.stdout
        assert "memory" in done.stdout
    done = without({missing}, "memory", "status", "m")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "memento-replay[cli]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_module_is_the_command(without):
    done = without(set(), "--version")
    assert (done.returncode, done.stdout) == (0, f"memento {memento.__version__}\n")
    assert "Usage: memento" in without(set(), "memory", "--help").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(capsys, monkeypatch, shell):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    code, out, _ = call(capsys, "--show-completion", shell)
    assert code == 0
    assert "_MEMENTO_COMPLETE" in out


def test_words_are_completed(capsys, monkeypatch):
    monkeypatch.setenv("_MEMENTO_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "memento mem")
    monkeypatch.setenv("COMP_CWORD", "1")
    code, out, _ = call(capsys)
    assert (code, out.split()) == (0, ["memory"])


def test_warnings_are_lines(capsys, monkeypatch, tmp_path):
    from memento.cli import memory

    def load(folder):
        warnings.warn("a column \x1b[2J is not there", UserWarning, stacklevel=2)
        raise memento.errors.StorageError("no")

    monkeypatch.setattr(memory, "look", load)
    code, _, err = call(capsys, "memory", "status", str(tmp_path))
    assert code == 2
    assert err.splitlines() == [
        "memento: warning: a column \\x1b[2J is not there", "memento: error: no"
    ]  # fmt: skip


_STARTING = """
import contextlib, os, signal, sys
from memento.cli import main as entry
whole, number = entry.application, int(sys.argv[1])
# Whoever runs the tests may ignore it, as nohup does.
signal.signal(number, signal.default_int_handler if number == 2 else signal.SIG_DFL)

def application():
    with contextlib.suppress(BaseException):  # as compiled packages do while they are imported
        os.kill(os.getpid(), number)
    return whole()

entry.application = application
entry.main(["--version"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be held back")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_what_ends_a_command_while_it_is_imported_is_not_swallowed(name, code):
    """A package that is imported may drop the exception; the command then went on."""
    words = [sys.executable, "-c", _STARTING, str(int(getattr(signal, name)))]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.skipif(not importlib.util.find_spec("altair"), reason="needs altair")
def test_charts_without_docstrings_are_refused_before_the_work(tmp_path):
    """A back test did all its work, and then could not draw its page."""
    done = subprocess.run(
        [sys.executable, "-OO", "-m", "memento", "backtest", "--example", "--out", "kept"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "memento backtest draws charts" in done.stderr
    assert "PYTHONOPTIMIZE=2" in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    ["report", "memory status", "deploy status", "puffer record", "datacenter replay --from",
     "puffer features 2022-01-03 --to o --from", "puffer download 2022-01-03 --to"],
)  # fmt: skip
def test_a_name_that_is_too_long_for_a_file_is_refused(capsys, words):
    if words.startswith(("puffer", "datacenter")):
        pytest.importorskip(f"memento_{words.split()[0]}")
    code, _, said = call(capsys, *words.split(), "x" * 4000)
    assert code == 2
    assert "at most 255 bytes" in said
