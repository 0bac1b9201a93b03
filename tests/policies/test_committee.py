"""What the committee disagrees about stays."""

from __future__ import annotations

import numpy as np
import pytest

from memento import FIFO, Memory, QueryByCommittee
from memento.errors import DomainError, SchemaError, SettingError
from memento.policies.committee import committee_entropy


def naive_entropy(votes) -> float:
    mean = np.mean(votes, axis=0)
    return sum(-p * np.log2(p) for p in mean if p >= 1e-6)


def votes(size: int, members: int = 4, classes: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), (size, members))


def test_entropy_of_the_definition():
    predictions = votes(50)
    predictions[0] = [1 - 9e-7, 9e-7, 0]
    expected = [naive_entropy(row) for row in predictions]
    np.testing.assert_allclose(committee_entropy(predictions), expected, atol=1e-12)


def test_the_highest_entropies_stay():
    predictions = votes(300)
    entropy = np.array([naive_entropy(row) for row in predictions])
    memory = Memory(40, QueryByCommittee())
    for start in range(0, 300, 60):
        part = slice(start, start + 60)
        memory.insert(committee=predictions[part], number=np.arange(300)[part])
    expected = np.sort(np.argsort(-entropy)[:40])
    np.testing.assert_array_equal(memory.samples["number"], expected)


def test_of_equals_the_newest_stay():
    memory = Memory(3, QueryByCommittee())
    memory.insert(committee=np.full((5, 2, 2), 0.5), number=np.arange(5))
    assert memory.samples["number"].tolist() == [2, 3, 4]


def test_without_a_committee_the_newest_stay():
    queried, fifo = Memory(10, QueryByCommittee()), Memory(10, FIFO())
    for start in range(0, 40, 8):
        for memory in (queried, fifo):
            memory.insert(number=np.arange(start, start + 8))
    np.testing.assert_array_equal(queried.samples["number"], fifo.samples["number"])
    queried.annotate(committee=votes(10))
    queried.insert(number=[99], committee=[[[1.0, 0, 0]] * 4])
    assert 99 not in queried.samples["number"]


def used(policy: QueryByCommittee, members: int) -> list[int]:
    """Which members matter for the entropy."""
    agreed = np.zeros((1, members, 2))
    agreed[..., 0] = 1
    found = []
    for member in range(members):
        predictions = agreed.copy()
        predictions[0, member] = [0, 1]
        if policy._entropy(predictions)[0] > 0:
            found.append(member)
    return found


def test_the_last_members_vote():
    assert used(QueryByCommittee(), 5) == [0, 1, 2, 3, 4]
    assert used(QueryByCommittee(members=3), 5) == [2, 3, 4]
    assert used(QueryByCommittee(members=3, always_first=True), 5) == [0, 3, 4]
    assert used(QueryByCommittee(members=3, always_first=True), 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        (np.ones((2, 3)), SchemaError, "3 axes"),
        (np.ones((2, 3, 1), int), SchemaError, "probabilities"),
        (np.ones((2, 0, 3)), SchemaError, "no members"),
        (np.full((2, 3, 2), 0.6), DomainError, "sum"),
        (np.full((2, 3, 2), np.nan), DomainError, "committee"),
    ],
)
def test_bad_predictions(column, error, message):
    with pytest.raises(error, match=message):
        Memory(5, QueryByCommittee()).insert(committee=column)


@pytest.mark.parametrize(
    "settings", [{"members": 0}, {"members": 1, "always_first": True}, {"members": 2.5}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(SettingError, match="members is"):
        QueryByCommittee(**settings)
