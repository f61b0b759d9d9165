"""Tests of recommending."""
