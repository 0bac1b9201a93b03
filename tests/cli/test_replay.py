"""`memento puffer replay`: from stored days to tables, and going on."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("polars")
pytest.importorskip("typer")

from memento.cli.main import main

SCRIPT = Path(__file__).parents[1] / "cases" / "replayed_days.py"
_found = importlib.util.spec_from_file_location("replayed_days", SCRIPT)
assert _found is not None
assert _found.loader is not None
helpers = importlib.util.module_from_spec(_found)
sys.modules.setdefault("replayed_days", helpers)
_found.loader.exec_module(helpers)

DAYS = f"{helpers.NAMES[0]}..{helpers.NAMES[4]}"
QUICK = ("--epochs", 2, "--batch-size", 8, "--interval", 2, "--json")


def command(capsys, *words: object) -> tuple[int, dict, str]:
    """Exit code, the JSON object at the end of standard output (or {}), and standard error."""
    with pytest.raises(SystemExit) as done:
        main(["puffer", "replay", *map(str, words)])
    out, err = capsys.readouterr()
    code = done.value.code or 0
    return int(code), json.loads(out.splitlines()[-1]) if out.strip() else {}, " ".join(err.split())


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("days")
    for name, day in helpers.days(5).items():
        day.write(folder / name)
    return folder


def test_arms_are_compared_and_tables_written(capsys, stored, tmp_path):
    words = (DAYS, "--from", stored, "--out", tmp_path / "out", *QUICK)
    code, found, err = command(capsys, *words, "--arm", "memento", "--members", 2, "--jtt", 3)
    assert code == 0, err
    assert set(found["improvement"]) == {"daily", "static"}
    rows = {(r["arm"], r["predictor"]): r for r in found["improvement"]["daily"]}
    assert set(rows) == {("memento", p) for p in ("own", "oracle", "matched")} | {("daily", "own")}
    assert rows["memento", "own"]["days"] == 2  # trained on the second of four days
    assert rows["daily", "own"]["tail"] == 0.0
    assert rows["memento", "oracle"]["mean"] >= rows["memento", "own"]["mean"] - 1e-9
    assert found["trained"]["memento"] == [helpers.NAMES[2], helpers.NAMES[4]]
    assert found["capacity"] == 144 // 3  # of the first day, which trains the static model
    for name in (
        "improvement",
        "improvement_by_day",
        "steps",
        "scores",
        "classes",
        "memory",
        "ages",
    ):
        assert (tmp_path / "out" / "tables" / f"{name}.csv").stat().st_size > 100
    assert "against daily" in err


def test_the_same_command_goes_on_with_more_days(capsys, stored, tmp_path):
    def run(days, folder):
        return command(capsys, days, "--from", stored, "--out", folder, *QUICK, "--capacity", 48)

    run(f"{helpers.NAMES[0]}..{helpers.NAMES[2]}", tmp_path / "grown")
    code, grown, _ = run(DAYS, tmp_path / "grown")
    straight = run(DAYS, tmp_path / "straight")[1]
    assert code == 0
    assert grown["improvement"] == straight["improvement"]
    for arm in ("memento", "random", "daily"):
        assert helpers.record_of(tmp_path / "grown" / arm) == helpers.record_of(
            tmp_path / "straight" / arm
        )


def test_other_settings_in_the_same_folder_are_refused(capsys, stored, tmp_path):
    words = (DAYS, "--from", stored, "--out", tmp_path, "--arm", "fifo", "--no-daily", *QUICK)
    assert command(capsys, *words)[0] == 0
    code, _, err = command(capsys, *words, "--jtt", 5)
    assert code == 2
    assert "jtt" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--arm", "nothing"), "no arm"),
        (("--trigger", "sometimes"), "trigger"),
        (("--horizon", 7), "horizon"),
        (("--arm", "committee", "--members", 1), ""),
        (("--as", "nothing"), "give one of"),
    ],
)
def test_wrong_use_is_said_before_anything_is_replayed(words, said, capsys, stored, tmp_path):
    code, _, err = command(
        capsys, DAYS, "--from", stored, "--out", tmp_path, "--capacity", 48, *QUICK, *words
    )
    if "committee" in words:  # the arm itself says how many it needs
        assert code == 0, err
        return
    assert code == 2
    assert said in err
    assert not (tmp_path / "memento").exists()


def test_one_day_alone_or_absent(capsys, stored, tmp_path):
    words = ("--from", stored, "--out", tmp_path, *QUICK)
    code, _, err = command(capsys, helpers.NAMES[0], *words)
    assert (code, "one day alone" in err) == (2, True)
    code, _, err = command(capsys, "2020-01-01", *words)
    assert code == 2
    code, _, err = command(capsys, "2020-01-01", *words, "--skip-missing")
    assert (code, "none of the days" in err) == (2, True)
