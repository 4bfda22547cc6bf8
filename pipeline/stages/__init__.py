"""The stages of the chain: integrate, baseline, normalise, classify, track."""
