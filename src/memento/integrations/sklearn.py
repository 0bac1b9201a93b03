"""scikit-learn: any classifier with ``predict_proba`` as a learner of the daily loop."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from memento.errors import MissingExtraError, ModelError, SchemaError, SettingError
from memento.learner import labels_of
from memento.samples import Samples

__all__ = ["SklearnLearner"]


class SklearnLearner:
    """Wraps a classifier; every fit trains a fresh clone of it.

    Args:
        estimator: A scikit-learn classifier with ``predict_proba`` (pipelines included); it is
            cloned, never changed.
        inputs: Column of the inputs, (n,) or (n, ...); further axes are flattened.
        label: Column of the labels, (n,) integers.
        classes: Labels are in ``[0, classes)``. Classes absent from a fit get the floor.
        floor: Share of the uniform distribution in a prediction, in [0, 1): many classifiers give
            probabilities of exactly 0, whose logarithm would swamp every mean.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        SettingError: The estimator cannot predict probabilities; a number out of its range.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> learner = SklearnLearner(LogisticRegression(), classes=3)
        >>> samples = Samples(x=[[0.0], [1.0], [2.0], [3.0]], y_bin=[0, 0, 2, 2])
        >>> learner.fit(samples)
        >>> learner.annotate(samples)["yhat"].argmax(axis=1)
        array([0, 0, 2, 2])
    """

    def __init__(
        self,
        estimator: Any,
        inputs: str = "x",
        label: str = "y_bin",
        classes: int = 21,
        *,
        floor: float = 1e-4,
    ) -> None:
        _import_sklearn()
        if not hasattr(estimator, "fit") or not hasattr(estimator, "predict_proba"):
            raise SettingError(
                f"{type(estimator).__name__} has no fit or no predict_proba; give a classifier "
                "with probabilities (SVC needs probability=True, or CalibratedClassifierCV around)"
            )
        if classes < 2:
            raise SettingError(f"classes={classes}; give at least 2")
        if not 0 <= floor < 1:
            raise SettingError(f"floor={floor}; give a number in [0, 1)")
        self.estimator = estimator
        self.inputs = inputs
        self.label = label
        self.classes = classes
        self.floor = floor
        self._fitted: Any = None

    @property
    def trained(self) -> bool:
        """Whether there was a fit, or a state restored."""
        return self._fitted is not None

    def fit(self, samples: Mapping[str, Any], weights: np.ndarray | None = None) -> None:
        """Train a clone of the estimator.

        Args:
            samples: Columns; inputs and label are read.
            weights: (n,) >= 0, or None.

        Raises:
            SchemaError: A column is missing; no rows.
            DomainError: Labels out of range.
            ModelError: Weights are given, but the estimator's ``fit`` takes no ``sample_weight``;
                or it refuses the samples.
        """
        sklearn = _import_sklearn()
        samples = Samples.borrow(samples)
        inputs, labels = self._inputs(samples), labels_of(samples, self.label, self.classes)
        if not len(labels):
            raise SchemaError("no samples to fit; give at least one row")
        fresh = sklearn.base.clone(self.estimator)
        options = {}
        if weights is not None:
            name = _weight_argument(fresh)
            if name is None:
                raise ModelError(
                    f"{type(fresh).__name__}.fit takes no sample_weight; use an estimator that "
                    "does, or fit without weights"
                )
            options[name] = np.asarray(weights, dtype=np.float64)
        try:
            fresh.fit(inputs, labels, **options)
        except ValueError as error:
            raise ModelError(f"{type(fresh).__name__} refuses the samples: {error}") from error
        self._fitted = fresh

    def annotate(self, samples: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Predict; and score the prediction where the label is known.

        Returns:
            yhat: (n, classes) float32, rows sum to 1.
            logscore: (n,) float32, ln of the probability of the label; only with a label column.
            loss: (n,) float32, ``-logscore``; likewise.

        Raises:
            ModelError: Nothing was fitted yet.
            SchemaError, DomainError: As for ``fit``.
        """
        if self._fitted is None:
            raise ModelError("the learner predicts nothing before its first fit; call fit first")
        samples = Samples.borrow(samples)
        inputs = self._inputs(samples)
        known = np.zeros((len(inputs), self.classes))
        if len(inputs):
            known[:, self._fitted.classes_.astype(np.int64)] = self._fitted.predict_proba(inputs)
        yhat = (1 - self.floor) * known + self.floor / self.classes
        columns = {"yhat": yhat.astype(np.float32)}
        if self.label in samples:
            labels = labels_of(samples, self.label, self.classes)
            with np.errstate(divide="ignore"):  # a floor of 0 means it
                logscore = np.log(yhat[np.arange(len(yhat)), labels]).astype(np.float32)
            columns["logscore"] = logscore
            columns["loss"] = -logscore
        return columns

    def state(self) -> dict[str, np.ndarray]:
        """What was fitted, as numeric arrays; nothing before the first fit.

        Possible where an estimator's fitted attributes are numbers and arrays (linear models,
        naive Bayes, discriminant analysis); trees and ensembles hold objects that only pickling
        could keep, and unpickling runs whatever code a file holds.

        Raises:
            ModelError: The estimator holds something else.
        """
        if self._fitted is None:
            return {}
        state = {}
        for name, value in _learned(self._fitted).items():
            try:
                array = np.asarray(value)
            except ValueError:  # a list of arrays of several shapes
                array = np.asarray(None)
            if array.dtype.kind not in "biuf":
                raise self._unkept(f"{type(value).__name__} in {name!r}")
            state[name] = array.copy()
        if "classes_" not in state:
            raise self._unkept("what it learned inside other estimators")
        return state

    def _unkept(self, what: str) -> ModelError:
        return ModelError(
            f"{type(self._fitted).__name__} keeps {what}, which cannot be stored as numbers; for "
            "checkpoints use a linear model, naive Bayes or TorchLearner, or fit again from the "
            "memory after loading"
        )

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a state; the learner needs the settings of the one that gave it.

        Raises:
            ModelError: What was restored cannot predict.
        """
        sklearn = _import_sklearn()
        if not state:
            self._fitted = None
            return
        if "classes_" not in state:
            raise ModelError(
                f"the state holds {sorted(state)} but no 'classes_'; restore what state() gave"
            )
        fresh = sklearn.base.clone(self.estimator)
        for name, value in state.items():
            array = np.array(value)
            setattr(fresh, name, array if array.ndim else array.item())
        try:
            fresh.predict_proba(np.zeros((1, int(fresh.n_features_in_))))
        except Exception as error:
            raise ModelError(
                f"the state does not fit {type(fresh).__name__} ({error}); build the learner with "
                "the same estimator"
            ) from error
        self._fitted = fresh

    def _inputs(self, samples: Samples) -> np.ndarray:
        if self.inputs not in samples:
            raise SchemaError(f"no column {self.inputs!r} (the inputs) among {sorted(samples)}")
        inputs = samples[self.inputs]
        return inputs.reshape(len(inputs), -1) if len(inputs) else inputs


def _import_sklearn() -> Any:
    try:
        import sklearn.base
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "sklearn", "SklearnLearner") from error
    return sklearn


def _weight_argument(estimator: Any) -> str | None:
    """The name under which an estimator takes sample weights; a pipeline's last step has them."""
    steps = getattr(estimator, "steps", None)
    if steps:
        name, last = steps[-1]
        return f"{name}__sample_weight" if _weight_argument(last) else None
    return (
        "sample_weight" if "sample_weight" in inspect.signature(estimator.fit).parameters else None
    )


def _learned(estimator: Any) -> dict[str, Any]:
    """Attributes that a fit has set; an estimator's own settings are not among them."""
    settings = estimator.get_params(deep=False)
    return {name: value for name, value in vars(estimator).items() if name not in settings}
