"""Small models of every supported family, with weights that leave no parameter at a value a bug could hide behind."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from sait_deploy.models.class_and_mean import ClassAndMeanViT
from sait_deploy.models.lvvit import LVViT
from sait_deploy.plugins.mass_token_select.spec import RESOLUTION
from sait_deploy.tokens import Score
from tests import plain

# On matrices this small, waiting for a second thread takes longer than the work.
torch.set_num_threads(1)

Model: TypeAlias = VisionTransformer | Eva
Make: TypeAlias = Callable[[], Model]

HALF: Final = Decimal("0.5")
_SIZES: Final = {"embed_dim": 48, "depth": 3, "num_heads": 3}


def randomised(vit: Any, seed: int = 0) -> Any:
    """Gives every parameter a value of its own: LayerScale, biases and tokens too, and attention that has edges."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "gamma" in name:
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
            elif ("norm" in name or ".bn" in name) and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif any(part in name for part in ("token", "pos_embed", "latent")):
                parameter.copy_(0.5 * noise)
            elif parameter.ndim >= 2:
                parameter.copy_(1.3 * noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.2 * noise)
    return vit.eval()


def small_vit(kind: type[VisionTransformer] = VisionTransformer, **options: Any) -> VisionTransformer:
    """A plain vision transformer of 16 patch tokens, width 32, depth 3; options replace its arguments."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 10}
    return randomised(kind(**{**sizes, **options}))


def _shrunk(name: str, **options: Any) -> Make:
    """timm's model of that name, with its own arguments but for the sizes: 16 patch tokens."""
    return lambda: randomised(
        timm.create_model(name, **{"img_size": 64, **_SIZES, **options}), zlib.crc32(name.encode())
    )


def small_lvvit(**options: Any) -> LVViT:
    """An LV-ViT of 16 patch tokens whose batch norms have seen images; options replace its arguments."""
    model = small_vit(LVViT, **{"skip_lam": 2, "stem_width": 6, **options})
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + ("var" in name))
    return model


_MAKERS: Final[dict[str, Make]] = {
    "vit": _shrunk("vit_tiny_patch16_224"),
    "deit": _shrunk("deit_tiny_patch16_224"),
    "deit-distilled": _shrunk("deit_tiny_distilled_patch16_224"),
    "deit3": _shrunk("deit3_small_patch16_224"),
    "dinov2-registers": _shrunk("vit_small_patch14_reg4_dinov2", img_size=56),
    "dinov2-registers-swiglu": _shrunk("vit_giant_patch14_reg4_dinov2", img_size=56),
    "clip-quickgelu": _shrunk("vit_base_patch16_clip_quickgelu_224"),
    "siglip": _shrunk("vit_base_patch16_siglip_224"),
    "siglip-average": _shrunk("vit_base_patch16_siglip_gap_224", num_classes=7),
    "aimv2-rmsnorm-swiglu": _shrunk("aimv2_large_patch14_224", img_size=56),
    "beit3-inner-norms": _shrunk("beit3_base_patch16_224"),
    "average-register": _shrunk("vit_so150m2_patch16_reg1_gap_256"),
    "average-no-class-token": _shrunk("vit_base_patch16_gap_224"),
    "map-with-prefix": _shrunk("test_vit3"),
    "rmsnorm-register": _shrunk("test_vit4"),
    "dynamic-image-size": _shrunk("test_vit"),
    "qk-norm": lambda: small_vit(qk_norm=True),
    "no-qkv-bias": lambda: small_vit(qkv_bias=False, proj_bias=False),
    "no-position-embedding": lambda: small_vit(pos_embed="none"),
    "no-final-norm": lambda: small_vit(final_norm=False),
    "average-no-fc-norm": lambda: small_vit(global_pool="avg", fc_norm=False),
    "average-with-prefix": lambda: small_vit(global_pool="avg", pool_include_prefix=True, reg_tokens=2),
    "average-and-largest": lambda: small_vit(global_pool="avgmax"),
    "largest": lambda: small_vit(global_pool="max"),
    "map-class-token": lambda: small_vit(global_pool="map", reg_tokens=1),
    "headless": lambda: small_vit(num_classes=0),
    "one-head": lambda: small_vit(num_heads=1),
    "wide-image": lambda: small_vit(img_size=(24, 48)),
    "odd-image-size": lambda: small_vit(img_size=40),
    "class-and-mean": lambda: small_vit(ClassAndMeanViT),
    "class-and-mean-registers": lambda: small_vit(ClassAndMeanViT, reg_tokens=3, no_embed_class=True),
    "lvvit": small_lvvit,
    "lvvit-class-token-alone": lambda: small_lvvit(skip_lam=3, reads_patches=False),
    "eva": _shrunk("eva_giant_patch14_224", img_size=56),
    "eva02-rotary-swiglu": _shrunk("eva02_base_patch14_224", img_size=56, num_classes=9),
    "eva02-inner-norms": _shrunk("eva02_base_patch16_clip_224"),
    "eva02-post-norm": _shrunk("eva02_enormous_patch14_clip_224", img_size=56),
    "dinov3": _shrunk("vit_small_patch16_dinov3", num_classes=8),
    "dinov3-headless-swiglu": _shrunk("vit_small_plus_patch16_dinov3_qkvb"),
    "sapiens2-grouped-queries": _shrunk("vit_base_patch16_sapiens2", num_kv_heads=(3, 1, 3), num_classes=8),
    "rope-mixed": _shrunk("vit_small_patch16_rope_mixed_ape_224"),
    "rope-register-no-class-token": _shrunk("vit_medium_patch16_rope_reg1_gap_256"),
    "perception-encoder-map": _shrunk("vit_pe_core_tiny_patch16_384"),
    "perception-encoder-no-norm": _shrunk("vit_pe_spatial_tiny_patch16_512"),
    "perception-encoder-no-prefix": _shrunk("vit_pe_core_gigantic_patch14_448", img_size=56),
}
FAMILIES: Final = tuple(_MAKERS)


@functools.cache
def family(name: str) -> Model:
    """The small model of a family: made once, and never to be changed."""
    return _MAKERS[name]()


def has_class_token(vit: Model) -> bool:
    """Whether a model's first prefix token is a class token."""
    return vit.cls_token is not None


FAMILY_SCORES: Final = [
    (name, score) for name in FAMILIES for score in Score if score is Score.MEAN or has_class_token(family(name))
]
"""Each model with each score that it has."""


def images_for(vit: Model, count: int = 3, seed: int = 0) -> torch.Tensor:
    """Random normalised images, float32 [count, 3, H, W]."""
    height, width = vit.patch_embed.img_size
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def random_batch(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """Random normalised images, float32."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def relative_difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference, relative to the largest wanted value of the row or to 1."""
    scale = wanted.abs().amax(dim=1, keepdim=True).clamp(min=1)
    return float(((found - wanted).abs() / scale).max())


def importance_of(vit: Model, block: int, score: Score, images: torch.Tensor) -> torch.Tensor:
    """Importance [B, N] by its definition, image by image."""
    prefix, rows = vit.num_prefix_tokens, []
    for weights in plain.attention_weights(vit, block, images):
        seen = weights[:, :1] if score is Score.CLS else weights
        column = seen.reshape(-1, seen.shape[-1]).mean(dim=0)[prefix:]
        rows.append(column / column.sum())
    return torch.stack(rows)


def kept_tokens(importance: torch.Tensor, kept: int) -> list[list[int]]:
    """Patch indices each image keeps, ascending: highest rounded importance first, ties by lower index."""
    scores = torch.round(importance * RESOLUTION).to(torch.int64).tolist()
    return [sorted(sorted(range(len(row)), key=lambda i, row=row: (-row[i], i))[:kept]) for row in scores]  # type: ignore[misc]


def plainly_pruned(vit: Model, images: torch.Tensor, prune_at: int, keep: list[list[int]]) -> torch.Tensor:
    """Logits [B, classes] by timm's own modules, image by image: each may keep another number of patches."""
    return torch.cat(
        [plain.pruned(vit, image[None], prune_at, row)[0] for image, row in zip(images, keep, strict=True)]
    )


def plain_features(vit: Model, images: torch.Tensor, prune_at: int, keep: list[list[int]]) -> torch.Tensor:
    """Normalised tokens [B, P+N, D] likewise, the dropped ones as they were when dropped."""
    return torch.cat(
        [plain.pruned(vit, image[None], prune_at, row)[1] for image, row in zip(images, keep, strict=True)]
    )


def keep_of(vit: Model, chosen: list[list[int]]) -> torch.Tensor:
    """The int32 [B, P+N] that keeps the prefix and these patches of each image."""
    keep = torch.zeros(len(chosen), vit.num_prefix_tokens + vit.patch_embed.num_patches, dtype=torch.int32)
    for row, patches in zip(keep, chosen, strict=True):
        row[[*range(vit.num_prefix_tokens), *(vit.num_prefix_tokens + i for i in patches)]] = 1
    return keep


def patches_of(vit: Model, keep: torch.Tensor | NDArray[np.int32]) -> list[list[int]]:
    """Patch indices each image keeps, ascending, of an int32 [B, P+N]."""
    return [row[vit.num_prefix_tokens :].nonzero().flatten().tolist() for row in torch.as_tensor(keep)]


def exactly(counts: Sequence[int]) -> torch.Tensor:
    """Limits int32 [B, 2] at which each image keeps exactly so many patches, whatever its mass."""
    return torch.tensor([[count, count] for count in counts], dtype=torch.int32).reshape(-1, 2)


def save_weights(vit: Model, path: Path) -> Path:
    """Writes a model's weights as safetensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in vit.state_dict().items()}, path)
    return path


def some_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict of no model."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "head.weight": torch.randn(3, 4, generator=generator),
        "head.bias": torch.randn(3, generator=generator),
        "steps": torch.tensor(7),
    }


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Names, values and dtypes alike."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype
