"""The suites behind every published figure."""
