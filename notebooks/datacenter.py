# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
# %% [markdown]
# # Data centre: shifts that are made (figure 11 and table 2)
#
# Reads what `memento datacenter replay --out DIR` left in the folder `RESULTS` (default: replayed),
# draws to `FIGURES` (default: figures). Runs as a script, too: `python notebooks/datacenter.py`.
#
# Columns headed *paper*, and hollow grey marks, are the paper's, from its own simulations; in those
# messages larger than the send buffer were refused (`--messages refused`).

# %%
import os
from pathlib import Path

from memento.report.folders import open_report

RESULTS = Path(os.environ.get("RESULTS", "replayed"))
FIGURES = Path(os.environ.get("FIGURES", "figures"))
report = open_report(RESULTS)
print("\n".join(report.text))


def show(name):
    """Figures and tables of one section; what to do where it is not there."""
    if name in report.missing:
        print(f"{name}: {report.missing[name]}")
        return
    report.section(name).show(FIGURES)


# %% [markdown]
# ## Rare patterns (figure 11(a), upper half of table 2)
# Two workloads come now and then. Look at what is held at the end: Memento keeps a good share of
# all three, a random memory next to nothing of the rare ones.

# %%
show("rare-patterns")

# %% [markdown]
# ## Incremental learning (figure 11(b), lower half of table 2)
# One workload after the other. Look at the last ten iterations: how soon the third is known, and
# whether the first is forgotten. Coverage rises where a workload is new.

# %%
show("incremental")

# %% [markdown]
# ## Congestion (figure 11(c))
# The load grows from 66 to 133 %. Look at the error just after each step.

# %%
show("congestion")

# %% [markdown]
# ## Targets
# What the paper's figures ask for, and whether it is reached.

# %%
if any(section.name == "targets" for section in report.sections):
    show("targets")
