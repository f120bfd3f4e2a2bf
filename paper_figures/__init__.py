"""Figures: `_info` files compute what a figure shows, in print and on the page; `fig_` files print it."""
