"""Charts of the demo and of analyses: drawn from tables, nothing left open."""

from __future__ import annotations

import pytest

plt = pytest.importorskip("matplotlib.pyplot")

from drawn_figures import axes_of, interval, size_of  # noqa: E402
from memento.report.figures import distributions  # noqa: E402
from memento_puffer.report import figures  # noqa: E402

NAN = float("nan")
DAYS = [f"day {i}" for i in range(9)]
ARMS = ["static", "random", "memento", "density-reservoir"]
FLAGS = [i % 3 == 0 for i in range(9)]


def test_scores(tmp_path, drawn):
    changes = {
        arm: {"p01": [0.1 * i * k for i in range(9)], "median": [0.01 * k] * 9}
        for k, arm in enumerate(ARMS)
    }
    figures.scores(tmp_path / "scores.png", DAYS, changes, dict.fromkeys(ARMS, FLAGS), "static")
    assert size_of(tmp_path / "scores.png") == (1300, 520)
    tail, median = drawn[0]
    assert "1st percentile" in tail["title"]
    assert "median" in median["title"]
    for axis, score in ((tail, "p01"), (median, "median")):
        for arm in ARMS:
            assert axis["lines"][arm][:, 1].tolist() == changes[arm][score]
    assert tail["ticks"] == DAYS


def test_coverage(tmp_path, drawn):
    increases = {arm: [NAN, *(0.01 * i for i in range(8))] for arm in ARMS[2:]}
    noise = {arm: [NAN, *[0.008] * 8] for arm in ARMS[2:]}
    flags = dict.fromkeys(ARMS[2:], FLAGS)
    figures.coverage(tmp_path / "coverage.png", DAYS, increases, noise, flags, 0.02)
    assert size_of(tmp_path / "coverage.png") == (1300, 416)
    assert [axis["title"] for axis in drawn[0]] == ARMS[2:]
    for axis in drawn[0]:
        assert axis["lines"]["threshold"][:, 1].tolist() == [0.02, 0.02]
        assert axis["lines"]["coverage increase"][1:, 1].tolist() == increases["memento"][1:]
        assert axis["lines"]["retrained"][:, 0].tolist() == [0, 3, 6]


def test_composition(tmp_path, drawn):
    ages = {arm: [10] * 9 for arm in ARMS[1:]}
    classes = {arm: [90, *[0] * 20] for arm in ARMS[1:]}
    figures.composition(tmp_path / "memory.png", DAYS, ages, classes)
    assert size_of(tmp_path / "memory.png") == (1300, 416)
    assert drawn[0][0]["lines"]["memento"][:, 1].tolist() == pytest.approx([1 / 9] * 9)


# ----------------------------------------------------------------------------------------------
# Of the analysis

SCHEMES = ["memento", "fugu", "fugu-feb", "bba"]


def test_trade_off(tmp_path, monkeypatch):
    found = axes_of(monkeypatch)
    table = {
        "scheme": SCHEMES,
        **interval("stalled", [0.2, 0.18, 0.24, 0.3], 0.03),
        **interval("ssim", [17.1, 17.0, 17.2, 16.5], 0.1),
    }
    figures.trade_off(tmp_path / "a.png", table, title="285 days")
    assert size_of(tmp_path / "a.png") == (910, 546)
    axis = found[0].axes[0]
    left, right = axis.get_xlim()
    assert left > right  # less stalling lies to the right
    points = [c.lines[0].get_xydata()[0].tolist() for c in axis.containers]
    assert points == [list(p) for p in zip(table["stalled"], table["ssim"], strict=True)]
    bars = axis.containers[0].lines[2]
    assert sorted(bars[0].get_segments()[0][:, 0]) == pytest.approx([0.17, 0.23])
    assert sorted(bars[1].get_segments()[0][:, 1]) == pytest.approx([17.0, 17.2])
    assert [t.get_text() for t in found[0].legends[0].get_texts()] == SCHEMES
    assert "%" in axis.get_xlabel()
    assert "dB" in axis.get_ylabel()
    assert plt.get_fignums() == []


def test_more_schemes_than_colours(tmp_path, drawn):
    names = [f"scheme {i}" for i in range(9)]
    table = {
        "scheme": names,
        **interval("stalled", [0.1] * 9, 0),
        **interval("ssim", [16.0] * 9, 0),
    }
    figures.trade_off(tmp_path / "a.png", table)
    curves = {"scheme": names * 2, "value": [0.0] * 9 + [1.0] * 9, "share": [0.5] * 9 + [1.0] * 9}
    distributions(tmp_path / "b.png", curves, xlabel="s")


def test_the_smallest_cases(tmp_path, drawn):
    """A single day, a single arm, nothing held: as drawn, not as an error."""
    figures.scores(
        tmp_path / "a.png", ["x"], {"a": {"p01": [0.0], "median": [NAN]}}, {"a": [True]}, "a"
    )
    figures.coverage(tmp_path / "b.png", ["x"], {"a": [NAN]}, {"a": [NAN]}, {"a": [True]}, 0.1)
    figures.composition(tmp_path / "c.png", ["x"], {"a": [0]}, {"a": [0, 0]})
    for name in "abc":
        size_of(tmp_path / f"{name}.png")


def test_many_days_do_not_crowd_the_axis(tmp_path, drawn):
    names = [f"day {i}" for i in range(100)]
    figures.composition(tmp_path / "c.png", names, {"a": [1] * 100}, {"a": [100]})
    assert len(drawn[0][0]["ticks"]) <= 9


def test_as_many_arms_as_one_likes(tmp_path, drawn):
    arms = [f"arm {i}" for i in range(12)]
    changes = {arm: {"p01": [0.0] * 9, "median": [0.0] * 9} for arm in arms}
    figures.scores(tmp_path / "a.png", DAYS, changes, dict.fromkeys(arms, FLAGS), "arm 0")
