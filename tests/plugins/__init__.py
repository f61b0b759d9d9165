"""Tests of the ``ai.sait`` operators: every form against the reference, the reference against the definition."""
