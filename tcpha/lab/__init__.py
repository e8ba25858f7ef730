"""A cluster in network namespaces on one machine: the demo, the tests and the benchmarks stand on it."""
