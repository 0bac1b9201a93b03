# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---
# %% [markdown]
# # Can the retraining signal be trusted?
#
# Coverage is compared between two sets of 12,800 samples (200 batches of 64) over 21 classes. Two
# questions: how often is a rise reported when nothing has changed, and how often is it seen when 3 %
# of the samples are new? Runs as a script, too: `python notebooks/coverage_noise.py`.

# %%
import os

import numpy as np

from memento import JensenShannon, SampleSpace, coverage_increase

CLASSES, ROWS = 21, 200 * 64
DRAWS = int(os.environ.get("DRAWS", "200"))  # pairs of sets for each question
SPACE = SampleSpace(
    [JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels("y", CLASSES)],
    batch_size=64,
    sort_by=("y", "yhat"),
)


def population(rng):
    """Shares of the classes: some common, some rare."""
    return rng.dirichlet(np.full(CLASSES, 0.4))


def draw(rng, shares, new=0.0):
    """Labels and predictions, a share of which carries the rarest label."""
    y = rng.choice(CLASSES, ROWS, p=shares)
    y[rng.random(ROWS) < new] = shares.argmin()
    logits = rng.normal(size=(ROWS, CLASSES))
    logits[np.arange(ROWS), y] += rng.choice([0.0, 1.5, 4.0, 8.0], ROWS)
    odds = np.exp(logits)
    return {"y": y, "yhat": odds / odds.sum(axis=1, keepdims=True)}


def compare(new, seed):
    """Calibrated and plain increases of one pair of sets."""
    rng = np.random.default_rng(seed)
    shares = population(rng)
    before, now = draw(rng, shares), draw(rng, shares, new)
    rise = coverage_increase(now, before, SPACE, permutations=19, rng=rng)
    plain = coverage_increase(now, before, SPACE, estimator="plain", permutations=0)
    return float(rise), rise.p_value, float(plain)


# %% [markdown]
# ## Nothing has changed
# At a significance of 5 % a false alarm should come in 5 % of the draws, within the binomial error.

# %%
quiet = np.array([compare(0.0, seed) for seed in range(DRAWS)])
alarms = float((quiet[:, 1] <= 0.05).mean())
error = float(np.sqrt(0.05 * 0.95 / DRAWS))
print(f"false alarms: {alarms:.1%} of {DRAWS} draws (nominal 5.0 % ± {error:.1%})")

# %% [markdown]
# ## 3 % of the samples are new

# %%
drifted = np.array([compare(0.03, 10_000 + seed) for seed in range(DRAWS)])
detected = float((drifted[:, 1] <= 0.05).mean())
print(f"detected: {detected:.1%} of {DRAWS} draws")

# %% [markdown]
# ## What the plain estimate sees
# Its floor hides the drift: with a threshold that quiet draws exceed in 5 % of cases it finds fewer.

# %%
threshold = float(np.quantile(quiet[:, 2], 0.95))
seen = float((drifted[:, 2] > threshold).mean())
print(f"plain estimate: quiet {quiet[:, 2].mean():.3f} ± {quiet[:, 2].std():.3f}, drifted "
      f"{drifted[:, 2].mean():.3f} ± {drifted[:, 2].std():.3f}; sees {seen:.0%} at the same rate")
print(f"calibrated:     quiet {quiet[:, 0].mean():.3f} ± {quiet[:, 0].std():.3f}, drifted "
      f"{drifted[:, 0].mean():.3f} ± {drifted[:, 0].std():.3f}")
