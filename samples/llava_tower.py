"""Exports the image tower of a model of LLaVA's layout and feeds its language model the kept tokens only.

    python samples/llava_tower.py

The model is small and has random weights. The same pruning is written out in torch on transformers' own modules: the
language model's logits have to be equal.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import sait_deploy
from sait_deploy.plugins.mass_token_select.reference import mass_token_select

PROMPT = (1, 7, 11, 5)
"""Numbers of the text's tokens, the image's stand before the last two."""


def make_model(image_size: int = 112, depth: int = 6) -> Any:
    """Returns a LlavaForConditionalGeneration with random weights: a CLIP tower of 14 px patches and a small Llama."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    vision = CLIPVisionConfig(
        **sizes, num_hidden_layers=depth, image_size=image_size, patch_size=14, initializer_factor=3.0
    )
    text = LlamaConfig(**sizes, num_hidden_layers=2, num_key_value_heads=2, vocab_size=64, initializer_range=0.2)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=63)
    model = LlavaForConditionalGeneration(config).eval()
    model.set_attn_implementation("eager")  # the other implementations return no weights
    return model


def prefill(model: Any, tokens: Tensor) -> Tensor:
    """Returns the language model's logits behind a prompt with an image's tokens [T, D] in it: [vocabulary]."""
    image = model.model.multi_modal_projector(tokens)[None]
    text = model.get_input_embeddings()(torch.tensor([PROMPT]))
    embeddings = torch.cat([text[:, :2], image, text[:, 2:]], dim=1)
    logits: Tensor = model(inputs_embeds=embeddings).logits[0, -1]
    return logits


def prune_in_torch(model: Any, image: Tensor, prune_at: int, mass: float) -> Tensor:
    """Returns the tokens [T, D] of an image [1, 3, H, W] that remain, by transformers' own modules."""
    tower = model.model.vision_tower
    layers = tower.encoder.layers[: len(tower.encoder.layers) + 1 + model.config.vision_feature_layer]
    x = tower.pre_layrnorm(tower.embeddings(image))
    for number, layer in enumerate(layers):
        attended, weights = layer.self_attn(layer.layer_norm1(x), attention_mask=None)
        x = x + attended
        if number == prune_at:
            seen = weights.mean(dim=(1, 2))[:, 1:]
            limits = np.array([[1, seen.shape[1]]], dtype=np.int32)
            importance = (seen / seen.sum(dim=1, keepdim=True)).numpy()
            keep, _ = mass_token_select(importance, np.array([mass], dtype=np.float32), limits, 1)
            x = x[:, torch.from_numpy(keep[0]).bool()]
        x = x + layer.mlp(layer.layer_norm2(x))
    return x[0, 1:]  # without the class token


def seconds(work: Any) -> float:
    """Returns the median of five runs."""
    found = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return sorted(found)[2]


@torch.inference_mode()
def compared(model: Any, image: Tensor, tokens: Tensor, prune_at: int, mass: float) -> str:
    """Compares the language model's logits with those of pruning in torch, and says what fewer tokens save.

    Raises:
        SystemExit: they differ.
    """
    wanted, whole = (prune_in_torch(model, image, prune_at, share) for share in (mass, 1.0))
    logits = prefill(model, wanted)
    difference, of_all = (
        float((prefill(model, fed) - logits).abs().max() / logits.abs().max()) for fed in (tokens, whole)
    )
    if tokens.shape != wanted.shape or difference > 1e-4:
        raise SystemExit(f"the logits differ by {difference:.1e} of the largest from those of pruning in torch")
    kept, every = (1000 * seconds(lambda fed=fed: prefill(model, fed)) for fed in (tokens, whole))
    return (
        f"{len(tokens)} of {len(whole)} image tokens, logits differ by {difference:.1e} of the largest "
        f"(those of all tokens by {of_all:.1e}), "
        f"prefill {kept:.1f} ms against {every:.1f} ms"
    )


@click.command()
@click.option("--mass", type=float, default=0.7, show_default=True)
def main(mass: float) -> None:
    """Export, feed, compare, and say what is saved."""
    model = make_model()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "llava")
        loaded = sait_deploy.load_model(str(Path(folder) / "llava"), sait_deploy.WeightsRequest("file"))
        options = sait_deploy.ExportOptions(points=(sait_deploy.mass_point(mass),), output=Path(folder) / "artifacts")
        _, artifact = sait_deploy.export(loaded, options)
        runner = sait_deploy.load(artifact)
        images = np.random.default_rng(0).standard_normal((2, 3, *loaded.info.image_size)).astype(np.float32)
        answer, prune_at = runner.run(images), artifact.manifest.prune_at
    assert prune_at is not None
    for number, image in enumerate(torch.from_numpy(images)):
        tokens = torch.from_numpy(answer.tokens[answer.cu_seqlens[number] : answer.cu_seqlens[number + 1]])
        click.echo(f"image {number}: {compared(model, image[None], tokens, prune_at, mass)}")


if __name__ == "__main__":
    main()
