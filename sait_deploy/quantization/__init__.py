"""Quantisation: a float artifact in, an artifact with linear layers in int8 out."""
