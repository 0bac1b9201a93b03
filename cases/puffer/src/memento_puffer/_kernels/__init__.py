"""Compiled loops of the case: arrays in, arrays filled."""
