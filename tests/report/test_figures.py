"""Figures: drawn from tables, written as PNG, and nothing left open."""

from __future__ import annotations

import builtins
import struct

import pytest

plt = pytest.importorskip("matplotlib.pyplot")

from memento.errors import MissingExtraError  # noqa: E402
from memento.report import figures  # noqa: E402

NAN = float("nan")
DAYS = [f"day {i}" for i in range(9)]
ARMS = ["static", "random", "memento", "density-reservoir"]
FLAGS = [i % 3 == 0 for i in range(9)]


def size_of(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


@pytest.fixture
def drawn(monkeypatch):
    """The figures as they are when they are saved."""
    found = []
    save = figures._save

    def keep(figure, path):
        found.append(
            [
                {
                    "title": axis.get_title(),
                    "lines": {line.get_label(): line.get_xydata() for line in axis.get_lines()},
                    "ticks": [label.get_text() for label in axis.get_xticklabels()],
                }
                for axis in figure.axes
            ]
        )
        save(figure, path)

    monkeypatch.setattr(figures, "_save", keep)
    yield found
    assert plt.get_fignums() == []


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


def test_without_matplotlib(tmp_path, monkeypatch):
    plain = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r'pip install "memento-replay\[figures\]"'):
        figures.composition(tmp_path / "c.png", ["x"], {"a": [1]}, {"a": [1]})
