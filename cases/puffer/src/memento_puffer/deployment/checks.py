"""What must hold before a network serves, or a sample is inserted by its predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from memento.errors import ModelError
from memento_puffer.deployment.deploy_settings import Gate
from memento_puffer.deployment.publish import is_sound
from memento_puffer.predictor.network import Network
from memento_puffer.predictor.transmission import CLASSES

__all__ = ["check_candidate", "check_predictions", "differences", "losses"]

_ROWS_CHECKED = 2048


def check_predictions(samples: Mapping[str, np.ndarray], network: Network) -> None:
    """Refuse samples whose predictions are not those of a network.

    A memory that compares predictions of different models, or of none that serves, selects by
    nothing; in the first deployment that went unnoticed for months.

    Args:
        samples: Columns ``x`` and ``yhat``; up to 2,048 rows of them, evenly spread, are predicted
            again in float64. They may differ by what single precision can make of these inputs and
            weights, see ``Network.rounding``.
        network: What serves.

    Raises:
        ModelError: Predictions are missing or differ.

    Example:
        >>> network = Network.fresh(seed=0)
        >>> x = np.random.default_rng(0).normal(size=(9, 62))
        >>> check_predictions({"x": x, "yhat": network.probabilities(x)}, network)
    """
    if "yhat" not in samples:
        raise ModelError("samples are held without predictions; attach the model after loading")
    size = len(samples["x"])
    if not size:
        return
    rows = np.unique(np.linspace(0, size - 1, min(size, _ROWS_CHECKED)).astype(np.int64))
    off, within = differences(samples, network, rows)
    if not (off <= within).all():
        raise ModelError(
            f"predictions that are held differ by up to {off.max():.3g} from those of the model "
            "that serves, so nothing is inserted; attach the model after loading the memory"
        )


def differences(
    samples: Mapping[str, np.ndarray], network: Network, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``(n,)`` how far predictions are from those of the network, and how far they may be."""
    x = samples["x"][rows]
    again = network.astype(np.float64).probabilities(x)
    off = np.abs(again - samples["yhat"][rows]).max(axis=1)
    return off, network.astype(np.float32).rounding(x)


def check_candidate(
    candidate: Network,
    references: Sequence[Network],
    x: np.ndarray,
    y_bin: np.ndarray,
    gate: Gate,
) -> tuple[str | None, dict[str, float]]:
    """Hold a network against those that serve, or served, on samples that none was trained on.

    Args:
        candidate: What was trained.
        references: The best of them counts; without any, guessing is what has to be beaten.
        x: (n, 62) inputs.
        y_bin: (n,) classes.
        gate: Margins.

    Returns:
        Why it is refused, or None; and ``loss`` and ``tail`` of the candidate and of the best
        reference (``reference_loss``, ``reference_tail``), in nats, NaN without samples.
    """
    nothing = dict.fromkeys(("loss", "tail", "reference_loss", "reference_tail"), math.nan)
    chances = candidate.probabilities(x)
    whole = np.isfinite(chances).all() and np.allclose(chances.sum(axis=1), 1, atol=1e-3)
    # What the publication would refuse is refused here, before anything counts as trained.
    if not whole or not is_sound(candidate):
        return "its predictions are no distributions", nothing
    if not len(x):
        return None, nothing
    loss, tail = losses(candidate, x, y_bin)
    found = [losses(reference, x, y_bin) for reference in references]
    best_loss = min((one for one, _ in found), default=math.log(CLASSES))
    best_tail = min((two for _, two in found), default=math.inf)
    facts = {"loss": loss, "tail": tail, "reference_loss": best_loss, "reference_tail": best_tail}
    if not loss <= best_loss + gate.loss:
        return f"its mean loss is {loss:.3f} nats, that of the reference {best_loss:.3f}", facts
    if not tail <= best_tail + gate.tail:
        return f"its tail loss is {tail:.3f} nats, that of the reference {best_tail:.3f}", facts
    return None, facts


def losses(network: Network, x: np.ndarray, y_bin: np.ndarray) -> tuple[float, float]:
    """Mean and 99th percentile of the loss, in nats."""
    chances = network.probabilities(x)[np.arange(len(x)), y_bin]
    losses = -np.log(np.maximum(chances.astype(np.float64), 1e-30))
    return float(losses.mean()), float(np.quantile(losses, 0.99))
