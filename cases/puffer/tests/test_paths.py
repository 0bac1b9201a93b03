from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memento.errors import SettingError
from memento_puffer._kernels.hashing import session_keys
from memento_puffer.streaming.paths import TracePaths, drawn_paths
from memento_puffer.streaming.traces import Population, Shift, Traces


@pytest.mark.compiled
def test_paths_have_the_population_they_are_drawn_from() -> None:
    """20,000 paths of a fixed seed; bounds are 5 standard errors and more."""
    paths = drawn_paths(Population(drift=0.0), 0, session_keys(0, 0, np.arange(20_000)))
    published = {0.05: 2.11, 0.1: 4.15, 0.25: 10.2, 0.5: 23.1, 0.75: 40.3, 0.95: 95.7}
    found = 8 * np.quantile(paths.mean, list(published))
    np.testing.assert_allclose(found / list(published.values()), 1, atol=0.12)
    assert np.median(paths.min_rtt) == pytest.approx(0.051, rel=0.03)
    assert np.corrcoef(np.log(paths.min_rtt), np.log(paths.mean))[0, 1] == pytest.approx(
        -0.4, abs=0.08
    )


def test_a_path_depends_on_its_key_and_the_day() -> None:
    keys = session_keys(0, 0, np.arange(100))
    whole = drawn_paths(Population(), 4, keys)
    part = drawn_paths(Population(), 4, keys[30:40])
    for name, values in vars(part).items():
        np.testing.assert_array_equal(values, vars(whole)[name][30:40])
    other = drawn_paths(Population(), 5, keys)
    assert not np.array_equal(whole.mean, other.mean)  # the population drifts


def test_shifts_reach_their_share_from_their_day_on() -> None:
    keys = session_keys(0, 0, np.arange(1000))
    shift = Shift.new_access(2, share=0.3)
    plain = Population(drift=0.0)
    shifted = Population(drift=0.0, shifts=(shift,))
    before = [drawn_paths(p, 1, keys).mean for p in (plain, shifted)]
    np.testing.assert_array_equal(*before)
    first, second = (drawn_paths(p, 2, keys) for p in (plain, shifted))
    reached = first.mean != second.mean
    assert 0.2 < reached.mean() < 0.4
    np.testing.assert_allclose(second.mean[reached], 0.1 * first.mean[reached])
    np.testing.assert_allclose(second.min_rtt[reached], 0.6 + first.min_rtt[reached])


def test_capacity_of_readings_is_their_slow_part() -> None:
    rng = np.random.default_rng(0)
    noise = np.exp(0.4 * rng.standard_normal(200))
    slow = np.repeat([2.0, 0.5], 100)
    rate = slow * noise
    rate[::17] = 0.001  # readings that are far too low say nothing
    traces = Traces(np.zeros(200, int), np.arange(200) * 2.002, rate)
    paths = TracePaths(traces)
    capacity = paths.capacity[0]
    assert len(capacity) == 201
    assert np.abs(np.log(capacity[:80] / 2.0)).max() < 0.6
    assert np.abs(np.log(capacity[120:] / 0.5)).max() < 0.6
    noise_, low, sticky = paths._habits[:, 0]
    assert noise_ == pytest.approx(0.4, rel=0.3)
    assert low == pytest.approx(12 / 200)
    assert sticky == 0


def test_pauses_are_outages() -> None:
    traces = Traces([0] * 5, [0.0, 2.0, 4.0, 16.0, 18.0], [1.0] * 5)
    capacity = TracePaths(traces).capacity[0]
    np.testing.assert_allclose(capacity, [1, 1, *[0.02] * 5, 1, 1, 1])


def test_rates_of_other_networks_are_capacities() -> None:
    traces = Traces([0] * 3, [0.0, 2.0, 7.0], [1.0, 0.005, 3.0])
    paths = TracePaths(traces, readings=False)
    np.testing.assert_allclose(paths.capacity[0], [1, 0.005, 0.005, 1.5025, 3], rtol=1e-6)
    drawn, chosen = paths.draw(0, session_keys(0, 0, np.arange(4)))
    assert chosen.tolist() == [0] * 4
    np.testing.assert_allclose(drawn.mean, paths.capacity[0].mean())
    assert (drawn.noise > 0).all()


def test_traces_of_nothing_but_low_readings() -> None:
    traces = Traces([0] * 3, [0.0, 2.0, 4.0], [0.001] * 3)
    assert TracePaths(traces).capacity[0].tolist() == [0.02] * 3
    assert np.isfinite(TracePaths(traces)._habits).all()
    assert TracePaths(Traces([0], [0.0], [1.0])).capacity[0].tolist() == [1.0]


def test_every_trace_is_drawn_with_equal_chances() -> None:
    traces = Traces(np.repeat(np.arange(4), 2), np.tile([0.0, 2.0], 4), np.ones(8))
    keys = session_keys(0, 0, np.arange(4000))
    drawn, chosen = TracePaths(traces).draw(0, keys)
    counts = np.bincount(chosen, minlength=4)
    assert ((counts - 1000) ** 2 / 1000).sum() < 3 + 5 * np.sqrt(6)  # fixed seed
    assert len(drawn.mean) == 4000


def test_real_traces(data_folder: Path) -> None:
    traces = Traces.read(data_folder / "puffer-2022-02-18.parquet").take(range(60))
    paths = TracePaths(traces)
    for capacity in paths.capacity:
        assert np.isfinite(capacity).all()
        assert capacity.min() > 0
    drawn, chosen = paths.draw(0, session_keys(0, 0, np.arange(20)))
    readings = [traces.rate[traces.offsets[c] : traces.offsets[c + 1]].mean() for c in chosen]
    assert 0.4 < np.median(drawn.mean / readings) < 1.3


def test_only_traces() -> None:
    with pytest.raises(SettingError, match="traces=Population"):
        TracePaths(Population())  # type: ignore[arg-type]
