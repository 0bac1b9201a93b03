"""What other processes need to know of a study: names, settings and samples. Nothing is pickled."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from memento import snapshot
from memento.errors import SettingError
from memento.files import atomic_write, storage_errors
from memento.samples import Samples

__all__ = ["Units", "name_of", "named", "receive", "send"]

_KIND = "memento-unit"
_REMEDY = "or run with workers=1, in this process"


def name_of(what: str, value: Any) -> str:
    """``"module:name"`` of a function or class that another process can import.

    A `functools.partial` of one, with keywords that are JSON values, has these behind a ``?``.

    Raises:
        SettingError: It cannot: it is a lambda, defined inside a function, or in a script.

    Example:
        >>> name_of("the learner", Samples)
        'memento.samples:Samples'
    """
    if isinstance(value, partial) and not value.args:
        return f"{name_of(what, value.func)}?{json.dumps(value.keywords)}"
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if (
        module is None
        or name is None
        or module == "__main__"
        or _looked_up(module, name) is not value
    ):
        raise SettingError(
            f"{what} is {value!r}, which other processes cannot import; give a function of a "
            f"module, not of a script and no lambda, {_REMEDY}"
        )
    return f"{module}:{name}"


def named(text: str) -> Any:
    """What `name_of` named."""
    text, _, keywords = text.partition("?")
    module, _, name = text.partition(":")
    importlib.import_module(module)
    found = _looked_up(module, name)
    return partial(found, **json.loads(keywords)) if keywords else found


def _looked_up(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def send(
    folder: Path,
    stream: Iterable[tuple[str, Any]],
    functions: Mapping[str, Callable[..., Any] | None],
    kinds: Iterable[Any],
) -> None:
    """Write down what `receive` reads in another process.

    Args:
        folder: Empty.
        stream: Its units are stored as arrays.
        functions: By what they are for; None stays None.
        kinds: Objects whose classes have to be known there: policies and triggers.

    Raises:
        SettingError: Something of it cannot be imported there.
    """
    document = {
        "path": sys.path,
        "functions": {
            what: None if function is None else name_of(what, function)
            for what, function in functions.items()
        },
        "modules": sorted({name_of(repr(kind), type(kind)).partition(":")[0] for kind in kinds}),
    }
    with storage_errors("hand a study to other processes", folder):
        atomic_write(folder / "study.json", json.dumps(document).encode())
        for number, (name, data) in enumerate(stream):
            arrays = {} if data is None else dict(Samples.borrow(data))
            facts = {"unit": {"name": name, "missing": data is None}}
            snapshot.write(folder / f"unit-{number:06d}", _KIND, arrays, facts)


def receive(folder: Path) -> dict[str, Any]:
    """The functions that were sent; modules are imported, and found where they were."""
    document = json.loads((folder / "study.json").read_text())
    sys.path += [place for place in document["path"] if place not in sys.path]
    for module in document["modules"]:
        importlib.import_module(module)
    return {
        what: None if text is None else named(text) for what, text in document["functions"].items()
    }


class Units:
    """The stream that was sent, read unit by unit, as often as it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for place in sorted(self._folder.glob("unit-*")):
            found = snapshot.read(place, _KIND)
            about = found.documents["unit"]
            yield about["name"], None if about["missing"] else Samples.borrow(found.arrays)
