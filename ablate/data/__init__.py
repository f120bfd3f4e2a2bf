"""Datasets: CIFAR-10, image folders, their splits and sizes.

Imports `config` and the base modules.
"""
