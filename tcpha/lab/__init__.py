"""A cluster in network namespaces on one machine: the demo, the tests and the benchmarks stand on it.

`python -m tcpha.lab up|exec|down|status` for a person, `tcpha.lab.cluster.Lab` for a program.
"""
