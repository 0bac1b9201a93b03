"""Prints the lowest versions that the three pyproject.toml allow, as requirements for pip.

    python .ci/floors.py cli,sklearn dev > floors.txt      # extras; the core is always there

Only what is named there is held low; what these packages need in turn is as new as they allow.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECTS = (".", "cases/puffer", "cases/datacenter")
_REQUIREMENT = re.compile(r"([\w.-]+(?:\[[\w,-]+\])?)(?:>=|==)([\w.]+)")


def floors(extras: set[str]) -> dict[str, str]:
    """Package -> its lowest version, the highest where it is named more than once."""
    lowest: dict[str, str] = {}
    for page in (
        "pyproject.toml",
        "cases/puffer/pyproject.toml",
        "cases/datacenter/pyproject.toml",
    ):
        project = tomllib.loads((ROOT / page).read_text(encoding="utf-8"))["project"]
        wanted = list(project["dependencies"])
        for extra, requirements in project["optional-dependencies"].items():
            if extra in extras:
                wanted += requirements
        for text in wanted:
            if text.startswith("memento-"):
                continue  # of the same source
            found = _REQUIREMENT.fullmatch(text.replace(" ", ""))
            if found is None:
                raise SystemExit(f"{page}: {text!r} has no lowest version; write NAME>=VERSION")
            name, version = found.groups()
            if name not in lowest or _order(version) > _order(lowest[name]):
                lowest[name] = version
    return lowest


def _order(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


if __name__ == "__main__":
    named = {extra for word in sys.argv[1:] for extra in word.split(",")}
    pins = [f"{name}=={version}\n" for name, version in sorted(floors(named).items())]
    sys.stdout.writelines(pins)
