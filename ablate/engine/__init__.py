"""Studies from end to end: plan, checks, run, resume.

Imports every package but `cli`.
"""
