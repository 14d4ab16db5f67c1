"""Decoding on a CPU: compiled kernels and the path that is made of them."""
