from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("skops")

from called import code_of
from deployment import stranger
from memento.cli.deploy import _read
from memento.cli.main import main
from memento.deployment import Deployment, Publication, from_toml
from memento.deployment.job import _VariantJob
from memento.deployment.models import Models
from memento.errors import (
    ForeignError,
    LockedError,
    MissingExtraError,
    ModelError,
    SettingError,
    SpaceError,
    StorageError,
)
from memento.files import Lock


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


def test_what_was_written_down_can_be_had_by_programs(made, capsys):
    deployment, days = made()
    for day in (1, 2):
        stranger.write_day(days, day)
    run(deployment)
    capsys.readouterr()
    assert code_of("deploy", "record", deployment.folder) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["variant"], row["day"]) for row in lines] == [
        ("main", "2026-01-01"),
        ("main", "2026-01-02"),
    ]
    assert code_of("deploy", "record", deployment.folder, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"days": lines}
    out = deployment.folder.parent / "days.csv"
    assert code_of("deploy", "record", deployment.folder, "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(out), "days": 2}
    assert out.exists()


def test_ten_days_of_a_pipeline(made):
    deployment, days = made()
    for day in range(1, 11):
        if day != stranger.MISSING:
            stranger.write_day(days, day)
    run(deployment)
    state = deployment.state("main")
    expected = {f"{day:02d}": "done" for day in range(1, 11)}
    assert states(deployment) == expected | {"04": "missing", "06": "refused"}
    assert "2026-01-06" not in deployment.publication("main").names()
    assert state.days["2026-01-06"].trained
    assert not state.days["2026-01-06"].published
    assert deployment.serving("main") == "2026-01-10"
    assert run(deployment) == []

    assert deployment.rollback("main")[0].name == "2026-01-09"
    assert deployment.rollback("main", to="2026-01-02")[0].name == "2026-01-02"
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
    deployment.rollback("main", to="2026-01-02")
    stranger.write_day(days, stranger.SORTED)
    (record,) = run(deployment)
    assert record.state == "refused"
    assert deployment.serving("main") == "2026-01-02"
    assert os.readlink(deployment.publication("main").link) == "2026-01-02"


def test_rollback_refuses_what_is_not_there(made):
    deployment, days = made()
    with pytest.raises(StorageError, match="nothing was published yet"):
        deployment.rollback("main")
    with pytest.raises(SettingError, match="no variant 'other'; there are main"):
        deployment.rollback("other")
    stranger.write_day(days, 1)
    run(deployment)
    with pytest.raises(StorageError, match="no version before the current one"):
        deployment.rollback("main")
    with pytest.raises(StorageError, match="no version '2025'; there are: 2026-01-01"):
        deployment.rollback("main", to="2025")


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
    before = {p: p.read_bytes() for p in deployment.folder.rglob("*.json") if "variants" in str(p)}
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
    assert "another label" in record.reason
    assert "--map" not in record.reason


@pytest.mark.parametrize(
    ("inputs", "code", "says"),
    [
        ('["amount", "shop"]', 2, "column 'shop' holds text, such as 'b' in row 1"),
        ('["amount", "hour"]', 2, "column 'hour', which [data] inputs"),
        ('["shop"]', 0, "could not convert string to float"),
        ('["amount", "age"]', 0, "contains NaN"),
        ('["amount"]', 0, ""),
    ],
)
def test_init_looks_at_the_newest_day_that_is_there(tmp_path, capsys, inputs, code, says):
    """What no run could take is refused before a deployment is made of it."""
    config = stranger.CONFIG.replace('["f*"]', inputs)
    module = f"stranger_init_{os.getpid()}_{abs(hash(inputs))}"
    file = stranger.prepare(tmp_path, module, stranger.PIPELINE, config)
    (tmp_path / "days").mkdir(exist_ok=True)
    (tmp_path / "days" / "2026-01-01.csv").write_text("y\n1\n")
    (tmp_path / "days" / "2026-01-02.csv").write_text("amount,shop,age,y\n1.5,7,,0\n2.5,b,9,1\n")
    with pytest.raises(SystemExit) as done:
        main(["deploy", "init", str(tmp_path / "state"), "--config", str(file)])
    assert int(done.value.code or 0) == code
    err = capsys.readouterr().err
    assert says in err
    assert bool(err) == bool(says)
    assert says == "" or "2026-01-02.csv" in err
    assert (tmp_path / "state").exists() == (code == 0)


def test_a_memory_knows_what_its_inputs_were_called(made):
    deployment, days = made()
    stranger.write_day(days, 1)
    assert run(deployment)[0].state == "done"
    (task,) = deployment.state("main").tasks.values()
    assert task.memory.stacked == {"x": ["f0", "f1", "f2"]}


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
    assert deployment.publication("main").names() == ["2026-01-01", "2026-01-03"]
    assert deployment.publication("static").names() == ["2026-01-01"]


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
    assert deployment.publication("main").names() == ["2026-01-03", "2026-01-05"]
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
    names = [f"2026-01-0{day}" for day in (1, 2, 3, 5)]
    assert [switch.version for switch in publication.history()] == names
    assert deployment.rollback("main", to="2026-01-01")[0].name == "2026-01-01"
    assert os.readlink(publication.link) == "2026-01-01"


def earlier_state(deployment, **fields):
    """The folder of a variant as an earlier Memento wrote it."""
    from memento import snapshot

    folder, kind = deployment.folder / "variants" / "main", "memento-deployment-variant"
    found = snapshot.read(folder, kind)
    state = {**found.documents["state"], **fields}
    snapshot.write(folder, kind, found.arrays, {**found.documents, "state": state})


@pytest.mark.parametrize(
    ("kept", "serving"),
    [
        ([("publish", 3)], 3),
        ([("publish", 3)], None),
        ([], 1),
        ([("rollback", 1)], 1),
    ],
)
def test_what_served_still_does_where_an_earlier_memento_wrote_no_history(made, kept, serving):
    deployment, days = made()
    for day in (1, 2, 3):
        stranger.write_day(days, day)
    run(deployment)
    earlier_state(deployment, serving=serving and stranger.name(serving))
    publication = deployment.publication("main")
    switches = [
        {"action": action, "version": stranger.name(day), "replaces": None, "day": None,
         "reason": ""}
        for action, day in kept
    ]  # fmt: skip
    (publication.root / "history.json").write_text(json.dumps(switches))
    assert run(deployment) == []
    names = [stranger.name(day) for day in (1, 2, 3)]
    assert publication.names() == names
    assert deployment.serving("main") == stranger.name(serving or 3)
    history = publication.history()
    assert [switch.replaces for switch in history] == [None, *(s.version for s in history[:-1])]
    assert deployment.rollback("main", to=names[1])[0].name == names[1]
    assert run(deployment) == []
    assert deployment.serving("main") == names[1]


def test_what_killed_runs_left_is_cleared_away(made):
    deployment, days = made()
    stranger.write_day(days, 1)
    run(deployment)
    publication = deployment.publication("main")
    version = publication.version("2026-01-01").folder
    shutil.copytree(version, version.with_name("2026-01-02"))  # and killed before it counted
    (publication.root / ".2026-01-03.0123456789abcdef.tmp").mkdir()
    publication.link.unlink()
    run(deployment)
    assert sorted(p.name for p in publication.root.iterdir()) == [
        *("2026-01-01", "current", "history.json", "lock")
    ]
    assert os.readlink(publication.link) == "2026-01-01"


def test_one_run_at_a_time(made):
    deployment, _ = made()
    with Lock(deployment.folder / "lock"), pytest.raises(LockedError):
        run(deployment)


def test_init_refuses_and_leaves_nothing(made, tmp_path, monkeypatch):
    deployment, _ = made()
    with pytest.raises(StorageError, match="holds a deployment already"):
        Deployment.create(deployment.folder, deployment.settings)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ForeignError, match="holds 'file' already"):
        Deployment.create(tmp_path / "other", deployment.settings)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["file"]
    with pytest.raises(StorageError, match="memento deploy init"):
        Deployment(tmp_path / "nothing")
    for model, error, text in (
        ("import skl_nothing", ModelError, "no module 'skl_nothing'"),
        ("def other(seed): ...", ModelError, "has no 'make'; it has other"),
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


def labelled(days, day, *, wrong=False):
    """A day; of wrong labels, what was learned from others is worth nothing on it."""
    x = np.random.default_rng(day).normal(size=(120, 3))
    lines = ["f0,f1,f2,y", *(f"{a},{b},{c},{int((a > 0) != wrong)}" for a, b, c in x)]
    (days / f"{stranger.name(day)}.csv").write_text("\n".join(lines))


def test_a_version_that_is_better_never_gives_way(made):
    config = stranger.CONFIG.replace("= 0.02", "= -0.5\nrollback_after = 1")
    deployment, _ = made(config=config)
    models = Models(deployment.settings)
    assert _VariantJob(deployment, "main", models, _read).margins == (0.0,)


@pytest.mark.parametrize("rollback_after", [0, 1, 2])
def test_what_turns_out_worse_gives_way_to_what_served_before(made, rollback_after):
    trigger = '{ kind = "every", units = 3 }'
    config = stranger.CONFIG.replace('"every"', trigger).replace("= 60", "= 120")
    config += f"rollback_after = {rollback_after}\n"
    deployment, days = made(config=config)
    for day in range(1, 4):
        labelled(days, day)
    labelled(days, 4, wrong=True)  # trained on the wrong labels, and better on this day
    labelled(days, 5)
    labelled(days, 6)
    warnings = []
    records = {record.day[-2:]: record for record in run(deployment, warn=warnings.append)}
    assert records["04"].published
    history = deployment.publication("main").history()
    back = [(s.day, s.version, s.reason) for s in history if s.action == "rollback"]
    if not rollback_after:
        assert (back, deployment.serving("main")) == ([], stranger.name(4))
        assert "score_before" not in records["05"].figures
        return
    day = 4 + rollback_after
    reason = "what serves predicts worse than what served before"
    assert back == [(stranger.name(day), stranger.name(1), reason)]
    record = records[f"{day:02d}"]
    assert record.figures["score_before"] > record.figures["score_mean"]
    assert (record.rolled_back, record.served) == (stranger.name(1), stranger.name(4))
    assert "rolled back to 2026-01-01" in record.reason
    assert warnings == [f"{record.day}, main: rolled back to 2026-01-01: {reason}"]
    labelled(days, 8)
    assert run(deployment)[-1].served == stranger.name(1)


def test_a_day_without_labels_does_not_break_a_row_of_bad_ones(made):
    config = stranger.CONFIG.replace('"every"', '{ kind = "every", units = 4 }')
    config = config.replace("= 60", "= 120") + "rollback_after = 2\n"
    deployment, days = made(config=config)
    for day in range(1, 9):
        labelled(days, day, wrong=day == 5)
    path = days / f"{stranger.name(7)}.csv"
    head, *lines = path.read_text().split("\n")
    path.write_text("\n".join([head, *(line.rpartition(",")[0] + "," for line in lines)]))
    records = {record.day[-2:]: record for record in run(deployment)}
    assert records["05"].published
    assert records["07"].state == "done"
    assert (records["06"].rolled_back, records["08"].rolled_back) == (None, stranger.name(1))


def test_what_counts_is_told_though_a_later_variant_stops_the_run(made, monkeypatch):
    config = stranger.CONFIG + '\n[variants.second]\ncapacity = 50\npolicy = "fifo"\n'
    deployment, days = made(config=config)
    stranger.write_day(days, 1)
    advance = _VariantJob.advance

    def full(self, *arguments):
        if self.name == "second":
            raise SpaceError("no room")
        return advance(self, *arguments)

    monkeypatch.setattr(_VariantJob, "advance", full)
    told = []
    with pytest.raises(SpaceError):
        told.extend(name for name, _ in deployment.run(_read))
    assert told == ["main"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "no memory"),
        OSError(errno.EMFILE, "too many"),
        RuntimeError("can't start new thread"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
    ids=repr,
)
def test_a_machine_that_is_short_of_something_is_no_fault_of_the_day(made, monkeypatch, error):
    """The day was written down as failed, and left out for good once a later one was done."""
    deployment, days = made()
    stranger.write_day(days, 1)
    stranger.write_day(days, 2)

    def short(*_):
        try:
            raise error
        except Exception as cause:
            raise ModelError("the model says nothing of memory") from cause

    with pytest.raises(ModelError):
        list(deployment.run(short))
    assert states(deployment) == {}
    assert [record.state for record in run(deployment)] == ["done", "done"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO])
def test_what_cannot_be_written_is_no_fault_of_the_day(made, monkeypatch, number):
    """A folder that was read-only for a moment cost a day."""
    deployment, days = made()
    stranger.write_day(days, 1)
    stranger.write_day(days, 2)

    def refused(*_, **__):
        raise StorageError("cannot write the model") from OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(Publication, "publish", refused)
        with pytest.raises(StorageError):
            run(deployment)
    assert states(deployment) == {}
    assert [record.state for record in run(deployment)] == ["done", "done"]


TWO = stranger.CONFIG.replace('label = "y"', 'label = ["y", "late_y"]')


def two_labels(days, day, *, late=True, wrong=False):
    x = np.random.default_rng(day).normal(size=(120, 3))
    lines = ["f0,f1,f2,y,late_y"]
    lines += [f"{a},{b},{c},{int((a > 0) != wrong)},{int(b > 0) if late else ''}" for a, b, c in x]
    (days / f"{stranger.name(day)}.csv").write_text("\n".join(lines))


def test_several_labels_are_published_together(made):
    deployment, days = made(config=TWO)
    two_labels(days, 1, late=False)
    (record,) = run(deployment)
    assert record.state == "done"
    link = deployment.publication("main").link
    assert sorted(p.name for p in link.glob("*.skops")) == ["y-model.skops"]
    two_labels(days, 2)
    (record,) = run(deployment)
    assert (record.state, record.published, record.offered) == ("done", True, 120)
    assert record.reason.startswith("y: ")
    assert "; late_y: " in record.reason
    assert {"y.score_mean", "y.gate_score", "late_y.gate_score"} <= set(record.figures)
    assert sorted(p.name for p in link.glob("*.skops")) == ["late_y-model.skops", "y-model.skops"]
    memories = {name: task.memory for name, task in deployment.state("main").tasks.items()}
    assert {name: len(memory) for name, memory in memories.items()} == {"y": 60, "late_y": 60}
    assert "late_y" not in memories["y"].samples
    assert "y" not in memories["late_y"].samples
    manifest = json.loads((link / "manifest.json").read_text())
    assert [task["label"] for task in manifest["facts"]["tasks"]] == ["y", "late_y"]


def test_of_several_labels_a_day_counts_for_all_or_none(made):
    deployment, days = made(config=TWO)
    two_labels(days, 1)
    run(deployment)
    before = {p.name: p.read_bytes() for p in deployment.folder.rglob("*.npy")}
    text = "\n".join(["f0,f1,f2,y,late_y", *["1,2,3,1,1e400"] * 9])  # no label of the second
    (days / f"{stranger.name(2)}.csv").write_text(text)
    (record,) = run(deployment)
    assert record.state == "failed"
    assert {p.name: p.read_bytes() for p in deployment.folder.rglob("*.npy")} == before


@pytest.mark.parametrize("rollback_after", [0, 1])
def test_no_way_back_to_a_version_without_the_model_of_a_label(made, rollback_after):
    deployment, days = made(config=TWO + f"rollback_after = {rollback_after}\n")
    two_labels(days, 1, late=False)
    two_labels(days, 2)
    run(deployment)
    with pytest.raises(ModelError, match="'2026-01-01' has no model of late_y, and '2026-01-02'"):
        deployment.rollback("main")
    assert deployment.serving("main") == stranger.name(2)
    two_labels(days, 3)
    warnings = []
    (record,) = run(deployment, warn=warnings.append)
    assert record.state == "done"
    assert ["no model of late_y" in text for text in warnings] == [True] * rollback_after
    assert deployment.rollback("main")[0].name == stranger.name(2)


def test_what_of_several_labels_can_be_scored_leads_back(made):
    config = TWO.replace('"every"', '{ kind = "every", units = 3 }').replace("= 60", "= 120")
    deployment, days = made(config=config + "rollback_after = 1\n")
    for day in range(1, 6):
        two_labels(days, day, late=day != 5, wrong=day == 4)
    record = run(deployment)[-1]
    assert "late_y.score_before" not in record.figures
    assert record.rolled_back == stranger.name(1)


class Killed(BaseException):
    """As if the process had gone."""


def test_a_day_that_led_back_does_so_though_the_job_was_killed(made, monkeypatch):
    config = stranger.CONFIG.replace('"every"', '{ kind = "every", units = 3 }')
    deployment, days = made(config=config.replace("= 60", "= 120") + "rollback_after = 1\n")
    for day in range(1, 6):
        labelled(days, day, wrong=day == 4)
    switch = Publication.switch

    def stop(self, action, *arguments, **others):
        if action == "rollback":
            raise Killed
        switch(self, action, *arguments, **others)

    with monkeypatch.context() as patched:
        patched.setattr(Publication, "switch", stop)
        with pytest.raises(Killed):
            run(deployment)
    assert deployment.serving("main") == stranger.name(4)
    assert run(deployment) == []
    last = deployment.publication("main").history()[-1]
    assert (last.action, last.version, last.day) == ("rollback", stranger.name(1), stranger.name(5))


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_day_that_counts_serves_though_the_job_was_killed(made, monkeypatch, by_hand):
    deployment, days = made()
    for day in (1, 2):
        labelled(days, day)
    run(deployment)
    labelled(days, 3)

    def stop(*arguments, **others):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Publication, "switch", stop)
        with pytest.raises(Killed):
            run(deployment)
    assert states(deployment)["03"] == "done"
    assert deployment.serving("main") == stranger.name(2)
    if by_hand:
        assert deployment.rollback("main")[0].name == stranger.name(2)
        words = ["publish"] * 3 + ["rollback"]
    else:
        assert run(deployment) == []
        words = ["publish"] * 3
    assert deployment.serving("main") == stranger.name(2 if by_hand else 3)
    assert [switch.action for switch in deployment.publication("main").history()] == words


def test_a_deployment_of_before_there_were_tasks(made):
    """Its folder says how what serves came to be, and how labels are, in other words."""
    from memento import snapshot

    deployment, days = made()
    for day in (1, 2):
        labelled(days, day)
    run(deployment)
    folder = deployment.folder / "variants" / "main"
    found = snapshot.read(folder, "memento-deployment-variant")
    state = dict(found.documents["state"])
    state |= {"numbers": state["numbers"]["y"], "serving": stranger.name(2), "rollbacks": []}
    state["versions"] = [stranger.name(1), stranger.name(2)]
    for record in state["days"]:
        del record["rolled_back"]
    documents = {**found.documents, "state": state}
    snapshot.write(folder, "memento-deployment-variant", found.arrays, documents)
    path = deployment.folder / "deployment.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **document.pop("settings")}))
    deployment = Deployment(deployment.folder)
    labelled(days, 3)
    (record,) = run(deployment)
    assert (record.state, record.served) == ("done", stranger.name(2))
