"""Manifests that choose a network or a model: names of a hub, and of models much larger than the artifact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.hostile.case import Case, Door
from tests.hostile.world import ADAPTIVE

_OF: Final = (ADAPTIVE, "--images", "images")
_BENCH: Final = (
    "bench",
    ADAPTIVE,
    "--runtime",
    "torch",
    "--no-accuracy",
    "--duration",
    "0.01",
    "--batch",
    "1",
    "--images",
    "images",
    "--warmup",
    "0",
)
_DOORS: Final = (
    Door("inspect", ("inspect", "--check", ADAPTIVE), "", True),
    Door("predict", ("predict", "image.png", "--artifact", ADAPTIVE, "--runtime", "torch"), "", True),
    Door("bench", _BENCH, "", True),
    Door("evaluate", ("evaluate", *_OF, "--control", "0.5"), "", True),
    Door("tune", ("tune", *_OF, "--max-disagreement", "50", "--search", "prune-at"), "", True),
)

_GIANT: Final = "vit_gigantic_patch14_clip_224"
_FOLDER: Final = {
    "architectures": ["ViTModel"],
    "model_type": "vit",
    "hidden_size": 8192,
    "num_hidden_layers": 100,
    "num_attention_heads": 64,
    "intermediate_size": 32768,
}

SOURCES: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "hub": ({"made_from": "hf-hub:someone/a-vit"}, {"source": "pretrained"}),
    "hub-by-place": ({"name": "someone/a-vit"}, {"source": "pretrained"}),
    "hub-as-file": ({"made_from": "someone/a-vit"}, {"source": "file", "origin": "someone/a-vit"}),
    "hub-of-timm": ({"name": "hf-hub:timm/vit_tiny_patch16_224.augreg_in21k"}, {"source": "pretrained"}),
    "timm": ({"name": "test_vit.r160_in1k"}, {"source": "pretrained"}),
    "address": ({"name": "vit_giant_patch16_gap_224.in22k_ijepa"}, {"source": "pretrained"}),
    "no-family": ({"name": "resnet50"}, {"source": "pretrained"}),
    "giant-random": ({"name": _GIANT}, {"source": "random"}),
    "giant-pretrained": ({"name": f"{_GIANT}.laion2b"}, {"source": "pretrained"}),
    "giant-file": ({"name": _GIANT}, {"source": "file", "origin": "weights.safetensors"}),
    "giant-said": ({"name": _GIANT, "parameters": 2 * 10**9}, {"source": "random"}),
    "giant-folder": ({"made_from": "giant"}, {"source": "file", "origin": "giant"}),
    "device": ({}, {"source": "file", "origin": "/dev/zero"}),
    "account": ({}, {"source": "file", "origin": "/etc/passwd"}),
    "here": ({"made_from": "."}, {"source": "file", "origin": "."}),
    "link": ({"made_from": "local-dir:/"}, {"source": "file", "origin": "/"}),
}


def cases() -> Iterator[Case]:
    """Yields every source at every door that asks torch for the model."""
    for name, (model, weights) in SOURCES.items():

        def change(folder: Path, model: dict[str, Any] = model, weights: dict[str, Any] = weights) -> None:
            file = folder / ADAPTIVE / "manifest.json"
            data = json.loads(file.read_text(encoding="utf-8"))
            data["model"] |= model
            data["weights"] |= weights
            file.write_text(json.dumps(data), encoding="utf-8")
            (folder / "giant").mkdir()
            (folder / "giant" / "config.json").write_text(json.dumps(_FOLDER), encoding="utf-8")
            (folder / "giant" / "model.safetensors").write_bytes(bytes(100))

        for door in _DOORS:
            # An evaluation on ONNX Runtime leaves out what needs torch, and says so.
            harmless = door.name == "evaluate"
            yield Case(f"source/{name}/{door.name}", "source", door, change, harmless)
