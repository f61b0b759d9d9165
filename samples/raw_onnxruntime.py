"""Runs an artifact with onnxruntime and NumPy alone, as a program in another language would.

    python samples/raw_onnxruntime.py artifacts/sait_demo_digits-adaptive

The golden file holds everything the graph is fed. An adaptive graph takes an operating point for each image: a mass,
and the least and most patch tokens to keep.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main(artifact: Path) -> None:
    """Reproduce the golden answer, then run two copies of the image at points of their own."""
    golden = np.load(artifact / "golden.npz")
    session = onnxruntime.InferenceSession(str(artifact / "model.onnx"), providers=["CPUExecutionProvider"])
    feeds = {given.name: golden[given.name] for given in session.get_inputs()}
    outputs = [output.name for output in session.get_outputs()]
    found = dict(zip(outputs, session.run(outputs, feeds), strict=True))
    print(f"logits differ by at most {np.abs(found[outputs[0]] - golden['logits']).max():.1e}")
    if "mass" not in feeds:
        return
    print(f"tokens kept, prefix included: {found['counts'].tolist()}")
    twice = {
        "images": np.concatenate([golden["images"]] * 2),
        "mass": np.array([0.8, 1.0], dtype=np.float32),
        "keep_limits": np.array([[1, 60], [1, 100]], dtype=np.int32),
    }
    counts = session.run(["counts"], twice)[0]
    print(f"at mass 0.8 with at most 60, and at mass 1 with at most 100: {counts.tolist()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
