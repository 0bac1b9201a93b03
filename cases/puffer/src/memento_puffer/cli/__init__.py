"""`memento puffer` and `memento demo`."""
