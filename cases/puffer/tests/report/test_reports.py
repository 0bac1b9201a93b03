"""Reports of each kind of folder: every table and figure has its section, from real results."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import published_tree
import pytest
import small_results as small

from read_reports import everything_is_drawn, listing

pytest.importorskip("matplotlib")
pytest.importorskip("polars")

from memento.errors import DamagedError, ForeignError, StorageError
from memento.files import digest
from memento.report import folders
from memento.report.experiments import of_results
from memento_puffer.report.deployments import deployment_section, of_deployment
from memento_puffer.report.published import published
from memento_puffer.report.replays import SECTIONS, of_replay, replay_section
from memento_puffer.report.viewers import of_analysis, of_demo
from memento_puffer.studies.experiments import CONTENTS, STUDIES


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return small.prepared(tmp_path_factory)


# ------------------------------------------------------- tables in the exact form of `memento run`


def improvement(topic):
    """Of all arms of a table, the paper's order with a slope of its own."""
    contents = CONTENTS[topic]
    rows = []
    for against in contents.against:
        theirs = published(topic, against=against) if topic in published.topics() else None
        for arm in dict.fromkeys((*contents.arms, *(a for a in contents.against if a == "daily"))):
            for predictor in (
                ("own", "oracle") if arm.partition("-jtt")[0] in ENSEMBLES else ("own",)
            ):
                row = {"period": "all", "against": against, "arm": arm, "predictor": predictor,
                       "days": 36}  # fmt: skip
                for score in ("tail", "median", "mean"):
                    known = math.nan
                    if theirs is not None:
                        at = (theirs["subject"] == arm) & (theirs["part"] == predictor)
                        at &= theirs["quantity"] == score
                        known = float(theirs["value"][at][0]) if at.any() else math.nan
                    row[score] = 2 * known + 1 if known == known else 0.0
                    row[f"{score}_error"] = 0.01
                rows.append(row)
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


ENSEMBLES = ("memento", "forgetting", "density-reservoir", "committee")


def levels(topic):
    rows = [
        ("sim-1", arm, predictor, f"2024-01-{day:02d}", metric, -float(day))
        for arm in (*CONTENTS[topic].arms, "daily")
        for predictor in ("own", "static", "oracle")
        for day in (1, 2, 3)
        for metric in ("q0.001", "q0.01", "q0.1", "q0.5", "mean")
    ]
    names = ("period", "arm", "predictor", "day", "metric", "value")
    return {n: np.array([row[i] for row in rows]) for i, n in enumerate(names)}


def decisions(topic):
    rows = [
        ("sim-1", arm, f"2024-01-{day:02d}", day % 2 == 0, 0.1, 0.1, 0.5, 0.1, 0.1)
        for arm in (*CONTENTS[topic].arms, "daily")
        for day in range(1, 7)
    ]
    names = ("period", "arm", "day", "trained", "value", "threshold", "p_value")
    names += ("coverage_plain", "coverage_calibrated")
    return {n: np.array([row[i] for row in rows]) for i, n in enumerate(names)}


def insert(topic):
    arms = [*CONTENTS[topic].arms, "daily"]
    n = len(arms)
    return {"period": np.array(["sim-1"] * n), "arm": np.array(arms), "days": np.full(n, 14),
            "mean": np.full(n, 0.5), "std": np.full(n, 0.1)}  # fmt: skip


def tables(topic):
    return {
        "improvement": improvement(topic),
        "levels": levels(topic),
        "decisions": decisions(topic),
        "insert": insert(topic),
    }


def test_every_table_and_figure_has_a_section():
    assert set(SECTIONS) == {*CONTENTS, *STUDIES}


def test_how_much_video_was_replayed():
    periods = {"period": np.array(["sim-1", "all"]), "stream_years": np.array([0.25, 0.25])}
    section = replay_section("table-video", {"periods": periods}, "large-")
    assert section.title == "How much video was replayed (large)"
    assert listing(section, "large-table-video") == periods


@pytest.mark.parametrize("topic", CONTENTS)
def test_each_section_is_drawn(topic, tmp_path):
    section = replay_section(topic, tables(topic))
    assert section.name == topic
    assert len(section.parts[0]) > 50
    assert section.charts
    for chart in section.charts:
        assert chart.save(tmp_path).stat().st_size > 5000
    against = CONTENTS[topic].against
    for reference in against:
        found = listing(section, f"{topic}-{reference}")
        arms = {arm for arm in CONTENTS[topic].arms if arm != reference}
        assert arms <= set(found["arm"].tolist())
        theirs = published(topic, against=reference) if topic in published.topics() else {}
        if topic != "table-repeatability" and len(theirs.get("value", ())):
            assert (
                np.isfinite(found["paper tail"]).sum() * 2
                == np.isin(theirs["quantity"], ("tail", "median")).sum()
            )


@pytest.mark.parametrize(
    "topic", ["table-batch-size", "table-bandwidth", "table-temperature", "table-other-metrics",
              "table-jtt", "table-decisions", "table-baselines"]
)  # fmt: skip
def test_the_papers_own_order_is_found(topic):
    order = listing(replay_section(topic, {"improvement": improvement(topic)}), f"{topic}-ordering")
    assert len(order["score"]) >= 2
    assert (order["correlation"] == 1.0).all()
    assert order["best_agrees"].all()
    assert not order["reversed"].any()


def test_extra_tables():
    section = replay_section("table-decisions", tables("table-decisions"))
    found = listing(section, "table-decisions-trainings")
    assert found["trainings"].tolist() == [3] * len(found["arm"])
    section = replay_section("table-batch-size", tables("table-batch-size"))
    assert listing(section, "table-batch-size-insert")["paper mean"].tolist() == [
        199, 57.2, 27.6, 18.7, 16,
    ]  # fmt: skip
    section = replay_section("figure-loss-over-time", tables("figure-loss-over-time"))
    labels = set(section.charts[0].table["label"].tolist())
    assert {"memento", "memento, oracle", "committee, oracle", "static", "daily"} <= labels
    assert "forgetting, oracle" not in labels


# --------------------------------------------------------------------------------- real results


@pytest.mark.slow
def test_real_results(made, tmp_path):
    report = of_results(made / "results")
    names = [section.name for section in report.sections]
    assert names[0] == "ordering"
    assert set(names) >= {f"tiny-{topic}" for topic in small.TABLES}
    assert set(names) >= {"figure-selection", "analysis-tiny", "demo", "experiments"}
    assert "deployment-record" in names
    assert set(report.missing) == {
        f"tiny-{topic}"
        for topic in (*CONTENTS, "figure-freeze", "table-video")
        if topic not in small.TABLES
    }
    assert "memento run puffer-replay tiny-table-jtt" in report.missing["tiny-table-jtt"]
    opened = listing(report.section("experiments"), "open")
    assert opened["experiment"] == ["puffer-replay/tiny-broken"]
    assert "broken on purpose" in opened["what to do"][0]
    counts = listing(report.section("experiments"), "experiments")
    assert counts["failed"][counts["group"].index("puffer-replay")] == 1
    everything_is_drawn(report, tmp_path)


@pytest.mark.slow
def test_results_from_before_arms_were_renamed_are_read(made, tmp_path):
    """A random memory that forgets was called random in tables of version 1."""
    place = shutil.copytree(made / "results", tmp_path / "results") / "puffer-replay"
    for path in [*place.glob("tiny-table-*"), *place.glob("tiny+figure-selection")]:
        asked = json.loads((path / "experiment.json").read_text())
        asked["version"] = 1
        if "arms" in asked["parameters"]:
            asked["parameters"]["arms"] = [former_arm(a) for a in asked["parameters"]["arms"]]
        (path / "experiment.json").write_text(json.dumps(asked))
        for file in path.glob("output-*/improvement.csv"):
            file.write_text(file.read_text().replace("forgetting", "random"))
            result = json.loads((path / "result.json").read_text())
            facts = result["files"][file.name]
            facts |= {"bytes": file.stat().st_size, "sha256": digest(file)}
            (path / "result.json").write_text(json.dumps(result))
    for path in place.glob("tiny+forgetting*"):
        asked = json.loads((path / "experiment.json").read_text())
        asked["parameters"]["arm"] = former_arm(asked["parameters"]["arm"])
        (path / "experiment.json").write_text(json.dumps(asked))
    report = of_results(tmp_path / "results")
    found = listing(report.section("tiny-table-freeze"), "tiny-table-freeze-daily")
    assert set(found["arm"].tolist()) == {"memento", "memento-frozen", "forgetting-frozen"}


def former_arm(arm: str) -> str:
    return arm.replace("forgetting", "random")


@pytest.mark.slow
def test_numbers_are_those_of_the_result_tables(made):
    from memento.runner.results import tables as tables_of

    report = of_results(made / "results")
    found = listing(report.section("tiny-table-batch-size"), "tiny-table-batch-size-daily")
    rows = tables_of(made / "results", "puffer-replay", "improvement.csv")
    for i, arm in enumerate(found["arm"].tolist()):
        at = (rows["experiment"] == "tiny-table-batch-size") & (rows["period"] == "all")
        at &= (rows["against"] == "daily") & (rows["arm"] == arm)
        at &= rows["predictor"] == found["predictor"][i]
        assert found["tail"][i] == rows["tail"][at][0]
        assert found["median_error"][i] == rows["median_error"][at][0]
    study = report.section("figure-selection").charts[0].table
    assert set(study["policy"]) >= {"memento", "loss", "forgetting"}
    assert ((study["kept"] >= 0) & (study["kept"] <= 1)).all()


@pytest.mark.slow
def test_one_replay(made, tmp_path):
    report = of_replay(made / "replayed")
    assert [section.name for section in report.sections] == [
        "replay", "figure-loss-over-time", "table-decisions",
    ]  # fmt: skip
    found = listing(report.section("replay"), "replay-daily")
    assert set(found["arm"].tolist()) == {"forgetting", "fifo"}
    at = found["arm"].tolist().index("forgetting")
    assert found["paper tail"][at] == 0.014
    counts = listing(report.section("table-decisions"), "table-decisions-trainings")
    assert dict(zip(counts["arm"].tolist(), counts["trainings"].tolist(), strict=True)) == {
        "daily": 4, "fifo": 4, "forgetting": 4,
    }  # fmt: skip
    everything_is_drawn(report, tmp_path)


@pytest.mark.slow
def test_an_analysis(made, tmp_path):
    folder = small.analysis(tmp_path / "analysed", made / "results")
    report = of_analysis(folder)
    assert [section.name for section in report.sections][:2] == ["analysis", "totals"]
    theirs = listing(report.section("analysis"), "analysis-schemes")
    for scheme, paper in zip(theirs["scheme"], theirs["paper scheme"], strict=True):
        assert paper == {"mpc": "MPC-HM", "linear_bba": "BBA", "robust_mpc": "RobustMPC-HM"}.get(
            scheme, ""
        )
    totals = listing(report.section("totals"), "published-totals")
    assert totals["paper streams"][0] == 740_532
    everything_is_drawn(report, tmp_path)


def test_a_demo(tmp_path):
    report = of_demo(small.demo(tmp_path / "demo"))
    found = listing(report.section("demo"), "demo-scores")
    assert found["arm"] == ["static", "random", "memento"]
    np.testing.assert_array_equal(found["paper tail"], [math.nan, math.nan, 0.920])
    level = listing(report.section("demo"), "demo-control")
    np.testing.assert_allclose(level["stalled"], [1, 2, 3])
    assert len(listing(report.section("demo-differences"), "demo-differences")["first"]) == 4
    everything_is_drawn(report, tmp_path)


def days_of_deployment():
    rows = [
        (variant, horizon, np.datetime64("2024-01-01") + day, day in (0, 3), 1 / (day + 1), 9.0)
        for variant in ("default", "deterministic", "density-reservoir")
        for horizon in (0, 1)
        for day in range(5)
    ]
    names = ("variant", "horizon", "day", "retrained", "coverage_increase", "total_coverage")
    return {n: np.array([row[i] for row in rows]) for i, n in enumerate(names)}


def test_a_deployment(tmp_path):
    report = of_deployment(tmp_path / "state", days_of_deployment())
    found = listing(report.section("deployment"), "deployment-summary")
    assert found["retrained"].tolist() == [2] * 6
    assert found["median"].tolist() == [pytest.approx(1 / 3)] * 6
    at = found["variant"] == "deterministic"
    assert found["paper retrained"][at].tolist() == [14, 18]
    assert np.isnan(found["paper retrained"][found["variant"] == "density-reservoir"]).all()
    everything_is_drawn(report, tmp_path)
    empty = {name: column[:0] for name, column in days_of_deployment().items()}
    assert "deploy run" in of_deployment(tmp_path / "state", empty).missing["deployment"]


def test_the_published_record(data_folder, tmp_path):
    from memento_puffer.deployment.record import read_record

    section = deployment_section(
        "deployment-record", read_record(data_folder / "puffer-deployment.csv"), record=True
    )
    found = listing(section, "deployment-record-summary")
    np.testing.assert_array_equal(found["retrained"], found["paper retrained"])
    assert [one.name for one in section.listings][1:] == [
        "deployment-record-days",
        "published-totals",
        "published-differences",
        "deployment-record-densities",
        "deployment-record-content",
    ]
    found = listing(section, "deployment-record-content")
    assert len(found["paper subject"]) == 10
    assert all(name.startswith("paper ") for name in found)
    assert section.charts[0].save(tmp_path).stat().st_size > 20_000


def test_the_published_tree(tmp_path):
    for day, trained in published_tree.DAYS.items():
        published_tree.write(tmp_path / "tree", published_tree.row(day=day, retrained=trained))
    report = folders.open_report(tmp_path / "tree")
    assert report.kind == "record"
    assert "lacks the horizons 1, 2, 3, 4" in " ".join(report.text)
    section = report.section("deployment")
    found = listing(section, "deployment-days")
    assert found["days"][:2].tolist() == [7, 10]
    assert folders.kind_of(tmp_path / "tree") == "record"
    found = listing(section, "deployment-densities")
    assert [found[name].tolist() for name in ("variant", "batches", "min", "median", "max")] == [
        ["default"], [2], [0.01], [0.015], [0.02],
    ]  # fmt: skip
    assert found["paper median"].tolist() == [0.0161]
    assert folders.kind_of(tmp_path / "tree" / "default") == "record"  # one variant alone


# ------------------------------------------------------------------------------- what is wrong


def test_kinds(made_up):
    assert folders.kind_of(made_up / "demo") == "demo"


@pytest.fixture
def made_up(tmp_path):
    small.demo(tmp_path / "demo")
    return tmp_path


def test_no_folder_of_results(tmp_path):
    with pytest.raises(StorageError, match="does not exist"):
        folders.kind_of(tmp_path / "nowhere")
    with pytest.raises(ForeignError, match=r"is empty.*memento run"):
        folders.kind_of(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ForeignError, match="holds no results that are known"):
        folders.kind_of(tmp_path)
    with pytest.raises(StorageError, match="is a file"):
        folders.kind_of(tmp_path / "notes.txt")


@pytest.mark.slow
def test_damaged_results(made, tmp_path):
    root = tmp_path / "results"
    shutil.copytree(made / "results", root)
    with pytest.raises(ForeignError, match=rf"one group of experiments; give {root}"):
        folders.kind_of(root / "puffer-replay")
    with pytest.raises(ForeignError, match=rf"one experiment; give the folder of all: {root}"):
        folders.kind_of(root / "demo" / "tiny")
    path = root / "puffer-replay/tiny-table-freeze/output-1/improvement.csv"
    text = path.read_text()
    path.write_text(text.replace("memento", "momento"))
    with pytest.raises(
        DamagedError, match=r"improvement.csv differs.*run puffer-replay tiny-table-f"
    ):
        of_results(root)
    path.unlink()
    with pytest.raises(DamagedError, match=r"improvement.csv is missing.*--force"):
        of_results(root)
    path.write_text(text)
    of_results(root)
    place = root / "puffer-replay/tiny-table-freeze/result.json"
    document = json.loads(place.read_text())
    del document["files"]
    place.write_text(json.dumps(document))
    with pytest.raises(DamagedError, match=r"result.json.*damaged.*tiny-table-freeze"):
        of_results(root)


@pytest.mark.slow
def test_a_replay_that_is_not_complete(made, tmp_path):
    folder = tmp_path / "replayed"
    shutil.copytree(made / "replayed", folder)
    (folder / "tables/scores.csv").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"scores.csv is damaged.*memento puffer replay"):
        of_replay(folder)
    shutil.rmtree(folder / "tables")
    assert folders.kind_of(folder) == "replay"
    with pytest.raises(DamagedError, match="has not come to its end"):
        of_replay(folder)


def test_other_damaged_folders(made_up):
    path = made_up / "demo" / "summary.json"
    document = json.loads(path.read_text())
    del document["control"]["levels"]
    path.write_text(json.dumps(document))
    with pytest.raises(DamagedError, match=r"summary.json is damaged.*memento demo"):
        of_demo(made_up / "demo")
    path.write_text("{")
    with pytest.raises(DamagedError, match=r"summary.json cannot be read"):
        of_demo(made_up / "demo")


def test_each_series_of_a_sweep_has_its_course():
    """Figures 23 to 25 of the paper: the replays day by day."""
    courses = {
        chart.name.partition("-courses")[2]: set(chart.table["label"].tolist())
        for chart in replay_section("table-jtt", tables("table-jtt")).charts
        if "-courses" in chart.name
    }
    assert set(courses) == {"", "-forgetting", "-memento"}
    assert courses[""] == {"daily", "static"}
    assert courses["-memento"] > {"memento", "memento-jtt=20", "memento, oracle"}
    (one,) = [c for c in replay_section("table-freeze", tables("table-freeze")).charts
              if "courses" in c.name]  # fmt: skip
    assert one.table["value"].max() == 3.0
