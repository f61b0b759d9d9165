"""Parity finds a graph that computes something else, whatever it is, and reports what it found as it is."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from sait_deploy.artifacts.folder import Artifact
from sait_deploy.artifacts.manifest import ParityInfo, Precision, Task
from sait_deploy.errors import ModelError, ParityError
from sait_deploy.exporting.parity import BATCHES, TOLERANCE, ParityImages, batches_of, check_parity
from sait_deploy.exporting.plan import ExportOptions
from sait_deploy.exporting.stage import export
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.runtime import RunOptions, load
from tests.exported import IMAGE_SIZE, TinyExport, change_weight, copied, graph_of, reference, with_graph
from tests.tiny import HALF, random_batch, small_vit

COUNT = 9
IMAGES = ParityImages(random_batch((COUNT, 3, IMAGE_SIZE, IMAGE_SIZE)), "random numbers")
ONE_THREAD = RunOptions(threads=1)


def checked(tiny: TinyExport, artifact: Artifact, images: ParityImages = IMAGES) -> ParityInfo:
    return check_parity(load(artifact, options=ONE_THREAD), reference(tiny.model, artifact), images).info


@given(st.integers(1, 200))
def test_batches_cover_every_image_once_in_order(count: int) -> None:
    cuts = batches_of(count)
    assert [i for cut in cuts for i in range(cut.start, cut.stop)] == list(range(count))
    sizes = [cut.stop - cut.start for cut in cuts]
    assert all(size == BATCHES[turn % len(BATCHES)] for turn, size in enumerate(sizes[:-1]))


@pytest.mark.parametrize("form", ["dense", "half"])
def test_a_good_export_agrees(tiny: TinyExport, form: str) -> None:
    info = checked(tiny, getattr(tiny, form))
    assert (info.images, info.image_source, info.runtime) == (COUNT, "random numbers", "onnxruntime")
    assert info.batches == (1, 3, 5)
    assert info.tolerance == TOLERANCE[Precision.FP32] == 1e-4
    assert info.top1_agreement == 1.0
    assert info.kept_sets_equal_torch == (None if form == "dense" else 1.0)
    assert info.points == (() if form == "dense" else ("default",))


@pytest.mark.parametrize("form", ["dense", "half"])
def test_a_good_export_in_half_precision_agrees(tiny_fp16: TinyExport, form: str) -> None:
    info = checked(tiny_fp16, getattr(tiny_fp16, form))
    assert info.tolerance == 2e-2
    assert 1e-5 < info.largest_difference < 2e-2
    assert info.cosine > 0.999


def test_the_figures_are_what_they_are_called(tiny_fp16: TinyExport) -> None:
    artifact = tiny_fp16.half
    runner, torch_model = load(artifact, options=ONE_THREAD), reference(tiny_fp16.model, artifact)
    result = check_parity(runner, torch_model, IMAGES)
    found, wanted, same = [], [], []
    for cut in batches_of(COUNT):
        batch = IMAGES.images[cut]
        selection = runner.select(batch)
        with torch.no_grad():
            forced = torch_model.trace(torch.from_numpy(batch), keep=torch.from_numpy(selection.keep))
            free = torch_model.trace(torch.from_numpy(batch))
        assert free.keep is not None
        found += list(selection.logits)
        wanted += list(forced.logits.numpy())
        same += [np.array_equal(*pair) for pair in zip(free.keep.numpy(), selection.keep, strict=True)]
    pairs = list(zip(found, wanted, strict=True))
    assert result.info.largest_difference == pytest.approx(
        max(np.abs(a - b).max() / max(1.0, np.abs(b).max()) for a, b in pairs), rel=1e-5
    )
    assert result.info.cosine == pytest.approx(
        min(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs), rel=1e-5
    )
    assert result.info.top1_agreement == np.mean([a.argmax() == b.argmax() for a, b in pairs])
    assert result.info.kept_sets_equal_torch == np.mean(same)
    np.testing.assert_array_equal(result.logits, np.stack(found))


def test_one_image_is_enough(tiny: TinyExport) -> None:
    info = checked(tiny, tiny.half, ParityImages(IMAGES.images[:1], "one"))
    assert (info.images, info.batches) == (1, (1,))


@pytest.mark.parametrize("form", ["dense", "half"])
@pytest.mark.parametrize("part", ["patch_embed", "blocks.5.mlp.fc2", "head.bias", "blocks.0.attn.proj"])
def test_one_changed_weight_is_found(tiny: TinyExport, tmp_path: Path, form: str, part: str) -> None:
    artifact = copied(getattr(tiny, form), tmp_path)
    model = graph_of(artifact)
    change_weight(model, part, 0.5)
    with pytest.raises(ParityError, match=r"outputs of image \d differ from the reference's by"):
        checked(tiny, with_graph(artifact, model))


def test_a_selection_of_the_least_important_is_found(tiny: TinyExport, tmp_path: Path) -> None:
    artifact = copied(tiny.half, tmp_path)
    model = graph_of(artifact)
    position, select = next((i, n) for i, n in enumerate(model.graph.node) if n.op_type == "MassTokenSelect")
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    model.graph.node.insert(position, onnx.helper.make_node("Sub", ["half", "importance"], ["turned"]))
    select.input[0] = "turned"
    onnx.checker.check_model(model)
    with pytest.raises(ParityError, match="image 0 keeps other tokens"):
        checked(tiny, with_graph(artifact, model))


def test_a_selection_that_is_off_by_one_token_is_found(tiny: TinyExport, tmp_path: Path) -> None:
    artifact = copied(tiny.half, tmp_path)
    model = graph_of(artifact)
    (function,) = [function for function in model.functions if function.name == "MassTokenSelect"]
    (node,) = [node for node in function.node if list(node.output) == ["first_tie"]]
    assert node.op_type == "Less"
    above = next(node for node in function.node if list(node.output) == ["keep_patch"])
    above.input[:] = ["above", "above"]
    with pytest.raises(ParityError, match="keeps other tokens"):
        checked(tiny, with_graph(artifact, model))


def test_another_operating_point_is_found(tiny: TinyExport) -> None:
    pruning = tiny.half.manifest.pruning
    assert pruning is not None
    (default,) = pruning.points
    fewer = dataclasses.replace(default, point=dataclasses.replace(default.point, min_keep=17, max_keep=17))
    manifest = dataclasses.replace(tiny.half.manifest, pruning=dataclasses.replace(pruning, points=(fewer,)))
    with pytest.raises(ParityError, match="keeps other tokens"):
        checked(tiny, dataclasses.replace(tiny.half, manifest=manifest))


def test_wrong_counts_are_found(tiny: TinyExport, tmp_path: Path) -> None:
    artifact = copied(tiny.half, tmp_path)
    model = graph_of(artifact)
    for node in model.graph.node:
        node.output[:] = ["right" if name == "counts" else name for name in node.output]
        node.input[:] = ["right" if name == "counts" else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int32), "one"))
    model.graph.node.append(onnx.helper.make_node("Add", ["right", "one"], ["counts"]))
    with pytest.raises(ParityError, match="counts"):
        checked(tiny, with_graph(artifact, model))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["patch_embed", "blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight"])
def test_weights_that_are_no_numbers_are_named(tiny: TinyExport, tmp_path: Path, part: str, value: float) -> None:
    artifact = copied(tiny.half, tmp_path)
    model = graph_of(artifact)
    change_weight(model, part, value)
    with pytest.raises(ModelError, match=r"image 0 of the batch: its (importance scores|logits) are not finite"):
        checked(tiny, with_graph(artifact, model))


@pytest.mark.parametrize("form", ["dense", "half"])
def test_logits_that_are_no_numbers_are_named(tiny: TinyExport, tmp_path: Path, form: str) -> None:
    artifact = copied(getattr(tiny, form), tmp_path)
    model = graph_of(artifact)
    change_weight(model, "head.bias", np.nan)
    with pytest.raises(ModelError, match="logits"):
        checked(tiny, with_graph(artifact, model))


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("form", ["dense", "half"])
@pytest.mark.parametrize("part", ["head.bias", "blocks.3.norm1.weight", "patch_embed.proj.weight"])
def test_a_reference_that_is_no_number_agrees_with_nothing(tiny: TinyExport, form: str, part: str) -> None:
    artifact = getattr(tiny, form)
    vit = copy.deepcopy(tiny.model.vit)
    with torch.no_grad():
        vit.get_parameter(part).flatten()[0] = float("nan")
    spoilt = PrunableViT(vit, reference(tiny.model, artifact).pruning)
    with pytest.raises(ParityError, match="nan"):
        check_parity(load(artifact, options=ONE_THREAD), spoilt, IMAGES)


def test_the_reference_of_another_model_is_found(tiny: TinyExport) -> None:
    other = copy.deepcopy(tiny.model.vit)
    with torch.no_grad():
        other.blocks[4].mlp.fc1.weight[0, 0] += 1
    with pytest.raises(ParityError, match="differ"):
        check_parity(load(tiny.dense, options=ONE_THREAD), PrunableViT(other, None), IMAGES)


def test_outputs_of_another_shape_are_found(tiny: TinyExport) -> None:
    other = copy.deepcopy(tiny.model.vit)
    other.reset_classifier(3)
    with pytest.raises(ParityError, match=r"\[1, 5\], the reference's \[1, 3\]"):
        check_parity(load(tiny.dense, options=ONE_THREAD), PrunableViT(other, None), IMAGES)


@pytest.mark.parametrize(("task", "output"), [(None, "embeddings"), (Task.FEATURES, "features")])
def test_a_headless_model_is_compared_by_what_it_gives(task: Task | None, output: str, tmp_path: Path) -> None:
    vit = small_vit(num_classes=0, depth=1)
    dense, half = export(vit, ExportOptions(densities=(HALF,), output=tmp_path, task=task))
    for artifact in (dense, half):
        parity = artifact.manifest.parity
        assert parity.top1_agreement is None
        assert parity.cosine > 0.9999
        assert 0 <= parity.largest_difference < 1e-4
        assert artifact.manifest.outputs[0].name == output
        assert artifact.manifest.outputs[0].shape == ("batch", 32)


def test_many_tokens_agree_too(tmp_path: Path) -> None:
    """With 1,024 patch tokens scores lie close together: both sessions of the graph must select the same."""
    options = ExportOptions(densities=(HALF,), output=tmp_path, precision=Precision.FP16)
    _, half = export(small_vit(img_size=256, depth=1), options)
    assert half.manifest.parity.kept_sets_equal_torch is not None
