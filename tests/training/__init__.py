"""Tests of sait_deploy.training."""
