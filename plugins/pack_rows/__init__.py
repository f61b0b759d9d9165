"""The packing plan: the kept tokens of a batch end to end, then the dropped ones."""
