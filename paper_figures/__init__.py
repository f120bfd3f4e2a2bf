"""Tables in, pictures out: an `_info` file says what a figure shows, for print and page; its `fig_` file prints it."""
