"""Builds engines with TensorRT for RTX in a process of its own, which may end in an abort, and tells of each.

``python rtx_build.py JOBS``: a JSON file of ``[{"model": path, "profile": {input: [least, usual, most]}}]``. Prints a
JSON list of ``{"errors", "attention", "forms", "casts", "bytes"}``: what the parser could not read, how many attentions
the network has, what they take (layouts of queries and of keys, whether lengths of either), the types its layers cast
from and to, and the size of the engine, 0 where none could be built.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tensorrt_rtx as trt


class _Silent(trt.ILogger):  # type: ignore[misc]
    def __init__(self) -> None:
        trt.ILogger.__init__(self)

    def log(self, severity: Any, message: str) -> None:
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            print(message, file=sys.stderr)


def _attention(layer: Any) -> Any:
    layer.__class__ = trt.IAttentionInputLayer  # the bindings hand out the base class
    return layer.attention


def _taken(one: Any) -> tuple[str, str, bool, bool]:
    lengths = one.query_lengths is not None, one.key_value_lengths is not None
    return one.query_form.name, one.key_value_form.name, *lengths


def build(logger: _Silent, model: str, profile: dict[str, list[list[int]]]) -> dict[str, Any]:
    """Builds for SM 8.6, the same that an RTX 3090 has."""
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(model):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        return {"errors": errors, "attention": 0, "forms": [], "casts": [], "bytes": 0}
    config, shapes = builder.create_builder_config(), builder.create_optimization_profile()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    for name, (least, usual, most) in profile.items():
        shapes.set_shape(name, least, usual, most)
    config.add_optimization_profile(shapes)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    attentions = [_attention(layer) for layer in layers if layer.type == trt.LayerType.ATTENTION_INPUT]
    casting = [layer for layer in layers if layer.type == trt.LayerType.CAST]
    casts = {(layer.get_input(0).dtype.name, layer.get_output(0).dtype.name) for layer in casting}
    engine = builder.build_serialized_network(network, config)
    return {
        "errors": [],
        "attention": len(attentions),
        "forms": sorted({_taken(one) for one in attentions}),
        "casts": sorted(casts),
        "bytes": 0 if engine is None else int(engine.nbytes),
    }


if __name__ == "__main__":
    silent = _Silent()
    print(json.dumps([build(silent, **job) for job in json.loads(Path(sys.argv[1]).read_text())]))
