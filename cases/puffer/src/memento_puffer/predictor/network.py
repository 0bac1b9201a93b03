"""One network of the transmission time predictor, and the moments that its inputs are scaled by.

Predictions need numpy alone. Weights are those of Puffer's predictor (Yan et al., "Learning in
situ: a randomized experiment in video streaming", NSDI 2020, section 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from memento.errors import DomainError, ModelError, SchemaError, SettingError
from memento_puffer.data.layout import CHUNK_INPUTS, HISTORY
from memento_puffer.predictor.transmission import CLASSES

__all__ = [
    "CLASS_VALUES",
    "INPUTS",
    "SHAPES",
    "WITHOUT_TCP",
    "Moments",
    "Network",
    "clamp_sentinels",
    "expected_time",
    "forward",
    "layers",
    "selected_inputs",
    "sentinel_rows",
    "shapes_of",
    "softmax",
]

_WIDTH = len(CHUNK_INPUTS) + 1  # of a past chunk: its time besides
_SIZE = CHUNK_INPUTS.index("size")
INPUTS = HISTORY * _WIDTH + len(CHUNK_INPUTS)  # 62
WITHOUT_TCP = 2 * HISTORY + 1  # 17
HIDDEN = 64
# How many inputs a network may have -> which of the 62 these are. Without TCP: size and time of
# eight past chunks, and the size asked about (Puffer's puffer_ttp_no_tcp_info).
INPUT_SETS = {
    INPUTS: np.arange(INPUTS),
    WITHOUT_TCP: np.append(
        np.add.outer(_WIDTH * np.arange(HISTORY), [_SIZE, _SIZE + 1]).ravel(), INPUTS - 1
    ),
}
WEIGHTS = ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias")


def shapes_of(inputs: int = INPUTS) -> tuple[tuple[int, ...], ...]:
    """Shapes of W1, b1, W2, b2, W3, b3 of a network with so many inputs.

    Raises:
        SettingError: Neither 62 nor 17.

    Example:
        >>> shapes_of(17)[0]
        (64, 17)
    """
    if inputs not in INPUT_SETS:
        raise SettingError(f"inputs={inputs}; networks have one of {[*INPUT_SETS]} inputs")
    return (
        *((HIDDEN, inputs), (HIDDEN,)),
        *((HIDDEN, HIDDEN), (HIDDEN,)),
        *((CLASSES, HIDDEN), (CLASSES,)),
    )


SHAPES = shapes_of()

# What a class counts as in an expectation, in s. The last one is open and taken for 10 s.
CLASS_VALUES = np.concatenate([[0.125], 0.5 * np.arange(1, CLASSES)])
CLASS_VALUES.flags.writeable = False

# Of each past chunk, and of the state now.
_MIN_RTT, _RTT = (slice(CHUNK_INPUTS.index(name), None, _WIDTH) for name in ("min_rtt", "rtt"))
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
        x = x[:, INPUT_SETS[inputs]]
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
            value = _frozen_copy(getattr(self, name), np.dtype(np.float64))
            inputs = self.inputs if name == "std" else len(value) if value.ndim == 1 else 0
            inputs = inputs if inputs in INPUT_SETS else INPUTS
            check_numbers(f"the inputs' {name}", value, (inputs,), inputs)
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
        x = selected_inputs(x, inputs or (width if width in INPUT_SETS else INPUTS))
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
        frozen = tuple(_frozen_copy(array, self.dtype) for array in self.weights)
        inputs = self.moments.inputs
        for name, array, shape in zip(WEIGHTS, frozen, shapes_of(inputs), strict=True):
            check_numbers(name, array, shape, inputs)
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
            seed: Seed of the random weights.
            moments: Default: mean 0, std 1.
            dtype: float32 or float64.
            inputs: 62, or 17 without the state of TCP; that of ``moments`` if these are given.

        Raises:
            SettingError: Another number of inputs.
        """
        rng = np.random.default_rng(seed)
        inputs = inputs if moments is None else moments.inputs
        shapes = shapes_of(inputs)
        widths = np.repeat([inputs, HIDDEN, HIDDEN], 2) ** -0.5
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
            **dict(zip(WEIGHTS, self.weights, strict=True)),
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
        absent = [n for n in (*WEIGHTS, "obs_size", "obs_mean", "obs_std") if n not in arrays]
        if absent:
            raise ModelError(f"no {', '.join(absent)} among {sorted(map(str, arrays))}")
        moments = Moments(row_count(arrays["obs_size"]), arrays["obs_mean"], arrays["obs_std"])
        return cls(tuple(np.asarray(arrays[name]) for name in WEIGHTS), moments)


def forward(weights: tuple[np.ndarray, ...], x: np.ndarray) -> np.ndarray:
    """Logits (n, 21) of standardised inputs (n, 62), or (n, 17) with weights of such a network."""
    return layers(weights, x)[2]


def layers(
    weights: tuple[np.ndarray, ...], x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both hidden layers (n, 64) after their rectifiers, and the logits (n, 21); see `forward`."""
    W1, b1, W2, b2, W3, b3 = weights
    first = x @ W1.T
    first += b1
    np.maximum(first, 0, out=first)
    second = first @ W2.T
    second += b2
    np.maximum(second, 0, out=second)
    logits = second @ W3.T
    logits += b3
    return first, second, np.asarray(logits)


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


def _frozen_copy(value: Any, dtype: np.dtype[Any]) -> np.ndarray:
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


def check_numbers(
    name: str, array: np.ndarray, shape: tuple[int, ...], inputs: int = INPUTS
) -> None:
    if array.shape != shape:
        raise ModelError(
            f"{name} has shape {array.shape}; expected {shape}, as in a network "
            f"{inputs}-{HIDDEN}-{HIDDEN}-{CLASSES}"
        )
    if not np.isfinite(array).all():
        raise ModelError(f"{name} is not finite in {(~np.isfinite(array)).sum()} places; retrain")


def row_count(value: Any) -> int:
    """A whole number of rows."""
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "iuf" or array != np.floor(array):
        raise ModelError(f"obs_size is {str(value)[:60]!r}; expected a whole number of rows")
    return int(array)
