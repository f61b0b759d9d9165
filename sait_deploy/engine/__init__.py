"""TensorRT engines: what is built, how, and what an engine says of itself."""
