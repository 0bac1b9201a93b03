"""The daily job with five horizons, and its record."""
