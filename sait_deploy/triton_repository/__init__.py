"""Model repositories of Triton Inference Server, made of artifacts and of engines."""
