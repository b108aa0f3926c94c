"""The real parts that tests, the demo and the benchmarks run against: buildkitd, a registry, base images.

Nothing here imports cogkit, so that a fault in the product cannot hide in what it is tested with.
"""
