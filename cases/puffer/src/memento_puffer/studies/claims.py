"""What a folder of results is of: written down once, and checked by whoever goes on there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from memento.errors import DamagedError, ForeignError
from memento.files import atomic_write, storage_errors

__all__ = ["claim"]


def claim(
    path: Path, settings: Mapping[str, Any], what: str, company: Sequence[str] | None = None
) -> None:
    """Write down what the folder of a file is of, or check that it is the same.

    Args:
        path: The file.
        settings: JSON values.
        what: It is, for messages: "replay".
        company: Names of other files that may be there before this one; None for any.

    Raises:
        ForeignError: The folder is of something else, or holds other things and no such file.
        DamagedError: The file cannot be read.
        StorageError: It cannot be read or written.
    """
    settings = json.loads(json.dumps(settings))
    with storage_errors("write the settings", path):
        if not path.is_file():
            others = (p.name for p in path.parent.iterdir())
            strangers = sorted(n for n in others if n not in (company or ()) and n[0] != ".")
            if strangers and company is not None:
                raise ForeignError(
                    f"{path.parent} holds {strangers[0]!r} and no {what}; choose a new folder"
                )
            atomic_write(path, json.dumps(settings, indent=1).encode())
            return
        text = path.read_text()
    try:
        there = json.loads(text)
    except ValueError as error:
        raise DamagedError(f"{path} is not readable ({error}); remove the folder") from error
    if there.get("format") != settings["format"]:
        raise ForeignError(
            f"{path.parent}: the {what} there is of another version ({there.get('format')!r}; "
            f"this one writes {settings['format']!r}), which cannot go on here; choose another "
            "folder, or remove it. Tables that were written stay as they are"
        )
    differing = list(_differences(there, settings))
    if differing:
        more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
        raise ForeignError(
            f"{path.parent}: the {what} there has {'; '.join(differing[:3])}{more}; use the same "
            "settings, or another folder"
        )


def _differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """What differs of two JSON values, leaf by leaf: "policy.batch_size 64, not 256"."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in here:
            yield from _differences(there.get(key), here[key], f"{name}.{key}" if name else key)
    elif there != here:
        if name == "base":
            yield "base: another static model"
        else:
            yield f"{name} {_short(there)}, not {_short(here)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
