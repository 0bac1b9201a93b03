"""Days of streaming in silico: viewers, players, Puffer's server and the network between them.

Every session streams live television over its own path, while a controller chooses formats; what
comes out are the rows that Puffer's servers write. Sessions are independent of each other, and
everything random about one is a hash of its key, so that a viewer has the same path, content and
readings under whatever controller: with ``paired`` every viewer appears under each scheme, and what
differs between schemes is their doing.

Sources: the loop of Puffer's server and player, and Yan et al., "Learning in situ: a randomized
experiment in video streaming", NSDI 2020.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memento.arguments import require, whole
from memento.errors import SettingError
from memento_puffer.data.layout import EVENT_TABLES, EVENTS, PACKET, records
from memento_puffer.predictor.network import (
    INPUTS,
    Network,
    clamp_sentinels,
    selected_inputs,
    softmax,
)
from memento_puffer.predictor.transmission import CLASSES
from memento_puffer.predictor.ttp import HORIZONS, Ttp
from memento_puffer.streaming.abr import BBA, BOLA, MPC, Controller, Fugu, RobustMPC
from memento_puffer.streaming.content import Content
from memento_puffer.streaming.paths import TracePaths, drawn_paths
from memento_puffer.streaming.traces import Paths, Population, Traces
from memento_puffer.streaming.viewers import Viewers

__all__ = [
    "EVENTS",
    "Block",
    "NetworkSettings",
    "Scheme",
    "Simulation",
    "ordinary_schemes",
    "probabilities_by_size",
]

Columns = dict[str, npt.NDArray[Any]]

BAD = ("", "never started", "slow decoder", "nothing played", "negative rebuffer")
TRUNCATED = ("", "low buffer")

_RECORDS = ("all", "chunks", "streams")
_AUDIO = (19_200.0, 38_400.0, 76_800.0)  # bytes of 4.8 s at 32, 64 and 128 kbit/s
_MILLION = 1_000_000
_SCHEME, _WEIGHT = 111, 112  # purposes of random numbers
# Rows written at a time.
_ROOM = {"video_sent": 1 << 16, "video_acked": 1 << 16, "client_buffer": 1 << 18}
_SLOW_RATE = 0.75e6  # bytes/s
_WILDEST = 1.0  # standard deviation of the log of the slow part of capacity; a tenth has more


@dataclass(frozen=True)
class Scheme:
    """What a session can be assigned to.

    Args:
        name: ``abr_name`` in the experiment settings, such as "puffer_ttp_20190202".
        controller: Chooses formats.
        ttp: Predicts transmission times; for controllers that need probabilities.
        cc: Congestion control, by name; the network model is that of BBR.

    Raises:
        SettingError: A controller that needs a predictor, without one.
    """

    name: str
    controller: Controller
    ttp: Ttp | None = None
    cc: str = "bbr"

    def __post_init__(self) -> None:
        if "probabilities" in self.controller.needs and self.ttp is None:
            raise SettingError(
                f"scheme {self.name!r}: {type(self.controller).__name__} needs predictions; "
                "give ttp="
            )
        if self.controller.steps > HORIZONS and "probabilities" in self.controller.needs:
            raise SettingError(
                f"scheme {self.name!r}: lookahead of {self.controller.steps}; predictors have "
                f"{HORIZONS} horizons"
            )


class Block(NamedTuple):
    """What some sessions left behind, each a mapping from names to columns of equal length.

    Attributes:
        sessions: session, viewer (int64), scheme (int16), start (int64 ns), mean_rate (bytes/s) and
            min_rtt (s) of the path, which nobody knows in reality, trace (int64, -1 if none).
        streams: session, viewer (int64), scheme (int16), index (int64), channel (int8); startup,
            watch, stall (s; NaN if it never played), bad and truncated (int8, positions in ``BAD``
            and ``TRUNCATED``), considered; chunks, bytes (int64), ssim_index (mean), delta_ssim
            (mean |change|, dB), delivery_rate (mean, bytes/s); NaN where there is nothing to
            average. As ``qoe.stream_statistics`` and ``qoe.quality_statistics`` define them.
        video_sent, video_acked, client_buffer: The columns of ``layout.records``.

    Rows are sorted by session, and in a session by time.
    """

    sessions: Columns
    streams: Columns
    video_sent: Columns
    video_acked: Columns
    client_buffer: Columns


@dataclass(frozen=True)
class NetworkSettings:
    """Constants of the network model that all paths share.

    Attributes:
        queue: s, part of the mean queue of others' packets that all paths have.
        queue_bytes: Bytes at the path's capacity, the part that slow paths have more of.
        queue_spread: Standard deviation of its log.
        own_queue: Share of the queue that a chunk builds up itself that acknowledgements see.
        own_queue_limit: Longest such queue, s.
        append: s that a player takes to append a chunk, median.
        append_spread: Standard deviation of its log.
        jitter: s, mean delay of a player's message beyond the least.
        busy: Chance that packets are in flight without a reason in the model.
        unmeasured: Chance that a connection's first chunk has no least round-trip time yet.
        bursts: Chance that a reading is far above the rate.
        burst: Mean of the log of that factor.
        headroom: Capacity over the mean rate that readings say: a sender that often waits for the
            next chunk sees less than there is.
        window: Congestion window over what the peak rate carries in the least round trip.
        start: s that a player takes longer for the first chunk of a session, median.
        start_spread: Standard deviation of its log.
        outages: Factor on their frequency; the published one counts slow spells as well.
    """

    queue: float = 0.008
    queue_bytes: float = 12_000.0
    queue_spread: float = 1.3
    own_queue: float = 0.5
    own_queue_limit: float = 1.5
    append: float = 0.030
    append_spread: float = 0.7
    jitter: float = 0.002
    busy: float = 0.003
    unmeasured: float = 1.5e-4
    bursts: float = 0.05
    burst: float = 0.3
    headroom: float = 1.35
    window: float = 2.6
    start: float = 0.04
    start_spread: float = 1.8
    outages: float = 0.15


@dataclass(frozen=True)
class _Plan:
    """Sessions to be run: their rows for the kernel and their truths."""

    plans: Any
    sessions: npt.NDArray[np.int64]
    viewers: npt.NDArray[np.int64]
    schemes: npt.NDArray[np.int64]
    traces: npt.NDArray[np.int64]
    paths: Paths


@dataclass
class Simulation:
    """Days of streaming under one or more schemes.

    Args:
        schemes: At least one, with different names.
        population: Of paths, or traces to play again (Puffer's readings; ``TracePaths`` for
            others).
        content: Sizes and quality of what is on.
        viewers: When sessions begin, and how long they last.
        paired: Every viewer appears under every scheme; otherwise each session draws one.
        seed: Of viewers and paths, >= 0.
        network: Constants of the network model.

    Raises:
        SettingError: No scheme, two of the same name, a negative seed.

    Example:
        >>> simulation = Simulation([Scheme("linear_bba", BBA())], seed=3)
        >>> block = next(simulation.day(0, sessions=2, record="chunks"))
        >>> block.sessions["session"], bool(len(block.video_sent["time"]) > 0)
        (array([0, 1]), True)
    """

    schemes: Sequence[Scheme]
    population: Population | Traces | TracePaths = field(default_factory=Population)
    content: Content = field(default_factory=Content)
    viewers: Viewers = field(default_factory=Viewers)
    paired: bool = False
    seed: int = 0
    network: NetworkSettings = field(default_factory=NetworkSettings)

    def __post_init__(self) -> None:
        self.schemes = tuple(self.schemes)
        names = [scheme.name for scheme in self.schemes]
        if not names or len(set(names)) < len(names):
            raise SettingError(f"schemes {names}; give at least one, each with its own name")
        require("seed", self.seed, whole(0))
        if isinstance(self.population, Traces):
            self.population = TracePaths(self.population)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, by code."""
        return self.content.channels

    @property
    def formats(self) -> tuple[tuple[str, ...], ...]:
        """Names of the formats of each channel, by code."""
        return self.content.formats

    @property
    def experiments(self) -> dict[int, dict[str, Any]]:
        """expt_id (from 1, in the order of the schemes) -> settings as Puffer logs them."""
        return {
            number: {
                "abr": _algorithm_name(scheme.controller),
                "abr_name": scheme.name,
                "cc": scheme.cc,
                "git_commit": hashlib.sha256(repr(scheme.controller).encode()).hexdigest()[:40],
            }
            for number, scheme in enumerate(self.schemes, 1)
        }

    def session_ids(self, day: int, numbers: npt.ArrayLike) -> list[str]:
        """Names of sessions as in the release: base64 of 32 bytes."""
        ids = []
        for number in np.asarray(numbers, dtype=np.int64).ravel():
            digest = hashlib.sha256(f"{self.seed} {day} {number}".encode()).digest()
            ids.append(base64.b64encode(digest).decode())
        return ids

    def day(
        self,
        number: int,
        *,
        sessions: int = 2_000,
        record: str = "all",
        block: int = 512,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Block]:
        """Simulate a day.

        Args:
            number: The day, from 0. It is independent of other days.
            sessions: Viewers that come; each is one session, or one for every scheme if paired.
            record: "all" rows, only those of "chunks", or only statistics of "streams".
            block: Most sessions of a block; nothing but memory and speed depends on it. Memory
                grows with block and not with the day.
            part: (i, n): only the i-th of n equal parts of the viewers, from 0.

        Yields:
            Blocks in the order in which sessions begin.

        Raises:
            SettingError: A number out of its range, or an unknown record.
        """
        if number < 0:
            raise SettingError(f"number={number}; days count from 0")
        for name, value in (("sessions", sessions), ("block", block)):
            if value < 1:
                raise SettingError(f"{name}={value}; give at least 1")
        if record not in _RECORDS:
            raise SettingError(f"record={record!r}; give one of {', '.join(_RECORDS)}")
        i, n = part
        if not 0 <= i < n:
            raise SettingError(f"part={part}; give (i, n) with 0 <= i < n")
        return self._blocks(
            number, sessions, record, block, i * sessions // n, (i + 1) * sessions // n
        )

    def _blocks(
        self, number: int, sessions: int, record: str, block: int, first: int, stop: int
    ) -> Iterator[Block]:
        video = self._video(number)
        at_once = max(block // (len(self.schemes) if self.paired else 1), 1)
        for begin in range(first, stop, at_once):
            numbers = np.arange(begin, min(begin + at_once, stop))
            yield self._block(self._plan(number, sessions, numbers), video, record)

    def _video(self, number: int) -> Any:
        from memento_puffer._kernels.sessions import Video

        sizes, ssim = self.content.programme(number)
        quality = -10.0 * np.log10(1.0 - ssim.astype(np.float64))
        return Video(sizes, ssim, quality, np.array(_AUDIO))

    def _plan(self, day: int, sessions: int, numbers: npt.NDArray[np.int64]) -> _Plan:
        """What the sessions of some viewers intend, over which paths and under which schemes."""
        from memento_puffer._kernels.hashing import session_keys, uniforms
        from memento_puffer._kernels.sessions import Plans

        keys = session_keys(self.seed, day, numbers)
        grid = np.zeros(1)
        chosen = np.full(len(numbers), -1, np.int64)
        starts, steps = np.full(len(numbers), -1.0), np.ones(len(numbers))
        if isinstance(self.population, TracePaths):
            paths, chosen = self.population.draw(day, keys)
            used, which = np.unique(chosen, return_inverse=True)
            above = self.network.headroom if self.population.readings else 1.0
            pieces = [above * _MILLION * self.population.capacity[t] for t in used]
            lengths = np.array([len(piece) for piece in pieces])
            grid = np.concatenate(pieces)
            starts = (np.cumsum(lengths) - lengths)[which].astype(np.float64)
            steps = lengths[which].astype(np.float64)
        else:
            assert isinstance(self.population, Population)
            paths = drawn_paths(self.population, day, keys)
            above = self.network.headroom
        rate = _MILLION * paths.mean
        # Who waits a lot leaves early: slow paths have less than their share of the time.
        patience = np.minimum(1.0, (rate / _SLOW_RATE) ** 0.3)
        visits = self.viewers.visits(keys, numbers, sessions, patience)
        table = np.stack(
            (above * rate, paths.min_rtt, paths.noise, paths.low, paths.sticky,
             self.network.outages * paths.outage, np.minimum(paths.slow, _WILDEST), starts, steps),
            axis=1,
        )  # fmt: skip

        copies = len(self.schemes) if self.paired else 1
        if self.paired:
            scheme = np.tile(np.arange(copies), len(numbers))
        else:
            scheme = np.floor(len(self.schemes) * uniforms(keys, _SCHEME)).astype(np.int64)
        rows = np.repeat(np.arange(len(numbers)), copies)
        streams, offsets = _streams_of_sessions(visits.offsets, rows)
        plans = Plans(
            keys[rows],
            visits.start[rows],
            offsets,
            visits.begins[streams],
            visits.ends[streams],
            visits.channels[streams],
            table[rows],
            grid,
        )
        within = np.tile(np.arange(copies), len(numbers))
        return _Plan(
            plans,
            numbers[rows] * copies + within,
            numbers[rows],
            scheme,
            chosen[rows],
            paths.take(rows),
        )

    def _block(self, plan: _Plan, video: Any, record: str) -> Block:
        """Run sessions to their ends, decision by decision."""
        from memento_puffer._kernels import network, sessions
        from memento_puffer._kernels import streaming as kernels

        plans = plan.plans
        states, past = sessions.new_states(len(plan.sessions))
        network.begin_ramps(states, plans.paths)
        streams = np.zeros((len(plans.begins), sessions.S_WIDTH))
        recorder = _Recorder(record)
        settings = sessions.Settings(
            *(getattr(self.network, name) for name in sessions.Settings._fields)
        )
        for position, scheme in enumerate(self.schemes):
            active = np.flatnonzero(plan.schemes == position)
            decisions = np.zeros(len(active), np.int64)
            while len(active):
                done = 0
                while done < len(active):
                    done += kernels.advance(
                        states, past, plans, video, settings, active[done:], decisions[done:],
                        recorder.rows, streams,
                    )  # fmt: skip
                    if done < len(active):
                        recorder.empty()
                active = active[states[active, sessions.STATUS] == sessions.DECISION]
                if len(active):
                    decisions = _decide_formats(scheme, states, past, plans, video, active)
        return Block(
            _session_columns(plan), _stream_columns(plan, streams), *recorder.tables(plan.sessions)
        )


def ordinary_schemes() -> list[Scheme]:
    """Those of Puffer that need no predictor, under their names there."""
    return [
        Scheme("linear_bba", BBA()),
        Scheme("mpc", MPC()),
        Scheme("robust_mpc", RobustMPC()),
        Scheme("bola_basic_v1", BOLA()),
    ]


def probabilities_by_size(
    network: Network, x: npt.NDArray[Any], sizes: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """What a predictor says of several sizes in the same situation.

    The inputs of a situation differ in the last column alone, so the rest of the first layer is
    computed once.

    Args:
        network: The predictor.
        x: (n, 62) inputs; the last column is not looked at.
        sizes: (n, formats) in packets of 1,500 bytes, finite.

    Returns:
        (n, formats, 21) float32, as ``network.probabilities`` with each size in turn, but
        for the rounding of sums in another order (``Network.rounding``).

    Example:
        >>> network, x = Network.fresh(seed=1), np.ones((1, 62))
        >>> sizes = np.array([[10.0, 400.0]])
        >>> at_once = probabilities_by_size(network, x, sizes)
        >>> x[0, -1] = 400.0
        >>> bool(np.abs(at_once[:, 1] - network.probabilities(x)).max() < network.rounding(x)[0])
        True
    """
    n, formats = sizes.shape
    W1, b1, W2, b2, W3, b3 = (array.astype(np.float32, copy=False) for array in network.weights)
    moments = network.moments
    x = clamp_sentinels(selected_inputs(x, len(moments.mean)))
    standard = moments.standardise(x)
    standard[:, -1] = 0.0
    shared = standard @ W1.T
    shared += b1
    size = ((sizes - moments.mean[-1]) / moments.scale[-1]).astype(np.float32)
    hidden = (shared[:, None, :] + size[:, :, None] * W1[:, -1]).reshape(n * formats, -1)
    np.maximum(hidden, 0, out=hidden)
    hidden = hidden @ W2.T
    hidden += b2
    np.maximum(hidden, 0, out=hidden)
    logits = hidden @ W3.T
    logits += b3
    return np.asarray(softmax(logits).reshape(n, formats, CLASSES))


def _decide_formats(
    scheme: Scheme, states: Any, past: Any, plans: Any, video: Any, active: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """What a scheme sends in the sessions that wait."""
    from memento_puffer._kernels import sessions
    from memento_puffer._kernels import streaming as kernels

    controller = scheme.controller
    n, steps = len(active), controller.steps
    sizes = np.empty((n, steps, sessions.FORMATS))
    ssim = np.empty_like(sizes)
    kernels.look_ahead(states, plans, video, active, sizes, ssim)
    given: dict[str, Any] = {}
    if "last_ssim" in controller.needs:
        given["last_ssim"] = states[active, sessions.LAST_SSIM]
    if "past_sizes" in controller.needs:
        given["past_sizes"] = past[active, :, sessions.NOW] * PACKET
        given["past_times"] = past[active, :, sessions.NOW + 1]
    if "probabilities" in controller.needs:
        assert scheme.ttp is not None
        inputs = np.zeros((n, INPUTS))
        kernels.recall(states, past, active, 8, inputs)
        packets = np.where(np.isnan(sizes), 0.0, sizes / PACKET)
        chances = np.empty((n, steps, sessions.FORMATS, CLASSES))
        for h in range(steps):
            chances[:, h] = probabilities_by_size(scheme.ttp[h], inputs, packets[:, h])
        given["probabilities"] = chances
    buffer = states[active, sessions.VIDEO_BUFFER]
    return controller.decide(buffer, sizes, ssim, **given)


class _Recorder:
    """Rows that kernels write, moved away whenever a table is full."""

    def __init__(self, record: str) -> None:
        from memento_puffer._kernels import sessions

        wanted = {"all": EVENT_TABLES, "chunks": EVENT_TABLES[:2], "streams": ()}[record]
        sent, acked, events = (
            np.empty(_ROOM[kind] if kind in wanted else 0, records(kind)) for kind in EVENT_TABLES
        )
        self.rows = sessions.Rows(sent, acked, events, np.zeros(len(EVENT_TABLES), np.int64))
        self._kept: tuple[list[npt.NDArray[np.void]], ...] = tuple([] for _ in EVENT_TABLES)

    def empty(self) -> None:
        """Move away what is written."""
        *tables, used = self.rows
        for kept, table, count in zip(self._kept, tables, used, strict=True):
            kept.append(table[:count].copy())
        used[:] = 0

    def tables(self, sessions: npt.NDArray[np.int64]) -> list[Columns]:
        """All that was written, by session."""
        self.empty()
        tables = []
        for kept in self._kept:
            rows = np.concatenate(kept)
            kept.clear()
            order = np.argsort(rows["session"], kind="stable")
            table: Columns = {name: rows[name][order] for name in rows.dtype.names or ()}
            tables.append({**table, "session": sessions[table["session"]]})
        return tables


def _session_columns(plan: _Plan) -> Columns:
    return {
        "session": plan.sessions,
        "viewer": plan.viewers,
        "scheme": plan.schemes.astype(np.int16),
        "start": _MILLION * np.rint(1e3 * plan.plans.start).astype(np.int64),
        "mean_rate": _MILLION * plan.paths.mean,
        "min_rtt": plan.paths.min_rtt,
        "trace": plan.traces,
    }


def _stream_columns(plan: _Plan, table: npt.NDArray[np.float64]) -> Columns:
    """The columns of ``Block.streams`` from what kernels summed up."""
    from memento_puffer._kernels import sessions

    offsets = plan.plans.offsets
    owner = np.repeat(np.arange(len(plan.sessions)), np.diff(offsets))
    chunks = table[:, sessions.S_CHUNKS]
    watch, bad = table[:, sessions.S_WATCH], table[:, sessions.S_BAD].astype(np.int8)
    with np.errstate(invalid="ignore"):
        means = table[:, [sessions.S_SSIM, sessions.S_RATE]] / chunks[:, None]
        change = table[:, sessions.S_CHANGE] / table[:, sessions.S_CHANGES]
        considered = (bad == sessions.GOOD) & (watch >= 4.0)
    return {
        "session": plan.sessions[owner],
        "viewer": plan.viewers[owner],
        "scheme": plan.schemes[owner].astype(np.int16),
        "index": np.arange(len(owner)) - offsets[owner],
        "channel": plan.plans.channels.astype(np.int8),
        "startup": table[:, sessions.S_STARTUP].copy(),
        "watch": watch.copy(),
        "stall": table[:, sessions.S_STALL].copy(),
        "bad": bad,
        "truncated": table[:, sessions.S_TRUNCATED].astype(np.int8),
        "considered": considered,
        "chunks": chunks.astype(np.int64),
        "bytes": table[:, sessions.S_BYTES].astype(np.int64),
        "ssim_index": means[:, 0],
        "delta_ssim": change,
        "delivery_rate": means[:, 1],
    }


def _streams_of_sessions(
    offsets: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Streams of the sessions asked for, and their offsets."""
    lengths = np.diff(offsets)[rows]
    ends = np.cumsum(lengths)
    streams = np.repeat(offsets[rows] - ends + lengths, lengths) + np.arange(ends[-1])
    return streams, np.concatenate(([0], ends)).astype(np.int64)


def _algorithm_name(controller: Controller) -> str:
    """Puffer's name of an algorithm."""
    if isinstance(controller, Fugu):
        return "puffer_ttp_mle" if controller.point_estimate else "puffer_ttp"
    if isinstance(controller, BOLA):
        return f"bola_basic_v{controller.version}"
    named = {RobustMPC: "robust_mpc", MPC: "mpc", BBA: "linear_bba"}
    return named.get(type(controller), type(controller).__name__.lower())
