"""Tests of ``sait_deploy.exporters``."""
