"""Published numbers, as CSV files: nothing in them was measured with this software.

paper.csv        what reports put beside their own numbers
calibration.csv  what the simulator is held against, each number with its tolerance
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["FOLDER", "PRIMARY"]

FOLDER = Path(__file__).parent
"""Where the files lie."""

PRIMARY = {
    "puffer_ttp_cl": "Fugu",
    "puffer_ttp_20190202": "Fugu",
    "fugu": "Fugu",
    "mpc": "MPC-HM",
    "linear_bba": "BBA",
    "bba": "BBA",
    "pensieve": "Pensieve",
    "robust_mpc": "RobustMPC-HM",
}
"""Schemes of Puffer's files and of simulations, and what the paper of 2020 calls them."""
