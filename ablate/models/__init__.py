"""Pre-trained models: found, loaded, checked, their heads, image processing and layer groups.

Imports `config` and the base modules.
"""
