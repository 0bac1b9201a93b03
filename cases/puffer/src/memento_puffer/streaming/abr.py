"""Bitrate controllers: in which format to send the next chunk of video.

    Fugu        best plan in expectation over the predicted distribution of transmission times;
                or as if the likeliest time were certain (``point_estimate``), or with a blurred
                distribution (``blur``)
    MPC         best plan if throughput stays at its recent harmonic mean (MPC-HM)
    RobustMPC   the same, lowered by the largest recent error of prediction (RobustMPC-HM)
    BBA         the best chunk below a size that grows with the buffer
    BOLA        best score of utility against buffer, per byte (BOLA-BASIC, versions 1 and 2)

A controller is a frozen settings object. ``decide`` answers for many sessions at once, and all
controllers take the same arguments: what one does not need (see ``needs``) it does not look at.

Sources: Yan et al., "Learning in situ: a randomized experiment in video streaming", NSDI 2020
(Fugu and its planning); Yin et al., "A control-theoretic approach for dynamic adaptive video
streaming over HTTP", SIGCOMM 2015 (MPC); Huang et al., "A buffer-based approach to rate
adaptation", SIGCOMM 2014 (BBA); Spiteri et al., "BOLA: near-optimal bitrate adaptation for online
videos", INFOCOM 2016; all with the constants that Puffer's servers run with.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from memento.arguments import Count, NotNegative, check_fields, number
from memento.errors import DomainError, SchemaError, SettingError
from memento_puffer.data.layout import CHUNK_SECONDS
from memento_puffer.predictor.transmission import CLASSES

__all__ = [
    "BBA",
    "BOLA",
    "BUFFER_SECONDS",
    "MPC",
    "Controller",
    "Fugu",
    "RobustMPC",
    "Situations",
    "decibels",
    "named_controllers",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BUFFER_SECONDS = 15.0  # the server sends while the client has less than this

# Planning counts the buffer in these units, in seconds.
_FUGU_UNIT = 0.5
_MPC_UNITS = 100
_MPC_UNIT = BUFFER_SECONDS / _MPC_UNITS

_UNKNOWN_PACE = 10_000.0  # s/byte where nothing was sent yet: any stall is worse than any quality
_BLUR_REACH = 10  # classes on either side
_BLUR_MEAN = number(
    -_BLUR_REACH, _BLUR_REACH, words=f"a number of classes within {_BLUR_REACH} of 0"
)
_SUM_ERROR = 1e-3  # float32 probabilities sum to 1 within much less
# Vp and gamma_p, from the mean chunk sizes of Puffer with buffers of 3 and 15 s.
_BOLA = {1: (1.347114, -6.644704), 2: (102.816187, -0.854108)}


def decibels(ssim: npt.ArrayLike) -> Floats:
    """SSIM in dB, as controllers and statistics use it.

    Args:
        ssim: SSIM index in [-1, 1], of any shape; NaN if missing.

    Returns:
        float64 of the same shape: ``-10 log10(1 - ssim)`` within 0 and 60, 0 where it is missing.

    Example:
        >>> decibels([0.9, 0.98, 1.0, -0.5, float("nan")]).round(2)
        array([10.  , 16.99, 60.  ,  0.  ,  0.  ])
    """
    # 1e-6 is 60 dB; the bounds on the distance from 1 save those on the logarithm.
    distance = np.clip(1.0 - _or_zero(np.asarray(ssim, dtype=np.float64)), 1e-6, 1.0)
    return np.asarray(-10.0 * np.log10(distance) + 0.0)  # 0, not -0


class Situations(NamedTuple):
    """What n sessions know before they send, checked; see ``Controller.decide``."""

    buffer: Floats  # (n,)
    sizes: Floats  # (n, steps, formats)
    ssim: Floats  # (n, steps, formats)
    last_ssim: Floats  # (n,)
    past_sizes: Floats  # (n, history)
    past_times: Floats  # (n, history)
    probabilities: Floats  # (n, steps, formats, 21)


class Controller(ABC):
    """Chooses formats. Its settings are frozen; what it knows comes with each call.

    Attributes:
        needs: Those of the optional arguments of ``decide`` that it cannot do without.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    @property
    def steps(self) -> int:
        """How many chunks ahead it looks, at most."""
        return 1

    @property
    def history(self) -> int:
        """How many past chunks it looks back at, at most."""
        return 0

    def decide(
        self,
        buffer: npt.ArrayLike,
        sizes: npt.ArrayLike,
        ssim: npt.ArrayLike,
        *,
        last_ssim: npt.ArrayLike | None = None,
        past_sizes: npt.ArrayLike | None = None,
        past_times: npt.ArrayLike | None = None,
        probabilities: npt.ArrayLike | None = None,
    ) -> Integers:
        """Choose the format of the next chunk in n sessions.

        Args:
            buffer: (n,) seconds of video that the client has, >= 0.
            sizes: (n, chunks, formats) bytes of the next chunks, > 0; NaN if unknown. A session
                whose look-ahead ends early has NaN from there on: chunks count up to the first
                without any known size. A format of unknown size is never chosen.
            ssim: (n, chunks, formats) SSIM index in [-1, 1] of the next chunks; NaN, missing,
                counts as 0 (that is 0 dB).
            last_ssim: (n,) SSIM index of the chunk sent last, 0 if that was missing; NaN before the
                first one of a connection, when a change of quality costs nothing.
            past_sizes: (n, ``history`` or more) bytes of the chunks acknowledged last, > 0, oldest
                first. What lies before a NaN does not count, so younger sessions start with NaN.
            past_times: (n, same) seconds that they took, > 0.
            probabilities: (n, chunks, formats, 21) predicted distribution of the class of each
                transmission time (see ``transmission.class_of``); not read where sizes are NaN.

        Returns:
            int64 (n,), format numbers. The first of formats that are equally good.

        Raises:
            SchemaError: An argument that is needed is missing, or shapes do not fit.
            DomainError: Values outside their range, or a next chunk without any known size.
        """
        given = {
            "last_ssim": last_ssim,
            "past_sizes": past_sizes,
            "past_times": past_times,
            "probabilities": probabilities,
        }
        for name in sorted(self.needs):
            if given[name] is None:
                raise SchemaError(f"{type(self).__name__}.decide needs {name}=; got None")

        steps = self.steps
        buffers = _number_array("buffer", buffer, 1)
        n = len(buffers)
        _refuse_values(
            "buffer", buffers, ~((buffers >= 0) & np.isfinite(buffers)), "finite and >= 0"
        )
        known = _first_steps("sizes", sizes, 3, n, steps)
        _refuse_values("sizes", known, (known <= 0) | np.isinf(known), "above 0 and finite, or NaN")
        if known.shape[1] == 0 or known.shape[2] == 0:
            raise SchemaError(
                f"sizes: found shape {np.shape(sizes)}; expected at least one chunk and format"
            )
        nothing = np.isnan(known[:, 0]).all(axis=1)
        if nothing.any():
            raise DomainError(
                f"sizes: session {nothing.argmax()} knows no size of its next chunk; leave out "
                "sessions that have nothing to send"
            )
        index = _first_steps("ssim", ssim, 3, n, known.shape[1])
        _same_shape("ssim", index.shape, "sizes", known.shape)
        _refuse_values(
            "ssim", index, np.abs(index) > 1, "an index within -1 and 1 (not dB), or NaN"
        )

        last = np.full(n, np.nan)
        if "last_ssim" in self.needs:
            last = _number_array("last_ssim", last_ssim, 1)
            _same_shape("last_ssim", last.shape, "buffer", buffers.shape)
            _refuse_values("last_ssim", last, np.abs(last) > 1, "an index within -1 and 1, or NaN")
        before, took = np.empty((n, 0)), np.empty((n, 0))
        if "past_sizes" in self.needs:
            before = self._past_chunks("past_sizes", past_sizes, n)
            took = self._past_chunks("past_times", past_times, n)
        chances = np.empty((n, 0, 0, CLASSES))
        if "probabilities" in self.needs:
            chances = _first_steps("probabilities", probabilities, 4, n, known.shape[1])
            _same_shape(
                "probabilities", chances.shape, "sizes and classes", (*known.shape, CLASSES)
            )
            _check_chances(chances, known)
        return self._choose(Situations(buffers, known, index, last, before, took, chances))

    def _past_chunks(self, name: str, given: npt.ArrayLike | None, n: int) -> Floats:
        values = _number_array(name, given, 2)
        if values.shape[0] != n or values.shape[1] < self.history:
            raise SchemaError(
                f"{name}: found shape {values.shape}; expected {n} rows of {self.history} past "
                "chunks or more; fill up younger sessions with NaN on the left"
            )
        values = np.ascontiguousarray(values[:, values.shape[1] - self.history :])
        _refuse_values(name, values, (values <= 0) | np.isinf(values), "above 0 and finite, or NaN")
        return values

    @abstractmethod
    def _choose(self, situations: Situations) -> Integers:
        """Return the format of each session."""


@dataclass(frozen=True)
class Fugu(Controller):
    """Best plan in expectation over the predicted distribution of transmission times.

    The value of a plan is the sum over its chunks of ``q - switching |q - q before| - stalling *
    (stall in s)`` with ``q`` in dB. Time and buffer count in half seconds, the buffer up to 15 s;
    class k of a transmission time takes k of them. Chances below 1e-5 are moved to the last class.
    A format is banned where its chance of one of the first 20 classes is below 0.5; if all are,
    the smallest one is allowed, as if it took the last class.

    Args:
        lookahead: Chunks that a plan has, at most; >= 1.
        switching: Cost of a change of quality, per dB; >= 0.
        stalling: Cost of stalls, per s; >= 0.
        point_estimate: Plan as if the likeliest class (the first of several) were certain.
        blur: Standard deviation, in classes, of a Gaussian that chances are blurred with after
            formats were banned; 0 for none. Class k gets what lies at most 10 classes away, times
            the density at the distance, and chances are scaled to the sum 1.
        blur_mean: Its mean, in classes: above 0, class k gets most from later ones, so times are
            planned as shorter.
        blur_wraps: Classes count in a circle, as on Puffer's servers, where a little of "at once"
            thus becomes "too late"; otherwise nothing lies before the first and after the last.

    Raises:
        SettingError: A setting out of its range.

    Example:
        Two formats. The large one may take longer (class 6, 3 s) than the 2 s in the buffer last.

        >>> import numpy as np
        >>> chances = np.zeros((1, 1, 2, 21))
        >>> chances[0, 0, 0, 0] = 1.0
        >>> chances[0, 0, 1, [1, 6]] = 0.9, 0.1
        >>> sizes, ssim = [[[0.1e6, 1e6]]], [[[0.9, 0.98]]]
        >>> Fugu().decide([2.0], sizes, ssim, last_ssim=[np.nan], probabilities=chances)
        array([0])
        >>> risky = Fugu(point_estimate=True)
        >>> risky.decide([2.0], sizes, ssim, last_ssim=[np.nan], probabilities=chances)
        array([1])

    References:
        Yan et al., "Learning in situ", NSDI 2020, section 4.
    """

    lookahead: Count = 5
    switching: NotNegative = 1.0
    stalling: NotNegative = 100.0
    point_estimate: bool = False
    blur: NotNegative = 0.0
    blur_mean: Annotated[float, _BLUR_MEAN] = 0.0
    blur_wraps: bool = True

    needs: ClassVar[frozenset[str]] = frozenset({"last_ssim", "probabilities"})

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def steps(self) -> int:
        """How many chunks ahead it looks, at most."""
        return self.lookahead

    def _choose(self, situations: Situations) -> Integers:
        """See `Controller`."""
        from memento_puffer._kernels.planning import plan_by_chances

        out = np.empty(len(situations.buffer), np.int64)
        full = int(_units_of(BUFFER_SECONDS, _FUGU_UNIT))
        plan_by_chances(
            np.minimum(_units_of(situations.buffer, _FUGU_UNIT), full),
            situations.sizes,
            decibels(situations.ssim),
            _last_quality(situations.last_ssim),
            situations.probabilities,
            bool(self.point_estimate),
            _blur_shares(self.blur, self.blur_mean, self.blur_wraps),
            float(self.switching),
            self.stalling * _FUGU_UNIT,
            int(_units_of(CHUNK_SECONDS, _FUGU_UNIT)),
            full,
            out,
        )
        return out


@dataclass(frozen=True)
class MPC(Controller):
    """Best plan if throughput stays at the harmonic mean of the last chunks (MPC-HM).

    The seconds per byte of the next chunk are predicted as the mean of those of the last chunks,
    and each prediction takes the place of the oldest in the mean for the chunk after it. The value
    of a plan is that of ``Fugu``, with these times taken as certain and the buffer counted in 0.15
    s. Before the first chunk 10,000 s/byte are assumed: the smallest format is sent.

    Args:
        lookahead: Chunks that a plan has, at most; >= 1.
        switching: Cost of a change of quality, per dB; >= 0.
        stalling: Cost of stalls, per s; >= 0.
        past: Chunks that predictions average, at most; >= 1.

    Raises:
        SettingError: A setting out of its range.

    Example:
        >>> sizes, ssim = [[[0.1e6, 1e6]]], [[[0.9, 0.98]]]
        >>> for rate in 200e3, 500e3:  # byte/s
        ...     MPC().decide(
        ...         [3.0],
        ...         sizes,
        ...         ssim,
        ...         last_ssim=[0.98],
        ...         past_sizes=[[rate] * 5],
        ...         past_times=[[1.0] * 5],
        ...     )
        array([0])
        array([1])

    References:
        Yin et al., SIGCOMM 2015; harmonic mean as in Yan et al., NSDI 2020.
    """

    lookahead: Count = 10
    switching: NotNegative = 1.0
    stalling: NotNegative = 100.0
    past: Count = 5

    needs: ClassVar[frozenset[str]] = frozenset({"last_ssim", "past_sizes", "past_times"})
    _robust: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def steps(self) -> int:
        """How many chunks ahead it looks, at most."""
        return self.lookahead

    @property
    def history(self) -> int:
        """How many past chunks it looks back at, at most."""
        return self.past

    def _choose(self, situations: Situations) -> Integers:
        """See `Controller`."""
        from memento_puffer._kernels.planning import plan_by_time

        out = np.empty(len(situations.buffer), np.int64)
        plan_by_time(
            np.minimum(_units_of(situations.buffer, _MPC_UNIT), _MPC_UNITS),
            situations.sizes,
            decibels(situations.ssim),
            _last_quality(situations.last_ssim),
            situations.past_times / situations.past_sizes,
            self.past,
            self._robust,
            _UNKNOWN_PACE,
            float(self.switching),
            float(self.stalling),
            _MPC_UNIT,
            CHUNK_SECONDS,
            _MPC_UNITS,
            out,
        )
        return out


@dataclass(frozen=True)
class RobustMPC(MPC):
    """MPC with predictions lowered by the largest recent error (RobustMPC-HM).

    Each predicted s/byte is multiplied by ``1 + e``, with ``e`` the largest of
    ``|1 - predicted throughput * actual s/byte|`` over the last ``past`` chunks. Predicted is what
    ``MPC`` predicted then, from up to ``past`` chunks before: hence ``history`` is twice as long.
    The multiplied s/byte go into the means for later chunks, so the error compounds over a plan.

    Args:
        lookahead: See ``MPC``, as for all others.
        switching: See there.
        stalling: See there.
        past: See there.

    Raises:
        SettingError: A setting out of its range.
    """

    _robust: ClassVar[bool] = True

    @property
    def history(self) -> int:
        """How many past chunks it looks back at, at most."""
        return 2 * self.past


@dataclass(frozen=True)
class BBA(Controller):
    """The best chunk below a size that grows with the buffer.

    With a buffer of ``lower`` (of 15 s) or less the smallest format, from ``upper`` on the largest;
    between them the highest SSIM among the formats no larger than a limit, which goes linearly
    from the smallest size to the largest.

    Args:
        lower: Share of 15 s, within 0 and ``upper``.
        upper: Share of 15 s, above ``lower``, at most 1. Puffer ran 0.8 until January 2019.

    Raises:
        SettingError: A setting out of its range.

    Example:
        >>> sizes, ssim = [[[1e5, 3e5, 9e5]]] * 3, [[[0.90, 0.95, 0.98]]] * 3
        >>> BBA().decide([3.0, 6.0, 14.0], sizes, ssim)
        array([0, 1, 2])

    References:
        Huang et al., SIGCOMM 2014.
    """

    lower: float = 0.2
    upper: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.lower < self.upper <= 1:
            raise SettingError(
                f"lower={self.lower}, upper={self.upper}; give 0 <= lower < upper <= 1"
            )

    def _choose(self, situations: Situations) -> Integers:
        """See `Controller`."""
        from memento_puffer._kernels.planning import follow_buffer

        out = np.empty(len(situations.buffer), np.int64)
        follow_buffer(
            situations.buffer,
            situations.sizes[:, 0],
            _or_zero(situations.ssim[:, 0]),
            self.lower * BUFFER_SECONDS,
            self.upper * BUFFER_SECONDS,
            out,
        )
        return out


@dataclass(frozen=True)
class BOLA(Controller):
    """Best score of utility against buffer, per byte (BOLA-BASIC).

    The score of a format is ``(Vp / 2.002 (u + gamma_p) - buffer / 2.002) / size``. Version 1: the
    utility u is the quality in dB. Version 2: u is the SSIM index, and if no score reaches 0, the
    format with the largest u is sent.

    Args:
        version: 1 or 2.
        Vp: Weight of utility, in s; above 0. None is Puffer's for the version.
        gamma_p: Added to utilities. None is Puffer's for the version.

    Raises:
        SettingError: A setting out of its range.

    Example:
        >>> sizes, ssim = [[[1e5, 3e5, 9e5]]] * 3, [[[0.90, 0.95, 0.98]]] * 3
        >>> BOLA().decide([1.0, 4.0, 14.0], sizes, ssim)
        array([0, 1, 2])

    References:
        Spiteri et al., INFOCOM 2016.
    """

    version: int = 1
    Vp: float | None = None
    gamma_p: float | None = None

    def __post_init__(self) -> None:
        if self.version not in _BOLA:
            raise SettingError(f"version={self.version!r}; there are 1 and 2")
        if self.Vp is not None and not 0 < self.Vp < math.inf:
            raise SettingError(f"Vp={self.Vp}; give a number of seconds above 0")
        if self.gamma_p is not None and not math.isfinite(self.gamma_p):
            raise SettingError(f"gamma_p={self.gamma_p}; give a finite number")

    def _choose(self, situations: Situations) -> Integers:
        """See `Controller`."""
        from memento_puffer._kernels.planning import score_formats

        Vp, gamma_p = _BOLA[self.version]
        Vp = Vp if self.Vp is None else self.Vp
        gamma_p = gamma_p if self.gamma_p is None else self.gamma_p
        ssim = situations.ssim[:, 0]
        out = np.empty(len(situations.buffer), np.int64)
        score_formats(
            situations.buffer / CHUNK_SECONDS,
            situations.sizes[:, 0],
            decibels(ssim) if self.version == 1 else _or_zero(ssim),
            Vp / CHUNK_SECONDS,
            float(gamma_p),
            self.version == 2,
            out,
        )
        return out


def _blur_shares(std: float, mean: float, wraps: bool) -> Floats:
    """(21, 21): what class k (row) gets of each class; (0, 0) without blur."""
    if std == 0:
        return np.empty((0, 0))
    k = np.arange(CLASSES)
    away = k - k[:, None]
    if wraps:  # 21 classes and a reach of 10: each lies at one distance
        away = (away + _BLUR_REACH) % CLASSES - _BLUR_REACH
    # The nearest distance has the exponent 0, so a narrow Gaussian does not vanish everywhere.
    squares = ((away - mean) / std) ** 2
    within = np.abs(away) <= _BLUR_REACH
    return np.asarray(np.where(within, np.exp(0.5 * (squares[within].min() - squares)), 0.0))


def _units_of(seconds: npt.ArrayLike, unit: float) -> Integers:
    """Whole units, to the nearest."""
    # Bounded, as endless buffers do not fit an integer; all bounds on units are far below.
    units = np.floor((np.asarray(seconds, dtype=np.float64) + 0.5 * unit) / unit)
    return np.minimum(units, 1e6).astype(np.int64)


def _or_zero(ssim: Floats) -> Floats:
    return np.where(np.isnan(ssim), 0.0, ssim)


def _last_quality(ssim: Floats) -> Floats:
    """Quality in dB that stays NaN where nothing was sent."""
    return np.where(np.isnan(ssim), np.nan, decibels(ssim))


def _number_array(
    name: str, given: npt.ArrayLike | None, dimensions: int, steps: int | None = None
) -> Floats:
    """float64 array of so many dimensions, its first ``steps`` columns if they are given."""
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "fiu":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"{name}: found {error}; expected an array of numbers") from None
    if array.ndim != dimensions:
        raise SchemaError(
            f"{name}: found shape {array.shape}; expected {dimensions} dimension(s), "
            "the first for sessions"
        )
    # cut before it is converted: the rest is not looked at
    wanted = array if steps is None else array[:, :steps]
    return np.ascontiguousarray(wanted, dtype=np.float64)


def _first_steps(
    name: str, given: npt.ArrayLike | None, dimensions: int, n: int, steps: int
) -> Floats:
    """Return the first chunks of each session, at most ``steps``."""
    values = _number_array(name, given, dimensions, steps)
    if len(values) != n:
        raise SchemaError(f"{name}: found {len(values)} sessions; expected {n}, as in buffer")
    return values


def _same_shape(name: str, found: tuple[int, ...], other: str, expected: tuple[int, ...]) -> None:
    if found != expected:
        raise SchemaError(
            f"{name}: found shape {found} in the chunks that count; expected {expected}, as {other}"
        )


def _refuse_values(name: str, values: Floats, wrong: npt.NDArray[np.bool_], expected: str) -> None:
    if wrong.any():
        where = np.unravel_index(int(wrong.argmax()), wrong.shape)
        place = ", ".join(str(int(i)) for i in where)
        raise DomainError(f"{name}[{place}]: found {values[where]}; expected {expected}")


def _check_chances(chances: Floats, sizes: Floats) -> None:
    unread = np.isnan(sizes)
    total = chances.sum(axis=3)
    wrong = ~(np.abs(total - 1.0) <= _SUM_ERROR) | ~(chances.min(axis=3) >= 0)
    wrong &= ~unread
    if wrong.any():
        session, chunk, format_ = np.unravel_index(int(wrong.argmax()), wrong.shape)
        raise DomainError(
            f"probabilities[{session}, {chunk}, {format_}]: found sum "
            f"{total[session, chunk, format_]} and smallest "
            f"{chances[session, chunk, format_].min()}; expected numbers >= 0 that sum to 1 (a "
            "softmax of the network's output), as the size is known"
        )


# Puffer's name of the algorithm (``abr`` in its experiment settings) -> controller as deployed.
named_controllers: dict[str, Controller] = {
    "puffer_ttp": Fugu(),
    "puffer_ttp_mle": Fugu(point_estimate=True),
    "puffer_ttp_no_tcp_info": Fugu(),  # it is its predictor that has 17 inputs
    "mpc": MPC(),
    "robust_mpc": RobustMPC(),
    "linear_bba": BBA(),
    "bola_basic_v1": BOLA(version=1),
    "bola_basic_v2": BOLA(version=2),
}
