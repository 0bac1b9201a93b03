from __future__ import annotations

import math

import pytest

from memento.errors import SettingError
from memento.training import EarlyStop


def feed(stop: EarlyStop, losses: list[float]) -> list[bool]:
    return [stop.update(loss) for loss in losses]


def test_patience_counts_epochs_since_the_best() -> None:
    stop = EarlyStop(patience=3, min_delta=0.0)
    feed(stop, [3.0, 2.0, 2.5, 2.4])
    assert not stop.due
    stop.update(2.3)
    assert stop.due
    assert (stop.best, stop.best_epoch, stop.epochs) == (2.0, 1, 5)


def test_an_improvement_starts_the_count_again() -> None:
    stop = EarlyStop(patience=2, min_delta=0.0)
    assert feed(stop, [1.0, 1.1, 0.9, 1.0]) == [True, False, True, False]
    assert not stop.due


def test_less_than_min_delta_is_no_improvement() -> None:
    stop = EarlyStop(patience=2, min_delta=0.1)
    assert feed(stop, [1.0, 0.95, 0.91]) == [True, False, False]
    assert stop.due
    assert stop.best == 1.0


def test_slow_steps_add_up_to_an_improvement() -> None:
    # Measured from the best that counted, not from the loss before.
    stop = EarlyStop(patience=5, min_delta=0.1)
    assert feed(stop, [1.0, 0.95, 0.88]) == [True, False, True]


def test_nan_is_never_an_improvement() -> None:
    stop = EarlyStop(patience=2)
    assert feed(stop, [math.nan, math.nan]) == [False, False]
    assert stop.due
    assert stop.best_epoch == -1


def test_nothing_is_due_before_the_first_loss() -> None:
    assert not EarlyStop(patience=1).due


@pytest.mark.parametrize(
    "settings", [{"patience": 0}, {"min_delta": -1.0}, {"min_delta": math.inf}]
)
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(SettingError, match=next(iter(settings))):
        EarlyStop(**settings)  # type: ignore[arg-type]
