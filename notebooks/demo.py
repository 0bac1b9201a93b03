# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
# %% [markdown]
# # A week of video streaming
#
# Reads what `memento demo --out DIR` left in the folder `RESULTS` (default: demo), the folder of its
# steps (`memento demo download`, `analysis`, `replay`: demo-week), or a folder of `memento run demo`; draws to `FIGURES` (default: figures). Runs as a script, too:
# `python notebooks/demo.py`.
#
# The paper's demo replays a week of real days (2023-07-03 to 07-09, trained every day from
# scratch, a coverage increase above 0.1 on the first two days only) and publishes no scores. Beside
# ours stand what its replays of real days gained over the static model: columns headed *paper*,
# hollow grey marks.

# %%
import os
from pathlib import Path

from memento.report.folders import open_report

RESULTS = Path(os.environ.get("RESULTS", "demo"))
FIGURES = Path(os.environ.get("FIGURES", "figures"))
report = open_report(RESULTS)


# %% [markdown]
# ## The week, step by step
# What viewers got on its days, and memories replayed over them.

# %%
if report.kind == "week":
    for section in report.sections:
        section.show(FIGURES)

# %% [markdown]
# ## Predictors after a week, and in control
# Look for Memento's tail above the random memory's, and for fewer stalls in control at about the
# same quality. Intervals are over days for scores, over viewers in control.

# %%
if report.kind != "week":
    report.section("demo").show(FIGURES)

# %% [markdown]
# ## The same viewers under each predictor
# Differences to the random memory's predictor; what viewers share cancels out.

# %%
if any(section.name == "demo-differences" for section in report.sections):
    report.section("demo-differences").show(FIGURES)
