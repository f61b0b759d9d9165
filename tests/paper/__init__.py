"""ONNX Runtime's own CUDA provider on a machine with no GPU: what it would launch, copy and wait for.

The provider is real, and so are where each node runs, which kernel it takes, how many launches and copies a run needs.
The CUDA libraries under it are stand-ins (``standins/``) that count and compute nothing: values and times are not real.
"""
