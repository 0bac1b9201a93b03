"""Models that predict on the command line: TorchScript, ONNX, or a function of the user's.

None is unpickled: TorchScript and ONNX are formats of their own, and a function is imported by its
name from a module that the user can read.
"""

from __future__ import annotations

import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from memento import plugins
from memento.errors import ModelError, SettingError, StorageError, needs
from memento.files import digest
from memento.scale.predictions import checked_outputs, onnx_function

__all__ = ["Predictor", "load_model", "named", "predicted"]


@dataclass(frozen=True)
class Predictor:
    """A model that is ready to predict.

    Attributes:
        name: What the user called it.
        digest: SHA-256 of what it is; tells whether predictions are up to date.
        call: From inputs ``(n, ...)`` to outputs ``(n, k)``.
        known: Whether the digest changes whenever the model does. That of a function is of its code
            alone, unless its module states a version or the files that it reads are named.
    """

    name: str
    digest: str
    call: Callable[[np.ndarray], Any]
    known: bool = True

    def predict(self, inputs: np.ndarray, *, softmax: bool = False) -> np.ndarray:
        """Outputs for every row.

        Args:
            inputs: ``(n, ...)`` numbers.
            softmax: The model gives logits: turn each row into probabilities.

        Returns:
            ``(n, k)`` floating point, finite.

        Raises:
            ModelError: The model fails, or gives another shape, or values that are not finite.
        """
        outputs = checked_outputs(self.call, inputs, self.name, "--inputs")
        if outputs.ndim != 2:
            raise ModelError(
                f"{self.name} gave one number a row; expected a row of numbers, (n, classes)"
            )
        if softmax:
            outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            outputs /= outputs.sum(axis=1, keepdims=True)
        return outputs


def load_model(spec: str, files: Sequence[Path] = ()) -> Predictor:
    """A predictor from what stands after ``--model``.

    Args:
        spec: ``model.pt`` (TorchScript: a program, to be trusted), ``model.onnx``, or
            ``module:function``, where the function takes the inputs array and returns
            probabilities; the module may lie in the working directory. The module may state in
            ``model_version``, a text or a function that returns one, which model the function
            uses.
        files: Files whose content is the model, too: what a function reads, such as its weights.

    Raises:
        ModelError: The model cannot be loaded.
        StorageError: There is no such file.
        MissingExtraError: PyTorch or ONNX Runtime is not installed.
    """
    contents = [digest(_existing(file, "--model-file")) for file in files]
    ending = Path(spec).suffix.lower()
    if ending in (".pt", ".pth", ".ts"):
        known, call = [digest(_existing(spec))], _torchscript(Path(spec))
    elif ending == ".onnx":
        known = [digest(_existing(spec))]
        call = onnx_function(Path(spec), f"--model {spec}")
    elif ":" in spec:
        return _function(spec, contents)
    else:
        raise ModelError(
            f"--model {spec!r} is of no known kind; expected model.pt (TorchScript), model.onnx or "
            "module:function"
        )
    return Predictor(spec, _joined([*known, *contents]), call)


@lru_cache(maxsize=1)
def _loaded(spec: str, files: tuple[Path, ...]) -> Predictor:
    """A predictor, once a process: those that share the work get its name, not its content."""
    return load_model(spec, files)


def predicted(spec: str, files: tuple[Path, ...], softmax: bool, inputs: np.ndarray) -> np.ndarray:
    """Outputs of the model that stands after ``--model``; see `load_model` and `Predictor`."""
    return _loaded(spec, files).predict(inputs, softmax=softmax)


def named(name: str) -> str:
    """What stands for the digest of a model that is known by a name only."""
    return f"named {name}"


def _joined(digests: Sequence[str]) -> str:
    """One digest of several; a single one as it is."""
    return digests[0] if len(digests) == 1 else digest("\0".join(digests).encode())


def _existing(file: str | Path, option: str = "--model") -> Path:
    path = Path(file)
    if not path.is_file():
        raise StorageError(f"{file}: no such file; check the name given to {option}")
    return path


def _torchscript(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A TorchScript file as a function from inputs to outputs."""
    with needs("torch", "torch", f"--model {path}"):
        import torch
    warnings.warn(
        f"{path} is TorchScript, a program that runs with your rights and may write files: use it "
        "only if you trust who made it; ONNX models run no code",
        stacklevel=2,
    )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums
        if damaged is not None:
            raise ModelError(
                f"{path} is damaged: {damaged!r} in it differs from its checksum; save or fetch it "
                "again"
            )
        with warnings.catch_warnings():
            # Newer versions of torch announce a successor, which unpickles and so is not read here.
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except ModelError:
        raise
    except Exception as error:  # of zipfile, zlib and torch: whatever they stumble over
        raise ModelError(
            f"{path} is no TorchScript: {_first_line(error)}; save it with "
            "torch.jit.script(model).save(...) or torch.jit.trace, or export it to ONNX "
            "(state dictionaries and pickled models are not read)"
        ) from error
    module.eval()
    # The weights decide the type: float64 models refuse float32 inputs and the other way round.
    kind = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)

    def call(inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs = module(torch.tensor(inputs).to(kind))
        array: np.ndarray = outputs.numpy()
        return array

    return call


def _function(spec: str, contents: Sequence[str]) -> Predictor:
    """A function of a user's module as a predictor."""
    try:
        function = plugins.named(spec, f"--model {spec}")
    except SettingError as error:
        raise ModelError(str(error)) from error
    module = sys.modules[spec.partition(":")[0]]
    source = getattr(module, "__file__", None)
    code = Path(source).read_bytes() if source else b""
    version = _version(spec, module)
    parts = [digest(spec.encode() + b"\0" + code), *contents]
    parts += [] if version is None else [digest(version.encode())]
    return Predictor(spec, _joined(parts), function, bool(contents) or version is not None)


def _version(spec: str, module: Any) -> str | None:
    """What a module says in ``model_version`` of the model that its functions use."""
    stated = getattr(module, "model_version", None)
    if callable(stated):
        try:
            stated = stated()
        except Exception as error:  # whatever a module of the user's may raise
            raise ModelError(
                f"--model {spec}: model_version() failed: {_first_line(error)}"
            ) from error
    if stated is None:
        return None
    if isinstance(stated, bool) or not isinstance(stated, (str, int, float)) or stated == "":
        raise ModelError(
            f"--model {spec}: model_version is {stated!r}; expected a text or a number that is "
            "another one whenever the model changes"
        )
    return str(stated)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        f"{type(error).__name__}: {lines[-1] if len(lines) > 3 else lines[0]}"
        if lines
        else (type(error).__name__)
    )
