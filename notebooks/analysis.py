# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
# %% [markdown]
# # What viewers got, and the deployment (figures 6, 13 and 17)
#
# Reads what `memento run puffer-analysis` and `memento run puffer-deployment` left in `RESULTS`
# (default: results), or what `memento puffer analyze --out DIR` left in DIR; draws to `FIGURES`
# (default: figures). Runs as a script, too: `python notebooks/analysis.py`.
#
# Columns headed *paper*, and hollow grey marks, are published: the deployment on Puffer in 2022 and
# 2023, and Puffer's primary experiment of 2019, both with real viewers. All other numbers come from
# the folder: simulated viewers, unless real days were downloaded.

# %%
import os
from pathlib import Path

from memento.report.folders import open_report

RESULTS = Path(os.environ.get("RESULTS", "results"))
FIGURES = Path(os.environ.get("FIGURES", "figures"))
report = open_report(RESULTS)


def show(*beginnings):
    """Figures and tables of the sections whose names begin so."""
    for section in report.sections:
        if section.name.startswith(beginnings):
            section.show(FIGURES)


# %% [markdown]
# ## Quality against stalls (figure 17)
# Each scheme on a plane: better to the top right. Look at which schemes lie beyond each other's
# intervals; on a few days of few viewers hardly any do: it takes about two years of streams to tell
# two schemes apart whose stalls differ by 15 %.

# %%
show("analysis", "totals", "paired")

# %% [markdown]
# ## Coverage and trainings (figures 6(b) and 13)
# The coverage increase since the last training, the threshold, a dot where the network was trained.
# With temperature 0 a memory collects noise, coverage goes on rising, and trainings do not end. The
# published record, read with the same code, has to give the published counts: 7 and 14 trainings of
# the first horizon since 2022-09-19.

# %%
show("deployment")

# %%
for name, remedy in report.missing.items():
    if name.startswith(("analysis", "deployment")):
        print(f"{name}: {remedy}")
