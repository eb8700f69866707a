"""How fast and how small this machine serves: the parts of the benchmarks `predict` and `modes`."""
