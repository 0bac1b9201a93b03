"""Tables as streams: columns of any kind become inputs, and models are known by their names.

An encoder is fitted on the first unit alone, as whoever had begun then would have done it: numbers
and truth values are standardised, what is missing is the median with a column that says so, texts
are columns of 0 and 1 for what is frequent. Values that come up later are "other".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from memento import plugins
from memento.errors import (
    InputError,
    ModelError,
    SchemaError,
    SettingError,
    needs,
)
from memento.integrations.factory import made_learner
from memento.integrations.sklearn import SklearnLearner
from memento.learner import known_labels, numbers_of
from memento.samples import Samples

__all__ = ["MODELS", "Encoder", "factory", "units_of"]

_CATEGORIES = 30  # of a text; the rest are "other"
_ANNOTATED = {"x", "yhat", "loss", "logscore"}
_FARTHEST = 8.0  # deviations from the mean; more is cut

#: Models by name, and for what: classes, numbers or both.
MODELS = {
    "hgb": "classes and numbers",
    "logistic": "classes",
    "ridge": "numbers",
    "mlp": "classes and numbers",
}


class Encoder:
    """Columns of a table to one column of inputs.

    Args:
        columns: Of the first unit, by name: numbers, truth values, times and texts; ``(n,)``, or
            numbers ``(n, k)``.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        SchemaError: A column is of another kind, or there is none.

    Example:
        >>> first = {"age": np.array([1.0, 3.0]), "city": np.array(["a", "b"])}
        >>> Encoder(first).encode({"age": np.array([5.0]), "city": np.array(["b"])})
        array([[3., 0., 1.]], dtype=float32)
    """

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        with needs("scikit-learn", "sklearn", "encoding a table"):
            from sklearn.compose import ColumnTransformer
            from sklearn.impute import SimpleImputer
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import OneHotEncoder, StandardScaler
        if not columns:
            raise SchemaError("no column is left for the inputs; give a table that has some")
        if not len(next(iter(columns.values()))):
            raise SchemaError("the first unit has no rows to learn scales from; begin with another")
        self._texts = {name for name, column in columns.items() if column.dtype.kind in "US"}
        numbers = make_pipeline(
            SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
            StandardScaler(),
        )
        texts = OneHotEncoder(
            max_categories=_CATEGORIES,
            handle_unknown="infrequent_if_exist",
            sparse_output=False,
        )
        self._names = list(columns)
        self._widths = {n: int(np.prod(c.shape[1:], dtype=int)) for n, c in columns.items()}
        table = self._table(columns)
        places: dict[bool, list[int]] = {True: [], False: []}
        for name in self._names:
            taken = len(places[True]) + len(places[False])
            places[name in self._texts] += range(taken, taken + self._widths[name])
        self._transformer = ColumnTransformer(
            [("numbers", numbers, places[False]), ("texts", texts, places[True])],
            sparse_threshold=0,
        ).fit(table)
        self._width = self._transformer.transform(table[:1]).shape[1]

    def encode(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """``(n, d)`` float32, without missing values.

        Raises:
            SchemaError: A column is missing, or has another kind or width than at first.
        """
        table = self._table(columns)
        if not len(table):
            return np.empty((0, self._width), np.float32)
        encoded = self._transformer.transform(table)
        cut: np.ndarray = np.clip(np.asarray(encoded, np.float64), -_FARTHEST, _FARTHEST)
        return cut.astype(np.float32)

    def _table(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """``(n, k)`` objects, which are what scikit-learn takes for numbers beside texts."""
        parts = []
        for name in self._names:
            if name not in columns:
                raise SchemaError(
                    f"column {name!r} is missing, which the first unit has; leave it out of all"
                )
            column = columns[name]
            width = int(np.prod(column.shape[1:], dtype=int))
            if width != self._widths[name] or (column.dtype.kind in "US") != (name in self._texts):
                raise SchemaError(
                    f"column {name!r} is {column.dtype} of shape {column.shape}; in the first unit "
                    "it has another kind or width: make it the same in all, or leave it out"
                )
            parts.append(_plain(name, column).reshape(len(column), width).astype(object))
        return np.concatenate(parts, axis=1)


def _plain(name: str, column: np.ndarray) -> np.ndarray:
    """Numbers as float64 (times in days; infinite ones are missing), texts as they are."""
    if column.dtype.kind in "US" and column.ndim == 1:
        return column.astype(str)
    if column.dtype.kind in "mM":
        unit = "M8[us]" if column.dtype.kind == "M" else "m8[us]"
        known = ~np.isnat(column)
        days = np.full(column.shape, np.nan)
        days[known] = column[known].astype(unit).astype(np.int64) / 86_400e6
        return days
    if column.dtype.kind in "biuf":
        numbers = column.astype(np.float64)
        return np.where(np.isfinite(numbers), numbers, np.nan)
    raise SchemaError(
        f"column {name!r} holds {column.dtype} of shape {column.shape}; expected numbers, times or "
        "texts: leave it out, as in --inputs"
    )


def units_of(
    parts: Sequence[tuple[str, Samples]],
    label: str,
    inputs: Sequence[str],
    further: Sequence[str] = (),
    *,
    numbers: bool = False,
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Units of a stream from tables.

    Args:
        parts: Name and table of each unit, in order.
        label: Column of the labels; rows without one are left out.
        inputs: Columns that become ``x``.
        further: Columns that stay, such as of groups and clusters.
        numbers: Whether labels are numbers to predict; else classes.

    Returns:
        Name, and ``x`` ``(n, d)`` float32, the label and further columns.

    Raises:
        SchemaError: A column is missing, has another kind than in the first unit, or a name that
            models use.
        DomainError: Labels that are not finite.
    """
    taken = sorted({label, *further} & _ANNOTATED)
    if taken:
        raise SchemaError(
            f"a column is called {taken[0]!r}, as what models add is: rename it in the files"
        )
    encoder = Encoder({name: parts[0][1][name] for name in inputs})
    units = []
    for unit, table in parts:
        lacking = [name for name in (label, *further) if name not in table]
        if lacking:
            raise SchemaError(
                f"unit {unit!r} has no column {lacking[0]!r}; there are {', '.join(table)}"
            )
        try:
            rows, labels = (numbers_of if numbers else known_labels)(table, label)
            known = {name: table[name][rows] for name in (*inputs, *further) if name in table}
            x = encoder.encode(known)
        except InputError as error:
            raise type(error)(f"unit {unit!r}: {error}") from error
        units.append((unit, {"x": x, label: labels, **{name: known[name] for name in further}}))
    return units


def factory(model: str, label: str, classes: int | None, *, numbers: bool) -> Callable[[int], Any]:
    """What makes learners of a model, in other processes, too, for `memento.backtest`.

    Args:
        model: One of `MODELS`, or ``MODULE:FACTORY``, a function from a seed to an estimator or a
            learner; its module may lie in the working directory.
        label: Column of the labels.
        classes: How many there are, labels being 0, 1, ...; None: those found.
        numbers: Whether labels are numbers to predict.

    Raises:
        SettingError: There is no such model, or it predicts something else.
        ModelError: The user's function fails.
    """
    if ":" in model:
        made = partial(_named, model=model, label=label, classes=classes)
        kind = getattr(made(0), "kind", None)  # what cannot work fails before it is computed
        if kind is not None and (kind == "regressor") != numbers:
            raise SettingError(
                f"the model {model} is a {kind}; "
                + ("leave out --regression" if numbers else "give --regression")
            )
        return made
    if model not in MODELS:
        raise SettingError(
            f"there is no model {model!r}; give one of {', '.join(MODELS)}, or MODULE:FACTORY"
        )
    if (wanted := "numbers" if numbers else "classes") not in MODELS[model]:
        others = ", ".join(name for name, what in MODELS.items() if wanted in what)
        raise SettingError(f"the model {model!r} predicts {MODELS[model]}; give one of {others}")
    return partial(_make, model=model, label=label, classes=classes, numbers=numbers)


def _named(seed: int, *, model: str, label: str, classes: int | None) -> Any:
    """A learner of a function of the user's."""
    where = f"the model {model}"
    function = plugins.named(model, where)
    if not callable(function):
        raise ModelError(f"{where} is {function!r}; expected a function from a seed to a model")
    try:
        return made_learner(function, seed, label, where, classes=classes)
    except ModuleNotFoundError as error:
        raise ModelError(f"{where}: there is no module {error.name!r}; install it") from error


def _make(seed: int, *, model: str, label: str, classes: int | None, numbers: bool) -> Any:
    """A learner of a named model; a function of this module, which other processes can import."""
    from sklearn import ensemble, linear_model, neural_network

    # No early stopping: it holds samples back by class, and fails where a class has a single one.
    small = {"hidden_layer_sizes": (40, 40), "max_iter": 1000, "tol": 1e-3, "n_iter_no_change": 5}
    made: dict[tuple[str, bool], Callable[[], Any]] = {
        ("hgb", False): lambda: ensemble.HistGradientBoostingClassifier(
            max_iter=50, random_state=seed
        ),
        ("hgb", True): lambda: ensemble.HistGradientBoostingRegressor(
            max_iter=50, random_state=seed
        ),
        ("logistic", False): lambda: linear_model.LogisticRegression(max_iter=200),
        ("ridge", True): linear_model.Ridge,
        ("mlp", False): lambda: neural_network.MLPClassifier(random_state=seed, **small),
        ("mlp", True): lambda: neural_network.MLPRegressor(random_state=seed, **small),
    }
    return SklearnLearner(made[model, numbers](), label=label, classes=classes)
