"""`memento backtest` on small tables as people have them: what it says, and what it refuses."""

from __future__ import annotations

import html
import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from called import code_of
from memento import Reservoir
from memento.cli.main import main
from memento.study.example import example

pytest.importorskip("sklearn")


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Run the command in this process; returns exit code, output and error stream."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        code = code_of("backtest", *words)
        out, err = capsys.readouterr()
        return code, out, err

    return call


FAST = ("--model", "logistic", "--seeds", "2", "--policies", "memento", "--triggers", "loss")


def write_days(label="y", units=6, size=120):
    """Days as CSV, with texts, truth values, gaps and a class that comes late."""
    for number, (name, table) in enumerate(example(label, units=units, size=size)):
        columns = dict(table)
        columns[label] = np.array(["fine", "late", "lost"])[columns[label]]
        if number >= 3:
            columns[label][:10] = "stolen"
        columns[label][-7:] = ""  # not known yet
        wind = pa.array(columns.pop("wind"), mask=np.isnan(table["wind"]))
        whole = pa.table({**columns, "wind": wind, "id": [f"{name}-{i}" for i in range(size)]})
        pyarrow.csv.write_csv(whole, f"{name}.csv")


def write_stream(file="stream.parquet", units=6, size=100, **more):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(units * size, 2))
    columns = {
        "unit": np.repeat(np.arange(units), size),
        "a": x[:, 0],
        "b": x[:, 1],
        "y": x[:, 0] + 0.1 * rng.normal(size=len(x)),
        "who": rng.integers(0, 4, len(x)),
        **more,
    }
    pyarrow.parquet.write_table(pa.table(columns), file)
    return columns


def test_a_column_that_is_text_because_of_one_value_is_named(cli):
    wait = np.arange(600).astype(str)
    wait[7], wait[9] = "twelve", ""
    write_stream(wait=wait, ward=np.repeat(["a", "b"], 300))
    words = ("stream.parquet", "--unit", "unit", "--label", "y", "--regression")
    code, _, err = cli(*words, "--model", "ridge", "--seeds", 1, *FAST[4:])
    assert code == 0, err
    assert "column 'wait' is taken as text, as 1 of its 599 values cannot be read" in err
    assert "'twelve'; make them empty" in err
    assert "'ward'" not in err


def check_document(document, measures):
    assert document["baseline"] == "random"
    for name, arm in document["arms"].items():
        assert set(arm) - {"above_frontier"} == {"measures", "trainings", "seconds"}, name
        assert set(arm["measures"]) == measures
        assert set(arm["measures"]["mean"]) == {"value", "gain", "low", "high"}
    for one in document["triggers"].values():
        assert {"trainings", "cost", "false_alarms", "units"} <= set(one)
    assert document["recommended"]["memory"] in document["arms"]
    assert document["recommended"]["trigger"] in document["triggers"]
    assert isinstance(document["verdict"], str)


def test_days_of_csv_with_everything_in_them(cli, tmp_path):
    write_days()
    code, out, err = cli("week-*.csv", *FAST, "--capacity", "60", "--json", "--out", "kept")
    assert code == 0, err
    document = json.loads(out)
    classes = {"mean", "median", "worst1", "worst5", "balanced_accuracy"}
    check_document(document, classes)
    assert list(document["arms"]) == ["random", "fifo", "memento", "random-triple", "random+T"]
    assert list(document["triggers"]) == ["daily", "never", "loss"]
    assert document["units"] == ["week-03", "week-04", "week-05"]
    assert [point["temperature"] for point in document["frontier"]][:3] == [1.0, 1.1, 1.25]
    daily, never = (document["triggers"][name] for name in ("daily", "never"))
    assert (daily["trainings"], daily["cost"], daily["false_alarms"]) == (6, 0, 5)
    assert (never["trainings"], never["false_alarms"], never["units"]) == (1, 0, 5)
    page = (tmp_path / "kept" / "backtest.html").read_text()
    before, _, after = page.partition('<script type="module">')
    assert document["verdict"] in html.unescape(before)
    script, _, rest = after.rpartition("</script>")
    assert "vegaEmbed" in script
    assert "</script" not in script
    assert not re.findall(r"(?:src|href)=.?(?:http|//)", before + rest)
    table = pyarrow.csv.read_csv(tmp_path / "kept" / "backtest.csv")
    assert table.column_names == ["arm", "measure", "value", "gain", "low", "high"]
    with pytest.raises(SystemExit, match="0"):
        main(["report", "kept"])
    report = (tmp_path / "kept" / "report.html").read_text()
    assert document["verdict"] in html.unescape(report)
    # What is there is not computed again, and the answer is the same but for times.
    code, again, err = cli("week-*.csv", *FAST, "--capacity", "60", "--json", "--out", "kept")
    assert (code, again) == (0, out), err


def test_numbers(cli):
    write_stream()
    words = ("stream.parquet", "--unit", "unit", "--regression", "--model", "ridge")
    code, out, err = cli(
        *(*words, "--group", "who", "--seeds", "2", "--policies", "memento"),
        *("--triggers", "every-2", "--json"),
    )
    assert code == 0, err
    document = json.loads(out)
    check_document(document, {"mean", "median", "worst1", "worst5", "worst_group"})
    assert document["frontier"] == []
    assert "random+T" not in document["arms"]
    assert document["triggers"]["every-2"]["trainings"] == 3


def test_without_json_there_are_tables_and_a_verdict(cli):
    write_stream(y=np.tile([0, 1], 300))
    code, out, err = cli("stream.parquet", "--unit", "unit", *FAST, "--seeds", "1")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["memory", "mean"]
    assert any(line.startswith("daily") for line in lines)
    assert "a hint only, as few seeds ran (1; 3 say something)" in out.lower().replace("\n", " ")


def test_two_processes_say_the_same(cli):
    write_stream(y=np.tile([0, 1], 300))
    words = ("stream.parquet", "--unit", "unit", *FAST, "--json")
    _, one, _ = cli(*words)
    _, two, err = cli(*words, "--workers", "2")

    def without_times(text):
        found = json.loads(text)
        for part in ("arms", "triggers"):
            for row in found[part].values():
                del row["seconds"]
        return found

    assert without_times(one) == without_times(two), err


def test_a_budget_is_kept_but_for_the_first_seed(cli):
    write_stream(y=np.tile([0, 1], 300))
    words = ("stream.parquet", "--unit", "unit", *FAST, "--seeds", "40", "--json")
    code, out, err = cli(*words, "--budget", "0.1s")
    assert code == 0, err
    assert json.loads(out)["seeds"] == 1


def test_models_and_policies_of_the_user(cli, tmp_path):
    write_stream(y=np.tile([0, 1], 300))
    (tmp_path / "our_model.py").write_text(
        "from sklearn.tree import DecisionTreeClassifier\n"
        "from memento.policies import Reservoir\n"
        "def make(seed):\n"
        "    return DecisionTreeClassifier(max_depth=2, random_state=seed)\n"
        "class Ours(Reservoir):\n"
        "    kind = 'ours-of-the-backtest'\n"
    )
    code, out, err = cli(
        *("stream.parquet", "--unit", "unit", "--model", "our_model:make", "--seeds", "1"),
        *("--policies", "our_model:Ours", "--triggers", "never", "--json"),
        *("--workers", "2", "--out", "kept"),
    )
    assert code == 0, err
    arms = json.loads(out)["arms"]
    assert arms["ours-of-the-backtest"]["measures"]["mean"]["gain"] == 0  # it is a reservoir
    # What another model did is not taken for this one's.
    code, _, err = cli(
        *("stream.parquet", "--unit", "unit", *FAST, "--seeds", "1", "--out", "kept"),
    )
    assert code == 2
    assert "made with learner = 'our_model:make" in err
    assert "give another folder" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give FILES, or --example"),
        (["none.parquet"], "no such file"),
        (["stream.parquet"], "name the column that tells units apart with --unit, of unit, a, b"),
        (["stream.parquet", "--unit", "day"], "has no column 'day' (--unit); it has unit, a"),
        (["stream.parquet", "--unit", "unit"], "have fractions"),
        (["stream.parquet", "--unit", "unit", "--label", "z"], "has no column 'z' (--label)"),
        (["stream.parquet", "--unit", "who", "--regression"], "4 units; give at least 6"),
        (["stream.parquet", "--unit", "unit", "--regression", "--model", "logistic"],
         "'logistic' predicts classes; give one of hgb, ridge, mlp"),
        (["stream.parquet", "--unit", "unit", "--regression", "--model", "best"],
         "no model 'best'"),
        (["stream.parquet", "--unit", "unit", "--regression", "--capacity", "0%"],
         "--capacity '0%'"),
        (["stream.parquet", "--unit", "unit", "--regression", "--capacity", "many"], "such as 5%"),
        (["stream.parquet", "--unit", "unit", "--regression", "--inputs", "q*"], "matches none of"),
        (["stream.parquet", "--unit", "unit", "--regression", "--policies", "best"],
         "unknown policy 'best'"),
        (["stream.parquet", "--unit", "unit", "--regression", "--triggers", "often"],
         "unknown trigger 'often'"),
        (["stream.parquet", "--unit", "unit", "--regression", "--group", "g"], "no column 'g'"),
        (["stream.parquet", "--unit", "unit", "--regression", "--budget", "soon"], "such as 90s"),
        (["stream.parquet", "--regression", "--classes", "2"], "give one of them"),
        (["stream.parquet", "--example"], "give FILES, or --example"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_does(cli, tmp_path, words, says):
    write_stream()
    before = sorted(tmp_path.iterdir())
    code, _, err = cli(*words)
    assert code == 2, err
    assert says in err
    assert sorted(tmp_path.iterdir()) == before


def test_the_example_runs_with_everything_that_is_automatic(cli):
    code, out, err = cli("--example", "--seeds", "1", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert {"memento", "density-reservoir", "k-center-greedy", "loss-aware-reservoir",
            "class-balanced-reservoir"} < set(document["arms"])  # fmt: skip
    assert set(document["triggers"]) == {"daily", "never", "on-arrivals", "loss", "every-3"}
    assert document["seeds"] == 1


def test_labels_with_gaps_are_left_out(cli):
    gaps = np.where(np.arange(600) % 5, np.arange(600) % 2, np.nan)
    write_stream(y=gaps)
    words = ("stream.parquet", "--unit", "unit", "--model", "logistic", "--seeds", "1", "--json")
    kinds = "class-balanced-reservoir,loss-aware-reservoir"
    code, out, err = cli(*words, "--policies", kinds, "--triggers", "never", "--cluster", "who")
    assert code == 0, err
    assert set(kinds.split(",")) < set(json.loads(out)["arms"])
    write_stream(y=np.where(np.arange(600) < 300, np.arange(600) % 2, np.nan))
    code, _, err = cli(*words)
    assert code == 2
    assert "no unit after the third has a value in 'y'" in err


def test_the_example_drifts():
    parts = example(size=300)
    assert len(parts) == 10
    first, last = parts[0][1], parts[-1][1]
    assert "drone" not in first["carrier"]
    assert 0.08 < (last["carrier"] == "drone").mean() < 0.22
    assert math.isnan(first["wind"].min())
    assert all(np.array_equal(parts[3][1][n], example(size=300)[3][1][n], equal_nan=n == "wind")
               for n in ("km", "wind", "y"))  # fmt: skip


def test_a_reservoir_is_not_compared_with_itself(cli):
    write_stream(y=np.tile([0, 1], 300))
    words = ("stream.parquet", "--unit", "unit", "--model", "logistic", "--seeds", "1", "--json")
    _, out, err = cli(*words, "--policies", "random,fifo", "--triggers", "daily")
    assert list(json.loads(out)["arms"]) == ["random", "fifo", "random-triple", "random+T"], err
    assert Reservoir().kind == "reservoir"
