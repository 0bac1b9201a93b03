from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.errors import SettingError
from memento_puffer.predictor.transmission import CLASSES, LADDER_MB, class_of, samples_of
from memento_puffer.streaming.traces import Population, Traces


def slow_samples(traces: Traces, size: float, history: int) -> list[tuple[list[float], float]]:
    """The definition, chunk by chunk."""
    found = []
    for stream in np.unique(traces.trace_id):
        rate = np.maximum(traces.rate[traces.trace_id == stream], 1e-4)
        seconds = traces.seconds[traces.trace_id == stream]
        for i in range(1, len(rate)):
            x: list[float] = []
            for lag in range(history, 0, -1):
                j = max(i - lag, 0)
                x += [np.log(rate[j]), np.log(max(seconds[j + 1] - seconds[j], 1e-2))]
            found.append((x, size / rate[i]))
    return found


@pytest.mark.parametrize("history", [1, 3, 8])
def test_agrees_with_the_definition(history: int) -> None:
    rng = np.random.default_rng(3)
    lengths = [1, 2, 5, 20, 1]
    traces = Traces(
        np.repeat(np.arange(5), lengths),
        np.concatenate([np.sort(rng.uniform(0, 50, n)) for n in lengths]),
        rng.lognormal(size=sum(lengths)),
    )
    columns = samples_of(traces, size_MB=0.3, history=history)
    expected = slow_samples(traces, 0.3, history)
    assert columns["x"].shape == (len(expected), 2 * history)
    np.testing.assert_allclose(columns["x"], [x for x, _ in expected], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(columns["y"], [y for _, y in expected], rtol=1e-5)
    assert columns["stream"].tolist() == [1] + [2] * 4 + [3] * 19


def test_types() -> None:
    columns = samples_of(Population(chunks=500).day(0))
    assert {name: str(column.dtype) for name, column in columns.items()} == {
        "x": "float32",
        "y": "float32",
        "y_bin": "int64",
        "stream": "int64",
    }
    assert all(np.isfinite(column).all() for column in columns.values())


def test_the_label_is_not_among_the_inputs() -> None:
    # Whatever rate comes with the send itself must not change what is known before it.
    rate = np.array([1.0, 2.0, 3.0, 4.0])
    seconds = np.array([0.0, 1.0, 3.0, 6.0])
    other = rate.copy()
    other[3] = 9.0
    one = samples_of(Traces(np.zeros(4, int), seconds, rate))
    two = samples_of(Traces(np.zeros(4, int), seconds, other))
    np.testing.assert_array_equal(one["x"], two["x"])
    assert one["y"][2] != two["y"][2]


def test_a_rate_of_zero_is_an_endless_transmission() -> None:
    columns = samples_of(Traces([0, 0, 0], [0, 2, 4], [0.0, 0.0, 2.0]), size_MB=0.25)
    assert columns["y_bin"].tolist() == [20, 0]
    assert columns["y"][0] == pytest.approx(2500.0)
    assert np.isfinite(columns["x"]).all()


def test_a_single_chunk_gives_no_sample() -> None:
    columns = samples_of(Traces([4], [0.0], [1.0]))
    assert columns["x"].shape == (0, 16)
    assert len(columns["y_bin"]) == 0


def test_several_sizes_are_drawn_and_become_an_input() -> None:
    traces = Population(chunks=4000).day(0)
    columns = samples_of(traces, size_MB=LADDER_MB, rng=np.random.default_rng(1))
    again = samples_of(traces, size_MB=LADDER_MB, rng=np.random.default_rng(1))
    assert columns["x"].shape[1] == 17
    sizes, counts = np.unique(columns["x"][:, -1], return_counts=True)
    np.testing.assert_allclose(np.exp(sizes), LADDER_MB, rtol=1e-5)
    # 10 sizes of about 400 each: five standard deviations.
    assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())
    np.testing.assert_array_equal(columns["x"], again["x"])
    plain = samples_of(traces, size_MB=1.0)
    np.testing.assert_allclose(columns["y"], plain["y"] * np.exp(columns["x"][:, -1]), rtol=1e-5)


@given(st.floats(0, 1e9))
def test_classes_are_half_seconds(seconds: float) -> None:
    label = int(class_of(np.array([seconds]))[0])
    assert 0 <= label < CLASSES
    if label:
        assert seconds >= 0.5 * label - 0.25
    if label < CLASSES - 1:
        assert seconds < 0.5 * label + 0.25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size_MB": 0.0}, "size_MB=0.0; give a size above 0"),
        ({"size_MB": (0.1, -1.0)}, "size_MB"),
        ({"size_MB": ()}, "size_MB"),
        ({"size_MB": float("nan")}, "size_MB"),
        ({"history": 0}, "history=0; give at least one"),
        ({"size_MB": (0.1, 0.2)}, "give a generator as rng"),
    ],
)
def test_settings_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        samples_of(Traces([0, 0], [0, 1], [1, 1]), **settings)  # type: ignore[arg-type]
