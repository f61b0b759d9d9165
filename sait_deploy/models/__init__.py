"""Prunable vision transformers: the model table, weights from files, and the arithmetic of each family."""
