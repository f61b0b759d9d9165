"""Finds the packages, which lie in three folders of a checkout; all else about the project stands in pyproject.toml."""

from setuptools import find_packages, setup

inside = find_packages(include=["sait_deploy", "sait_deploy.*"])
beside = find_packages(include=["exporters", "exporters.*", "plugins", "plugins.*"])
setup(packages=[*inside, *(f"sait_deploy.{name}" for name in beside)])
