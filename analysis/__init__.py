"""Records in, tables out: pure functions that import neither torch nor ray."""
