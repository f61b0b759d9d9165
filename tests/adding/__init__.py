"""Tests that add to the toolkit from outside, by one entry and one module (or one folder, of an operator)."""
