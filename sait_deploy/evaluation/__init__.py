"""Accuracy over operating points: controls, rivals, paired statistics, and the choice of a point that keeps a limit."""
