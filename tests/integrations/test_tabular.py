"""Columns of any kind as inputs: fitted on the first unit, total on all that come later."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from memento.errors import ModelError, SchemaError, SettingError
from memento.integrations.tabular import Encoder, factory, units_of
from memento.samples import Samples


def first(n=100):
    rng = np.random.default_rng(0)
    return {
        "n": rng.normal(5, 2, n),
        "gap": np.where(np.arange(n) % 4, rng.normal(size=n), np.nan),
        "flag": rng.random(n) < 0.5,
        "text": rng.choice(["a", "b", ""], n),
        "when": np.datetime64("2026-01-01") + np.arange(n),
        "wide": rng.normal(size=(n, 3)),
    }


def test_numbers_are_standardised_by_the_first_unit_alone():
    columns = first()
    encoder = Encoder(columns)
    found = encoder.encode(columns)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    expected = (columns["n"] - columns["n"].mean()) / columns["n"].std()
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)
    later = {**columns, "n": columns["n"] + 2 * columns["n"].std()}
    np.testing.assert_allclose(encoder.encode(later)[:, 0], found[:, 0] + 2, rtol=1e-4)


def test_what_comes_up_later_is_encoded_too():
    encoder = Encoder(first())
    later = first(5)
    later["text"] = np.array(["c", "a", "b", "", "z" * 50])
    later["n"] = np.array([np.nan, np.inf, -np.inf, 1e30, 0])
    later["when"] = np.array(
        ["NaT", "1900-01-01", "2262-01-01", "2026-01-01", "2026-01-02"], "M8[D]"
    )
    found = encoder.encode(later)
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 8


def test_times_are_numbers_of_any_unit():
    one = Encoder({"t": np.array(["2026-01-01", "2026-01-03"], "M8[D]")})
    two = one.encode({"t": np.array(["2026-01-02T00:00", "2026-01-05T00:00"], "M8[ns]")})
    np.testing.assert_allclose(two[:, 0], [0, 3], atol=1e-6)


def test_many_texts_become_few_columns():
    names = np.array([f"user-{i}" for i in range(1000)])
    assert Encoder({"who": names}).encode({"who": names}).shape[1] <= 31


def test_what_changes_kind_is_named():
    encoder = Encoder(first())
    with pytest.raises(SchemaError, match="column 'n' is missing"):
        encoder.encode({n: c for n, c in first().items() if n != "n"})
    for name, other in (("text", np.zeros(100)), ("wide", np.zeros((100, 2)))):
        with pytest.raises(
            SchemaError, match=f"column '{name}' is float64 .* another kind or width"
        ):
            encoder.encode({**first(), name: other})
    with pytest.raises(SchemaError, match="expected numbers, times or texts"):
        Encoder({"z": np.zeros(3, complex)})
    with pytest.raises(SchemaError, match="no column is left"):
        Encoder({})


def test_units_keep_labels_and_further_columns_as_they_are():
    tables = [(f"u{i}", Samples({**first(), "y": np.arange(100), "g": np.arange(100) % 3}))
              for i in range(2)]  # fmt: skip
    units = units_of(tables, "y", list(first()), ["g"])
    assert [sorted(columns) for _, columns in units] == [["g", "x", "y"]] * 2
    np.testing.assert_array_equal(units[1][1]["y"], np.arange(100))
    with pytest.raises(SchemaError, match="unit 'u0' has no column 'h'"):
        units_of(tables, "y", ["n"], ["h"])


# Before its version 1.7 scikit-learn's networks took no weights, which is said.
@pytest.mark.filterwarnings("ignore:MLP.* takes no sample_weight")
@pytest.mark.parametrize("name", ["hgb", "logistic", "mlp"])
def test_models_of_classes(name):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 2)).astype(np.float32)
    samples = Samples(x=x, y=(x[:, 0] > 0).astype(int))
    learner = factory(name, "y", None, numbers=False)(0)
    learner.fit(samples, np.ones(300))
    assert learner.annotate(samples)["logscore"].mean() > -0.6
    with pytest.raises(SettingError, match="no model 'best'"):
        factory("best", "y", None, numbers=False)


@pytest.mark.filterwarnings("ignore:MLP.* takes no sample_weight")
@pytest.mark.parametrize("name", ["hgb", "ridge", "mlp"])
def test_models_of_numbers(name):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 2)).astype(np.float32)
    samples = Samples(x=x, y=x[:, 0].astype(float))
    learner = factory(name, "y", None, numbers=True)(0)
    learner.fit(samples)
    assert learner.annotate(samples)["loss"].mean() < 0.6


def test_rows_without_a_label_are_left_out():
    y = np.where(np.arange(100) % 2, np.arange(100.0) % 4, np.nan)
    tables = [("a", Samples({**first(), "y": y}))]
    ((_, columns),) = units_of(tables, "y", ["n"])
    assert columns["y"].dtype == np.int64
    assert columns["y"].tolist() == [1, 3] * 25
    np.testing.assert_array_equal(columns["x"], Encoder({"n": first()["n"]}).encode(
        {"n": first()["n"][1::2]}))  # fmt: skip
    ((_, columns),) = units_of(tables, "y", ["n"], numbers=True)
    assert columns["y"].dtype == np.float64


def test_columns_that_models_use_are_refused():
    for name in ("x", "yhat", "loss"):
        tables = [("a", Samples({"n": [1.0, 2.0], name: [0, 1], "y": [0, 1]}))]
        for label, further in ((name, []), ("y", [name])):
            with pytest.raises(SchemaError, match=f"a column is called '{name}'"):
                units_of(tables, label, ["n"], further)


def test_units_without_rows():
    encoder = Encoder(first())
    empty = {name: column[:0] for name, column in first().items()}
    assert encoder.encode(empty).shape == (0, encoder.encode(first()).shape[1])
    with pytest.raises(SchemaError, match="the first unit has no rows"):
        Encoder(empty)


def test_a_unit_that_differs_is_named():
    later = Samples({**first(), "n": np.arange(100).astype(str), "y": np.arange(100) % 2})
    tables = [("a", Samples({**first(), "y": np.arange(100) % 2})), ("b", later)]
    with pytest.raises(SchemaError, match=r"unit 'b': column 'n' is .* leave it out"):
        units_of(tables, "y", ["n"])


def test_networks_learn_where_a_class_has_a_single_sample():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 2)).astype(np.float32)
    learner = factory("mlp", "y", None, numbers=False)(0)
    learner.fit(Samples(x=x, y=[2] + [0, 1] * 29 + [0]))
    assert learner.annotate(Samples(x=x))["yhat"].shape == (60, 3)


def test_functions_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "users_models.py").write_text(
        "from sklearn.linear_model import Ridge\n"
        "def number(seed):\n    return Ridge()\n"
        "def broken(seed):\n    raise ValueError('no weights')\n"
        "def lacking(seed):\n    import no_such_module_here\n"
        "text = 'no function'\n"
    )
    monkeypatch.chdir(tmp_path)
    for name, kind, says in (
        ("number", SettingError, "is a regressor; give --regression"),
        ("broken", ModelError, "failed with the seed 0: ValueError: no weights"),
        ("lacking", ModelError, "there is no module 'no_such_module_here'; install it"),
        ("text", ModelError, "expected a function from a seed to a model"),
    ):
        with pytest.raises(kind, match=says):
            factory(f"users_models:{name}", "y", None, numbers=False)
    assert factory("users_models:number", "y", None, numbers=True)(0).kind == "regressor"
