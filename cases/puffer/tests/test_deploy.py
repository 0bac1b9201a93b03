"""The daily job: what it decides and publishes, and the failures that the real deployment had."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from memento import snapshot
from memento.deployment import git
from memento.errors import (
    DamagedError,
    ForeignError,
    LockedError,
    ModelError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento.memory import Memory
from memento_puffer.data.features import Features
from memento_puffer.data.schema import write_day
from memento_puffer.deployment import deploy as module
from memento_puffer.deployment import task
from memento_puffer.deployment.checks import check_candidate, check_predictions
from memento_puffer.deployment.days import DayFolders
from memento_puffer.deployment.deploy import Deployment
from memento_puffer.deployment.deploy_settings import (
    DeploymentSettings,
    Gate,
    Variant,
    default_variants,
    puffer_policy,
)
from memento_puffer.deployment.publish import digest_of
from memento_puffer.predictor import ttp as ttp_module
from memento_puffer.predictor.network import Moments, Network
from memento_puffer.predictor.ttp import Ttp

pytest.importorskip("torch")

import deployment_days as helpers

Days, base, day, features, settings = (
    getattr(helpers, name) for name in ("Days", "base", "day", "features", "settings")
)
TRAINING = helpers.TRAINING


def tree(folder):
    """Every file below a folder with its content, and links; a lock's existence does not count."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name != "lock" and (path.is_symlink() or path.is_file())
    }


@pytest.fixture(scope="module")
def writer():
    return helpers.quick_writer()


@pytest.fixture(autouse=True)
def _quick(monkeypatch, writer):
    monkeypatch.setattr(ttp_module, "_cpp_bytes", writer)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power is cut here


@pytest.fixture
def make(tmp_path):
    """Deployments in folders of their own."""
    counter = iter(range(100))

    def make(**changes):
        return Deployment.create(tmp_path / f"state{next(counter)}", settings(**changes), base())

    return make


def run(deployment, numbers, days=None):
    """One run of the job for each day number, as cron does."""
    source = days or Days(*range(20))
    return [deployment.run(source, today=day(number)) for number in numbers]


def rows(outcome, variant="default"):
    return outcome.days[-1]["variants"][variant]["rows"]


def memory_of(deployment, horizon=0, variant="default"):
    found = snapshot.read(deployment.folder / "variants" / variant / str(horizon), task.KIND)
    return Memory.restore(
        snapshot.with_prefix(found.arrays, "memory/"),
        snapshot.with_prefix(found.documents, "memory/"),
    )


# A day


def test_the_first_days(make):
    deployment = make()
    first, second, third = run(deployment, [0, 1, 2])
    assert [row["coverage_increase"] for row in rows(first)] == [1.0] * 5
    assert all(row["retrained"] for row in rows(first))
    assert first.days[0]["variants"]["default"]["published"] == str(day(0))
    assert [row["model"] for row in rows(second)] == [str(day(0))] * 5
    assert first.attention == second.attention == ()
    for row in rows(second):
        assert 0 <= row["coverage_increase"] < 1
        assert row["threshold"] == 0.1
        due = row["coverage_increase"] >= 0.1
        assert (row["retrained"] or row["refused"] is not None) == due
        increase = row["coverage_increase"] * row["total_coverage"]
        assert row["total_coverage_increase"] == increase
    assert third.days[0]["data_days"] == [str(day(1))]
    assert deployment.run(Days(*range(20)), today=day(2)).days == (), "a day is done once"


def test_samples_are_labelled_with_their_day(make):
    deployment = make()
    run(deployment, [0, 1])
    memory = memory_of(deployment)
    first = (helpers.FIRST - dt.date(1970, 1, 1)).days
    assert set(memory.samples["day"]) == {first, first + 1}
    assert memory.capacity == 320
    assert len(memory) <= 320


def test_all_horizons_of_a_generation_appear_at_once(make):
    deployment = make()
    (outcome,) = run(deployment, [0])
    version = deployment.publication("default").current()
    assert version.identity == [row["candidate"] for row in rows(outcome)]
    assert version.manifest["facts"]["trained"] == [0, 1, 2, 3, 4]


def test_horizons_that_were_not_trained_are_carried_forward(make):
    deployment = make()
    run(deployment, [0])
    before = deployment.publication("default").current().identity
    trained = set()
    for number in range(1, 8):
        (outcome,) = run(deployment, [number])
        trained = {row["horizon"] for row in rows(outcome) if row["retrained"]}
        after = deployment.publication("default").current().identity
        for h in range(5):
            assert (before[h] != after[h]) == (h in trained)
        if 0 < len(trained) < 5:
            break
        before = after
    assert 0 < len(trained) < 5, "no day tells the two cases apart"


def test_trainings_start_from_the_base(make):
    """Not from the last model: what was unlearned once would be lost for good."""
    training = dataclasses.replace(TRAINING, epochs=1, learning_rate=1e-9)
    deployment = make(training=training, gate=Gate(loss=50, tail=50))
    run(deployment, [0, 1, 2])
    networks = deployment.publication("default").current().read()
    x = features(0).columns(0)["x"]
    np.testing.assert_allclose(networks[0].probabilities(x), base()[0].probabilities(x), atol=1e-3)


def test_without_a_base(tmp_path):
    deployment = Deployment.create(tmp_path / "s", settings())
    first, second = run(deployment, [0, 1])
    assert rows(first)[0]["retrained"]
    assert rows(first)[0]["model_digest"] is None
    assert rows(second)[0]["model"] == str(day(0))
    assert "yhat" in memory_of(deployment).samples


def test_variants_side_by_side(make):
    policies = {
        "default": puffer_policy(batch_size=16, temperature=0.01),
        "deterministic": puffer_policy(batch_size=16, temperature=0.0),
        "density-reservoir": puffer_policy("density-reservoir", batch_size=16),
        "random": puffer_policy("reservoir"),
    }
    variants = {name: Variant(policy) for name, policy in policies.items()}
    variants["density-reservoir"] = dataclasses.replace(
        variants["density-reservoir"], estimator="calibrated"
    )
    deployment = make(variants=variants)
    outcomes = run(deployment, [0, 1, 2])
    table = deployment.table()
    assert set(table["variant"]) == set(policies)
    assert table.size == 3 * 4 * 5
    assert not np.isfinite(table["p_value"]).any(), "two contents of one memory are no draws"
    assert np.isfinite(table["coverage_increase"]).all()
    alone = make()
    for one, other in zip(outcomes, run(alone, [0, 1, 2]), strict=True):
        assert one.days[0]["variants"]["default"] == other.days[0]["variants"]["default"]


def test_several_days_in_one_run_are_as_several_runs(make):
    one, many = make(), make()
    run(many, range(4))
    one.run(Days(*range(4)), today=day(3), start=day(0))
    assert tree(one.folder) == tree(many.folder)


def test_a_second_deployment_is_equal(make):
    first, second = make(), make()
    run(first, range(3))
    run(second, range(3))
    assert tree(first.folder) == tree(second.folder)


# Days that are missing, late, broken


def test_days_without_data(make):
    deployment = make()
    outcomes = run(deployment, [0, 1], Days(0))
    assert outcomes[1].waiting == day(1), "today may still come"
    assert outcomes[1].days == ()
    before = tree(deployment.folder / "variants")
    (outcome,) = run(deployment, [2], Days(0, 2))
    assert [document["status"] for document in outcome.days] == ["no data", "done"]
    assert "no data" in outcome.attention[0]
    first = outcome.days[0]
    assert (first["data_days"], first["variants"]) == ([], {})
    assert tree(deployment.folder / "variants") != before
    assert len(deployment.days()) == 3
    assert deployment.table().size == 2 * 5


def test_a_day_without_data_keeps_the_state(make):
    deployment = make()
    run(deployment, [0], Days(0))
    before = tree(deployment.folder / "variants") | tree(deployment.folder / "published")
    outcome = deployment.run(Days(0), today=day(9), until=day(5))
    assert len(outcome.days) == 5
    assert tree(deployment.folder / "variants") | tree(deployment.folder / "published") == before


def test_late_days_are_inserted_when_they_come(make):
    deployment = make()
    run(deployment, [0, 1, 2], Days(0, 2))
    (outcome,) = run(deployment, [3], Days(0, 1, 2, 3))
    document = outcome.days[0]
    assert document["data_days"] == [str(day(0)), str(day(2))], "the late day first"
    assert rows(outcome)[0]["offered"] > 1.5 * rows(run(deployment, [4])[0])[0]["offered"]
    assert deployment.days()[4]["data_days"] == [str(day(3))], "but once"


def test_days_that_come_too_late_are_left_out(make):
    deployment = make(late_days=2)
    run(deployment, range(5), Days(0, 2, 3, 4))
    (outcome,) = run(deployment, [5], Days(*range(6)))
    assert outcome.days[0]["data_days"] == [str(day(4))]


def test_days_to_skip(make):
    deployment = make()
    days = Days(0, 2)
    days.replaced[1] = DamagedError("video_sent.csv: cut off")
    run(deployment, [0], days)
    with pytest.raises(DamagedError):
        run(deployment, [1], days)
    outcome = deployment.run(days, today=day(2), skip=[day(0)])
    assert [document["status"] for document in outcome.days] == ["skipped", "done"]
    assert deployment.failures() == {}


def test_an_unreadable_day_is_given_up_after_a_while(make):
    deployment = make(give_up_days=2)
    days = Days(*range(8))
    days.replaced[1] = SchemaError("video_sent.csv: no column 'rtt'")
    run(deployment, [0], days)
    for number in (1, 2):
        with pytest.raises(SchemaError):
            run(deployment, [number], days)
    (outcome,) = run(deployment, [3], days)
    assert [document["status"] for document in outcome.days] == ["unreadable", "done", "done"]
    assert "no column 'rtt'" in outcome.attention[0]
    assert "no column 'rtt'" in deployment.days()[1]["note"]


def test_a_late_day_that_cannot_be_read_holds_up_no_good_one(make):
    """It was recorded as "no data", and what turned up for it later is cut off."""
    deployment, days = make(late_days=2), Days(0, 2, 3, 4, 5)
    run(deployment, [0, 1, 2], days)
    days.replaced[1] = DamagedError("2022-09-20/video_sent.csv: cut off")
    outcome = deployment.run(days, today=day(9), until=day(4))
    assert [document["status"] for document in outcome.days] == ["done", "done"]
    assert [document["data_days"] for document in outcome.days] == [[str(day(2))], [str(day(3))]]
    assert outcome.attention[0].startswith(
        f"{day(3)}: late data of {day(0)} is left out, and tried again up to {day(3)}: 2022-09-20/"
    )
    assert len(outcome.attention) == 1, "then it is too late"
    assert deployment.failures() == {}


def test_a_late_day_that_is_repaired_is_inserted(make):
    deployment, days = make(), Days(0, 2)
    run(deployment, [0, 1, 2], days)
    days.replaced[1] = DamagedError("cut off")
    (outcome,) = run(deployment, [3], _with(days, 3))
    assert "late data of 2022-09-20 is left out" in outcome.attention[0]
    del days.replaced[1]
    (outcome,) = run(deployment, [4], _with(days, 1, 4))
    assert outcome.days[0]["data_days"] == [str(day(0)), str(day(3))]
    assert outcome.attention == ()


def _with(days, *numbers):
    days.numbers |= set(numbers)
    return days


def test_an_unreadable_day_that_is_repaired_is_inserted(make):
    deployment, days = make(give_up_days=0), Days(*range(8))
    days.replaced[1] = SchemaError("no column 'rtt'")
    run(deployment, [0, 1], days)
    assert deployment.days()[-1]["status"] == "unreadable"
    (outcome,) = run(deployment, [2], days)
    assert "late data of 2022-09-20 is left out" in outcome.attention[0]
    del days.replaced[1]
    (outcome,) = run(deployment, [3], days)
    assert outcome.days[0]["data_days"] == [str(day(0)), str(day(2))]
    assert run(deployment, [4], days)[0].days[0]["data_days"] == [str(day(3))], "but once"


def test_late_days_are_inserted_though_the_day_itself_is_unreadable(make):
    deployment, days = make(give_up_days=0), Days(0, 2)
    run(deployment, [0, 1, 2], days)
    days.replaced[3] = SchemaError("no column 'rtt'")
    (outcome,) = run(deployment, [3], _with(days, 1))
    document = outcome.days[0]
    assert (document["status"], document["data_days"]) == ("unreadable", [str(day(0))])


def test_a_day_that_was_begun_ends_as_it_was_planned(make, monkeypatch):
    """What was skipped, given up and said is in the record, also if the job was killed."""

    def begin(deployment):
        run(deployment, [0, 1, 2], Days(0, 2))

    def last(deployment, days):
        return deployment.run(days, today=day(3), skip=[day(2)])

    days = Days(0, 1, 2)
    straight, killed = make(), make()
    begin(straight)
    begin(killed)
    last(straight, days)
    assert straight.days()[-1]["status"] == "skipped"
    with monkeypatch.context() as patched:
        patched.setattr(module._Variant, "_regressed", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            last(killed, days)
    run(killed, [3], days)  # without saying once more what to skip
    assert tree(killed.folder) == tree(straight.folder)


def test_a_day_to_skip_after_it_failed(make, monkeypatch):
    """As long as no memory has its data; then it cannot be left out any more, and that is said."""
    deployment = make()
    run(deployment, [0])
    calls = []

    def insert(self, data):
        calls.append(len(self))
        if len(calls) == stop:
            raise SchemaError("column 'x' has another width")
        return original(self, data)

    original = Memory.insert
    monkeypatch.setattr(Memory, "insert", insert)
    stop = 1
    with pytest.raises(SchemaError):
        run(deployment, [1])
    outcome = deployment.run(Days(*range(5)), today=day(1), skip=[day(0)])
    assert outcome.days[0]["status"] == "skipped"
    calls.clear()
    stop = 3
    with pytest.raises(SchemaError):
        run(deployment, [2])
    with pytest.raises(SettingError, match="in a memory already, so it cannot be left out"):
        deployment.run(Days(*range(5)), today=day(2), skip=[day(1)])
    calls.clear()
    stop = 0
    (outcome,) = run(deployment, [2])
    assert outcome.days[0]["data_days"] == [str(day(1))]
    assert deployment.failures() == {}


def test_a_day_without_samples_of_some_horizons(make):
    """Streams of three chunks have nothing to ask for four chunks ahead."""
    deployment = make()
    days = Days(1)
    days.replaced[0] = features(0, streams=40, length=3)
    (outcome,) = run(deployment, [0], days)
    found = rows(outcome)
    assert [row["retrained"] for row in found] == [True, True, True, False, False]
    assert [row["coverage_increase"] for row in found] == [1.0] * 3 + [0.0] * 2
    assert found[4]["reason"] == "the memory is empty"
    assert [sentence[-32:] for sentence in outcome.attention] == [
        f"horizon {h}: no sample in the data" for h in (3, 4)
    ]
    (outcome,) = run(deployment, [1], days)
    assert [row["coverage_increase"] for row in rows(outcome)[3:]] == [1.0] * 2
    assert all(row["retrained"] for row in rows(outcome)[3:])


def test_data_that_vanishes_in_the_middle_of_a_day(make, monkeypatch):
    deployment = make()
    with monkeypatch.context() as patched:
        patched.setattr(module._Variant, "_regressed", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(deployment, [0])
    with pytest.raises(StorageError, match="was there when 2022-09-20 was begun"):
        deployment.run(Days(), today=day(9), until=day(0))
    run(deployment, [0])
    straight = make()
    run(straight, [0])
    assert tree(deployment.folder) == tree(straight.folder)


def test_start_and_until(make):
    deployment = make()
    deployment.run(Days(*range(9)), today=day(9), start=day(2), until=day(3))
    assert [document["day"] for document in deployment.days()] == [str(day(2)), str(day(3))]
    with pytest.raises(SettingError, match="leaves out days from 2022-09-24 on"):
        deployment.run(Days(), today=day(9), start=day(6))
    with pytest.raises(SettingError, match="lies after today"):
        deployment.run(Days(), today=day(3), until=day(4))
    with pytest.raises(SettingError, match="lies after the last day to do"):
        make().run(Days(), today=day(3), start=day(4))


def test_what_was_done_before_a_day_failed(make):
    deployment, days = make(), Days(0, 2)
    days.replaced[2] = DamagedError("cut off")
    outcome = deployment.run(days, today=day(2), start=day(0), catch=True)
    assert [document["status"] for document in outcome.days] == ["done", "no data"]
    assert "no data" in outcome.attention[0]
    assert isinstance(outcome.failure, DamagedError)
    assert "day 2022-09-22" in outcome.failure.__notes__[0]
    assert deployment.failures()[str(day(2))]["attempts"] == 1


def test_a_failure_that_cannot_be_counted_is_still_told(make, monkeypatch):
    deployment, days = make(), Days()
    days.replaced[0] = DamagedError("cut off")

    def full(path, document):
        raise StorageError("no space")

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(DamagedError, match="cut off") as caught:
        run(deployment, [0], days)
    assert caught.value.__notes__[1] == "It is not counted: no space."


def test_a_failure_is_forgotten_though_the_job_was_killed_when_the_day_was_done(make, monkeypatch):
    deployment, days = make(), Days(0, 1)
    days.replaced[0] = DamagedError("cut off")
    with pytest.raises(DamagedError):
        run(deployment, [0], days)
    del days.replaced[0]
    with monkeypatch.context() as patched:
        original = module.write_json

        def write(path, document):
            original(path, document)
            if path.parent.name == "days":
                raise Killed

        patched.setattr(module, "write_json", write)
        with pytest.raises(Killed):
            run(deployment, [0], days)
    run(deployment, [1], days)
    assert deployment.failures() == {}


def test_settings_are_those_of_now(make):
    """Another process has changed them since this one read them."""
    deployment = make()
    other = Deployment(deployment.folder)
    deployment.configure(settings(metric=2, keep=9))
    with pytest.raises(SettingError, match="it only rises"):
        other.configure(settings(metric=1))
    run(other, [0])
    assert other.settings.keep == 9


# The twelve failures; 3, 4 and 7 have tests in test_publish, too


def test_failure_01_stored_predictions_are_those_of_the_model_that_serves(make, monkeypatch):
    """The model was attached before the memory was loaded, so distances of predictions were off."""
    deployment = make()
    run(deployment, [0, 1, 2])
    attached = []
    original = Memory.insert

    def insert(self, data):
        serving = deployment.publication("default").current()
        h = len(attached) % 5
        for columns in (self.samples, self.reference, data):
            check_predictions(columns, serving.read()[h])
        attached.append(self.model == serving.identity[h])
        return original(self, data)

    with monkeypatch.context() as patched:
        patched.setattr(Memory, "insert", insert)
        run(deployment, [3])
    assert attached == [True] * 5
    before = tree(deployment.folder / "variants")
    with monkeypatch.context() as patched:  # the job of 2022: nothing is made again
        patched.setattr(Memory, "annotate", lambda self, **columns: None)
        deployment.publication("default").publish(base(), "another")
        with pytest.raises(ModelError, match="nothing is inserted"):
            run(deployment, [4])
    assert tree(deployment.folder / "variants") == before


def test_failure_01_predictions_are_compared_with_a_fresh_pass():
    network, other = base()[0], base()[1]
    x = features(0).columns(0)["x"]
    check_predictions({"x": x, "yhat": network.probabilities(x)}, network)
    with pytest.raises(ModelError, match="attach the model after loading"):
        check_predictions({"x": x}, network)
    with pytest.raises(ModelError, match="nothing is inserted"):
        check_predictions({"x": x, "yhat": other.probabilities(x)}, network)
    shifted = np.roll(network.probabilities(x), 1, axis=0)
    with pytest.raises(ModelError):
        check_predictions({"x": x, "yhat": shifted}, network)


def test_failure_02_predictions_on_disk_name_their_model(make):
    """They were saved before the training, as those of the model before."""
    deployment = make()
    run(deployment, [0, 1])
    retrained = [row for row in rows(run(deployment, [2])[0]) if row["retrained"]]
    assert retrained, "a training is needed to tell anything"
    h = retrained[0]["horizon"]
    memory = memory_of(deployment, h)
    serving = deployment.publication("default").current()
    assert memory.model == serving.identity[h] == retrained[0]["candidate"]
    assert memory.reference_model == memory.model
    check_predictions(memory.samples, serving.read()[h])
    check_predictions(memory.reference, serving.read()[h])
    deployment.rollback("default", "tests")
    assert memory_of(deployment, h).model == memory.model, "attached by the next day"
    deployment.rollback("default", "and back", to=serving.name)
    outcome = run(deployment, [3])[0]
    assert rows(outcome)[h]["model_digest"] == serving.identity[h]
    assert memory_of(deployment, h).model == (rows(outcome)[h]["candidate"] or serving.identity[h])


def test_failure_02_damaged_predictions_are_refused(make):
    deployment = make(variants={"default": Variant(puffer_policy(batch_size=16), threshold=1.0)})
    run(deployment, [0, 1])
    folder = deployment.folder / "variants" / "default" / "3"
    found = snapshot.read(folder, task.KIND)
    arrays = dict(found.arrays)
    arrays["memory/column/yhat"] = np.roll(arrays["memory/column/yhat"], 1, axis=0)
    snapshot.write(folder, task.KIND, arrays, found.documents)
    with pytest.raises(DamagedError, match=r"differ by up to .* from those of the model they name"):
        run(deployment, [2])


def test_failure_02_predictions_of_another_processor_are_sound(make):
    """Single precision sums differ with the processor, the more the larger the weights are."""
    deployment = make(variants={"default": Variant(puffer_policy(batch_size=16), threshold=1.0)})
    run(deployment, [0])
    publication = deployment.publication("default")
    networks = [
        Network(tuple(6 * array for array in network.weights), network.moments)
        for network in publication.current().read()
    ]
    deployment.configure(
        settings(gate=Gate(loss=99, tail=99), variants=deployment.settings.variants)
    )
    publication.publish(Ttp(tuple(networks)), "large")
    run(deployment, [1])
    furthest = 0.0
    for h, network in enumerate(networks):
        folder = deployment.folder / "variants" / "default" / str(h)
        found = snapshot.read(folder, task.KIND)
        arrays = dict(found.arrays)
        single, before = network.astype(np.float32), arrays["memory/column/yhat"]
        x = arrays["memory/column/x"]
        after = np.concatenate([single.probabilities(row[None]) for row in x])
        furthest = max(furthest, float(np.abs(before - after).max()))
        arrays["memory/column/yhat"] = after
        snapshot.write(folder, task.KIND, arrays, found.documents)
    assert furthest > 1e-6
    (outcome,) = run(deployment, [2])
    assert not outcome.attention or "rolled back" in outcome.attention[0]


def test_failure_03_a_broken_network_does_not_get_through_the_gate(make, monkeypatch):
    deployment = make(gate=Gate(loss=0.3, tail=5.0))
    run(deployment, [0, 1])
    serving = deployment.publication("default").current()
    reference = memory_of(deployment).reference["x"].copy()
    broken = Network.fresh(0, Moments(1, np.zeros(62), np.full(62, 1e-6)))
    variant = Variant(puffer_policy(batch_size=16), threshold=0.0)
    deployment.configure(settings(gate=Gate(loss=0.3, tail=5.0), variants={"default": variant}))
    with monkeypatch.context() as patched:
        patched.setattr(task.HorizonLearner, "train", lambda *arguments: broken)
        (outcome,) = run(deployment, [2])
    assert all("nats, that of the reference" in row["refused"] for row in rows(outcome))
    assert not any(row["retrained"] for row in rows(outcome))
    assert len(outcome.attention) == 5
    assert "the gate refused" in outcome.attention[0]
    assert deployment.publication("default").current().name == serving.name
    after = memory_of(deployment).reference["x"]
    np.testing.assert_array_equal(after, reference, "the reference stays that of the last training")
    (outcome,) = run(deployment, [3])
    assert any(row["retrained"] for row in rows(outcome)), "the next day tries again"


def test_the_gate():
    rng = np.random.default_rng(0)
    x = features(0).columns(0)["x"]
    y_bin = features(0).columns(0)["y_bin"]
    good = base()[0]
    assert check_candidate(good, [good], x, y_bin, Gate())[0] is None
    weights = tuple(20 * rng.normal(size=array.shape) for array in good.weights)
    bad = Network(weights, good.moments)
    reason, facts = check_candidate(bad, [good], x, y_bin, Gate())
    assert "mean loss" in reason
    assert facts["loss"] > facts["reference_loss"] + 0.5
    assert check_candidate(bad, [], x, y_bin, Gate())[0] is not None, "worse than guessing"
    assert check_candidate(good, [bad], x, y_bin, Gate())[0] is None
    assert check_candidate(bad, [bad, good], x, y_bin, Gate())[0] is not None, "the best counts"
    assert check_candidate(good, [good], x[:0], y_bin[:0], Gate())[0] is None
    with np.errstate(all="ignore"):
        endless = Network(tuple(1e200 * array.astype(float) for array in weights), good.moments)
        assert "no distributions" in check_candidate(endless, [good], x, y_bin, Gate())[0]


def test_failure_03_no_memory_gets_what_the_gate_is_held_against(make):
    deployment = make(capacity=5000)
    run(deployment, range(5))
    for h in range(5):
        folder = deployment.folder / "variants" / "default" / str(h)
        arrays = snapshot.read(folder, task.KIND).arrays
        apart = {row.tobytes() for row in arrays["gate/x"]}
        held = {row.tobytes() for row in arrays["memory/column/x"]}
        assert apart
        assert not apart & held
        assert len(set(arrays["gate/day"])) == 3, "of the last three days"


def slipped_through(make, gate):
    """A deployment that serves a bad network, and the good version of before."""
    deployment = make(variants={"default": Variant(puffer_policy(batch_size=16), threshold=1.0)})
    run(deployment, [0])
    publication = deployment.publication("default")
    good = publication.current()
    weights = [tuple(6 * array for array in n.weights) for n in good.read()]
    worse = Ttp(tuple(Network(w, n.moments) for w, n in zip(weights, good.read(), strict=True)))
    deployment.configure(settings(gate=gate, variants=deployment.settings.variants))
    publication.publish(worse, "slipped-through")
    return deployment, good


def test_failure_03_rollback_when_scores_regress(make, monkeypatch):
    """A network that passed the gate and fails on the days that follow goes within two days."""
    deployment, good = slipped_through(make, Gate(loss=0.2, tail=1.0))
    first, second, third = run(deployment, [1, 2, 3])
    facts = [outcome.days[0]["variants"]["default"] for outcome in (first, second, third)]
    assert [f["regressed"] for f in facts] == [True, True, False]
    assert [f["rolled_back"] for f in facts] == [None, good.name, None]
    assert [f["model"] for f in facts] == ["slipped-through"] * 2 + [good.name]
    assert "rolled back" in second.attention[0]
    assert deployment.publication("default").history()[-1].day == str(day(2))


def test_a_day_that_led_back_is_no_last_word_though_the_job_was_killed(make, monkeypatch):
    """Where a person goes elsewhere before the day is repeated, that serves."""
    gate = Gate(loss=0.2, tail=1.0, rollback_after=1)
    deployment, good = slipped_through(make, gate)

    def stop(*arguments):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Deployment, "_record", stop)
        with pytest.raises(Killed):
            run(deployment, [1])
    assert deployment.serving("default") == good.name
    deployment.rollback("default", "of our own", to="slipped-through")
    (outcome,) = run(deployment, [1])
    assert outcome.days[0]["variants"]["default"]["rolled_back"] == good.name
    assert deployment.serving("default") == "slipped-through"


def test_failure_03_a_network_that_cannot_be_published_is_refused_before(make, monkeypatch):
    """Nothing is held out of a day of one stream, so there is nothing to notice it by."""
    deployment = make()
    lonely = Days()
    lonely.replaced[0] = features(0, streams=1, length=40)
    weights = tuple(1e200 * array.astype(float) for array in base()[0].weights)
    with monkeypatch.context() as patched, np.errstate(all="ignore"):
        broken = Network(weights, base()[0].moments)
        patched.setattr(task.HorizonLearner, "train", lambda *arguments: broken)
        (outcome,) = run(deployment, [0], lonely)
    assert {row["refused"] for row in rows(outcome)} == {"its predictions are no distributions"}
    assert deployment.publication("default").current() is None
    (outcome,) = run(deployment, [1])
    assert all(row["retrained"] for row in rows(outcome))


def test_failure_03_a_training_that_diverges_is_refused(make):
    """To repeat it would give the same, so the day would never be done."""
    deployment = make(training=dataclasses.replace(TRAINING, learning_rate=1e30))
    (outcome,) = run(deployment, [0])
    assert all("the loss was not finite" in row["refused"] for row in rows(outcome))
    assert "the training failed" in outcome.attention[0]
    deployment.configure(settings())
    (outcome,) = run(deployment, [1])
    assert all(row["retrained"] for row in rows(outcome))


def test_failure_03_damage_to_what_served_before_holds_nothing_up(make):
    deployment = make()
    run(deployment, [0, 1])
    publication = deployment.publication("default")
    path = publication.previous().folder / "cpp-meta-0.json"
    path.write_bytes(b"{}")
    (outcome,) = run(deployment, [2])
    assert "what served before cannot be compared with" in outcome.attention[0]
    assert str(path) in outcome.attention[0]
    assert {row["previous_loss"] for row in rows(outcome)} == {None}


def test_a_rollback_by_hand_is_attached_the_next_day(make):
    deployment = make()
    run(deployment, [0, 1])
    names = [version.name for version in deployment.publication("default").versions()]
    assert names == [str(day(0)), str(day(1))], "tests rest on a training on the second day"
    deployment.rollback("default", "stalls have doubled")
    (outcome,) = run(deployment, [2])
    assert rows(outcome)[0]["model"] == str(day(0))
    with pytest.raises(SettingError, match="no variant 'x'"):
        deployment.rollback("x", "tests")


def test_failure_04_left_over_temporary_files_are_cleared(make):
    deployment = make()
    run(deployment, [0])
    clean = tree(deployment.folder)
    (deployment.folder / ".plan.json.77.tmp").write_text("{")
    (deployment.folder / "days" / ".2022-09-21.json.77.tmp").write_text("{")
    (deployment.folder / "published/default/versions/.x.77.tmp").mkdir()
    (deployment.folder / "variants/default/0/.manifest.json.0123456789abcdef.tmp").write_text("{")
    (deployment.folder / "variants/default/0/generation-000000").mkdir()
    run(deployment, [1])
    left = [p for p in deployment.folder.rglob("*") if p.name.endswith(".tmp")]
    assert not left
    names = {path.name for path in (deployment.folder / "variants/default/0").iterdir()}
    assert names == {"lock", "manifest.json", "generation-000002"}
    assert len(clean) < len(tree(deployment.folder))


STATE = {
    "day": "2022-09-20", "unit": 3, "trained": "2022-09-19", "trained_unit": 2, "seen_at": 10,
    "streak": 0, "metric": {"epoch": 1}, "row": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trained", "None"),  # the text that was later tested as true
        ("day", "None"),
        ("day", 20220920),
        ("day", "20220920"),
        ("day", "2022-9-20"),
        ("unit", "3"),
        ("unit", None),
        ("unit", True),
        ("seen_at", 1.5),
        ("trained_unit", "None"),
        ("trained_unit", None),
        ("metric", "None"),
        ("row", None),
    ],
)
def test_failure_05_every_value_of_the_state_has_its_type(field, value):
    """A path that was missing was stored as the text "None", and a day as text, and both read."""
    state = task.State.of_document(STATE, Path("x"))
    assert state.day + dt.timedelta(days=1) == dt.date(2022, 9, 21)
    assert task.State.of_document(state.document(), Path("x")) == state
    with pytest.raises(DamagedError, match=field):
        task.State.of_document({**STATE, field: value}, Path("x"))
    broken = {name: v for name, v in STATE.items() if name != field}
    with pytest.raises(DamagedError, match=f"has no '{field}'"):
        task.State.of_document(broken, Path("x"))


def test_failure_05_nothing_missing_is_stored_as_text(make):
    deployment = make()
    run(deployment, [0])
    for path in deployment.folder.rglob("*.json"):
        assert '"None"' not in path.read_text(), path
        assert "NaN" not in path.read_text() or "generation" in str(path), path


def test_failure_06_no_day_is_skipped_in_silence(make):
    """Errors of any day but the last were logged and swallowed, so states missed days."""
    deployment = make()
    days = Days(*range(6))
    run(deployment, [0], days)
    days.replaced[2] = DamagedError("video_acked.csv: cut off")
    for _ in range(2):
        with pytest.raises(DamagedError) as caught:
            deployment.run(days, today=day(4))
        assert "day 2022-09-22 of the deployment" in caught.value.__notes__[0]
    assert [document["day"] for document in deployment.days()] == [str(day(0)), str(day(1))]
    failure = deployment.failures()[str(day(2))]
    assert failure["attempts"] == 2
    assert "cut off" in failure["error"]
    del days.replaced[2]
    assert len(deployment.run(days, today=day(4)).days) == 3
    assert deployment.failures() == {}
    (deployment.folder / "days" / f"{day(1)}.json").unlink()
    with pytest.raises(DamagedError, match=r"no 2022-09-21\.json, though later days are there"):
        deployment.run(days, today=day(5))


def test_failure_07_one_job_at_a_time_and_the_lock_goes_with_it(make):
    deployment = make()
    inside = []

    def source(date):
        with pytest.raises(LockedError):
            Deployment(deployment.folder).run(Days(0), today=day(0))
        with pytest.raises(LockedError):
            deployment.rollback("default", "tests")
        with pytest.raises(LockedError):
            deployment.configure(settings(keep=9))
        inside.append(date)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deployment.run(source, today=day(0))
    assert inside
    assert len(run(deployment, [0])[0].days) == 1


@pytest.mark.slow
def test_failure_08_coverage_that_fluctuates_does_not_retrain_every_day(make):
    """With an increase that idles at .05 to .08, a threshold below retrained all the time."""

    def trainings(**changes):
        policy = puffer_policy(batch_size=16)
        deployment = make(variants={"default": Variant(policy, **changes)})
        run(deployment, range(7))
        table = deployment.table()
        return int(table["retrained"].sum() - 5)

    every_day = trainings(threshold=0.01)
    assert every_day > 20, "of 30; the plain estimate has a floor above the threshold"
    assert trainings(threshold=0.01, estimator="calibrated") < every_day * 2 / 3
    assert trainings(threshold=0.01, rest=4) <= 10
    confirmed = trainings(threshold=0.01, confirm=3)
    assert confirmed <= 10
    assert confirmed > 0, "what lasts is still noticed"


def test_failure_09_no_data_of_any_kind(make):
    """Empty files, a stream of nonsense, sentinels."""
    deployment = make(longest=60.0)
    days = Days(0, 2, 3)
    empty = features(1, streams=1)
    days.replaced[1] = Features(
        empty.values[:0], empty.stream[:0], empty.video_ts[:0], empty.sent[:0], empty.acked[:0],
        empty.streams,
    )  # fmt: skip
    found = features(2)
    values, acked = found.values.copy(), found.acked.copy()
    values[:12, 6] = 40_000.0  # one viewer's chunks take eleven hours each
    acked[:12] = found.sent[:12] + 40_000 * 10**9
    values[30, 3] = (2**32 - 1) / 1e6
    days.replaced[2] = Features(
        values, found.stream, found.video_ts, found.sent, acked, found.streams
    )
    run(deployment, [0], days)
    outcome = deployment.run(days, today=day(3))
    assert [d["status"] for d in outcome.days] == ["no data", "done", "done"]
    assert outcome.days[1]["variants"]["default"]["rows"][0]["dropped"] == 12
    held = memory_of(deployment).samples["x"]
    assert held.max() < 1e5
    assert held[:, 3::7].max() < 10, "no min_rtt of 72 minutes"


def test_failure_09_huge_days_are_inserted_in_pieces(make, monkeypatch):
    deployment = make(insert_rows=50)
    sizes = []
    original = Features.columns

    def columns(self, horizon=0, take=None, **others):
        sizes.append(self.samples(horizon)[0].size if take is None else len(take))
        return original(self, horizon, take, **others)

    monkeypatch.setattr(task, "_ROWS_SCORED", 50)
    monkeypatch.setattr(Features, "columns", columns)
    (outcome,) = run(deployment, [0])
    assert max(sizes) == 50
    whole = make()
    monkeypatch.setattr(Features, "columns", original)
    (other,) = run(whole, [0])
    for mine, theirs in zip(rows(outcome), rows(other), strict=True):
        assert mine["offered"] == theirs["offered"]
        assert mine["held"] == theirs["held"]


def test_failure_10_normalisers_are_of_today(make, tmp_path):
    """94 % of every published normaliser was of 2019, and sentinels had lifted its std."""
    old = base()
    stale = []
    for network in old:
        mean, std = network.moments.mean.copy(), network.moments.std.copy()
        std[3::7] = 1.65  # of min_rtt, as in the networks of 2019
        stale.append(Network(network.weights, Moments(13_489_635, mean, std)))
    deployment = Deployment.create(tmp_path / "s", settings(), Ttp(tuple(stale)))
    found = features(0)
    values = found.values.copy()
    values[5, 3] = (2**32 - 1) / 1e6
    days = Days()
    days.replaced[0] = Features(
        values, found.stream, found.video_ts, found.sent, found.acked, found.streams
    )
    run(deployment, [0], days)
    for h, network in enumerate(deployment.publication("default").current().read()):
        assert network.moments.count == len(memory_of(deployment, h))
        assert network.moments.std[3::7].max() < 0.1


def test_failure_11_every_decision_names_the_model_it_was_made_with(make):
    deployment = make()
    run(deployment, range(5))
    publication = deployment.publication("default")
    history = publication.history()
    assert history
    serving = {}
    for document in deployment.days():
        entry = document["variants"]["default"]
        assert {row["model"] for row in entry["rows"]} == {entry["model"]}
        assert entry["model"] == serving.get("name")
        if entry["published"]:
            serving["name"] = entry["published"]
    assert history[-1].version == serving["name"]
    assert [switch.day for switch in history] == [switch.version for switch in history]
    manifest = json.loads((publication.link / "manifest.json").read_text())
    assert manifest["name"] == serving["name"], "whoever pulls can say what was pulled"


def test_failure_12_numbers_of_another_metric_are_not_compared(make, monkeypatch):
    """A fix made coverage jump from 64 to 48, and the first increase after it meant nothing."""
    deployment = make()
    run(deployment, [0, 1])
    with monkeypatch.context() as patched:
        from memento_puffer.deployment import deploy_settings

        patched.setattr(deploy_settings, "METRIC", 2)
        before = tree(deployment.folder / "variants")
        with pytest.raises(ForeignError, match="raise the setting metric"):
            run(deployment, [2])
        assert tree(deployment.folder / "variants") == before
        deployment.configure(settings(metric=2))
        (outcome,) = run(deployment, [2])
        assert [row["coverage_increase"] for row in rows(outcome)] == [1.0] * 5
        assert all(row["retrained"] for row in rows(outcome))
        assert {row["metric"] for row in rows(outcome)} == {2}
        (outcome,) = run(deployment, [3])
        assert all(row["coverage_increase"] < 1 for row in rows(outcome))
    table = deployment.table()
    assert table["metric"].tolist() == [1] * 10 + [2] * 10


def test_failure_12_settings_that_change_the_metric(make):
    deployment = make()
    run(deployment, [0])
    wider = {"default": Variant(puffer_policy(batch_size=16, bandwidth=0.2))}
    with pytest.raises(SettingError, match="set metric=2 as well"):
        deployment.configure(settings(variants=wider))
    deployment.configure(settings(variants=wider, metric=2))
    (outcome,) = run(deployment, [1])
    assert rows(outcome)[0]["coverage_increase"] == 1.0
    assert memory_of(deployment).policy.bandwidth == 0.2
    with pytest.raises(SettingError, match="it only rises"):
        deployment.configure(settings(variants=wider, metric=1))
    other = {"default": Variant(puffer_policy("density-reservoir", batch_size=16))}
    with pytest.raises(SettingError, match="give it another name"):
        deployment.configure(settings(variants=other, metric=3))


# Crashes


class Killed(BaseException):
    """As if the process had gone."""


@pytest.mark.slow
@pytest.mark.parametrize("part", ["write_synced", "sync_folder"])
def test_stopped_anywhere_and_run_again(make, monkeypatch, part):
    """At every few writes to the disk; the next run comes to the bytes of one that was not."""
    from memento import files
    from memento.deployment import publication as publish_module

    straight = make()
    run(straight, range(2))
    start = straight.folder.with_name("start")
    shutil.copytree(straight.folder, start, symlinks=True)
    run(straight, [2])
    wanted = tree(straight.folder)
    original = getattr(files, part)
    stop, step = 0, 13 if part == "write_synced" else 3
    finished = False
    while not finished:
        deployment = Deployment(shutil.copytree(start, start.with_name(f"c{stop}"), symlinks=True))
        calls = 0

        def guarded(*arguments, stop=stop):
            nonlocal calls
            calls += 1
            if calls > stop:
                raise Killed
            return original(*arguments)

        with monkeypatch.context() as patched:
            for owner in (files, snapshot, publish_module, ttp_module):
                if hasattr(owner, part):
                    patched.setattr(owner, part, guarded)
            try:
                run(deployment, [2])
                finished = True
            except Killed:
                pass
        run(deployment, [2])
        assert tree(deployment.folder) == wanted, f"stopped after {stop}"
        stop += step
    assert stop > 5 * step


def test_a_training_goes_on_where_it_was(make, monkeypatch):
    slow = dataclasses.replace(TRAINING, epochs=12)
    straight = make(training=slow)
    run(straight, [0])
    deployment = make(training=slow, checkpoint_seconds=1e-9)
    epochs = []
    original = task.Training.epoch

    def epoch(self):
        epochs.append(len(self.losses))
        if len(epochs) == 8:
            raise Killed
        return original(self)

    monkeypatch.setattr(task.Training, "epoch", epoch)
    with pytest.raises(Killed):
        run(deployment, [0])
    assert (deployment.folder / "training" / "default-0").is_dir()
    run(deployment, [0])
    assert epochs[:9] == [*range(8), 7]
    one = deployment.publication("default").current()
    assert one.identity == straight.publication("default").current().identity
    assert not any((deployment.folder / "training").iterdir())


def test_a_checkpoint_of_another_training_is_left_alone(make):
    deployment = make()
    other = make()
    run(other, [0])
    folder = deployment.folder / "training" / "default-0"
    columns = features(3).columns(0)
    training = task.Training(None, columns["x"], columns["y_bin"], settings=TRAINING)
    training.epoch()
    folder.parent.mkdir()
    snapshot.write(folder, task.TRAINING_KIND, training.state(), {})
    run(deployment, [0])
    one = deployment.publication("default").current()
    assert one.identity == other.publication("default").current().identity


# Settings and folders


def test_settings_to_a_document_and_back():
    for chosen in (DeploymentSettings(), settings(), settings(variants=default_variants())):
        text = json.dumps(chosen.document())
        assert DeploymentSettings.of_document(json.loads(text)) == chosen


def test_policies_take_short_names_of_distances():
    policy = {"kind": "density-reservoir", "labels": ["y_bin"]}
    given = {"variants": {"a": {"policy": policy}}, "capacity": 10_000}
    made = DeploymentSettings.of_document(given).variants["a"].policy
    assert [distance.kind for distance in made.distances] == ["jensen-shannon-labels"]
    assert made.batch_size == 256
    assert policy == {"kind": "density-reservoir", "labels": ["y_bin"]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"capacty": 5}, "settings: unknown key 'capacty'; known are variants, capacity"),
        ({"capacity": "5"}, "settings: capacity is '5'; expected a whole number"),
        ({"capacity": True}, "expected a whole number"),
        ({"git": 5}, "settings: git is 5; expected text"),
        ({"variants": {}}, "no variants"),
        ({"variants": {"a/b": {}}}, "variant 'a/b'"),
        ({"variants": {"a": {"threshold": 2.0}}}, "threshold is 2.0"),
        ({"variants": {"a": {"confirm": 0}}}, "variants.a]: confirm is 0"),
        ({"variants": {"a": {"policy": {"kind": "x"}}}}, "unknown policy 'x'; known are"),
        ({"variants": {"a": {"policy": {"bandwith": 1}}}}, "has no setting 'bandwith'"),
        ({"training": {"epochs": 0}}, "epochs is 0; expected a whole number above 0"),
        ({"training": 5}, "training is 5; expected a table"),
        ({"gate": {"held_out": 0.9}}, "held_out is 0.9"),
        ({"keep": 1}, "keep is 1; expected a whole number from 2"),
        ({"longest": 0}, "longest is 0"),
        ({"capacity": 100}, "less than one batch"),
    ],
)
def test_settings_that_are_none(document, message):
    with pytest.raises(SettingError, match=message.replace("(", r"\(")):
        DeploymentSettings.of_document(document)


def test_folders_that_are_no_deployment(tmp_path, make):
    with pytest.raises(ForeignError, match="holds no deployment"):
        Deployment(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("")
    with pytest.raises(ForeignError, match=r"holds 'thesis\.tex' already"):
        Deployment.create(tmp_path / "x", settings())
    deployment = make()
    with pytest.raises(ForeignError, match="already"):
        Deployment.create(deployment.folder, settings())
    (deployment.folder / "deployment.json").write_text('{"format": "x"}')
    with pytest.raises(ForeignError, match="is no deployment"):
        Deployment(deployment.folder)


def test_a_capacity_that_grows(make):
    deployment = make()
    run(deployment, [0, 1])
    deployment.configure(settings(capacity=480))
    run(Deployment(deployment.folder), [2, 3])
    assert 320 < len(memory_of(deployment)) <= 480


def test_days_in_folders(tmp_path):
    found = features(0, streams=3, length=4)
    import polars as pl

    n = len(found.stream)
    viewer = {
        "session_id": [f"s{i}" for i in found.stream], "index": [0] * n, "expt_id": [1] * n,
        "channel": ["abc"] * n, "video_ts": found.video_ts,
    }  # fmt: skip
    sent = pl.DataFrame(
        {
            "time": found.sent, **viewer, "format": ["426x240-26"] * n, "size": [90_000] * n,
            "ssim_index": [0.9] * n, "cwnd": [10] * n, "in_flight": [0] * n,
            "min_rtt": [20_000] * n, "rtt": [30_000] * n, "delivery_rate": [300_000] * n,
        }
    )  # fmt: skip
    acked = pl.DataFrame({"time": found.acked, **viewer})
    name = helpers.FIRST.isoformat()
    write_day(tmp_path / name, name, {"video_sent": sent, "video_acked": acked})
    source = DayFolders(tmp_path)
    assert source(helpers.FIRST).size == n
    assert source(day(0)) is None
    spelled, later = tmp_path / "2022-09-20T11_2022-09-21T11", pl.col("time") + 86_400 * 10**9
    sent, acked = sent.with_columns(later), acked.with_columns(later)
    write_day(spelled, "2022-09-20", {"video_sent": sent})
    assert source(dt.date(2022, 9, 20)) is None, "acknowledgements have not come yet"
    write_day(spelled, "2022-09-20", {"video_acked": acked})
    assert source(dt.date(2022, 9, 20)).size == n
    with pytest.raises(StorageError, match="no such folder"):
        DayFolders(tmp_path / "absent")


@pytest.fixture
def work_tree(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    folder = tmp_path / "tree"
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    return folder


def served_by_git(work_tree):
    """What was committed, not what lies there."""
    words = ["git", "-C", str(work_tree), "show", "HEAD:models/default/manifest.json"]
    return json.loads(subprocess.run(words, capture_output=True, check=True).stdout)["name"]


def test_a_rollback_is_published_to_git(make, work_tree):
    deployment = make(git=str(work_tree))
    run(deployment, [0, 1])
    assert served_by_git(work_tree) == str(day(1))
    version, attention = deployment.rollback("default", "stalls have doubled")
    assert (version.name, attention) == (str(day(0)), ())
    assert served_by_git(work_tree) == str(day(0))
    (work_tree / ".git" / "HEAD").unlink()
    version, attention = deployment.rollback("default", "and back", to=str(day(1)))
    assert version.name == deployment.publication("default").current().name == str(day(1))
    assert "not published to git" in attention[0]


def test_days_before_one_that_failed_are_published_to_git(make, work_tree, monkeypatch):
    deployment, days = make(git=str(work_tree)), Days(0)
    days.replaced[1] = DamagedError("cut off")
    with pytest.raises(DamagedError):
        deployment.run(days, today=day(1), start=day(0))
    assert served_by_git(work_tree) == str(day(0))

    def fails(*arguments, **others):
        raise RuntimeError("git is on fire")

    monkeypatch.setattr(git, "mirror_to_git", fails)
    with pytest.raises(DamagedError, match="cut off") as caught:
        run(deployment, [1], days)
    assert "git is on fire" in caught.value.__notes__[-1], "told, but it hides nothing"


def test_published_to_git(make, work_tree):
    tree_ = work_tree
    deployment = make(git=str(tree_))
    (outcome,) = run(deployment, [0])
    assert outcome.attention == ()
    manifest = json.loads((tree_ / "models" / "default" / "manifest.json").read_text())
    assert manifest["name"] == str(day(0))
    shutil.rmtree(tree_ / ".git")
    (outcome,) = run(deployment, [1])
    assert "not published to git" in outcome.attention[-1], "told, and the day is done"
    assert len(deployment.days()) == 2


def test_the_digest_of_a_network_is_that_of_its_files(make):
    deployment = make()
    (outcome,) = run(deployment, [0])
    networks = deployment.publication("default").current().read()
    assert [digest_of(n) for n in networks] == [row["candidate"] for row in rows(outcome)]
