from __future__ import annotations

import numpy as np
import pytest

from memento.errors import SettingError
from memento_puffer._kernels.hashing import session_keys
from memento_puffer.streaming.viewers import Viewers, Visits


def visits(n: int, viewers: Viewers | None = None, first: int = 0, of: int | None = None) -> Visits:
    numbers = np.arange(first, n)
    keys = session_keys(1, 0, numbers)
    return (viewers or Viewers()).visits(keys, numbers, of or n)


def test_streams_follow_each_other_within_the_day() -> None:
    v = visits(2000)
    assert (np.diff(v.start) >= 0).all()
    assert v.start[0] >= 0
    assert v.start[-1] < 86400
    np.testing.assert_array_equal(np.round(1e3 * v.start) / 1e3, v.start)
    assert v.offsets[0] == 0
    assert v.offsets[-1] == len(v.begins) == len(v.ends) == len(v.channels)
    assert (np.diff(v.offsets) >= 1).all()
    assert (v.ends > v.begins).all()
    owner = np.repeat(np.arange(2000), np.diff(v.offsets))
    same = owner[1:] == owner[:-1]
    np.testing.assert_array_equal(v.begins[1:][same], v.ends[:-1][same])
    assert (v.begins[v.offsets[:-1]] == 0).all()
    assert (v.start[owner] + v.ends).max() <= 86400 - 2
    assert set(v.channels) == set(range(6))


def test_a_visit_does_not_depend_on_the_others() -> None:
    whole, part = visits(50), visits(50, first=20)
    np.testing.assert_array_equal(whole.start[20:], part.start)
    cut = whole.offsets[20]
    for name in ("begins", "ends", "channels"):
        np.testing.assert_array_equal(getattr(whole, name)[cut:], getattr(part, name))
    np.testing.assert_array_equal(whole.offsets[20:] - cut, part.offsets)


@pytest.mark.compiled
def test_times_and_streams_are_the_published_ones() -> None:
    """A fixed seed of 30,000 sessions; bounds are several standard errors wide."""
    v = visits(30_000)
    # Before noon of the next day, when nobody is cut off yet but the most patient.
    early = v.start < 40_000
    stay = v.ends[v.offsets[1:] - 1][early]
    published = {0.1: 8.7, 0.25: 32, 0.5: 150, 0.75: 1361, 0.9: 5300, 0.95: 9451}
    found = np.quantile(stay, list(published))
    np.testing.assert_allclose(found / list(published.values()), 1, atol=0.2)
    count = np.diff(v.offsets)
    assert count.mean() == pytest.approx(6.1, rel=0.15)
    lasts = v.ends - v.begins
    assert (lasts < 4).mean() == pytest.approx(0.56, abs=0.06)
    assert lasts[lasts >= 4].mean() == pytest.approx(667, rel=0.2)
    busiest = np.histogram(v.start, bins=24, range=(0, 86400))[0].argmax()
    assert abs(busiest - 15) <= 3  # 02:00 UTC


def test_patience_and_stay_lengthen_visits() -> None:
    numbers, keys = np.arange(300), session_keys(1, 0, np.arange(300))
    plain = Viewers().visits(keys, numbers, 300)
    half = Viewers().visits(keys, numbers, 300, np.full(300, 0.5))
    also = Viewers(stay=0.5).visits(keys, numbers, 300)
    for a, b in zip(half, also, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(plain.start, half.start)
    stays = [v.ends[v.offsets[1:] - 1].sum() for v in (plain, half)]
    assert 0.4 < stays[1] / stays[0] < 0.7  # those cut off by the end of the day lose nothing


def test_evenings() -> None:
    flat = visits(2400, Viewers(evening=0.0)).start
    counts = np.histogram(flat, bins=24, range=(0, 86400))[0]
    assert np.ptp(counts) <= 3  # stratified


@pytest.mark.parametrize(
    "settings",
    [{"evening": 1.0}, {"long_streams": 0.5}, {"zaps": -1.0}, {"stay": 0.0}, {"stay": np.inf}],
)
def test_bad_settings(settings: dict[str, float]) -> None:
    name = next(iter(settings))
    with pytest.raises(SettingError, match=f"{name} is"):
        Viewers(**settings)
