"""Controllers: against plain recursions written from their definition, and golden decisions."""

from __future__ import annotations

import functools
import json
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memento.errors import DomainError, SchemaError, SettingError
from memento_puffer.predictor.transmission import class_of
from memento_puffer.streaming.abr import (
    BBA,
    BOLA,
    MPC,
    Controller,
    Fugu,
    RobustMPC,
    decibels,
    named_controllers,
)

NAN = float("nan")
TIE = 1e-9

# Mean size in bytes and SSIM index of ten formats over all stations.
SIZES = np.array(
    [44319, 93355, 115601, 142904, 196884, 263965, 353752, 494902, 632193, 889893], dtype=float
)
SSIM = np.array(
    [0.91051, 0.94063, 0.94806, 0.95499, 0.96215, 0.96717, 0.97274, 0.97690, 0.98004, 0.98333]
)
BUFFERS = [0, 1, 2, 3, 4, 6, 8, 10, 12, 13.5, 15]


# ----------------------------------------------------------------------------------------------
# Oracles: one session, memoised recursion over plans


def q_of(ssim: float) -> float:
    if math.isnan(ssim):
        return 0.0
    if ssim == 1:
        return 60.0
    return min(max(-10 * math.log10(1 - ssim), 0.0), 60.0)


def best_of(values: dict[int, float]) -> int:
    """The first of the largest, where rounding does not make a difference."""
    most = max(values.values())
    return min(g for g, value in values.items() if value >= most - TIE)


def known_steps(sizes: np.ndarray, lookahead: int) -> int:
    known = ~np.isnan(sizes).all(axis=1)
    return min([lookahead, len(sizes), *np.flatnonzero(~known).tolist()])


def slow_plan(
    sizes: np.ndarray,
    ssim: np.ndarray,
    last_ssim: float,
    steps: int,
    switching: float,
    allowed: Callable[[int, int], bool],
    outcomes: Callable[[int, int, int], list[tuple[float, int, float]]],
    start: int,
    stalling: float,
) -> int:
    """The best first format; outcomes(i, g, b) lists (chance, next buffer, stall in s)."""
    formats = sizes.shape[1]
    q = [[q_of(index) for index in row] for row in ssim]

    def follow(i: int, b: int, g: int, before: float) -> float:
        total = 0.0 if math.isnan(before) else -switching * abs(before - q[i][g])
        for chance, after, stall in outcomes(i, g, b):
            total += chance * (value(i + 1, after, g) - stalling * stall)
        return total

    @functools.cache
    def value(i: int, b: int, f: int) -> float:
        """Of chunk i - 1, sent in format f, and all after it."""
        own = q[i - 1][f]
        if i == steps:
            return own
        return own + max(follow(i, b, g, own) for g in range(formats) if allowed(i, g))

    last = NAN if math.isnan(last_ssim) else q_of(last_ssim)
    return best_of({g: follow(0, start, g, last) for g in range(formats) if allowed(0, g)})


def slow_fugu(
    buffer: float,
    sizes: np.ndarray,
    ssim: np.ndarray,
    last_ssim: float,
    probabilities: np.ndarray,
    settings: Fugu,
) -> int:
    steps, formats = known_steps(sizes, settings.lookahead), sizes.shape[1]
    chances: dict[tuple[int, int], list[float]] = {}
    for i in range(steps):
        for f in range(formats):
            if math.isnan(sizes[i, f]):
                continue
            p = list(probabilities[i, f])
            if settings.point_estimate:
                p = [float(k == p.index(max(p))) for k in range(21)]
            p = [x if x >= 1e-5 else 0.0 for x in p[:20]]
            if sum(p) >= 0.5:
                chances[i, f] = [*p, 1 - sum(p)]
        if not any((i, f) in chances for f in range(formats)):
            chances[i, int(np.nanargmin(sizes[i]))] = [0.0] * 20 + [1.0]
        if settings.blur:
            for f in range(formats):
                if (i, f) in chances:
                    chances[i, f] = slow_blur(chances[i, f], settings)

    def outcomes(i: int, g: int, b: int) -> list[tuple[float, int, float]]:
        return [
            (chance, min(max(b - k, 0) + 4, 30), 0.5 * max(k - b, 0))
            for k, chance in enumerate(chances[i, g])
            if chance >= 1e-5
        ]

    return slow_plan(
        sizes,
        ssim,
        last_ssim,
        steps,
        settings.switching,
        lambda i, g: (i, g) in chances,
        outcomes,
        min(30, math.floor((buffer + 0.25) / 0.5)),
        settings.stalling,
    )


def slow_blur(p: list[float], settings: Fugu) -> list[float]:
    """One output class after the other, the density at each distance of at most 10."""
    out = []
    for k in range(21):
        total = 0.0
        for j in range(-10, 11):
            if settings.blur_wraps or 0 <= k + j <= 20:
                z = (j - settings.blur_mean) / settings.blur
                density = math.exp(-z * z / 2) / (settings.blur * math.sqrt(2 * math.pi))
                total += density * p[(k + j) % 21]
        out.append(total)
    return [x / sum(out) for x in out] if sum(out) > 0 else p


def slow_mpc(
    buffer: float,
    sizes: np.ndarray,
    ssim: np.ndarray,
    last_ssim: float,
    past_sizes: Sequence[float],
    past_times: Sequence[float],
    settings: MPC,
) -> int:
    steps, window = known_steps(sizes, settings.lookahead), settings.past
    u: list[float] = []
    for size, time in zip(past_sizes, past_times, strict=True):
        u = [] if math.isnan(size) or math.isnan(time) else [*u, time / size]
    error = 0.0
    if isinstance(settings, RobustMPC):
        for j in range(max(len(u) - window, 1), len(u)):
            before = u[max(j - window, 0) : j]
            throughput = len(before) / sum(before)
            error = max(error, abs(1 - throughput * u[j]))
    recent = u[-window:]
    known = len(recent)
    for _ in range(steps):
        mean = sum(recent[-known:]) / known if known else 10_000
        recent.append(mean * (1 + error))
    predicted = recent[known:]

    def outcomes(i: int, g: int, b: int) -> list[tuple[float, int, float]]:
        T = sizes[i, g] * predicted[i]
        after = min(math.floor((max(0, 0.15 * b - T) + 2.002 + 0.075) / 0.15), 100)
        return [(1.0, after, max(0.0, T - 0.15 * b))]

    return slow_plan(
        sizes,
        ssim,
        last_ssim,
        steps,
        settings.switching,
        lambda i, g: not math.isnan(sizes[i, g]),
        outcomes,
        min(math.floor((buffer + 0.075) / 0.15), 100),
        settings.stalling,
    )


def slow_bba(buffer: float, sizes: np.ndarray, ssim: np.ndarray, settings: BBA) -> int:
    known = [f for f in range(sizes.shape[1]) if not math.isnan(sizes[0, f])]
    size = {f: sizes[0, f] for f in known}
    index = {f: 0.0 if math.isnan(ssim[0, f]) else ssim[0, f] for f in known}
    smallest, largest = min(known, key=size.__getitem__), max(known, key=size.__getitem__)
    low, high = settings.lower * 15, settings.upper * 15
    if buffer >= high:
        return largest
    if buffer <= low:
        return smallest
    limit = size[smallest] + (size[largest] - size[smallest]) * ((buffer - low) / (high - low))
    return max((f for f in known if size[f] <= limit), key=index.__getitem__)


def slow_bola(buffer: float, sizes: np.ndarray, ssim: np.ndarray, settings: BOLA) -> int:
    Vp, gamma = {1: (1.347114, -6.644704), 2: (102.816187, -0.854108)}[settings.version]
    utility, score = {}, {}
    for f in range(sizes.shape[1]):
        if math.isnan(sizes[0, f]):
            continue
        index = 0.0 if math.isnan(ssim[0, f]) else ssim[0, f]
        utility[f] = q_of(index) if settings.version == 1 else index
        score[f] = (Vp / 2.002 * (utility[f] + gamma) - buffer / 2.002) / sizes[0, f]
    if settings.version == 2 and max(score.values()) < 0:
        return max(utility, key=utility.__getitem__)
    return max(score, key=score.__getitem__)


# ----------------------------------------------------------------------------------------------
# Random sessions


def random_sessions(
    rng: np.random.Generator, n: int, steps: int, formats: int, past: int
) -> dict[str, np.ndarray]:
    """Sessions at all ages and buffers, with gaps in what is known, and horizons cut short."""
    scene = rng.lognormal(0, 0.6, (n, steps, 1))
    ladder = np.sort(rng.lognormal(12, 1, formats))
    sizes = ladder * scene * rng.lognormal(0, 0.1, (n, steps, formats))
    q = 6 + 12 * rng.beta(2, 2, (n, steps, formats)) + np.linspace(0, 4, formats)
    ssim = 1 - 10 ** (-q / 10)
    ssim[rng.random(ssim.shape) < 0.05] = NAN
    missing = rng.random(sizes.shape) < 0.15
    missing[:, 0, 0] = False
    sizes[missing] = NAN
    for session in range(0, n, 3):
        sizes[session, 1 + rng.integers(0, steps) :] = NAN
    last = 1 - 10 ** (-rng.uniform(8, 18, n) / 10)
    last[::4] = NAN

    pace = rng.lognormal(np.log(1 / 2e5), 1, (n, 1)) * rng.lognormal(0, 0.4, (n, past))
    past_sizes = rng.choice(ladder, (n, past))
    past_times = past_sizes * pace
    for session in range(0, n, 2):
        past_sizes[session, : rng.integers(0, past + 1)] = NAN

    k = np.arange(21)
    center = np.nan_to_num(sizes, nan=1e5) * pace[:, :1, None] / 0.5
    spread = rng.choice([0.05, 0.5, 3.0], (n, steps, formats, 1))
    logits = -np.abs(k - center[..., None]) / spread + rng.normal(0, 0.5, (n, steps, formats, 21))
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    chances = weights / weights.sum(-1, keepdims=True)
    chances[np.isnan(sizes)] = NAN
    return {
        "buffer": rng.choice([0.0, 0.25, 3.0, 15.0, 17.0, *rng.uniform(0, 16, 20)], n),
        "sizes": sizes,
        "ssim": ssim,
        "last_ssim": last,
        "past_sizes": past_sizes,
        "past_times": past_times,
        "probabilities": chances,
    }


def slowly(controller: Controller, given: dict[str, np.ndarray]) -> list[int]:
    chosen = []
    for s in range(len(given["buffer"])):
        one = {name: column[s] for name, column in given.items()}
        buffer, sizes, ssim = float(one["buffer"]), one["sizes"], one["ssim"]
        last = float(one["last_ssim"])
        if isinstance(controller, Fugu):
            chosen.append(slow_fugu(buffer, sizes, ssim, last, one["probabilities"], controller))
        elif isinstance(controller, MPC):
            past = [one[name][-controller.history :].tolist() for name in PAST]
            chosen.append(slow_mpc(buffer, sizes, ssim, last, *past, controller))
        elif isinstance(controller, BBA):
            chosen.append(slow_bba(buffer, sizes, ssim, controller))
        elif isinstance(controller, BOLA):
            chosen.append(slow_bola(buffer, sizes, ssim, controller))
    return chosen


PAST = ("past_sizes", "past_times")
VARIANTS: list[Controller] = [
    *named_controllers.values(),
    Fugu(lookahead=1),
    Fugu(lookahead=3, switching=0.3, stalling=20.0),
    Fugu(switching=0.0, stalling=0.0),
    Fugu(blur=1.5),
    Fugu(blur=0.8, blur_mean=1.0, blur_wraps=False),
    Fugu(blur=4.0, blur_mean=-2.0, point_estimate=True),
    MPC(lookahead=4, switching=2.5, stalling=20.0, past=3),
    RobustMPC(lookahead=1, past=2),
    BBA(upper=0.8),
    BBA(lower=0.0, upper=1.0),
]


@pytest.mark.parametrize("controller", VARIANTS, ids=repr)
def test_agrees_with_the_definition(controller: Controller) -> None:
    n = 12 if isinstance(controller, MPC) else 24
    for seed, formats in enumerate([4, 3, 1]):
        given = random_sessions(np.random.default_rng(seed), n, 10, formats, 10)
        chosen = controller.decide(**given)
        assert chosen.dtype == np.int64
        assert chosen.tolist() == slowly(controller, given)
        assert not np.isnan(given["sizes"][np.arange(n), 0, chosen]).any()


@pytest.mark.parametrize("controller", VARIANTS, ids=repr)
class TestEveryController:
    def test_sessions_do_not_know_each_other(self, controller: Controller) -> None:
        given = random_sessions(np.random.default_rng(5), 10, 6, 5, 10)
        together = controller.decide(**given)
        alone = [
            controller.decide(**{name: column[s : s + 1] for name, column in given.items()})[0]
            for s in range(10)
        ]
        assert together.tolist() == alone

    def test_a_short_horizon_is_one_that_ends_in_nan(self, controller: Controller) -> None:
        given = random_sessions(np.random.default_rng(6), 6, 6, 4, 10)
        given["sizes"][:, 2:] = NAN
        short = {
            name: column[:, :2] if name in ("sizes", "ssim", "probabilities") else column
            for name, column in given.items()
        }
        assert controller.decide(**given).tolist() == controller.decide(**short).tolist()

    def test_inputs_stay_as_they_are(self, controller: Controller) -> None:
        given = random_sessions(np.random.default_rng(7), 5, 5, 4, 10)
        for column in given.values():
            column.setflags(write=False)
        copies = {name: column.copy() for name, column in given.items()}
        controller.decide(**given)
        for name, column in given.items():
            np.testing.assert_array_equal(column, copies[name])

    def test_order_and_type_of_numbers_do_not_matter(self, controller: Controller) -> None:
        given = random_sessions(np.random.default_rng(8), 5, 5, 4, 10)
        given = {name: column.astype(np.float32) for name, column in given.items()}
        expected = controller.decide(**{k: v.astype(np.float64) for k, v in given.items()})
        other = {name: np.asfortranarray(column) for name, column in given.items()}
        assert controller.decide(**other).tolist() == expected.tolist()

    def test_what_it_does_not_need_is_not_looked_at(self, controller: Controller) -> None:
        given: dict[str, Any] = random_sessions(np.random.default_rng(9), 5, 5, 4, 10)
        expected = controller.decide(**given).tolist()
        for name in ("last_ssim", "past_sizes", "past_times", "probabilities"):
            if name not in controller.needs:
                given[name] = "nonsense"
            elif name in PAST:
                given[name] = given[name][:, -controller.history :]
        for name in ("sizes", "ssim"):
            given[name][:, controller.steps :] = -7.0
        assert controller.decide(**given).tolist() == expected

    def test_no_sessions(self, controller: Controller) -> None:
        given = random_sessions(np.random.default_rng(10), 1, 5, 4, 10)
        empty = {name: column[:0] for name, column in given.items()}
        chosen = controller.decide(**empty)
        assert chosen.shape == (0,)
        assert chosen.dtype == np.int64

    def test_settings(self, controller: Controller) -> None:
        assert type(controller)(**vars(controller)) == controller
        with pytest.raises(FrozenInstanceError):
            controller.lookahead = 2  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------------------
# Golden decisions: all chunks are the mean ladder, the last one had format 4


def on_ladder(controller: Controller, buffers: Sequence[float], **more: Any) -> list[int]:
    n = len(buffers)
    given: dict[str, Any] = {
        "sizes": np.broadcast_to(SIZES, (n, 10, 10)),
        "ssim": np.broadcast_to(SSIM, (n, 10, 10)),
        "last_ssim": np.full(n, SSIM[4]),
    }
    for name, row in more.items():
        given[name] = np.broadcast_to(row, (n, *np.shape(row)))
    return controller.decide(buffers, **given).tolist()


def at_rate(rate: float) -> dict[str, Any]:
    """Ten past chunks of 250 kB at a rate in byte/s."""
    return {"past_sizes": [250e3] * 10, "past_times": [250e3 / rate] * 10}


def certain(rate: float) -> np.ndarray:
    """Every chunk takes exactly what the rate says."""
    return np.broadcast_to(np.eye(21)[class_of(SIZES / rate)], (10, 10, 21))


def test_golden_bba() -> None:
    assert on_ladder(BBA(), BUFFERS) == [0, 0, 0, 0, 2, 5, 6, 7, 8, 9, 9]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (125e3, [0, 2, 4, 4, 5, 4, 5, 4, 6, 6, 6]),
        (250e3, [0, 4, 6, 7, 7, 7, 8, 8, 7, 8, 7]),
    ],
)
def test_golden_mpc(rate: float, expected: list[int]) -> None:
    assert on_ladder(MPC(), BUFFERS, **at_rate(rate)) == expected


def test_golden_robust_mpc() -> None:
    # The last five at 125 kB/s, the five before at 1.3 times that: the largest error is 0.3.
    past = {"past_sizes": [125e3] * 10, "past_times": [1 / 1.3] * 5 + [1.0] * 5}
    expected = [0, 1, 3, 4, 4, 4, 4, 4, 4, 4, 4]
    assert on_ladder(RobustMPC(), BUFFERS, **past) == expected


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (125e3, [1, 3, 5, 5, 5, 5, 6, 6, 7, 7, 7]),
        (250e3, [0, 5, 7, 7, 7, 7, 7, 9, 9, 9, 9]),
    ],
)
def test_golden_fugu_when_certain(rate: float, expected: list[int]) -> None:
    for controller in (Fugu(), Fugu(point_estimate=True)):
        assert on_ladder(controller, BUFFERS, probabilities=certain(rate)) == expected


# packets/s, packets, packets, s, s, and the seconds that 500 kB took
STATES = {
    "fast": (5000, 800, 0, 0.02, 0.03, 0.13),
    "typical": (2083, 500, 0, 0.04, 0.06, 0.28),
    "slowish": (667, 150, 0, 0.05, 0.09, 0.68),
    "slow": (250, 80, 0, 0.06, 0.15, 1.63),
    "very slow": (83, 40, 2, 0.08, 0.30, 4.62),
}


@pytest.fixture(scope="module")
def fugu_feb(data_folder: Path) -> Callable[..., np.ndarray]:
    """The predictions of 2 February 2019 on the ladder: fugu_feb(state) -> (5, 10, 21)."""
    shapes = [(64, 62), (64,), (64, 64), (64,), (21, 64), (21,)]
    networks = []
    for h in range(5):
        path = data_folder / "fugu-feb" / f"cpp-{h}.pt"
        with zipfile.ZipFile(path) as archive:
            tensors = [
                np.frombuffer(archive.read(f"cpp-{h}/tensors/{t}"), "<f8").reshape(shape)
                for t, shape in enumerate(shapes)
            ]
        meta = json.loads(path.with_name(f"cpp-meta-{h}.json").read_text())
        std = np.array(meta["obs_std"])
        networks.append((tensors, np.array(meta["obs_mean"]), np.where(std == 0, 1, std)))

    def predict(state: str, sizes: np.ndarray = SIZES, *, cold: bool = False) -> np.ndarray:
        *tcp, took = STATES[state]
        past = [*tcp, 0, 0] if cold else [*tcp, 500e3 / 1500, took]
        x = np.array([[*past * 8, *tcp, size / 1500] for size in sizes])
        predictions = []
        for (W1, b1, W2, b2, W3, b3), mean, std in networks:
            a = np.maximum((x - mean) / std @ W1.T + b1, 0)
            a = np.maximum(a @ W2.T + b2, 0)
            odds = np.exp(a @ W3.T + b3)
            predictions.append(odds / odds.sum(axis=1, keepdims=True))
        return np.array(predictions)

    return predict


def test_the_networks_are_read_as_they_should_be(fugu_feb: Callable[..., np.ndarray]) -> None:
    seconds = np.array([0.125, *0.5 * np.arange(1, 21)])
    sizes = 1e3 * np.array([44, 93, 143, 264, 495, 890, 1500, 3000])
    expected = [1.15, 1.34, 1.56, 2.39, 3.68, 4.70, 6.85, 9.01]
    assert fugu_feb("very slow", sizes)[0] @ seconds == pytest.approx(expected, abs=0.011)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("slow", [0, 4, 6, 6, 7, 7, 8, 8, 9, 9, 9]),
        ("very slow", [0, 0, 0, 1, 2, 3, 4, 4, 4, 5, 6]),
        ("slowish", [1, 7, 9, 9, 9, 9, 9, 9, 9, 9, 9]),
    ],
)
def test_golden_fugu_feb(
    fugu_feb: Callable[..., np.ndarray], state: str, expected: list[int]
) -> None:
    assert on_ladder(Fugu(), BUFFERS, probabilities=fugu_feb(state)) == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [("fast", 9), ("typical", 6), ("slowish", 1), ("slow", 0), ("very slow", 0)],
)
def test_golden_cold_start(fugu_feb: Callable[..., np.ndarray], state: str, expected: int) -> None:
    chances = fugu_feb(state, cold=True)
    assert on_ladder(Fugu(), [0.0], probabilities=chances, last_ssim=NAN) == [expected]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (1, [0, 3.00, 4.29, 4.81, 6.51, 7.76, 7.85, 9.70, 10.01, 11.37]),
        (2, [0, 3.00, 5.69, 6.65, 8.43, 9.60, 9.95, 11.13, 11.46, 12.12]),
    ],
)
def test_golden_bola_switches_up(version: int, expected: list[float]) -> None:
    buffers = np.arange(0, 15, 0.001)
    chosen = np.array(on_ladder(BOLA(version=version), buffers.tolist()))
    assert (np.diff(chosen) >= 0).all()
    assert sorted(set(chosen.tolist())) == list(range(10))
    first = [buffers[chosen >= f][0] for f in range(10)]
    # the SSIM of the ladder is known to five digits
    assert first == pytest.approx(expected, abs=0.011)


@pytest.mark.parametrize(("version", "top"), [(1, None), (2, 1.0)])
def test_constants_of_bola_follow_from_the_ladder(version: int, top: float | None) -> None:
    """So that the two smallest formats tie at 3 s, and the best one scores 0 at 15 s."""
    u = decibels(SSIM) if version == 1 else SSIM
    high = u[-1] if top is None else top
    s1, s2 = SIZES[:2]
    gamma = (15 * (s2 * u[0] - s1 * u[1]) - 3 * high * (s2 - s1)) / ((3 - 15) * (s2 - s1))
    Vp = 15 / (high + gamma)
    fitted = BOLA(version=version, Vp=Vp, gamma_p=gamma)
    buffers = np.arange(0.005, 17, 0.01).tolist()
    assert on_ladder(fitted, buffers) == on_ladder(BOLA(version=version), buffers)
    assert (Vp, gamma) == pytest.approx(
        {1: (1.347114, -6.644704), 2: (102.816187, -0.854108)}[version], rel=2e-3
    )


# ----------------------------------------------------------------------------------------------
# Single rules


def two_formats(probabilities: Any, **more: Any) -> dict[str, Any]:
    """One session, one chunk, 100 kB at 10 dB or 1 MB at 17 dB."""
    given = {
        "buffer": [4.0],
        "sizes": [[[1e5, 1e6]]],
        "ssim": [[[0.9, 0.98]]],
        "last_ssim": [NAN],
        "probabilities": [[probabilities]],
    }
    return given | more


def mass(**classes: float) -> list[float]:
    """mass(c0=0.5, c20=0.5)."""
    return [classes.get(f"c{k}", 0.0) for k in range(21)]


def test_decibels() -> None:
    found = decibels([1.0, 1 - 1e-7, 0.9, 0.0, -1.0, NAN])
    assert found.tolist() == [60.0, 60.0, pytest.approx(10), 0.0, 0.0, 0.0]
    assert not np.signbit(found).any()
    assert decibels(0.99).shape == ()


def test_a_format_that_likely_comes_too_late_is_banned() -> None:
    # Stalls cost nothing here, so that the large one is refused only because it is banned.
    fearless = Fugu(stalling=0.0)
    safe = mass(c0=1.0)
    assert fearless.decide(**two_formats([safe, mass(c3=0.51, c20=0.49)])).tolist() == [1]
    assert fearless.decide(**two_formats([safe, mass(c3=0.49, c20=0.51)])).tolist() == [0]


def test_if_all_are_banned_the_smallest_is_sent() -> None:
    late = mass(c20=1.0)
    assert Fugu().decide(**two_formats([late, late])).tolist() == [0]
    swapped = two_formats([late, late], sizes=[[[1e6, 1e5]]])
    assert Fugu().decide(**swapped).tolist() == [1]


@pytest.mark.parametrize(("took", "last", "expected"), [(4, 15, 1), (4, 16, 1), (5, 15, 0)])
def test_the_buffer_of_a_plan_is_never_above_fifteen_seconds(
    took: int, last: int, expected: int
) -> None:
    """30 units, of which the next chunks take 19 and then 15: with 29 there is a stall.

    A chunk brings 4 units, so that after one of class 4 the buffer is as full as after class 0.
    """
    chances = np.zeros((1, 3, 2, 21))
    for chunk, format_, k in [(0, 0, 0), (0, 1, took), (1, 0, 19), (2, 0, last)]:
        chances[0, chunk, format_, k] = 1.0
    sizes = [[[1e5, 1e6], [1e5, NAN], [1e5, NAN]]]
    given = {"last_ssim": [NAN], "probabilities": chances}
    chosen = Fugu(switching=0.0).decide([15.0], sizes, [[[0.9, 0.98]] * 3], **given)
    assert chosen.tolist() == [expected]


def test_chances_that_are_not_followed_count_as_the_worst() -> None:
    # 19 chances of 9e-6 at once: as class 20 they cost 1.7e-4 * 6 s * 100 = 0.1 dB, and the large
    # format is better by less than that. Where they were, they would cost nearly nothing.
    few = [1 - 19 * 9e-6] + [9e-6] * 19 + [0.0]
    close = two_formats([mass(c0=1.0), few], ssim=[[[0.9, 0.901]]])
    assert Fugu().decide(**close).tolist() == [0]
    followed = [1 - 19 * 1.1e-5] + [1.1e-5] * 19 + [0.0]
    close = two_formats([mass(c0=1.0), followed], ssim=[[[0.9, 0.901]]])
    assert Fugu().decide(**close).tolist() == [1]


def test_the_first_chunk_of_a_connection_pays_for_no_change() -> None:
    both = [mass(c0=1.0), mass(c0=1.0)]
    hates_change = Fugu(switching=2.0)
    assert hates_change.decide(**two_formats(both)).tolist() == [1]
    assert hates_change.decide(**two_formats(both, last_ssim=[0.9])).tolist() == [0]


def test_ties_go_to_the_first_format() -> None:
    # At switching = 1 a step up in the last chunk of a plan costs exactly what it brings.
    given = two_formats([mass(c0=1.0), mass(c0=1.0)], last_ssim=[0.9])
    for low in np.linspace(0.5, 0.97, 30):
        for best in (0.975, 0.98, 0.99):
            ssim = [[[low, best]]]
            assert Fugu().decide(**{**given, "ssim": ssim, "last_ssim": [low]}).tolist() == [0]
    same = two_formats([mass(c0=1.0)] * 2, sizes=[[[2e5, 2e5]]], ssim=[[[0.9, 0.9]]])
    past = {"past_sizes": [[2e5] * 10], "past_times": [[0.1] * 10]}
    for controller in named_controllers.values():
        assert controller.decide(**{**same, **past}).tolist() == [0]


def test_without_history_mpc_sends_the_smallest() -> None:
    nothing = {"past_sizes": [NAN] * 10, "past_times": [NAN] * 10}
    for controller in (MPC(), RobustMPC()):
        assert on_ladder(controller, BUFFERS, **nothing) == [0] * len(BUFFERS)


def test_robust_mpc_is_mpc_where_predictions_were_right() -> None:
    for rate in (60e3, 125e3, 400e3):
        past = at_rate(rate)
        assert on_ladder(RobustMPC(), BUFFERS, **past) == on_ladder(MPC(), BUFFERS, **past)


def test_robust_mpc_does_not_judge_what_it_did_not_predict() -> None:
    # A single past chunk: nothing had been predicted for it.
    past = {"past_sizes": [NAN] * 9 + [2e5], "past_times": [NAN] * 9 + [1.0]}
    assert on_ladder(RobustMPC(), BUFFERS, **past) == on_ladder(MPC(), BUFFERS, **past)


def test_bba_takes_the_best_below_the_limit_not_the_largest() -> None:
    # At 8.25 s of 3 ... 13.5 s the limit is half way, 500 kB.
    sizes, ssim = [[[1e5, 3e5, 4e5, 9e5]]], [[[0.90, 0.97, 0.96, 0.98]]]
    assert BBA().decide([8.25], sizes, ssim).tolist() == [1]


def test_only_bola_2_sends_the_best_where_no_score_is_positive() -> None:
    sizes, ssim = [[[1e5, 3e5, 9e5]]], [[[0.90, 0.98, 0.97]]]
    assert BOLA(version=1).decide([17.0], sizes, ssim).tolist() == [2]  # the least negative
    assert BOLA(version=2).decide([17.0], sizes, ssim).tolist() == [1]


def test_bola_2_sends_the_best_on_a_full_buffer() -> None:
    assert on_ladder(BOLA(version=2), [14.99, 15.1, 17.0]) == [9, 9, 9]
    low = np.full(10, 0.5)  # all scores are negative, whatever the buffer
    low[3] = 0.6
    assert on_ladder(BOLA(version=2), [0.0], ssim=np.broadcast_to(low, (10, 10))) == [3]


# ----------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"buffer": [NAN]}, DomainError, r"buffer\[0\]: found nan; expected finite and >= 0"),
        ({"buffer": [-0.1]}, DomainError, r"buffer\[0\]: found -0.1"),
        ({"buffer": [math.inf]}, DomainError, r"buffer\[0\]: found inf"),
        ({"buffer": 3.0}, SchemaError, r"buffer: found shape \(\); expected 1 dim"),
        ({"buffer": ["full"]}, SchemaError, r"buffer: found could not convert"),
        ({"buffer": [1.0, 2.0]}, SchemaError, r"sizes: found 1 sessions; expected 2"),
        ({"sizes": [[[0.0, 1e6]]]}, DomainError, r"sizes\[0, 0, 0\]: found 0.0; expected above 0"),
        ({"sizes": [[[1.0, math.inf]]]}, DomainError, r"sizes\[0, 0, 1\]: found inf"),
        ({"sizes": [[[NAN, NAN]]]}, DomainError, r"sizes: session 0 knows no size of its next"),
        ({"sizes": [[1e5, 1e6]]}, SchemaError, r"sizes: found shape \(1, 2\); expected 3 dim"),
        ({"sizes": [[[1.0], [1.0, 2.0]]]}, SchemaError, r"sizes: found .*; expected an array"),
        ({"sizes": np.empty((1, 0, 2))}, SchemaError, r"expected at least one chunk and format"),
        ({"ssim": [[[14.2, 16.0]]]}, DomainError, r"ssim\[0, 0, 0\]: found 14.2; .* \(not dB\)"),
        ({"ssim": [[[0.9]]]}, SchemaError, r"ssim: found shape \(1, 1, 1\) .* \(1, 1, 2\)"),
        ({"last_ssim": [10.0]}, DomainError, r"last_ssim\[0\]: found 10.0"),
        ({"last_ssim": [0.9, 0.9]}, SchemaError, r"last_ssim: found shape \(2,\)"),
        ({"last_ssim": None}, SchemaError, r"Fugu.decide needs last_ssim=; got None"),
        ({"probabilities": None}, SchemaError, r"Fugu.decide needs probabilities="),
        (
            {"probabilities": np.full((1, 1, 2, 20), 0.05)},
            SchemaError,
            r"probabilities: found shape \(1, 1, 2, 20\) .* expected \(1, 1, 2, 21\)",
        ),
        ({"probabilities": np.full((1, 1, 2, 21), 0.05)}, DomainError, r"found sum 1.05"),
        ({"probabilities": np.full((1, 1, 2, 21), NAN)}, DomainError, r"found sum nan"),
        (
            {"probabilities": [[mass(c0=1.0), mass(c0=1.1, c3=-0.1)]]},
            SchemaError,
            r"probabilities: found shape \(1, 2, 21\); expected 4",
        ),
        (
            {"probabilities": [[[mass(c0=1.0), mass(c0=1.1, c3=-0.1)]]]},
            DomainError,
            r"probabilities\[0, 0, 1\]: found sum 1.0 and smallest -0.1",
        ),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good = two_formats([mass(c0=1.0), mass(c0=1.0)])
    assert Fugu().decide(**good).tolist() == [1]
    with pytest.raises(error, match=message):
        Fugu().decide(**{**good, **change})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"past_sizes": None}, SchemaError, r"MPC.decide needs past_sizes="),
        ({"past_times": [[0.5] * 4]}, SchemaError, r"past_times: found shape \(1, 4\); .* 5 past"),
        ({"past_times": [[0.5] * 4 + [0.0]]}, DomainError, r"past_times\[0, 4\]: found 0.0"),
        ({"past_sizes": [[-1.0] * 5]}, DomainError, r"past_sizes\[0, 0\]: found -1.0"),
        ({"past_sizes": [1e5] * 5}, SchemaError, r"past_sizes: found shape \(5,\)"),
    ],
)
def test_bad_history(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good = two_formats(None, past_sizes=[[1e5] * 5], past_times=[[0.5] * 5])
    MPC().decide(**good)
    with pytest.raises(error, match=message):
        MPC().decide(**{**good, **change})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fugu(lookahead=0), "lookahead is 0; expected a whole number"),
        (lambda: Fugu(switching=-1), "switching is -1; expected a finite number"),
        (lambda: MPC(stalling=math.inf), "stalling is inf"),
        (lambda: MPC(stalling=NAN), "stalling is nan"),
        (lambda: RobustMPC(past=0), "past is 0; expected a whole number above 0"),
        (lambda: BBA(lower=0.9, upper=0.2), "lower=0.9, upper=0.2"),
        (lambda: BBA(upper=1.5), "upper=1.5"),
        (lambda: BOLA(version=3), "version=3; there are 1 and 2"),
        (lambda: BOLA(Vp=0), "Vp=0; give"),
        (lambda: BOLA(gamma_p=NAN), "gamma_p=nan"),
    ],
)
def test_bad_settings(make: Callable[[], Controller], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


def blurred(p: list[float], settings: Fugu) -> np.ndarray:
    """What the plan sees, through the kernel that blurs."""
    from memento_puffer._kernels.planning import _blur
    from memento_puffer.streaming.abr import _blur_shares

    chances = np.array([p])
    shares = _blur_shares(settings.blur, settings.blur_mean, settings.blur_wraps)
    _blur(shares, np.ones(1), np.empty(21), chances)
    return chances[0]


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize(("std", "mean"), [(1.0, 0.0), (0.3, -0.4), (6.0, 3.0), (0.01, 0.0)])
def test_a_blur_is_the_sum_over_classes(std: float, mean: float, wraps: bool) -> None:
    rng = np.random.default_rng(4)
    settings = Fugu(blur=std, blur_mean=mean, blur_wraps=wraps)
    for _ in range(20):
        p = rng.dirichlet(np.full(21, 0.2)).tolist()
        found = blurred(p, settings)
        np.testing.assert_allclose(found, slow_blur(p, settings), rtol=1e-9, atol=1e-300)
        assert found.sum() == pytest.approx(1, abs=1e-12)


def test_what_a_blur_does() -> None:
    first = np.eye(21)[0].tolist()
    assert blurred(first, Fugu(blur=1.0))[20] == pytest.approx(blurred(first, Fugu(blur=1.0))[1])
    assert blurred(first, Fugu(blur=1.0, blur_wraps=False))[20] == 0.0
    tenth = np.eye(21)[10].tolist()
    shorter = blurred(tenth, Fugu(blur=1.0, blur_mean=2.0))
    assert int(shorter.argmax()) == 8
    narrow = Fugu(blur=0.02, blur_mean=5.0, blur_wraps=False)
    assert blurred(first, narrow).tolist() == first  # nothing would be left of it
    # A sure 3.5 s fits the buffer of 4 s; a blurred one may not.
    both = [mass(c0=1.0), mass(c7=1.0)]
    assert Fugu().decide(**two_formats(both, buffer=[4.0])).tolist() == [1]
    assert Fugu(blur=3.0, blur_wraps=False).decide(**two_formats(both, buffer=[4.0])).tolist() == [
        0
    ]


def test_bad_blurs() -> None:
    for settings in ({"blur": -1.0}, {"blur": NAN}, {"blur": math.inf}, {"blur_mean": 11.0}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            Fugu(**settings)
