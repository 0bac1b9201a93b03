"""A stream to try things on: parcels, some of which come late, for reasons that change."""

from __future__ import annotations

import numpy as np

from memento.samples import Samples

__all__ = ["example"]

_CARRIERS = np.array(["north", "south", "express", "drone"])


def example(
    label: str = "y", *, units: int = 10, size: int = 400, seed: int = 0
) -> list[tuple[str, Samples]]:
    """Units of parcels, with numbers, texts, truth values and gaps.

    From the middle on there are parcels by drone, which wind delays.

    Args:
        label: Name of the label's column: 0 on time, 1 late, 2 lost.
        units: Number of units.
        size: Parcels of each.
        seed: Equal seeds give equal streams.

    Example:
        >>> parts = example(units=2, size=3)
        >>> [(name, sorted(table)) for name, table in parts][0]
        ('week-00', ['carrier', 'fragile', 'kg', 'km', 'wind', 'y'])
    """
    rng = np.random.default_rng(seed)
    found = []
    for unit in range(units):
        drones = 0.15 if unit >= units // 2 else 0.0
        chances = np.array([0.5, 0.3, 0.2 - drones, drones])
        carrier = rng.choice(len(_CARRIERS), size, p=chances)
        km = rng.lognormal(4 + 0.02 * unit, 0.8, size)
        kg = rng.gamma(2.0, 2.0, size)
        wind = rng.weibull(2.0, size) * (8 + 0.3 * unit)
        fragile = rng.random(size) < 0.2
        late = -2.5 + 0.006 * km + 0.08 * kg + np.array([0.3, 0.0, -1.0, -2.0])[carrier]
        late += np.where(carrier == 3, 0.5 * wind, 0.02 * wind)
        lost = -4.5 + 0.5 * fragile + 0.002 * km
        odds = np.exp(np.stack([np.zeros(size), late, lost], axis=1))
        share = np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)
        outcome = (rng.random((size, 1)) > share).sum(axis=1)
        wind[rng.random(size) < 0.05] = np.nan
        table = {"carrier": _CARRIERS[carrier], "km": km, "kg": kg, "wind": wind}
        found.append((f"week-{unit:02d}", Samples({**table, "fragile": fragile, label: outcome})))
    return found
