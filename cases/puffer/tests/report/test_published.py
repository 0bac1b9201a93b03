"""Published numbers: each stands where it belongs, with its source; nothing of ours is there."""

from __future__ import annotations

import math

import numpy as np
import pytest

from memento.errors import SettingError
from memento.report.tables import Published
from memento_puffer.deployment import record
from memento_puffer.report import published as module
from memento_puffer.report.comparison import record_days, records, wide
from memento_puffer.report.published import published
from memento_puffer.studies import experiments


def value(topic, **wanted):
    (found,) = published(topic, **wanted)["value"].tolist()
    return found


def test_every_number_has_a_source():
    table = published()
    assert tuple(table) == Published.COLUMNS
    assert {len(column) for column in table.values()} == {len(table["value"])}
    for column in ("topic", "subject", "quantity", "source"):
        assert (table[column] != "").all()
    assert np.isfinite(table["value"]).all()
    assert set(table["read_off_plot"].tolist()) == {True, False}
    bounded = ~np.isnan(table["low"])
    assert (table["low"][bounded] <= table["value"][bounded]).all()
    assert (table["high"][bounded] >= table["value"][bounded]).all()
    keys = list(zip(*(table[n].tolist() for n in Published.COLUMNS[:5]), strict=True))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("topic", "wanted", "expected"),
    [
        ("table-baselines", {"subject": "memento", "against": "static", "quantity": "tail"}, 0.920),
        ("table-batch-size", {"subject": "memento-batch=half", "quantity": "insert_mean"}, 199),
        ("table-batch-size", {"subject": "memento-batch=eightfold", "quantity": "tail"}, 0.613),
        ("table-bandwidth", {"subject": "memento-h=0.125", "quantity": "tail"}, 0.713),
        ("table-temperature", {"subject": "memento-T=1e-05", "quantity": "median"}, -0.398),
        ("table-other-metrics", {"subject": "loss-T=10", "quantity": "tail"}, 0.402),
        ("table-other-metrics", {"subject": "labels-T=1", "quantity": "median"}, -0.021),
        (
            "table-jtt",
            {"subject": "memento-jtt=10", "part": "oracle", "quantity": "tail"},
            1.704,
        ),
        ("table-decisions", {"subject": "memento-loss=0.1", "quantity": "tail"}, 0.753),
        ("deployment", {"subject": "Memento", "quantity": "stalled"}, 0.20420),
        ("deployment", {"subject": "Memento", "quantity": "stalled_change"}, -13.93),
        ("puffer", {"subject": "Fugu", "part": "", "quantity": "stalled"}, 0.133),
        ("puffer-vintages", {"subject": "Fugu-Mar", "quantity": "stalled"}, 0.186),
        ("puffer-predictors", {"subject": "linear", "quantity": "stalled"}, 0.378),
        (
            "puffer-predictors",
            {"part": "beside trained in emulation", "quantity": "ssim"},
            16.78,
        ),
        ("puffer-first-chunk", {"subject": "Fugu", "quantity": "startup"}, 0.431),
        ("densities", {"subject": "deterministic", "quantity": "max"}, 0.00546),
        ("content", {"subject": "Memento", "part": "2022-09-20", "quantity": "rtt"}, 0.156),
        (
            "content",
            {"subject": "Fugu-Feb", "quantity": "delivery_rate_std"},
            11094,
        ),
    ],
)
def test_numbers_of_the_paper(topic, wanted, expected):
    assert value(topic, **wanted) == expected


def test_how_many_there_are():
    counts = {topic: len(published(topic)["value"]) for topic in published.topics()}
    assert counts["table-temperature"] == counts["table-bandwidth"] == 10 * 2
    assert counts["table-batch-size"] == 5 * 4
    assert counts["table-other-metrics"] == (8 + 3 * 6) * 2
    assert counts["table-jtt"] == 3 * 7 * 2
    assert counts["table-decisions"] == 6 * 3
    assert counts["record"] == 2 * 5 * 7 + 7 + 14
    assert counts["puffer"] == 5 * 7
    assert counts["puffer-vintages"] == 5 * 2
    assert counts["puffer-predictors"] == 2 * (1 + 1 + 2)
    assert counts["puffer-first-chunk"] == 3 * 2
    assert counts["densities"] == 4 + 2
    # Ten sets; each with six means and the deviation of the time, four with those of three more.
    assert counts["content"] == 10 * 7 + 4 * 3
    (bitrate,) = zip(*(published("puffer-bitrate")[n] for n in ("low", "high")), strict=True)
    assert bitrate == (4.05, 4.36)


def test_subjects_are_arms_of_the_experiments():
    """So that each number finds the arm it stands beside."""
    for topic, contents in experiments.CONTENTS.items():
        if topic in published.topics() and topic != "table-repeatability":
            found = published(topic)
            ours = {*contents.arms, "daily"}
            assert set(found["subject"].tolist()) <= ours, topic
            assert set(found["against"].tolist()) <= {"daily", "static", ""}


def test_the_record_gives_the_numbers_that_are_published_of_it(data_folder):
    """All 60 of them, computed from the record as reports do; to the digits published."""
    table = record.read_record(data_folder / "puffer-deployment.csv")
    found = records(table, *module.RECORD_PERIOD, since=module.DEPLOYED)
    digits = {"retrained": 0, "total_coverage": 1}
    for name in ("retrained", "p10", "median", "p90", "largest", "total_coverage"):
        ours, theirs = found[name].astype(float), found[f"paper {name}"]
        assert len(ours) == 10
        allowed = 0.51 * 10.0 ** -digits.get(name, 3)
        assert np.abs(ours - theirs).max() <= allowed, name


def test_the_record_was_trained_on_the_days_that_are_published(data_folder):
    table = record.read_record(data_folder / "puffer-deployment.csv")
    found = record_days(table, module.DEPLOYED)
    np.testing.assert_array_equal(found["days"], found["paper days"])
    assert found["variant"].tolist() == ["default"] * 7 + ["deterministic"] * 14
    other = record_days(table, "2022-09-25")
    assert other["days"][0] == 1
    assert np.isnan(other["days"]).sum() == 2 + 2  # those before are not counted


def test_wide():
    found = wide("puffer")
    assert len(found["paper subject"]) == 10  # five schemes, all and slow paths
    assert all(name.startswith("paper ") for name in found)
    first = found["paper subject"].tolist().index("Fugu")
    assert found["paper stalled"][first] == 0.133
    assert found["paper stalled_low"][first] == 0.123
    slow = found["paper part"].tolist().index("slow paths")
    assert math.isnan(found["paper stalled_low"][slow])


def test_what_is_unknown_is_said():
    with pytest.raises(SettingError, match=r"table-none.*table-jtt"):
        published("table-none")
    with pytest.raises(SettingError, match=r"'arm'.*subject"):
        published(arm="memento")
