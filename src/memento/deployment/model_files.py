"""The files of any learner: what skops made of an estimator, all other arrays as .npz."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memento.files import write_npz
from memento.integrations.sklearn import archive_of_state, state_of_archive
from memento.learner import digest_of_state

__all__ = ["LearnerFiles"]

_SKOPS, _ARRAYS = "model.skops", "learner.npz"


class LearnerFiles:
    """States of learners as files: ``model.skops`` (scikit-learn) and ``learner.npz``.

    A model is a sequence of states, one a task; empty or None where it has none yet.

    Args:
        tasks: Their names, with which names of files begin; a single task may have the empty name.
    """

    format = "memento-model"
    key = "model"
    remedy = "restore it from a copy, or go to another version with memento deploy rollback"

    def __init__(self, tasks: Sequence[str] = ("",)) -> None:
        self._prefixes = [f"{name}-" if name else "" for name in tasks]

    def identity(self, model: Sequence[Mapping[str, np.ndarray] | None]) -> Any:
        """SHA-256 of the state; of several a list."""
        digests = [digest_of_state(state) if state else "" for state in model]
        return digests if any(self._prefixes) else digest_of_state(model[0] or {})

    def write(self, folder: Path, model: Sequence[Mapping[str, np.ndarray] | None]) -> list[str]:
        """See `ModelFiles`."""
        names = []
        for prefix, state in zip(self._prefixes, model, strict=True):
            for name, data in _files_of(state or {}).items():
                (folder / f"{prefix}{name}").write_bytes(data)
                names.append(f"{prefix}{name}")
        return names

    def read(self, folder: Path) -> list[dict[str, np.ndarray]]:
        """See `ModelFiles`."""
        states = []
        for prefix in self._prefixes:
            state: dict[str, np.ndarray] = {}
            if (file := folder / f"{prefix}{_SKOPS}").is_file():
                state |= state_of_archive(file.read_bytes())
            if (file := folder / f"{prefix}{_ARRAYS}").is_file():
                with np.load(file, allow_pickle=False) as found:
                    state |= dict(found)
            states.append(state)
        return states

    def check(self, model: Sequence[Mapping[str, np.ndarray]]) -> None:
        """What a model predicts was looked at by the gate."""

    def lacking(self, identity: Any, other: Any) -> list[str]:
        """Tasks of which another version has a model, and this one has none."""
        found = zip(self._prefixes, identity, other, strict=False)  # a single one is a text
        return [prefix[:-1] for prefix, own, theirs in found if theirs and not own]


def _files_of(state: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The files of a version: what skops made as skops reads it, all other arrays as .npz."""
    archive, rest = archive_of_state(state)
    files = {} if archive is None else {_SKOPS: archive}
    if rest:
        buffer = io.BytesIO()
        write_npz(buffer, dict(sorted(rest.items())))
        files[_ARRAYS] = buffer.getvalue()
    return files
