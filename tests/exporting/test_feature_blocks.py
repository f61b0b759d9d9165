"""Tokens of several blocks as outputs, for heads of detection and segmentation, with what was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from sait_deploy.artifacts.folder import Artifact, open_artifact
from sait_deploy.artifacts.manifest import block_features
from sait_deploy.errors import ArtifactError, InvalidArgument, ParityError
from sait_deploy.exporting.parity import ParityImages, check_parity
from sait_deploy.exporting.plan import ExportOptions, plan_exports
from sait_deploy.models.registry import LoadedModel
from sait_deploy.runtime import load
from sait_deploy.runtime.batches import run_all
from sait_deploy.runtime.parts import open_cut
from tests.exported import copied, graph_of, reference, with_graph
from tests.exporting.exports import ONE_THREAD
from tests.tiny import random_batch

COUNT, TOKENS, WIDTH = 5, 17, 64
BLOCKS = (0, 1, 3)
NAMES = tuple(map(block_features, BLOCKS))
"""Before the block pruned in, that block, and one behind it."""

IMAGES = random_batch((COUNT, 3, 64, 64))
EACH: dict[str, Any] = {"mass": [0.0, 0.3, 0.5, 0.7, 1.0], "max_keep": [16, 16, 4, 16, 16]}
FORMS = {"dense": 0, "density": 1, "adaptive": 2}


def timms(model: LoadedModel, images: np.ndarray[Any, Any] = IMAGES) -> list[np.ndarray[Any, Any]]:
    """The blocks' tokens as timm returns them, all kept, class token first."""
    with torch.no_grad():
        found = model.vit.forward_intermediates(
            torch.from_numpy(images),
            indices=list(BLOCKS),
            return_prefix_tokens=True,
            norm=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
    return [torch.cat([prefix, patches], 1).numpy() for patches, prefix in found]


def test_names_and_manifests_say_which(blocked: list[Artifact]) -> None:
    assert [artifact.path.name for artifact in blocked] == [
        f"test_vit-64px-blocks_0_1_3-{form}" for form in ("dense", "density0.5", "adaptive")
    ]
    for artifact in blocked:
        pruned = artifact.manifest.pruning is not None
        assert artifact.manifest.output_names == ("logits", *NAMES, *(["keep", "counts"] if pruned else []))
        assert artifact.manifest.feature_blocks == BLOCKS and artifact.manifest.returns_tokens
        assert {tensor.shape for tensor in artifact.manifest.outputs[1:4]} == {("batch", TOKENS, WIDTH)}
        assert [value.name for value in graph_of(artifact).graph.output] == list(artifact.manifest.output_names)
        assert open_artifact(artifact.path).manifest == artifact.manifest


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch", "openvino"])
def test_dense_ones_are_those_of_timm(blocked: list[Artifact], random_model: LoadedModel, runtime: str) -> None:
    dense, _, adaptive = (load(artifact, runtime, ONE_THREAD) for artifact in blocked)
    expected = timms(random_model)
    for output in (dense.run(IMAGES), adaptive.run(IMAGES, mass=1)):
        for name, wanted in zip(NAMES, expected, strict=True):
            np.testing.assert_allclose(output.further[name], wanted, rtol=1e-3, atol=1e-4, err_msg=name)
    assert set(dense.run(IMAGES).further) == set(NAMES)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch", "openvino"])
@pytest.mark.parametrize("form", [1, 2])
def test_dropped_tokens_stay_what_they_were_when_dropped(
    blocked: list[Artifact], random_model: LoadedModel, form: int, runtime: str
) -> None:
    """Before pruning all tokens are dense's; from the block pruned in on, dropped ones are after its attention."""
    choice = EACH if form == 2 else {}
    output, vit = load(blocked[form], runtime, ONE_THREAD).run(IMAGES, **choice), random_model.vit
    keep = output.further["keep"]
    assert keep.dtype == np.int32 and keep.shape == (COUNT, TOKENS)
    assert keep[:, 0].all() and (keep[:, 1:].sum(1) == output.kept).all()
    with torch.no_grad():
        x = vit.blocks[0](vit.norm_pre(vit._pos_embed(vit.patch_embed(torch.from_numpy(IMAGES)))))
        block = vit.blocks[1]
        dropped = vit.norm(x + block.ls1(block.attn(block.norm1(x)))).numpy()
    before, own, behind = (output.further[name] for name in NAMES)
    dense_before, dense_own, _ = timms(random_model)
    np.testing.assert_allclose(before, dense_before, rtol=1e-3, atol=1e-4)
    kept = keep.astype(bool)
    # Behind the attention of the block pruned in follows its MLP, on each kept token alone.
    np.testing.assert_allclose(own[kept], dense_own[kept], rtol=1e-3, atol=1e-4)
    for found in (own, behind):
        np.testing.assert_allclose(found[~kept], dropped[~kept], rtol=1e-3, atol=1e-4)
        assert (np.abs(found[kept] - dropped[kept]).max(axis=1) > 1e-2).all()


def test_a_batch_of_any_size_has_them(blocked: list[Artifact]) -> None:
    runner = load(blocked[1], options=ONE_THREAD)
    whole, one = run_all(runner, IMAGES), runner.run(IMAGES[:1])
    for name in (*NAMES, "keep"):
        np.testing.assert_allclose(whole.further[name][:1], one.further[name], rtol=1e-4, atol=1e-5)


def test_cut_at_its_seam_each_part_returns_its_own(blocked: list[Artifact]) -> None:
    """The tokens before pruning leave the stem, so that nothing further crosses."""
    cut = open_cut(blocked[2], "onnxruntime", ONE_THREAD)
    assert set(cut.trunk_inputs) == {"tokens", "cu_seqlens", "kept", "lanes", "guard"}
    limits = np.array([[1, 16]] * COUNT, np.int32)
    stem = cut.stem.run_part({"images": IMAGES, "mass": np.full(COUNT, 0.5, np.float32), "keep_limits": limits})
    assert {NAMES[0], "keep", "counts"} <= set(stem)
    rows = stem["rows"][: stem["cu_seqlens"][-1]]
    given = {**stem, "kept": rows, "lanes": np.arange(stem["counts"].max(), dtype=np.int32)}
    trunk = cut.trunk.run_part({name: given[name] for name in cut.trunk_inputs})
    whole = load(blocked[2], options=ONE_THREAD).run(IMAGES, mass=0.5)
    for name, part in ((NAMES[0], stem), (NAMES[1], trunk), (NAMES[2], trunk), ("keep", stem)):
        np.testing.assert_allclose(part[name], whole.further[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_golden_file_holds_them_too(blocked: list[Artifact]) -> None:
    for artifact in blocked:
        golden = artifact.golden()
        output = load(artifact, options=ONE_THREAD).run(golden.images)
        assert golden.further.keys() == output.further.keys()
        for name, array in golden.further.items():
            np.testing.assert_allclose(array, output.further[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_parity_compares_each(blocked: list[Artifact], random_model: LoadedModel, tmp_path: Path, form: int) -> None:
    artifact = copied(blocked[form], tmp_path)
    model = graph_of(artifact)
    for node in model.graph.node:
        node.output[:] = ["right" if name == NAMES[2] else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    model.graph.node.append(onnx.helper.make_node("Sub", ["right", "half"], [NAMES[2]]))
    images, wanted = ParityImages(IMAGES, "random numbers"), reference(random_model, artifact)
    check_parity(load(artifact, options=ONE_THREAD), wanted, images)
    with pytest.raises(ParityError, match="the outputs of image 0 differ from the reference's by"):
        check_parity(load(with_graph(artifact, model), options=ONE_THREAD), wanted, images)


@pytest.mark.parametrize("blocks", [(12,), (0, -1)])
def test_blocks_that_the_model_lacks_are_refused(random_model: LoadedModel, blocks: tuple[int, ...]) -> None:
    depth = random_model.info.geometry.depth
    with pytest.raises(InvalidArgument, match=f"features of block {min(blocks) or 12}: the model has {depth} ") as told:
        plan_exports(random_model, ExportOptions(feature_blocks=blocks))
    assert told.value.hint == f"give 0 to {depth - 1}"


def test_each_block_counts_once_and_makes_another_artifact(random_model: LoadedModel) -> None:
    options = ExportOptions(feature_blocks=(3, 0, 3))
    assert options.feature_blocks == (0, 3)
    ids = [plan_exports(random_model, one)[0].id for one in (ExportOptions(), options, ExportOptions(outputs="logits"))]
    assert ids[0] == ids[2] != ids[1]


@pytest.mark.parametrize("name", ["block7000_features", "block03_features"])
def test_a_manifest_of_a_block_that_cannot_be_is_refused(blocked: list[Artifact], tmp_path: Path, name: str) -> None:
    artifact = copied(blocked[0], tmp_path)
    manifest = artifact.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"{NAMES[0]}"', f'"{name}"'))
    with pytest.raises(ArtifactError, match=f"its outputs are .*{name}"):
        open_artifact(artifact.path)
