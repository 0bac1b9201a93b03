"""What was published: the paper's numbers, Puffer's of 2019, the deployment's record.

Sources: the Memento paper (its figures' values as in the published results); the record of its
deployment on Puffer; Yan et al., "Learning in situ", NSDI 2020 (Puffer's primary experiment).
"""

from __future__ import annotations

from memento.report.tables import Published
from memento_puffer.published import FOLDER

__all__ = ["CONDITIONS", "DEPLOYED", "NOTE", "RECORD_PERIOD", "published"]

published = Published(FOLDER / "paper.csv")
"""The numbers by topic, see `memento.report.tables.Published`."""

DEPLOYED = "2022-09-19"
"""First day of the deployment that the paper reports on."""

RECORD_PERIOD = ("2023-01-01", "2023-07-16")
"""Days whose coverage increases the published quantiles sum up; all counts end with them."""

NOTE = (
    "Columns headed paper, and hollow grey marks, are what was published: the paper's numbers come "
    "from real days of Puffer. All other numbers come from this folder: simulated days, unless "
    "real ones were downloaded."
)
"""What every page says that shows both."""

CONDITIONS = (
    "The paper's replays: three periods of real days (2021-01 to 2022-05, 3 million samples a "
    "day), memories of a million samples, batches of 256, bandwidth 0.1, temperature 0.01, a "
    "training every seventh day; means over all days, differences in nats of log score."
)
"""Under what the paper's replays were made."""
