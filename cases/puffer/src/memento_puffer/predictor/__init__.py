"""Fugu's predictor of transmission times: its network, training and scores."""
