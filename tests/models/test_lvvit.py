"""LV-ViT equals its formulas and its authors' code, also on the tokens that are kept; which checkpoints it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sait_deploy.artifacts.manifest import Pooling, Precision, Task, WeightsSource
from sait_deploy.errors import InvalidArgument, ModelError
from sait_deploy.images.preprocess import Interpolation
from sait_deploy.models.creation import create_model, model_entry, supported_names
from sait_deploy.models.embedder import for_task
from sait_deploy.models.families import transformer_of
from sait_deploy.models.layers import in_half_precision
from sait_deploy.models.layouts import DEPLOYED
from sait_deploy.models.lvvit import LVViT
from sait_deploy.models.model_request import ModelRequest
from sait_deploy.models.prunable_vit import PrunableViT
from sait_deploy.models.pruning import AdaptivePruning, FixedPruning
from sait_deploy.models.registry import LoadedModel, WeightsRequest, load_model
from sait_deploy.tokens import Score
from sait_deploy.training.student import Student
from tests.models import tlt_answers
from tests.own_folder import NotMade, folder_of
from tests.tiny import exactly, family, images_for, patches_of, relative_difference, save_weights, small_lvvit

TOLERANCE = 1e-5
TINY = "lvvit_tiny"


class Formulas:
    """LV-ViT from its weights by their names alone, in float64, one image at a time (arXiv 2104.10858)."""

    def __init__(self, model: LVViT, divisor: float) -> None:
        self.weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
        self.heads, self.divisor = model.blocks[0].attn.num_heads, divisor
        self.depth = len(model.blocks)

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Applies a linear layer, which may have no bias."""
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", torch.zeros(()))

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Applies a layer norm."""
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def stem(self, image: Tensor) -> Tensor:
        """Turns an image [C, H, W] into patches [N, D]."""
        x = image.double()[None]
        for number, (stride, padding) in enumerate(((2, 3), (1, 1), (1, 1)), start=1):
            x = F.conv2d(x, self.weights[f"patch_embed.conv{number}.weight"], stride=stride, padding=padding)
            scale, shift, mean, variance = (
                self.weights[f"patch_embed.bn{number}.{part}"][:, None, None]
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            x = ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)
        weight = self.weights["patch_embed.proj.weight"]
        x = F.conv2d(x, weight, self.weights["patch_embed.proj.bias"], stride=weight.shape[-1])
        return x[0].flatten(1).T

    def attention(self, block: str, x: Tensor) -> Tensor:
        """Returns the update of a block's attention over tokens [S, D]."""
        q, k, v = self.linear(f"{block}.attn.qkv", self.norm(f"{block}.norm1", x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(0, 1) for part in (q, k, v))
        weights = (q @ k.transpose(1, 2) / k.shape[-1] ** 0.5).softmax(-1)
        return self.linear(f"{block}.attn.proj", (weights @ v).transpose(0, 1).flatten(1)) / self.divisor

    def mlp(self, block: str, x: Tensor) -> Tensor:
        """Returns the update of a block's MLP."""
        hidden = self.linear(f"{block}.mlp.fc1", self.norm(f"{block}.norm2", x))
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        return self.linear(f"{block}.mlp.fc2", hidden) / self.divisor

    def logits(self, image: Tensor, prune_at: int, patches: list[int]) -> Tensor:
        """Classifies an image of which only these patches are left after a block's attention."""
        x = torch.cat([self.weights["cls_token"][0], self.stem(image)]) + self.weights["pos_embed"][0]
        for number in range(self.depth):
            x = x + self.attention(f"blocks.{number}", x)
            x = x[[0, *(1 + patch for patch in patches)]] if number == prune_at else x
            x = x + self.mlp(f"blocks.{number}", x)
        x = self.norm("norm", x)
        of_class = self.linear("head", x[0])
        if "aux_head.weight" not in self.weights:
            return of_class.float()
        of_patches = torch.stack([self.linear("aux_head", patch) for patch in x[1:]])
        return (of_class + 0.5 * of_patches.max(dim=0).values).float()


@pytest.mark.parametrize(("name", "divisor"), [("lvvit", 2), ("lvvit-class-token-alone", 3)])
@pytest.mark.parametrize("prune_at", [0, 1, 2])
@torch.no_grad()
def test_it_equals_its_formulas_on_the_patches_that_are_left(name: str, divisor: float, prune_at: int) -> None:
    model = family(name)
    formulas, images = Formulas(model, divisor), images_for(model)

    def wanted(kept: list[list[int]]) -> Tensor:
        return torch.stack(
            [formulas.logits(image, prune_at, patches) for image, patches in zip(images, kept, strict=True)]
        )

    every = wanted([[*range(16)]] * 3)
    assert every.std() > 0.1
    assert relative_difference(model(images), every) < TOLERANCE
    assert relative_difference(PrunableViT(model, None)(images)[0], every) < TOLERANCE
    fixed = PrunableViT(model, FixedPruning(Score.MEAN, prune_at, 5)).trace(images)
    adaptive = PrunableViT(model, AdaptivePruning(Score.CLS, prune_at)).trace(
        images, torch.ones(3), exactly([1, 7, 16])
    )
    for traced in (fixed, adaptive):
        assert traced.keep is not None
        assert relative_difference(traced.logits, wanted(patches_of(model, traced.keep))) < TOLERANCE


@torch.no_grad()
def test_neither_the_class_token_nor_padding_is_a_candidate_for_the_largest_logit() -> None:
    """The head over the patches gives 100 for the class token and 1 for every patch; two images are padded."""
    model = small_lvvit()
    for part in (model.head.weight, model.head.bias, model.aux_head.weight):
        part.zero_()
    model.aux_head.bias.fill_(1)
    model.aux_head.weight[:, 0] = 99
    x = torch.zeros(3, 17, 32)
    x[:, 0, 0] = 1
    keep = (torch.arange(17) < torch.tensor([[2], [17], [9]])).int()
    kept, layout = DEPLOYED.of_kept(keep, keep.sum(1, dtype=torch.int32), None)
    assert transformer_of(model).readout(x.flatten(0, 1)[kept], layout).unique().tolist() == [0.5]
    assert model.forward_head(x).unique().tolist() == [0.5]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "name"), [("lvvit_s", "lvvit_small"), ("lvvit_m", "lvvit_medium"), ("lvvit_l", "lvvit_large")]
)
def test_checkpoints_of_the_authors_code_give_its_answers(theirs: str, name: str, tmp_path: Path) -> None:
    try:
        place = folder_of("tlt", "0.2.0")
    except NotMade as reason:
        pytest.skip(str(reason))
    script, checkpoint, answers = tlt_answers.__file__, tmp_path / f"{theirs}.pth.tar", tmp_path / "answers.pt"
    command = [sys.executable, "-W", "ignore", script, theirs, str(checkpoint), str(answers)]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"})
    wanted = torch.load(answers, weights_only=True)
    loaded = loaded_from(checkpoint, name, tlt_answers.SIDE)
    assert loaded.info.classes == tlt_answers.CLASSES
    assert wanted["logits"].std() > 0.1
    with torch.no_grad():
        for answer in (loaded.vit(wanted["images"]), PrunableViT(loaded.vit, None)(wanted["images"])[0]):
            assert relative_difference(answer, wanted["logits"]) < TOLERANCE


def loaded_from(
    path: Path,
    name: str = TINY,
    image_size: int | None = None,
    pool: Pooling | None = None,
    channels: int | None = None,
) -> LoadedModel:
    request = WeightsRequest(WeightsSource.FILE, path, global_pool=pool, in_chans=channels)
    return load_model(name, request, image_size)


def checkpoint(path: Path, name: str = TINY, **options: object) -> Path:
    """A file of a model's weights with random values."""
    return save_weights(create_model(ModelRequest(name, (64, 64), 5, **options)), path)  # type: ignore[arg-type]


def test_the_sizes_are_in_the_table() -> None:
    assert supported_names("lvvit") == ["lvvit_large", "lvvit_medium", "lvvit_small", "lvvit_tiny"]
    assert (model_entry(TINY).image_size, model_entry(TINY).pretrained) == (224, 0)


@pytest.mark.parametrize(
    ("name", "side", "parameters", "resize"),
    [
        ("lvvit_tiny", 224, 8.53, 248),
        ("lvvit_small", 384, 26.30, 426),
        ("lvvit_medium", 384, 56.03, 384),
        ("lvvit_large", 448, 150.47, 448),
    ],
)
def test_sizes_are_those_of_the_authors_table(name: str, side: int, parameters: float, resize: int) -> None:
    with torch.device("meta"):
        model = create_model(ModelRequest(name, (side, side)))
    assert sum(one.numel() for one in model.parameters()) / 1e6 == pytest.approx(parameters, abs=0.01)
    prepared = transformer_of(model).preprocessing()
    assert (prepared.resize, prepared.interpolation) == ((resize, resize), Interpolation.BICUBIC)


def test_a_checkpoint_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="do not fit LVViT") as caught:
        loaded_from(path, "lvvit_small", 64)
    assert caught.value.hint == "these weights are lvvit_tiny's: give --model lvvit_tiny"


def test_a_model_of_another_family_names_whose_weights_they_are(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="do not fit VisionTransformer") as caught:
        loaded_from(path, "vit_tiny_patch16_224", 64)
    assert "LV-ViT's: give --model lvvit_small" in caught.value.hint


def test_another_image_size_is_taken_when_asked_for(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="pos_embed") as caught:
        loaded_from(path)
    assert "--imgsz 64" in caught.value.hint
    assert loaded_from(path, image_size=96).vit.state_dict()["pos_embed"].shape == (1, 37, 240)


def test_weights_without_a_head_over_the_patches_say_so(tmp_path: Path) -> None:
    alone = checkpoint(tmp_path / "alone.safetensors", global_pool=Pooling.TOKEN)
    with pytest.raises(ModelError, match=r"aux_head\.weight is missing") as caught:
        loaded_from(alone, image_size=64)
    assert "--global-pool token" in caught.value.hint
    assert loaded_from(alone, image_size=64, pool=Pooling.TOKEN).vit.aux_head is None
    both = checkpoint(tmp_path / "both.safetensors")
    with pytest.raises(ModelError, match="aux_head") as caught:
        loaded_from(both, image_size=64, pool=Pooling.TOKEN)
    assert "leave --global-pool out" in caught.value.hint
    with pytest.raises(InvalidArgument, match="--global-pool avg"):
        loaded_from(both, image_size=64, pool=Pooling.AVG)


def test_grey_images_are_read_by_the_summed_first_convolution(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "w.safetensors")
    coloured, grey = loaded_from(path, image_size=64), loaded_from(path, image_size=64, channels=1)
    assert grey.preprocessing.channels == 1
    assert any("summed over red, green and blue" in note for note in grey.weights.notes)
    image = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        assert relative_difference(grey.vit(image), coloured.vit(image.expand(-1, 3, -1, -1))) < TOLERANCE


def test_no_weights_are_fetched_by_name() -> None:
    with pytest.raises(ModelError, match="no weights that are fetched") as caught:
        load_model(TINY, WeightsRequest(WeightsSource.PRETRAINED))
    assert "--weights FILE" in caught.value.hint


def test_as_an_embedder_it_gives_the_class_token(tmp_path: Path) -> None:
    loaded = loaded_from(checkpoint(tmp_path / "w.safetensors"), image_size=64)
    embedder = for_task(loaded, Task.EMBED)
    assert (embedder.info.embedding.width, embedder.vit.aux_head) == (240, None)  # type: ignore[union-attr]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        token = loaded.vit.forward_features(images)[:, 0]  # type: ignore[operator]
        found = PrunableViT(embedder.vit, None, task=Task.EMBED)(images)[0]
    torch.testing.assert_close(found, F.normalize(token), rtol=1e-4, atol=1e-5)
    assert loaded.vit.aux_head is not None


def test_a_new_head_replaces_both() -> None:
    model = small_lvvit()
    transformer_of(model).new_head(4)
    assert (model.head.out_features, model.aux_head.out_features) == (4, 4)
    assert model(images_for(model)).shape == (3, 4)


def test_training_moves_the_stems_statistics_and_both_heads() -> None:
    model = small_lvvit().train()
    before = model.patch_embed.bn1.running_mean.clone()
    logits, _, _ = Student(model, Score.MEAN, 1).train()(images_for(model), None)
    logits.sum().backward()
    assert not torch.equal(model.patch_embed.bn1.running_mean, before)
    assert all(head.weight.grad is not None for head in (model.head, model.aux_head))


@torch.no_grad()
def test_half_precision_folds_the_stems_norms_into_its_convolutions() -> None:
    model = small_lvvit()
    half = in_half_precision(model)
    stem = half.patch_embed
    assert [type(one) for one in (stem.bn1, stem.bn2, stem.bn3)] == [nn.Identity] * 3  # type: ignore[union-attr]
    assert stem.conv1.weight.dtype == torch.float16  # type: ignore[union-attr]
    assert isinstance(model.patch_embed.bn1, nn.BatchNorm2d)
    found = PrunableViT(model, None, Precision.FP16)(images_for(model))[0]
    assert relative_difference(found, model(images_for(model))) < 2e-2
