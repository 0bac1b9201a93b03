"""Reports of the data-centre case, and the numbers beside its own."""

from __future__ import annotations

import contextlib
import json

import pytest
import small_scenarios as small

from read_reports import everything_is_drawn, listing

pytest.importorskip("matplotlib")

from memento.cli.main import main
from memento.errors import DamagedError, SchemaError
from memento.report import folders
from memento_datacenter.report.scenarios import of_datacenter, published


def test_data_centre(tmp_path):
    report = of_datacenter(small.datacenter(tmp_path / "replayed"))
    assert [section.name for section in report.sections] == [
        "rare-patterns",
        "congestion",
        "targets",
        "networks",
    ]
    assert set(report.missing) == {"incremental"}
    section = report.section("rare-patterns")
    held = listing(section, "rare-patterns-held")
    assert held["w1"] == [10.0, 11.0, 12.0, 13.0]
    assert held["paper w1"] == [5696, 252, 0, 3159]
    found = listing(section, "rare-patterns-scores")
    at = [m == "memento" and s == "accuracy" for m, s in zip(found["memory"], found["score"],
          strict=True)].index(True)  # fmt: skip
    assert found["paper value"][at] == 0.89
    order = listing(section, "rare-patterns-ordering")
    assert order["paper best"].tolist() == ["memento"]  # equal to LARS in the paper
    errors = listing(report.section("congestion"), "congestion-ordering")
    assert errors["score"].tolist() == ["error_66", "error_100", "error_133"]
    assert errors["best"].tolist() == ["memento"] * 3
    everything_is_drawn(report, tmp_path)


def test_numbers_of_the_paper():
    assert published.topics() == ["rare-patterns", "incremental", "congestion"]
    assert len(published()["value"]) == 2 * 4 * 3 + 4 + 4 + 2 + 3 * 3
    assert published("rare-patterns", subject="lars", part="w3")["value"] == [2610]
    assert published("congestion", subject="random", quantity="error_100")["value"] == [24]


def test_damaged_folders(tmp_path):
    place = small.datacenter(tmp_path / "replayed")
    assert folders.kind_of(place) == "datacenter"
    (place / "held.csv").write_text("scenario,memory\nrare-patterns,memento\n")
    with pytest.raises(SchemaError, match="'workload'"):
        of_datacenter(place)
    (place / "held.csv").unlink()
    with pytest.raises(DamagedError, match=r"held.csv cannot be read.*memento datacenter replay"):
        of_datacenter(place)


def test_the_command(tmp_path, capsys):
    folder = small.datacenter(tmp_path / "replayed")
    with contextlib.suppress(SystemExit):
        main(["report", str(folder), "--out", str(tmp_path / "page.html"), "--json"])
    assert not (folder / "report.html").exists()
    assert json.loads(capsys.readouterr().out)["missing"].keys() == {"incremental"}
    assert (tmp_path / "page.html").read_text().count("data:image/png") == 6
