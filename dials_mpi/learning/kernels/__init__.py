"""The innermost loops of the built-in networks, compiled by numba."""
