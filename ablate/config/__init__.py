"""What a user writes: trials, search spaces and studies as TOML, objectives and precisions.

Imports the base modules only.
"""
