"""Which trial is next: samplers, designs, early stopping.

Imports `profiling`, `execution` and below.
"""
