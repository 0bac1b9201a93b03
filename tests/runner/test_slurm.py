"""Slurm three ways: golden scripts, a fake at the boundary of processes, and a real cluster.

The real one is a single node on the loopback, started by `slurm/single_node.sh`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memento.errors import SettingError
from memento.runner import schedule
from memento.runner.executors.process import ProcessExecutor
from memento.runner.executors.slurm import SbatchExecutor, SlurmExecutor, largest, script
from memento.runner.job import Outcome
from memento.runner.settings import Overrides, SlurmSettings
from memento.runner.spec import Resources

HERE = Path(__file__).parent
SETTINGS = SlurmSettings(
    partition="compute",
    account="lab",
    qos="low",
    constraint="avx512&ib",
    directives=("--exclude=node7",),
    prologue=("module load python",),
    python="/opt/python/bin/python",
)


# --- golden scripts --------------------------------------------------------------------------


def test_script_of_one_experiment(plan):
    resources = Overrides(resources=(("counting", {"memory_GB": 8, "hours": 2.5}),))
    found = plan(
        "counting", "base", root=Path("/data/a '; echo foo"), overrides=resources, threads=4
    )
    text = script(found.jobs["counting/base"], SETTINGS)
    assert text == (HERE / "golden" / "job.sh").read_text()
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_script_of_a_dask_worker(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setattr("memento.runner.executors.slurm._find", lambda command: None)
    executor = SlurmExecutor(SETTINGS, Resources(4, 8, 2.5), tmp_path, jobs=3)
    text = executor.script()
    text = re.sub(r"tcp://[0-9.:]+", "SCHEDULER", text).replace(str(tmp_path), "ROOT")
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert directives == [
        "#SBATCH -J memento",
        "#SBATCH -e ROOT/.slurm/memento-%J.err",
        "#SBATCH -o ROOT/.slurm/memento-%J.out",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=8G",
        "#SBATCH -t 02:30:00",
        "#SBATCH --partition=compute",
        "#SBATCH --account=lab",
        "#SBATCH --qos=low",
        "#SBATCH --constraint=avx512&ib",
        "#SBATCH --exclude=node7",
    ]
    assert text.startswith("#!/bin/bash\n")
    commands = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert commands[0] == "module load python"
    assert commands[1].startswith("/opt/python/bin/python -m distributed.cli.dask_worker SCHEDULER")
    assert "--nthreads 4" in commands[1]
    assert "--resources threads=4" in commands[1]


def test_a_worker_has_room_for_any_experiment(plan):
    resources = Overrides(
        resources=(("counting/base", {"memory_GB": 8}), ("counting/sum", {"hours": 9}))
    )
    found = plan("counting", overrides=resources, threads=3)
    assert largest(list(found.jobs.values())) == Resources(3, 8, 9)


def test_ctrl_c_stays_ours(tmp_path):
    """Importing dask-jobqueue replaces the handler of SIGINT by one that exits."""
    pytest.importorskip("dask_jobqueue")
    code = (
        "import signal, pathlib\n"
        "from memento.runner.executors.slurm import SlurmExecutor\n"
        "from memento.runner.settings import SlurmSettings\n"
        "from memento.runner.spec import Resources\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        f"SlurmExecutor(SlurmSettings(), Resources(), pathlib.Path({str(tmp_path)!r}))\n"
        "assert signal.getsignal(signal.SIGINT) is before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingError, match="login node"):
        SbatchExecutor(SlurmSettings())


# --- a fake cluster --------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Path:
    """A folder in which a Slurm without Slurm lives."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("sbatch", "squeue", "scancel"):
        (commands / name).write_text(
            f'#!/bin/sh\nexec {sys.executable} {HERE}/slurm/fake_slurm.py {name} "$@"\n'
        )
        (commands / name).chmod(0o755)
    folder = tmp_path / "cluster"
    folder.mkdir()
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def sbatch(fake):
    with SbatchExecutor(SlurmSettings(), interval=0.1) as executor:
        yield executor


def test_fake_same_bytes_as_in_this_process(sbatch, plan, outputs, tmp_path):
    here = plan("counting", "walk-1", root=tmp_path / "here")
    schedule.run(here, ProcessExecutor())
    there = plan("counting", "walk-1", root=tmp_path / "a '; echo foo %j")
    reports = schedule.run(there, sbatch)
    assert {report.state for report in reports.values()} == {"done"}, reports
    assert outputs(there) == outputs(here)
    assert "Slurm, job 2, process" in reports["counting/walk-1"].status.where


def test_fake_failures(sbatch, plan):
    found = plan("trouble", "fine", "raises", "exits")
    reports = schedule.run(found, sbatch)
    assert reports["trouble/fine"].state == "done"
    assert reports["trouble/raises"].error == "ValueError: no luck"
    assert reports["trouble/exits"].error == "SystemExit: 7"


def test_fake_refusal_does_not_stop_the_rest(sbatch, fake, plan):
    (fake / "refuse").touch()
    reports = schedule.run(plan("counting", "base"), sbatch)
    assert reports["counting/base"].state == "failed"
    assert "Invalid partition name" in reports["counting/base"].error


def test_fake_controller_that_restarts(sbatch, fake, plan):
    (fake / "down").touch()
    assert schedule.run(plan("counting", "base"), sbatch)["counting/base"].state == "done"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("TIMEOUT", "TIMEOUT after 1 h; give it more `hours`"),
        ("OUT_OF_MEMORY", "with 2 GB; give it more `memory_GB`"),
        ("CANCELLED", "CANCELLED; see"),
        ("NODE_FAIL", "NODE_FAIL"),
    ],
)
def test_fake_ends_that_the_job_cannot_tell(sbatch, fake, plan, state, words):
    (fake / "hold").touch()
    found = plan("counting", "base")
    sbatch.submit(found.jobs["counting/base"])
    assert sbatch.poll(0.3) == []
    (fake / "1.state").write_text(state)
    ((key, outcome),) = sbatch.poll(5.0)
    assert (key, outcome.state) == ("counting/base", "failed")
    assert words in outcome.error


def test_fake_job_of_a_call_that_is_gone_is_found_again(sbatch, fake, plan, until):
    (fake / "hold").touch()
    job = plan("counting", "base").jobs["counting/base"]
    assert sbatch.submit(job) == "Slurm, job 1"
    sbatch._submitted.clear()  # as if that call had been killed
    second = SbatchExecutor(SlurmSettings(), interval=0.1)
    assert second.submit(job) == "Slurm, job 1"
    second.stop(0.0)
    until(lambda: (fake / "1.state").exists())
    third = SbatchExecutor(SlurmSettings(), interval=0.1)
    assert third.submit(job) == "Slurm, job 2", "a cancelled job was waited for"
    third.stop(0.0)


def test_fake_interrupt_reaches_the_jobs(sbatch, plan, until):
    job = plan("slow", "long").jobs["slow/long"]
    sbatch.submit(job)
    until(lambda: (job.status().progress or (0,))[0] >= 3)
    sbatch.stop(10.0)
    found = job.status()
    assert (found.state, found.reason) == ("missing", "interrupted; goes on from its checkpoint")


def test_fake_experiment_that_runs_elsewhere(sbatch, plan, until):
    from memento.runner.executors.pool import PoolExecutor

    job = plan("slow", "long").jobs["slow/long"]
    with PoolExecutor(1) as pool:
        pool.submit(job)
        until(lambda: job.status().state == "running")
        sbatch.submit(job)
        assert until(lambda: sbatch.poll(1.0)) == [("slow/long", Outcome("elsewhere"))]


# --- a real cluster --------------------------------------------------------------------------

NODE = HERE / "slurm" / "single_node.sh"


def _unable() -> str:
    """Why this machine cannot run a real Slurm; empty if it can."""
    missing = [name for name in ("slurmctld", "slurmd", "munged") if not _which(name)]
    if missing:
        return f"{', '.join(missing)} not installed: {NODE.name} install (Debian, as root)"
    if os.geteuid() != 0:
        return "starting slurmd and munged needs root"
    return ""


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


real = [pytest.mark.slurm, pytest.mark.skipif(bool(_unable()), reason=_unable() or "possible")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A real Slurm of one node; the value of SLURM_CONF."""
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run(
        [NODE, "start", folder], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    if started.returncode == 3:
        pytest.skip(started.stderr)
    assert started.returncode == 0, started.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield folder
    subprocess.run([NODE, "stop", folder], check=True, capture_output=True)


def small(group: str) -> Overrides:
    return Overrides(resources=((group, {"memory_GB": 0.3, "hours": 0.1}),))


@pytest.mark.parametrize("submit", [pytest.param(name, marks=real)
                                    for name in ("sbatch", "dask-jobqueue")])  # fmt: skip
def test_real_same_bytes_as_in_this_process(cluster, submit, plan, outputs, tmp_path):
    here = plan("counting", "sum", root=tmp_path / "here")
    schedule.run(here, ProcessExecutor())
    there = plan("counting", "sum", root=tmp_path / "a '; echo foo %j", overrides=small("counting"))
    if submit == "sbatch":
        executor = SbatchExecutor(SlurmSettings(), interval=0.5)
    else:
        pytest.importorskip("dask_jobqueue")
        resources = largest(list(there.jobs.values()))
        executor = SlurmExecutor(SlurmSettings(interface="lo"), resources, tmp_path, jobs=2)
    with executor:
        reports = schedule.run(there, executor)
    assert {report.state for report in reports.values()} == {"done"}, reports
    assert all("Slurm" in report.status.where for report in reports.values())
    assert all(", job " in report.status.where for report in reports.values())
    assert outputs(there) == outputs(here)


@pytest.mark.parametrize("end", [pytest.param(name, marks=real) for name in ("stop", "scancel")])
def test_real_jobs_stop_when_asked(cluster, plan, until, end):
    found = plan("slow", "long", overrides=small("slow"))
    job = found.jobs["slow/long"]
    with SbatchExecutor(SlurmSettings(), interval=0.5) as executor:
        where = executor.submit(job)
        until(lambda: (job.status().progress or (0,))[0] >= 3, 60)
        if end == "stop":
            executor.stop(20.0)
        else:
            subprocess.run(["scancel", where.rpartition(" ")[2]], check=True)
            ((_, outcome),) = until(lambda: executor.poll(1.0), 60)
            assert outcome.state == "failed"
            assert "CANCELLED" in outcome.error
    until(lambda: job.status().state == "missing", 30)
    assert job.status().reason == "interrupted; goes on from its checkpoint"


@pytest.mark.parametrize("partition", [pytest.param("nowhere", marks=real)])
def test_real_refusal_is_quoted(cluster, plan, partition):
    with SbatchExecutor(SlurmSettings(partition=partition)) as executor:
        reports = schedule.run(plan("counting", "base"), executor)
    assert "invalid partition" in reports["counting/base"].error.lower()


@pytest.mark.parametrize("kill", [pytest.param(signal.SIGKILL, marks=real)])
def test_real_job_outlives_a_killed_call_and_is_found_again(
    cluster, plan, page, until, kill, tmp_path
):
    """The command is killed; its Slurm job goes on, and the next command waits for that one."""
    config = tmp_path / "run.toml"
    config.write_text(
        '[slurm]\nsubmit = "sbatch"\n[resources.slow]\nmemory_GB = 0.3\n'
        '[parameters."slow/long"]\nsteps = 60\n'
    )
    words = [
        sys.executable,
        "-c",
        "from memento.cli.main import main; main()",
        "run",
        "slow",
        "long",
    ]
    words += ["--slurm", "--config", config, "--experiments", page, "--results", tmp_path / "out"]
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = tmp_path / "out" / "slow" / "long" / "state.json"
    until(state.exists, 60)
    first.send_signal(kill)
    first.wait()
    second = subprocess.run([*words, "--json"], capture_output=True, text=True, timeout=120)
    assert second.returncode == 0, second.stderr
    (found,) = json.loads(second.stdout)["experiments"]
    assert (found["state"], found["attempt"]) == ("done", 1), second.stderr
    assert time.time() - state.stat().st_mtime < 120
