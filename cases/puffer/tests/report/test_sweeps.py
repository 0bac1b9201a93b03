"""Figures of replays: they draw what is in the table, ours and the paper's apart."""

from __future__ import annotations

import math

import numpy as np
import pytest

plt = pytest.importorskip("matplotlib.pyplot")

from memento.report import drawing, figures  # noqa: E402
from memento_puffer.report import sweeps  # noqa: E402

NAN = math.nan
SCORES = ("tail", "median")
NAMES = ("series", "x", "label", "origin", "score", "value", "error")


@pytest.fixture
def drawn(monkeypatch):
    """Lines of the figures as they are saved, by title of their panel and label."""
    found = []

    def keep(figure, path, title=""):
        figure.savefig(path, dpi=40)
        panels = []
        for axis in figure.axes:
            lines = {}
            for line in axis.get_lines():
                lines.setdefault(line.get_label(), []).append(line)
            for held in axis.containers:
                lines.setdefault(held.get_label(), []).append(held.lines[0])
            panels.append((axis, lines))
        legends = [text.get_text() for one in figure.legends for text in one.get_texts()]
        found.append((panels, legends))
        plt.close(figure)

    monkeypatch.setattr(drawing, "save", keep)
    yield found
    assert plt.get_fignums() == []


def rows_of(rows):
    return {name: [row[i] for row in rows] for i, name in enumerate(NAMES)}


def sweep_table(value=1.0):
    return rows_of(
        [
            (series, x, series, origin, score, value * x, 0.1 if origin == "ours" else NAN)
            for series in ("memento", "random")
            for score in SCORES
            for origin, xs in (("ours", (0.0, 1.0, 10.0)), ("paper", (1.0, 10.0)))
            for x in xs
            if (series, origin) != ("random", "paper")
        ]
    )


def test_a_sweep_draws_both_origins(tmp_path, drawn):
    sweeps.sweep(tmp_path / "a.png", sweep_table(0.01), xlabel="temperature", ylabel="nats")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    ((panels, legends),) = drawn
    assert [axis.get_title() for axis, _ in panels[:2]] == ["memento", "random"]
    assert legends == ["paper (real days)", "this folder, ± standard error"]
    axis, lines = panels[0]
    (paper,) = lines["paper (real days)"]
    assert paper.get_markerfacecolor() == "white"
    assert paper.get_color() == drawing.GREY
    (ours,) = lines["this folder, ± standard error"]
    assert ours.get_color() != drawing.GREY
    np.testing.assert_allclose(ours.get_xydata(), [[0.1, 0.0], [1.0, 0.01], [10.0, 0.1]])
    assert [t.get_text() for t in panels[2][0].get_xticklabels()] == ["0", "1", "10"]
    assert "paper (real days)" not in panels[1][1]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "linear")


def test_a_collapse_is_drawn_on_another_scale(tmp_path, drawn):
    sweeps.sweep(tmp_path / "a.png", sweep_table(-2.0), xlabel="x", ylabel="nats")
    assert {axis.get_yscale() for axis, _ in drawn[0][0]} == {"symlog"}


def test_many_settings_are_labelled_by_powers_of_ten(tmp_path, drawn):
    xs = (0.0, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0)
    rows = [("s", x, "", "ours", "tail", 0.1, 0.1) for x in xs]
    sweeps.sweep(tmp_path / "a.png", rows_of(rows), xlabel="x", ylabel="nats")
    ((axis, _),) = drawn[0][0]
    labels = [t.get_text() for t in axis.get_xticklabels()]
    assert labels == ["0", "0.001", "0.01", "0.1", "1", "10"]


def test_arms_below_each_other(tmp_path, drawn):
    rows = [("", 0, arm, "ours", s, i, 0.2) for i, arm in enumerate("abc") for s in SCORES]
    rows += [("", 0, "b", "paper", s, 5.0, NAN) for s in SCORES]
    figures.arms(tmp_path / "a.png", rows_of(rows), xlabel="nats")
    panels, legends = drawn[0]
    axis, lines = panels[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["a", "b", "c"]
    (paper,) = lines["paper"]
    assert paper.get_xdata().tolist() == [5.0]
    assert paper.get_markerfacecolor() == "white"
    assert legends[0] == "paper"
    assert panels[1][0].get_title() == "median"


def test_nothing_of_the_paper_is_not_in_the_legend(tmp_path, drawn):
    rows = [("", 0, arm, "ours", "tail", 1.0, NAN) for arm in "ab"]
    figures.arms(tmp_path / "a.png", rows_of(rows), xlabel="nats")
    assert drawn[0][1] == ["this folder, ± standard error"]


def courses(scale=1.0):
    rows = [
        (period, f"{period}-0{day}", label, scale ** (day if label == "b" else 0) * (day + 1))
        for period in ("2024", "2025")
        for label in ("a", "b")
        for day in range(4)
    ]
    names = ("period", "day", "label", "value")
    return {n: [row[i] for row in rows] for i, n in enumerate(names)}


def test_courses_with_the_papers_levels_apart(tmp_path, drawn):
    paper = {"subject": ["a"], "part": ["own"], "low": [3.0], "high": [4.0]}
    sweeps.courses(tmp_path / "a.png", courses(), ylabel="loss", paper=paper)
    panels, legends = drawn[0]
    assert [axis.get_title() for axis, _ in panels] == ["2024", "2025", "paper\n(own axis)"]
    assert legends == ["a", "b"]
    (line,) = panels[0][1]["a"]
    assert line.get_ydata().tolist() == [1, 2, 3, 4]
    assert panels[0][0].get_ylim() == panels[1][0].get_ylim() != panels[2][0].get_ylim()
    assert panels[0][0].get_yscale() == "linear"
    sweeps.courses(tmp_path / "a.png", courses(20.0), ylabel="loss")
    assert drawn[1][0][0][0].get_yscale() == "log"


def test_days_of_training(tmp_path, drawn):
    table = {
        "period": ["p"] * 6, "arm": ["a"] * 3 + ["b"] * 3, "day": ["1", "2", "3"] * 2,
        "trained": [True, False, True, False, True, False],
    }  # fmt: skip
    sweeps.training_days(tmp_path / "a.png", table)
    ((axis, lines),) = drawn[0][0]
    points = [line.get_xydata().tolist() for group in lines.values() for line in group]
    assert [[0, 0], [2, 0]] in points
    assert [[1, 1]] in points
    assert axis.get_title() == "p"


def test_densities(tmp_path, drawn):
    rows = [
        ("p", f"day {day}", size, of, q, 0.01 * (day + 1))
        for size in (16, 64)
        for day in range(3)
        for of in ("day", "memory")
        for q in ("q0.01", "q0.1", "q0.5", "q0.9", "mean")
    ]
    names = ("period", "day", "batch_size", "of", "metric", "value")
    sweeps.densities(tmp_path / "a.png", {n: [row[i] for row in rows] for i, n in enumerate(names)})
    panels, legends = drawn[0]
    assert [axis.get_ylabel() for axis, _ in panels] == [
        "density, batches of 16", "density, batches of 64",
    ]  # fmt: skip
    assert len(legends) == 8
    (line,) = panels[0][1]["q0.5, new days"]
    np.testing.assert_allclose(line.get_ydata(), [0.01, 0.02, 0.03])


def test_selection_and_insert_times(tmp_path, drawn):
    rank = [0.25, 0.75]
    table = {
        "policy": ["a", "a", "b", "b"], "rank": rank * 2, "density": [0.1, 0.2] * 2,
        "loss_before": [2.0, 1.0] * 2, "kept": [1.0, 0.0, 0.5, 0.5], "change": [-1.0, 3.0, 0, 0],
    }  # fmt: skip
    sweeps.selection(tmp_path / "a.png", table)
    panels, legends = drawn[0]
    assert legends == ["a", "b"]
    (kept,) = panels[1][1]["a"]
    assert kept.get_xydata().tolist() == [[0.25, 1.0], [0.75, 0.0]]
    times = {"x": [0.5, 1.0], "mean": [3.0, 2.0], "std": [1.0, NAN],
             "paper mean": [199.0, 57.2], "paper std": [152.0, 42.8]}  # fmt: skip
    sweeps.insert_times(tmp_path / "b.png", times)
    titles = [axis.get_title() for axis, _ in drawn[1][0]]
    assert titles == ["this folder", "paper (a million samples)"]


def test_quality_has_a_panel_for_each_origin(tmp_path, drawn):
    table = {
        "origin": ["ours", "ours", "paper"], "scheme": ["a", "b", "Fugu"],
        "stalled": [1.0, 2.0, 0.1], "stalled_low": [0.5, NAN, 0.1], "stalled_high": [2.0, NAN, 0.2],
        "ssim": [15.0, 14.0, 16.0], "ssim_low": [14.0, NAN, 15.9], "ssim_high": [15.5, NAN, 16.1],
    }  # fmt: skip
    sweeps.quality(tmp_path / "a.png", table)
    (ours, _), (theirs, _) = drawn[0][0]
    assert [text.get_text() for text in ours.texts] == ["a", "b"]
    assert [text.get_text() for text in theirs.texts] == ["Fugu"]
    assert theirs.texts[0].get_color() == drawing.GREY
