"""Each sentence of SECURITY.md that promises something has a test, here or where the table says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from memento import FIFO, Memory
from memento.errors import MementoError

pytest.importorskip("typer")
pytest.importorskip("pyarrow")

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "SECURITY.md"

#: The first words of each sentence, and the tests that hold it; none for advice and plain facts.
HELD = {
    "Memento runs what you name": ["tests/test_security.py::test_what_is_named_is_imported"],
    "Treat each of these like": [],
    "Models.": ["tests/cli/test_memory.py::test_torchscript_predicts"],
    "`--model module:function` imports": [
        "tests/test_security.py::test_what_is_named_is_imported",
        "tests/cli/test_memory.py::test_torchscript_predicts",
        "tests/cli/test_memory.py::test_damaged_weights_of_torchscript_are_told",
        "tests/cli/test_memory.py::test_a_pickled_model_is_refused_unread",
        "tests/cli/test_memory.py::test_onnx_predicts",
    ],
    "`backtest --model module:factory`": ["tests/test_security.py::test_what_is_named_is_imported"],
    "A deployment's folder and": [],
    "They name the module": ["tests/test_security.py::test_what_is_named_is_imported"],
    "Let nobody write there": [],
    "The clone that a": ["tests/deployment/test_publication.py::test_hooks_of_a_clone_are_run"],
    "A remote is taken": ["tests/deployment/test_publication.py::test_remotes_are_known_names"],
    "Pages of experiments": ["tests/test_security.py::test_what_is_named_is_imported"],
    "Settings of the runner": ["tests/runner/test_slurm.py::test_script_of_one_experiment"],
    "Folders in which work": ["tests/runner/test_executors.py::test_bodies_that_do_not_exist"],
    "Plug-ins": ["tests/test_third_case.py::test_command_and_experiment"],
    "`--import MODULE` and": [
        "tests/test_security.py::test_what_is_named_is_imported",
        "tests/test_third_case.py::test_module_named_on_the_command_line",
    ],
    "The cache of compiled": [],
    "Its digests find damage": ["tests/kernels/test_cache.py::test_damaged_code_is_compiled_again"],
    "A Dask scheduler": ["tests/scale/test_workers.py::test_a_cluster_selects_the_same"],
    "Memories.": [],
    "A folder of `.npy`": ["tests/test_snapshot.py::test_damage_to_any_file_is_found_and_named"],
    "Nothing is unpickled, and": [
        "tests/test_layers.py::test_nothing_is_unpickled",
        "tests/test_security.py::test_a_folder_names_a_module_and_it_is_not_imported",
    ],
    "Digests find damage; they": [
        "tests/test_security.py::test_whoever_can_write_can_change_what_is_kept"
    ],
    "Samples": [
        "tests/cli/test_memory.py::test_objects_are_never_unpickled",
        "tests/cli/test_tables.py::test_archives_of_gigabytes",
        "tests/cli/test_tables.py::test_any_bytes",
    ],
    "Parquet, Arrow and CSV are": ["tests/cli/test_tables.py::test_a_small_file_that_unpacks"],
    "Stored scikit-learn models": [
        "tests/deployment/test_job.py::test_what_is_published_is_read_by_skops_alone",
        "tests/test_security.py::test_a_stored_model_of_another_package_is_refused",
    ],
    "Pages that `memento report`": [
        "tests/report/test_page.py::test_text_stays_text",
        "tests/report/test_page.py::test_no_text_ends_or_opens_a_script",
        "tests/report/test_page.py::test_any_text",
    ],
    "Queries": ["tests/cli/test_sources.py::test_queries_that_are_refused"],
    "Give it a user": [],
    "Users, passwords and queries": [
        "tests/cli/test_sources.py::test_passwords_are_not_shown",
        "tests/cli/test_sources.py::test_queries_that_are_refused",
    ],
    "What you put on": [],
}


def sentences() -> list[str]:
    page = PAGE.read_text(encoding="utf-8").partition("## What runs as code")[2]
    text = re.sub(r"^##.*$", "", page.partition("\n")[2], flags=re.MULTILINE)
    blocks = re.split(r"\n(?=- )|\n\n", text.replace("**", ""))
    joined = [" ".join(block.lstrip("- ").split()) for block in blocks]
    return [s for block in joined for s in re.split(r"(?<=\.) (?=[A-Z`])", block) if s]


@pytest.mark.skipif(not PAGE.exists(), reason="needs the whole checkout")
def test_every_sentence_has_its_tests():
    left = dict(HELD)
    for sentence in sentences():
        begins = [words for words in left if sentence.startswith(words)]
        assert begins, f"no test is named for {sentence!r}"
        for name in left.pop(begins[0]):
            path, _, function = name.partition("::")
            assert f"def {function}" in (ROOT / path).read_text(encoding="utf-8"), name
    assert not left, "sentences that are not there"


SPY = """
from pathlib import Path
Path({marker!r}).write_text("imported")
"""
DEPLOYED = '[data]\nfolder = "days"\nlabel = "y"\ninputs = ["a"]\n[model]\nfactory = "spy:make"\n'
DEPLOYED += '[variants.main]\ncapacity = 60\npolicy = "fifo"\ntrigger = "every"\n'


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """The file that the module ``spy`` writes wherever it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "spy", raising=False)
    marker = tmp_path / "imported"
    Path("spy.py").write_text(SPY.format(marker=str(marker)))
    yield marker
    sys.modules.pop("spy", None)


def ended(*words: str) -> int:
    from memento.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    "words",
    [
        ("memory", "insert", "mem", "day.npz", "--model", "spy:predict"),
        ("backtest", "all.csv", "--unit", "day", "--model", "spy:make", "--out", "tried"),
        ("deploy", "init", "state", "--config", "deploy.toml"),
        ("run", "any", "--experiments", "spy.py"),
        ("--import", "spy", "memory", "status", "mem"),
        ("memory", "init", "other", "--capacity", "9", "--policy", "spy:Policy"),
    ],
    ids=" ".join,
)
def test_what_is_named_is_imported(marker, words):
    memory = Memory(9, FIFO())
    memory.insert({"x": np.ones((3, 2))})
    memory.save("mem")
    np.savez("day.npz", x=np.ones((3, 2)))
    rows = "".join(f"{day},{n},{n % 2}\n" for day in range(8) for n in range(9))
    Path("all.csv").write_text("day,a,y\n" + rows)
    Path("days").mkdir()
    Path("days/2026-01-01.csv").write_text("a,y\n" + "1,0\n2,1\n" * 20)
    Path("deploy.toml").write_text(DEPLOYED)
    ended(*words)
    assert marker.exists()


NEWEST = """
import numpy as np
from memento import FIFO, Memory

class Newest(FIFO):
    kind = "newest-of-spy"

memory = Memory(9, Newest())
memory.insert({"x": np.ones((3, 2))})
memory.save("mem")
"""


def test_a_folder_names_a_module_and_it_is_not_imported(marker, capsys):
    spy = Path("spy.py").read_text()
    Path("spy.py").write_text(NEWEST)
    subprocess.run([sys.executable, "-c", "import spy"], check=True, timeout=120)
    Path("spy.py").write_text(spy)
    assert "spy:Newest" in "".join(path.read_text() for path in Path("mem").rglob("*.json"))
    assert ended("memory", "status", "mem") == 0
    assert ended("memory", "export", "mem", "held.npz") == 0
    assert np.load("held.npz")["x"].shape == (3, 2)
    np.savez("day.npz", x=np.ones((3, 2)))
    capsys.readouterr()
    assert ended("memory", "insert", "mem", "day.npz") == 2
    assert "newest-of-spy" in capsys.readouterr().err
    assert not marker.exists()


def test_whoever_can_write_can_change_what_is_kept(tmp_path):
    """A copy under other digests is read like any other: digests are no signature."""
    memory = Memory(9, FIFO())
    memory.insert({"x": np.ones((3, 2))})
    memory.save(tmp_path / "mem")
    other = Memory(9, FIFO())
    other.insert({"x": np.zeros((3, 2))})
    other.save(tmp_path / "other")
    (tmp_path / "mem").rename(tmp_path / "away")
    (tmp_path / "other").rename(tmp_path / "mem")
    assert not Memory.load(tmp_path / "mem").samples["x"].any()


def test_a_stored_model_of_another_package_is_refused():
    pytest.importorskip("sklearn")
    pytest.importorskip("skops")
    from sklearn.linear_model import LogisticRegression

    from memento.integrations.sklearn import SklearnLearner

    learner = SklearnLearner(LogisticRegression())
    learner.fit({"x": np.arange(8.0).reshape(8, 1), "y": np.arange(8) % 2})
    state = dict(learner.state())
    text = state["schema"].tobytes().decode()
    hostile = text.replace("sklearn.linear_model._logistic", "subprocess")
    hostile = hostile.replace("LogisticRegression", "Popen")
    assert hostile.count("Popen") > 0
    state["schema"] = np.frombuffer(hostile.encode(), np.uint8)
    with pytest.raises(MementoError, match=r"subprocess\.Popen"):
        SklearnLearner(LogisticRegression()).restore(state)
