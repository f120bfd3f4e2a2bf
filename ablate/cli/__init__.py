"""The command line.

Imports every package.
"""
