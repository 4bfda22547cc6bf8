"""Counts on a detector to a clean 1D pattern: pure functions and immutable plans."""
