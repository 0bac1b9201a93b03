"""Everything that Memento raises on purpose.

Each message says what was found, what was expected and what to change.

    MementoError
    ├── InputError (also a ValueError)      what the caller handed in
    │   ├── SchemaError                     columns missing, of other lengths, types or widths
    │   │   └── ColumnTypeError             a type that cannot be held, alone or beside what is held
    │   ├── RowError (also an IndexError)   rows that are not there
    │   ├── DomainError                     values: NaN, negative probabilities, labels out of range
    │   │   └── NewLabelError               a label that is none of the classes that were named
    │   └── SettingError                    an argument of a policy, a distance or a memory
    ├── StorageError (also an OSError)      a folder or file
    │   ├── DamagedError                    its content differs from its manifest
    │   ├── ForeignError                    it is not what it was taken for
    │   ├── LockedError                     somebody else is writing
    │   └── SpaceError                      no room is left
    ├── ModelError                          a model cannot be loaded, or predicts nonsense
    ├── WorkerError                         processes or machines that share the work are gone
    └── MissingExtraError (also ImportError) an optional dependency is not installed
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

__all__ = [
    "ColumnTypeError",
    "DamagedError",
    "DomainError",
    "ForeignError",
    "InputError",
    "LockedError",
    "MementoError",
    "MissingExtraError",
    "ModelError",
    "NewLabelError",
    "RowError",
    "SchemaError",
    "SettingError",
    "SpaceError",
    "StorageError",
    "WorkerError",
    "needs",
    "reason_of",
    "warn",
]

_PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")


def warn(message: str) -> None:
    """Warn the caller of this package: the line that is named is the last one outside of it."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level += 1
        frame = frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level + 1)


class MementoError(Exception):
    """Base of all errors that Memento raises on purpose."""


class InputError(MementoError, ValueError):
    """The caller's data or settings cannot be used."""


class SchemaError(InputError):
    """Columns are missing, differ in length, or have another type or width than before."""


class ColumnTypeError(SchemaError):
    """A column's type cannot be held, or not beside the one that is held without changing values.

    Args:
        column: The column's name.
        found: What was found, as a clause.
        remedy: What a caller in Python can do about it.

    Attributes:
        column: As given.
        found: As given: for those who know another remedy, such as an option.
    """

    def __init__(self, column: str, found: str, remedy: str) -> None:
        super().__init__(f"{found}; {remedy}")
        self.column = column
        self.found = found

    def __reduce__(self) -> tuple[object, ...]:
        remedy = str(self).removeprefix(f"{self.found}; ")
        return ColumnTypeError, (self.column, self.found, remedy)


class RowError(InputError, IndexError):
    """Rows are asked for that are not there, or in a form that names no rows."""


class DomainError(InputError):
    """A column holds values outside its domain: NaN, a negative probability, an unknown label."""


class NewLabelError(DomainError):
    """A label is none of the classes that a distance was told of.

    Args:
        column: The column's name.
        found: What was found, as a clause.
        remedy: What a caller in Python can do about it.
        classes: How many classes there have to be; None: labels are no classes from 0 on.

    Attributes:
        column, found, classes: As given: for those who know another remedy, such as a command.
    """

    def __init__(self, column: str, found: str, remedy: str, classes: int | None = None) -> None:
        super().__init__(f"{found}{remedy}")
        self.column = column
        self.found = found
        self.classes = classes

    def __reduce__(self) -> tuple[object, ...]:
        remedy = str(self).removeprefix(self.found)
        return NewLabelError, (self.column, self.found, remedy, self.classes)


class SettingError(InputError):
    """An argument of a policy, a distance, a trigger or a memory is out of its range."""


class StorageError(MementoError, OSError):
    """A file or folder cannot be read or written."""


class DamagedError(StorageError):
    """The content of a folder differs from its manifest."""


class ForeignError(StorageError):
    """A folder is not what it was taken for; it is left alone."""


class LockedError(StorageError):
    """Another process is writing to this folder."""


class SpaceError(StorageError):
    """The disk, or a limit on file sizes, leaves no room."""


class ModelError(MementoError):
    """A model cannot be loaded, or what it predicts cannot be used."""


class WorkerError(MementoError):
    """Workers that share the work are gone, or die again and again at the same part of it."""


class MissingExtraError(MementoError, ImportError):
    """An optional dependency is not installed, or broken; the message says what brings it."""

    def __init__(
        self, package: str, extra: str | None, purpose: str, state: str = "is not installed"
    ) -> None:
        wanted = package if extra is None else f'"memento-replay[{extra}]"'
        super().__init__(
            f"{purpose} needs the package {package!r}, which {state}: pip install {wanted}"
        )


@contextlib.contextmanager
def needs(package: str, extra: str | None, purpose: str) -> Iterator[None]:
    """Around imports of an optional dependency: what fails there is a `MissingExtraError`.

    Args:
        package: What to install, for the message.
        extra: Of this distribution, that brings it; None: none does.
        purpose: What needs it, for the message.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(package, extra, purpose) from error
    except ImportError as error:
        broken = f"cannot be imported ({reason_of(error)}); install it anew"
        raise MissingExtraError(package, extra, purpose, broken) from error


def reason_of(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
