"""Lets the API reference read sections called `Example:` as code that runs, like `Examples:`."""

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Renames the section in what is read, before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
