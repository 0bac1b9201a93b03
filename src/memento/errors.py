"""Everything that Memento raises on purpose.

Each message says what was found, what was expected and what to change.

    MementoError
    ├── InputError (also a ValueError)      what the caller handed in
    │   ├── SchemaError                     columns missing, of other lengths, types or widths
    │   ├── DomainError                     values: NaN, negative probabilities, labels out of range
    │   └── SettingError                    an argument of a policy, a distance or a memory
    ├── StorageError (also an OSError)      a folder or file
    │   ├── DamagedError                    its content differs from its manifest
    │   ├── ForeignError                    it is not what it was taken for
    │   ├── LockedError                     somebody else is writing
    │   └── SpaceError                      no room is left
    ├── ModelError                          a model cannot be loaded, or predicts nonsense
    └── MissingExtraError (also ImportError) an optional dependency is not installed
"""

from __future__ import annotations

__all__ = [
    "DamagedError",
    "DomainError",
    "ForeignError",
    "InputError",
    "LockedError",
    "MementoError",
    "MissingExtraError",
    "ModelError",
    "SchemaError",
    "SettingError",
    "SpaceError",
    "StorageError",
]


class MementoError(Exception):
    """Base of all errors that Memento raises on purpose."""


class InputError(MementoError, ValueError):
    """The caller's data or settings cannot be used."""


class SchemaError(InputError):
    """Columns are missing, differ in length, or have another type or width than before."""


class DomainError(InputError):
    """A column holds values outside its domain: NaN, a negative probability, an unknown label."""


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


class MissingExtraError(MementoError, ImportError):
    """An optional dependency is not installed; the message says which extra brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: "
            f'pip install "memento-replay[{extra}]"'
        )
