"""What Memento discards: exactly at temperature 0, by the stated law above."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive
from chances import ALARM, assert_counts, assert_same_law
from memento import (
    Custom,
    JensenShannon,
    Memento,
    Memory,
    Samples,
    State,
    named_policies,
)
from memento.errors import SchemaError, SettingError
from memento.policies import policy_from_settings
from memento.policies.memento import thin

LABELS, PROBABILITIES = JensenShannon.of_labels("y", 4), JensenShannon.of_probabilities("p")
BOTH = (LABELS, PROBABILITIES)
SIZE = 5


def policy(distances=BOTH, **settings):
    """As published, but for batch size and temperature."""
    published = {"batch_size": SIZE, "sort_by": ("y", "p"), "remainder": "drop"}
    return Memento(distances, **{**published, "temperature": 0.0, **settings})


def stream(rows, seed, skew=0.5):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(skew * np.array([8, 2, 1, 0.5]), rows)
    y = (rng.random(rows)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    return Samples(y=y, p=p)


def rows_of(chooser, fresh, capacity, seed=0, held=None):
    held = Samples() if held is None else held
    return chooser.choose(held, fresh, capacity, State(), np.random.default_rng(seed)).rows


def oracle(samples, size=SIZE, *, keep=False):
    """Batches as lists of rows, and the distances between them."""
    batches = naive.cut(naive.sort_order([samples["y"], samples["p"]]), size, keep=keep)
    labels = [naive.frequencies(samples["y"][rows], 4) for rows in batches]
    means = [naive.mixture(samples["p"][rows]) for rows in batches]
    return batches, [naive.matrix(s, s, naive.jensen_shannon) for s in (labels, means)]


def assert_densest_first(distances, gone, bandwidth=0.1, rtol=1e-9):
    """Each batch gone was the densest of those in play, the last of any that are the same."""
    kernels = [naive.kernel(d, bandwidth) for d in distances]
    alive = np.ones(len(kernels[0]), dtype=bool)
    for batch in gone:
        sums = np.where(alive, np.min([k @ alive for k in kernels], axis=0), -np.inf)
        assert sums[batch] >= sums.max() * (1 - rtol)
        same = np.max([d[batch] for d in distances], axis=0) == 0
        assert not (alive & same)[batch + 1 :].any()
        alive[batch] = False


# -------------------------------------------------------------------------------------- room enough


@pytest.mark.parametrize("capacity", [None, 23, 24, 1000])
def test_everything_stays_while_there_is_room(capacity):
    rows = rows_of(policy(), stream(13, 1), capacity, held=stream(10, 0))
    np.testing.assert_array_equal(rows, np.arange(23))


def test_only_whole_batches_stay_when_something_has_to_go():
    assert len(rows_of(policy(), stream(24, 0), 23)) == 20
    assert len(rows_of(policy(), stream(21, 0), 20)) == 20  # the remainder was enough


# ------------------------------------------------------------------------------------ temperature 0


@given(st.integers(6, 80), st.integers(0, 2**32), st.floats(0.1, 1))
def test_the_densest_batch_goes(rows, seed, share):
    samples = stream(rows, seed)
    capacity = max(SIZE, int(share * rows))
    batches, distances = oracle(samples)
    space = policy()
    kept, gone = thin(
        space.field(space.batches(samples)),
        np.full(len(batches), SIZE),
        capacity,
        0.0,
        np.random.default_rng(0),
    )
    assert kept.sum() == min(len(batches), capacity // SIZE)
    np.testing.assert_array_equal(np.flatnonzero(~kept), np.sort(gone))
    assert_densest_first(distances, gone)
    expected = np.sort([row for i in np.flatnonzero(kept) for row in batches[i]])
    if capacity < rows:
        np.testing.assert_array_equal(rows_of(space, samples, capacity), expected)


@pytest.mark.parametrize("seed", range(5))
def test_rows_kept_are_those_of_the_oracle(seed):
    samples = stream(200, seed)
    batches, distances = oracle(samples)
    kept, gone = naive.keep(distances, [SIZE] * len(batches), 80, 0)
    expected = np.sort([row for i in kept for row in batches[i]])
    assert len(gone) == 24
    np.testing.assert_array_equal(rows_of(policy(), samples, 80), expected)


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_last_of_equals_goes(precision):
    samples = Samples(y=[0] * 8 + [1] * 2)
    chooser = policy([LABELS], batch_size=2, sort_by=["y"], precision=precision)
    assert rows_of(chooser, samples, 8).tolist() == [0, 1, 2, 3, 4, 5, 8, 9]
    assert rows_of(chooser, samples, 4).tolist() == [0, 1, 8, 9]
    # One batch of either kind: both are as dense, and the last in batch order goes.
    assert rows_of(chooser, samples, 2).tolist() == [0, 1]


def test_rare_samples_survive():
    y = np.array([0] * 950 + [1] * 30 + [2] * 20)
    chooser = policy([LABELS], batch_size=10, sort_by=["y"])
    kept = y[rows_of(chooser, Samples(y=y), 150)]
    assert np.bincount(kept).tolist() == [100, 30, 20]


def test_temperature_zero_draws_nothing():
    rng = np.random.default_rng(7)
    before = rng.bit_generator.state
    policy().choose(Samples(), stream(80, 0), 40, State(), rng)
    assert rng.bit_generator.state == before


def test_batches_of_different_sizes():
    """With the remainder kept, sizes differ, and how many have to go shows on the way."""
    samples = stream(83, 3)
    batches, distances = oracle(samples, keep=True)
    sizes = [len(rows) for rows in batches]
    assert len(set(sizes)) == 2
    for capacity in (82, 41, 3):
        kept, _ = naive.keep(distances, sizes, capacity, 0)
        rows = rows_of(policy(remainder="keep"), samples, capacity)
        np.testing.assert_array_equal(rows, np.sort([r for i in kept for r in batches[i]]))
        assert len(rows) <= capacity


def test_a_bandwidth_for_each_distance():
    samples = stream(120, 4)
    batches, (of_labels, of_means) = oracle(samples)
    # A distance twice as large under a kernel twice as wide is the same.
    kept, _ = naive.keep([of_labels, of_means / 2], [SIZE] * len(batches), 60, 0)
    for precision in ("exact", "fast"):
        chooser = policy(bandwidth=(0.1, 0.2), precision=precision)
        rows = rows_of(chooser, samples, 60)
        np.testing.assert_array_equal(rows, np.sort([r for i in kept for r in batches[i]]))


def test_any_distance():
    samples = stream(100, 5)
    spread = Custom("y", np.ptp, lambda a, b: abs(a - b.T))
    batches, (_, of_means) = oracle(samples)
    ranges = [np.ptp(samples["y"][rows]) for rows in batches]
    distances = [naive.matrix(ranges, ranges, lambda a, b: abs(a - b)), of_means]
    kept, _ = naive.keep(distances, [SIZE] * len(batches), 50, 0, bandwidth=0.3)
    rows = rows_of(policy([spread, PROBABILITIES], bandwidth=0.3), samples, 50)
    np.testing.assert_array_equal(rows, np.sort([r for i in kept for r in batches[i]]))


@pytest.mark.compiled
@pytest.mark.parametrize("k", [2, 21])
def test_fast_path_discards_what_is_densest_to_its_precision(k):
    rng = np.random.default_rng(k)
    n = 1100
    p = rng.dirichlet(np.full(k, 0.3), n)
    p[rng.integers(0, n, n // 3)] = p[0]  # and many that are the same
    samples = Samples(p=p)
    chooser = Memento([PROBABILITIES], batch_size=1, sort_by=(), precision="fast")
    alive, gone = thin(
        chooser.field(chooser.batches(samples)), np.ones(n, int), 300, 0.0, np.random.default_rng()
    )
    assert alive.sum() == 300
    assert_densest_first(
        [np.array([naive.jensen_shannon_row(row, p) for row in p])], gone, rtol=2e-4
    )


# ------------------------------------------------------------------------------ above temperature 0


@pytest.mark.parametrize("temperature", [1e-3, 0.01, 0.1, 3.0, math.inf])
@pytest.mark.parametrize("seed", [0, 1])
def test_same_uniform_numbers_discard_the_same_batches(temperature, seed):
    """Inverting the distribution function in batch order, as the oracle does, number by number."""
    samples = stream(150, seed)
    batches, distances = oracle(samples)
    uniforms = iter(np.random.default_rng(seed).random(1000))
    _, expected = naive.keep(distances, [SIZE] * len(batches), 50, temperature, uniforms)
    chooser = policy(temperature=temperature)
    field, sizes = chooser.field(chooser.batches(samples)), np.full(len(batches), SIZE)
    _, gone = thin(field, sizes, 50, temperature, np.random.default_rng(seed))
    assert gone == expected


def test_same_uniform_numbers_with_batches_of_different_sizes():
    samples = stream(103, 2)
    batches, distances = oracle(samples, keep=True)
    uniforms = iter(np.random.default_rng(5).random(1000))
    sizes = [len(rows) for rows in batches]
    kept, _ = naive.keep(distances, sizes, 41, 0.02, uniforms)
    rows = rows_of(policy(temperature=0.02, remainder="keep"), samples, 41, seed=5)
    np.testing.assert_array_equal(rows, np.sort([r for i in kept for r in batches[i]]))


@pytest.mark.parametrize("temperature", [0.003, 0.01, 0.1, math.inf])
def test_law_of_one_discard(temperature):
    """Chi-square test against softmax(density / T); false-alarm rate 1e-4 each."""
    samples = stream(40, 6)
    batches, distances = oracle(samples)
    chances = naive.discard_probabilities(naive.density(distances), temperature)
    chooser, runs = policy(temperature=temperature), 1500
    place = np.empty(40, dtype=int)
    for i, rows in enumerate(batches):
        place[rows] = i
    counts = np.zeros(len(batches))
    rng = np.random.default_rng(11)
    for _ in range(runs):
        rows = chooser.choose(Samples(), samples, 39, State(), rng).rows
        counts[np.setdiff1d(np.arange(len(batches)), place[rows])] += 1
    likely = chances * runs >= 5  # what is rarer is taken together
    expected = np.append(chances[likely], chances[~likely].sum()) * runs
    seen = np.append(counts[likely], counts[~likely].sum())
    assert_counts(seen, expected, ALARM)


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("temperature", [0.002, 0.01, 1.0, math.inf])
def test_law_of_one_draw_by_even_numbers(precision, temperature):
    """Over evenly spaced numbers batches are drawn in proportion to their probabilities."""
    samples = stream(60, 7)
    batches, distances = oracle(samples)
    chances = naive.discard_probabilities(naive.density(distances), temperature)
    chooser = policy(precision=precision)
    field = chooser.field(chooser.batches(samples))
    alive, runs = np.ones(len(batches), dtype=bool), 5000
    drawn = [field.draw(alive, temperature, (i + 0.5) / runs) for i in range(runs)]
    counts = np.bincount(drawn, minlength=len(batches))
    np.testing.assert_allclose(counts, chances * runs, atol=1 if precision == "exact" else 3)


def test_law_of_many_discards():
    """Which batches survive, against the oracle; false-alarm rate 1e-4 for all of them together."""
    samples = stream(100, 8)
    batches, distances = oracle(samples)
    runs, capacity = 600, 50
    chooser = policy(temperature=0.02)
    kept = np.zeros(100)
    for seed in range(runs):
        kept[rows_of(chooser, samples, capacity, seed)] += 1
    survived = kept[[rows[0] for rows in batches]]
    expected = 4000 * naive.keep_frequency(
        distances, len(batches) - capacity // SIZE, 0.02, 4000, np.random.default_rng(99)
    )
    for ours, theirs in zip(survived, expected, strict=True):
        assert_same_law([ours, runs - ours], [theirs, 4000 - theirs], ALARM / len(batches))


def test_low_temperatures_approach_zero():
    samples = stream(200, 9)
    for seed in range(3):
        cold = rows_of(policy(temperature=1e-9), samples, 80, seed)
        np.testing.assert_array_equal(cold, rows_of(policy(), samples, 80))


def test_infinite_temperature_is_uniform():
    """Chi-square over batches, all equally likely to go; false-alarm rate 1e-4."""
    samples = Samples(y=[0] * 36 + [1] * 4)
    chooser = policy([LABELS], batch_size=4, sort_by=["y"], temperature=math.inf)
    counts, runs = np.zeros(10), 2000
    rng = np.random.default_rng(0)
    for _ in range(runs):
        rows = chooser.choose(Samples(), samples, 36, State(), rng).rows
        counts[np.setdiff1d(np.arange(10), rows // 4)] += 1
    assert_counts(counts, np.full(10, runs / 10), ALARM)


def test_same_seed_same_choice():
    samples = stream(150, 10)
    chooser = policy(temperature=0.05)
    first, again = rows_of(chooser, samples, 60, seed=3), rows_of(chooser, samples, 60, seed=3)
    np.testing.assert_array_equal(first, again)
    assert any(len(np.setdiff1d(first, rows_of(chooser, samples, 60, seed=s))) for s in range(5))


def test_other_generators_are_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - it is the global one that is meant
    rows_of(policy(temperature=0.05), stream(80, 0), 30)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


# ---------------------------------------------------------------------------------- form of choices


@given(
    st.integers(0, 40),
    st.integers(1, 60),
    st.integers(SIZE, 60),
    st.sampled_from([0.0, 0.02, math.inf]),
    st.sampled_from(["drop", "keep"]),
    st.booleans(),
)
def test_rows_of_a_choice(held_rows, fresh_rows, capacity, temperature, remainder, fill):
    held, fresh = stream(held_rows, 1), stream(fresh_rows, 2)
    total = held_rows + fresh_rows
    chooser = policy(temperature=temperature, remainder=remainder, fill=fill)
    choice = chooser.choose(held, fresh, capacity, State(), np.random.default_rng(0))
    rows = choice.rows
    assert rows.dtype == np.int64
    assert (np.diff(rows) > 0).all()
    assert ((rows >= 0) & (rows < total)).all()
    assert len(rows) <= capacity or total <= capacity
    if fill:
        assert len(rows) == min(total, capacity)
    elif total > capacity:
        assert len(rows) > min(capacity, total - SIZE + 1) - SIZE
        both = Samples.concat([held, fresh])
        batches, _ = oracle(both, keep=remainder == "keep")
        whole = [rows_ for rows_ in batches if set(rows_) <= set(rows.tolist())]
        assert sum(len(rows_) for rows_ in whole) == len(rows)
    assert not choice.counters
    assert not choice.marks


@given(st.integers(0, 60), st.sampled_from([0.0, 0.02]))
def test_held_and_fresh_are_one_set(split, temperature):
    samples = stream(60, 12)
    chooser = policy(temperature=temperature)
    whole = rows_of(chooser, samples, 30, seed=1)
    held, fresh = samples.rows(0, split), samples.rows(split, 60)
    np.testing.assert_array_equal(rows_of(chooser, fresh, 30, seed=1, held=held), whole)


def test_filled_up_with_the_batch_that_went_last():
    samples = stream(43, 13)
    plain, filled = rows_of(policy(), samples, 33), rows_of(policy(fill=True), samples, 33)
    batches, distances = oracle(samples)
    _, gone = naive.keep(distances, [SIZE] * len(batches), 33, 0)
    extra = np.setdiff1d(filled, plain)
    assert len(plain) == 30
    assert len(filled) == 33
    assert set(plain) <= set(filled)
    assert set(extra) <= set(batches[gone[-1]])


def test_filled_up_from_the_remainder_as_well():
    samples = stream(44, 14)
    filled = rows_of(policy(fill=True), samples, 43)  # 40 in batches, none discarded
    assert len(filled) == 43


def test_groups_are_not_mixed():
    samples = stream(60, 15).with_columns(app=np.arange(60) % 3)
    rows = rows_of(policy(group_by="app"), samples, 30)
    kept = samples.take(rows)
    assert all(count % SIZE == 0 for count in np.bincount(kept["app"]))


def test_inputs_are_not_changed():
    held, fresh = dict(stream(30, 0)), dict(stream(40, 1))
    before = [{n: a.copy() for n, a in part.items()} for part in (held, fresh)]
    policy().choose(
        Samples.borrow(held), Samples.borrow(fresh), 35, State(), np.random.default_rng(0)
    )
    for part, copy in zip((held, fresh), before, strict=True):
        for name, array in part.items():
            np.testing.assert_array_equal(array, copy[name])


@pytest.mark.parametrize(("gone", "left"), [("p", LABELS), ("y", PROBABILITIES)])
@pytest.mark.filterwarnings("ignore:missing columns")
def test_works_with_outputs_or_predictions_alone(gone, left):
    samples = stream(100, 16).without(gone)
    alone = policy([left], sort_by=left.columns)
    expected = rows_of(alone, samples, 40)
    np.testing.assert_array_equal(rows_of(policy(), samples, 40), expected)
    np.testing.assert_array_equal(rows_of(policy(missing="skip"), samples, 40), expected)
    policy().check(samples)
    with pytest.raises(SchemaError, match=f"{gone!r}.* is missing"):
        rows_of(policy(missing="error"), samples, 40)
    with pytest.raises(SchemaError, match=f"{gone!r}.* is missing"):
        policy(missing="error").check(samples)


def test_missing_columns_warn():
    with pytest.warns(UserWarning, match="missing columns: 'p'. Until they come, this leaves Jens"):
        policy().check(stream(10, 0).without("p"))


# ----------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize("temperature", [-0.01, float("nan"), -math.inf])
def test_temperature_below_zero(temperature):
    with pytest.raises(SettingError, match=rf"temperature is {temperature}; expected 0"):
        policy(temperature=temperature)


def test_capacity_below_a_batch():
    with pytest.raises(SettingError, match="capacity 4 is less than one batch of 5: nothing could"):
        policy().check_capacity(4)
    policy().check_capacity(5)
    policy().check_capacity(None)
    policy(remainder="keep").check_capacity(4)


def test_settings_make_an_equal_policy():
    chooser = policy(temperature=math.inf, bandwidth=(0.1, 0.2), group_by="app", fill=True)
    assert policy_from_settings(chooser.settings()) == chooser
    assert named_policies["memento"] is Memento


def test_defaults():
    chooser = Memento([LABELS])
    assert (chooser.batch_size, chooser.bandwidth, chooser.temperature) == (None, 0.1, None)
    assert (chooser.sort_by, chooser.sort_columns) == (None, ("y",))
    assert (chooser.remainder, chooser.missing, chooser.precision) == ("even", "warn", "auto")
    assert [chooser.size_for(c) for c in (10, 1024, 10**6)] == [1, 16, 256]


# ----------------------------------------------------------------------------------------- defaults


def rare_day(rng, rows, rare, classes, kind):
    """A day in which the last class is rare, or new, and looks to the model like another one."""
    y = np.concatenate([np.full(rare, classes), rng.integers(0, classes, rows - rare)])
    guess = np.where(y == classes, rng.integers(0, classes, rows), y)
    logits = rng.normal(size=(rows, classes + 1)) - 4 * (np.arange(classes + 1) == classes)
    logits[np.arange(rows), guess] += 3
    odds = np.exp(logits)
    columns = {"y": y.astype(kind), "yhat": odds / odds.sum(axis=1, keepdims=True)}
    order = rng.permutation(rows)
    return Samples({name: column[order] for name, column in columns.items()})


@pytest.mark.compiled
@pytest.mark.parametrize("predictions", [False, True])
@pytest.mark.parametrize("classes", [1, 9, 20])
@pytest.mark.parametrize("rare", [20, 60, 100])
def test_a_new_class_survives_at_defaults(rare, classes, predictions):
    """Chances to lose a batch of it are below 1 in 1,000 in each of these."""
    distances = [JensenShannon.of_labels("y", classes + 1)]
    distances += [JensenShannon.of_probabilities("yhat")] * predictions
    rng = np.random.default_rng([rare, classes])
    memory = Memory(1024, Memento(distances), seed=0)
    for _ in range(2):
        memory.insert(rare_day(rng, 3000, 0, classes, np.int64))
        assert len(memory) == 1024
    memory.insert(rare_day(rng, 3000, rare, classes, np.int64))
    assert (memory.samples["y"] == classes).sum() >= min(0.9 * rare, 0.5 * 1024 / (classes + 1))
    assert len(memory) == 1024


@pytest.mark.compiled
@pytest.mark.parametrize("capacity", [50, 200, 1000, 20_000])
def test_no_class_is_lost_at_any_capacity(capacity):
    rng = np.random.default_rng(capacity)
    memory = Memory(capacity, Memento([JensenShannon.of_labels("y", 5)]), seed=0)
    for _ in range(2):
        memory.insert(y=rng.choice(5, 3 * capacity + 100, p=[0.4, 0.3, 0.15, 0.1, 0.05]))
        assert (np.bincount(memory.samples["y"], minlength=5) > 0).all()
        assert len(memory) == capacity


@pytest.mark.parametrize("kind", [np.int8, bool, np.int64])
def test_the_rarest_of_two_labels_is_kept(kind):
    rng = np.random.default_rng(0)
    y = rng.random(600) < 0.03
    memory = Memory(200, Memento([JensenShannon.of_labels("y", 2)]), seed=0)
    memory.insert(y=y.astype(kind))
    assert memory.samples["y"].sum() == y.sum()


@pytest.mark.parametrize("sign", [-1, 1])
def test_neither_end_of_values_is_lost(sign):
    """Values have no labels; still, what is far from all others is what stays."""
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(5):
        v = np.concatenate([rng.normal(size=1180), sign * rng.normal(12, 0.5, 20)])
        memory = Memory(400, Memento([JensenShannon.of_values("v")]), seed=seed)
        memory.insert(v=rng.permutation(v))
        assert len(memory) == 400
        held += (sign * memory.samples["v"] > 9).sum()
    assert held >= 50  # of 100; a random sample holds 33


@pytest.mark.parametrize("temperature", [None, 0.0, 0.02])
def test_what_is_offered_in_parts(monkeypatch, temperature):
    """Rare samples survive all of them, the memory is full, and no row is chosen twice."""
    monkeypatch.setattr("memento.policies.memento.MOST_BATCHES", 40)
    rng = np.random.default_rng(4)
    memory = Memory(60, Memento([LABELS], batch_size=2, temperature=temperature), seed=0)
    for day in range(3):
        y = rng.choice(4, 500, p=[0.6, 0.25, 0.14, 0.01])
        memory.insert(y=y, row=np.arange(500) + 500 * day)
        held = memory.samples
        assert len(set(held["row"].tolist())) == 60
        assert np.bincount(held["y"], minlength=4).min() >= (4 if temperature == 0.02 else 5)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=60),
    st.integers(1, 70),
    st.integers(1, 9) | st.none(),
    st.sampled_from([None, 0.0, 0.02, math.inf]),
)
def test_defaults_fill_the_memory(labels, capacity, size, temperature):
    chooser = Memento([JensenShannon.of_labels("y", 7)], batch_size=size, temperature=temperature)
    rows = rows_of(chooser, Samples(y=labels), capacity)
    assert len(np.unique(rows)) == len(rows) == min(capacity, len(labels))
    assert (np.diff(rows) > 0).all()


@given(st.integers(0, 2**32), st.integers(10, 60), st.sampled_from([0.0, 0.02, math.inf]))
def test_uneven_batches_go_as_in_the_oracle(seed, capacity, temperature):
    samples = stream(70, seed)
    chooser = policy(temperature=temperature, remainder="even")
    batches = chooser.batches(samples)
    rows = [batches.rows(i) for i in range(len(batches))]
    labels = [naive.frequencies(samples["y"][r], 4) for r in rows]
    means = [naive.mixture(samples["p"][r]) for r in rows]
    distances = [naive.matrix(s, s, naive.jensen_shannon) for s in (labels, means)]
    uniforms = iter(np.random.default_rng(seed).random(1000))
    sizes = batches.sizes.tolist()
    kept, gone = naive.keep(distances, sizes, capacity, temperature, uniforms)
    rng = np.random.default_rng(seed)
    alive, found = thin(chooser.field(batches), batches.sizes, capacity, temperature, rng)
    assert found == gone
    assert np.flatnonzero(alive).tolist() == sorted(kept)
    # As many numbers were drawn as batches went.
    assert temperature == 0 or rng.random() == next(uniforms)


def test_equal_samples_take_their_chances():
    """Held or fresh, first or last: of equal samples each is as likely to stay."""
    held, fresh = Samples(y=np.zeros(40, int)), Samples(y=np.zeros(80, int))
    chooser, counts = Memento([LABELS], batch_size=4), np.zeros(120)
    for seed in range(300):
        counts[rows_of(chooser, fresh, 60, seed, held)] += 1
    assert_counts([counts[:40].sum(), counts[40:].sum()], [6000, 12_000], ALARM)
    assert counts.std() < 2 * math.sqrt(300 / 4)


def test_few_batches_are_told_once():
    chooser = Memento([LABELS], batch_size=256)
    with pytest.warns(UserWarning, match="capacity 1,000 holds 3 batches of 256, fewer") as told:
        _ = [Memory(1000, chooser) for _ in range(2)]
    assert len(told) == 1
    assert told[0].filename == __file__
    assert "Leave batch_size out (here 15), or raise the capacity to 8,192" in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for capacity in (10, 100, 1000):
            Memory(capacity, Memento([LABELS]))


def test_missing_columns_are_told_once_and_left_out_until_they_come():
    chooser = Memento([*BOTH, JensenShannon.of_values("v")], sort_by=("y", "x", "p"))
    memory = Memory(40, chooser, seed=0)
    with pytest.warns(UserWarning, match="missing columns") as told:
        _ = [memory.insert(stream(50, seed).without("p")) for seed in range(3)]
    assert [w.filename for w in told] == [__file__]
    message = str(told[0].message)
    assert message.startswith("missing columns: 'p', 'v', 'x'. Until they come, this leaves")
    assert "of_probabilities('p'), JensenShannon.of_values('v'" in message
    assert "and 'x', 'p' out of the order of samples" in message


# ------------------------------------------------------- forgetting, and densities from a sample


def test_forgetting_drops_a_share_of_what_is_held_once_an_insert():
    held, fresh = stream(200, 0), stream(40, 1)
    for share, forgotten in [(0.1, 20), (0.5, 40), (1.0, 40)]:  # at most as many as come in
        rows = rows_of(policy(forget=share), fresh, None, held=held)
        assert (rows < 200).sum() == 200 - forgotten
        assert (rows >= 200).sum() == 40
    small = rows_of(policy(forget=0.1), fresh, 100, held=held)
    assert len(small) <= 100
    assert (np.diff(small) > 0).all()


def test_every_sample_is_as_likely_to_be_forgotten():
    """5,000 times 10 of 50: a count is binomial; |z| > 4.5 for one of 50 once in 3,000 runs."""
    held, fresh = stream(50, 0), stream(10, 1)
    rng, counts = np.random.default_rng(5), np.zeros(50)
    chooser = policy(forget=0.2)
    for _ in range(5000):
        counts[chooser.choose(held, fresh, None, State(), rng).rows[:40]] += 1
    z = (counts - 4000) / np.sqrt(5000 * 0.8 * 0.2)
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize("temperature", [0.0, 0.01, None])
def test_densities_from_all_batches_are_those_of_no_sample(temperature):
    """All batches drawn: each counts once, so the same go as without a fraction."""
    samples = stream(300, 3)
    space = policy(temperature=temperature)
    batches = space.batches(samples)
    for seed in range(5):
        gone = [
            space.thin(
                space.field(batches, weights), batches.sizes, 100, np.random.default_rng(seed)
            )
            for weights in (None, np.ones(len(batches)))
        ]
        assert gone[0][1] == gone[1][1]


def test_densities_from_a_sample_of_batches_are_those_of_all_on_average():
    samples, rng = stream(2000, 4), np.random.default_rng(0)
    single = policy([JensenShannon.of_labels("y", 4)], distance_sample_fraction=0.1)
    batches = single.batches(samples)
    found = np.array(
        [single.field(batches, single.sampled(len(batches), rng)).density() for _ in range(400)]
    )
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    z = (found.mean(axis=0) - single.field(batches).density()) / np.maximum(error, 1e-12)
    assert np.abs(z).max() < 5  # a normal beyond 5 for one of 400 batches: once in 4,000 runs


def test_a_sample_of_batches_still_keeps_what_is_rare():
    """Dense batches go first: of rare labels more stays than of common ones, as without."""
    rng = np.random.default_rng(0)
    samples = Samples(y=np.where(rng.random(20_000) < 0.02, 1, 0))
    labels = [JensenShannon.of_labels("y", 2)]
    chooser = Memento(labels, batch_size=20, distance_sample_fraction=0.05)
    rows = rows_of(chooser, samples, 2000)
    assert len(rows) == 2000
    assert samples["y"][rows].mean() > 5 * 0.02


def test_a_sample_of_few_batches_and_of_all():
    for count in (0, 1, 2, 3):
        weights = policy(distance_sample_fraction=0.01).sampled(count, np.random.default_rng(0))
        assert weights is None if count < 2 else weights.sum() == count
    assert policy().sampled(100, np.random.default_rng(0)) is None
    for wrong in (0.0, 1.5, math.nan):
        with pytest.raises(SettingError, match="distance_sample_fraction"):
            policy(distance_sample_fraction=wrong)
    with pytest.raises(SettingError, match="forget"):
        policy(forget=-0.1)


def test_all_of_the_sample_may_go():
    """What is left when none of the batches drawn is left goes at random, without a warning."""
    samples = stream(2000, 7)
    for seed in range(10):
        rows = rows_of(policy(temperature=None, distance_sample_fraction=0.005), samples, 10, seed)
        assert len(rows) == 10
