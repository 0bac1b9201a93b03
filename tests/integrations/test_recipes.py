"""The recipes of the page about services, as they stand there, with the real libraries."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from memento import FIFO, JensenShannon, Memento, Memory
from memento.cli import exposition

PAGE = Path(__file__).parents[2] / "docs" / "recipes_services.md"
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
SECONDS = 240


def blocks(title: str, language: str = "python") -> list[str]:
    """What stands in fences of a language under a title."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)
    assert found, title
    return found


def needs(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")


def called(folder: Path, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """A process that is given up after a while; its home is the folder, and it is offline."""
    own = {"PATH": PATH, "HOME": str(folder), "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1",
           "WANDB_MODE": "offline", "DO_NOT_TRACK": "1"}  # fmt: skip
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=SECONDS, input=text,
        env={**os.environ, **own},
    )  # fmt: skip


def run_example(folder: Path, title: str) -> str:
    (folder / "example.py").write_text("\n".join(blocks(title)))
    done = called(folder, sys.executable, "example.py")
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_day(folder: Path, name: str, classes: int, seed: int) -> None:
    (folder / "days").mkdir(exist_ok=True)
    y = np.random.default_rng(seed).integers(classes, size=500)
    text = "y,x\n" + "".join(f"{label},{i}\n" for i, label in enumerate(y))
    (folder / "days" / f"{name}.csv").write_text(text)


def new_memory(folder: Path) -> None:
    Memory(300, Memento([JensenShannon.of_labels("y")], batch_size=4), seed=0).save(folder / "mem")


@pytest.mark.slow
def test_cron_and_prometheus(tmp_path):
    parser = pytest.importorskip("prometheus_client.parser")
    (script,) = blocks("cron and Prometheus", "sh")
    (tmp_path / "watched.sh").write_text(script)
    new_memory(tmp_path)
    codes = []
    for number in range(2):
        write_day(tmp_path, f"2026-01-0{number}", 3, number)
        done = called(
            tmp_path, "env", f"METRICS={tmp_path}", "sh", "watched.sh", f"2026-01-0{number}"
        )
        codes.append(done.returncode)
        if number == 0:
            memory = Memory.load(tmp_path / "mem")
            memory.mark_trained()
            memory.save(tmp_path / "mem")
    assert codes == [10, 0], done.stderr
    text = (tmp_path / "memento.prom").read_text()
    there = {s.name for f in parser.text_string_to_metric_families(text) for s in f.samples}
    assert "memento_memory_retraining_due" in there
    page = PAGE.read_text(encoding="utf-8").partition("## Airflow")[0]
    named = set(re.findall(r"memento_memory_\w+", page))
    named |= {f"memento_memory{name}" for name in re.findall(r"`(_\w+)`", page)}
    memory = Memory.load(tmp_path / "mem")
    facts = {"policy": {"kind": ""}, "model": "", "weight": None, "trained": 1, "decision": None,
             "composition": {"y": {"a": 1}}, "waiting": 0}  # fmt: skip
    told = exposition.of_memory(memory, facts, tmp_path / "mem")
    assert named <= {name for name, *_ in told}
    assert len(named) > 15
    from yaml import safe_load

    (alerts,) = blocks("cron and Prometheus", "yaml")
    (group,) = safe_load(alerts)["groups"]
    assert all({"alert", "expr"} <= set(rule) for rule in group["rules"])


@pytest.mark.slow
def test_airflow(tmp_path, monkeypatch):
    """The file is read with stand-ins, and its commands run in the order that it states."""
    tasks, order = {}, []

    class Operator:
        def __init__(self, task_id, bash_command, cwd):
            self.task_id, self.bash_command = task_id, bash_command
            tasks[task_id] = self

        def __rshift__(self, other):
            order.append((self.task_id, other.task_id))
            return other

    class Dag:
        def __init__(self, name, *, schedule, start_date, catchup, max_active_runs):
            assert max_active_runs == 1

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    for name in ("airflow", "airflow.sdk", "airflow.providers", "airflow.providers.standard",
                 "airflow.providers.standard.operators",
                 "airflow.providers.standard.operators.bash"):  # fmt: skip
        module = types.ModuleType(name)
        module.DAG, module.BashOperator = Dag, Operator
        monkeypatch.setitem(sys.modules, name, module)
    (code,) = blocks("Airflow")
    exec(compile(code, "dag.py", "exec"), {})  # noqa: S102
    assert order == [("insert", "decide"), ("decide", "retrain")]
    new_memory(tmp_path)
    (tmp_path / "retrain.py").write_text("import sys; open('trainings', 'a').write(sys.argv[1])")
    codes = []
    for number in range(2):
        day = f"2026-01-0{number + 1}"
        write_day(tmp_path, day, 3, number)
        for name in ("insert", "decide", "retrain"):
            command = tasks[name].bash_command.replace("{{ ds }}", day)
            codes.append(called(tmp_path, "bash", "-c", command).returncode)
            if codes[-1]:
                break
    assert codes == [0, 0, 0, 0, 99], "the first day brings a training, a day like it does not"
    assert (tmp_path / "trainings").read_text() == "train.parquet"


@pytest.mark.slow
def test_kafka(tmp_path):
    """With the client's own broker: what was saved, not committed, comes again and is left out."""
    needs("confluent_kafka")
    from confluent_kafka import Producer

    quiet = {"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0}
    producer = Producer(quiet)
    for i in range(120):
        producer.produce("days", json.dumps({"number": i, "y": i % 3}), partition=i % 2)
    assert not producer.flush(30)
    (broker,) = producer.list_topics(timeout=30).brokers.values()
    address = f"{broker.host}:{broker.port}"
    Memory(1000, FIFO()).save(tmp_path / "mem")
    take, job = blocks("Kafka")
    # The broker soon gives the partitions of who is gone to somebody else.
    job = job.replace('"enable.auto', '"session.timeout.ms": 6000, "enable.auto')
    job = job.replace("seconds=5.0", "seconds=2.0")
    assert job.count("6000") == 1
    # The first job ends after it saved, before it commits.
    killed = take.replace("consumer.commit(asynchronous=False)", "raise SystemExit(9)")
    assert killed != take
    for code, calls in ((killed, 10), (take, 8)):
        (tmp_path / "job.py").write_text(code + job)
        done = called(tmp_path, sys.executable, "job.py", address, str(calls))
        assert done.returncode == (9 if code is killed else 0), done.stderr
        held = Memory.load(tmp_path / "mem").samples["number"].tolist()
        assert len(held) >= 1
        assert max(Counter(held).values()) == 1, "no message counts twice"
    assert sorted(held) == list(range(120)), "and none is lost"


def test_weights_and_biases(tmp_path):
    needs("wandb", "sklearn")
    said = run_example(tmp_path, "Weights & Biases")
    assert said.count("day") >= 6
    (record,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"trained" in record.read_bytes()


def test_duckdb(tmp_path):
    needs("duckdb")
    said = run_example(tmp_path, "DuckDB")
    assert "stream" in said


def test_hugging_face(tmp_path):
    needs("datasets")
    said = run_example(tmp_path, "Hugging Face datasets")
    assert "num_rows: 200" in said
    assert float(said.split()[-1]) > 0.25, "from 3 in 100 to as many as there are"


def test_evidently(tmp_path):
    pytest.importorskip("evidently", exc_type=ImportError)  # 0.7.23 knows no pandas 3
    run_example(tmp_path, "Evidently")
    assert (tmp_path / "drift.html").stat().st_size > 10_000
