"""What answers in an evaluation through torch: any point, the controls, and the dense model on smaller images."""

from __future__ import annotations

import copy
import dataclasses
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sait_deploy.errors import InvalidArgument
from sait_deploy.evaluation.results import Kind
from sait_deploy.evaluation.subjects import Identity, Subject
from sait_deploy.images.preprocess import Preprocessing
from sait_deploy.models.prunable_vit import AdaptivePruning, FixedPruning, PrunableViT, Pruning, Traced, geometry_of
from sait_deploy.tokens import OperatingPoint, Score

SEED: Final = 0
"""Of the random control."""


class TorchFamily:
    """A model whose subjects share their weights, and the importance of the batch answered last.

    Args:
        vit: the timm model, float32, in inference mode; its modules are used as they are.
        score: how importance is read off the attention.
        prune_at: block pruned in.
        preprocessing: the model's.
        device: torch's name of where to run, such as ``cpu`` or ``cuda``; the model is moved there.

    Raises:
        ModelError: the model cannot be pruned.
        InvalidArgument: the score or the block is not the model's.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        score: Score,
        prune_at: int,
        preprocessing: Preprocessing,
        device: str = "cpu",
    ) -> None:
        self.score = score
        self.prune_at = prune_at
        self.preprocessing = preprocessing
        self.device = torch.device(device)
        self.vit = self.form(vit, AdaptivePruning(score, prune_at)).vit
        self.geometry = geometry_of(self.vit)
        self._seen: tuple[NDArray[np.float32], Tensor] | None = None

    def form(self, vit: VisionTransformer, pruning: Pruning | None) -> PrunableViT:
        """Returns a form of a model, ready to run on the family's device."""
        return PrunableViT(vit, pruning).to(self.device)

    def of_point(self, point: OperatingPoint) -> PrunableViT:
        """Returns the form that runs a point: the one of a fixed number of tokens where the point keeps one."""
        kept = fixed_count(point)
        pruning = AdaptivePruning(self.score, self.prune_at)
        return self.form(self.vit, pruning if kept is None else FixedPruning(self.score, self.prune_at, kept))

    def remember(self, images: NDArray[np.float32], importance: Tensor) -> None:
        """Keeps a batch's importance for :meth:`importance`."""
        self._seen = (images, importance)

    def importance(self, images: NDArray[np.float32]) -> Tensor:
        """Returns importance float32 [B, N], without computing it where a point of this family just did."""
        if self._seen is None or self._seen[0] is not images:
            least = FixedPruning(self.score, self.prune_at, 1)
            self._seen = (images, _importance(self.form(self.vit, least).trace(self.tensor(images))))
        return self._seen[1]

    def tensor(self, images: NDArray[np.float32]) -> Tensor:
        """Returns a batch on the family's device."""
        return torch.from_numpy(images).to(self.device)


def fixed_count(point: OperatingPoint) -> int | None:
    """Returns the patch tokens that every image keeps at a point, or None where it depends on the image."""
    return point.max_keep if point.mass >= 1 or point.min_keep == point.max_keep else None


class DenseTorch(Subject):
    """The model with nothing pruned."""

    def __init__(self, identity: Identity, family: TorchFamily) -> None:
        super().__init__(identity, family.geometry, family.preprocessing, None, family.vit.num_classes)
        self._family = family
        self._model = family.form(family.vit, None)

    @torch.inference_mode()
    def answer(self, images: NDArray[np.float32], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Answers a batch."""
        traced = self._model.trace(self._family.tensor(images))
        return _array(traced), np.full(len(images), self.geometry.patch_tokens, dtype=np.int32)


class TorchSubject(Subject):
    """The model at an operating point, which the identity names."""

    def __init__(self, identity: Identity, family: TorchFamily) -> None:
        super().__init__(identity, family.geometry, family.preprocessing, family.prune_at, family.vit.num_classes)
        assert identity.point is not None
        self._family = family
        self._model = family.of_point(identity.point)

    @torch.inference_mode()
    def answer(self, images: NDArray[np.float32], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Answers a batch."""
        point, inputs = self.identity.point, self._family.tensor(images)
        assert point is not None
        if isinstance(self._model.pruning, FixedPruning):
            traced = self._model.trace(inputs)
        else:
            mass = torch.full((len(images),), point.mass, dtype=torch.float32, device=inputs.device)
            limits = torch.tensor([[point.min_keep, point.max_keep]], dtype=torch.int32, device=inputs.device)
            traced = self._model.trace(inputs, mass, limits.expand(len(images), 2).contiguous())
        self._family.remember(images, _importance(traced))
        assert traced.counts is not None
        kept: NDArray[np.int32] = traced.counts.cpu().numpy()
        return _array(traced), kept - np.int32(self.geometry.prefix_tokens)


class Control(Subject):
    """The model with as many tokens as a density keeps, chosen otherwise: at random, or the least important ones.

    Args:
        identity: its kind says how they are chosen; its point keeps as many tokens of every image.
        family: the model.
        seed: of chance; with the image's number it decides what the image keeps.

    Raises:
        InvalidArgument: the kind is no control, or the point does not keep a fixed number.
    """

    def __init__(self, identity: Identity, family: TorchFamily, seed: int = SEED) -> None:
        super().__init__(identity, family.geometry, family.preprocessing, family.prune_at, family.vit.num_classes)
        kept = None if identity.point is None else fixed_count(identity.point)
        if kept is None or identity.kind not in (Kind.RANDOM, Kind.LEAST_IMPORTANT):
            raise InvalidArgument(f"{identity.id} cannot be a control", "controls are of densities")
        self._family = family
        self._kept = kept
        self._seed = seed
        self._model = family.form(family.vit, FixedPruning(family.score, family.prune_at, kept))

    @torch.inference_mode()
    def answer(self, images: NDArray[np.float32], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Answers a batch."""
        chosen = self._random(len(images), first) if self.kind is Kind.RANDOM else self._least(images)
        prefix = self.geometry.prefix_tokens
        keep = torch.zeros(len(images), self.geometry.tokens, dtype=torch.int32, device=chosen.device)
        keep[:, :prefix] = 1
        keep.scatter_(1, prefix + chosen, 1)
        traced = self._model.trace(self._family.tensor(images), keep=keep)
        return _array(traced), np.full(len(images), self._kept, dtype=np.int32)

    def _random(self, count: int, first: int) -> Tensor:
        patches = self.geometry.patch_tokens
        draws = [
            np.random.default_rng((self._seed, first + i)).permutation(patches)[: self._kept] for i in range(count)
        ]
        return torch.from_numpy(np.stack(draws)).to(self._family.device)

    def _least(self, images: NDArray[np.float32]) -> Tensor:
        return self._family.importance(images).argsort(dim=1, stable=True)[:, : self._kept]


class LowerResolution(Subject):
    """The dense model on smaller images, its position embeddings resampled by timm.

    Args:
        identity: what it is.
        family: the model.
        image_size: height and width, multiples of the patch size.

    Raises:
        InvalidArgument: a size that is no multiple of the patch size.
    """

    def __init__(self, identity: Identity, family: TorchFamily, image_size: tuple[int, int]) -> None:
        smaller = resized(family.vit, image_size)
        preprocessing = resized_preprocessing(family.preprocessing, image_size)
        super().__init__(identity, geometry_of(smaller), preprocessing, None, family.vit.num_classes)
        self._family = family
        self._model = family.form(smaller, None)

    @torch.inference_mode()
    def answer(self, images: NDArray[np.float32], first: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Answers a batch of smaller images."""
        traced = self._model.trace(self._family.tensor(images))
        return _array(traced), np.full(len(images), self.geometry.patch_tokens, dtype=np.int32)


def resized(vit: VisionTransformer, image_size: tuple[int, int]) -> VisionTransformer:
    """Returns the model for images of another size, which shares all weights with it but the position embeddings.

    Raises:
        InvalidArgument: the size is no multiple of the patch size.
    """
    patch = vit.patch_embed.patch_size
    if min(image_size) < 1 or image_size[0] % patch[0] or image_size[1] % patch[1]:
        raise InvalidArgument(
            f"image size {image_size[0]} x {image_size[1]} is no multiple of the patch size {patch[0]} x {patch[1]}"
        )
    smaller = copy.deepcopy(vit, memo={id(parameter): parameter for parameter in vit.parameters()})
    smaller.set_input_size(img_size=image_size)
    return smaller.eval()


def resized_preprocessing(preprocessing: Preprocessing, image_size: tuple[int, int]) -> Preprocessing:
    """Returns the preprocessing at another size that shows as much of each image."""
    pairs = zip(image_size, preprocessing.resize, preprocessing.image_size, strict=True)
    height, width = (max(new, round(new * resize / old)) for new, resize, old in pairs)
    return dataclasses.replace(preprocessing, image_size=image_size, resize=(height, width))


def _importance(traced: Traced) -> Tensor:
    assert traced.importance is not None
    return traced.importance


def _array(traced: Traced) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = traced.logits.cpu().numpy()
    return logits
