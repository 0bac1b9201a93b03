"""Encoders: any function from inputs to vectors as the space that samples are compared in.

`Encoder` makes the column of vectors; `Encoded` adds it to what a learner annotates, so that it
follows the model through the daily loop. `memento.integrations.torch_encoder` makes encoders of
PyTorch's modules and of their layers. `SlicedWasserstein.of_vectors` compares batches by them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from memento import arguments
from memento.errors import ModelError, SchemaError, reason_of
from memento.learner import Checkpointable, Learner, checkpointable, label_of
from memento.samples import Samples

__all__ = ["Encoded", "Encoder"]


@arguments.checked
class Encoder:
    """A function from inputs to vectors, as a column.

    Args:
        function: From ``(m, ...)`` inputs to ``(m, ...)`` numbers, of which further axes are
            flattened.
        version: Says which function it is: equal ones give equal vectors. Or a function that says
            it, where that changes.
        inputs: Column of the inputs.
        column: Column of the vectors.
        rows: Inputs that are encoded at once.

    Example:
        >>> encoder = Encoder(lambda x: x.mean(axis=1, keepdims=True), version="mean")
        >>> encoder.add(Samples(x=[[1.0, 3.0], [5.0, 5.0]]))["z"]
        array([[2.],
               [5.]])
    """

    def __init__(
        self,
        function: Callable[[np.ndarray], Any],
        version: str | Callable[[], str],
        inputs: arguments.Column = "x",
        column: arguments.Column = "z",
        rows: arguments.Count = 4096,
    ) -> None:
        if not callable(version):
            words = "a text, such as 'pca-16 of January', that tells this encoder from others"
            arguments.require("version", version, arguments.text(words))
        self._function, self._version, self._rows = function, version, rows
        self.inputs, self.column = inputs, column

    @property
    def version(self) -> str:
        """Which function it is now, for `Memory.model` and checkpoints.

        Raises:
            ModelError: The function that says it gives no text.
        """
        found = self._version() if callable(self._version) else self._version
        if not isinstance(found, str):
            raise ModelError(
                f"the encoder's version gives {arguments.shown(found)}; expected a text, such as "
                "str(...) of it"
            )
        return found

    def encode(self, inputs: np.ndarray) -> np.ndarray:
        """``(n, d)`` vectors of ``(n, ...)`` inputs.

        Raises:
            ModelError: The function fails, or gives something else than finite numbers, a row of
                one width each.
        """
        try:
            inputs = np.asarray(inputs)
        except ValueError as error:
            raise SchemaError(f"inputs are no array: {error}") from error
        if not inputs.ndim:
            raise SchemaError(f"inputs are {arguments.shown(inputs)}; expected (n, ...)")
        made = [self._part(inputs[i : i + self._rows]) for i in range(0, len(inputs), self._rows)]
        widths = {part.shape[1] for part in made}
        if len(widths) > 1:
            raise ModelError(
                f"the encoder gives vectors of {' and '.join(map(str, sorted(widths)))} numbers "
                f"for parts of {self._rows:,} inputs; expected one width for all"
            )
        return np.concatenate(made) if made else self._part(inputs)

    def _part(self, inputs: np.ndarray) -> np.ndarray:
        """Vectors of some inputs, checked."""
        try:
            found = np.asarray(self._function(inputs))
        except Exception as error:  # whatever a function of the user's may raise
            raise ModelError(
                f"the encoder failed on inputs of shape {inputs.shape}: {reason_of(error)}"
            ) from error
        if found.dtype.kind not in "biuf" or found.ndim < 2 or len(found) != len(inputs):
            raise ModelError(
                f"the encoder gives {found.dtype} of shape {found.shape} for {len(inputs):,} "
                "inputs; expected a row of numbers for each"
            )
        if not np.isfinite(found).all():
            raise ModelError("the encoder gives NaN or infinite values; scale its inputs")
        return found.reshape(len(found), int(np.prod(found.shape[1:])))

    def add(self, samples: Samples) -> Samples:
        """Samples with their vectors.

        Raises:
            SchemaError: The column of inputs is missing.
            ModelError: As for `encode`.
        """
        return samples.with_columns({self.column: self.encode(self._inputs_of(samples))})

    def _inputs_of(self, samples: Mapping[str, Any]) -> np.ndarray:
        if self.inputs not in samples:
            raise SchemaError(
                f"no column {self.inputs!r} (the inputs of the encoder) among {sorted(samples)}"
            )
        return np.asarray(samples[self.inputs])


@arguments.checked
class Encoded:
    """A learner whose annotations have an encoder's vectors, too.

    Predictions, and vectors of an encoder that is a layer of the model, are made again for all that
    is held after each training, as the loop does it. A checkpoint says which encoder it is of.

    Args:
        learner: Any learner.
        encoder: Makes the column.

    Example:
        >>> from memento.testing import ConstantLearner
        >>> learner = Encoded(ConstantLearner(), Encoder(lambda x: x[:, :1], version="first"))
        >>> learner.fit(Samples(x=[[1.0, 2.0]], label=[1]))
        >>> "z" in learner.annotate(Samples(x=[[1.0, 2.0]]))
        True
    """

    def __init__(self, learner: Learner, encoder: Encoder) -> None:
        self.learner, self.encoder = learner, encoder

    @property
    def label(self) -> str:
        """Column of the labels that the learner learns."""
        return label_of(self.learner)

    @property
    def trained(self) -> bool:
        """Whether the learner is."""
        return self.learner.trained

    def fit(self, samples: Samples, weights: np.ndarray | None = None) -> None:
        """Train the learner."""
        self.learner.fit(samples, weights)

    def annotate(self, samples: Samples) -> dict[str, Any]:
        """What the learner says, and the vectors."""
        inputs = self.encoder._inputs_of(samples)
        return {**self.learner.annotate(samples), self.encoder.column: self.encoder.encode(inputs)}

    def state(self) -> dict[str, np.ndarray]:
        """The learner's, and which encoder it is.

        Raises:
            SettingError: The learner has none.
        """
        own = checkpointable(self.learner).state()
        return {**own, "encoder version": np.array([self.encoder.version])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Become what `state` described.

        Raises:
            ModelError: It is of another encoder.
        """
        rest = {name: array for name, array in state.items() if name != "encoder version"}
        if isinstance(self.learner, Checkpointable):
            self.learner.restore(rest)
        made = str(np.asarray(state.get("encoder version", [self.encoder.version]))[0])
        if made != self.encoder.version:
            raise ModelError(
                f"the state is of the encoder {made!r}, this one is {self.encoder.version!r}; use "
                "the same encoder, or begin anew"
            )
