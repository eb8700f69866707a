"""What training teaches the pocket base: the parts of the benchmarks `fidelity` and `methods`."""
