"""Sources: what frames and patterns come from."""
