"""The digital twin of the experiment and the benchmarks."""
