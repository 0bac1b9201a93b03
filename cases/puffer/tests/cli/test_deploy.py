"""`memento puffer deploy` as cron and people call it, and jobs killed at random moments.

Run as a script, this file kills real jobs: it imports everything once and forks them, so that
dozens of processes are killed without starting Python dozens of times.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 100

pytest.importorskip("torch", reason="publishing needs torch")

import deployment_days as helpers  # noqa: E402
import published_tree  # noqa: E402

CONFIG = """
capacity = 320

[variants.default]
policy = {batch_size = 16, temperature = 0.01}

[training]
epochs = 3
batch_size = 64
learning_rate = 3e-3
held_out = 0.0

[gate]
loss = 5.0
tail = 50.0
"""


def tree(folder):
    """Every file below a folder with its content, and links; a lock's existence does not count."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name != "lock" and (path.is_symlink() or path.is_file())
    }


def write_data(folder, numbers):
    """Days as Puffer publishes them."""
    import polars as pl

    from memento_puffer.data.schema import write_day

    for number in numbers:
        found = helpers.features(number)
        n = len(found.stream)
        viewer = {
            "session_id": [f"s{i}" for i in found.stream], "index": [0] * n, "expt_id": [1] * n,
            "channel": ["abc"] * n, "video_ts": found.video_ts,
        }  # fmt: skip
        values = found.values.astype("f8")
        sent = {
            "time": found.sent, **viewer, "format": ["426x240-26"] * n,
            "size": (values[:, 5] * 1500).astype("i8"), "ssim_index": [0.9] * n,
            "cwnd": values[:, 1].astype("i8"), "in_flight": values[:, 2].astype("i8"),
            "min_rtt": (values[:, 3] * 1e6).astype("i8"), "rtt": (values[:, 4] * 1e6).astype("i8"),
            "delivery_rate": (values[:, 0] * 1500).astype("i8"),
        }  # fmt: skip
        name = str(helpers.day(number - 1))
        acked = pl.DataFrame({"time": found.acked, **viewer})
        write_day(folder / name, name, {"video_sent": pl.DataFrame(sent), "video_acked": acked})


@pytest.fixture
def call(monkeypatch):
    """The command, in process: exit code, standard output and error."""
    from typer.testing import CliRunner

    from memento.errors import MementoError
    from memento_puffer.cli import deploy
    from memento_puffer.predictor import ttp as ttp_module

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(ttp_module, "_cpp_bytes", helpers.quick_writer())

    def call(*words):
        result = CliRunner().invoke(deploy.app, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            if isinstance(result.exception, MementoError):
                return 2, result.stdout, str(result.exception)  # as `main` does
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


@pytest.fixture
def state(tmp_path, call):
    """A deployment and a folder of days."""
    config, base = tmp_path / "deploy.toml", tmp_path / "base"
    config.write_text(CONFIG)
    helpers.base().write(base)
    assert call("init", tmp_path / "state", "--config", config, "--base", base)[0] == 0
    write_data(tmp_path / "days", [0, 1, 3])
    return tmp_path / "state"


def test_a_week_of_cron(state, call):
    days = state.parent / "days"

    def run(number, *more):
        return call("run", state, days, "--today", helpers.day(number), *more)

    code, out, _ = run(0)
    assert (code, out.count("trained 0,1,2,3,4, published 2022-09-20")) == (0, 1)
    code, out, _ = run(1, "--json")
    document = json.loads(out)
    assert (code, document["waiting"], document["attention"]) == (0, None, [])
    assert [row["model"] for row in document["days"][0]["variants"]["default"]["rows"]] == [
        "2022-09-20"
    ] * 5
    code, out, err = run(1)
    assert (code, out, err) == (0, "", "")
    code, out, err = run(2)
    assert (code, out) == (3, "")
    assert "the data of 2022-09-21 is not there yet" in err
    code, out, err = run(3)
    assert code == 4
    assert "attention: 2022-09-22: data of 2022-09-21: no data" in err
    code, out, _ = call("status", state)
    assert code == 0
    assert "2022-09-22  no data" in out
    assert "serves" in out
    code, out, _ = call("status", state, "--days", 1, "--json")
    assert [entry["day"] for entry in json.loads(out)["days"]] == ["2022-09-23"]


def test_a_day_that_fails(state, call, monkeypatch):
    """Not as wrong use ends, and what was done before is told."""
    days = state.parent / "days"
    (cut,) = (days / str(helpers.day(0))).glob("video_sent*")
    cut.write_bytes(cut.read_bytes()[:-20])
    words = ("run", state, days, "--today", helpers.day(1), "--start", helpers.day(0))
    code, out, err = call(*words, "--json")
    document = json.loads(out)
    assert (code, len(document["days"])) == (1, 1)
    assert str(cut) in document["failure"]
    assert "This was about day 2022-09-21 of the deployment." in document["failure"]
    assert f"memento: error: {document['failure']}" in err
    code, out, err = call(*words)
    assert (code, out) == (1, "")
    assert call("status", state)[1].count("failed 2 times") == 1
    monkeypatch.setenv("MEMENTO_DEBUG", "1")
    assert call(*words)[0] == 2, "handed on to whoever shows the trace"


def test_a_second_run_is_refused(state, call):
    from memento.files import Lock

    with Lock(state / "lock"):
        code, _, err = call("run", state, state.parent / "days", "--today", helpers.day(0))
        assert code == 5
        assert "another process" in err
        assert call("rollback", state, "default", "--reason", "x")[0] == 5


def test_rollback(state, call):
    days = state.parent / "days"
    call("run", state, days, "--today", helpers.day(1), "--start", helpers.day(0))
    versions = sorted(path.name for path in (state / "published/default/versions").iterdir())
    if len(versions) == 1:
        code, _, err = call("rollback", state, "default", "--reason", "x")
        assert (code, "no version before" in err) == (2, True)
    code, out, _ = call(
        "rollback", state, "default", "--reason", "x", "--to", versions[0], "--json"
    )
    assert (code, json.loads(out)["version"]) == (0, versions[0])
    assert os.readlink(state / "published/default/current") == f"versions/{versions[0]}"
    config = state.parent / "deploy.toml"
    config.write_text(f"git = '{state.parent}'\n" + CONFIG)
    assert call("configure", state, config)[0] == 0
    code, out, err = call("rollback", state, "default", "--reason", "x", "--to", versions[-1])
    assert (code, out) == (4, f"default: {versions[-1]} serves\n")
    assert "attention: default: not published to git" in err


def test_wrong_use(state, call, tmp_path):
    assert call("run", tmp_path, tmp_path)[0] == 2
    assert "no such folder" in call("run", state, tmp_path / "absent")[2]
    assert "--today is '20.9.2022'" in call("run", state, tmp_path, "--today", "20.9.2022")[2]
    bad = tmp_path / "bad.toml"
    bad.write_text("capacity = ")
    assert "is no TOML" in call("init", tmp_path / "new", "--config", bad)[2]
    bad.write_text("capcity = 5")
    assert "bad.toml: unknown key 'capcity'" in call("init", tmp_path / "n", "--config", bad)[2]
    assert "both give a capacity" in call(
        "init", tmp_path / "n", "--config", tmp_path / "deploy.toml", "--capacity", 500
    )[2]  # fmt: skip
    assert "--days is 0" in call("status", state, "--days", 0)[2]


def test_configure(state, call, tmp_path):
    config = tmp_path / "deploy.toml"
    config.write_text(CONFIG.replace("capacity = 320", "capacity = 640"))
    assert call("configure", state, config)[0] == 0
    config.write_text(CONFIG.replace("batch_size = 16", "batch_size = 32"))
    code, _, err = call("configure", state, config)
    assert (code, "set metric=2 as well" in err) == (2, True)


def test_the_published_record_and_ones_own(state, call, data_folder, tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "published.png"
    code, out, _ = call(
        "record", data_folder / "puffer-deployment.csv", "--from", "2022-09-19", "--until",
        "2023-07-16", "--figure", figure, "--json",
    )  # fmt: skip
    assert code == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    rows = json.loads(out)["rows"]
    assert [row["retrained"] for row in rows] == [7, 7, 5, 8, 5, 14, 18, 16, 17, 13]
    call("run", state, state.parent / "days", "--today", helpers.day(0))
    code, out, _ = call("record", state, "--figure", tmp_path / "own.png")
    assert code == 0
    assert out.count("default") == 5
    assert (tmp_path / "own.png").is_file()


def test_the_record_of_the_published_tree(tmp_path, call):
    pytest.importorskip("matplotlib")
    for variant in ("default", "deterministic"):
        for day, trained in published_tree.DAYS.items():
            for horizon in range(4 if variant == "default" else 5):
                row = published_tree.row(variant, horizon, day, trained)
                published_tree.write(tmp_path / "tree", row)
    figure = tmp_path / "published.png"
    code, out, err = call("record", tmp_path / "tree", "--figure", figure, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["published"] is True
    assert [row["retrained"] for row in facts["rows"]] == [2] * 9
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert len(facts["notes"]) == 3
    assert "default lacks the horizons 4" in err
    assert "lacks the models that were trained on 2022-09-26 (horizon 0)" in " ".join(err.split())
    code, out, err = call("record", tmp_path / "tree", "--from", "2022-09-27")
    assert code == 0
    assert [line.split()[2:4] for line in out.splitlines()[1:]] == [["2", "1"]] * 9


def test_a_folder_that_holds_no_deployment(tmp_path, call):
    code, _, err = call("record", tmp_path)
    assert code == 2
    assert "neither STATE of memento puffer deploy init, nor a published one" in " ".join(
        err.split()
    )


def test_a_record_in_a_pipe_is_whole(call, data_folder):
    code, out, _ = call("record", data_folder / "puffer-deployment.csv")
    assert code == 0
    header, *lines = out.splitlines()
    assert header.split() == [
        *("variant", "horizon", "days", "retrained", "p10", "median", "p90", "largest"),
        *("total", "coverage"),
    ]
    assert [line.split()[0] for line in lines] == ["default"] * 5 + ["deterministic"] * 5
    assert {len(line.split()) for line in lines} == {9}


def test_a_record_whose_coverage_is_not_known(call, data_folder):
    code, out, err = call("record", data_folder / "puffer-deployment.csv", "--until", "2022-05-01")
    assert code == 0, err
    assert out.count("default") == 5


def test_a_record_without_the_days_asked_for(state, call, data_folder):
    published = data_folder / "puffer-deployment.csv"
    code, _, err = call("record", published, "--from", "2024-01-01")
    assert (code, "from 2024-01-01 to its last; it has some from 2022-05-01 to" in err) == (2, True)
    code, _, err = call("record", state)
    assert (code, "holds no day with data yet" in err) == (2, True)


def test_a_model_of_another_kind(tmp_path):
    """The module and settings in the documentation, with the command for any model."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet
    from typer.testing import CliRunner

    from memento.cli import deploy

    page = (Path(__file__).parents[2] / "docs" / "puffer_deployment.md").read_text()
    page = page.partition("## A model of another kind")[2]
    module = f"my_model_{os.getpid()}"
    config = page.split("```toml\n")[1].split("```")[0].replace("my_model", module)
    (tmp_path / f"{module}.py").write_text(page.split("```python\n")[1].split("```")[0])
    (tmp_path / "deployment.toml").write_text(config)
    (tmp_path / "days").mkdir()
    rng = np.random.default_rng(0)

    def call(*words):
        result = CliRunner().invoke(deploy.app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.stdout

    call("init", tmp_path / "state", "--config", tmp_path / "deployment.toml")
    for number in (1, 2, 3):
        x = rng.normal(size=(400, 2)).astype("f4") + (0 if number < 3 else 2)
        y = (x[:, 0] > 0).astype(int) + (x[:, 1] > 1)
        table = pa.table({"x0": x[:, 0], "x1": x[:, 1], "y_bin": y})
        parquet.write_table(table, tmp_path / f"days/2024-05-{number:02d}.parquet")
        call("run", tmp_path / "state")
    link = tmp_path / "state/published/main/current"
    facts = json.loads(call("status", tmp_path / "state", "--json"))["variants"]["main"]
    assert [row["trained"] for row in facts["days"]][::2] == [True, True], "a day like none before"
    assert facts["serving"] == os.readlink(link)
    with np.load(link / "learner.npz") as model:
        assert len(model.files) > 3


# --- killed at random moments ----------------------------------------------------------------


def in_progress(folder: Path) -> bool:
    """Whether a day was begun and is not done."""
    plan = folder / "plan.json"
    return (
        plan.is_file()
        and not (folder / f"days/{json.loads(plan.read_text())['day']}.json").exists()
    )


def cut_off(folder: Path) -> set[str]:
    """What writes left that were cut off: temporary files, and folders that nothing names yet."""
    found = {path.name for path in folder.rglob(".*.tmp")}
    for path in folder.glob("variants/*/*/generation-*"):
        manifest = path.parent / "manifest.json"
        number = json.loads(manifest.read_text())["generation"] if manifest.is_file() else 0
        if path.name != f"generation-{number:06d}":
            found.add(str(path))
    for path in folder.glob("published/*/versions/*"):
        history = path.parents[1] / "history.json"
        if not history.is_file() or path.name not in history.read_text():
            found.add(str(path))
    return found


def serve(folder: Path) -> dict[str, int]:
    """Kill jobs at random moments until two deployments are done; compare with undisturbed ones."""
    from memento_puffer.deployment.deploy import Deployment
    from memento_puffer.deployment.publish import Publication
    from memento_puffer.predictor import ttp as ttp_module

    ttp_module._cpp_bytes = helpers.quick_writer()
    last = 3
    days = helpers.Days(0, 1, 3)  # one day has no data

    def job(deployment, number):
        return deployment.run(days, today=helpers.day(number), start=helpers.day(0))

    def create(name):
        return Deployment.create(folder / name, helpers.settings(), helpers.base())

    straight = create("straight")
    started = time.monotonic()
    for number in range(last + 1):
        job(straight, number)
    lasting = (time.monotonic() - started) / 3
    wanted = tree(straight.folder)
    rng = random.Random(0)
    counts = {"kills": 0, "in_progress": 0, "cut_off": 0, "deployments": 0}
    least = {"kills": KILLS, "in_progress": KILLS // 4, "cut_off": KILLS // 10}
    began = time.monotonic()

    def met():
        """Whether enough was killed, and at work: the test proves nothing where no kill met any."""
        assert time.monotonic() - began < 600, f"kills do not meet jobs at work: {counts}"
        return all(counts[name] >= number for name, number in least.items())

    while not met() or counts["deployments"] < 2:
        disturbed = create(f"disturbed-{counts['deployments']}")
        number, left = 0, set()
        while number <= last:
            if met() and counts["deployments"]:  # the rest is done in peace
                job(disturbed, number)
                number += 1
                continue
            worker = os.fork()
            if worker == 0:
                try:
                    job(disturbed, number)
                    os._exit(0)
                finally:
                    os._exit(9)
            time.sleep(rng.uniform(0, 0.5 * lasting))
            os.kill(worker, signal.SIGKILL)
            _, status = os.waitpid(worker, 0)
            if not os.WIFSIGNALED(status):
                assert os.WEXITSTATUS(status) == 0, "a job failed after others were killed"
                number += 1
                lasting *= 0.9  # most are killed, however fast the machine is
                continue
            counts["kills"] += 1
            lasting *= 1.02
            counts["in_progress"] += in_progress(disturbed.folder)
            before, left = left, cut_off(disturbed.folder)
            counts["cut_off"] += bool(left - before)
            published = Publication(disturbed.folder / "published" / "default")
            serving = published.current()
            if serving is not None:
                serving.read()  # whole, whatever was going on
            if published.link.is_symlink():
                assert (published.link / "manifest.json").is_file()
        found = tree(disturbed.folder)
        assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
        assert all(found[name] == wanted[name] for name in wanted), "the bytes differ"
        counts["deployments"] += 1
        shutil.rmtree(disturbed.folder)
    return counts


@pytest.mark.slow
def test_killed_at_100_random_moments(tmp_path):
    result = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=900,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[1]),  # where the helpers lie
        },
    )
    assert result.returncode == 0, result.stdout + result.stderr
    counts = json.loads(result.stdout)
    assert counts["kills"] >= KILLS, counts
    assert counts["deployments"] >= 2, counts


if __name__ == "__main__":
    counted = serve(Path(sys.argv[1]))
    sys.stdout.write(json.dumps(counted))
