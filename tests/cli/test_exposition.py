"""Textfiles for Prometheus, read by its own parser."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest

from called import code_of
from memento import FIFO, Memory
from memento.cli import exposition

parser = pytest.importorskip("prometheus_client.parser")


def read(file) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name, and by what their labels say beside the folder."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    families = list(parser.text_string_to_metric_families(file.read_text(encoding="utf-8")))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.documentation
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            labels = dict(sample.labels)
            labels.pop("memory", None)
            labels.pop("deployment", None)
            values = found.setdefault(sample.name, {})
            assert tuple(labels.values()) not in values, "a series stands there once"
            values[tuple(labels.values())] = sample.value
    return found


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        code = code_of(*words)
        return code, *capsys.readouterr()

    return call


def day(folder, seed, classes=3):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=400)
    yhat = np.eye(5)[y] * 0.8 + 0.04
    np.savez(folder / f"{seed}.npz", y=y, yhat=yhat)
    return folder / f"{seed}.npz"


def test_a_memory_day_after_day(cli, tmp_path):
    init = ["--capacity", 200, "--labels", "y:5", "--probabilities", "yhat", "--batch-size", 8]
    assert cli("memory", "init", "mem", *init)[0] == 0
    assert cli("memory", "status", "mem", "--prometheus", "m.prom")[0] == 0
    empty = read(tmp_path / "m.prom")
    assert empty["memento_memory_samples"] == {(): 0}
    assert "memento_memory_last_insert_timestamp_seconds" not in empty, "nothing came"
    assert "memento_memory_trained_samples" not in empty
    before = time.time()
    for seed in range(3):
        assert cli("memory", "insert", "mem", day(tmp_path, seed))[0] == 0
        if seed == 0:
            assert cli("memory", "trained", "mem")[0] == 0
    code, out, _ = cli("memory", "status", "mem", "--prometheus", "m.prom", "--json")
    assert code == 0
    facts, found = json.loads(out), read(tmp_path / "m.prom")
    one = {name: values[()] for name, values in found.items() if () in values}
    assert one["memento_memory_samples"] == facts["size"] == 200
    assert one["memento_memory_capacity"] == 200
    assert one["memento_memory_seen_total"] == 1200
    assert one["memento_memory_inserts_total"] == 3
    assert one["memento_memory_trained_samples"] == 200
    assert one["memento_memory_retraining_due"] == 0
    assert one["memento_memory_retraining_p_value"] == facts["decision"]["p_value"]
    assert one["memento_memory_retraining_threshold"] == 200
    assert one["memento_memory_coverage_increase"] == facts["coverage"]["increase"]
    assert one["memento_memory_age_inserts_max"] == max(group["age"] for group in facts["ages"])
    assert before <= one["memento_memory_last_insert_timestamp_seconds"] <= time.time()
    counts = found["memento_memory_class_samples"]
    assert counts == {("y", str(i)): n for i, n in enumerate(facts["composition"]["y"])}
    # A class that the model has never seen: due, and the exit code says so as before.
    for seed in (3, 4):
        cli("memory", "insert", "mem", day(tmp_path, seed, classes=5))
    assert cli("memory", "status", "mem", "--decide", "--prometheus", "m.prom")[0] == 10
    assert read(tmp_path / "m.prom")["memento_memory_retraining_due"] == {(): 1}


NASTY = ['a "quoted" one', "back\\slash", "two\nlines", "\\n", "é 日本", "{a=1} # HELP", ""]


def test_any_label(cli, tmp_path):
    np.savez(tmp_path / "day.npz", y=np.array(NASTY * 3))
    assert cli("memory", "init", "mem", "--capacity", 100, "--labels", "y")[0] == 0
    assert cli("memory", "insert", "mem", "day.npz")[0] == 0
    assert cli("memory", "status", "mem", "--prometheus", "m.prom")[0] == 0
    counts = read(tmp_path / "m.prom")["memento_memory_class_samples"]
    assert counts == {("y", text): 3.0 for text in NASTY[:-1]}, "the empty text is a missing label"


def test_a_folder_of_any_name_and_many_classes(tmp_path):
    folder = tmp_path / 'a "memory" \\ of\nmine'
    memory = Memory(10, FIFO())
    memory.insert(y=[1, 2])
    memory.save(folder)
    facts = {
        "waiting": 0,
        "policy": {"kind": "fifo"}, "model": None, "weight": None, "trained": None,
        "decision": None, "composition": {"y": {str(i): i for i in range(150)}},
    }  # fmt: skip
    own = {"memory": str(folder)}
    exposition.write(tmp_path / "m.prom", own, exposition.of_memory(memory, facts, folder))
    text = (tmp_path / "m.prom").read_text()
    families = list(parser.text_string_to_metric_families(text))
    assert {s.labels["memory"] for f in families for s in f.samples} == {str(folder)}
    counted = read(tmp_path / "m.prom")["memento_memory_class_samples"]
    assert counted == {("y", str(i)): i for i in range(50, 150)}


def test_a_file_that_cannot_be_written(cli, tmp_path):
    cli("memory", "init", "mem", "--capacity", 10, "--policy", "fifo")
    code, _, err = cli("memory", "status", "mem", "--prometheus", "metrics.txt")
    assert code == 2
    assert "reads only files that end in .prom; call it metrics.prom" in err
    code, _, err = cli("memory", "status", "mem", "--prometheus", "absent/m.prom")
    assert code == 2
    assert "absent/m.prom" in err
    (tmp_path / "m.prom").mkdir()
    assert cli("memory", "status", "mem", "--prometheus", "m.prom")[0] == 2
    assert sorted(os.listdir(tmp_path)) == ["m.prom", "mem"], "nothing half written is left"


def test_a_deployment(tmp_path):
    row = {"day": "2026-01-07", "state": "done", "trained": True, "published": True, "reason": ""}
    days = [row, {**row, "day": "2026-01-08", "state": "failed", "trained": False}]
    facts = {"main": {"serving": "2026-01-07", "versions": ["2026-01-07"], "days": days}}
    facts["idle"] = {"serving": None, "versions": [], "days": []}
    own = {"deployment": str(tmp_path)}
    exposition.write(tmp_path / "d.prom", own, exposition.of_deployment(facts))
    found = read(tmp_path / "d.prom")
    assert found["memento_deployment_serving_info"] == {("main", "2026-01-07"): 1}
    assert found["memento_deployment_days"][("main", "failed")] == 1
    assert found["memento_deployment_trained_days"] == {("main",): 1, ("idle",): 0}
    assert found["memento_deployment_failing"] == {("main",): 1}
    midnight = found["memento_deployment_last_day_timestamp_seconds"]
    assert time.gmtime(midnight[("main",)])[:4] == (2026, 1, 8, 0)
