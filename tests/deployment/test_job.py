from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest

from deployment import stranger
from memento.cli.deploy import _read
from memento.deployment import Deployment, from_toml
from memento.errors import (
    ForeignError,
    LockedError,
    MissingExtraError,
    ModelError,
    SettingError,
    StorageError,
)
from memento.files import Lock

pytest.importorskip("skops")


@pytest.fixture
def made(tmp_path, request):
    """A function that makes a deployment in a folder of its own."""
    count = 0

    def make(model=stranger.PIPELINE, config=stranger.CONFIG):
        nonlocal count
        count += 1
        module = f"stranger_{os.getpid()}_{abs(hash(request.node.name))}_{count}"
        folder = tmp_path / str(count)
        folder.mkdir()
        settings = from_toml(stranger.prepare(folder, module, model, config))
        return Deployment.create(folder / "state", settings), folder / "days"

    return make


def run(deployment, **options):
    return [record for _, record in deployment.run(_read, **options)]


def states(deployment, variant="main"):
    return {day[-2:]: record.state for day, record in deployment.state(variant).days.items()}


def test_ten_days_of_a_pipeline(made):
    deployment, days = made()
    for day in range(1, 11):
        if day != stranger.MISSING:
            stranger.write_day(days, day)
    run(deployment)
    state = deployment.state("main")
    expected = {f"{day:02d}": "done" for day in range(1, 11)}
    assert states(deployment) == expected | {"04": "missing", "06": "refused"}
    assert "2026-01-06" not in state.versions
    assert state.days["2026-01-06"].trained
    assert not state.days["2026-01-06"].published
    assert state.serving == "2026-01-10"
    assert run(deployment) == []

    assert deployment.rollback("main") == "2026-01-09"
    assert deployment.rollback("main", "2026-01-02") == "2026-01-02"
    link = deployment.publication("main").link
    assert os.readlink(link) == "2026-01-02"
    stranger.write_day(days, 11)
    (record,) = run(deployment)
    assert record.served == "2026-01-02"
    assert record.published
    assert os.readlink(link) == "2026-01-11"


def test_what_is_published_is_read_by_skops_alone(made):
    import skops.io

    deployment, days = made()
    stranger.write_day(days, 1)
    run(deployment)
    publication = deployment.publication("main")
    manifest = json.loads((publication.link / "manifest.json").read_text())
    assert set(manifest["files"]) == {"model.skops", "learner.npz"}
    file = publication.link / "model.skops"
    model = skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))
    assert model.predict_proba(np.zeros((1, 3))).shape == (1, 2)


def test_a_rolled_back_model_serves_until_one_passes(made):
    deployment, days = made()
    for day in (1, 2, 3, 5):
        stranger.write_day(days, day)
    run(deployment)
    deployment.rollback("main", "2026-01-02")
    stranger.write_day(days, stranger.SORTED)
    (record,) = run(deployment)
    assert record.state == "refused"
    assert deployment.state("main").serving == "2026-01-02"
    assert os.readlink(deployment.publication("main").link) == "2026-01-02"


def test_rollback_refuses_what_is_not_there(made):
    deployment, days = made()
    with pytest.raises(SettingError, match="no version before None"):
        deployment.rollback("main")
    with pytest.raises(SettingError, match="no variant 'other'; there are main"):
        deployment.rollback("other")
    stranger.write_day(days, 1)
    run(deployment)
    with pytest.raises(SettingError, match="no version '2025'; there are 2026-01-01"):
        deployment.rollback("main", "2025")


@pytest.mark.parametrize(("late", "held"), [("state", 240), ("insert", 360)])
def test_a_late_day(made, late, held):
    config = stranger.CONFIG.replace("[model]", f'late = "{late}"\n[model]')
    deployment, days = made(config=config.replace("capacity = 60", "capacity = 1000"))
    for day in (1, 3):
        stranger.write_day(days, day)
    run(deployment)
    assert states(deployment)["02"] == "missing"
    stranger.write_day(days, 2)
    (record,) = run(deployment)
    assert (record.state, record.day) == ("late", "2026-01-02")
    assert len(deployment.state("main").memory) == held
    assert run(deployment) == []


def test_a_day_that_fails_is_tried_again_until_a_later_one_is_done(made):
    deployment, days = made()
    stranger.write_day(days, 1)
    broken = days / "2026-01-03.parquet"
    broken.write_bytes(b"PAR1 and no more")
    assert [record.state for record in run(deployment)] == ["done", "missing", "failed"]
    before = {p: p.read_bytes() for p in deployment.root.rglob("*.json") if "variants" in str(p)}
    assert [record.state for record in run(deployment)] == ["failed"]  # tried, nothing new
    assert before == {p: p.read_bytes() for p in before}
    stranger.write_day(days, 5)
    run(deployment)
    assert states(deployment) == {
        "01": "done", "02": "missing", "03": "failed", "04": "missing", "05": "done"
    }  # fmt: skip
    assert run(deployment) == []
    stranger.write_day(days, 3)
    assert [record.state for record in run(deployment)] == ["late"]


def test_a_failed_day_leaves_the_memory_as_it_was(made):
    model = stranger.MEAN + "\n    def fit(self, samples, weights=None):\n        1 / 0\n"
    deployment, days = made(model=model + "\ndef make(seed):\n    return Frequencies(seed)\n")
    stranger.write_day(days, 1)
    (record,) = run(deployment)
    assert (record.state, record.held) == ("failed", 0)
    assert record.reason == "ZeroDivisionError: division by zero"
    assert deployment.state("main").memory is None


def test_a_file_without_its_columns_fails_by_their_settings(made):
    config = stranger.CONFIG.replace('label = "y"', 'label = "z"')
    deployment, days = made(config=config)
    stranger.write_day(days, 1)
    (record,) = run(deployment)
    assert record.state == "failed"
    assert "'z' is missing" in record.reason
    assert "another [data] label" in record.reason
    assert "--map" not in record.reason


def test_two_files_of_a_day_fail(made):
    deployment, days = made()
    stranger.write_day(days, 1)
    (days / "2026-01-01.csv").write_text("y,f0\n1,2\n")
    (record,) = run(deployment)
    assert record.reason == "there are 2026-01-01.csv and 2026-01-01.parquet; leave one of them"


def test_until_a_day(made):
    deployment, days = made()
    for day in (1, 2, 3):
        stranger.write_day(days, day)
    run(deployment, until="2026-01-02")
    assert states(deployment) == {"01": "done", "02": "done"}
    with pytest.raises(SettingError, match="--day is '2026-1-2'"):
        run(deployment, until="2026-1-2")


def test_a_learner_of_ones_own(made):
    deployment, days = made(
        model=stranger.MEAN + "\ndef make(seed):\n    return Frequencies(seed)\n"
    )
    for day in (1, 2, 3):
        stranger.write_day(days, day)
    run(deployment)
    assert set(states(deployment).values()) == {"done"}
    folder = deployment.publication("main").link
    assert sorted(p.name for p in folder.iterdir()) == ["learner.npz", "manifest.json"]
    with np.load(folder / "learner.npz", allow_pickle=False) as arrays:
        assert arrays["p"].shape == (2,)


LOSS = '{ kind = "loss", increase = 0.5 }'


@pytest.mark.parametrize("policy", ["memento", "density-reservoir", "loss-aware-reservoir"])
@pytest.mark.parametrize("trigger", ['"on-arrivals"', '"coverage"', LOSS])
def test_numbers_and_classes_with_any_policy_and_trigger(made, policy, trigger):
    config = stranger.CONFIG.replace('"fifo"', f'"{policy}"').replace('"every"', trigger)
    regressor = "from sklearn.linear_model import Ridge\ndef make(seed):\n    return Ridge()\n"
    for model, numbers in ((stranger.PIPELINE, False), (regressor, True)):
        if numbers and policy == "loss-aware-reservoir":
            continue  # for classes only
        deployment, days = made(model=model, config=config)
        for day in (1, 2, 3):
            stranger.write_day(days, day, numbers=numbers)
        run(deployment)
        records = deployment.state("main").days.values()
        assert all(record.state == "done" for record in records), [r.reason for r in records]
        assert not any("cannot be told" in record.reason for record in records)


def test_trained_by_count_and_never(made):
    config = stranger.CONFIG.replace('"every"', '{ kind = "count", samples = 200 }')
    config += '\n[variants.static]\ncapacity = 50\npolicy = "fifo"\ntrigger = "never"\n'
    deployment, days = made(config=config)
    for day in (1, 2, 3):
        stranger.write_day(days, day)
    run(deployment)
    assert deployment.state("main").versions == ["2026-01-01", "2026-01-03"]
    assert deployment.state("static").versions == ["2026-01-01"]


def test_a_changed_version_is_not_served(made):
    deployment, days = made()
    stranger.write_day(days, 1)
    run(deployment)
    (deployment.publication("main").link / "learner.npz").write_bytes(b"")
    stranger.write_day(days, 2)
    (record,) = run(deployment)
    assert record.state == "failed"
    assert "memento deploy rollback" in record.reason


def test_versions_that_are_kept_and_served_by_git(made, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    git = ["git", "-C", str(tmp_path / "tree")]
    subprocess.run(["git", "init", "-q", "-b", "main", git[2]], check=True)
    config = stranger.CONFIG + f'[publish]\nkeep = 2\ngit = "{git[2]}"\n'
    deployment, days = made(config=config)
    for day in (1, 2, 3, 5):
        stranger.write_day(days, day)
    run(deployment)
    assert deployment.state("main").versions == ["2026-01-03", "2026-01-05"]
    assert run(deployment) == []
    names = [version.name for version in deployment.publication("main").versions()]
    assert names == ["2026-01-03", "2026-01-05"]
    deployment.rollback("main")
    assert deployment.mirror() == []
    show = [*git, "show", "HEAD:models/main/manifest.json"]
    committed = subprocess.run(show, capture_output=True, check=True).stdout
    assert json.loads(committed)["name"] == "2026-01-03"
    (tmp_path / "tree/.git/HEAD").unlink()
    (problem,) = deployment.mirror()
    assert problem.startswith("main: not published to git: ")


def test_a_deployment_of_before_there_was_a_history(made):
    deployment, days = made()
    for day in (1, 2, 3):
        stranger.write_day(days, day)
    run(deployment)
    publication = deployment.publication("main")
    (publication.root / "history.json").unlink()
    stranger.write_day(days, 5)
    run(deployment)
    assert [switch.version for switch in publication.history()] == ["2026-01-03", "2026-01-05"]
    assert deployment.rollback("main", "2026-01-01") == "2026-01-01"
    assert os.readlink(publication.link) == "2026-01-01"


def test_what_killed_runs_left_is_cleared_away(made):
    deployment, days = made()
    stranger.write_day(days, 1)
    run(deployment)
    publication = deployment.publication("main")
    state = publication.version("2026-01-01").read()
    publication.write(state, "2026-01-02", {})  # and killed before it counted
    (publication.root / ".2026-01-03.0123456789abcdef.tmp").mkdir()
    publication.link.unlink()
    run(deployment)
    assert sorted(p.name for p in publication.root.iterdir()) == [
        *("2026-01-01", "current", "history.json")
    ]
    assert os.readlink(publication.link) == "2026-01-01"


def test_one_run_at_a_time(made):
    deployment, _ = made()
    with Lock(deployment.root / "lock"), pytest.raises(LockedError):
        run(deployment)


def test_init_refuses_and_leaves_nothing(made, tmp_path, monkeypatch):
    deployment, _ = made()
    with pytest.raises(StorageError, match="holds a deployment already"):
        Deployment.create(deployment.root, deployment.settings)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ForeignError, match="other things"):
        Deployment.create(tmp_path / "other", deployment.settings)
    with pytest.raises(StorageError, match="memento deploy init"):
        Deployment(tmp_path / "nothing")
    for model, error, text in (
        ("import skl_nothing", ModelError, "no module 'skl_nothing'"),
        ("def other(seed): ...", ModelError, "no function 'make'; it has other"),
        ("def make(seed): return 3", SettingError, "gives int"),
        ("def make(): return 3", ModelError, "called with the seed"),
        (stranger.MEAN.replace("def state", "def stats") + "\nmake = Frequencies", SettingError,
         "no state"),
        (stranger.MEAN.replace('"y"', '"z"') + "\nmake = Frequencies", SettingError, "agree"),
        ("raise ModuleNotFoundError('no', name='sklearn')", MissingExtraError, "scikit-learn"),
    ):  # fmt: skip
        with pytest.raises(error, match=text):
            made(model=model)
    assert sorted(p.name for p in tmp_path.glob("*/state")) == ["state"]  # of the first alone


def test_skops_is_missed_before_anything_is_computed(made, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(MissingExtraError, match="memento-replay\\[sklearn\\]"):
        made()
