"""Settings from files: types as annotated, every wrong name and value with its place."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest

pytest.importorskip("msgspec")

from memento.arguments import text, whole
from memento.errors import SettingError, StorageError
from memento.settings import build, check_plain, convert, parse, read


@dataclass(frozen=True)
class Part:
    size: Annotated[int, whole()]
    share: float = 0.5
    name: Annotated[str, text("a name")] | None = None


@dataclass(frozen=True)
class Whole:
    part: Part
    parts: Mapping[str, Part] = field(default_factory=dict)
    numbers: tuple[int, ...] = ()
    free: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.numbers) > 3:
            raise SettingError("numbers are more than three")


def test_tables_become_dataclasses():
    given = {
        "part": {"size": 2, "share": 1},
        "parts": {"a": {"size": 3, "name": "x"}},
        "numbers": [1, 2],
        "free": {"b": {"any": [1, "x"]}},
    }
    made = build(Whole, given, "f.toml")
    assert made == Whole(Part(2, 1.0), {"a": Part(3, name="x")}, (1, 2), {"b": {"any": [1, "x"]}})
    assert type(made.part.share) is float
    assert given["part"] == {"size": 2, "share": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prat": 1}, "f.toml: unknown key 'prat'; known are part, parts, numbers, free"),
        ({"part": 3}, "f.toml: part is 3; expected a table [part]"),
        ({"part": {}}, "f.toml: [part] has no 'size'; add it: size is a whole number above 0"),
        ({"part": {"size": 0}}, "f.toml: [part]: size is 0; expected a whole number above 0"),
        ({"part": {"size": True}}, "f.toml: [part]: size is True; expected a whole number above"),
        ({"part": {"size": 2.0}}, "f.toml: [part]: size is 2.0; expected a whole number above 0"),
        ({"part": {"size": 1, "name": ""}}, "f.toml: [part]: name is ''; expected a name"),
        ({"part": {"size": 1, "share": "x"}}, "[part]: share is 'x'; expected a number"),
        ({"parts": {"a": 1}}, "f.toml: parts.a is 1; expected a table [parts.a]"),
        ({"parts": {"a": {"size": "1"}}}, "f.toml: [parts.a]: size is '1'; expected a whole"),
        ({"numbers": "12"}, "f.toml: numbers is '12'; expected a list"),
        ({"numbers": [1, "x"]}, "f.toml: numbers[1] is 'x'; expected a whole number"),
        ({"numbers": [1, 2, 3, 4]}, "f.toml: numbers are more than three"),
        ({"free": {"b": 1}}, "f.toml: free.b is 1; expected a table [free.b]"),
    ],
)
def test_what_is_wrong_has_its_place(change, words):
    with pytest.raises(SettingError) as refused:
        build(Whole, {"part": {"size": 1}, **change}, "f.toml")
    assert words in str(refused.value)


def test_a_table_that_is_missing():
    with pytest.raises(SettingError, match=r"f\.toml has no table \[part\]; add it"):
        build(Whole, {}, "f.toml")


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int | str, [1, "x"], 1.5),
        (float | None, [1.5, None], "x"),
        (list[float], [[1.5]], [True]),
        (dict[str, int], [{"a": 1}], {"a": "x"}),
        (Annotated[int, whole(3)] | None, [3, None], 2),
    ],
)
def test_values_are_as_annotated(hint, good, bad):
    for value in good:
        assert convert(value, hint, "it") == value
    with pytest.raises(SettingError, match=r"it(\[0\])? is .*; expected "):
        convert(bad, hint, "it")


def test_annotations_that_no_file_can_meet_allow_anything():
    assert convert("x", object, "it") == "x"
    assert convert([1], list[int] | tuple[int, ...], "it") == [1]


def test_files(tmp_path):
    (tmp_path / "good.toml").write_text("[a]\nb = 1\n")
    assert read(tmp_path / "good.toml") == {"a": {"b": 1}}
    for content in (b"a = ", b"\xff"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(SettingError, match=r"bad\.toml is no TOML: .*correct it there"):
            read(tmp_path / "bad.toml")
    with pytest.raises(StorageError, match=r"none\.toml"):
        read(tmp_path / "none.toml")


@pytest.mark.parametrize("value", [dt.date(2026, 1, 1), math.inf, math.nan, None])
def test_what_json_has_not(value):
    check_plain({"a": [1, "x", True]}, "f.toml")
    with pytest.raises(SettingError, match=r"f\.toml: .* is no setting"):
        check_plain({"a": [{"b": value}]}, "f.toml")


@pytest.mark.parametrize("words", ["x", "=3", " = "])
def test_assignments_have_a_name(words):
    assert parse("a = [1]") == {"a": [1]}
    with pytest.raises(SettingError, match="NAME=VALUE"):
        parse(words)
