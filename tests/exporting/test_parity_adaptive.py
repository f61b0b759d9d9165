"""Parity of adaptive graphs: every named point and mass 1 are compared, and what is wrong at one of them shows."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import Precision
from sait_deploy.errors import ModelError, ParityError
from sait_deploy.exporting.parity import (
    MASS_ONE,
    MIXED,
    TOLERANCE,
    ParityImages,
    ParityResult,
    batches_of,
    check_parity,
)
from sait_deploy.runtime import RunOptions, load
from tests.exported import IMAGE_SIZE, POINTS, TinyExport, change_weight, copied, graph_of, reference, with_graph
from tests.tiny import random_batch

COUNT = 9
PATCHES = 36
IMAGES = ParityImages(random_batch((COUNT, 3, IMAGE_SIZE, IMAGE_SIZE)), "random numbers")
ONE_THREAD = RunOptions(threads=1)
NOISE = 0.02
NAMES = tuple(point.name for point in POINTS)


def checked(tiny: TinyExport, artifact: Artifact) -> ParityResult:
    return check_parity(load(artifact, options=ONE_THREAD), reference(tiny.model, artifact), IMAGES)


def test_every_named_point_and_mass_1_are_compared(tiny: TinyExport, tiny_adaptive: Artifact) -> None:
    info = checked(tiny, tiny_adaptive).info
    assert info.points == (*NAMES, MASS_ONE, MIXED)
    assert (info.images, info.image_source, info.runtime, info.batches) == (
        COUNT,
        "random numbers",
        "onnxruntime",
        (1, 3, 5),
    )
    assert (info.tolerance, info.top1_agreement) == (1e-4, 1.0)
    assert 0 < info.largest_difference < 1e-4
    assert info.kept_sets_equal_torch is not None and info.kept_sets_equal_torch > 0.9


def test_the_figures_are_what_they_are_called(
    tiny: TinyExport, tiny_adaptive: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is a little off, so that no figure is the best there is."""
    vit = copy.deepcopy(tiny.model.vit)
    with torch.no_grad():
        weight = vit.blocks[1].attn.qkv.weight
        weight += NOISE * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    model = reference(dataclasses.replace(tiny.model, vit=vit), tiny_adaptive)
    monkeypatch.setitem(TOLERANCE, Precision.FP32, 1.0)
    runner = load(tiny_adaptive, options=ONE_THREAD)
    result = check_parity(runner, model, IMAGES)
    difference, cosine, top1, same = 0.0, 1.0, [], []
    for name in (*NAMES, MASS_ONE, MIXED):
        kept = []
        for cut in batches_of(COUNT):
            batch = IMAGES.images[cut]
            mass, limits = arrays_of(name, cut)
            selection = runner.select(batch, mass=mass, min_keep=limits[:, 0], max_keep=limits[:, 1])
            with torch.no_grad():
                if name == MASS_ONE:
                    forced = model.dense().trace(torch.from_numpy(batch))
                else:
                    forced = model.trace(torch.from_numpy(batch), keep=torch.from_numpy(selection.keep))
                free = model.trace(torch.from_numpy(batch), torch.from_numpy(mass), torch.from_numpy(limits))
            assert free.keep is not None
            equal = [np.array_equal(*pair) for pair in zip(free.keep.numpy(), selection.keep, strict=True)]
            same += equal if name in NAMES else []
            kept += list(selection.keep.sum(axis=1) - 1)
            for found, wanted in zip(selection.logits, forced.logits.numpy(), strict=True):
                difference = max(difference, np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max()))
                cosine = min(cosine, found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted))
                top1 += [found.argmax() == wanted.argmax()] if name in NAMES else []
        assert result.kept[name].tolist() == kept
        assert result.kept[name].dtype == np.int32
    assert result.info.largest_difference == pytest.approx(difference, rel=0.01)
    assert 1 - result.info.cosine == pytest.approx(1 - cosine, rel=0.01)
    assert result.info.top1_agreement == pytest.approx(np.mean(top1))
    assert result.info.kept_sets_equal_torch == pytest.approx(np.mean(same))
    assert 0 < np.mean(same) < 1 and result.info.tolerance == 1.0
    default = np.concatenate([runner.run(IMAGES.images[cut]).logits for cut in batches_of(COUNT)])
    np.testing.assert_array_equal(result.logits, default)


def arrays_of(name: str, cut: slice) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The points of some of the images: all at the one named, at mass 1, or in turn at these and two more."""
    named = {p.name: (p.mass, p.min_keep, p.max_keep or PATCHES) for p in POINTS} | {MASS_ONE: (1.0, 1, PATCHES)}
    third = PATCHES // 3
    mixed = [*named.values(), (1.0, third, third), (0.0, 1, PATCHES)]
    points = [named[name] if name in named else mixed[i % len(mixed)] for i in range(cut.start, cut.stop)]
    return np.array([p[0] for p in points], np.float32), np.array([p[1:] for p in points], np.int32)


Change = Callable[[onnx.ModelProto], None]


def node(model: onnx.ModelProto, operator: str) -> onnx.NodeProto:
    """The last node of an operator."""
    found: onnx.NodeProto = [node for node in model.graph.node if node.op_type == operator][-1]
    return found


def body_node(model: onnx.ModelProto, function: str, output: str) -> onnx.NodeProto:
    """The node of a function's body that writes ``output``."""
    (body,) = [body for body in model.functions if body.name == function]
    found: onnx.NodeProto = next(node for node in body.node if output in node.output)
    return found


def attribute(name: str, value: float) -> Change:
    def change(model: onnx.ModelProto) -> None:
        (found,) = [each for each in node(model, "PackedAttention").attribute if each.name == name]
        found.CopyFrom(onnx.helper.make_attribute(name, value))

    return change


def frozen(name: str, value: NDArray[Any]) -> Change:
    """One point for good, whatever the input says."""

    def change(model: onnx.ModelProto) -> None:
        select = node(model, "MassTokenSelect")
        position = list(model.graph.node).index(select)
        model.graph.initializer.append(numpy_helper.from_array(value, "fixed"))
        shape = onnx.helper.make_node("Shape", [name], ["shape_asked_for"])
        model.graph.node.insert(position, onnx.helper.make_node("Expand", ["fixed", "shape_asked_for"], ["frozen"]))
        model.graph.node.insert(position, shape)
        node(model, "MassTokenSelect").input[:] = ["frozen" if each == name else each for each in select.input]

    return change


def padding_is_attended_to(model: onnx.ModelProto) -> None:
    constant = body_node(model, "PackedAttention", "never")
    constant.attribute[0].t.CopyFrom(numpy_helper.from_array(np.zeros((), np.float32)))


def keys_are_taken_for_values(model: onnx.ModelProto) -> None:
    body_node(model, "PackedAttention", "value").input[1] = "key_index"


def counts_without_prefix(model: onnx.ModelProto) -> None:
    for each in model.graph.node:
        each.output[:] = ["right" if name == "counts" else name for name in each.output]
        each.input[:] = ["right" if name == "counts" else name for name in each.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int32), "prefix"))
    model.graph.node.append(onnx.helper.make_node("Sub", ["right", "prefix"], ["counts"]))


BROKEN: dict[str, tuple[Change, str]] = {
    "weight": (lambda model: change_weight(model, "blocks.5.mlp.fc2.weight", 0.5), "differ from the reference's by"),
    "scale": (attribute("scale", 0.3), "differ from the reference's by"),
    "heads": (attribute("num_heads", 1), "differ from the reference's by"),
    "padding": (padding_is_attended_to, "differ from the reference's by"),
    "values": (keys_are_taken_for_values, "differ from the reference's by"),
    "mass": (frozen("mass", np.array([0.6], np.float32)), "keeps other tokens than the reference selection"),
    "limits": (frozen("keep_limits", np.array([[1, 20]], np.int32)), "keeps other tokens than the reference selection"),
    "counts": (counts_without_prefix, "counts from image 0 on differ"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_graph_is_found(tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path, case: str) -> None:
    change, match = BROKEN[case]
    artifact = copied(tiny_adaptive, tmp_path)
    model = graph_of(artifact)
    change(model)
    assert model != graph_of(artifact)
    with pytest.raises(ParityError, match=match) as caught:
        checked(tiny, with_graph(artifact, model))
    assert caught.value.hint


@pytest.mark.parametrize("part", ["patch_embed.proj.weight", "blocks.1.attn.qkv.weight", "blocks.4.norm1.weight"])
def test_weights_that_are_no_numbers_are_named(
    tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path, part: str
) -> None:
    artifact = copied(tiny_adaptive, tmp_path)
    model = graph_of(artifact)
    change_weight(model, part, np.nan)
    with pytest.raises(ModelError, match=r"image 0 of the batch: its .* not finite"):
        checked(tiny, with_graph(artifact, model))


def first_image_for_all(name: str) -> Change:
    """Applies the first image's mass or limits to every image of the batch."""

    def change(model: onnx.ModelProto) -> None:
        first = numpy_helper.from_array(np.array([0], np.int64), "first")
        model.graph.initializer.append(first)
        select = node(model, "MassTokenSelect")
        place = list(model.graph.node).index(select)
        taken = [
            onnx.helper.make_node("Gather", [name, "first"], ["taken"], axis=0),
            onnx.helper.make_node("Shape", [name], ["extent"]),
            onnx.helper.make_node("Expand", ["taken", "extent"], ["spread"]),
        ]
        for offset, each in enumerate(taken):
            model.graph.node.insert(place + offset, each)
        node(model, "MassTokenSelect").input[["mass", "keep_limits"].index(name) + 1] = "spread"

    return change


@pytest.mark.parametrize("name", ["mass", "keep_limits"])
def test_a_graph_that_takes_the_first_image_s_point_for_all_is_no_match(
    tiny: TinyExport, tiny_adaptive: Artifact, tmp_path: Path, name: str
) -> None:
    artifact = copied(tiny_adaptive, tmp_path)
    model = graph_of(artifact)
    first_image_for_all(name)(model)
    with pytest.raises(ParityError, match="keeps other tokens than the reference selection"):
        checked(tiny, with_graph(artifact, model))
