"""Folders that transformers writes answer as its own classes do; those that would answer otherwise are refused."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from sait_deploy import demo
from sait_deploy.artifacts.folder import open_artifact
from sait_deploy.artifacts.manifest import Pooling, WeightsSource
from sait_deploy.cli import run
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.exporting.plan import DEFAULT_OPTIONS, ExportOptions, plan_exports
from sait_deploy.exporting.stage import export, export_model
from sait_deploy.models.original import original_model
from sait_deploy.models.prunable_vit import AdaptivePruning, FixedPruning, PrunableViT
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.tokens import Score
from tests.tiny import randomised, relative_difference, save_weights

TOLERANCE = 1e-4
OWN = WeightsRequest(WeightsSource.DEMO)
SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
PATCHES = 16
VIT = {**SIZES, "intermediate_size": 100}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}
NAMED = {"id2label": {0: "cat", 1: "dog, wet", 2: "heron"}, "label2id": {"cat": 0, "dog, wet": 1, "heron": 2}}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", {**VIT, **NAMED}),
    "vit-odd": (
        "ViTForImageClassification",
        {**VIT, **NAMED, "layer_norm_eps": 0.05, "hidden_act": "gelu_new", "qkv_bias": False},
    ),
    "vit-features": ("ViTModel", {**VIT, "hidden_act": "relu"}),
    "vit-unfilled-patches": ("ViTModel", {**VIT, "image_size": 35}),
    "vit-wide": ("ViTModel", {**VIT, "image_size": [16, 64]}),
    "deit": ("DeiTForImageClassification", {**VIT, **NAMED}),
    "deit-features": ("DeiTModel", VIT),
    "deit-distilled": ("DeiTForImageClassificationWithTeacher", {**VIT, **NAMED, "layer_norm_eps": 0.01}),
    "dinov2": ("Dinov2Model", {**SIZES, "mlp_ratio": 3}),
    "dinov2-swiglu": ("Dinov2Model", {**SIZES, "use_swiglu_ffn": True, "layer_norm_eps": 0.01, "qkv_bias": False}),
    "dinov2-classes": ("Dinov2ForImageClassification", {**SIZES, **NAMED}),
    "dinov2-registers": ("Dinov2WithRegistersModel", {**SIZES, "num_register_tokens": 3}),
    "dinov2-registers-classes": ("Dinov2WithRegistersForImageClassification", {**SIZES, **NAMED}),
    "dinov3": ("DINOv3ViTModel", {**VIT, "num_register_tokens": 4}),
    "dinov3-gated": (
        "DINOv3ViTModel",
        {**VIT, "use_gated_mlp": True, "hidden_act": "silu", "rope_theta": 50.0, "layer_norm_eps": 0.01},
    ),
    "dinov3-biases": ("DINOv3ViTModel", {**VIT, "query_bias": False, "key_bias": True, "proj_bias": False}),
    "dinov3-no-biases": (
        "DINOv3ViTModel",
        {**VIT, "query_bias": False, "value_bias": False, "mlp_bias": False, "hidden_act": "quick_gelu"},
    ),
    "clip-vision": ("CLIPVisionModel", VIT),
    "clip-vision-gelu": ("CLIPVisionModel", {**VIT, "hidden_act": "gelu", "layer_norm_eps": 0.01}),
    "clip-projection": ("CLIPVisionModelWithProjection", {**VIT, "projection_dim": 24}),
    "clip": ("CLIPModel", {"vision_config": VIT, "text_config": TEXT, "projection_dim": 24}),
    "clip-classes": ("CLIPForImageClassification", {"vision_config": VIT, "text_config": TEXT, **NAMED}),
    "siglip-vision": ("SiglipVisionModel", VIT),
    "siglip": ("SiglipModel", {"vision_config": {**VIT, "layer_norm_eps": 0.01}, "text_config": TEXT}),
    "siglip-classes": ("SiglipForImageClassification", {"vision_config": VIT, "text_config": TEXT, **NAMED}),
}

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def transformers() -> types.ModuleType:
    """The library, which takes seconds to import: it is the reference, and no part of the product."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def written(transformers: Any, name: str, folder: Path, **save: Any) -> Any:
    """transformers' model of that name with weights of its own everywhere, saved to a folder."""
    architecture, values = MODELS[name]
    kind = getattr(transformers, architecture)
    torch.manual_seed(0)
    model = randomised(kind(kind.config_class(**values)))
    model.save_pretrained(folder, **save)
    return model


@torch.no_grad()
def answer(model: Any, images: Tensor) -> Tensor:
    """What transformers' class gives: logits, else an image's embedding, else its features."""
    if hasattr(model, "get_image_features"):
        found = model.get_image_features(images)
        return found if isinstance(found, Tensor) else found.pooler_output
    found = model(images)
    for name in ("logits", "image_embeds"):
        if name in found:
            return found[name]  # type: ignore[no-any-return]
    pooled = getattr(model, "pooler", None)
    return found.last_hidden_state[:, 0] if pooled is not None else found.pooler_output  # type: ignore[no-any-return]


def images_of(loaded: LoadedModel) -> Tensor:
    return torch.randn(3, 3, *loaded.info.image_size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def answers(loaded: LoadedModel, images: Tensor) -> dict[str, Tensor]:
    """What our forms give where nothing is dropped."""
    limits = torch.tensor([[1, PATCHES]] * len(images), dtype=torch.int32)
    adaptive = PrunableViT(loaded.vit, AdaptivePruning(Score.MEAN, 0))
    return {
        "dense": PrunableViT(loaded.vit, None)(images)[0],
        "density": PrunableViT(loaded.vit, FixedPruning(Score.MEAN, 0, PATCHES))(images)[0],
        "adaptive": adaptive(images, torch.ones(len(images)), limits)[0],
        "timm": loaded.vit(images),
    }


@pytest.mark.parametrize("name", MODELS)
def test_every_class_answers_as_transformers(transformers: Any, name: str, tmp_path: Path) -> None:
    reference = written(transformers, name, tmp_path / "a model")
    loaded = load_model(str(tmp_path / "a model"), OWN)
    images = images_of(loaded)
    wanted = answer(reference, images)
    assert wanted.std() > 0.1
    for form, found in answers(loaded, images).items():
        assert relative_difference(found, wanted) < TOLERANCE, form
    if "id2label" in MODELS[name][1]:
        assert loaded.info.labels == ("cat", "dog, wet", "heron")
        assert loaded.info.labels_source == "read from config.json"


@torch.no_grad()
def test_a_dropped_patch_is_not_in_the_mean(transformers: Any, tmp_path: Path) -> None:
    """DINOv2's classifier reads the mean of the patches that are kept, each image's own."""
    written(transformers, "dinov2-registers-classes", tmp_path)
    loaded = load_model(str(tmp_path), OWN)
    images, limits = images_of(loaded), torch.tensor([[3, 3], [9, 9], [16, 16]], dtype=torch.int32)
    pruned = PrunableViT(loaded.vit, AdaptivePruning(Score.MEAN, 1))
    together = pruned(images, torch.ones(3), limits)[0]
    for image, limit, logits in zip(images, limits, together, strict=True):
        fixed = PrunableViT(loaded.vit, FixedPruning(Score.MEAN, 1, int(limit[0])))(image[None])[0]
        assert relative_difference(logits[None], fixed) < TOLERANCE
    assert relative_difference(together[:1], loaded.vit(images[:1])) > 100 * TOLERANCE


@pytest.mark.parametrize("form", ["sharded", "pickled", "pickled shards", "old names", "other files beside"])
def test_folders_as_people_have_them(transformers: Any, tmp_path: Path, form: str) -> None:
    name = "clip-vision" if form == "old names" else "vit"
    reference = written(transformers, name, tmp_path, max_shard_size="40KB" if "shard" in form else "5GB")
    whole = tmp_path / "model.safetensors"
    if form == "sharded":
        assert (tmp_path / "model.safetensors.index.json").is_file()
    elif form == "pickled":
        torch.save(load_file(whole), tmp_path / "pytorch_model.bin")
        whole.unlink()
    elif form == "pickled shards":
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        pickled = {one: f"pytorch_{Path(one).stem}.bin" for one in set(index["weight_map"].values())}
        for shard, other in pickled.items():
            torch.save(load_file(tmp_path / shard), tmp_path / other)
            (tmp_path / shard).unlink()
        (tmp_path / "model.safetensors.index.json").unlink()
        renamed = {tensor: pickled[shard] for tensor, shard in index["weight_map"].items()}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": renamed}))
    elif form == "old names":
        positions = {"vision_model.embeddings.position_ids": torch.arange(17)[None]}
        save_file({f"vision_model.{n}": t for n, t in load_file(whole).items()} | positions, whole)
    else:
        save_file({"adapter": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
        (tmp_path / "training_args.bin").write_bytes(b"")
    loaded = load_model(str(tmp_path), OWN)
    images = images_of(loaded)
    assert relative_difference(answers(loaded, images)["dense"], answer(reference, images)) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "size"), [("dinov2", 48), ("dinov2-classes", 40), ("dinov2-registers", 16), ("dinov3", 48)]
)
def test_positions_are_resampled_as_transformers_does(transformers: Any, tmp_path: Path, name: str, size: int) -> None:
    reference = written(transformers, name, tmp_path)
    processor = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 64}}
    processor |= {"crop_size": {"height": size, "width": size}, "do_center_crop": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    loaded = load_model(str(tmp_path), OWN)
    assert loaded.info.image_size == loaded.default_image_size == (size, size)
    assert loaded.preprocessing.resize == (64, 64)
    assert any("resampled" in note for note in loaded.weights.notes) == (name != "dinov3")
    images = images_of(loaded)
    with torch.no_grad():
        found = PrunableViT(loaded.vit, None)(images)[0]
    assert relative_difference(found, answer(reference, images)) < TOLERANCE


def test_an_image_size_may_be_chosen(transformers: Any, tmp_path: Path) -> None:
    reference = written(transformers, "vit", tmp_path)
    loaded = load_model(str(tmp_path), OWN, 48)
    images = images_of(loaded)
    with torch.no_grad():
        wanted = reference(images, interpolate_pos_encoding=True).logits
        assert relative_difference(PrunableViT(loaded.vit, None)(images)[0], wanted) < TOLERANCE
    with pytest.raises(InvalidArgument, match="no multiple"):
        load_model(str(tmp_path), OWN, 50)


def test_preprocessing_is_the_folders_else_assumed(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "clip", tmp_path)
    assumed = load_model(str(tmp_path), OWN)
    assert assumed.preprocessing.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert set(assumed.preprocessing_sources.values()) == {"assumed from the model's type"}
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, image_mean=[0.3, 0.4, 0.5]
    ).save_pretrained(tmp_path)
    found = load_model(str(tmp_path), OWN)
    assert found.preprocessing.mean == (0.3, 0.4, 0.5)
    assert found.preprocessing.resize == (40, 40)
    assert found.preprocessing_sources["mean"] == "read from preprocessor_config.json"


def test_what_is_left_out_or_read_in_place_of_it_is_said(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "clip", tmp_path / "clip")
    notes = " ".join(load_model(str(tmp_path / "clip"), OWN).weights.notes)
    assert "image tower" in notes
    assert "text_model." in notes
    written(transformers, "vit-features", tmp_path / "vit")
    change(tmp_path / "vit", auto_map={"AutoModel": "evil.Model"})
    notes = " ".join(load_model(str(tmp_path / "vit"), OWN).weights.notes)
    assert "pooler.dense.weight" in notes
    assert "class token" in notes
    assert "auto_map" in notes


def test_placeholders_are_no_labels(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "vit", tmp_path)
    change(tmp_path, id2label={str(i): f"LABEL_{i}" for i in range(3)})
    assert load_model(str(tmp_path), OWN).info.labels is None


def change(folder: Path, **values: Any) -> None:
    """Changes values of config.json; those of None go."""
    path = folder / "config.json"
    data = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in data.items() if value is not None}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"architectures": ["ViTMAEForPreTraining"], "model_type": "vit_mae"}, "ViTMAEForPreTraining.*not served"),
        ({"architectures": ["SwinForImageClassification"], "model_type": "swin"}, "Swin.*several resolutions"),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "BertModel"),
        ({"architectures": ["Siglip2VisionModel"], "model_type": "siglip2_vision_model"}, "NaFlex"),
        ({"architectures": ["ViTForMaskedImageModeling"]}, "ViTForMaskedImageModeling"),
        ({"architectures": ["DeiTModel"]}, "DeiTModel.*'vit'"),
        ({"architectures": None}, "names no class"),
        ({"hidden_act": "xielu"}, "hidden_act 'xielu'"),
        ({"qk_norm": True}, "qk_norm True"),
        ({"use_gated_mlp": True}, "use_gated_mlp True"),
        ({"head_dim": 8}, "not of equal width"),
        ({"num_attention_heads": 5}, "5 heads"),
        ({"hidden_size": "48"}, "hidden_size '48'"),
        ({"patch_size": -8}, "patch_size -8"),
        ({"hidden_size": 60000}, "do not fit.*60000"),
        ({"hidden_size": 10**9}, "hidden_size 1000000000"),
        ({"num_hidden_layers": 50000}, "50000 layers"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"num_channels": 1}, "1 channels"),
        ({"id2label": {"0": "cat", "1": "dog"}}, "names 2 classes.*has 3"),
        ({"id2label": {"1": "cat", "2": "dog", "3": "heron"}}, "does not number its classes"),
        ({"num_hidden_layers": 3}, "blocks.2.*missing"),
        ({"architectures": ["Dinov2ForImageClassification"], "model_type": "dinov2"}, "head.weight is"),
        (
            {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", "qkv_bias": None},
            "names of Hugging Face's ViT",
        ),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    transformers: Any, tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    written(transformers, "vit", tmp_path)
    change(tmp_path, **values)
    with pytest.raises(ModelError, match=said) as caught:
        load_model(str(tmp_path), OWN)
    assert caught.value.hint


def test_old_files_of_two_models(transformers: Any, tmp_path: Path) -> None:
    """They have values of text generation everywhere, and name what they change a second time."""
    written(transformers, "clip", tmp_path)
    tower = json.loads((tmp_path / "config.json").read_text())["vision_config"]
    passing = {"add_cross_attention": False, "chunk_size_feed_forward": 0, "cross_attention_hidden_size": None}
    passing |= {"output_attentions": False, "pruned_heads": {}, "encoder_no_repeat_ngram_size": 0, "dropout": 0.0}
    passing |= {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "length_penalty": 1.0, "tie_word_embeddings": True}
    wrong = {**tower, **passing, "num_attention_heads": 12}
    change(tmp_path, vision_config=wrong, vision_config_dict={"num_attention_heads": 3})
    assert load_model(str(tmp_path), OWN).vit.blocks[0].attn.num_heads == 3  # type: ignore[index,union-attr]
    change(tmp_path, vision_config={"model_type": "clip_vision_model"}, vision_config_dict=None)
    with pytest.raises(ModelError, match=r"do not fit.*the model's \[1, 50, 768\]"):
        load_model(str(tmp_path), OWN)


def test_values_of_training_and_of_programming_change_nothing(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "vit", tmp_path)
    change(tmp_path, attention_probs_dropout_prob=0.1, hidden_dropout_prob=0.1, output_attentions=True, qk_norm=False)
    assert load_model(str(tmp_path), OWN).info.classes == 3


@pytest.mark.parametrize("wrong", ["shard", "two", "head", "none", "config", "other config", "code"])
def test_a_folder_that_is_not_whole_is_refused(transformers: Any, tmp_path: Path, wrong: str) -> None:
    written(transformers, "vit", tmp_path, max_shard_size="40KB" if wrong == "shard" else "5GB")
    whole = tmp_path / "model.safetensors"
    if wrong == "shard":
        missing = sorted(tmp_path.glob("model-*.safetensors"))[1]
        missing.unlink()
        said = f"{missing.name}, which is not in its folder"
    elif wrong == "two":
        save_file(load_file(whole) | {"patch_embed.proj.weight": torch.zeros(1)}, whole)
        said = "names of two models"
    elif wrong == "head":
        save_file({n: t for n, t in load_file(whole).items() if "classifier" not in n}, whole)
        said = "have no head"
    elif wrong == "none":
        whole.unlink()
        said = "holds no weights file"
    elif wrong == "config":
        (tmp_path / "config.json").unlink()
        said = "has no config.json"
    elif wrong == "other config":
        (tmp_path / "config.json").write_text("{}")
        said = "neither model_type"
    else:
        whole.unlink()
        (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        said = "pytorch_model.bin"
    with pytest.raises(ModelError, match=said):
        load_model(str(tmp_path), OWN)


def test_a_model_of_transformers_in_memory_is_told_to_be_saved(transformers: Any) -> None:
    model = transformers.ViTModel(transformers.ViTConfig(**VIT))
    with pytest.raises(ModelError, match="ViTModel cannot be pruned") as caught:
        export(model)
    assert "save_pretrained" in caught.value.hint


def test_a_file_is_no_place(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "vit", tmp_path)
    with pytest.raises(ModelError, match="is a file"):
        load_model(str(tmp_path / "config.json"), OWN)


def test_random_weights_and_a_pooling_are_refused(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "vit", tmp_path)
    with pytest.raises(ModelError, match="brings its weights"):
        load_model(str(tmp_path), WeightsRequest(WeightsSource.RANDOM))
    with pytest.raises(InvalidArgument, match="says its pooling"):
        load_model(str(tmp_path), WeightsRequest(WeightsSource.DEMO, global_pool=Pooling.AVG))


def test_a_processors_file_holds_preprocessing_too(transformers: Any, tmp_path: Path) -> None:
    written(transformers, "siglip", tmp_path)
    part = {"image_mean": [0.1, 0.2, 0.3], "size": {"height": 32, "width": 32}}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": part}))
    loaded = load_model(str(tmp_path), OWN)
    assert loaded.preprocessing.mean == (0.1, 0.2, 0.3)
    assert loaded.preprocessing_sources["mean"] == "read from processor_config.json"


def test_other_weights_of_the_same_model(transformers: Any, tmp_path: Path) -> None:
    """Weights by timm's names with a new head, as training writes them: the folder says only how the model is made."""
    written(transformers, "vit-odd", tmp_path / "model")
    trained = load_model(str(tmp_path / "model"), OWN).vit
    trained.reset_classifier(5)  # type: ignore[operator]
    (tmp_path / "trained").mkdir()
    file = save_weights(randomised(trained, seed=3), tmp_path / "trained" / "model.safetensors")
    loaded = load_model(str(tmp_path / "model"), WeightsRequest(WeightsSource.FILE, file))
    assert loaded.info.classes == 5
    assert (loaded.weights.origin, loaded.info.made_from) == (str(file), str(tmp_path / "model"))
    images = images_of(loaded)
    with torch.no_grad():
        assert torch.equal(loaded.vit(images), trained(images))
    manifest = export_model(loaded, ExportOptions(output=tmp_path / "artifacts"))[0].manifest
    assert original_model(manifest).weights.sha256 == loaded.weights.sha256


def test_models_that_differ_in_their_configuration_alone_are_different_artifacts(
    transformers: Any, tmp_path: Path
) -> None:
    ids = set()
    for act in ("gelu", "relu", "gelu"):
        written(transformers, "vit", tmp_path / "vit")
        change(tmp_path / "vit", hidden_act=act)
        ids.add(plan_exports(load_model(str(tmp_path / "vit"), OWN), DEFAULT_OPTIONS)[0].id)
    assert len(ids) == 2


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a hub's repository, someone/a-vit, in a cache that stands for the network."""
    repository = tmp_path / "cache" / "models--someone--a-vit"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee" * 6 + "cafe")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return repository / "snapshots" / ("c0ffee" * 6 + "cafe")


@pytest.mark.parametrize("name", ["someone/a-vit", "hf-hub:someone/a-vit", "someone/a-vit@main"])
@pytest.mark.parametrize("source", [WeightsSource.DEMO, WeightsSource.PRETRAINED])
def test_a_hub_name_is_found_again_by_its_revision(
    transformers: Any, hub: Path, name: str, source: WeightsSource
) -> None:
    written(transformers, "vit", hub)
    loaded = load_model(name, WeightsRequest(source))
    assert loaded.info.name == "someone/a-vit"
    assert loaded.info.labels == ("cat", "dog, wet", "heron")
    assert loaded.info.made_from == loaded.weights.origin == f"hf-hub:someone/a-vit@{hub.name}"
    assert loaded.weights.source is WeightsSource.PRETRAINED
    if name == "someone/a-vit" and source is WeightsSource.DEMO:
        manifest = export_model(loaded, ExportOptions())[0].manifest
        assert manifest.name == "someone_a_vit-dense"
        assert original_model(manifest).weights.sha256 == loaded.weights.sha256


def test_a_hubs_repository_of_timms_is_timms_as_before(hub: Path) -> None:
    vit = randomised(timm.create_model("test_vit", num_classes=5))
    hub.mkdir(parents=True)
    save_weights(vit, hub / "model.safetensors")
    config = {"architecture": "test_vit", "num_classes": 5, "pretrained_cfg": vit.pretrained_cfg}
    (hub / "config.json").write_text(json.dumps(config))
    for name in ("someone/a-vit", "hf-hub:someone/a-vit"):
        loaded = load_model(name, WeightsRequest(WeightsSource.PRETRAINED))
        assert (loaded.info.name, loaded.info.made_from) == ("hf-hub:someone/a-vit", None)
        assert (loaded.weights.source, loaded.weights.origin) == (WeightsSource.PRETRAINED, "someone/a-vit")
        assert torch.equal(loaded.vit.head.weight, vit.head.weight)  # type: ignore[union-attr,arg-type]


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["someone/another", "hf-hub:someone/another"])
def test_a_hub_name_without_a_network_is_one_line(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(name, OWN)
    assert caught.value.message.startswith(f"pretrained weights of {name} cannot be had")
    assert "\n" not in caught.value.message
    assert ("no folder" in caught.value.message) == (name == "someone/another")


@pytest.mark.parametrize("name", ["./nothing", "some where/else/there", "local-dir:nothing", "hf-hub:nothing"])
def test_a_place_that_is_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="there is no"):
        load_model(name, OWN)


@pytest.mark.parametrize("name", ["./deit_tiny_patch16_224", "local-dir:deit_tiny_patch16_224"])
def test_a_folder_of_timms(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configuration names timm's model, whose classes, pooling and image size are those of the folder."""
    vit = randomised(timm.create_model("test_vit", num_classes=5, img_size=64, global_pool="avg"))
    folder = tmp_path / "deit_tiny_patch16_224"
    folder.mkdir()
    save_weights(vit, folder / "model.safetensors")
    config = {"architecture": "test_vit", "num_classes": 5, "global_pool": "avg", "model_args": {"img_size": 64}}
    (folder / "config.json").write_text(json.dumps({**config, "label_names": list("abcde")}))
    monkeypatch.chdir(tmp_path)
    loaded = load_model(name, OWN)
    assert (loaded.info.name, loaded.info.made_from, loaded.info.labels) == ("test_vit", None, tuple("abcde"))
    images = images_of(loaded)
    with torch.no_grad():
        assert torch.equal(loaded.vit(images), vit(images))
    change(folder, model_args={"act_layer": "relu"})
    with pytest.raises(ModelError, match="act_layer 'relu', which no name says"):
        load_model(name, OWN)


def test_the_command_line_takes_a_folder_and_the_artifact_finds_it_again(
    transformers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models" / "my vit"
    reference = written(transformers, "vit-odd", folder)
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4] * 3)
    processor.save_pretrained(folder)
    monkeypatch.chdir(tmp_path)
    assert called("export", "--model", "models/my vit", "--mass", "0.9") == 0
    assert called("predict", "--artifact", "artifacts/my_vit-dense", "--json", demo.IMAGES / "0" / "0.png") == 0
    (predicted,) = json.loads(capsys.readouterr().out.partition("[")[2].join(("[", "")))
    artifact = open_artifact(tmp_path / "artifacts" / "my_vit-adaptive")
    assert artifact.manifest.model.labels == ("cat", "dog, wet", "heron")
    assert artifact.manifest.preprocessing.mean == (0.4, 0.4, 0.4)
    assert artifact.manifest.model.made_from == artifact.manifest.weights.origin == "models/my vit"
    with Image.open(demo.IMAGES / "0" / "0.png") as image, torch.no_grad():
        pixels = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
        wanted = reference(pixels).logits.softmax(dim=1)[0]
    assert predicted["labels"][0] == reference.config.id2label[int(wanted.argmax())]
    assert predicted["probabilities"][0] == pytest.approx(float(wanted.max()), abs=0.02)
    monkeypatch.chdir(folder.parent)
    assert original_model(artifact.manifest, folder=artifact.path).vit.norm.eps == 0.05  # type: ignore[union-attr]
    folder.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="no folder"):
        original_model(artifact.manifest, folder=artifact.path)
    for weights in (tmp_path / "moved", tmp_path / "moved" / "model.safetensors"):
        assert original_model(artifact.manifest, weights).vit.norm.eps == 0.05  # type: ignore[union-attr]


def called(*arguments: object) -> int:
    """Runs the command line and returns its exit code."""
    with pytest.raises(SystemExit) as leaving:
        run([str(argument) for argument in arguments])
    return int(leaving.value.code or 0)
