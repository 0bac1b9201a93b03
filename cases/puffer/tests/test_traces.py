from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from memento.errors import (
    DamagedError,
    DomainError,
    MissingExtraError,
    SchemaError,
    SettingError,
    StorageError,
)
from memento_puffer.streaming.traces import Population, Shift, Traces, days


def write(path: Path, **columns: Any) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def population_file(path: Path, streams: int, seed: int = 0, chunks: int = 20) -> Path:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(chunks // 2, 2 * chunks, streams)
    return write(
        path,
        trace_id=np.repeat(np.arange(streams), lengths),
        seconds=np.concatenate([np.arange(n) * 2.0 for n in lengths]),
        rate=rng.lognormal(size=lengths.sum()),
    )


class TestTraces:
    def test_reads_what_was_written(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "a.parquet",
            trace_id=pa.array([3, 3, 1], pa.int32()),
            seconds=pa.array([0.0, 2.0, 0.0], pa.float32()),
            rate=pa.array([1.0, 0.0, 2.5], pa.float32()),
            unit=["MB/s"] * 3,
        )
        traces = Traces.read(path)
        assert (traces.streams, traces.size) == (2, 3)
        assert traces.offsets.tolist() == [0, 2, 3]
        assert traces.trace_id.tolist() == [3, 3, 1]
        assert traces.rate.tolist() == [1.0, 0.0, 2.5]
        assert traces.rate.dtype == np.float32

    def test_cannot_be_written_to_and_leaves_the_caller_alone(self) -> None:
        rate = np.ones(2, np.float32)
        traces = Traces([0, 0], [0, 1], rate)
        with pytest.raises(ValueError, match="read-only"):
            traces.rate[0] = 5
        rate[0] = 5
        assert traces.rate[0] == 1

    def test_rows_of_a_stream_that_stand_apart_are_moved_together(self) -> None:
        traces = Traces([5, 2, 5, 2], [0, 0, 1, 2], [1, 2, 3, 4])
        assert traces.trace_id.tolist() == [5, 5, 2, 2]
        assert traces.rate.tolist() == [1, 3, 2, 4]

    def test_names_are_numbered_in_order_of_appearance(self) -> None:
        traces = Traces(["b", "b", "a"], [0, 1, 0], [1, 1, 1])
        assert traces.trace_id.tolist() == [0, 0, 1]

    def test_take_keeps_the_order_asked_for(self) -> None:
        traces = Traces([0, 0, 1, 2, 2], [0, 1, 0, 0, 1], [1, 2, 3, 4, 5])
        taken = traces.take([2, 0])
        assert taken.rate.tolist() == [4, 5, 1, 2]
        assert taken.offsets.tolist() == [0, 2, 4]
        assert traces.renumbered(7).trace_id.tolist() == [7, 7, 8, 9, 9]
        with pytest.raises(SchemaError, match="no rows"):
            traces.take([])

    @pytest.mark.parametrize(
        ("columns", "error", "message"),
        [
            ({"rate": [1.0, -0.5]}, DomainError, r"'rate' is -0.5 in row 1 \(1 such rows\)"),
            ({"rate": [1.0, np.nan]}, DomainError, "'rate' is nan in row 1"),
            ({"rate": [np.inf, 1.0]}, DomainError, "'rate' is inf in row 0"),
            ({"seconds": [0.0, np.nan]}, DomainError, "'seconds' is nan"),
            ({"seconds": [2.0, 1.0]}, DomainError, "goes back from 2 to 1 inside trace 0"),
            ({"rate": ["1", "2"]}, SchemaError, "'rate' holds"),
            ({"trace_id": [0.5, 1.0]}, SchemaError, "'trace_id' holds float64"),
        ],
    )
    def test_bad_values_name_the_file(
        self, tmp_path: Path, columns: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        good = {"trace_id": [0, 0], "seconds": [0.0, 1.0], "rate": [1.0, 2.0]}
        path = write(tmp_path / "bad.parquet", **{**good, **columns})
        with pytest.raises(error, match=message) as caught:
            Traces.read(path)
        assert str(path) in str(caught.value)

    def test_columns_of_different_lengths(self) -> None:
        with pytest.raises(SchemaError, match="2, 1 and 2 rows"):
            Traces([0, 0], [0.0], [1.0, 1.0])

    def test_missing_column(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", trace_id=[0], rate=[1.0])
        with pytest.raises(SchemaError, match=r"a.parquet: no column 'seconds' among"):
            Traces.read(path)

    def test_missing_values(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", trace_id=[0, 0], seconds=[0.0, None], rate=[1.0, 2.0])
        with pytest.raises(SchemaError, match="'seconds' has 1 missing values of 2"):
            Traces.read(path)

    def test_no_rows(self, tmp_path: Path) -> None:
        none = pa.array([], pa.float64())
        path = write(
            tmp_path / "a.parquet", trace_id=pa.array([], pa.int32()), seconds=none, rate=none
        )
        with pytest.raises(SchemaError, match="no rows; expected at least one chunk"):
            Traces.read(path)

    @pytest.mark.parametrize("keep", [0, 3, 100, -10])
    def test_truncated_file(self, tmp_path: Path, keep: int) -> None:
        path = population_file(tmp_path / "a.parquet", 3)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DamagedError, match="no complete Parquet file"):
            Traces.read(path)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="no such file"):
            Traces.read(tmp_path / "a.parquet")
        with pytest.raises(StorageError, match="cannot be read"):
            Traces.read(tmp_path)

    def test_without_pyarrow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = builtins.__import__

        def without(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.startswith("pyarrow"):
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(MissingExtraError, match=r'pip install "memento-replay\[cli\]"'):
            Traces.read(tmp_path / "a.parquet")


class TestDays:
    def test_files_are_consecutive_periods(self, tmp_path: Path) -> None:
        first = population_file(tmp_path / "one.parquet", 60)
        second = population_file(tmp_path / "two.parquet", 40, seed=1)
        parts = list(days([first, second], 7))
        assert [name for name, _ in parts] == [
            *(f"one {day}/4" for day in range(1, 5)),
            *(f"two {day}/3" for day in range(1, 4)),
        ]
        # Every stream once, whole, in order, under an id of its own.
        rates = np.concatenate([traces.rate for _, traces in parts])
        whole = [Traces.read(first), Traces.read(second)]
        np.testing.assert_array_equal(rates, np.concatenate([traces.rate for traces in whole]))
        ids = np.concatenate([traces.trace_id[traces.offsets[:-1]] for _, traces in parts])
        assert ids.tolist() == list(range(100))
        sizes = [traces.size for _, traces in parts[:4]]
        assert max(sizes) - min(sizes) < 40  # at most a stream more or less at either end

    def test_one_path_is_enough(self, tmp_path: Path) -> None:
        path = population_file(tmp_path / "one.parquet", 5)
        assert sum(traces.streams for _, traces in days(str(path), 2)) == 5  # type: ignore[arg-type]

    def test_a_giant_stream_leaves_no_day_empty(self, tmp_path: Path) -> None:
        lengths = [1, 1, 1, 1000, 1]
        path = write(
            tmp_path / "one.parquet",
            trace_id=np.repeat(np.arange(5), lengths),
            seconds=np.concatenate([np.arange(n) * 2.0 for n in lengths]),
            rate=np.ones(sum(lengths)),
        )
        assert [traces.streams for _, traces in days([path], 5)] == [1] * 5
        assert all(traces.streams for _, traces in days([path], 3))

    def test_shuffled_by_a_generator(self, tmp_path: Path) -> None:
        path = population_file(tmp_path / "one.parquet", 30)
        orders = [
            np.concatenate(
                [traces.rate for _, traces in days([path], 3, rng=np.random.default_rng(seed))]
            )
            for seed in (1, 1, 2)
        ]
        np.testing.assert_array_equal(orders[0], orders[1])
        assert not np.array_equal(orders[0], orders[2])
        assert sorted(orders[0]) == sorted(orders[2])

    def test_a_population(self) -> None:
        population = Population(chunks=800)
        parts = list(days(population, 3))
        assert [name for name, _ in parts] == ["day 1", "day 2", "day 3"]
        np.testing.assert_array_equal(parts[2][1].rate, population.day(2).rate)

    def test_impossible_wishes(self, tmp_path: Path) -> None:
        path = population_file(tmp_path / "one.parquet", 3)
        with pytest.raises(SettingError, match="0 days"):
            days(Population(), 0)
        with pytest.raises(SettingError, match="1 days of 2 files"):
            days([path, path], 1)
        with pytest.raises(SettingError, match="at least one file"):
            days([], 1)
        with pytest.raises(SettingError, match="3 streams cannot fill 5 days"):
            list(days([path], 5))


class TestPopulation:
    def test_same_seed_same_day_whatever_else_was_made(self) -> None:
        one, two = Population(seed=4, chunks=3000), Population(seed=4, chunks=3000)
        for day in range(5):
            one.day(day)
        for name in ("trace_id", "seconds", "rate"):
            np.testing.assert_array_equal(getattr(one.day(5), name), getattr(two.day(5), name))
        assert not np.array_equal(one.day(5).rate, one.day(4).rate)
        assert not np.array_equal(one.day(5).rate, Population(seed=5, chunks=3000).day(5).rate)

    @pytest.mark.parametrize("chunks", [1, 49, 2000, 10_000])
    def test_as_many_chunks_as_asked_for(self, chunks: int) -> None:
        traces = Population(chunks=chunks).day(1)
        assert traces.size == chunks
        assert np.diff(traces.offsets).min() >= 1

    def test_resembles_the_published_statistics(self) -> None:
        # Gaps, noise and spread of real Puffer traces, each with a wide margin: it is a model.
        days_made = [Population(seed=seed, chunks=40_000, drift=0.0).day(0) for seed in range(3)]
        gaps = np.concatenate(
            [np.diff(day.seconds)[np.diff(day.trace_id) == 0] for day in days_made]
        )
        assert 1.98 < np.median(gaps) < 2.03
        assert 0.004 < (gaps > 4).mean() < 0.03  # 0.0065 without the slowest paths
        assert 0.02 < np.quantile(gaps, 0.01) < 1.0
        spreads, means = [], []
        for day in days_made:
            for start, end in zip(day.offsets, day.offsets[1:], strict=False):
                rate = day.rate[start:end].astype(float)
                means.append(rate.mean())
                spreads.append(np.log(np.maximum(rate, 1e-4)).std())
        assert 0.8 < np.median(spreads) < 1.7  # 1.37
        assert 1.2 < np.median(means) < 4.0  # 2.9 MB/s of capacity, of which small chunks see less
        assert 0.01 < np.mean(np.array(means) < 0.3) < 0.25  # 0.056 of capacities: slow paths
        repeated = np.concatenate([np.diff(day.rate) == 0 for day in days_made])
        assert 0.02 < repeated.mean() < 0.2

    def test_drift_moves_the_days_apart(self) -> None:
        def spread(drift: float) -> float:
            # Short streams, so that there are many and their number hides nothing.
            population = Population(seed=1, chunks=20_000, drift=drift, longest=50)
            made = [population.day(day) for day in range(0, 60, 10)]
            return float(np.std([np.mean(np.diff(day.rate) == 0) for day in made]))

        assert spread(1.0) > 3 * spread(0.0)

    def test_a_shift_changes_its_days_and_nothing_else(self) -> None:
        quiet = Population(chunks=5000, longest=200)
        shift = Shift.new_access(2, share=0.5, until=4)
        shifted = Population(chunks=5000, longest=200, shifts=(shift,))
        for day in range(5):
            same = np.array_equal(quiet.day(day).rate, shifted.day(day).rate)
            assert same == (day not in (2, 3))
        assert np.mean(shifted.day(2).rate) < 0.8 * np.mean(quiet.day(2).rate)

    def test_a_new_congestion_control_changes_the_readings_only(self) -> None:
        quiet = Population(chunks=5000, longest=200).day(3)
        shift = Shift.new_congestion_control(3)
        shifted = Population(chunks=5000, longest=200, shifts=(shift,)).day(3)
        np.testing.assert_array_equal(quiet.seconds, shifted.seconds)
        assert np.mean(shifted.rate < 0.05) < 0.7 * np.mean(quiet.rate < 0.05)
        assert np.mean(np.diff(shifted.rate) == 0) > 2 * np.mean(np.diff(quiet.rate) == 0)

    @pytest.mark.parametrize(
        "settings",
        [{"seed": -1}, {"chunks": 0}, {"drift": -1.0}, {"drift": np.inf}, {"longest": 10}],
    )
    def test_settings_out_of_range(self, settings: dict[str, Any]) -> None:
        with pytest.raises(SettingError, match=next(iter(settings))):
            Population(**settings)

    def test_days_count_from_zero(self) -> None:
        with pytest.raises(SettingError, match="day -1"):
            Population().day(-1)

    @pytest.mark.parametrize(
        "settings",
        [{"share": 0.0}, {"rate_factor": 0.0}, {"low_odds": -1.0}, {"extra_rtt": -1}],
    )
    def test_shifts_out_of_range(self, settings: dict[str, Any]) -> None:
        with pytest.raises(SettingError, match=next(iter(settings))):
            Shift(day=1, **settings)
