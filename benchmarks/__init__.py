"""cogkit beside buildctl, on the same daemon and in the same run; see `benchmarks.bench`."""
