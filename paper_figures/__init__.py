"""Tables in, pictures out: one file a figure; nothing is computed here but means."""
