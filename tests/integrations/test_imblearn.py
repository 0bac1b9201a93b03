"""The sampler, with the real imbalanced-learn and all the checks that it and scikit-learn have."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

pytest.importorskip("imblearn")
from imblearn.pipeline import make_pipeline
from imblearn.utils.estimator_checks import estimator_checks_generator as of_imblearn
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import estimator_checks_generator as of_sklearn

from memento import DensityReservoir, JensenShannon, KCenterGreedy, Memento, Memory, Reservoir
from memento.errors import MissingExtraError, SchemaError
from memento.integrations.imblearn import MementoSampler

SAMPLERS = [
    MementoSampler(random_state=0),
    MementoSampler(Reservoir(), capacity=7, random_state=0),
    MementoSampler(Memento([JensenShannon.of_labels("y")], batch_size=4), random_state=0),
    MementoSampler(KCenterGreedy(features="x"), random_state=0),
]


def checks(generator):
    """Pairs of a sampler and a check, of all samplers."""
    pairs = [pair for sampler in SAMPLERS for pair in generator(sampler)]
    return pytest.mark.parametrize(
        ("sampler", "check"), pairs, ids=[f"{s.policy}-{c.func.__name__}" for s, c in pairs]
    )


@checks(of_imblearn)
def test_every_check_of_imbalanced_learn(sampler, check):
    check(sampler)


@checks(of_sklearn)
def test_every_check_of_scikit_learn(sampler, check):
    check(sampler)


@pytest.fixture
def rare():
    """A thousand rows, one in twenty of them rare."""
    rng = np.random.default_rng(4)
    y = (np.arange(1000) % 20 == 7).astype(int)
    return rng.normal(size=(1000, 3)) + y[:, None], y


def test_it_keeps_what_a_memory_keeps(rare):
    X, y = rare
    kept, labels = MementoSampler(Reservoir(), capacity=100, random_state=3).fit_resample(X, y)
    seed = np.random.RandomState(3).randint(np.iinfo(np.int32).max)
    memory = Memory(100, Reservoir(), seed=int(seed))
    memory.insert(x=X, y=y)
    assert np.array_equal(kept, memory.samples["x"])
    assert np.array_equal(labels, memory.samples["y"])


def test_weights_undo_the_choice(rare):
    X, y = rare
    sampler = MementoSampler(capacity=0.1, random_state=0)
    kept, labels = sampler.fit_resample(X, y)
    assert np.bincount(labels).tolist() == [50, 50]
    assert np.bincount(labels, sampler.sample_weight_) == pytest.approx([950, 50])
    assert np.array_equal(X[sampler.sample_indices_], kept)
    assert MementoSampler(KCenterGreedy("x")).fit(X, y) is not None
    without = MementoSampler(Reservoir(forget=0.1), capacity=50)
    without.fit_resample(X, y)
    assert without.sample_weight_ is None


def test_columns_by_name_are_for_the_policy(rare):
    X, y = rare
    density = np.where(y == 1, 0.01, 10.0)
    policy = DensityReservoir(density="rho")
    sampler = MementoSampler(policy, capacity=60, random_state=0)
    _, labels = sampler.fit_resample(X, y, rho=density)
    assert labels.sum() > 20  # of 60, one in twenty being rare
    with pytest.raises(SchemaError, match="rho"):
        sampler.fit_resample(X, y)
    with pytest.raises(SchemaError, match="999"):
        sampler.fit_resample(X, y, rho=density[1:])


def test_in_a_pipeline(rare):
    X, y = rare
    model = make_pipeline(MementoSampler(capacity=0.1, random_state=0), LogisticRegression())
    found = clone(model).fit(X, y).predict(X)
    assert found[y == 1].mean() > 0.6 > LogisticRegression().fit(X, y).predict(X)[y == 1].mean()


def test_tables_and_sparse_rows_come_back_as_they_came(rare):
    import pandas as pd

    X, y = rare
    sampler = MementoSampler(capacity=30, random_state=0)
    table, labels = sampler.fit_resample(pd.DataFrame(X, columns=[*"abc"]), pd.Series(y, name="z"))
    assert list(table) == [*"abc"]
    assert labels.name == "z"
    assert np.array_equal(table, X[sampler.sample_indices_])
    thin, _ = MementoSampler(KCenterGreedy("x"), capacity=30, random_state=0).fit_resample(
        sparse.csr_matrix(X), np.where(y, "rare", "usual").astype(object)
    )
    assert sparse.issparse(thin)
    assert thin.shape == (30, 3)


@pytest.mark.parametrize("capacity", [0, -1, 1.5, "many", None])
def test_a_capacity_that_is_none(rare, capacity):
    with pytest.raises(ValueError, match="capacity"):
        MementoSampler(capacity=capacity).fit_resample(*rare)


def test_without_imbalanced_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "imblearn.base", None)
    monkeypatch.delitem(sys.modules, "memento.integrations.imblearn")
    with pytest.raises(MissingExtraError, match=r'pip install "memento-replay\[imblearn\]"'):
        importlib.import_module("memento.integrations.imblearn")
