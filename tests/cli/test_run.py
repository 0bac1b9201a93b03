"""`memento run`: what it shows, what it refuses, its exit codes, and what signals leave behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from called import code_of

PAGE = Path(__file__).parents[1] / "runner" / "counting.py"


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run the command in this process; returns exit code, output and error stream."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object) -> tuple[int, str, str]:
        code = code_of("run", *words, "--experiments", PAGE)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def start(folder: Path, *words: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", "from memento.cli.main import main; main()", "run",
         *map(str, words), "--experiments", str(PAGE)],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def state_of(folder: Path, key: str) -> dict:
    try:
        return json.loads((folder / "results" / key / "state.json").read_text())
    except (OSError, ValueError):
        return {}


def beats(folder: Path, key: str) -> float:
    try:
        text = (folder / "results" / key / "heartbeat.json").read_text()
        return (json.loads(text)["progress"] or [0])[0]
    except (OSError, ValueError):
        return 0.0


def wait_for(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_runs_what_is_missing_and_only_that(run):
    code, out, err = run("counting", "walk-[12]", "-j", 0)
    assert (code, out) == (0, "3 done; 3 run now\n")
    assert re.search(r"done +counting/base +\(\d", err)
    code, out, _ = run("counting", "-j", 0)
    assert (code, out) == (0, "5 done; 2 run now\n")
    code, out, err = run("counting", "-j", 0)
    assert (code, out, err) == (0, "5 done; 0 run now\n", "")


def test_lists_states(run, tmp_path):
    run("trouble", "fine", "raises", "-j", 0)
    code, out, _ = run("trouble", "-l")
    assert code == 0
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:-1]}
    assert rows["trouble/fine"] == "done"
    assert rows["trouble/raises"] == "failed"
    assert rows["trouble/after"] == "missing"
    assert "ValueError: no luck" in out
    assert out.splitlines()[-1] == "1 done, 1 failed, 5 missing"
    code, out, _ = run("trouble", "fine", "-l", "--json")
    (found,) = json.loads(out)["experiments"]
    assert (found["state"], found["attempt"], found["parameters"]["seed"]) == ("done", 1, 9)
    assert Path(found["output"], "walk.csv").exists()
    assert json.loads(out)["counts"]["done"] == 1
    (tmp_path / "run.toml").write_text('[parameters."trouble/fine"]\nseed = 10\n')
    _, out, _ = run("trouble", "fine", "-l", "--config", "run.toml")
    assert out.splitlines()[1].split()[1] == "stale"


def test_the_list_says_why_something_cannot_run(run):
    run("trouble", "raises", "-j", 0)
    _, out, _ = run("trouble", "-l")
    rows = {line.split()[0]: line for line in out.splitlines()[1:-1]}
    assert rows["trouble/after"].split()[1] == "missing"
    assert "needs trouble/raises, which failed" in rows["trouble/after"]
    assert "needs no/such/file.csv, which does not exist" in rows["trouble/no-file"]
    _, out, _ = run("trouble", "after", "-l", "--json")
    assert json.loads(out)["experiments"][0]["reason"] == "needs trouble/raises, which failed"


def test_what_is_optional_and_lacks_its_file_fails_no_group(run, tmp_path):
    code, out, err = run("files", "-j", 0)
    assert (code, out) == (0, "1 done, 1 missing; 1 run now\n")
    said = "not run files/optional: needs no/such/file.csv, which does not exist; put it there, or"
    assert said in err
    assert 'name it: [parameters."files/optional"] label = "PATH"' in err
    assert run("files", "opt*", "-j", 0)[0] == 1  # asked for
    (tmp_path / "label.csv").touch()
    (tmp_path / "run.toml").write_text('[parameters."files/optional"]\nlabel = "label.csv"\n')
    code, out, _ = run("files", "--config", "run.toml", "-j", 0)
    assert (code, out) == (0, "2 done; 1 run now\n")


def test_what_settings_do_not_reach_is_noted(run, tmp_path):
    (tmp_path / "run.toml").write_text('[parameters."tuned/*"]\nrate = 0.25\n')
    code, _, err = run("tuned", "--config", "run.toml", "-l")
    assert code == 0
    assert 'parameters."tuned/*".rate changes nothing for tuned/other' in err


def test_failures_are_told_and_exit_with_1(run):
    code, out, err = run("trouble", "raises", "after", "fine", "-j", 0, "--json")
    assert code == 1
    found = {one["name"]: one for one in json.loads(out)["experiments"]}
    assert found["raises"]["state"] == "failed"
    assert found["raises"]["reason"] == "ValueError: no luck"
    assert "Traceback" in Path(found["raises"]["log"]).read_text()
    assert found["after"]["reason"] == "needs trouble/raises, which is not done"
    assert found["fine"]["state"] == "done"
    assert "failed  trouble/raises: ValueError: no luck; see" in err
    assert "not run trouble/after" in err


def test_groups(run):
    code, out, _ = run("-l")
    assert code == 0
    counts = dict(line.split()[:2] for line in out.splitlines()[1:])
    assert counts["counting"] == "5"
    assert {"puffer-replay", "datacenter-tuning", "demo"} <= set(counts)
    code, out, _ = run("-l", "--json")
    assert json.loads(out)["groups"]["counting"] == 5


def test_dry_run_says_what_where_and_why(run, tmp_path):
    run("counting", "walk-1", "-j", 0)
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = run("counting", "sum", "-j", 2, "-w", 3, "--dry-run")
    assert code == 0
    rows = [re.split(r"  +", line.strip()) for line in out.splitlines()[1:-1]]
    assert rows == [
        ["counting/walk-2", "local pool, 3 thread(s)", "missing; needed by counting/sum"],
        ["counting/walk-3", "local pool, 3 thread(s)", "missing; needed by counting/sum"],
        ["counting/sum", "local pool, 3 thread(s)", "missing"],
    ]
    assert out.splitlines()[-1] == "3 of 5 experiments would run"
    _, out, _ = run("counting", "walk-1", "--force", "--dry-run", "--json")
    assert json.loads(out) == {
        "would_run": {"counting/walk-1": {"where": "local pool, 1 thread(s)", "why": "--force"}},
        "of": 2,
    }
    assert sorted(tmp_path.rglob("*")) == before


def test_force_runs_again(run):
    run("counting", "walk-1", "-j", 0)
    code, out, _ = run("counting", "walk-1", "-j", 0, "--force")
    assert (code, out) == (0, "2 done; 1 run now\n")


def test_logs_are_shown_on_demand(run):
    _, _, err = run("counting", "base", "-j", 1, "-v")
    assert "counting/base: begins at step 0 of 6" in err
    _, _, err = run("counting", "walk-1", "-j", 1)
    assert "begins at step" not in err


def test_config_reaches_the_body(run, tmp_path):
    (tmp_path / "run.toml").write_text(
        'results = "elsewhere"\njobs = 0\n[parameters."counting/base"]\nsteps = 3\n'
    )
    assert run("counting", "base", "--config", "run.toml")[0] == 0
    (table,) = (tmp_path / "elsewhere" / "counting" / "base").glob("output-*/walk.csv")
    assert len(table.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say which group to run: datacenter-replay"),
        (["nothing"], "there is no group 'nothing'; there are datacenter-replay"),
        (["counting", "x*"], r"no experiment of group counting matches 'x\*'; there are base"),
        (["counting", "-j", "-1"], "-j is -1"),
        (["counting", "-w", "0"], "-w is 0"),
        (["counting", "--slurm", "--scheduler", "local"], "two places"),
        (["counting", "--slurm", "-j", "0"], "-j 0 is this process"),
        (["counting", "--scheduler", "host"], "tcp://"),
        (["counting", "--config", "absent.toml"], "absent.toml"),
        (["counting", "--config", "wrong.toml"], "no parameter 'stepps'; there are pause"),
        (["counting", "--config", "type.toml"], "steps is 'x'; expected a whole number, such as 6"),
        (["tuned", "-l", "--config", "range.toml"], "tuned/one: steps=0; give at least 1"),
        (["counting", "--config", "group.toml"], "there is no group 'countin'"),
        (["counting", "--no-such-option"], "no-such-option"),
    ],
)  # fmt: skip
def test_wrong_use_exits_with_2_and_changes_nothing(run, tmp_path, words, message):
    (tmp_path / "wrong.toml").write_text("[parameters.counting]\nstepps = 1\n")
    (tmp_path / "type.toml").write_text('[parameters."counting/*"]\nsteps = "x"\n')
    (tmp_path / "range.toml").write_text('[parameters."tuned/one"]\nsteps = 0\n')
    (tmp_path / "group.toml").write_text("[parameters.countin]\nsteps = 1\n")
    code, _, err = run(*words)
    assert code == 2, err
    assert re.search(message, err)
    assert not (tmp_path / "results").exists()


def test_an_empty_group_says_why(run, monkeypatch):
    monkeypatch.setattr(
        "memento.runner.registry.Registry.__init__.__defaults__", ((), {"x": "no_page"})
    )
    code, out, err = run("x")
    assert (code, out) == (0, "no experiments; 0 run now\n")
    assert "group x is empty: this installation has no no_page" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("jobs", [0, 1])
def test_a_signal_stops_and_the_same_command_goes_on(tmp_path, number, code, jobs):
    command = start(tmp_path, "slow", "long", "-j", jobs)
    wait_for(lambda: beats(tmp_path, "slow/long") >= 3)
    command.send_signal(number)
    _, err = command.communicate(timeout=60)
    assert command.returncode == code, err
    assert "the same command goes on from here" in err
    assert state_of(tmp_path, "slow/long")["state"] == "interrupted"
    (tmp_path / "run.toml").write_text("")
    command = start(tmp_path, "slow", "long", "-j", jobs)
    wait_for(lambda: beats(tmp_path, "slow/long") >= 6)
    command.kill()
    command.communicate()
    log = (tmp_path / "results" / "slow" / "long" / "log.txt").read_text()
    assert "begins at step" in log
    assert "begins at step 0 " not in log


def test_two_commands_at_once_run_everything_once(tmp_path):
    commands = [start(tmp_path, "counting", "-j", 2, "--json") for _ in range(2)]
    answers = [command.communicate(timeout=120) for command in commands]
    assert [command.returncode for command in commands] == [0, 0], answers
    found = [json.loads(out)["experiments"] for out, _ in answers]
    ran = [one["name"] for answer in found for one in answer if one["ran"]]
    assert sorted(ran) == ["base", "sum", "walk-1", "walk-2", "walk-3"]
    assert {one["attempt"] for answer in found for one in answer} == {1}
