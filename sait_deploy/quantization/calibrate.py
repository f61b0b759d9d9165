"""Ranges of linear layers' inputs, by ONNX Runtime's own calibration."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from sait_deploy.artifacts.folder import MODEL_FILE, Artifact
from sait_deploy.artifacts.graph import whole_graph_of
from sait_deploy.artifacts.manifest import Form, Manifest
from sait_deploy.artifacts.points import PointChoice, resolve
from sait_deploy.errors import NotFinite
from sait_deploy.images.dataset import Dataset
from sait_deploy.images.preprocess import preprocess
from sait_deploy.quantization.layers import PRODUCTS
from sait_deploy.runtime.batches import portions
from sait_deploy.runtime.graph_io import feeds
from sait_deploy.runtime.onnxruntime import CPU, require_onnxruntime
from sait_deploy.system.processors import processors
from sait_deploy.system.progress import Progress, logged

METHOD: Final = "least and largest value, symmetric; int8 weights for each channel and int8 inputs; no SmoothQuant"
"""How ranges and scales are made, in words.

ONNX Runtime's MinMax calibration keeps two numbers of a tensor and batch. Percentile and entropy keep histograms, for
which every input of a batch is held at once: more memory than the model, and in trials no closer answers.
"""

MASS_ONE: Final = "mass 1"
"""What an adaptive artifact is calibrated at too: where all tokens are kept."""

_BATCH: Final = 1
"""Images run at once: ONNX Runtime reads ranges after all else, so what a whole batch computes is held at once."""


def named_choices(manifest: Manifest) -> dict[str | None, PointChoice]:
    """Returns what to ask of a runner at each named point; of a dense artifact, at the one that has no name."""
    if manifest.form is Form.ADAPTIVE:
        return {name: PointChoice(name) for name in manifest.operating_points}
    return dict.fromkeys(manifest.operating_points or (None,), PointChoice())


def calibration_points(manifest: Manifest) -> dict[str | None, PointChoice]:
    """Returns the operating points to calibrate at: the named ones, and all tokens where the point is an input."""
    points = named_choices(manifest)
    if manifest.form is Form.ADAPTIVE:
        patches = manifest.model.geometry.patch_tokens
        points[MASS_ONE] = PointChoice(None, 1.0, patches, patches)
    return points


class _Batches:
    """What ONNX Runtime calls a calibration data reader: feeds of batches, at each operating point in turn."""

    def __init__(self, artifact: Artifact, images: Dataset, progress: Progress) -> None:
        self._feeds = self._all(artifact, images, progress)
        self.first = 0
        """Number of the first image of the batch that was read last."""

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)

    def _all(self, artifact: Artifact, images: Dataset, progress: Progress) -> Iterator[dict[str, NDArray[Any]]]:
        points, count = calibration_points(artifact.manifest), len(images.images)
        step = f"calibrating on {count} images" + (f" at {', '.join(map(str, points))}" if len(points) > 1 else "")
        progress(step, 0.0)
        fixed = artifact.manifest.batch
        for numbers in portions(count, _BATCH, (1, _BATCH) if fixed is None else (fixed, fixed)):
            self.first = int(numbers[0])
            batch = preprocess([images.images[number] for number in numbers], artifact.manifest.preprocessing)
            for choice in points.values():
                yield feeds(batch, resolve(artifact.manifest, len(batch), choice))
            progress(step, min(self.first + len(numbers), count) / count)


class _FiniteSession:
    """A calibrator's session that refuses answers that are no numbers: calibration passes over those in silence."""

    def __init__(self, session: Any, batches: _Batches) -> None:
        self._session, self._batches = session, batches

    def get_outputs(self) -> Any:
        return self._session.get_outputs()

    def run(self, outputs: list[str] | None, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = self._session.run(outputs, inputs)
        wrong = np.flatnonzero(~np.isfinite(found[0]).all(axis=1))
        if len(wrong):
            image = self._batches.first + int(wrong[0])
            raise NotFinite(f"calibration image {image}: its logits are not finite numbers", image)
        return found


def input_ranges(
    artifact: Artifact, images: Dataset, folder: Path, threads: int | None = None, progress: Progress = logged
) -> Any:
    """Returns the ranges of the inputs of products, as ONNX Runtime's quantiser takes them.

    Args:
        artifact: the float artifact.
        images: what to run.
        folder: where copies of the graph may lie meanwhile.
        threads: threads within one operator; None for all processors.
        progress: called while images run.

    Raises:
        NotFinite: the answer to an image is not a number.
        ImageError: an image cannot be read.
    """
    require_onnxruntime()
    from onnxruntime.quantization import MinMaxCalibrater

    with tempfile.TemporaryDirectory(dir=folder) as place:
        # Shape inference writes beside the graph that it reads, and an artifact's folder is not to be written to.
        source, calibrating = Path(place) / MODEL_FILE, Path(place) / "calibrating.onnx"
        onnx.save(whole_graph_of(artifact), str(source), save_as_external_data=True, location=f"{MODEL_FILE}.data")
        calibrator = MinMaxCalibrater(
            source, list(PRODUCTS), str(calibrating), symmetric=True, use_external_data_format=True
        )
        calibrator.augment_graph()
        calibrator.model = calibrator.augment_model = None  # the weights lie in the file that is run
        batches = _Batches(artifact, images, progress)
        calibrator.infer_session = _FiniteSession(_session(calibrating, threads), batches)
        calibrator.collect_data(batches)
        return calibrator.compute_data()


def _session(model: Path, threads: int | None) -> Any:
    """Opens a graph so that it keeps no memory between its runs."""
    onnxruntime = require_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = processors() if threads is None else threads
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model), options, providers=[CPU])
