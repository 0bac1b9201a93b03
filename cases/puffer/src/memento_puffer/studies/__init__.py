"""Replays, comparisons in control, and the experiments of the paper."""
