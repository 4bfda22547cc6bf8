"""The processes of a run, and what keeps them together."""
