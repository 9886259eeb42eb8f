"""Training scripts by hand, which have never heard of trueloop: ``python -m benchmarks.scripts.smallest 3000``."""
