"""The ``ai.sait`` operators, a folder each: spec, NumPy reference, torch operator, ONNX function."""
