"""Kinds of folders and sections that other distributions add."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint

import pytest

from memento import plugins
from memento.errors import SettingError
from memento.report import folders
from memento.report.experiments import of_results
from memento.report.kinds import Kind, Reports
from memento.report.sections import Report, Section


def opened(folder):
    return Report("weather", folder, "Weather", [], [Section("rain", "Rain", ["None."])])


def rain(results):
    results.sections.append(Section("rain", "Rain", [results.remedy("weather", "rain")]))
    if results.table("weather", "sun", "hours.csv") is None:
        results.missing["sun"] = results.remedy("weather", "sun")


WEATHER = Reports(
    kinds={"weather": Kind("weather --out", lambda f: (f / "sky").exists(), opened, "sky.html")},
    experiments={"weather": rain},
    text=["About the weather."],
)
NOTHING = "no reports"


@pytest.fixture
def installed(monkeypatch):
    def add(**named):
        points = {n: EntryPoint(n, f"{__name__}:{v}", plugins.REPORTS) for n, v in named.items()}
        monkeypatch.setattr(plugins, "installed", lambda group: points)
        monkeypatch.setattr(plugins, "load", lambda point: globals()[point.attr])

    return add


def test_another_kind_of_folder(tmp_path, installed):
    installed(weather="WEATHER")
    (tmp_path / "sky").touch()
    assert folders.kind_of(tmp_path) == "weather"
    assert folders.open_report(tmp_path).section("rain").title == "Rain"
    assert list(folders.kinds()) == ["daily-job", "weather", "memory", "backtest", "results"]
    (tmp_path / "sky").unlink()
    with pytest.raises(
        Exception,
        match="by memento run, memento backtest --out, memento memory init, "
        "weather --out, memento deploy init",
    ):
        folders.kind_of(tmp_path)


def test_sections_about_experiments(tmp_path, installed):
    installed(weather="WEATHER")
    for group in ("weather", "other"):
        (tmp_path / group / "rain").mkdir(parents=True)
        document = {"digest": "0", "group": group, "name": "rain"}
        (tmp_path / group / "rain" / "experiment.json").write_text(json.dumps(document))
    report = of_results(tmp_path)
    assert report.text == ["About the weather."]
    assert [section.name for section in report.sections] == ["rain", "experiments"]
    assert "memento run weather sun" in report.missing["sun"]


def test_groups_of_nobody_have_a_line(tmp_path, installed):
    installed(weather="WEATHER")
    (tmp_path / "other" / "rain").mkdir(parents=True)
    (tmp_path / "other" / "rain" / "experiment.json").write_text("{}")
    report = of_results(tmp_path)
    assert (report.text, report.missing) == ([], {})
    assert [section.name for section in report.sections] == ["experiments"]


def test_what_is_no_reports_is_refused(tmp_path, installed):
    installed(weather="NOTHING")
    with pytest.raises(SettingError, match=r"a str; expected a memento.report.kinds.Reports"):
        folders.kind_of(tmp_path)
