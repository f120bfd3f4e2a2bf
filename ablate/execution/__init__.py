"""Ray: the cluster, Tune, metrics.

Imports `runs` and below.
"""
