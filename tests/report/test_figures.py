"""Figures: drawn from tables, written as PNG, and nothing left open."""

from __future__ import annotations

import builtins

import pytest

plt = pytest.importorskip("matplotlib.pyplot")

from drawn_figures import axes_of, size_of  # noqa: E402
from memento.errors import MissingExtraError  # noqa: E402
from memento.report import figures  # noqa: E402

NAN = float("nan")
DAYS = [f"day {i}" for i in range(9)]
ARMS = ["static", "random", "memento", "density-reservoir"]
FLAGS = [i % 3 == 0 for i in range(9)]


def test_distributions(tmp_path, drawn):
    table = {
        "scheme": ["memento"] * 3 + ["fugu"],
        "value": [-3.0, 0.0, 2.0, 1.0],
        "share": [0.25, 0.5, 1.0, 1.0],
    }
    figures.distributions(tmp_path / "a.png", table, xlabel="difference (%)")
    assert size_of(tmp_path / "a.png") == (780, 520)
    lines = drawn[0][0]["lines"]
    steps = lines["memento (50% above 0)"]
    assert steps.tolist() == [[-3, 0], [-3, 0.25], [0, 0.5], [2, 1]]
    assert "fugu (100% above 0)" in lines
    named = {"of": table.pop("scheme"), **table}
    figures.distributions(tmp_path / "b.png", named, by="of", xlabel="s", zero=False, log=True)
    assert "memento" in drawn[1][0]["lines"]


def test_diagram(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(figures.drawing, "save", lambda figure, path: kept.append(figure))
    boxes = {"a": (0.1, 0.5), "b": (0.5, 0.5), "c": (0.9, 0.2)}
    table = figures.arrows(boxes, [(0, 1, "asks"), (1, 2, "tells")])
    assert (table["source_x"], table["target_y"]) == ([0.1, 0.5], [0.5, 0.2])
    figures.diagram(tmp_path / "a.png", table)
    plt.close(kept[0])
    texts = [text.get_text() for text in kept[0].axes[0].texts]
    assert sorted(set(texts) - {""}) == ["a", "asks", "b", "c", "tells"]
    assert texts.count("") == 2  # arrows


def test_time_series(tmp_path, drawn):
    days = ["2022-09-30", "2022-10-01", "2022-10-04"]
    table = {
        "day": days * 2,
        "scheme": ["memento"] * 3 + ["fugu"] * 3,
        "value": [0.2, 0.3, 0.4, 0.3, NAN, 0.1],
        "low": [0.1] * 6,
        "high": [0.5] * 6,
    }
    figures.time_series(tmp_path / "a.png", table, ylabel="time stalled (%)", zero=True)
    assert size_of(tmp_path / "a.png") == (1170, 468)
    lines = drawn[0][0]["lines"]
    values = lines["memento"][:, 1].tolist()
    assert values[:2] == [0.2, 0.3]
    assert all(v != v for v in values[2:4])  # two days without data are a gap, not a slope
    assert values[4] == 0.4
    only = {name: column[:1] for name, column in table.items()}
    figures.time_series(tmp_path / "b.png", only, ylabel="x")
    figures.time_series(tmp_path / "c.png", {n: [] for n in table}, ylabel="x")


def test_forest(tmp_path, monkeypatch):
    found = axes_of(monkeypatch)
    table = {
        "first": ["memento", "fugu"] * 2,
        "second": ["fugu-feb"] * 4,
        "variable": ["stalled"] * 2 + ["ssim"] * 2,
        "unit": ["%"] * 2 + ["dB"] * 2,
        "value": [-0.1, 0.2, 0.0, 0.3],
        "low": [-0.2, 0.1, -0.1, 0.2],
        "high": [-0.05, 0.3, 0.1, 0.4],
    }
    figures.forest(tmp_path / "a.png", table, better={"stalled": "less"})
    size_of(tmp_path / "a.png")
    stalled, ssim = found[0].axes
    assert [axis.get_title() for axis in (stalled, ssim)] == ["stalled", "ssim"]
    assert "less is better" in stalled.get_xlabel()
    assert "(dB)" in ssim.get_xlabel()
    lines = [line for line in stalled.get_lines() if line.get_linestyle() == "-"][1:]
    assert lines[0].get_xydata().tolist() == [[-0.2, 1], [-0.05, 1]]
    hollow = [
        line.get_markerfacecolor() == "white"
        for line in ssim.get_lines()
        if line.get_marker() == "s"
    ]
    assert hollow == [True, False]
    ticks = [t.get_text() for t in stalled.get_yticklabels()]
    assert ticks == ["memento - fugu-feb", "fugu - fugu-feb"]
    figures.forest(tmp_path / "b.png", {n: [] for n in table})


def test_without_matplotlib(tmp_path, monkeypatch):
    plain = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r'pip install "memento-replay\[figures\]"'):
        figures.distributions(
            tmp_path / "c.png", {n: [] for n in ("scheme", "value", "share")}, xlabel="s"
        )
