"""The files of any learner: what skops made of an estimator, all other arrays as .npz."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from memento.integrations.sklearn import archive_of_state, state_of_archive
from memento.learner import digest_of_state

__all__ = ["LearnerFiles"]

_SKOPS, _ARRAYS = "model.skops", "learner.npz"


class LearnerFiles:
    """A learner's state as files: ``model.skops`` (scikit-learn) and ``learner.npz``."""

    format = "memento-model"
    key = "model"
    remedy = "restore it from a copy, or go to another version with memento deploy rollback"

    def identity(self, model: Mapping[str, np.ndarray]) -> str:
        """SHA-256 of the state."""
        return digest_of_state(model)

    def write(self, folder: Path, model: Mapping[str, np.ndarray]) -> list[str]:
        """See `ModelFiles`."""
        files = _files_of(model)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return list(files)

    def read(self, folder: Path) -> dict[str, np.ndarray]:
        """See `ModelFiles`."""
        state: dict[str, np.ndarray] = {}
        if (folder / _SKOPS).is_file():
            state |= state_of_archive((folder / _SKOPS).read_bytes())
        if (folder / _ARRAYS).is_file():
            with np.load(folder / _ARRAYS, allow_pickle=False) as found:
                state |= dict(found)
        return state

    def check(self, model: Mapping[str, np.ndarray]) -> None:
        """What a model predicts was looked at by the gate."""


def _files_of(state: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The files of a version: what skops made as skops reads it, all other arrays as .npz."""
    archive, rest = archive_of_state(state)
    files = {} if archive is None else {_SKOPS: archive}
    if rest:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as out:
            for name in sorted(rest):
                content = io.BytesIO()
                np.lib.format.write_array(content, np.asarray(rest[name]), allow_pickle=False)
                out.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())
        files[_ARRAYS] = buffer.getvalue()
    return files
