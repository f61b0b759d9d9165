"""The export stage: from a model and options to artifact folders that agree with torch."""
