"""The selection: per image, the fewest tokens of highest importance that reach a probability mass."""
