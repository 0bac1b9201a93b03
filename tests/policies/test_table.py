"""Policies as people write them: short names of distances, the same everywhere."""

from __future__ import annotations

import copy

import pytest

from memento.distances import JensenShannon
from memento.errors import SettingError
from memento.policies import (
    DensityReservoir,
    Memento,
    Policy,
    Reservoir,
    named_policies,
    policy_from_table,
    usual_policy,
)

SHORT = {"labels": ["y:5", "site"], "values": "x", "probabilities": ["yhat"]}
DISTANCES = (
    JensenShannon.of_labels("y", classes=5),
    JensenShannon.of_labels("site"),
    JensenShannon.of_values("x"),
    JensenShannon.of_probabilities("yhat"),
)


@pytest.mark.parametrize("kind", ["memento", "density-reservoir"])
def test_short_names_stand_for_distances(kind):
    given = {"kind": kind, **SHORT, "batch_size": 32}
    before = copy.deepcopy(given)
    policy = policy_from_table(given)
    assert policy.distances == DISTANCES
    long = {name: value for name, value in given.items() if name not in SHORT}
    long["distances"] = [distance.settings() for distance in DISTANCES]
    assert policy_from_table(long) == policy
    assert given == before


def test_usual_distances_and_defaults_give_way():
    usual = [JensenShannon.of_labels("y")]
    defaults = {"temperature": 0.0, "label": "y"}
    policy = policy_from_table({}, usual=usual, defaults=defaults)
    assert policy == Memento(usual, temperature=0.0)
    policy = policy_from_table({**SHORT, "temperature": 0.5}, usual=usual, defaults=defaults)
    assert (policy.distances, policy.temperature) == (DISTANCES, 0.5)
    assert policy_from_table({"kind": "reservoir"}, usual=usual, defaults=defaults) == Reservoir()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "compares columns, and none is given; name some with --labels NAME"),
        ({"labels": ["y:"]}, "labels 'y:' has another form than NAME"),
        ({"labels": [3]}, r"labels is \[3\]; expected"),
        ({"kind": "fifo", "labels": ["y"]}, "compares no columns; leave --labels and so on out"),
        ({"kind": "fifo", "size": 3}, "policy 'fifo' has no setting 'size'; it has none"),
        ({"kind": "best"}, "unknown policy 'best'; known are "),
        ({"kind": 3}, "unknown policy 3; known are "),
        ({"distances": 3}, "distances is 3; expected a list"),
    ],
)
def test_what_does_not_fit(table, words):
    with pytest.raises(SettingError, match=words):
        policy_from_table(table, dashes="--")


def test_short_names_beside_distances_are_not_left_out_silently():
    table = {"distances": [JensenShannon.of_labels("y").settings()], "probabilities": "yhat"}
    with pytest.raises(SettingError, match="give one of them"):
        policy_from_table(table)


def test_a_density_that_is_given_needs_no_distances():
    policy = DensityReservoir(density="rho")
    assert policy_from_table(policy.settings()) == policy


def test_a_policy_that_is_no_dataclass_says_so():
    class Plain(Policy):
        kind = "plain-of-the-test"

        def __init__(self, a=1):
            self.a = a

        def choose(self, *given):
            raise AssertionError

    try:
        with pytest.raises(SettingError, match=r"put @dataclass\(frozen=True\) over it"):
            usual_policy("plain-of-the-test")
        with pytest.raises(SettingError, match=r"put @dataclass\(frozen=True\) over it, or define"):
            Plain(5).settings()
    finally:
        del named_policies["plain-of-the-test"]
