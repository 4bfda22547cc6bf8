"""1D patterns to labels with probabilities."""
