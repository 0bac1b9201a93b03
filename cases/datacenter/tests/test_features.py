from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memento.errors import SettingError
from memento_datacenter.features import origins, transmission_samples, workload_samples
from memento_datacenter.schema import Run


def make(n, applications, label, seed):
    rng = np.random.default_rng(seed)
    return Run(
        np.sort(rng.choice(10**6, n, replace=False)) * 10 + label,  # no two runs at the same time
        rng.integers(15_000_000, 90_000_000, n),
        rng.integers(55, 1501, n),
        rng.integers(0, applications, n),
        {"label": label},
    )


def slow_windows(runs, window):
    """One packet after the other, as it arrives."""
    past, out = {}, []
    packets = sorted(
        (run.arrival_ns[i], k, i) for k, run in enumerate(runs) for i in range(len(run))
    )
    for _, k, i in packets:
        run = runs[k]
        seen = past.setdefault((k, int(run.application[i])), [])
        seen.append((int(run.size[i]), int(run.delay_ns[i])))
        if len(seen) >= window:
            sizes, delays = zip(*seen[-window:], strict=True)
            out.append((sizes, delays, run.about["label"]))
    return out


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 4), st.integers(1, 9)), min_size=1,
             max_size=3, unique_by=lambda run: run[2]),
    st.integers(1, 12),
    st.integers(0, 10),
)  # fmt: skip
def test_windows_are_those_of_a_plain_loop(shapes, window, seed):
    runs = [make(n, applications, label, seed) for n, applications, label in shapes]
    expected = slow_windows(runs, window)
    workload, transmission = workload_samples(runs, window), transmission_samples(runs, window)
    assert workload["x"].shape == (len(expected), window)
    assert transmission["x"].shape == (len(expected), 2 * window - 1)
    assert workload["y"].dtype == np.int64
    labels = [run.about["label"] for run in runs]
    assert [labels[k] for k in origins(runs, window)] == [label for _, _, label in expected]
    assert (workload["x"].dtype, transmission["x"].dtype) == (np.float32, np.float32)
    for row, (sizes, delays, label) in enumerate(expected):
        assert workload["x"][row].tolist() == list(sizes)
        assert workload["y"][row] == label - 1
        assert transmission["x"][row, :window].tolist() == list(sizes)
        np.testing.assert_allclose(
            transmission["x"][row, window:], np.array(delays[:-1]) * 1e-9, rtol=1e-6
        )
        assert transmission["y"][row] == pytest.approx(delays[-1] * 1e-9, rel=1e-12)


def test_one_run_needs_no_list():
    run = make(300, 3, 1, seed=0)
    for samples in (workload_samples, transmission_samples):
        one, several = samples(run, 10), samples([run], 10)
        np.testing.assert_array_equal(one["x"], several["x"])
        np.testing.assert_array_equal(one["y"], several["y"])


def test_the_current_delay_is_not_among_the_inputs():
    run = make(400, 1, 1, seed=0)
    samples = transmission_samples(run, 5)
    later = samples["x"][1:, -1]  # the newest delay that is known is the target of the row before
    np.testing.assert_allclose(later, samples["y"][:-1], rtol=1e-6)
    assert not np.isclose(samples["x"][:, 5:], samples["y"][:, None], rtol=1e-9).all(axis=1).any()


def test_how_many_samples_there_are():
    """Each application gives as many as it has packets beyond the first 127."""
    run = make(5000, 20, 1, seed=0)
    counts = np.bincount(run.application, minlength=20)
    assert workload_samples(run)["y"].size == np.maximum(counts - 127, 0).sum()


def test_no_samples():
    for runs in ([], make(100, 1, 1, 0), [make(100, 1, 1, 0), make(0, 1, 2, 0)]):
        assert origins(runs).shape == (0,)
        assert workload_samples(runs)["x"].shape == (0, 128)
        assert transmission_samples(runs)["x"].shape == (0, 255)


@pytest.mark.parametrize("window", [0, -1, 1.5, True])
def test_windows_that_are_none(window):
    with pytest.raises(SettingError, match="how many packets"):
        workload_samples(make(10, 1, 1, 0), window)
