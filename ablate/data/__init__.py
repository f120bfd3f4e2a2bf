"""Datasets: CIFAR-10, image folders, their splits and sizes.

Imports `models`, `config` and the base modules.
"""
