"""Artifact folders: the manifest, the files beside it, operating points, and writing all of it whole or not at all."""
