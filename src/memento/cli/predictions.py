"""Whose predictions a memory holds: a model's that was named with --model, or those of files."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from memento.cli import models, settings, ui
from memento.cli.options import ModelOptions
from memento.errors import ModelError, SchemaError, SettingError
from memento.memory import Memory
from memento.missing import lacking, without_gaps
from memento.observe import retrained
from memento.samples import Samples
from memento.scores import class_losses, classes_of

__all__ = [
    "SEVERAL",
    "Prediction",
    "attached",
    "check_models",
    "given_in_files",
    "joined",
    "load",
    "prediction",
]

#: Stands for the model where predictions of several are held side by side.
SEVERAL = "several"


@dataclass(frozen=True)
class Prediction:
    """A model, and what it reads and writes.

    Attributes:
        predictor: The model.
        inputs: Column that it reads.
        column: Column that its output goes to.
        softmax: Whether the model gives logits.
        label: Column of the labels.
        loss: Column that losses go to; None: the policy reads none.
        learned: What the model was trained on, as far as it is known.
    """

    predictor: models.Predictor
    inputs: str
    column: str
    softmax: bool
    label: str = "y"
    loss: str | None = None
    learned: Samples | None = None

    @property
    def columns(self) -> list[str]:
        """Columns that it writes."""
        return [self.column] if self.loss is None else [self.column, self.loss]

    def add(self, samples: Samples) -> Samples:
        """Samples with predictions, and with losses where the policy reads them.

        Raises:
            SchemaError: They lack the inputs, or these are no numbers.
            ModelError: The model fails on them.
        """
        if self.inputs not in samples:
            raise SchemaError(
                f"column {self.inputs!r}, which --model reads, is missing; there are "
                f"{', '.join(map(repr, samples))}; name another with --inputs, or stack columns "
                f"with --map '{self.inputs}=f_*'"
            )
        inputs = samples[self.inputs]
        if inputs.dtype.kind not in "biuf":
            raise SchemaError(
                f"column {self.inputs!r} is of type {inputs.dtype}; --model reads numbers"
            )
        outputs = self.predictor.predict(inputs, softmax=self.softmax)
        if self.loss is None:
            return samples.with_columns({self.column: outputs})
        losses = np.full(samples.size, np.nan)
        if self.label in samples:
            known = None if self.learned is None else self.learned.get(self.label)
            losses = class_losses(samples[self.label], outputs, known)
        return samples.with_columns({self.column: outputs, self.loss: losses})

    def add_to_given(self, samples: Samples) -> Samples:
        """The same for samples of a file, whose own losses stay.

        Raises:
            SchemaError: The policy reads losses, and there is no label to make them of.
            ModelError: The model fails on them.
        """
        if self.loss is None:
            return self.add(samples)
        given = samples.get(self.loss)
        if given is None and self.label not in samples:
            raise SchemaError(
                f"the policy reads {self.loss!r}, which --model makes with the label "
                f"{self.label!r}; there are {', '.join(map(repr, samples))}: put one of the two "
                f"into the file (empty where it is not known yet), or rename one with "
                f"--map {self.label}=SOURCE"
            )
        made = self.add(samples)
        if given is None:
            return made
        losses = np.where(lacking(given), made[self.loss], given)
        return made.with_columns({self.loss: losses})

    def again(self, memory: Memory, *, always: bool = False) -> None:
        """Bring predictions that are held, and the reference's, up to date: all of one model.

        Args:
            memory: Changed only if nothing fails.
            always: Also if they are of this model already.

        Raises:
            ModelError: They have to be made again, and the inputs are not held.
        """
        predictor = self.predictor
        same = memory.model == predictor.digest
        trained = memory.reference_model in (None, predictor.digest)
        if same and trained and predictor.known and not always:
            return
        if len(memory):
            if same and not predictor.known:
                self._say_unknown(memory)
                if self.inputs not in memory.samples:
                    return
            held = self._of(memory.samples)
            reference = None if memory.reference is None else self._of(memory.reference)
            memory.annotate(held)
            if reference is not None:
                memory.annotate_reference(reference)
            self._recent_again(memory)
        memory.model = predictor.digest
        if memory.reference is not None:
            memory.reference_model = predictor.digest

    def _recent_again(self, memory: Memory) -> None:
        """The same for what came in lately and is kept apart for decisions."""
        if self.inputs not in memory.samples:
            _forget(memory)
        elif memory.recent is not None:
            recent = memory.recent.copy()
            recent.predict_again(self.add)
            memory.recent = recent

    def trained(self, memory: Memory) -> None:
        """Mark what is held as what this model was trained on."""
        own = replace(self, learned=memory.samples)
        own.again(memory)
        add = own.add if self.inputs in memory.samples else None
        retrained(memory, recent=add)
        own.say_whose_columns(memory.samples)

    def _of(self, samples: Samples) -> Samples:
        if self.inputs not in samples:
            raise ModelError(
                f"the predictions held are of another model and the memory holds no column "
                f"{self.inputs!r} to make them again; keep it with --columns from the first insert "
                "on"
            )
        return self.add(samples).select(self.columns)

    def say_whose_columns(self, samples: Samples) -> None:
        """Say so where the order of the model's columns is not known, or looks like another one.

        Args:
            samples: What the model was trained on, with its predictions.
        """
        if not {self.label, self.column} <= set(samples):
            return
        known = without_gaps(samples, [self.label, self.column])
        labels, outputs = known[self.label], known[self.column]
        if labels.dtype.kind not in "biufUS" or not known.size:
            return
        classes, width = classes_of(labels, outputs.shape[1]), outputs.shape[1]
        if classes is None:
            ui.warn(
                f"{self.predictor.name} gives {width} columns, and the {self.label!r} held is one "
                f"of {len(np.unique(labels))} labels, so whose columns these are is not known: "
                "losses are not, or count columns from 0. A model needs one column for each label "
                "that it was trained on, in ascending order, or those of whole numbers from 0"
            )
            return
        for column, label in enumerate(classes.tolist()):
            own = labels == label
            if not own.any() or own.all():
                continue
            mine, others = outputs[own, column], outputs[~own, column]
            error = np.sqrt(mine.var() / len(mine) + others.var() / len(others))
            if mine.mean() < others.mean() - max(0.05, 5 * error):
                ui.warn(
                    f"{self.predictor.name}: column {column} is taken for the label {label!r}, "
                    f"whose samples have {mine.mean():.2f} there, and the others "
                    f"{others.mean():.2f}, although it was trained on them; columns are those of "
                    "the labels in ascending order, or of whole numbers from 0"
                )
                return

    def _say_unknown(self, memory: Memory) -> None:
        what = (
            "all predictions held are made again"
            if self.inputs in memory.samples
            else f"it is taken for the same one, as no {self.inputs!r} is held to predict from"
        )
        ui.say(
            f"memento: whether {self.predictor.name} is still the model that made the predictions "
            f"held cannot be known from its code, so {what}; its module can state model_version, "
            "or name the files that it reads with --model-file",
            err=True,
        )


def prediction(
    memory: Memory, predictor: models.Predictor | None, options: ModelOptions
) -> Prediction | None:
    """How a model predicts for a memory; None without a model.

    Raises:
        SettingError: The policy compares no column of probabilities, or several, and none is named.
    """
    if predictor is None:
        return None
    policy, column = memory.policy, options.predictions
    loss = getattr(policy, "loss", None)
    if column is None:
        names = settings.predicted_columns(policy) or ["yhat"] * (loss is not None)
        if len(names) != 1:
            raise SettingError(
                f"the policy compares {len(names)} columns of probabilities; name the one for the "
                "model's output with --predictions"
            )
        (column,) = names
    label = next(iter(settings.label_columns(policy)), "y")
    return Prediction(
        predictor, options.inputs, column, options.softmax, label, loss, memory.reference
    )


def load(options: ModelOptions, name: str | None = None) -> models.Predictor | None:
    """The model of --model, if one is given.

    Args:
        options: What is given.
        name: Of --model-name.

    Raises:
        SettingError: Options that contradict each other.
    """
    if options.model is None:
        if options.model_file:
            raise SettingError("--model-file says what --model reads; give --model as well")
        return None
    if name is not None:
        raise SettingError(
            "--model-name names the model that made the predictions of a file, and --model makes "
            "them here; leave out one of the two"
        )
    return models.load_model(options.model, options.model_file or ())


def given_in_files(memory: Memory, columns: Collection[str], name: str | None) -> None:
    """Note whose the predictions are that an insert takes from its files; says what is assumed."""
    predicted = [c for c in settings.predicted_columns(memory.policy) if c in columns]
    if not predicted:
        return
    given = None if name is None else models.named(name)
    held = memory.model
    if len(memory) and given != held:
        _forget(memory)
    if not len(memory) or predicted[0] not in memory.samples:
        memory.model = given
    elif given is None and held is not None:
        how = "of several models" if held == SEVERAL else f"made by {_shown(held)}"
        ui.warn(
            f"the predictions held were {how}; those of this insert come from its files, and all "
            "should be of one model; say which with --model-name"
        )
        memory.model = SEVERAL if held == SEVERAL else None
    elif given != held:
        memory.model = joined(held, given)
        ui.warn(
            f"the predictions of this insert are of {name!r}, and those held of "
            f"{'an unnamed one' if held is None else _shown(held)}; make all of one model with "
            "memento memory annotate"
        )
    elif given is None and _just_trained(memory, predicted[0]):
        ui.say(
            "memento: the predictions of this insert are taken to be of the model that made those "
            "held; if another one was trained meanwhile, bring those held up to date with "
            "memento memory annotate, and name models with --model-name",
            err=True,
        )


def attached(
    memory: Memory, columns: Collection[str], name: str | None, *, reference: bool
) -> None:
    """Note whose the predictions are that a file gave to all that is held."""
    if not any(column in columns for column in settings.predicted_columns(memory.policy)):
        return
    _forget(memory)
    memory.model = None if name is None else models.named(name)
    if reference:
        memory.reference_model = memory.model


def _forget(memory: Memory) -> None:
    """What came lately was predicted by another model, or may have been: it compares no more."""
    if memory.recent is not None:
        recent = memory.recent.copy()
        recent.forget()
        memory.recent = recent


def joined(first: str | None, second: str | None) -> str | None:
    """The model of predictions of two: theirs if it is one, else none, or `SEVERAL`."""
    if first == second:
        return first
    return None if first is None or second is None else SEVERAL


def check_models(memory: Memory, folder: object) -> None:
    """Refuse to compare predictions of different models: their difference is no news.

    Raises:
        ModelError: Those held and those of the last training are known to be of different models.
    """
    if not settings.predicted_columns(memory.policy) or memory.reference is None:
        return
    if joined(memory.model, memory.reference_model) == SEVERAL:
        raise ModelError(
            "the predictions held, and those of the last training, are of different models, whose "
            "difference would count as new; make all of them by one model: "
            f"memento memory annotate {folder} --model MODEL"
        )


def _shown(model: str) -> str:
    """A model as the user knows it."""
    name = model.removeprefix(models.named(""))
    if model == SEVERAL:
        return "several models"
    return repr(name) if name != model else f"the model {model[:12]} of --model"


def _just_trained(memory: Memory, column: str) -> bool:
    """Whether nothing came since the last training."""
    trained = memory.reference
    if trained is None or column not in trained:
        return False
    return np.array_equal(trained[column], memory.samples[column])
