# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
# %% [markdown]
# # Replays: the paper's evaluation, table by table
#
# Reads what `memento run puffer-replay "table-*" "figure-*"` left in the folder `RESULTS` (default:
# results), or what `memento puffer replay --out DIR` left in DIR; draws each figure to `FIGURES`
# (default: figures) and prints each table. Runs as a script, too: `python notebooks/replay.py`.
#
# Two kinds of numbers stand side by side and are never mixed: columns headed *paper*, and hollow
# grey marks, come from real days of Puffer; all others from the folder: simulated days, unless real
# ones were downloaded. Levels of different days cannot be compared; orders and signs can.

# %%
import os
from pathlib import Path

from memento.report.folders import open_report
from memento_puffer.report.replays import SECTIONS

RESULTS = Path(os.environ.get("RESULTS", "results"))
FIGURES = Path(os.environ.get("FIGURES", "figures"))
report = open_report(RESULTS)
print("\n".join(report.text))


def show(name):
    """Figures and tables of one section; what to do where it is not there."""
    if name in report.missing:
        print(f"{name}: {report.missing[name]}")
        return
    for section in report.sections:
        if section.name.endswith(name):
            section.show(FIGURES)


# %% [markdown]
# ## Baselines (figures 5 and 22)
# In the paper Memento gains 0.70 at the tail over Fugu's daily training and gives up 0.17 of the
# median; Euclidean distances and a random memory of twice the size gain next to nothing. Look for
# Memento's tail above all others, and for the price at the median.

# %%
show("table-baselines")
show("replay")

# %% [markdown]
# ## Batch size, bandwidth, temperature (figure 7)
# Look at the shapes: the tail falls slowly with the batch size while an insert gets cheaper; the
# bandwidth is best in the middle; a low temperature costs the median, a high one is random. The
# tables called *ordering* say how far our settings stand in the paper's order.

# %%
show("table-batch-size")
show("table-bandwidth")
show("table-temperature")

# %% [markdown]
# ## Other metrics (figures 8 and 21)
# Loss, confidence, frequency of the class, stalled sessions. In the paper all but the last collapse
# at low temperatures, by up to 24 nats.

# %%
show("table-other-metrics")

# %% [markdown]
# ## Just Train Twice, Matchmaker, query by committee (figures 9 and 10)
# A factor works with a random memory as with Memento; both together, and an oracle over the last
# models, gain most. Look for the oracle of random memories at about half of one Memento model.

# %%
show("table-jtt")
show("table-matchmaker")

# %% [markdown]
# ## When to retrain (section 4.4)
# How often each rule trains, and what it costs. The threshold of coverage says how often, if it
# lies above the fluctuations.

# %%
show("table-decisions")

# %% [markdown]
# ## Over time, after a freeze, again, and at other horizons (figures 10, 12, 23)
# The 99th percentile of the loss day by day; how dense a frozen memory is where new days lie; the
# same with other seeds, which is the noise of all numbers above; Fugu's other four networks.

# %%
show("figure-loss-over-time")
show("table-freeze")
show("figure-freeze")
show("table-repeatability")
show("table-horizons")

# %% [markdown]
# ## What is left
# The selection study has a notebook of its own, `selection.py`.

# %%
absent = [name for name in report.missing if name in SECTIONS]
print(f"\nnot there: {', '.join(absent) or 'nothing'}")
