# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
# %% [markdown]
# # What density and loss select (figure 4)
#
# One set of samples, cut into batches, offered to several policies at once. Density keeps batches
# that are rare; loss keeps batches that are hard, whether they can be learned or are noise. Reads
# what `memento run puffer-replay "*figure-selection"` left in `RESULTS` (default: results), draws
# to `FIGURES` (default: figures). Runs as a script, too: `python notebooks/selection.py`.

# %%
import os
from pathlib import Path

from memento.report.experiments import of_results

RESULTS = Path(os.environ.get("RESULTS", "results"))
FIGURES = Path(os.environ.get("FIGURES", "figures"))
section = of_results(RESULTS).section("figure-selection")
print(section.parts[0])

# %% [markdown]
# ## Batch by batch
# Left: are rare batches the ones with a large loss? Only in part: that is why the two criteria
# differ. Middle: `memento` falls from all to little as batches get dense, `loss` does not follow
# the density. Right: a rise over the dense batches is what selection by loss costs: the model
# forgets what is common. The paper publishes no numbers of this figure.
#
# The tables give the rarest and the densest tenth: the share kept, and by how much the loss changes
# after training on what was kept (below 0: better).

# %%
section.show(FIGURES)
