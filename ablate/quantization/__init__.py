"""Quantizers, BitLinear, and the packed model that is really small.

Imports `models`, `data` and below.
"""
