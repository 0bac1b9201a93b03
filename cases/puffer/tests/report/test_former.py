"""Results of until 0.1.0, whose arms had other names: read with those of today."""

from __future__ import annotations

import json

import numpy as np
import pytest

from memento.errors import ForeignError
from memento.report.experiments import Results
from memento_puffer.report import experiments
from memento_puffer.report.comparison import places
from memento_puffer.report.replays import _is_former, with_names_of_today
from memento_puffer.studies.closed_loop import ClosedLoop


def test_replays_of_a_former_table_stand_where_the_paper_has_them(monkeypatch):
    asked = {
        "table-jtt": {
            "version": 1,
            "parameters": {"arms": ["random", "random-jtt=5", "memento"]},
            "needs": ["p+random", "p+random-jtt=5", "p+memento"],
        },
        "p+random": {"parameters": {"arm": "random"}},
        "p+random-jtt=5": {"parameters": {"arm": "random", "jtt": 5.0}},
        "p+memento": {"parameters": {"arm": "memento"}},
    }
    monkeypatch.setattr(Results, "asked", lambda self, group, name: asked[name], raising=False)
    results = Results.__new__(Results)
    found = places("table-jtt", experiments._arms(results, "puffer-replay", "table-jtt"))
    assert found == {
        "forgetting": ("forgetting", 1.0),
        "forgetting-jtt=5": ("forgetting", 5.0),
        "memento": ("memento", 1.0),
    }


def test_tables_of_former_replays_have_the_names_of_today(tmp_path):
    table = {"arm": np.array(["random", "reservoir", "memento-T0"]), "tail": np.arange(3)}
    found = with_names_of_today(table)
    assert found["arm"].tolist() == ["forgetting", "random", "memento-T0"]
    assert found["tail"] is table["tail"]
    for name, word, former in (("a", "memento-replay", True), ("b", "memento-replay-2", False)):
        place = tmp_path / name / "random"
        place.mkdir(parents=True)
        (place / "replay.json").write_text(json.dumps({"format": word}))
        assert _is_former(tmp_path / name) is former
    assert not _is_former(tmp_path)


def test_a_former_closed_loop_is_refused(tmp_path):
    (tmp_path / "closed_loop.json").write_text("{}")
    with pytest.raises(ForeignError, match=r"earlier version, .* give another folder"):
        ClosedLoop(days=3, viewers=1).prepare(tmp_path, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["closed_loop.json"]
