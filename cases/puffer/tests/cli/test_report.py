"""`memento report` for folders of the Puffer case: which page it writes where."""

from __future__ import annotations

import json
import shutil

import pytest
import small_results as small

import called

pytest.importorskip("matplotlib")
pytest.importorskip("polars")

from memento.report.page import GENERATOR

call, content = called.report, called.content


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return small.prepared(tmp_path_factory)


@pytest.mark.slow
def test_results_of_run(call, made, tmp_path):
    root = tmp_path / "results"
    shutil.copytree(made / "results", root)
    before = content(root)
    code, out, err = call(root, "--json")
    assert code == 0, err
    after = content(root)
    assert set(after) - set(before) == {"report.html"}
    assert all(after[name] == data for name, data in before.items())
    found = json.loads(out)
    assert (found["kind"], found["out"]) == ("results", str(root / "report.html"))
    names = [section["name"] for section in found["sections"]]
    assert "tiny-table-batch-size" in names
    (section,) = [s for s in found["sections"] if s["name"] == "tiny-table-batch-size"]
    origins = {row["origin"] for row in section["figures"][0]["rows"]}
    assert origins == {"ours", "paper"}
    tables = {table["name"]: table["rows"] for table in section["tables"]}
    arms = {row["arm"]: row for row in tables["tiny-table-batch-size-daily"]}
    assert arms["memento-batch=half"]["paper tail"] == 0.761
    assert arms["memento-batch=half"]["tail"] != 0.761
    page = (root / "report.html").read_text()
    assert "real days of Puffer" in page
    assert "broken on purpose" in page
    assert "tiny-table-jtt" in err
    assert call(root)[0] == 0  # a page of ours is replaced


def test_pages_of_other_commands_are_left_alone(call, tmp_path):
    folder = small.demo(tmp_path / "demo")
    before = content(folder)
    code, out, err = call(folder)
    assert (code, out) == (0, ""), err
    assert (folder / "report.html").read_bytes() == before["report.html"]
    page = folder / "comparison.html"
    assert GENERATOR in page.read_text()
    assert set(content(folder)) - set(before) == {"comparison.html"}
    page.write_text("my own notes")
    code, _, err = call(folder)
    assert code == 2
    assert "comparison.html was not written by memento report" in err
    assert page.read_text() == "my own notes"
    assert call(folder, "--out", page)[0] == 0  # named: meant
    assert GENERATOR in page.read_text()


@pytest.mark.slow
def test_one_replay(call, made, tmp_path):
    shutil.copytree(made / "replayed", tmp_path / "replayed")
    code, out, err = call(tmp_path / "replayed", "--json")
    assert code == 0, err
    assert json.loads(out)["kind"] == "replay"
    assert (tmp_path / "replayed" / "report.html").stat().st_size > 50_000


def test_a_deployment_before_its_first_day(call, tmp_path):
    pytest.importorskip("torch")
    from memento_puffer.deployment.deploy import Deployment
    from memento_puffer.deployment.deploy_settings import DeploymentSettings

    Deployment.create(tmp_path / "state", DeploymentSettings(capacity=1000))
    code, out, err = call(tmp_path / "state", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["kind"], found["sections"]) == ("deployment", [])
    assert "memento puffer deploy run" in found["missing"]["deployment"]


@pytest.mark.slow
def test_a_deployment(call, tmp_path):
    pytest.importorskip("torch")
    import deployment_days as helpers

    from memento_puffer.deployment.deploy import Deployment

    state = tmp_path / "state"
    deployment = Deployment.create(state, helpers.settings())
    deployment.run(helpers.Days(0, 1), today=helpers.day(1), start=helpers.day(0))
    code, out, err = call(state, "--json")
    assert code == 0, err
    (section,) = json.loads(out)["sections"]
    (summary,) = [t["rows"] for t in section["tables"] if t["name"] == "deployment-summary"]
    assert {row["days"] for row in summary} == {2}
    assert all(1 <= row["retrained"] <= 2 for row in summary)
    Deployment(state)  # a page in its folder does not disturb it


@pytest.mark.slow
def test_a_damaged_table_leaves_the_page_of_before(call, made, tmp_path):
    root = tmp_path / "results"
    shutil.copytree(made / "results", root)
    (root / "report.html").write_text(f"<html><head>{GENERATOR}</head></html>")
    before = (root / "report.html").read_bytes()
    path = root / "puffer-replay/tiny-figure-freeze/output-1/densities.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    code, out, err = call(root, "--json")
    assert (code, out) == (2, "")
    assert "densities.parquet differs from what was written" in err
    assert "memento run puffer-replay tiny-figure-freeze --force" in err
    assert (root / "report.html").read_bytes() == before
    assert not list(root.glob(".*.tmp"))
