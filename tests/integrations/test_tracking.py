"""Trackers of loop steps, with stand-ins for their libraries, and with these where they are."""

from __future__ import annotations

import builtins
import math
from types import SimpleNamespace

import pytest

from memento import FIFO, Every, Memory, run
from memento.errors import MissingExtraError, SettingError
from memento.integrations.tracking import MLflowTracker, TensorBoardTracker, scalars
from memento.loop import Step
from memento.retrain import Decision
from memento.testing import ConstantLearner, ToyStream

NAMES = {"offered", "kept", "held", "retrained", "decision/value", "decision/threshold"}


class Writer:
    """As of TensorBoard."""

    def __init__(self):
        self.rows, self.flushed, self.closed = [], 0, False

    def add_scalar(self, name, value, step):
        self.rows.append((step, name, value))

    def flush(self):
        self.flushed = len(self.rows)

    def close(self):
        self.closed = True


class Client:
    """As of MLflow, with one experiment at most."""

    def __init__(self):
        self.experiment, self.runs, self.rows, self.status = None, {}, [], {}

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if self.experiment == name else None

    def create_experiment(self, name):
        self.experiment = name
        return "7"

    def search_runs(self, experiments, condition):
        assert experiments == ["7"]
        return [
            r for name, r in self.runs.items() if condition == f"attributes.run_name = '{name}'"
        ]

    def create_run(self, experiment, run_name):
        run = SimpleNamespace(info=SimpleNamespace(run_id=f"id of {run_name}"))
        return self.runs.setdefault(run_name, run)

    def update_run(self, run, status):
        self.status[run] = status

    set_terminated = update_run

    def log_metric(self, run, name, value, step):
        self.rows.append((step, name, value))


def steps(tracker, days=3, **options):
    return list(
        run(
            *(ToyStream(days=days, seed=1), Memory(500, FIFO()), ConstantLearner(), Every(2)),
            on_step=tracker,
            **options,
        )
    )


def expected(done):
    return [(s.unit, name, value) for s in done for name, value in scalars(s).items()]


def test_scalars_are_those_of_the_step():
    decision = Decision(True, "why", 0.25, 0.1, 0.02, math.nan)
    step = Step(4, "day", 9, 5, 7, decision, True, scores={"p01": -3.0, "none": math.nan})
    assert scalars(step) == {
        "offered": 9.0, "kept": 5.0, "held": 7.0, "retrained": 1.0, "decision/value": 0.25,
        "decision/threshold": 0.1, "decision/noise": 0.02, "scores/p01": -3.0,
    }  # fmt: skip
    again = Step(4, "day", 9, 5, 7, decision, True, scores={"p01": -3.0}, restored=True)
    assert scalars(again) == {"scores/p01": -3.0}


def test_steps_for_tensorboard():
    writer = Writer()
    with TensorBoardTracker(writer=writer) as tracker:
        done = steps(tracker)
        assert writer.rows == expected(done)
        assert writer.flushed == len(writer.rows)
    assert writer.closed
    assert {name for unit, name, _ in writer.rows if unit == 1} >= NAMES
    assert [value for _, name, value in writer.rows if name == "retrained"] == [1.0, 0.0, 1.0]


def test_steps_for_mlflow():
    client = Client()
    with MLflowTracker(client=client, run="a") as tracker:
        done = steps(tracker)
    assert client.rows == expected(done)
    assert client.status == {"id of a": "FINISHED"}
    with pytest.raises(ZeroDivisionError), MLflowTracker(client=client, run="b"):
        assert 1 / 0
    assert client.status["id of b"] == "FAILED"


def test_a_run_that_goes_on_goes_on_with_its_curves(tmp_path):
    straight, client = Client(), Client()
    MLflowTracker(client=straight)
    steps(MLflowTracker(client=straight), 4)
    for days in (2, 4):  # the stream has grown, so the last step is evaluated late
        steps(MLflowTracker(client=client), days, checkpoint=tmp_path)
    assert sorted(client.rows) == sorted(straight.rows)
    assert list(client.runs) == ["run"]
    assert client.status == {"id of run": "RUNNING"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TensorBoardTracker(), "or a writer, and not both"),
        (lambda: TensorBoardTracker("folder", writer=Writer()), "not both"),
        (lambda: MLflowTracker(), "or a client, and not both"),
        (lambda: MLflowTracker(client=Client(), run="it's"), "without quotation marks"),
        (lambda: MLflowTracker(client=Client(), run=""), "give a name"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize(
    ("tracker", "package"), [(TensorBoardTracker, "tensorboard"), (MLflowTracker, "mlflow")]
)
def test_without_the_library_it_says_how_to_install_it(tmp_path, monkeypatch, tracker, package):
    real = builtins.__import__

    def without(name, *rest, **named):
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **named)

    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"memento-replay\[tracking\]"):
        tracker(tmp_path / "log")
    assert not (tmp_path / "log").exists()


@pytest.mark.filterwarnings("default")
def test_event_files_are_those_of_tensorboard(tmp_path):
    pytest.importorskip("tensorboard.summary")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoardTracker(tmp_path / "log") as tracker:
        done = steps(tracker)
    found = EventAccumulator(str(tmp_path / "log"))
    found.Reload()
    held = [(e.step, float(e.tensor_proto.float_val[0])) for e in found.Tensors("held")]
    assert held == [(s.unit, s.held) for s in done]


@pytest.mark.filterwarnings("default")
def test_files_are_those_of_mlflow(tmp_path, monkeypatch):
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "true")
    mlflow = pytest.importorskip("mlflow")
    with MLflowTracker(tmp_path / "log", "a") as tracker:
        done = steps(tracker)
    with MLflowTracker(tmp_path / "log", "a"):
        pass
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "log").as_uri())
    place = client.get_experiment_by_name("memento").experiment_id
    (found,) = client.search_runs([place])
    assert found.info.status == "FINISHED"
    history = client.get_metric_history(found.info.run_id, "scores/p01")
    assert [(m.step, m.value) for m in history] == [
        (s.unit, s.scores["p01"]) for s in done if s.scores
    ]
