"""Looks into reports, for tests of what makes them."""

from __future__ import annotations

import json


def listing(section, name):
    (found,) = [one for one in section.listings if one.name == name]
    return found.table


def everything_is_drawn(report, folder):
    names = [part.name for section in report.sections for part in section.charts]
    assert len(set(names)) == len(names)
    names = [part.name for section in report.sections for part in section.listings]
    assert len(set(names)) == len(names)
    json.dumps(report.document(), allow_nan=False)
    report.write(folder / "page.html")
    text = (folder / "page.html").read_text()
    charts = sum(len(section.charts) for section in report.sections)
    assert text.count("data:image/png;base64") == charts
    for section in report.sections:
        assert f'<h2 id="{section.name}">' in text
