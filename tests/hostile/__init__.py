"""Hostile files: a generator of cases, each a door of the toolkit and what is wrong with what comes through it."""
