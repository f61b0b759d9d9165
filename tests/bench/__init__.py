"""Tests of sait_deploy.bench."""
