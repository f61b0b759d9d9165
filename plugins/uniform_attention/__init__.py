"""Attention inside each image of a batch whose images all have as many tokens."""
