"""A run's folder: its claim, its ledger of records, its state.

Imports `analysis` and below.
"""
