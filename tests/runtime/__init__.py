"""Tests of ``sait_deploy.runtime``."""
