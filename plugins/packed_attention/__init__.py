"""Attention inside each image of a packed batch."""
