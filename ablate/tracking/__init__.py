"""Trackers that show a run's trials elsewhere: MLflow, TensorBoard, Weights & Biases. They follow the ledger.

Imports `reporting` and below.
"""
