"""Figures over many days, from a daily table of which every number is known."""

from __future__ import annotations

import numpy as np
import pytest

from read_reports import listing

pytest.importorskip("matplotlib")

from memento.samples import Samples
from memento_puffer.report import over_days

FIRST = np.datetime64("2022-09-19")
# Scheme: first day, last day, % stalled, SSIM in dB, log scores.
RAN = {
    "fugu": (0, 20, 0.2, 17.0, -4.0, -0.3),
    "fugu-feb": (0, 60, 0.4, 16.0, -4.25, -0.25),
    "memento": (30, 60, 0.1, 16.5, -3.25, -0.5),
    "memento-deterministic": (35, 60, 0.2, 15.0, -3.0, -0.75),
}


@pytest.fixture(scope="module")
def daily() -> Samples:
    rows = []
    for scheme, (first, last, *values) in RAN.items():
        for day in range(first, last):
            metrics = {
                ("stream", "stalled_capped"): values[0] * (2 if day % 2 else 1),
                ("stream", "streamtime_capped"): 3600.0 * (1 + day % 3),
                ("ssim", "mean"): values[1],
                ("logscore_0", "q0.01"): values[2],
                ("logscore_0", "q0.5"): values[3],
            }
            rows += [(FIRST + day, scheme, "all", *key, v) for key, v in metrics.items()]
    names = ("day", "scheme", "selection", "variable", "metric", "value")
    return Samples.borrow({n: np.array([r[i] for r in rows]) for i, n in enumerate(names)})


@pytest.fixture(scope="module")
def found(daily):
    return {section.name: section for section in over_days.sections(daily, prefix="x-")}


def chart(section, name):
    (one,) = [chart for chart in section.charts if chart.name == name]
    return one


def of(table, scheme):
    return {n: np.asarray(c)[np.asarray(table["scheme"]) == scheme] for n, c in table.items()}


def test_every_figure_is_there_and_drawn(found, tmp_path):
    assert list(found) == [f"x-{name}" for name in (*over_days.SECTIONS, "trade-off")]
    names = [chart.name for section in found.values() for chart in section.charts]
    assert len(set(names)) == len(names) == 5 * 4 + 2
    assert {name for name in names if not name.startswith("trade")} == over_days.PICTURES
    for section in ("x-differences", "x-days", "x-months", "x-trade-off"):
        drawn = found[section].charts[0].save(tmp_path)
        assert drawn.stat().st_size > 5000


def test_daily_training_of_the_past_lies_over_the_deployment(found):
    """Figure 14: each scheme on the days that it shares with the static model."""
    curves = chart(found["x-differences"], "logscore_0_q001_differences").table
    assert set(curves["scheme"]) == set(RAN) - {"fugu-feb"}
    assert of(curves, "fugu")["value"].tolist() == [0.25]
    assert of(curves, "memento")["value"].tolist() == [1.0]
    assert "fugu-feb" in found["x-differences"].parts[0]


def test_stalls_and_quality_in_symmetric_percentages(found):
    stalls = chart(found["x-differences"], "stream_stalled_differences").table
    assert of(stalls, "memento")["value"] == pytest.approx([-75.0])
    totals = listing(found["x-differences"], "differences")
    at = totals["scheme"].index("memento-deterministic")
    assert totals["days"][at] == 25
    assert totals["time stalled (%)"][at] == pytest.approx(-50.0)
    assert totals["mean SSIM (%)"][at] == pytest.approx(-6.25)
    assert totals["1st percentile of the log score (nats)"][at] == pytest.approx(1.25)
    assert totals["share of days with as many stalls or more"] == [0.0] * 3


@pytest.mark.parametrize(("section", "days"), [("changes", 14), ("months", 31), ("weeks", 14)])
def test_windows_look_back_so_many_days(found, section, days):
    ending = over_days.SECTIONS[section].ending
    table = of(chart(found[f"x-{section}"], f"stream_stalled{ending}").table, "memento")
    assert table["units"].tolist() == [min(n + 1, days) for n in range(30)]
    at = np.flatnonzero(table["units"] == days)[:1].tolist() or [-1]
    values = {"changes": -75.0, "months": -75.0, "weeks": np.nan}[section]
    if np.isnan(values):  # days of 0.1 and 0.2 % by turns, of 1, 2 and 3 hours
        n = np.arange(30, 30 + days)
        values = np.average(np.where(n % 2, 0.2, 0.1), weights=1 + n % 3)
    assert table["value"][at] == pytest.approx([values])
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_day_by_day_nothing_is_pooled(found):
    table = of(chart(found["x-days"], "stream_stalled_days").table, "memento")
    assert table["value"][:2] == pytest.approx([0.1, 0.2])


def test_quality_against_stalls_of_those_that_ran_together(found):
    memories, past = (chart.table for chart in found["x-trade-off"].charts)
    assert memories["scheme"].tolist() == ["fugu-feb", "memento", "memento-deterministic"]
    assert memories["days"].tolist() == [25] * 3
    assert past["days"].tolist() == [20] * 2
    assert past["ssim"] == pytest.approx([17.0, 16.0])


def test_other_schemes_and_few_days(daily):
    names = daily["scheme"]
    other = daily.with_columns(scheme=np.where(names == "fugu-feb", "bba", np.char.add(names, "+")))
    sections = {s.name: s for s in over_days.sections(other)}
    assert over_days.usual_reference(other) == "bba"
    assert "trade-off" not in sections  # there is no day on which all four ran
    two = daily.take(daily["day"] < FIRST + 2)
    assert over_days.sections(two) == []


def test_a_day_that_was_analysed_twice_counts_once(daily):
    days = np.unique(daily["day"])[:4]
    first = dict(daily.take(np.isin(daily["day"], days[:3])))
    again = dict(daily.take(np.isin(daily["day"], days[2:])))
    again["value"] = again["value"] + 1
    both = over_days.daily_of([{**first, "day": first["day"].astype(str)}, again])
    assert np.unique(both["day"]).tolist() == days.tolist()
    third = both.take((both["day"] == days[2]) & (both["metric"] == "mean"))
    assert third["value"].tolist() == [18.0, 17.0]
