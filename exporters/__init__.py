"""torch → ONNX: tracing, the graph forms, and finishing a graph into a file."""
