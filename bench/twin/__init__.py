"""The digital twin: crystallography, experiment, detector and counting statistics of a run."""
