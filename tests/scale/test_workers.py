"""Workers have no say in what is selected: none, several, some that die, or a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memento import DensityReservoir, Memento, scale
from memento.errors import SettingError, StorageError, WorkerError

pytest.importorskip("pyarrow")

import tiny

pytestmark = pytest.mark.compiled  # blocks are sorted again and again
BLOCK = 400
CALLS = 9  # blocks of the files below: as many predictions a pass
POLICY = Memento(tiny.DISTANCES)
DENSITY = DensityReservoir(tiny.DISTANCES, identify_by="id")


@pytest.fixture
def folder(tmp_path):
    return tiny.write(tmp_path / "days")


def selected(folder, to, policy=POLICY, **options):
    return scale.select(folder, 300, policy, to, block_rows=BLOCK, **options)


@pytest.mark.slow  # processes that import and compile
def test_digests_for_any_number_of_processes(folder, tmp_path):
    for name, policy in (("memento", POLICY), ("density", DENSITY)):
        digests = [
            selected(folder, tmp_path / f"{name}{workers}", policy, workers=workers).digest
            for workers in (0, 1, 2, 3)
        ]
        assert len(set(digests)) == 1


# The fourth prediction is in the first pass, the last ones are in the second.
@pytest.mark.slow
@pytest.mark.parametrize("dies", [(4,), (2 * CALLS - 1,), (4, 2 * CALLS)])
def test_a_process_that_is_killed_changes_nothing(folder, tmp_path, dies):
    """One block is predicted for the fingerprint, then each once a pass."""
    expected = selected(folder, tmp_path / "a", predict=tiny.predicted)
    dying = tiny.Dying(tmp_path / "calls", dies)
    report = selected(folder, tmp_path / "b", predict=dying, workers=2)
    assert report.digest == expected.digest
    assert dying.count > 1 + 2 * CALLS  # some were made again
    assert not (tmp_path / "b.partial").exists()


@pytest.mark.slow
def test_a_block_that_kills_every_worker_is_given_up(folder, tmp_path):
    dying = tiny.Dying(tmp_path / "calls", tuple(range(2, 100)))
    with pytest.raises(WorkerError, match=r"died 4 times at .*part-0.parquet, row group 0"):
        selected(folder, tmp_path / "out", predict=dying, workers=1)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_sent_is_said(folder, tmp_path):
    with pytest.raises(SettingError, match="cannot be handed to workers"):
        selected(folder, tmp_path / "out", predict=lambda x: tiny.predicted(x), workers=1)


# --- the client --------------------------------------------------------------------------------

CLIENT = """
import sys
from pathlib import Path
import tiny
from memento import Memento, scale
folder, to, calls, *dies = sys.argv[1:]
predict = tiny.Dying(Path(calls), tuple(map(int, dies)))
scale.select(folder, 300, Memento(tiny.DISTANCES), to, block_rows=400, predict=predict)
"""


def run_client(*words: object) -> int:
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    command = [sys.executable, "-c", CLIENT, *map(str, words)]
    return subprocess.run(command, env=env, check=False, capture_output=True).returncode


@pytest.mark.slow  # twelve processes, one after the other
def test_a_killed_client_goes_on_at_the_first_missing_block(tmp_path):
    """Killed at every block of both passes in turn: no block that is stored is made again."""
    folder = tiny.write(tmp_path / "days", files=2)  # six blocks
    calls, out = tmp_path / "calls", tmp_path / "out"
    expected = scale.select(
        folder, 300, POLICY, tmp_path / "once", block_rows=BLOCK, predict=tiny.predicted
    )
    for killed in range(12):
        before = len(os.listdir(calls)) if calls.exists() else 0
        # A call predicts once to tell models apart, then one block, and dies at the next.
        code = run_client(folder, out, calls, before + 3)
        assert code == (-signal.SIGKILL if killed < 11 else 0)
        assert out.exists() == (killed == 11)
    assert scale.Selected.read(out).digest == expected.digest


def test_an_interrupted_client_goes_on_at_the_first_missing_block(tmp_path):
    """Stopped at every block in turn: the result is the same, and what is stored is not read."""
    folder = tiny.write(tmp_path / "days", files=2)  # six blocks
    expected = scale.select(folder, 300, POLICY, tmp_path / "once", block_rows=BLOCK)
    for stop in range(12):
        seen: list[tuple[str, int]] = []

        def stopping(stage, done, total, stop=stop, seen=seen):
            if done and stage in ("summarise", "take"):
                seen.append((stage, done))
                if len(seen) == stop + 1:
                    raise KeyboardInterrupt

        out = tmp_path / f"out{stop}"
        with pytest.raises(KeyboardInterrupt):
            scale.select(folder, 300, POLICY, out, block_rows=BLOCK, progress=stopping)
        assert not out.exists()
        again: list[tuple[str, int, int]] = []

        def told(*said, again=again):
            again.append(said)

        report = scale.select(folder, 300, POLICY, out, block_rows=BLOCK, progress=told)
        assert report.digest == expected.digest
        first = next(said for said in again if said[0] == "summarise")
        assert first[1] == BLOCK * min(stop + 1, 6)
        if stop >= 6:
            first = next(said for said in again if said[0] == "take")
            assert first[1] > 0


# --- Dask --------------------------------------------------------------------------------------


@pytest.fixture
def cluster():
    """One a test: what starts workers again gives one up, now and then, after several have died."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1",
            dashboard_address="127.0.0.1:0", worker_dashboard_address=None,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


@pytest.mark.slow
def test_a_cluster_selects_the_same(folder, tmp_path, cluster):
    for name, policy in (("memento", POLICY), ("density", DENSITY)):
        here = selected(folder, tmp_path / f"{name} here", policy)
        there = selected(folder, tmp_path / f"{name} there", policy, client=cluster)
        assert there.digest == here.digest
    address = cluster.scheduler.address
    assert selected(folder, tmp_path / "address", client=address).digest != here.digest
    by_address = selected(folder, tmp_path / "again", DENSITY, client=address)
    assert by_address.digest == here.digest


@pytest.mark.slow
@pytest.mark.parametrize("dies", [(4,), (2 * CALLS - 1,)])
def test_a_dask_worker_that_is_killed_changes_nothing(folder, tmp_path, cluster, dies):
    expected = selected(folder, tmp_path / "a", predict=tiny.predicted)
    dying = tiny.Dying(tmp_path / "calls", dies)
    report = selected(folder, tmp_path / "b", predict=dying, client=cluster)
    assert report.digest == expected.digest
    assert dying.count > 1 + 2 * CALLS


@pytest.mark.slow
def test_errors_of_a_block_come_through_a_cluster(folder, tmp_path, cluster):
    policy = Memento([tiny.JensenShannon.of_labels("y", 2)])
    with pytest.raises(Exception, match=r"part-\d.parquet, row group \d.*: column 'y'.* range"):
        selected(folder, tmp_path / "out", policy, client=cluster)
    assert not (tmp_path / "out").exists()
    dying = tiny.Dying(tmp_path / "calls", tuple(range(2, 100)))
    with pytest.raises(WorkerError, match=r"died again and again at .*part-"):
        selected(folder, tmp_path / "out", predict=dying, client=cluster)


@pytest.mark.slow
def test_a_cluster_without_workers_is_given_up(folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    from memento.scale import dask, selection

    with (
        distributed.LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0",
            worker_dashboard_address=None,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        assert selection._workers(client, 0)._patience == 60
        with dask.Cluster(client, patience=0.5) as working, pytest.raises(WorkerError) as said:
            list(working.results(len, None, [(None, ())]))
        assert "no Dask worker was there" in str(said.value)


@pytest.mark.slow
def test_a_scheduler_that_is_killed(folder, tmp_path):
    """It ends with an error within a minute; what was found goes on without the cluster."""
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    started = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
    started += ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)]
    working = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-dashboard"]
    working += ["--nthreads", "1", "--death-timeout", "60", "--scheduler-file", str(file)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(started, **quiet)
    worker = subprocess.Popen(working, **quiet)

    def told(stage, done, total):
        if stage == "summarise" and 0 < done < total:
            scheduler.kill()

    try:
        address = _address(file)
        start = time.monotonic()
        with pytest.raises(WorkerError, match="the Dask scheduler is gone"):
            selected(folder, tmp_path / "out", client=address, progress=told)
        assert time.monotonic() - start < 60 + 30  # to start a worker takes a while
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "out.partial").glob("summarise-*"))
    there = selected(folder, tmp_path / "out")
    assert there.digest == selected(folder, tmp_path / "another").digest


def _address(file: Path) -> str:
    """Of a scheduler, once it has written it down."""
    for _ in range(600):
        try:
            return str(json.loads(file.read_text())["address"])
        except (OSError, ValueError):
            time.sleep(0.1)
    raise AssertionError("no scheduler came up")


def test_an_address_that_does_not_answer(folder, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("memento.scale.dask._CONNECT", "0.2s")
    with pytest.raises(StorageError, match="does not answer"):
        selected(folder, tmp_path / "out", client="tcp://127.0.0.1:9")
