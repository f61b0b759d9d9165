"""Image towers give the tokens that transformers' language models read, and what is no tower is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sait_deploy.artifacts.manifest import Head, Task
from sait_deploy.artifacts.tower_info import SelectStrategy, TowerChoice
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.models.embedder import for_task
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning
from sait_deploy.models.registry import load_model
from sait_deploy.models.tower_tokens import Prefix, tower_tokens
from sait_deploy.models.traced import Traced
from sait_deploy.tokens import Score
from tests.exporting.exports import described
from tests.models.transformers_folders import OWN, TEXT, TOLERANCE, VIT, change, images_of, written
from tests.tiny import randomised, relative_difference, small_vit

LLAMA = {**TEXT, "num_key_value_heads": 2}
LAYER = "vision_feature_layer"


def dense(loaded: Any, images: torch.Tensor) -> Traced:
    with torch.inference_mode():
        return PrunableViT(loaded.vit, None, task=Task.TOKENS, tower=loaded.info.tower).trace(images)


@pytest.mark.parametrize("strategy", SelectStrategy)
@pytest.mark.parametrize("layer", [-2, -1, 1])
def test_layers_of_clip_are_hidden_states(
    transformers: Any, tmp_path: Path, layer: int, strategy: SelectStrategy
) -> None:
    reference = written(transformers, "clip-vision", tmp_path)
    tower = for_task(load_model(str(tmp_path), OWN), Task.TOKENS, tower=TowerChoice(layer, strategy))
    images = images_of(tower)
    with torch.inference_mode():
        wanted = reference(images, output_hidden_states=True).hidden_states[layer]
    wanted = wanted[:, 1:] if strategy is SelectStrategy.DEFAULT else wanted
    found = dense(tower, images)
    assert relative_difference(found.logits.reshape(wanted.shape), wanted) < TOLERANCE
    assert found.cu_seqlens is not None and found.positions is not None
    assert found.cu_seqlens.tolist() == [number * wanted.shape[1] for number in range(4)]
    assert found.positions.tolist() == 3 * list(range(16 - wanted.shape[1], 16))
    assert tower.info.geometry.depth == (2 if layer == -1 else 1)
    assert tower.info.classes == 0


def test_without_a_layer_siglip_gives_its_last_hidden_state(transformers: Any, tmp_path: Path) -> None:
    reference = written(transformers, "siglip-vision", tmp_path)
    tower = for_task(load_model(str(tmp_path), OWN), Task.TOKENS)
    images = images_of(tower)
    with torch.inference_mode():
        wanted = reference(images).last_hidden_state
    assert relative_difference(dense(tower, images).logits.reshape(wanted.shape), wanted) < TOLERANCE
    assert "last norm" in tower.weights.notes[-1]


def test_a_siglip_without_pooling_is_a_tower_alone(transformers: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.SiglipVisionConfig(**VIT, vision_use_head=False)
    reference = randomised(transformers.SiglipVisionModel(config))
    reference.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), OWN)
    tower = for_task(loaded)
    images = images_of(tower)
    with torch.inference_mode():
        wanted = reference(images).last_hidden_state
    assert relative_difference(dense(tower, images).logits.reshape(wanted.shape), wanted) < TOLERANCE
    with pytest.raises(InvalidArgument, match="gives tokens alone"):
        for_task(loaded, Task.EMBED)


def llava(transformers: Any, folder: Path, vision: Any, **values: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=transformers.LlamaConfig(**LLAMA), image_token_index=49, **values
    )
    model = randomised(transformers.LlavaForConditionalGeneration(config))
    model.save_pretrained(folder)
    return model


def test_the_folder_of_a_llava_says_layer_and_strategy(transformers: Any, tmp_path: Path) -> None:
    values = {LAYER: -2, "vision_feature_select_strategy": "default"}
    model = llava(transformers, tmp_path, transformers.CLIPVisionConfig(**VIT), **values)
    tower = for_task(load_model(str(tmp_path), OWN))
    assert tower.info.tower == TowerChoice(-2, SelectStrategy.DEFAULT)
    images = images_of(tower)
    with torch.inference_mode():
        wanted = model.get_image_features(images, **values, return_dict=True).pooler_output
        found = model.model.multi_modal_projector(dense(tower, images).logits)
    assert relative_difference(found, torch.cat(list(wanted))) < TOLERANCE
    with pytest.raises(InvalidArgument, match="made an image tower already"):
        for_task(tower, Task.EMBED)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({LAYER: [-2, -1]}, r"vision_feature_layer \[-2, -1\]"),
        ({"vision_feature_select_strategy": "cls"}, "strategy 'cls'"),
        ({"vision_feature_select_strategy": "default"}, "SigLIP has none"),
        ({"vision_config": {"model_type": "pixtral"}}, "LlavaForConditionalGeneration.*not served"),
    ],
)
def test_a_llava_that_takes_other_tokens_is_refused(
    transformers: Any, tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    vision = transformers.SiglipVisionConfig(**VIT, vision_use_head=False)
    llava(transformers, tmp_path, vision, vision_feature_select_strategy="full")
    assert for_task(load_model(str(tmp_path), OWN)).info.tower == TowerChoice(-2, SelectStrategy.FULL)
    change(tmp_path, **values)
    with pytest.raises(ModelError, match=said) as caught:
        load_model(str(tmp_path), OWN)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("architecture", "kind", "said"),
    [
        ("Idefics2ForConditionalGeneration", "idefics2", "resampler"),
        ("Blip2ForConditionalGeneration", "blip-2", "resampler"),
        ("IdeficsForVisionText2Text", "idefics", "resampler"),
        ("Qwen2VLForConditionalGeneration", "qwen2_vl", "merges neighbouring patches"),
        ("Idefics3ForConditionalGeneration", "idefics3", "merges neighbouring patches"),
        ("MllamaForConditionalGeneration", "mllama", "cross-attention"),
    ],
)
def test_towers_whose_tokens_are_resampled_or_merged_are_refused_by_name(
    transformers: Any, tmp_path: Path, architecture: str, kind: str, said: str
) -> None:
    written(transformers, "siglip-vision", tmp_path)
    change(tmp_path, architectures=[architecture], model_type=kind)
    with pytest.raises(ModelError, match=f"{architecture}.*{said}") as caught:
        load_model(str(tmp_path), OWN)
    assert "LlavaForConditionalGeneration" in (caught.value.hint or "")


@pytest.mark.parametrize("layer", [0, 4, -4, 100])
def test_layers_that_do_not_exist_are_refused(layer: int) -> None:
    with pytest.raises(InvalidArgument, match=f"layer {layer} is none of a tower of 3 blocks") as caught:
        for_task(described(small_vit()), Task.TOKENS, tower=TowerChoice(layer))
    assert "1 to 3" in (caught.value.hint or "")


def test_what_does_not_fit_a_tower_is_refused() -> None:
    loaded = described(small_vit())
    with pytest.raises(InvalidArgument, match="--vision-feature-layer") as caught:
        for_task(loaded, Task.CLASSIFY, tower=TowerChoice(-2))
    assert "--task tokens" in (caught.value.hint or "")
    with pytest.raises(InvalidArgument, match="--head projection"):
        for_task(loaded, Task.TOKENS, Head.PROJECTION)
    with pytest.raises(InvalidArgument, match="vision_feature_select_strategy cannot be 'cls'"):
        TowerChoice(-2, "cls")  # type: ignore[arg-type]
    averaged = described(small_vit(global_pool="avg"))
    with pytest.raises(InvalidArgument, match="no norm") as caught:
        for_task(averaged, Task.TOKENS)
    assert "--vision-feature-layer -1" in (caught.value.hint or "")
    assert for_task(averaged, Task.TOKENS, tower=TowerChoice(3)).info.tower == TowerChoice(-1)


@given(
    kept=st.lists(st.sets(st.integers(0, 6), min_size=1), min_size=1, max_size=5),
    prefix=st.integers(0, 2),
    drops=st.booleans(),
)
def test_packed_tokens_are_those_that_are_kept(kept: list[set[int]], prefix: int, drops: bool) -> None:
    """Each token carries its own flat number: the definition is written out over the images."""
    from sait_deploy.models.layouts import DEPLOYED

    whole = prefix + 7
    keep = torch.zeros(len(kept), whole, dtype=torch.int32)
    keep[:, :prefix] = 1
    for row, patches in zip(keep, kept, strict=True):
        row[[prefix + patch for patch in patches]] = 1
    counts = keep.sum(1, dtype=torch.int32)
    rows, layout = DEPLOYED.of_kept(keep, counts, None)
    left_out = prefix if drops else 0
    found = tower_tokens(rows.float()[:, None], rows, layout, whole, Prefix(prefix, left_out), counts)
    of_images = [[*range(prefix - left_out), *(prefix + patch for patch in sorted(patches))] for patches in kept]
    of_images = [sorted(patches if drops else {*range(prefix), *patches}) for patches in of_images]
    flat = [image * whole + token for image, tokens in enumerate(of_images) for token in tokens]
    assert found.tokens[:, 0].int().tolist() == flat
    assert found.positions.tolist() == [number % whole - prefix for number in flat]
    assert found.cu_seqlens.tolist() == [0, *torch.tensor([len(one) for one in of_images]).cumsum(0).tolist()]


def test_an_image_whose_importance_is_no_number_has_no_tokens() -> None:
    tower = for_task(described(small_vit()), Task.TOKENS)
    model = PrunableViT(tower.vit, AdaptivePruning(Score.MEAN, 0), task=Task.TOKENS, tower=tower.info.tower)
    images = torch.randn(3, 3, 32, 32)
    images[1] = float("nan")
    with torch.inference_mode():
        found = model.trace(images, torch.full((3,), 0.5), torch.tensor([[1, 16]] * 3, dtype=torch.int32))
    assert found.cu_seqlens is not None
    ends = found.cu_seqlens.tolist()
    bad = found.logits.isnan().all(1)
    assert bad[ends[1] : ends[2]].all()
    assert not bad[: ends[1]].any() and not bad[ends[2] :].any()
