"""What a model costs: multiply-accumulates, bytes, latency.

Imports `quantization`, `runs` and below.
"""
