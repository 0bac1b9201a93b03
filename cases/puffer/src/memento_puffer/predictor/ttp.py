"""Puffer's transmission time predictor: five small networks, and the files Puffer keeps them in.

How long will a chunk of video take to arrive? Network ``h`` answers for chunk ``n + h``, from the
eight chunks before ``n``, the state of TCP now and the size of chunk ``n + h``, with probabilities
of 21 classes of time (Yan et al., "Learning in situ: a randomized experiment in video streaming",
NSDI 2020, section 4.3). Predictions need numpy alone; PyTorch reads and writes the files.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from memento.errors import (
    DamagedError,
    DomainError,
    ForeignError,
    MissingExtraError,
    ModelError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento.files import replace_folder, storage_errors
from memento_puffer.predictor.transmission import CLASSES

__all__ = [
    "CLASS_VALUES",
    "HORIZONS",
    "INPUTS",
    "SHAPES",
    "WITHOUT_TCP",
    "Moments",
    "Network",
    "Ttp",
    "clamp_sentinels",
    "expected_time",
    "read_cpp",
    "read_meta",
    "read_py",
    "selected_inputs",
    "sentinel_rows",
    "shapes_of",
]

INPUTS = 62
WITHOUT_TCP = 17
HORIZONS = 5
_HIDDEN = 64
# How many inputs a network may have -> which of the 62 these are. Without TCP: size and time of
# eight past chunks, and the size asked about (Puffer's puffer_ttp_no_tcp_info).
_LAYOUTS = {
    INPUTS: np.arange(INPUTS),
    WITHOUT_TCP: np.append(7 * np.repeat(np.arange(8), 2) + np.tile([5, 6], 8), INPUTS - 1),
}
_NAMES = ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias")


def shapes_of(inputs: int = INPUTS) -> tuple[tuple[int, ...], ...]:
    """Shapes of W1, b1, W2, b2, W3, b3 of a network with so many inputs.

    Raises:
        SettingError: Neither 62 nor 17.

    Example:
        >>> shapes_of(17)[0]
        (64, 17)
    """
    if inputs not in _LAYOUTS:
        raise SettingError(f"inputs={inputs}; networks have one of {[*_LAYOUTS]} inputs")
    return (
        *((_HIDDEN, inputs), (_HIDDEN,)),
        *((_HIDDEN, _HIDDEN), (_HIDDEN,)),
        *((CLASSES, _HIDDEN), (CLASSES,)),
    )


SHAPES = shapes_of()

# What a class counts as in an expectation, in s. The last one is open and taken for 10 s.
CLASS_VALUES = np.concatenate([[0.125], 0.5 * np.arange(1, CLASSES)])
CLASS_VALUES.flags.writeable = False

# Eight past chunks of seven values and the state now: min_rtt is the fourth of each, rtt follows.
_MIN_RTT = slice(3, None, 7)
_RTT = slice(4, None, 7)
# 2^32 - 1 microseconds says "not measured yet". No path takes an hour, so whatever is close to
# it in any precision is the same.
_NO_SAMPLE = 4294.0
_ROWS = 2048  # in one pass: more fall out of the cache and are slower


def expected_time(probabilities: np.ndarray) -> np.ndarray:
    """Expected transmission time: the sum of p_k c_k, with c_0 = 0.125 s and c_k = k / 2 s.

    Args:
        probabilities: (..., 21).

    Returns:
        (...) float64, in s.

    Raises:
        SchemaError: Another number of classes.

    Example:
        >>> expected_time(np.full(21, 1 / 21)).round(3)
        np.float64(5.006)
    """
    probabilities = np.asarray(probabilities)
    if probabilities.shape[-1:] != (CLASSES,):
        raise SchemaError(
            f"probabilities of shape {probabilities.shape}; expected {CLASSES} classes last"
        )
    return np.asarray(probabilities @ CLASS_VALUES)[()]


def selected_inputs(x: np.ndarray, inputs: int) -> np.ndarray:
    """What a network of so many inputs looks at.

    Args:
        x: (n, 62), or (n, inputs) already.
        inputs: 62, or 17 without the state of TCP.

    Returns:
        (n, inputs), the same array if nothing is left out.

    Raises:
        SchemaError, DomainError: As for `Network.logits`.

    Example:
        >>> selected_inputs(np.arange(62)[None], 17)[0, [0, 1, 2, -1]]
        array([ 5,  6, 12, 61])
    """
    x = np.asarray(x)
    if x.ndim == 2 and x.shape[1] == INPUTS != inputs:
        x = x[:, _LAYOUTS[inputs]]
    return checked_inputs(x, inputs)


def sentinel_rows(x: np.ndarray) -> np.ndarray:
    """Which samples hold a min_rtt that was never measured (2^32 - 1 microseconds).

    Args:
        x: (n, 62) inputs, min_rtt in s; (n, 17) inputs have none.

    Returns:
        (n,) bool.
    """
    if x.shape[1] != INPUTS:
        return np.zeros(len(x), dtype=bool)
    return np.asarray((x[:, _MIN_RTT] > _NO_SAMPLE).any(axis=1))


def clamp_sentinels(x: np.ndarray) -> np.ndarray:
    """Replace each min_rtt that was never measured by the rtt next to it, its upper bound.

    Args:
        x: (n, 62) inputs, min_rtt and rtt in s; (n, 17) inputs stay as they are.

    Returns:
        The same array if there is nothing to replace, else a copy.

    Example:
        >>> x = np.full((1, 62), 0.05)
        >>> x[0, 3] = (2**32 - 1) / 1e6
        >>> float(clamp_sentinels(x).max()), float(x.max())
        (0.05, 4294.967295)
    """
    rows = np.flatnonzero(sentinel_rows(x))
    if not len(rows):
        return x
    x = x.copy()
    least = x[:, _MIN_RTT]
    least[rows] = np.where(least[rows] > _NO_SAMPLE, x[rows, _RTT], least[rows])
    return x


@dataclass(frozen=True, eq=False)
class Moments:
    """What inputs are standardised with: running mean and standard deviation of each column.

    Attributes:
        count: Rows seen, >= 1.
        mean: (62,) float64, or (17,) without the state of TCP.
        std: The same, >= 0, of the population; a column of 0 is centred but not divided.

    Raises:
        ModelError: Another shape, a number that is not finite, a negative std, no rows.

    Example:
        >>> first, second = np.zeros((1, 62)), np.full((3, 62), 4.0)
        >>> both = Moments.of(first).merged(Moments.of(second))
        >>> both.count, float(both.mean[0]), float(both.std[0].round(4))
        (4, 3.0, 1.7321)
    """

    count: int
    mean: np.ndarray
    std: np.ndarray

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ModelError(f"moments of {self.count} rows; expected at least one")
        object.__setattr__(self, "count", int(self.count))
        for name in ("mean", "std"):
            value = _frozen(getattr(self, name), np.dtype(np.float64))
            inputs = self.inputs if name == "std" else len(value) if value.ndim == 1 else 0
            inputs = inputs if inputs in _LAYOUTS else INPUTS
            _check_numbers(f"the inputs' {name}", value, (inputs,), inputs)
            object.__setattr__(self, name, value)
        if (self.std < 0).any():
            raise ModelError(f"a standard deviation of {self.std.min()}; expected none below 0")

    @property
    def inputs(self) -> int:
        """How many columns: 62 or 17."""
        return len(self.mean)

    @classmethod
    def of(cls, x: np.ndarray, inputs: int | None = None) -> Moments:
        """Of (n, 62) or (n, 17) inputs, n >= 1.

        Args:
            x: Inputs.
            inputs: 17 to leave out the state of TCP; default: as wide as x.

        Raises:
            SchemaError, DomainError: As for `Network.logits`; also for no rows.
        """
        width = np.shape(x)[-1] if np.ndim(x) == 2 else INPUTS
        x = selected_inputs(x, inputs or (width if width in _LAYOUTS else INPUTS))
        if not len(x):
            raise SchemaError("no rows to take moments of; give at least one")
        pieces = range(0, len(x), _ROWS)
        mean = sum(x[i : i + _ROWS].sum(axis=0, dtype=np.float64) for i in pieces) / len(x)
        squares = np.zeros(x.shape[1])
        for i in pieces:
            squares += np.square(x[i : i + _ROWS] - mean).sum(axis=0)
        # Rounding of the mean would give a constant column a tiny std, and noise to divide.
        constant = x.max(axis=0) == x.min(axis=0)
        return cls(
            len(x),
            np.where(constant, x[0], mean),
            np.where(constant, 0.0, np.sqrt(squares / len(x))),
        )

    def merged(self, other: Moments) -> Moments:
        """Of both sets of rows together.

        The same as Puffer's sqrt((n (std^2 + mean^2) + sum x^2) / n' - mean'^2), without the
        difference of large numbers.
        """
        _check_alike(self, other)
        n, m = self.count, other.count
        shift = other.mean - self.mean
        squares = n * self.std**2 + m * other.std**2 + n * m / (n + m) * shift**2
        return Moments(n + m, self.mean + m / (n + m) * shift, np.sqrt(squares / (n + m)))

    @property
    def scale(self) -> np.ndarray:
        """(inputs,) what columns are divided by: std, or 1 where it is 0."""
        return np.where(self.std == 0, 1.0, self.std)

    def standardise(self, x: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
        """(n, inputs) of ``dtype``: (x - mean) / std."""
        # Inputs in double precision are subtracted so, and rounded only then.
        kind = np.result_type(x.dtype, dtype)
        mean, scale = self.mean.astype(kind), self.scale.astype(kind)
        out = np.empty(x.shape, dtype=dtype)
        for i in range(0, len(x), _ROWS):
            out[i : i + _ROWS] = (x[i : i + _ROWS] - mean) / scale
        return out


@dataclass(frozen=True, eq=False)
class Network:
    """The predictor of one horizon: moments, then 62-64-64-21 with ReLU, then softmax.

    A network with 17 inputs does without the state of TCP. It is asked like any other: of 62 inputs
    it takes those that it knows.

    A value: training gives another one. Its precision is that of its weights; files hold float64.

    Attributes:
        weights: Six arrays of `SHAPES`, or of ``shapes_of(17)``, all float32 or all float64: W1,
            b1, W2, b2, W3, b3, where a layer is ``W x + b``.
        moments: Of the inputs it was trained on.

    Raises:
        ModelError: Another shape or type, or numbers that are not finite.

    Example:
        >>> network = Network.fresh(seed=0)
        >>> network.probabilities(np.zeros((3, 62))).shape
        (3, 21)
    """

    weights: tuple[np.ndarray, ...]
    moments: Moments
    dtype: np.dtype[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.weights) != len(SHAPES):
            raise ModelError(f"{len(self.weights)} arrays of weights; expected {len(SHAPES)}")
        dtypes = {np.asarray(array).dtype for array in self.weights}
        if len(dtypes) > 1 or not dtypes <= {np.dtype("f4"), np.dtype("f8")}:
            found = ", ".join(sorted(map(str, dtypes)))
            raise ModelError(f"weights of type {found}; expected all float32 or all float64")
        object.__setattr__(self, "dtype", dtypes.pop())
        frozen = tuple(_frozen(array, self.dtype) for array in self.weights)
        inputs = self.moments.inputs
        for name, array, shape in zip(_NAMES, frozen, shapes_of(inputs), strict=True):
            _check_numbers(name, array, shape, inputs)
        object.__setattr__(self, "weights", frozen)

    @property
    def inputs(self) -> int:
        """How many inputs it has: 62 or 17."""
        return self.moments.inputs

    @classmethod
    def fresh(
        cls,
        seed: int = 0,
        moments: Moments | None = None,
        dtype: Any = np.float32,
        inputs: int = INPUTS,
    ) -> Network:
        """Random weights, uniform in ±1/sqrt(inputs of the layer), as PyTorch starts layers.

        Args:
            seed: Of the weights.
            moments: Default: mean 0, std 1.
            dtype: float32 or float64.
            inputs: 62, or 17 without the state of TCP; that of ``moments`` if these are given.

        Raises:
            SettingError: Another number of inputs.
        """
        rng = np.random.default_rng(seed)
        inputs = inputs if moments is None else moments.inputs
        shapes = shapes_of(inputs)
        widths = np.repeat([inputs, _HIDDEN, _HIDDEN], 2) ** -0.5
        weights = tuple(
            rng.uniform(-width, width, shape).astype(dtype)
            for width, shape in zip(widths, shapes, strict=True)
        )
        return cls(weights, moments or Moments(1, np.zeros(inputs), np.ones(inputs)))

    def astype(self, dtype: Any) -> Network:
        """The same network in float32 (faster) or float64 (as in Puffer)."""
        if np.dtype(dtype) == self.dtype:
            return self
        return Network(tuple(array.astype(dtype) for array in self.weights), self.moments)

    def logits(self, x: np.ndarray, *, sentinels: str = "clamp") -> np.ndarray:
        """What the softmax is taken of.

        Args:
            x: (n, 62) any real type, finite; columns as Puffer orders them: eight past chunks,
                oldest first, each delivery_rate (packets/s), cwnd (packets), in_flight (packets),
                min_rtt (s), rtt (s), size (packets), transmission time (s); then the first five
                of these now; then the size of the chunk asked about. A packet is 1,500 bytes.
                A network with 17 inputs takes (n, 17) as well.
            sentinels: "clamp" replaces a min_rtt never measured by its rtt; "keep" takes it for
                72 minutes, as Puffer's server does.

        Returns:
            (n, 21) of the network's type.

        Raises:
            SchemaError: Another shape or type.
            DomainError: A number that is not finite.
            SettingError: An unknown way with sentinels.
        """
        if sentinels not in ("clamp", "keep"):
            raise SettingError(f"sentinels={sentinels!r}; give 'clamp' or 'keep'")
        x = selected_inputs(x, self.inputs)
        logits = np.empty((len(x), CLASSES), dtype=self.dtype)
        for i in range(0, len(x), _ROWS):
            piece = x[i : i + _ROWS]
            if sentinels == "clamp":
                piece = clamp_sentinels(piece)
            piece = self.moments.standardise(piece, self.dtype)
            logits[i : i + _ROWS] = forward(self.weights, piece)
        return logits

    def softened(self, temperature: float) -> Network:
        """One that divides its logits by a temperature; the same class stays the likeliest.

        Args:
            temperature: Above 0; more than 1 is less certain, 1 is this network.

        Raises:
            SettingError: A temperature out of its range.

        Example:
            >>> network, x = Network.fresh(seed=0), np.ones((1, 62))
            >>> bool(network.softened(2.0).probabilities(x).max() < network.probabilities(x).max())
            True
        """
        if not (math.isfinite(temperature) and temperature > 0):
            raise SettingError(f"temperature={temperature}; give a number above 0")
        if temperature == 1:
            return self
        last = (array / self.dtype.type(temperature) for array in self.weights[-2:])
        return replace(self, weights=(*self.weights[:-2], *last))

    def probabilities(self, x: np.ndarray, *, sentinels: str = "clamp") -> np.ndarray:
        """(n, 21) of the network's type, rows sum to 1; arguments and errors as for `logits`."""
        return softmax(self.logits(x, sentinels=sentinels))

    def expected(self, x: np.ndarray, *, sentinels: str = "clamp") -> np.ndarray:
        """(n,) float64: expected transmission time in s; else as `logits`."""
        return np.asarray(expected_time(self.probabilities(x, sentinels=sentinels)))

    def rounding(self, x: np.ndarray, *, sentinels: str = "clamp") -> np.ndarray:
        """By how much probabilities of this network, in its precision, may be off.

        Sums of the same numbers come out differently with the processor, the threads, and the rows
        that are asked about at once. A sum of n products is off by about sqrt(n) roundings of the
        sum of their sizes, and errors of different sums add up like random ones (Higham and Mary,
        "A new approach to probabilistic rounding error analysis", 2019); eight times that is
        allowed. Logits that are off by at most e move a probability by at most tanh(e / 2).

        Args:
            x: As for `logits`.
            sentinels: As for `logits`.

        Returns:
            (n,) float64 in [0, 1], for each row.

        Raises:
            SchemaError, DomainError: As `logits`.

        Example:
            >>> network, x = Network.fresh(seed=0), np.ones((1, 62))
            >>> exact = network.astype("float64").probabilities(x)
            >>> bool(np.abs(network.probabilities(x) - exact).max() < network.rounding(x)[0] < 1e-4)
            True
        """
        unit = float(np.finfo(self.dtype).eps)
        exact = self.astype(np.float64)
        x = selected_inputs(x, self.inputs).astype(np.float64)
        x = clamp_sentinels(x) if sentinels == "clamp" else x
        scale = self.moments.scale
        values = (x - self.moments.mean) / scale
        error = unit * (np.abs(x) + np.abs(self.moments.mean)) / scale
        for weights, bias in zip(exact.weights[::2], exact.weights[1::2], strict=True):
            sizes = np.abs(values) @ np.abs(weights).T + np.abs(bias)
            carried = np.sqrt(np.square(error) @ np.square(weights).T)
            error = carried + np.sqrt(len(weights.T)) * unit * sizes
            values = np.maximum(values @ weights.T + bias, 0.0)
        # The softmax itself: exponentials, their sum, a quotient.
        bound: np.ndarray = np.tanh(4 * error.max(axis=1)) + 8 * np.sqrt(CLASSES) * unit
        return np.minimum(bound, 1.0)

    def rebased(self, moments: Moments) -> Network:
        """The same function of x on other moments: the first layer takes up the difference.

        So a network learned with a min_rtt muted by sentinels can go on with honest moments.
        """
        _check_alike(self.moments, moments)
        first, bias, *rest = (array.astype(np.float64) for array in self.weights)
        old, new = self.moments, moments
        bias = bias + first @ ((new.mean - old.mean) / old.scale)
        first = first * (new.scale / old.scale)
        return Network(tuple(a.astype(self.dtype) for a in (first, bias, *rest)), moments)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as named arrays; `of_arrays` is the way back."""
        return {
            **dict(zip(_NAMES, self.weights, strict=True)),
            "obs_size": np.array(self.moments.count, dtype=np.int64),
            "obs_mean": self.moments.mean,
            "obs_std": self.moments.std,
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Network:
        """From what `arrays` gave.

        Raises:
            ModelError: Something is missing or of another shape or type.
        """
        absent = [n for n in (*_NAMES, "obs_size", "obs_mean", "obs_std") if n not in arrays]
        if absent:
            raise ModelError(f"no {', '.join(absent)} among {sorted(map(str, arrays))}")
        moments = Moments(_count(arrays["obs_size"]), arrays["obs_mean"], arrays["obs_std"])
        return cls(tuple(np.asarray(arrays[name]) for name in _NAMES), moments)


@dataclass(frozen=True, eq=False)
class Ttp:
    """The whole predictor: one network for each of the next five chunks.

    Attributes:
        networks: Five; number h predicts chunk n + h.

    Raises:
        ModelError: Another number of networks, or some with other inputs than the others.

    Example:
        >>> ttp = Ttp.fresh(seed=0)
        >>> len(ttp), ttp[4].probabilities(np.zeros((1, 62))).shape
        (5, (1, 21))
    """

    networks: tuple[Network, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "networks", tuple(self.networks))
        if len(self.networks) != HORIZONS:
            raise ModelError(f"{len(self.networks)} networks; expected {HORIZONS}")
        if len({network.inputs for network in self.networks}) > 1:
            found = [network.inputs for network in self.networks]
            raise ModelError(f"networks of {found} inputs; a predictor's have the same")

    def __len__(self) -> int:
        return HORIZONS

    def __getitem__(self, horizon: int) -> Network:
        return self.networks[horizon]

    def __iter__(self) -> Iterator[Network]:
        return iter(self.networks)

    @property
    def inputs(self) -> int:
        """How many inputs its networks have: 62 or 17."""
        return self.networks[0].inputs

    @classmethod
    def fresh(cls, seed: int = 0, dtype: Any = np.float32, inputs: int = INPUTS) -> Ttp:
        """Five networks with random weights, each with its own; 17 inputs for none of TCP."""
        return cls(
            tuple(
                Network.fresh(seed + 1000 * h, dtype=dtype, inputs=inputs) for h in range(HORIZONS)
            )
        )

    def astype(self, dtype: Any) -> Ttp:
        """The same in float32 (faster) or float64."""
        return Ttp(tuple(network.astype(dtype) for network in self.networks))

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Ttp:
        """Open a folder of Puffer's, of any year: py-N.pt, cpp-N.pt and cpp-meta-N.json, N 0 to 4.

        Files are parsed, never run: no object but numbers is unpickled, no program in a cpp file
        is loaded. Other files in the folder are ignored.

        Returns:
            In the precision of the files, which is float64.

        Raises:
            StorageError: The folder cannot be read.
            ForeignError: A file is missing, or holds other things than such a network.
            DamagedError: A file is cut off or changed, or the three of a network disagree.
            ModelError: A network of another shape, or numbers that are not finite.
            MissingExtraError: PyTorch is not installed.
        """
        folder = Path(folder)
        with storage_errors("read the model", folder):
            present = set(os.listdir(folder))
        absent = [name for h in range(HORIZONS) for name in _file_names(h) if name not in present]
        if absent:
            raise ForeignError(
                f"{folder} lacks {', '.join(absent)}; a model is {3 * HORIZONS} files, copy all"
            )
        return cls(tuple(_read_network(folder, h) for h in range(HORIZONS)))

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write all 15 files to a new folder, which is whole or absent.

        A Puffer server loads cpp-N.pt (TorchScript, from a (1, inputs) float64 example to logits)
        and cpp-meta-N.json; its trainer goes on from py-N.pt.

        Args:
            folder: Absent or empty; its parent exists.

        Raises:
            ForeignError: There is something at that place; models are never overwritten.
            StorageError, SpaceError: The files cannot be written; no part of them is left.
            MissingExtraError: PyTorch is not installed.
        """
        folder = Path(folder)
        if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and _empty(folder))):
            raise ForeignError(
                f"{folder} is there already; a model is never overwritten, so name a new folder"
            )
        contents: dict[str, bytes] = {}
        for h, network in enumerate(self.networks):
            made = (_py_bytes(network), _cpp_bytes(network), _meta_bytes(network.moments))
            contents.update(zip(_file_names(h), made, strict=True))
        # The rename fails if another writer was faster.
        with (
            storage_errors("write the model", folder),
            replace_folder(folder, replace=False) as new,
        ):
            for name, data in contents.items():
                (new / name).write_bytes(data)


def read_py(path: str | os.PathLike[str]) -> Network:
    """Read a py-N.pt: weights, and the moments as numpy arrays.

    Only tensors, numpy arrays and plain containers are unpickled, under the names they had in
    numpy of any year.

    Raises:
        StorageError, ForeignError, DamagedError, ModelError, MissingExtraError: As `Ttp.read`.
    """
    path = Path(path)
    torch = _import_torch("Reading py-N.pt")
    data = _bytes_of(path)
    # The same function under its older names: numpy 2 moved it.
    rebuild = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    old_names = ("numpy.core.multiarray", "numpy.core._multiarray_umath", "numpy._core.multiarray")
    safe = [
        *((rebuild, f"{module}._reconstruct") for module in old_names),
        *(np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in ("f8", "f4"))),
    ]
    try:
        with torch.serialization.safe_globals(safe), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file fails in any of a dozen ways
        # torch wraps the reason in advice to allow anything, which nobody shall read here.
        reason = str(error.__context__ or error)
        if "GLOBAL " in reason or "Unsupported class" in reason:
            raise ForeignError(
                f"{path} holds objects other than tensors and arrays of numbers; nothing of it "
                "was run. Take the file from Puffer's archive again"
            ) from None
        raise DamagedError(_damaged(path, reason)) from None
    if not isinstance(content, dict) or not isinstance(content.get("model_state_dict"), dict):
        raise ForeignError(
            f"{path} is no predictor of Puffer's: expected model_state_dict, obs_size, obs_mean "
            "and obs_std in it"
        )
    arrays = {name: value for name, value in content.items() if name != "model_state_dict"}
    with _named(path):
        for name, value in content["model_state_dict"].items():
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                raise ModelError(f"{name} holds no real numbers; expected float64")
            if value.is_sparse or value.is_quantized or value.dtype == torch.bfloat16:
                raise ModelError(f"{name} is of a kind that Puffer never wrote; expected float64")
            arrays[name] = value.detach().numpy()
        return Network.of_arrays(arrays)


def read_cpp(path: str | os.PathLike[str]) -> tuple[np.ndarray, ...]:
    """Read the weights of a cpp-N.pt, of PyTorch 1.0 or later; its program is not loaded.

    Returns:
        Six arrays of `SHAPES`, or of ``shapes_of(17)``, float32 or float64.

    Raises:
        StorageError, ForeignError, DamagedError, ModelError: As `Ttp.read`.
    """
    path = Path(path)
    data = _bytes_of(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # PyTorch 1.0 called the folder "tensors", later ones "data".
            found = {
                match[1]: archive.read(name)
                for name in archive.namelist()
                if (match := re.fullmatch(r"[^/]+/(?:tensors|data)/(\d+)", name))
            }
            orders = [archive.read(n) for n in archive.namelist() if n.endswith("/byteorder")]
    except Exception as error:  # zipfile, too, fails in many ways
        raise DamagedError(_damaged(path, str(error))) from error
    lengths = [len(found.get(str(i), b"")) for i in range(len(SHAPES))]
    with _named(path):
        if len(found) != len(SHAPES) or 0 in lengths:
            raise ForeignError(
                f"holds the tensors {sorted(found)}; expected 0 to {len(SHAPES) - 1}, the weights "
                "of a predictor of Puffer's"
            )
        sizes = {n: [int(np.prod(shape)) for shape in shapes_of(n)] for n in _LAYOUTS}
        fits = [(w, n) for w in (8, 4) for n in sizes if lengths == [w * size for size in sizes[n]]]
        if not fits:
            raise ModelError(
                f"holds tensors of {lengths} bytes; expected {[8 * size for size in sizes[INPUTS]]}"
                f": a network {INPUTS}-{_HIDDEN}-{_HIDDEN}-{CLASSES} in float64"
            )
        width, inputs = fits[0]
        shapes = shapes_of(inputs)
        if any(order != b"little" for order in orders):
            raise ForeignError("holds big-endian numbers; write it on a little-endian machine")
        weights = tuple(
            np.frombuffer(found[str(i)], dtype=f"<f{width}").reshape(shape)
            for i, shape in enumerate(shapes)
        )
        for name, array, shape in zip(_NAMES, weights, shapes, strict=True):
            _check_numbers(name, array, shape, inputs)
    return weights


def read_meta(path: str | os.PathLike[str]) -> Moments:
    """Read a cpp-meta-N.json: obs_size, obs_mean, obs_std.

    Raises:
        StorageError, ForeignError, DamagedError, ModelError: As `Ttp.read`.
    """
    path = Path(path)
    data = _bytes_of(path)
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(_damaged(path, str(error))) from error
    names = ("obs_size", "obs_mean", "obs_std")
    if not isinstance(content, dict) or any(name not in content for name in names):
        raise ForeignError(f"{path} is no normaliser of Puffer's: expected {', '.join(names)}")
    with _named(path):
        return Moments(_count(content["obs_size"]), content["obs_mean"], content["obs_std"])


def forward(weights: tuple[np.ndarray, ...], x: np.ndarray) -> np.ndarray:
    """Logits (n, 21) of standardised inputs (n, 62), or (n, 17) with weights of such a network."""
    W1, b1, W2, b2, W3, b3 = weights
    hidden = x @ W1.T
    hidden += b1
    np.maximum(hidden, 0, out=hidden)
    hidden = hidden @ W2.T
    hidden += b2
    np.maximum(hidden, 0, out=hidden)
    logits = hidden @ W3.T
    logits += b3
    return np.asarray(logits)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (n, 21), in the memory of the logits."""
    for i in range(0, len(logits), _ROWS):
        piece = logits[i : i + _ROWS]
        piece -= piece.max(axis=1, keepdims=True)
        np.exp(piece, out=piece)
        piece /= piece.sum(axis=1, keepdims=True)
    return logits


def checked_inputs(x: Any, inputs: int = INPUTS) -> np.ndarray:
    """(n, inputs) of a real type, finite; raises SchemaError or DomainError."""
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != inputs or x.dtype.kind not in "fiub":
        raise SchemaError(
            f"inputs are {x.dtype} of shape {x.shape}; expected numbers of shape (n, {inputs})"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = x.dtype.kind == "f" and not np.isfinite(x.sum())  # quick; may overflow, too
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1)) if suspect else np.arange(0)
    if len(bad):
        raise DomainError(
            f"inputs are not finite in {len(bad):,} of {len(x):,} rows, the first of them "
            f"{bad[0]}; drop or replace them"
        )
    return x


def _import_torch(purpose: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "torch", purpose) from error
    return torch


def _frozen(value: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """A read-only copy."""
    try:
        array = np.array(value, dtype=dtype, order="C")
    except (TypeError, ValueError) as error:
        raise ModelError(f"found {str(value)[:60]!r}; expected an array of numbers") from error
    array.flags.writeable = False
    return array


def _check_alike(one: Moments, other: Moments) -> None:
    if one.inputs != other.inputs:
        raise ModelError(
            f"moments of {one.inputs} inputs meet those of {other.inputs}; give them the same"
        )


def _check_numbers(
    name: str, array: np.ndarray, shape: tuple[int, ...], inputs: int = INPUTS
) -> None:
    if array.shape != shape:
        raise ModelError(
            f"{name} has shape {array.shape}; expected {shape}, as in a network "
            f"{inputs}-{_HIDDEN}-{_HIDDEN}-{CLASSES}"
        )
    if not np.isfinite(array).all():
        raise ModelError(f"{name} is not finite in {(~np.isfinite(array)).sum()} places; retrain")


def _count(value: Any) -> int:
    """A whole number of rows."""
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "iuf" or array != np.floor(array):
        raise ModelError(f"obs_size is {str(value)[:60]!r}; expected a whole number of rows")
    return int(array)


def _file_names(horizon: int) -> tuple[str, str, str]:
    return f"py-{horizon}.pt", f"cpp-{horizon}.pt", f"cpp-meta-{horizon}.json"


def _read_network(folder: Path, horizon: int) -> Network:
    """All three files, which have to say the same."""
    py, cpp, meta = (folder / name for name in _file_names(horizon))
    network, weights, moments = read_py(py), read_cpp(cpp), read_meta(meta)
    differs = []
    if not all(map(np.array_equal, network.weights, weights)):
        differs.append(f"{cpp.name} has other weights than {py.name}")
    mine = network.moments
    same = np.array_equal(mine.mean, moments.mean) and np.array_equal(mine.std, moments.std)
    if mine.count != moments.count or not same:
        differs.append(f"{meta.name} has other moments than {py.name}")
    if differs:
        raise DamagedError(f"{folder}: {'; '.join(differs)}; copy the whole model again")
    return network


def _bytes_of(path: Path) -> bytes:
    with storage_errors("read the model", path):
        return path.read_bytes()


def _put(data: bytes, file: IO[bytes]) -> None:
    file.write(data)


def _empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def _damaged(path: Path, reason: str) -> str:
    first = (reason.splitlines() or ["no reason given"])[0][:200]
    return f"{path} cannot be read ({first}); it is cut off or changed: copy it again"


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the file's name in front of what is wrong with its content."""
    try:
        yield
    except (ModelError, StorageError) as error:
        raise type(error)(f"{path}: {error}") from error


def _py_bytes(network: Network) -> bytes:
    torch = _import_torch("Writing py-N.pt")
    buffer = io.BytesIO()
    content = {
        # torch has no read-only tensors, hence the copies.
        "model_state_dict": {
            name: torch.from_numpy(array.astype(np.float64))
            for name, array in zip(_NAMES, network.weights, strict=True)
        },
        "obs_size": network.moments.count,
        "obs_mean": network.moments.mean,
        "obs_std": network.moments.std,
    }
    torch.save(content, buffer)
    return _repacked(buffer.getvalue())


def _cpp_bytes(network: Network) -> bytes:
    torch = _import_torch("Writing cpp-N.pt")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have another format
        module = torch.nn.Sequential(
            *(torch.nn.Linear(network.inputs, _HIDDEN), torch.nn.ReLU()),
            *(torch.nn.Linear(_HIDDEN, _HIDDEN), torch.nn.ReLU()),
            torch.nn.Linear(_HIDDEN, CLASSES),
        ).double()
        weights = zip(_NAMES, network.weights, strict=True)
        module.load_state_dict({name: torch.from_numpy(a.astype("f8")) for name, a in weights})
        example = torch.zeros((1, network.inputs), dtype=torch.float64)
        buffer = io.BytesIO()
        module.eval().requires_grad_(False)  # a server only predicts
        torch.jit.save(torch.jit.trace(module, example), buffer)
    return _repacked(buffer.getvalue())


def _meta_bytes(moments: Moments) -> bytes:
    content = {
        "obs_size": moments.count,
        "obs_mean": moments.mean.tolist(),
        "obs_std": moments.std.tolist(),
    }
    return json.dumps(content).encode()


def _repacked(data: bytes) -> bytes:
    """An archive of torch's that older readers open, and that says nothing about this machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            if name.endswith((".debug_pkl", "/serialization_id")):
                continue  # paths of source files; a digest of what stood here before
            record = old.read(name)
            if name.endswith("/data.pkl"):
                # The name that numpy 1 knows as well, so that trainers of 2022 can read it.
                record = record.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
            new.writestr(zipfile.ZipInfo(name), record)  # stored as it is, dated 1980
    return buffer.getvalue()
