"""The search: the same whether it is stopped or not, judged as it says, and what it refuses."""

from __future__ import annotations

import builtins
import dataclasses
import json
import math

import numpy as np
import pytest

from memento.errors import (
    DamagedError,
    ForeignError,
    MissingExtraError,
    ModelError,
    SettingError,
    StorageError,
)
from memento_datacenter.models import NetworkSettings
from memento_datacenter.replay import samples_of
from memento_datacenter.schema import Run, Runs
from memento_datacenter.tuning import Search, Trial, Tuned

pytest.importorskip("optuna")
pytest.importorskip("torch")

from memento_datacenter.learner import WindowLearner

SETTINGS = ("w1", "w2", "w3")
BASE = NetworkSettings(epochs=2, batch_size=32)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = Runs(tmp_path_factory.mktemp("runs"))
    for label, setting in enumerate(SETTINGS, 1):
        rng = np.random.default_rng(label)
        packets = 100 + 50 * label
        delay = rng.integers(15_000_000, 16_000_000, packets)
        size = rng.choice([60, 400 * label], packets)
        about = {"setting": setting, "run": 0, "label": label}
        application = rng.integers(0, 2, packets)
        run = Run(np.arange(packets), delay, size, application, about)
        run.write(folder.path(setting, 0))
    return folder.folder


def search(task="classification", **changes):
    values = {
        "base": BASE, "layers": (1, 2), "units": (4, 8), "splits": 2, "samples": 60,
        "settings": SETTINGS, "window": 4, **changes,
    }  # fmt: skip
    return Search(task, **values)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_trials_lie_in_the_space_and_the_best_is_given(runs, tmp_path, task):
    found = search(task).run(runs, tmp_path, 4)
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]
    for trial in found.trials:
        assert 1 <= trial.layers <= 2
        assert 4 <= trial.units <= 8
        assert 1e-7 <= trial.learning_rate <= 1
        assert len(trial.losses) == 2
    assert found.best.loss == min(trial.loss for trial in found.trials)
    best = found.best
    assert found.settings == dataclasses.replace(
        BASE, layers=best.layers, units=best.units, learning_rate=best.learning_rate
    )
    assert found.table()["loss"].tolist() == [trial.loss for trial in found.trials]
    assert len({(t.layers, t.units, t.learning_rate) for t in found.trials}) > 1


def test_a_trial_is_judged_on_what_it_was_not_trained_on(runs, tmp_path):
    """The first split, computed by hand."""
    found = search(splits=1).run(runs, tmp_path, 1)
    parts = []
    for setting in SETTINGS:
        samples = samples_of([Runs(runs).read(setting, 0)], "classification", 4)
        rows = np.linspace(0, samples.size, 60, endpoint=False).astype(np.int64)
        parts.append(samples.take(rows))
    x, y = (np.concatenate([part[name] for part in parts]) for name in ("x", "y"))
    order = np.random.default_rng([0, 7, 0]).permutation(180)
    rest, train = np.sort(order[:36]), np.sort(order[36:])
    learner = WindowLearner("classification", found.settings, seed=0)
    learner.fit({"x": x[train], "y": y[train]})
    losses = learner.annotate({"x": x[rest], "y": y[rest]})["loss"]
    assert found.best.losses == (pytest.approx(float(np.mean(losses, dtype=np.float64))),)


def test_settings_are_balanced_by_samples_from_all_of_a_run(tmp_path):
    """w2 has four times as many samples as w1, and keeps every fourth of them."""
    folder = Runs(tmp_path)
    for label, packets in ((1, 10), (2, 40)):
        about = {"setting": f"w{label}", "run": 0, "label": label}
        delay = [15_000_000] * packets
        run = Run(np.arange(packets), delay, 100 + np.arange(packets), [0] * packets, about)
        run.write(folder.path(f"w{label}", 0))
    samples, _ = search(settings=("w1", "w2"), window=2)._samples(folder)
    rows = [samples["x"][samples["y"] == y, -1] - 101 for y in (0, 1)]
    assert rows[0].tolist() == list(range(9))
    assert rows[1].tolist() == [int(i * 39 / 9) for i in range(9)]


def test_a_search_that_was_stopped_goes_on_exactly(runs, tmp_path):
    straight = search().run(runs, tmp_path / "straight", 5)

    def cut(done, total, trial):
        if done == 3 and trial is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search().run(runs, tmp_path / "cut", 5, progress=cut)
    told = []
    found = search().run(runs, tmp_path / "cut", 5, progress=lambda *a: told.append(a[:2]))
    assert told == [(3, 5), (4, 5), (5, 5)]
    assert found == straight
    assert search().run(runs, tmp_path / "cut", 2).trials == straight.trials[:2]
    assert search().run(runs, tmp_path / "cut", 5) == straight  # none was forgotten
    other = search(seed=1).run(runs, tmp_path / "other", 3)
    assert other.trials != straight.trials[:3]


def test_what_cannot_be_trained_counts_as_worst(runs, tmp_path, monkeypatch):
    def fit(self, samples, weights=None):
        if self.network.units > 5:
            raise ModelError("weights were not finite")
        original(self, samples, weights)

    original = WindowLearner.fit
    monkeypatch.setattr(WindowLearner, "fit", fit)
    found = search().run(runs, tmp_path, 6)
    failed = [trial for trial in found.trials if trial.units > 5]
    assert 0 < len(failed) < 6
    assert all(trial.losses == () and trial.loss == math.inf for trial in failed)
    assert found.best.units <= 5
    json.loads((tmp_path / "classification.json").read_text())
    with pytest.raises(ModelError, match="none of 2 trials"):
        search(units=(6, 8)).run(runs, tmp_path / "all", 2)


def test_other_searches_and_damage_are_refused(runs, tmp_path):
    search().run(runs, tmp_path, 1)
    with pytest.raises(ForeignError, match=r"trials with search\.splits = 2, now asked for with 3"):
        search(splits=3).run(runs, tmp_path, 1)
    path = tmp_path / "classification.json"
    text = path.read_text()
    path.write_text(text[:-40])
    with pytest.raises(DamagedError, match="remove the file"):
        search().run(runs, tmp_path, 1)
    path.write_text(text.replace('"number": 0', '"number": 1'))
    with pytest.raises(DamagedError, match="differs from its digest"):
        search().run(runs, tmp_path, 1)
    path.write_text('{"format": 9}')
    with pytest.raises(ForeignError, match="this version"):
        search().run(runs, tmp_path, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "nonsense"}, "task is 'nonsense'"),
        ({"splits": 0}, "splits is 0"),
        ({"layers": (4, 3)}, "layers from 4 to 3"),
        ({"learning_rate": (0.0, 1.0)}, "learning_rate from 0"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"settings": ()}, "no settings"),
        ({"settings": ("w1", "w9")}, "setting 'w9'; give some of w1, w2, w3, w1_c100"),
        ({"settings": ("w1", "w1")}, "named twice"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(SettingError, match=message):
        search(**changes)


def test_trials_and_runs_have_to_be_there(runs, tmp_path):
    with pytest.raises(SettingError, match="trials is 0"):
        search().run(runs, tmp_path, 0)
    with pytest.raises(StorageError, match=r"2 more are missing.* simulate w1 w2 w3 --runs 0 --to"):
        search().run(tmp_path, tmp_path, 1)
    with pytest.raises(SettingError, match="shorter window"):
        search(window=120).run(runs, tmp_path, 1)


def test_without_optuna_it_says_how_to_install_it(runs, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == "optuna":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"memento-replay\[tuning\]"):
        search().run(runs, tmp_path, 1)


def test_the_best_of_equal_ones_is_the_first():
    trials = tuple(Trial(i, 3, 4, 0.1, (1.0,)) for i in range(3))
    assert Tuned(trials, BASE).best.number == 0
