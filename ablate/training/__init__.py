"""One trial: recipe, optimiser, teacher, checkpoints.

Imports `profiling`, `execution` and below.
"""
