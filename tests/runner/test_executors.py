"""The same body in every place: the same bytes, its own threads, and troubles that stay its own."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from memento.errors import SettingError, StorageError
from memento.runner import schedule
from memento.runner.executors.dask import DaskExecutor
from memento.runner.executors.pool import PoolExecutor
from memento.runner.executors.process import ProcessExecutor
from memento.runner.job import Job, Outcome, load_body
from memento.runner.results import read_table

MAKERS = {
    "process": lambda: ProcessExecutor(),
    "pool": lambda: PoolExecutor(2),
    "dask": lambda: DaskExecutor("local", jobs=2),
}


@pytest.fixture(params=[pytest.param("process"), pytest.param("pool"),
                        pytest.param("dask", marks=pytest.mark.slow)])  # fmt: skip
def executor(request):
    if request.param == "dask":
        pytest.importorskip("distributed")
    with MAKERS[request.param]() as found:
        yield found


def test_same_bytes_as_in_this_process(executor, plan, outputs, tmp_path):
    here = plan("counting", root=tmp_path / "here")
    schedule.run(here, ProcessExecutor())
    there = plan("counting", root=tmp_path / "there")
    reports = schedule.run(there, executor)
    assert {report.state for report in reports.values()} == {"done"}
    assert outputs(there) == outputs(here)


def test_a_failure_keeps_its_log_and_does_not_stop_the_rest(executor, plan):
    found = plan("trouble", "fine", "raises", "after", "exits", "wrong-call")
    reports = schedule.run(found, executor)
    states = {key.partition("/")[2]: report.state for key, report in reports.items()}
    assert states == {
        "fine": "done", "raises": "failed", "after": "missing", "exits": "failed",
        "wrong-call": "failed",
    }  # fmt: skip
    place = found.jobs["trouble/raises"].place
    assert reports["trouble/raises"].error == "ValueError: no luck"
    log = place.log.read_text()
    assert "Traceback" in log
    assert "raise ValueError(message)" in log
    assert "job.py" not in log, "our own frames say nothing about the failure"
    assert not list(place.folder.glob("output-*")), "half a result was left"
    assert reports["trouble/exits"].error == "SystemExit: 7"
    assert "the experiment gives run and step" in reports["trouble/wrong-call"].error
    assert reports["trouble/after"].error == "needs trouble/raises, which is not done"


def test_a_body_gets_its_threads_and_its_output_is_logged(executor, plan):
    found = plan("facts", "threads")
    reports = schedule.run(found, executor)
    table = read_table(reports["facts/threads"].status.output / "threads.csv")
    assert dict(zip(table["name"].tolist(), table["value"].tolist(), strict=True)) == {
        "OMP_NUM_THREADS": 2, "OPENBLAS_NUM_THREADS": 2, "NUMBA_NUM_THREADS": 2,
        "POLARS_MAX_THREADS": 2, "run": 2, "child": 0,
    }  # fmt: skip
    log = found.jobs["facts/threads"].place.log.read_text()
    assert "2 thread(s)" in log
    if not isinstance(executor, ProcessExecutor):  # there, children print where we print
        assert "to the log" in log


def test_environment_is_restored_in_this_process(plan):
    before = dict(os.environ)
    schedule.run(plan("facts", "threads"), ProcessExecutor())
    assert dict(os.environ) == before


def test_output_is_shown_as_well_if_wanted(plan, capsys):
    found = plan("counting", "base")
    schedule.run(found, ProcessExecutor(echo=True))
    assert "begins at step 0 of 6" in capsys.readouterr().out
    assert "begins at step 0 of 6" in found.jobs["counting/base"].place.log.read_text()


def test_a_crash_is_a_failure_with_the_signal(plan):
    with PoolExecutor(2) as executor:
        found = plan("trouble", "crashes", "fine")
        reports = schedule.run(found, executor)
    assert reports["trouble/fine"].state == "done"
    assert "killed by SIGKILL" in reports["trouble/crashes"].error
    assert found.jobs["trouble/crashes"].status().state == "failed"
    assert "SIGKILL" in found.jobs["trouble/crashes"].place.log.read_text()


@contextlib.contextmanager
def interrupted_when(condition):
    """Ctrl-C for this process as soon as something is true."""

    def watch() -> None:
        while not condition():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    thread.join()


def test_interrupted_work_goes_on_from_its_checkpoint(executor, plan):
    found = plan("slow", "long")
    job = found.jobs["slow/long"]

    def at_work() -> bool:
        return (job.status().progress or (0,))[0] >= 3

    with interrupted_when(at_work):
        schedule.run(found, executor)
    status = job.status()
    assert (status.state, status.reason) == ("missing", "interrupted; goes on from its checkpoint")
    with MAKERS["pool"]() as again, interrupted_when(at_work):
        schedule.run(found, again)
    log = job.place.log.read_text()
    assert "begins at step" in log
    assert "begins at step 0 " not in log


def test_a_body_that_does_not_listen_is_ended(plan, until):
    found = plan("slow", "deaf")
    job = found.jobs["slow/deaf"]
    with PoolExecutor(1) as executor:
        executor.submit(job)
        until(lambda: (job.place.checkpoint(job.digest) / "begun").exists())
        begun = time.monotonic()
        executor.stop(0.3)
        assert time.monotonic() - begun < 10
    assert job.status().state == "missing"
    assert job.status().reason.startswith("was killed")


def test_one_experiment_is_never_run_twice_at_once(plan):
    found = plan("slow", "long")
    job = found.jobs["slow/long"]
    with PoolExecutor(1) as one, PoolExecutor(1) as two:
        one.submit(job)
        while job.status().state != "running":
            time.sleep(0.02)
        two.submit(job)
        ended = []
        while not ended:
            ended = two.poll(1.0)
        assert ended == [("slow/long", Outcome("elsewhere"))]
        assert job.status().attempt == 1


def test_done_work_is_not_done_again_even_if_submitted(plan):
    found = plan("counting", "base")
    schedule.run(found, ProcessExecutor())
    executor = ProcessExecutor()
    executor.submit(found.jobs["counting/base"])
    assert executor.poll(0) == [("counting/base", Outcome("done", ran=False))]


def test_jobs_travel_as_text(plan):
    for job in plan("counting", forced_at=1.5, debug=True).jobs.values():
        assert Job.from_document(job.document()) == job


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("no_such_module:f", "no module 'no_such_module'"),
        ("memento.no_such:f", "no module 'memento.no_such'"),
        ("memento.files:no_such", "no function 'no_such'"),
    ],
)
def test_bodies_that_do_not_exist(body, words):
    with pytest.raises(SettingError, match=words):
        load_body(body)


def test_wrong_places():
    with pytest.raises(SettingError, match="0 jobs"):
        PoolExecutor(0)
    pytest.importorskip("distributed")
    with pytest.raises(SettingError, match="tcp://"):
        DaskExecutor("host")
    with pytest.raises(SettingError, match="0 jobs"):
        DaskExecutor("local", jobs=0)


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("memento.runner.executors.dask._CONNECT", "1s")
    with pytest.raises(StorageError, match="does not answer"), DaskExecutor("tcp://127.0.0.1:9"):
        pass


@pytest.mark.slow
def test_a_scheduler_of_somebody_else(plan, outputs, tmp_path):
    distributed = pytest.importorskip("distributed")
    here = plan("counting", root=tmp_path / "here")
    schedule.run(here, ProcessExecutor())
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=None,
        worker_dashboard_address=None,
    ) as cluster:  # fmt: skip
        there = plan("counting", root=tmp_path / "there")
        with DaskExecutor(cluster.scheduler_address) as executor:
            schedule.run(there, executor)
        with DaskExecutor(cluster.scheduler_address) as executor:  # ours to use, not to close
            assert len(executor._client.scheduler_info()["workers"]) == 1
    assert outputs(there) == outputs(here)
