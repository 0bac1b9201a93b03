"""`memento puffer replay`: from stored days to tables, and going on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import replayed_days as helpers

pytest.importorskip("polars")
pytest.importorskip("typer")

from memento.cli.main import main
from memento_puffer.cli.replay import replay
from memento_puffer.predictor.ttp import Ttp
from memento_puffer.studies.arms import REPLAYED

SCRIPT = Path(helpers.__file__)

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
    for arm in ("memento", "forgetting", "daily"):
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
        (("--as", "nothing"), "--as nothing; give one of quick, memento, artefact, puffer"),
        (("--arm", "daily", "--jtt", 10), "'daily' has jtt = 1.0, not 10.0"),
        (("--arm", "daily", "--members", 7), "'daily' has members = 1, not 7"),
        (("--published", "/no/such/folder"), "--published /no/such/folder: no such folder"),
        (("--published", "."), "holds no model of these days, such as 2022-01-01/py-0.pt"),
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


def test_all_arms_are_named_in_the_help():
    for name in REPLAYED:
        assert re.search(rf"\b{name}\b(?!-)", replay.__doc__.partition("arms (--arm)")[2]), name


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        (7, "memento: fifo was never trained: with --interval 7 the first training is on day "
               "7, and 4 are replayed; give more days or a smaller --interval"),
        (4, "fifo was trained on the last day only, which leaves none to judge it on: with "
               "--interval 4"),
        (2, ""),
    ],
)  # fmt: skip
def test_arms_that_were_not_trained_are_named(interval, said, capsys, stored, tmp_path):
    words = ("--from", stored, "--out", tmp_path, "--arm", "fifo", "--no-daily", "--epochs", 1)
    code, _, err = command(capsys, DAYS, *words, "--interval", interval, "--json")
    assert code == 0
    assert said in err
    assert ("trained" in err.replace("trainings", "")) == bool(said)


def test_an_arm_that_froze_before_its_first_training_is_named(capsys, stored, tmp_path):
    words = ("--from", stored, "--out", tmp_path, "--arm", "fifo", "--no-daily", "--json")
    code, _, err = command(capsys, DAYS, *words, "--interval", 2, "--freeze-after", 1)
    assert code == 0
    assert "fifo was never trained: with --interval 2 the first training is on day 2, and " in err
    assert "--freeze-after 1 comes before; give a larger one" in err


def test_published_models_are_judged(capsys, stored, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "models").mkdir()
    Ttp.fresh().write(tmp_path / "models" / helpers.NAMES[3])
    words = ("--from", stored, "--out", tmp_path / "out", "--arm", "fifo", "--no-daily", *QUICK)
    code, found, err = command(capsys, DAYS, *words, "--published", tmp_path / "models")
    assert code == 0, err
    (row,) = [r for r in found["improvement"]["published"] if r["predictor"] == "own"]
    assert row["days"] == 1


def test_stalled_streams_of_days_and_of_features(capsys, stored, tmp_path):
    """Days say which streams stalled; features may not know, which shows before any replay."""
    from memento_puffer.data.release import write_simulated_day
    from memento_puffer.studies.day_bodies import simulation_of

    days, names = tmp_path / "days", ["2024-01-01", "2024-01-02"]
    simulation = simulation_of((("halved_capacity", 0),), 5)
    for number, name in enumerate(names):
        write_simulated_day(days / name, name, simulation, number, sessions=3)
    words = ("--arm", "random", "--arm", "stalled", "--no-daily", "--interval", 1, "--epochs", 1)
    span = "..".join(names)
    code, found, err = command(
        capsys, span, "--from", days, "--out", tmp_path / "a", *words, "--json"
    )
    assert code == 0, err
    assert found["trained"] == {"random": names[1:], "stalled": names[1:]}
    (kept,) = (tmp_path / "a" / "stalled" / "state").glob("*/*column%2Fstalled.npy")
    assert np.load(kept).dtype == bool
    # Features that the command before stored, and that were made without it.
    code, _, err = command(
        capsys, span, "--from", tmp_path / "a/features", "--out", tmp_path / "b", *words
    )
    assert code == 2
    assert f"the features of {names[1]} do not; give the days themselves with --from" in err
    assert not (tmp_path / "b" / "random").exists()


def test_one_day_alone_or_absent(capsys, stored, tmp_path):
    words = ("--from", stored, "--out", tmp_path, *QUICK)
    code, _, err = command(capsys, helpers.NAMES[0], *words)
    assert (code, "one day alone" in err) == (2, True)
    code, _, err = command(capsys, "2020-01-01", *words)
    assert code == 2
    code, _, err = command(capsys, "2020-01-01", *words, "--skip-missing")
    assert (code, "none of the days" in err) == (2, True)
