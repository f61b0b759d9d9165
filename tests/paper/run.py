"""Runs a graph on paper, in a process of its own, and prints as JSON what the provider did.

Arguments: the ONNX file, images per batch.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from sait_deploy.runtime.onnxruntime import CUDA, open_session

COUNTED = ("launches", "to device", "to host", "on device", "waits", "products")
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32}


def without_convolution(model: onnx.ModelProto) -> onnx.ModelProto:
    """Makes the output of the one convolution an input: cuDNN computes it, of which there is only a stand-in."""
    (convolution,) = (node for node in model.graph.node if node.op_type == "Conv")
    model.graph.node.remove(convolution)
    (known,) = (value for value in model.graph.value_info if value.name == convolution.output[0])
    model.graph.input.append(known)
    return model


def run(path: str, images: int) -> dict[str, Any]:
    """Runs it twice, and counts in the second run, when everything that lasts has been made."""
    make, profile = onnxruntime.SessionOptions, Path(tempfile.mkdtemp()) / "profile"

    def profiled() -> Any:
        options = make()
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
        return options

    onnxruntime.SessionOptions = profiled
    session = open_session(without_convolution(onnx.load(path)).SerializeToString(), CUDA, 1, str(Path(path).parent))
    given = {
        one.name: np.zeros([size if isinstance(size, int) else images for size in one.shape], TYPES[one.type])
        for one in session.get_inputs()
    }
    runtime, counts = ctypes.CDLL("libcudart.so.13"), (ctypes.c_long * len(COUNTED))()
    for _ in range(2):
        runtime.paper_reset()
        session.run(None, given)
    runtime.paper_counts(counts)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    ran = [event["args"] for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    placed = Counter((one["provider"], one["op_name"]) for one in ran)
    return {
        "counts": dict(zip(COUNTED, counts, strict=True)),
        "placed": [[provider, kind, count // 2] for (provider, kind), count in placed.items()],
        "outputs": len(session.get_outputs()),
        "settings": session.get_provider_options()[CUDA],
    }


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))
