"""The page of experiments: what it declares, and that each kind of body does its work."""

from __future__ import annotations

import dataclasses
import fnmatch
import inspect
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from memento.errors import SettingError, StorageError
from memento.runner.job import load_body
from memento.runner.registry import Registry
from memento.runner.settings import Overrides
from memento.runner.spec import Run
from memento_puffer.data.features import Features
from memento_puffer.studies import day_bodies
from memento_puffer.studies import experiments as page
from memento_puffer.studies.contents import arms_of
from memento_puffer.studies.experiments import (
    CONTENTS,
    LARGE,
    PAPER,
    REDUCED,
    STUDIES,
    Period,
    declared,
    experiments,
)
from memento_puffer.studies.replay_settings import TRIGGERS, arm, fixed

FAST = {"epochs": 2, "scratch_epochs": 3, "held_out": 0.0, "patience": None}
SMALL = {"capacity": 128, "interval": 2, "batch_size": 16, "training": FAST}
GROUPS = ("download", "preprocess", "analysis", "replay", "deployment")


@pytest.fixture(scope="module")
def declarations():
    return {one.key: one for one in experiments()}


class Places:
    """Results on disk, as the runner lays them out for a body."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, key: str, body: str, needs: tuple[str, ...] = (), **parameters: object) -> Path:
        folder, checkpoint = self.root / key / "output", self.root / key / "checkpoint"
        for place in (folder, checkpoint):
            place.mkdir(parents=True, exist_ok=True)
        found = {need: self.root / need / "output" for need in needs}
        getattr(page, body)(Run(folder, checkpoint, found), **parameters)
        return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A period of four simulated days with a handful of viewers, its static model, two replays."""
    found = Places(tmp_path_factory.mktemp("results"))
    found.run(
        "puffer-preprocess/sim-1", "simulate_period",
        first="2024-01-01", days=5, viewers=4, shifts=[["halved_capacity", 2]], seed=1,
    )  # fmt: skip
    found.run(
        "puffer-preprocess/sim-1-static", "train_static", ("puffer-preprocess/sim-1",),
        horizons=2, training=FAST,
    )  # fmt: skip
    for name in ("memento", "daily"):
        found.run(
            f"puffer-replay/sim-1+{name}", "replay", PERIOD,
            **{**SMALL, "arm": name, "members": 2, "densities": [8], **fixed(name)},
        )  # fmt: skip
    return found


PERIOD = ("puffer-preprocess/sim-1", "puffer-preprocess/sim-1-static")


def rows(path: Path) -> dict[str, np.ndarray]:
    table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    return {name: table[name].to_numpy() for name in table.columns}


# ------------------------------------------------------------------------------ declarations


@pytest.mark.parametrize("scale", [REDUCED, LARGE, PAPER], ids=["reduced", "large", "paper"])
def test_needs_exist_and_names_are_unique(scale, declarations):
    found = list(declared(scale))
    keys = {one.key for one in found}
    assert len(keys) == len(found)
    known = keys | set(declarations)
    for one in found:
        for need in one.needs:
            key = need if "/" in need else f"{one.group}/{need}"
            assert key in known or fnmatch.filter(known, key), f"{one.key} needs {need}"


def test_all_groups_are_there(declarations):
    groups = {one.group for one in declarations.values()}
    assert groups == {*(f"puffer-{name}" for name in GROUPS), "demo"}


def test_both_scales_can_be_declared_side_by_side(declarations):
    paper = {one.key: one for one in declared(PAPER)}
    for key in set(paper) & set(
        declarations
    ):  # real days: the same, so that a page may declare both
        given = declarations[key]
        body = given.body if given.body.rpartition(":")[0] else f"{page.__name__}{given.body}"
        assert paper[key].document() == dataclasses.replace(given, body=body).document()
        assert not key.startswith("puffer-replay/")
    assert all(f"puffer-replay/paper-{name}" in paper for name in (*CONTENTS, *STUDIES) if name
               != "figure-selection")  # fmt: skip


def test_another_page_declares_a_scale_and_its_bodies_are_found(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        f"from {page.__name__} import PAPER, declared\nexperiments = lambda: declared(PAPER)\n"
    )
    known = Registry([mine])
    made = known.select("puffer-replay", ["paper-table-jtt", "2022-01+memento"])
    assert [one.name for one in made]
    for one in [*made, *known.select("puffer-preprocess", ["2022-01-*"])]:
        assert callable(load_body(one.body)), one.body


@pytest.mark.parametrize("scale", [REDUCED, LARGE, PAPER], ids=["reduced", "large", "paper"])
def test_bodies_take_exactly_what_is_declared(scale, declarations):
    for one in [*declarations.values(), *declared(scale)]:
        module, _, name = one.body.rpartition(":")
        assert module in ("", page.__name__)
        body = getattr(page, name)
        inspect.signature(body).bind(object(), **one.parameters)
        assert one.description


@pytest.mark.parametrize("scale", [REDUCED, LARGE, PAPER], ids=["reduced", "large", "paper"])
def test_every_arm_makes_settings(scale):
    for name, changes in arms_of(scale).items():
        given = {"capacity": scale.capacity, "interval": scale.interval, **changes}
        kind = given.pop("arm")
        fields = {n: given.pop(n) for n in ("temperature", "bandwidth") if n in given}
        size = given.pop("batch_size", scale.batch_size)
        made = arm(kind, given, batch_size=size, **fields)
        for field, value in fields.items():
            assert getattr(made.policy, field) == value, name


def test_contents_name_arms_that_exist():
    known = arms_of(REDUCED)
    for name, part in CONTENTS.items():
        assert re.fullmatch(r"(table|figure)-[a-z-]+", name)
        assert set(part.arms) <= set(known), name
        assert len(set(part.arms)) == len(part.arms)
    assert not set(CONTENTS) & set(STUDIES)


def test_sweeps_are_those_of_the_paper():
    """Values from the published tables; the default (T 0.01, h 0.1, b) is the arm itself."""

    def values(name, pattern):
        found = [re.fullmatch(pattern, a) for a in CONTENTS[name].arms]
        return [float(m[1]) for m in found if m]

    assert values("table-temperature", r"memento-T=(.*)") == [
        1e-5, 1e-4, 1e-3, 5e-3, 0.05, 0.1, 1, 10, 100,
    ]  # fmt: skip
    assert values("table-bandwidth", r"memento-h=(.*)") == [
        0.001, 0.01, 0.05, 0.08, 0.125, 0.2, 0.5, 1, 10,
    ]  # fmt: skip
    assert values("table-jtt", r"forgetting-jtt=(.*)") == [2, 3, 5, 10, 20, 50, 100]
    assert values("table-other-metrics", r"loss-T=(.*)") == [
        1e-4, 1e-3, 0.01, 0.1, 1, 10, 100, 1000,
    ]  # fmt: skip
    for metric in ("confidence", "labels", "stalled"):
        assert values("table-other-metrics", rf"{metric}-T=(.*)") == [1e-4, 1e-3, 0.01, 0.1, 1, 10]
    for rule in ("coverage", "calibrated", "loss"):
        assert values("table-decisions", rf"memento-{rule}=(.*)") == [0.05, 0.1, 0.2]
    for scale in (REDUCED, PAPER):  # of each period, some are due and some are not
        periods = values("table-decisions", r"memento-period=(.*)")
        assert periods == [2, 7]
        assert all(days < min(p.days for p in scale.periods) - 1 for days in periods)
    for days in (2, 7):
        made = arms_of(REDUCED)[f"memento-period={days}"]
        assert (made["trigger"], made["threshold"], made["interval"]) == ("period", days, 1)
    used = {made.get("trigger", "always") for made in arms_of(REDUCED).values()}
    assert used == set(TRIGGERS)
    assert PAPER.batches == (128, 256, 512, 1024, 2048)
    assert (PAPER.capacity, PAPER.batch_size, PAPER.interval, PAPER.freeze_after) == (
        10**6,
        256,
        7,
        21,
    )
    assert [p.days for p in PAPER.periods] == [181, 184, 151]
    frozen = {one.name: one for one in declared(PAPER)}["paper-figure-freeze"]
    assert frozen.needs == ("2022+memento-frozen",)


def test_every_published_day_is_there_and_runs_when_asked_for():
    known = Registry()
    for group in ("puffer-analysis", "puffer-download", "puffer-preprocess"):
        assert len(known.select(group, ["2022-07-*"])) == 31
        assert {"2020-04-09", "2023-08-28"} <= set(known.group(group))
        days = [one.name for one in known.select(group) if re.match(r"\d", one.name)]
        assert days == ["2021-10-17", "2022-02-18"]
    with pytest.raises(SettingError, match=r"matches '2022-13-\*'; there are, for instance, 202"):
        known.select("puffer-analysis", ["2022-13-*"])
    assert known.select("puffer-download", ["fugu-feb"])[0].parameters["day"] == "2019-02-02"


def test_a_day_is_simulated_under_its_own_name(tmp_path):
    """Download, features and analysis of a published day's name, as of the real one."""
    found = Places(tmp_path)
    day = "2022-07-01"
    found.run(f"puffer-download/{day}", "download_day", day=day, viewers=12)
    features = found.run(
        f"puffer-preprocess/{day}", "preprocess_day", (f"puffer-download/{day}",), day=day
    )
    analysed = found.run(f"puffer-analysis/{day}", "analyse", (f"puffer-download/{day}",))
    assert Features.read(features / day).size > 100
    assert len(rows(analysed / "schemes.csv")["scheme"]) >= 3
    assert not (analysed / "missing.csv").exists()
    counted = found.run(
        "puffer-replay/table-video", "count_video", (f"puffer-preprocess/{day}",),
        periods={"july": [day, "2022-07-02"], "august": []},
    )  # fmt: skip
    table = rows(counted / "periods.csv")
    chunks = Features.read(features / day).size
    assert table["period"].tolist() == ["july", "august", "all"]
    assert table["chunks"].tolist() == [chunks, 0, chunks]
    np.testing.assert_allclose(table["stream_years"][0], chunks * 2.002 / 31_556_952)
    assert float(table["p50"][0]) == table["stream_years"][0]


def test_a_day_that_is_empty_is_an_outcome_with_its_reason(tmp_path):
    found = Places(tmp_path)
    (tmp_path / "puffer-download/2021-01-01/output").mkdir(parents=True)
    analysed = found.run("puffer-analysis/2021-01-01", "analyse", ("puffer-download/2021-01-01",))
    table = rows(analysed / "missing.csv")
    assert table["day"].tolist() == ["2021-01-01"]
    assert "the download" in table["reason"][0]
    assert not (analysed / "schemes.csv").exists()


def test_the_static_model_of_real_days_is_a_folder_or_an_archive(tmp_path):
    (given := tmp_path / "given").mkdir()
    for horizon in range(2):
        (given / f"py-{horizon}.pt").write_bytes(b"model")
    made = Places(tmp_path / "results").run(
        "puffer-download/fugu-feb", "download_model", day="2019-02-02", folder=str(given)
    )
    assert sorted(path.name for path in made.iterdir()) == ["py-0.pt", "py-1.pt"]
    with pytest.raises(StorageError, match=r"holds no py-0\.pt"):
        Places(tmp_path / "other").run(
            "puffer-download/fugu-feb", "download_model", day="2019-02-02", folder=str(tmp_path)
        )


def overridden(pattern, **values):
    """The reduced set with the user's values, and what these do not reach."""
    declared_ones = {one.key: one for one in Registry().group("puffer-replay").values()}
    overrides = Overrides(((f"puffer-replay/{pattern}", values),), source="run.toml")
    found = overrides.apply(declared_ones)
    return found, overrides.unreached(
        found, [k for k in found if k.endswith(("1+memento", "1+forgetting"))]
    )


def test_every_keyword_of_a_replay_can_be_set():
    found, notes = overridden("sim-1+*", seed=3, temperature=0.5)
    key = "puffer-replay/sim-1+memento"
    assert dict(found[key].parameters)["temperature"] == 0.5
    assert dict(found[key].parameters)["seed"] == 3
    # Random memories have no temperature: said, since nothing would change.
    assert notes == [
        'run.toml: parameters."puffer-replay/sim-1+*".temperature changes nothing for '
        "puffer-replay/sim-1+forgetting"
    ]


@pytest.mark.parametrize(
    ("pattern", "values", "words"),
    [
        (
            "sim-1+memento",
            {"capacity": -1},
            "sim-1+memento: capacity is -1; expected",
        ),
        ("sim-1+memento", {"interval": -5}, "interval is -5; expected a whole number above 0"),
        ("sim-1+memento", {"training": {"epochs": -5}}, "epochs"),
        ("sim-1+memento", {"temperature": "hot"}, "temperature is 'hot'; expected a number"),
        ("sim-1+memento", {"temperature": -1.0}, "temperature"),
        ("sim-1+daily", {"interval": 3}, "'daily' has interval = 1, not 3"),
        ("sim-1+daily", {"jtt": 10.0}, "'daily' has jtt = 1.0, not 10.0"),
        ("sim-1+figure-selection", {"samples": 0}, "samples is 0; expected a whole number above 0"),
        ("sim-1+memento", {"colour": 1}, "no parameter 'colour'; there are arm, bandwidth, base"),
    ],
)
def test_values_out_of_range_are_refused_before_anything_is_run(pattern, values, words):
    with pytest.raises(SettingError, match=re.escape(words)):
        overridden(pattern, **values)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("puffer-preprocess/sim-1", {"days": 0}),
        ("puffer-preprocess/sim-1", {"first": "soon"}),
        ("puffer-preprocess/sim-1", {"shifts": [["holds", 1]]}),
        ("puffer-preprocess/sim-1-static", {"horizons": 6}),
        ("puffer-analysis/simulated", {"viewers": 0}),
        ("puffer-download/2022-07-01", {"viewers": -1}),
        ("puffer-download/2022-07-01", {"day": "2018-01-01"}),
        ("puffer-deployment/sim-1", {"capacity": -1}),
        ("puffer-deployment/sim-1", {"days": 0}),
        ("demo/week", {"capacity": 0}),
        ("demo/week", {"days": 1}),
    ],
)
def test_other_bodies_check_their_values_too(key, values, declarations):
    one = {key: Registry().group(key.partition("/")[0])[key.partition("/")[2]]}
    with pytest.raises(SettingError, match=re.escape(f"run.toml: parameters of {key}: ")):
        Overrides(((key, values),), source="run.toml").apply(one)


def test_what_is_declared_passes_its_checks(declarations):
    for one in [*declarations.values(), *declared(LARGE), *declared(PAPER)]:
        body = getattr(page, one.body.rpartition(":")[2])
        if hasattr(body, "check"):
            bound = inspect.signature(body).bind(None, **one.document()["parameters"])
            bound.apply_defaults()
            list(body.check(**dict(list(bound.arguments.items())[1:])) or ())


def test_the_record_is_looked_for_among_the_data(declarations, monkeypatch, tmp_path):
    one = declarations["puffer-deployment/record"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEMENTO_DATA", raising=False)
    assert one.optional
    assert 'name it: [parameters."puffer-deployment/record"] record = "PATH"' in one.absent()
    (tmp_path / "shared/data").mkdir(parents=True)
    (tmp_path / "shared/data/puffer-deployment.csv").write_text(
        "variant,horizon,day,retrained,coverage_increase,total_coverage_increase,total_coverage\n"
        "default,0,2022-09-19,True,0.5,,\n"
    )
    monkeypatch.setenv("MEMENTO_DATA", str(tmp_path / "shared"))
    assert not one.absent()
    folder = Places(tmp_path).run("puffer-deployment/record", "published_record", **one.parameters)
    assert rows(folder / "days.parquet")["variant"].tolist() == ["default"]


def test_batch_sizes_are_those_of_the_scale():
    for scale in (REDUCED, LARGE, PAPER):
        used = {
            changes.get("batch_size", scale.batch_size)
            for name, changes in arms_of(scale).items()
            if name in CONTENTS["table-batch-size"].arms
        }
        assert used == set(scale.batches)


# ----------------------------------------------------------------------------------------- bodies


def test_simulated_days_are_stored_with_who_stalled(places):
    folder = places.root / PERIOD[0] / "output"
    names = Period("", "2024-01-01", 5).dates
    assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        features = Features.read(folder / name)
        assert features.size > 100
        assert features.streams["stalled"].dtype == pl.Boolean
    stalled = sum(int(Features.read(folder / n).streams["stalled"].sum()) for n in names)
    assert stalled < sum(len(Features.read(folder / n).streams) for n in names)


def test_simulation_goes_on_after_its_last_day(places, tmp_path, monkeypatch):
    folder, checkpoint = tmp_path / "out", tmp_path / "checkpoint"
    folder.mkdir()
    original, made = day_bodies.features_of_simulated, []

    def stopping(simulation, number, viewers):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(number)
        return original(simulation, number, viewers)

    given = {"first": "2024-01-01", "days": 3, "viewers": 2, "shifts": [], "seed": 4}
    monkeypatch.setattr(day_bodies, "features_of_simulated", stopping)
    with pytest.raises(KeyboardInterrupt):
        page.simulate_period(Run(folder, checkpoint), **given)
    made.clear()
    page.simulate_period(Run(folder, checkpoint), **given)
    assert made == [2]
    assert len(list(folder.iterdir())) == 3


def test_static_model_is_of_the_first_day_which_is_not_replayed(places):
    steps = rows(places.root / "puffer-replay/sim-1+memento/output/steps.parquet")
    assert steps["name"].tolist() == ["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"]
    network = day_bodies.static_network(places.root / PERIOD[1] / "output", 1)
    assert network.inputs == 62
    scores = rows(places.root / "puffer-replay/sim-1+memento/output/scores.parquet")
    assert set(scores["predictor"]) == {"own", "static", "oracle", "matched"}


def test_compare_puts_replays_side_by_side(places):
    needs = ("puffer-replay/sim-1+memento", "puffer-replay/sim-1+daily")
    folder = places.run(
        "puffer-replay/table-test", "compare", needs,
        periods=["sim-1"], arms=["memento", "daily"], against=["daily", "static"],
    )  # fmt: skip
    found = rows(folder / "improvement.csv")
    assert set(found["period"]) == {"sim-1", "all"}
    chosen = (found["period"] == "all") & (found["against"] == "daily")
    chosen &= (found["arm"] == "memento") & (found["predictor"] == "own")
    scores = {
        name: rows(places.root / f"puffer-replay/sim-1+{name}/output/scores.parquet")
        for name in ("memento", "daily")
    }

    def tails(name):
        s = scores[name]
        keep = (s["predictor"] == "own") & (s["variable"] == "logscore") & (s["metric"] == "q0.01")
        return dict(zip(s["day"][keep], s["value"][keep], strict=True))

    mine, theirs = tails("memento"), tails("daily")
    common = sorted(set(mine) & set(theirs))
    assert found["days"][chosen].tolist() == [len(common)] == [2]
    gains = [mine[d] - theirs[d] for d in common]
    assert found["tail"][chosen][0] == pytest.approx(np.mean(gains))
    decisions = rows(folder / "decisions.parquet")
    assert decisions["trained"][decisions["arm"] == "daily"].all()
    assert rows(folder / "levels.parquet")["value"].size
    assert rows(folder / "insert.parquet")["mean"].min() > 0
    folder = places.run(
        "puffer-replay/figure-test", "gather_densities", needs[:1],
        periods=["sim-1"], arm="memento",
    )  # fmt: skip
    assert set(rows(folder / "densities.parquet")["of"]) == {"memory", "day"}


def test_selection_study(places):
    folder = places.run(
        "puffer-replay/sim-1+figure-selection", "study_selection", PERIOD,
        samples=400, capacity=128, batch_size=16, training=FAST,
    )  # fmt: skip
    found = rows(folder / "selection.parquet")
    assert set(found["policy"]) == {
        "memento",
        "memento-T0",
        "density-reservoir",
        "loss",
        "forgetting",
    }
    assert found["batch"].max() + 1 == 400 // 16


@pytest.mark.slow
def test_analysis_of_simulated_days(places):
    folder = places.run(
        "puffer-analysis/simulated", "analyse_simulated",
        first="2024-01-01", days=1, viewers=8, seed=1,
    )  # fmt: skip
    found = set(rows(folder / "schemes.csv")["scheme"])
    assert found
    assert found <= {"linear_bba", "mpc", "robust_mpc", "bola_basic_v1"}
    assert rows(folder / "streams.parquet")["watch"].size
    assert (folder / "calibration.csv").stat().st_size > 100


@pytest.mark.slow
def test_deployment_over_simulated_days(places):
    pytest.importorskip("torch")
    folder = places.run(
        "puffer-deployment/sim-1", "deploy", PERIOD[:1],
        capacity=128, batch_size=16, days=2, training=FAST,
    )  # fmt: skip
    found = rows(folder / "days.parquet")
    assert set(found["variant"]) == {"default", "deterministic", "density-reservoir"}
    assert len(found["day"]) == 2 * 3 * 5


def test_the_published_record(places, data_folder):
    folder = places.run(
        "puffer-deployment/record", "published_record",
        record=str(data_folder / "puffer-deployment.csv"),
    )  # fmt: skip
    found = rows(folder / "days.parquet")
    since = found["day"] >= np.datetime64("2022-09-19")
    chosen = since & (found["horizon"] == 0) & found["retrained"]
    assert (chosen & (found["variant"] == "default")).sum() == 7  # specified: 7 and 14
    assert (chosen & (found["variant"] != "default")).sum() == 14


def test_a_real_day_becomes_features_and_its_model(places, tmp_path):
    """A downloaded day, here simulated in the release's files, and one known to be missing."""
    from memento_puffer.data.release import write_simulated_day

    source = places.root / "puffer-download/2021-10-17/output"
    write_simulated_day(
        source / "2021-10-17", "2021-10-17", day_bodies.simulation_of((), 5), 0, sessions=4
    )
    (source / "models/2021-10-17").mkdir(parents=True)
    (source / "models/2021-10-17/py-0.pt").write_bytes(b"a model")
    need = ("puffer-download/2021-10-17",)
    folder = places.run("puffer-preprocess/2021-10-17", "preprocess_day", need, day="2021-10-17")
    assert Features.read(folder / "2021-10-17").streams["stalled"].dtype == pl.Boolean
    assert (folder / "models/2021-10-17/py-0.pt").read_bytes() == b"a model"
    (places.root / "puffer-download/2022-02-01/output").mkdir(parents=True)
    need = ("puffer-download/2022-02-01",)
    folder = places.run("puffer-preprocess/2022-02-01", "preprocess_day", need, day="2022-02-01")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("state", ["done", "late"])
def test_a_download_counts_when_it_is_whole(state, tmp_path, monkeypatch):
    """What arrived stays in the checkpoint until all did."""
    from memento_puffer.data import download as module

    def fetch(days, folder, *, kinds, progress):
        (folder / days).mkdir(exist_ok=True)
        (folder / days / "video_sent.csv").write_text("rows")
        progress(4, None, "video_sent")
        records = (module.Record(days, "ssim", "late", 0, 0.0, "not yet", False, False, ""),)
        return module.Download(folder, records if state == "late" else ())

    monkeypatch.setattr(module, "download", fetch)
    folder = tmp_path / "out"
    folder.mkdir()
    run = Run(folder, tmp_path / "checkpoint")
    if state == "done":
        page.download_day(run, day="2021-10-17")
        assert (folder / "2021-10-17" / "video_sent.csv").read_text() == "rows"
        return
    with pytest.raises(StorageError, match="ssim is late"):
        page.download_day(run, day="2021-10-17")
    assert not list(folder.iterdir())
    assert (tmp_path / "checkpoint/days/2021-10-17/video_sent.csv").exists()


@pytest.mark.slow
def test_the_demo(places):
    folder = places.run("demo/week", "demo", days=3, viewers=5, judges=4, capacity=300, seed=3)
    arms = {"static", "random", "memento", "density-reservoir"}
    assert set(rows(folder / "scores.csv")["arm"]) == arms
    assert set(rows(folder / "control.csv")["scheme"]) <= arms
    assert rows(folder / "streams.parquet")["watch"].size


def test_what_is_wrong_is_said(places, tmp_path):
    run = Run(tmp_path, tmp_path / "checkpoint")
    with pytest.raises(SettingError, match="shift"):
        page.simulate_period(
            run, first="2024-01-01", days=1, viewers=1, shifts=[["holds", 1]], seed=0
        )
    with pytest.raises(StorageError, match="no stored days"):
        page.train_static(run, horizons=1, training=FAST)
