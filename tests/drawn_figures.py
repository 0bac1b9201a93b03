"""Looks at figures when they are saved, for tests of what draws them."""

from __future__ import annotations

import struct

from memento.report import drawing


def size_of(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def interval(name, values, spread):
    low = [v - spread for v in values]
    return {name: values, f"{name}_low": low, f"{name}_high": [v + spread for v in values]}


def axes_of(monkeypatch):
    """The figure itself, before it is closed."""
    found = []
    save = drawing.save

    def keep(figure, path, title=""):
        found.append(figure)
        save(figure, path, title)

    monkeypatch.setattr(drawing, "save", keep)
    return found
