"""What a run shows: findings, figures, tables, the report page.

Imports `training`, `search` and below.
"""
