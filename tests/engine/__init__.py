"""Tests of ``sait_deploy.engine``."""
