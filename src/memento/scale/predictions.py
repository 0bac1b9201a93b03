"""Predictions that are made while blocks are read: functions, networks, estimators, ONNX files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import (
    MementoError,
    ModelError,
    SettingError,
    StorageError,
    needs,
    reason_of,
)
from memento.files import digest

__all__ = ["Model", "checked_outputs", "model_of", "onnx_function"]

# Small pieces are faster than one large one: activations stay in the cache.
_ROWS = 4096


@dataclass(frozen=True)
class Model:
    """What predicts.

    Attributes:
        predict: A function from inputs ``(n, ...)`` to outputs ``(n, k)`` or ``(n,)``; a module of
            torch; an estimator of scikit-learn; the path of an ONNX file.
        inputs: Column that it reads.
        column: Column that its outputs are.
    """

    predict: Any
    inputs: str = "x"
    column: str = "yhat"

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs for every row, ``(n, k)`` or ``(n,)`` floating point.

        Raises:
            ModelError: The model fails, or gives another shape or values that are not finite.
        """
        return checked_outputs(self._call(), inputs, "predict", repr(self.inputs))

    def fingerprint(self, inputs: np.ndarray) -> str:
        """What tells models apart: a digest of what they predict for some rows."""
        outputs = self.outputs(inputs)
        return digest(f"{outputs.dtype} {outputs.shape}".encode() + outputs.tobytes())

    def _call(self) -> Callable[[np.ndarray], Any]:
        given = self.predict
        if isinstance(given, str):
            return _loaded(given)
        if hasattr(given, "named_parameters") and hasattr(given, "train"):
            return _network(given)
        if hasattr(given, "predict_proba"):
            return lambda rows: given.predict_proba(rows.reshape(len(rows), -1))
        if hasattr(given, "predict") and not callable(given):
            return lambda rows: given.predict(rows.reshape(len(rows), -1))
        call: Callable[[np.ndarray], Any] = given
        return call


def checked_outputs(
    call: Callable[[np.ndarray], Any], inputs: np.ndarray, what: str, where: str
) -> np.ndarray:
    """Outputs of a function of the user's for every row, a few thousand rows at a time.

    Args:
        call: From inputs ``(m, ...)`` to outputs ``(m, k)`` or ``(m,)``.
        inputs: ``(n, ...)`` numbers, at least one row.
        what: Name of the function, for messages.
        where: What says which inputs it gets, for messages.

    Returns:
        ``(n, k)`` or ``(n,)`` floating point, finite.

    Raises:
        ModelError: It fails, or gives another shape or values that are not finite.

    Example:
        >>> checked_outputs(np.sqrt, np.array([[4.0], [9.0]]), "sqrt", "'x'").tolist()
        [[2.0], [3.0]]
    """
    pieces = []
    for start in range(0, len(inputs), _ROWS):
        piece = inputs[start : start + _ROWS]
        try:
            outputs = np.asarray(call(piece))
        except MementoError:
            raise
        except Exception as error:  # whatever a model of the user's may raise
            raise ModelError(
                f"{what} failed on inputs of shape {piece.shape} and type {piece.dtype}: "
                f"{type(error).__name__}: {reason_of(error)}; check {where} and what the model "
                "was trained on"
            ) from error
        if outputs.ndim not in (1, 2) or len(outputs) != len(piece):
            raise ModelError(
                f"{what} gave the shape {outputs.shape} for {len(piece):,} rows; expected "
                "one number, or one row of numbers, for each"
            )
        if outputs.dtype.kind not in "fiub":
            raise ModelError(f"{what} gave {outputs.dtype}; expected numbers")
        outputs = outputs.astype(np.result_type(outputs, np.float32), copy=False)
        finite = np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)
        if not finite.all():
            raise ModelError(
                f"{what} gave NaN or infinite values, first in row {start + finite.argmin():,}; "
                f"check the model's weights and the scale of {where}"
            )
        pieces.append(outputs)
    widths = {piece.shape[1:] for piece in pieces}
    if len(widths) > 1:
        raise ModelError(f"{what} gave rows of the shapes {sorted(widths)}; expected one")
    return np.concatenate(pieces)


def model_of(predict: Any, inputs: str, column: str) -> Model | None:
    """The model that an argument means; None for none.

    Raises:
        SettingError: It is nothing that predicts.
        StorageError: There is no such file.
    """
    if predict is None:
        return None
    if isinstance(predict, (str, Path)):
        path = Path(predict)
        if path.suffix.lower() != ".onnx":
            raise SettingError(
                f"predict is {str(predict)!r}; expected the path of an ONNX file, a function, a "
                "module of torch or an estimator"
            )
        if not path.is_file():
            raise StorageError(f"{path}: no such file; check the name given to predict")
        _loaded(str(path.absolute()))  # what cannot be loaded fails before anything is read
        return Model(str(path.absolute()), inputs, column)
    if not callable(predict) and not hasattr(predict, "predict"):
        raise SettingError(
            f"predict is {predict!r}; expected a function from inputs to outputs, a module of "
            "torch, an estimator of scikit-learn, or the path of an ONNX file"
        )
    return Model(predict, inputs, column)


@lru_cache(maxsize=2)
def _loaded(path: str) -> Callable[[np.ndarray], np.ndarray]:
    """An ONNX file, loaded once a process."""
    return onnx_function(Path(path), f"predicting with {path}")


def _network(module: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A module of torch as a function; it is in the mode for predictions only during a call."""
    with needs("torch", "torch", "predicting with a module of torch"):
        import torch
    kind = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)

    def call(inputs: np.ndarray) -> np.ndarray:
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        try:
            with torch.inference_mode():
                outputs = module(torch.tensor(inputs).to(kind))
        finally:
            for part, mode in modes:  # one by one: some may be frozen
                part.training = mode
        return np.asarray(outputs.detach().cpu().numpy())

    return call


_FLOATS = ("tensor(float)", "tensor(double)")


def onnx_function(path: Path, purpose: str) -> Callable[[np.ndarray], np.ndarray]:
    """An ONNX file as a function from inputs to probabilities.

    Args:
        path: The file.
        purpose: What needs it, for messages.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ModelError: It is no ONNX, or has other inputs and outputs.
    """
    with needs("onnxruntime", "onnx", purpose):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; logs quote the file as it is
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime has a class of its own for every status
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise ModelError(f"{path} cannot be loaded as ONNX: {reason}") from error
    if len(session.get_inputs()) != 1:
        names = [given.name for given in session.get_inputs()]
        raise ModelError(f"{path} has the inputs {names}; expected a single one")
    (wanted,) = session.get_inputs()
    kind = {"tensor(double)": np.float64, "tensor(int64)": np.int64}.get(wanted.type, np.float32)
    # Classifiers converted from other libraries give a label first and probabilities second.
    floats = [out.name for out in session.get_outputs() if out.type in _FLOATS]
    if not floats:
        kinds = {out.name: out.type for out in session.get_outputs()}
        raise ModelError(
            f"{path} has the outputs {kinds}; expected one tensor of probabilities (for converted "
            "scikit-learn models set zipmap=False)"
        )

    def call(inputs: np.ndarray) -> np.ndarray:
        (outputs,) = session.run([floats[-1]], {wanted.name: inputs.astype(kind, copy=False)})
        return np.asarray(outputs)

    return call
