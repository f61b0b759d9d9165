"""Hugging Face's and JAX's layouts of vision transformers answer as timm's own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer, _load_weights
from torch import Tensor

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import ModelError
from sait_deploy.models.registry import WeightsRequest, load_model
from tests.tiny import assert_same, randomised

TO_HUGGING_FACE = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^dist_token$", "embeddings.distillation_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.(\d+)\.attn\.proj", r"encoder.layer.\1.attention.output.dense"),
    (r"^blocks\.(\d+)\.mlp\.fc1", r"encoder.layer.\1.intermediate.dense"),
    (r"^blocks\.(\d+)\.mlp\.fc2", r"encoder.layer.\1.output.dense"),
    (r"^blocks\.(\d+)\.norm1", r"encoder.layer.\1.layernorm_before"),
    (r"^blocks\.(\d+)\.norm2", r"encoder.layer.\1.layernorm_after"),
)


OF_DINOV2 = (
    *TO_HUGGING_FACE[:5],
    (r"^blocks\.(\d+)\.attn\.proj", r"encoder.layer.\1.attention.output.dense"),
    (r"^blocks\.(\d+)\.ls(\d)\.gamma", r"encoder.layer.\1.layer_scale\2.lambda1"),
    (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
)


def hugging_face(
    vit: VisionTransformer, prefix: str, heads: dict[str, str], rules: tuple[tuple[str, str], ...] = TO_HUGGING_FACE
) -> dict[str, Tensor]:
    """The tensors of a model as Hugging Face's class of the same model saves them."""
    named: dict[str, Tensor] = {}
    for name, tensor in vit.state_dict().items():
        module, _, part = name.rpartition(".")
        if module in heads:
            named[f"{heads[module]}.{part}"] = tensor
        elif block := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv", module):
            for which, chunk in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                named[f"{prefix}encoder.layer.{block[1]}.attention.attention.{which}.{part}"] = chunk.clone()
        else:
            for pattern, new in rules:
                name = re.sub(pattern, new, name)  # noqa: PLW2901
            named[prefix + name] = tensor
    return named


@pytest.mark.parametrize(
    ("name", "prefix", "heads"),
    [
        ("vit_tiny_patch16_224", "vit.", {"head": "classifier"}),
        ("vit_tiny_patch16_224", "model.vit.", {"head": "model.classifier"}),
        (
            "deit_tiny_distilled_patch16_224",
            "deit.",
            {"head": "cls_classifier", "head_dist": "distillation_classifier"},
        ),
    ],
)
def test_hugging_faces_names_are_read(tmp_path: Path, name: str, prefix: str, heads: dict[str, str]) -> None:
    vit = randomised(timm.create_model(name, num_classes=5))
    tensors = hugging_face(vit, prefix, heads)
    assert f"{prefix}encoder.layer.0.attention.attention.query.weight" in tensors
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "model.safetensors")
    loaded = load_model(name, WeightsRequest(WeightsSource.FILE, tmp_path))
    assert loaded.weights.notes == (f"weights {tmp_path}: model.safetensors is read",)
    assert_same(dict(loaded.vit.state_dict()), dict(vit.state_dict()))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(loaded.vit(images), vit(images))


def test_hugging_faces_names_of_dinov2_are_read(tmp_path: Path) -> None:
    vit = randomised(timm.create_model("vit_small_patch14_dinov2", img_size=56))
    tensors = hugging_face(vit, "", {}, OF_DINOV2)
    tensors["embeddings.mask_token"] = torch.ones(1, 384)
    torch.save(tensors, tmp_path / "w.bin")
    loaded = load_model("vit_small_patch14_dinov2", WeightsRequest(WeightsSource.FILE, tmp_path / "w.bin"), 56)
    assert_same(dict(loaded.vit.state_dict()), dict(vit.state_dict()))


def test_hugging_faces_pooler_is_left_out_and_a_missing_part_is_named(tmp_path: Path) -> None:
    vit = randomised(timm.create_model("vit_tiny_patch16_224", num_classes=0))
    tensors = hugging_face(vit, "", {})
    torch.save({**tensors, "pooler.dense.weight": torch.ones(192, 192)}, tmp_path / "w.bin")
    request = WeightsRequest(WeightsSource.FILE, tmp_path / "w.bin")
    assert_same(dict(load_model("vit_tiny_patch16_224", request).vit.state_dict()), dict(vit.state_dict()))
    del tensors["encoder.layer.3.attention.attention.key.weight"]
    torch.save(tensors, tmp_path / "w.bin")
    with pytest.raises(ModelError, match=r"blocks\.3\.attn\.qkv\.weight is missing"):
        load_model("vit_tiny_patch16_224", request)


def jax_arrays(vit: VisionTransformer, prefix: str) -> dict[str, NDArray[np.float32]]:
    """Random arrays by the names and layouts of JAX's checkpoints, of a model's sizes."""
    draw, depth, width, classes = np.random.default_rng(0), len(vit.blocks), vit.embed_dim, vit.num_classes
    heads, hidden, size = vit.blocks[0].attn.num_heads, vit.blocks[0].mlp.fc1.out_features, width
    block = {
        "LayerNorm_0/scale": (size,),
        "LayerNorm_0/bias": (size,),
        "LayerNorm_2/scale": (size,),
        "LayerNorm_2/bias": (size,),
        **{
            f"MultiHeadDotProductAttention_1/{n}/kernel": (size, heads, size // heads)
            for n in ("query", "key", "value")
        },
        **{f"MultiHeadDotProductAttention_1/{n}/bias": (heads, size // heads) for n in ("query", "key", "value")},
        "MultiHeadDotProductAttention_1/out/kernel": (heads, size // heads, size),
        "MultiHeadDotProductAttention_1/out/bias": (size,),
        "MlpBlock_3/Dense_0/kernel": (size, hidden),
        "MlpBlock_3/Dense_0/bias": (hidden,),
        "MlpBlock_3/Dense_1/kernel": (hidden, size),
        "MlpBlock_3/Dense_1/bias": (size,),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "embedding/kernel": (16, 16, 3, size),
        "embedding/bias": (size,),
        "cls": (1, 1, size),
        "Transformer/posembed_input/pos_embedding": (1, 197, size),
        "Transformer/encoder_norm/scale": (size,),
        "Transformer/encoder_norm/bias": (size,),
        "head/kernel": (size, classes),
        "head/bias": (classes,),
        **{f"Transformer/encoderblock_{i}/{name}": shape for i in range(depth) for name, shape in block.items()},
    }
    return {prefix + name: draw.standard_normal(shape, dtype=np.float32) / 8 for name, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_jaxs_arrays_are_read_as_timm_reads_them(tmp_path: Path, prefix: str) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=5).eval()
    arrays = jax_arrays(vit, prefix)
    np.savez(tmp_path / "w.npz", **arrays, **({"opt/state/step": np.array(3)} if prefix else {}))
    _load_weights(vit, str(tmp_path / "w.npz"))
    loaded = load_model("vit_tiny_patch16_224", WeightsRequest(WeightsSource.FILE, tmp_path / "w.npz"))
    assert_same(dict(loaded.vit.state_dict()), dict(vit.state_dict()))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(loaded.vit(images), vit(images))


def test_a_layer_of_jaxs_model_that_timms_has_not_is_refused(tmp_path: Path) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=5)
    extra = {"pre_logits/kernel": np.ones((192, 192), np.float32)}
    np.savez(tmp_path / "w.npz", **jax_arrays(vit, ""), **extra)
    with pytest.raises(ModelError, match="pre_logits"):
        load_model("vit_tiny_patch16_224", WeightsRequest(WeightsSource.FILE, tmp_path / "w.npz"))
    np.savez(tmp_path / "w.npz", **{k: a for k, a in jax_arrays(vit, "").items() if "block_11" not in k})
    with pytest.raises(ModelError, match=r"blocks\.11\.norm1\.weight is missing"):
        load_model("vit_tiny_patch16_224", WeightsRequest(WeightsSource.FILE, tmp_path / "w.npz"))
