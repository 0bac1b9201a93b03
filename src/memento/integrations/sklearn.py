"""scikit-learn: any classifier or regressor as a learner of the daily loop."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from memento import arguments
from memento.errors import (
    DomainError,
    ModelError,
    SchemaError,
    SettingError,
    needs,
    reason_of,
    warn,
)
from memento.learner import known_labels, numbers_of, weights_of
from memento.samples import Samples

__all__ = ["SklearnLearner", "archive_of_state", "state_of_archive"]

# Labels 0, 1, 2 ... up to this are the columns of their own number.
_COUNTED = 255
# Whose classes a checkpoint may name, and whose functions, beside those that skops trusts.
_CLASSES = ("sklearn", "numpy", "scipy")
_FUNCTIONS = ("sklearn.feature_selection.", "sklearn.metrics.", "sklearn.cluster.")


@arguments.checked
class SklearnLearner:
    """Wraps an estimator; every fit trains a fresh clone of it.

    Of a classifier the predictions are probabilities: those of ``predict_proba``; or, without it,
    the logistic function (two classes) or softmax (more) of ``decision_function``; or, without
    both, all for the class that ``predict`` names. Rows whose label is missing (NaN, an empty
    text) are left out of a fit. Where there are labels of one class only, that class is what is
    predicted, whatever the estimator.

    Args:
        estimator: A scikit-learn classifier or regressor of one output: pipelines, searches and
            ensembles included. It is cloned, never changed.
        label: Column of the labels, (n,): integers, bools or texts; for a regressor numbers. Where
            a fit finds no such column, but a single one whose name goes on with ``_...``, it is
            that one from then on, and a warning says so.
        inputs: Column of the inputs, (n,) or (n, ...); further axes are flattened.
        classes: A number k, for labels in ``[0, k)``, or all labels in the order of the columns of
            ``yhat``. None: those found. Then integers up to 255 are the columns of their own
            number; other labels are in ascending order, and what is found later is appended.
        floor: Share of the uniform distribution in a prediction, in [0, 1): many classifiers give
            probabilities of exactly 0, whose logarithm would swamp every mean. A class that the
            estimator has not seen has this share only.

    Attributes:
        classes_: ``(k,)`` labels, one a column of ``yhat``; None before the first fit, and for a
            regressor.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        SettingError: Neither a classifier nor a regressor of one output; a number out of its range.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> learner = SklearnLearner(LogisticRegression())
        >>> samples = Samples(x=[[0.0], [1.0], [2.0], [3.0]], y=["fine", "fine", "fraud", "fraud"])
        >>> learner.fit(samples)
        >>> learner.classes_, learner.annotate(samples)["yhat"].argmax(axis=1)
        (array(['fine', 'fraud'], dtype='<U5'), array([0, 0, 1, 1]))
    """

    def __init__(
        self,
        estimator: Any,
        label: str = "y",
        inputs: str = "x",
        classes: int | Sequence[Any] | None = None,
        *,
        floor: float = 1e-4,
    ) -> None:
        _import_sklearn()
        self._kind = _kind_of(estimator)
        arguments.require("label", label, arguments.text())
        arguments.require("inputs", inputs, arguments.text())
        share = arguments.number(0, float(np.nextafter(1, 0)), words="a number in [0, 1)")
        arguments.require("floor", floor, share)
        self.estimator = estimator
        self.label = label
        self.inputs = inputs
        self.classes = classes
        self.floor = float(floor)
        self.classes_: np.ndarray | None = _given(classes)
        self._fitted: Any = None
        self._warned = False

    @property
    def kind(self) -> Literal["classifier", "regressor"]:
        """What the estimator is."""
        return self._kind

    @property
    def trained(self) -> bool:
        """Whether there was a fit, or a state restored."""
        return self._fitted is not None

    def fit(self, samples: Mapping[str, Any], weights: np.ndarray | None = None) -> None:
        """Train a clone of the estimator on the rows that have a label.

        Args:
            samples: Columns; inputs and label are read.
            weights: (n,) >= 0, or None. An estimator that takes none is fitted without, which a
                warning says once.

        Raises:
            SchemaError: A column is missing, or of another kind; no row has a label.
            DomainError: Labels that are not among the classes given; or that are not finite.
            ModelError: The estimator refuses the samples.
        """
        samples = Samples.borrow(samples)
        self._find_label(samples)
        rows, labels = self._labels(samples)
        inputs = self._inputs(samples)
        if not len(rows):
            raise SchemaError(
                f"no samples to fit: none of {samples.size:,} has a label in column {self.label!r}"
            )
        if len(rows) < samples.size:
            inputs = inputs[rows]
        if weights is not None:
            weights = weights_of(weights, samples.size)[rows]
        classes = self.classes_
        if self._kind == "classifier":
            classes = _extended(self.classes_, labels, self.label, self.classes)
        self._fitted = self._fresh(inputs, labels, weights)
        self.classes_ = classes

    def annotate(self, samples: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Predict; and score the prediction where the label is known.

        Returns:
            yhat: (n, classes) float32, rows sum to 1; of a regressor (n,) float64.
            logscore: (n,) float32, ln of the probability of the label; only with a label column,
                NaN where a label is missing, and not of a regressor.
            loss: (n,), ``-logscore``; of a regressor the absolute error; likewise.

        Raises:
            ModelError: Nothing was fitted yet, or the estimator refuses the inputs.
            SchemaError, DomainError: As for ``fit``.
        """
        if self._fitted is None:
            raise ModelError("the learner predicts nothing before its first fit; call fit first")
        samples = Samples.borrow(samples)
        inputs = self._inputs(samples)
        rows, labels = self._labels(samples) if self.label in samples else (None, None)
        if self._kind == "regressor":
            with _as_model_error(self._fitted, "inputs"):
                predicted = self._fitted.predict(inputs) if len(inputs) else np.empty(0)
            yhat = np.asarray(predicted, np.float64).reshape(len(inputs))
            columns = {"yhat": yhat}
            if rows is not None:
                columns["loss"] = np.full(len(yhat), np.nan)
                columns["loss"][rows] = np.abs(yhat[rows] - labels)
            return columns
        probabilities = self._probabilities(inputs)
        columns = {"yhat": probabilities.astype(np.float32)}
        if rows is not None and labels is not None:
            columns["logscore"] = np.full(len(inputs), np.nan, np.float32)
            columns["logscore"][rows] = self._logscores(probabilities[rows], labels)
            columns["loss"] = -columns["logscore"]
        return columns

    def check_checkpoint(self) -> None:
        """Raise if the estimator cannot be kept in a checkpoint; before anything is computed.

        Raises:
            MissingExtraError: skops is not installed.
            ModelError: The estimator has parts that are not scikit-learn's, numpy's or scipy's:
                they could only be pickled, and unpickling runs whatever code a file holds.
        """
        _stored(self.estimator)

    def state(self) -> dict[str, np.ndarray]:
        """What was fitted, by skops, as bytes; nothing before the first fit.

        Raises:
            MissingExtraError, ModelError: As for `check_checkpoint`.
        """
        if self._fitted is None:
            return {}
        state = _stored(self._fitted)
        if self.classes_ is not None:
            state["classes"] = self.classes_
        state["label"] = np.array([self.label])
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a state; the learner needs the settings of the one that gave it.

        Raises:
            MissingExtraError: skops is not installed.
            ModelError: It is no state of such an estimator.
        """
        if not state:
            self._fitted, self.classes_ = None, _given(self.classes)
            return
        fitted = _loaded(state)
        from sklearn.dummy import DummyClassifier

        if type(fitted) not in (type(self.estimator), DummyClassifier):
            raise ModelError(
                f"the state is of a {type(fitted).__name__}, this learner of a "
                f"{type(self.estimator).__name__}; build it with the same estimator"
            )
        self._fitted = fitted
        if "label" in state:
            self.label = str(np.asarray(state["label"])[0])
        self.classes_ = np.array(state["classes"]) if "classes" in state else None

    def _find_label(self, samples: Samples) -> None:
        """Take labels from ``y_class``, say, where they are sought in ``y`` and there is none."""
        alike = [
            name
            for name, column in samples.items()
            if name.startswith(f"{self.label}_") and column.ndim == 1
        ]
        if self.label not in samples and len(alike) == 1:
            warn(
                f"no column {self.label!r}: labels are taken from {alike[0]!r}; name it, as in "
                f"SklearnLearner(..., label={alike[0]!r})"
            )
            self.label = alike[0]

    def _labels(self, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        """Rows that have a label, and these labels."""
        labelled = numbers_of if self._kind == "regressor" else known_labels
        return labelled(samples, self.label)

    def _inputs(self, samples: Samples) -> np.ndarray:
        if self.inputs not in samples:
            raise SchemaError(f"no column {self.inputs!r} (the inputs) among {sorted(samples)}")
        inputs = samples[self.inputs]
        return inputs.reshape(len(inputs), -1) if len(inputs) else inputs

    def _fresh(self, inputs: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> Any:
        """A fitted clone."""
        import sklearn.base
        from sklearn.dummy import DummyClassifier

        def fitted(**options: Any) -> Any:
            fresh = sklearn.base.clone(self.estimator)
            fresh.fit(inputs, labels, **options)
            return fresh

        if self._kind == "classifier" and (labels == labels[0]).all():
            return DummyClassifier(strategy="most_frequent").fit(np.zeros((len(labels), 1)), labels)
        if weights is not None:
            name = _weight_argument(self.estimator)
            try:
                if name is not None:
                    return fitted(**{name: weights})
            except (TypeError, ValueError):
                pass  # many that hand weights on find out late that the inner one takes none
        with _as_model_error(self.estimator, "samples"):
            unweighted = fitted()
        if weights is not None and not self._warned:
            self._warned = True
            warn(
                f"{type(self.estimator).__name__} takes no sample_weight: it is fitted without the "
                "memory's weights; pass run(..., weighted=False), or use an estimator that does"
            )
        return unweighted

    def _probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """``(n, k)`` float64, with the floor, a column for each of ``classes_``."""
        classes = self.classes_
        assert classes is not None  # set by every fit
        known = np.zeros((len(inputs), len(classes)))
        if len(inputs):
            with _as_model_error(self._fitted, "inputs"):
                scores = _scores(self._fitted, inputs)
            known[:, _columns_of(self._fitted.classes_, classes)] = scores
        return (1 - self.floor) * known + self.floor / len(classes)

    def _logscores(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        classes = self.classes_
        assert classes is not None
        columns = _columns_of(labels, classes)
        chosen = probabilities[np.arange(len(labels)), columns]
        # A class that was never learned: nothing but the floor speaks for it.
        chosen = np.where(columns < 0, self.floor / len(classes), chosen)
        with np.errstate(divide="ignore"):  # a floor of 0 means it
            logscores: np.ndarray = np.log(chosen).astype(np.float32)
        return logscores


def _import_sklearn() -> Any:
    with needs("scikit-learn", "sklearn", "SklearnLearner"):
        import sklearn.base
    return sklearn


def _import_skops() -> Any:
    with needs("skops", "sklearn", "a checkpoint of SklearnLearner"):
        import skops.io
    return skops.io


def _kind_of(estimator: Any) -> Literal["classifier", "regressor"]:
    """Whether an estimator is a classifier or a regressor.

    Raises:
        SettingError: It is neither, or cannot be cloned.
    """
    from sklearn import base, multioutput

    name = type(estimator).__name__
    if isinstance(estimator, type) or not hasattr(estimator, "fit"):
        raise SettingError(f"estimator is {estimator!r}; expected a scikit-learn estimator")
    if not hasattr(estimator, "get_params"):
        raise SettingError(
            f"{name} cannot be cloned (it has no get_params); derive it from "
            "sklearn.base.BaseEstimator"
        )
    several = ("MultiOutputClassifier", "MultiOutputRegressor", "ClassifierChain", "RegressorChain")
    if isinstance(estimator, tuple(getattr(multioutput, kind) for kind in several)):
        raise SettingError(f"{name} predicts several outputs; give an estimator of one")
    try:
        if base.is_regressor(estimator):
            return "regressor"
        proves = any(hasattr(estimator, how) for how in ("predict_proba", "decision_function"))
        if base.is_classifier(estimator) or (proves and not base.is_outlier_detector(estimator)):
            return "classifier"
    except AttributeError as error:  # a meta-estimator around nothing, say
        raise SettingError(f"{name} does not say what it is: {error}") from error
    raise SettingError(f"{name} is neither a classifier nor a regressor; give one of these")


def _given(classes: int | Sequence[Any] | None) -> np.ndarray | None:
    """The classes that a learner is built with."""
    if classes is None:
        return None
    if isinstance(classes, (int, np.integer)) and not isinstance(classes, bool):
        if classes < 2:
            raise SettingError(
                f"classes is {classes}; expected at least 2, or None for those found"
            )
        return np.arange(int(classes))
    named = np.asarray(classes)
    if named.ndim != 1 or named.dtype.kind not in "biuUS" or len(np.unique(named)) != len(named):
        raise SettingError(
            f"classes is {classes!r}; expected a number, a list of different labels, or None"
        )
    return named.astype(np.int64) if named.dtype.kind == "b" else named


def _extended(
    classes: np.ndarray | None, labels: np.ndarray, column: str, given: Any
) -> np.ndarray:
    """The classes known after labels were seen: those before keep their columns."""
    present = np.unique(labels)
    counted = present.dtype.kind in "iu" and present[0] >= 0 and present[-1] <= _COUNTED
    if classes is None:
        return np.arange(int(present[-1]) + 1) if counted else present
    if (classes.dtype.kind in "US") != (present.dtype.kind in "US"):
        raise SchemaError(
            f"column {column!r} holds {present.dtype}, the classes so far are {classes.dtype}"
        )
    new = present[_columns_of(present, classes) < 0]
    if not len(new):
        return classes
    if given is not None:
        raise DomainError(
            f"column {column!r} holds {new[0].item()!r}, which is not among the {len(classes)} "
            "classes given; build the learner with more, or with none to have them found"
        )
    if counted and np.array_equal(classes, np.arange(len(classes))):
        return np.arange(int(present[-1]) + 1)
    return np.concatenate([classes, new])


def _columns_of(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """``(n,)`` column of each label, -1 for those that have none."""
    order = np.argsort(classes, kind="stable")
    at = np.minimum(np.searchsorted(classes[order], labels), len(classes) - 1)
    columns: np.ndarray = np.where(classes[order][at] == labels, order[at], -1)
    return columns


def _scores(fitted: Any, inputs: np.ndarray) -> np.ndarray:
    """``(n, k)`` probabilities of the classes of a fitted classifier."""
    size = len(fitted.classes_)
    scores = None
    if hasattr(fitted, "predict_proba"):
        scores = np.asarray(fitted.predict_proba(inputs), np.float64)
    elif hasattr(fitted, "decision_function"):
        margins = np.asarray(fitted.decision_function(inputs), np.float64)
        if margins.ndim == 1:
            margins = np.stack([np.zeros(len(margins)), margins], axis=1)
        if margins.shape[1] == size:
            margins = np.exp(margins - margins.max(axis=1, keepdims=True))
            scores = margins / margins.sum(axis=1, keepdims=True)
    if scores is None:
        return (np.asarray(fitted.predict(inputs))[:, None] == fitted.classes_).astype(np.float64)
    if scores.shape != (len(inputs), size):
        raise ValueError(f"predictions have the shape {scores.shape} for {size} classes")
    totals = scores.sum(axis=1, keepdims=True)
    sound = np.isfinite(scores).all(axis=1, keepdims=True) & (totals > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Nothing is known of an input where an estimator gives no number for it.
        return np.where(sound, scores / totals, 1 / size)


@contextmanager
def _as_model_error(estimator: Any, what: str) -> Iterator[None]:
    """Errors of an estimator are of many kinds; all say that it does not take these samples."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = reason_of(error)
        raise ModelError(f"{type(estimator).__name__} refuses the {what}: {reason}") from error


def _weight_argument(estimator: Any) -> str | None:
    """The name under which an estimator takes sample weights; a pipeline's last step has them."""
    steps = getattr(estimator, "steps", None)
    if steps:
        name, last = steps[-1]
        inner = _weight_argument(last)
        return f"{name}__{inner}" if inner else None
    parameters = inspect.signature(estimator.fit).parameters
    if "sample_weight" in parameters:
        return "sample_weight"
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        inner = getattr(estimator, "estimator", None)  # a search hands on what it is given
        return "sample_weight" if inner is None else _weight_argument(inner)
    return None


def _stored(estimator: Any) -> dict[str, np.ndarray]:
    """The files of skops, as bytes: equal for equal estimators."""
    skops = _import_skops()
    name = type(estimator).__name__
    with _as_model_error(estimator, "checkpoint"):
        data = skops.dumps(estimator)
        foreign = [kind for kind in skops.get_untrusted_types(data=data) if not _trusted(kind)]
    if foreign:
        raise ModelError(
            f"{name} holds {', '.join(foreign[:3])}, which a checkpoint could keep only as code; "
            "build it from parts of scikit-learn, or run without checkpoint"
        )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read("schema.json"))
        files = {
            name: _without_padding(archive.read(name))
            for name in archive.namelist()
            if name != "schema.json"
        }
    # Objects and files are called by where they lay in memory: call them by order and content.
    nodes = list(_nodes(schema))
    shared = {node.get("__id__") for node in nodes if node.get("__loader__") == "CachedNode"}
    numbers: dict[Any, int] = {}
    state = {}
    for count, node in enumerate(nodes):
        if "__id__" in node:
            identity = node["__id__"]
            node["__id__"] = numbers.setdefault(identity, count) if identity in shared else count
        if node.get("file") in files:
            content = files[node["file"]]
            ending = node["file"].rpartition(".")[2]
            node["file"] = f"{hashlib.sha256(content).hexdigest()[:32]}.{ending}"
            state[f"file/{node['file']}"] = np.frombuffer(content, np.uint8)
    state["schema"] = np.frombuffer(json.dumps(schema).encode(), np.uint8)
    return state


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """The mappings in a JSON value, in order."""
    if isinstance(node, dict):
        yield node
    if isinstance(node, (dict, list)):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _nodes(item)


def _without_padding(content: bytes) -> bytes:
    """An .npy file whose bytes between fields, which can be anything, are 0; others as they are."""
    if not content.startswith(b"\x93NUMPY"):
        return content
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if not array.dtype.names:
        return content
    clean = np.zeros(array.shape, array.dtype)
    for name in array.dtype.names:
        clean[name] = array[name]
    buffer = io.BytesIO()
    np.save(buffer, clean, allow_pickle=False)
    return buffer.getvalue()


def _loaded(state: Mapping[str, np.ndarray]) -> Any:
    """The estimator that `_stored` gave."""
    skops = _import_skops()
    if "schema" not in state:
        raise ModelError(
            f"the state holds {sorted(state)[:5]} and no 'schema'; restore what state() gave"
        )
    data, _ = archive_of_state(state)
    try:
        kinds = skops.get_untrusted_types(data=data)
        return skops.loads(data, trusted=[kind for kind in kinds if _trusted(kind)])
    except MemoryError:
        raise
    except Exception as error:
        reason = reason_of(error)
        raise ModelError(
            f"the state cannot be read ({reason}); it was made by another version of "
            "scikit-learn, or is damaged"
        ) from error


@arguments.checked
def archive_of_state(
    state: Mapping[str, np.ndarray],
) -> tuple[bytes | None, dict[str, np.ndarray]]:
    """What skops made of an estimator as one file that ``skops.io.load`` reads.

    Args:
        state: Of a `SklearnLearner`, or of any other learner.

    Returns:
        The file (None: there is nothing of skops), the same bytes every time; and other arrays.
    """
    ours = {n: a for n, a in state.items() if n == "schema" or n.startswith("file/")}
    rest = {n: np.asarray(a) for n, a in state.items() if n not in ours}
    if "schema" not in ours or np.asarray(ours["schema"]).dtype != np.uint8:
        return None, {n: np.asarray(a) for n, a in state.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in sorted(ours.items()):
            file = "schema.json" if name == "schema" else name.removeprefix("file/")
            archive.writestr(zipfile.ZipInfo(file), np.asarray(content).tobytes())
    return buffer.getvalue(), rest


@arguments.checked
def state_of_archive(data: bytes) -> dict[str, np.ndarray]:
    """The arrays from which `archive_of_state` made a file.

    Raises:
        ModelError: It is no such file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {
                "schema" if name == "schema.json" else f"file/{name}": np.frombuffer(
                    archive.read(name), np.uint8
                )
                for name in archive.namelist()
            }
    except MemoryError:
        raise
    except Exception as error:  # of zipfile and its decoders, of many kinds
        raise ModelError(f"this is no stored estimator ({reason_of(error)})") from error


def _trusted(kind: str) -> bool:
    """Whether a name in a checkpoint is a class of scikit-learn, numpy or scipy."""
    module, _, name = kind.rpartition(".")
    if module.partition(".")[0] not in _CLASSES:
        return False
    try:
        named = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return False
    return isinstance(named, type) or kind.startswith(_FUNCTIONS)
