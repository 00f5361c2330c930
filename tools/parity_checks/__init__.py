"""Comparisons of our parts with the reference packages, one module per room. Run by ``tools/parity.py``."""
