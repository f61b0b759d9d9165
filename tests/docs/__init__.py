"""Tests of the documentation: its blocks, its tutorial and the site."""
