"""What export and training ask of a model: its tokens, what its attention needs, its updates, its readout.

A family of models answers by a subclass of ``Transformer`` in a module of its own, which its entry in
``families.FAMILIES`` names. The module is long because it is one interface with its documentation.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import InvalidArgument
from sait_deploy.images.preprocess import Preprocessing
from sait_deploy.models.checkpoint_names import StateDict, Wanted
from sait_deploy.models.model_request import ModelRequest
from sait_deploy.models.position_grid import ImageSizes
from sait_deploy.tokens import Geometry


class Tokens(NamedTuple):
    """The tokens of a batch, laid end to end.

    Attributes:
        x: [T, D].
        carried: what else belongs to each token, [T, ...] each, such as its rotary position.
    """

    x: Tensor
    carried: tuple[Tensor, ...] = ()

    def rows(self, index: Tensor) -> Tokens:
        """Returns the tokens of these flat indices, int32 [K]."""
        return Tokens(self.x.index_select(0, index), tuple(one.index_select(0, index) for one in self.carried))


class Heads(NamedTuple):
    """What the attention of one block needs.

    Attributes:
        qkv: queries, keys and values of flat tokens, [T, 3*H*Dh], normalised and rotated as the model does.
        num_heads: H.
        scale: factor of the scores.
        dropout: share of the attention weights that training drops.
    """

    qkv: Tensor
    num_heads: int
    scale: float
    dropout: float = 0.0


class Layout(Protocol):
    """How flat tokens divide into images, and how attention inside each image is computed.

    Export and the torch runtime use the operators of the deployed graph; training uses a form with gradients.
    """

    @property
    def slots(self) -> Tensor:
        """Flat index of each lane's token, int32 [B, W]; W is the longest image."""
        ...

    @property
    def mask(self) -> Tensor | None:
        """Which lanes hold a token of their own, bool [B, 1, 1, W]; None where all images have W tokens."""
        ...

    def attend(self, heads: Heads) -> Tensor:
        """Runs attention inside each image: [T, H*Dh]."""
        ...

    def drop_path(self, path: nn.Module, update: Tensor) -> Tensor:
        """Applies stochastic depth, which drops the update [T, D] of whole images."""
        ...


class ScoringLayout(Layout, Protocol):
    """A layout that can return attention weights: that of images with all their tokens."""

    def scored(self, heads: Heads) -> tuple[Tensor, Tensor]:
        """Runs attention and returns its weights before dropout, float32 [B, H, S, S], too."""
        ...


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model.

    Attributes:
        geometry: the sizes that MACs follow from, depth and numbers of tokens among them.
        image_size: height and width in pixels.
        patch_size: likewise.
        grid: patches in height and in width.
        classes: outputs of the head; 0 without one.
        has_class_token: whether the first prefix token is a class token.
    """

    geometry: Geometry
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    grid: tuple[int, int]
    classes: int
    has_class_token: bool

    @property
    def prefix(self) -> int:
        """P: tokens that come first and are never pruned."""
        return self.geometry.prefix_tokens

    @property
    def patches(self) -> int:
        """N: patch tokens."""
        return self.geometry.patch_tokens


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What is known of a name without making its model.

    Attributes:
        image_size: side of the square input in pixels.
        pretrained: sets of weights there are to download, or that are shipped.
    """

    image_size: int
    pretrained: int


class Transformer(ABC):
    """One model of a family, as export and training run it. It adds no parameter and copies none.

    Args:
        model: of a class that the family's entry names; its modules are used as they are.

    Raises:
        ModelError: a part of the model is one that the family does not compute.
    """

    HEAD: ClassVar[str] = "head.weight"
    """Name of the head's weight in a state dict: its rows are the classes."""

    FOREIGN: ClassVar[tuple[str, ...]] = ()
    """How names of other layouts begin that ``converted`` translates with their prefixes."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    # From a name to a model

    @classmethod
    @abstractmethod
    def names(cls) -> list[str]:
        """Returns the names that ``create`` makes models of this family from."""

    @classmethod
    def has(cls, name: str) -> bool:
        """Returns whether a name is one of ``names``."""
        return name in cls.names()

    @classmethod
    @abstractmethod
    def entry(cls, name: str) -> ModelEntry:
        """Returns what is known of one of the names."""

    @classmethod
    @abstractmethod
    def create(cls, asked: ModelRequest) -> nn.Module:
        """Makes a model.

        Raises:
            ModelError: pretrained weights cannot be had.
            InvalidArgument: the model cannot be made at that image size or with that pooling.
        """

    def converted(self, tensors: dict[str, Tensor], origin: str, sizes: ImageSizes) -> StateDict:
        """Returns a checkpoint's tensors by this model's names and in its layouts; what it does not know stays.

        Position embeddings are resampled only to an image size that the user chose.

        Args:
            tensors: of the checkpoint.
            origin: the file's name, for errors.
            sizes: what is known of image sizes.

        Raises:
            ModelError: position embeddings are those of another image size, and none was chosen, or of another grid.
        """
        return StateDict(tensors)

    def stored_channels(self, tensors: dict[str, Tensor], origin: str) -> int | None:
        """Returns how many channels the images of a checkpoint have; None where that is not seen of it.

        Args:
            tensors: of the checkpoint.
            origin: the file's name, for errors.
        """
        return None

    def wanted(self) -> Wanted:
        """Returns what the model wants from a checkpoint."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.model.state_dict().items()}
        return Wanted(shapes, self.HEAD, self.FOREIGN)

    def advice(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Returns what to do with converted tensors where they do not fit the model; None for nothing in particular."""
        return None

    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """Returns how images become the model's input."""

    def default_image_size(self) -> tuple[int, int]:
        """Returns the height and width that a model of this name has where none is named."""
        return self.shape().image_size

    def labels(self, source: WeightsSource) -> tuple[str, ...] | None:
        """Returns the names of the classes, where weights of this source have known ones."""
        return None

    # What it computes

    @abstractmethod
    def shape(self) -> Shape:
        """Returns the model's sizes."""

    @functools.cached_property
    def depth(self) -> int:
        """How many blocks the model has."""
        return self.shape().geometry.depth

    def pooled_width(self) -> int:
        """Returns how many numbers pooling gives of an image: what a head reads."""
        return self.shape().geometry.width

    def without_head(self) -> nn.Module:
        """Returns the model that gives what its head reads, sharing all weights with it.

        Raises:
            InvalidArgument: the head cannot be taken off.
        """
        raise InvalidArgument(f"the head of a {type(self.model).__name__} cannot be left out", "give --head projection")

    def tower(self, blocks: int, *, normed: bool) -> nn.Module:
        """Returns the model of the first blocks alone, without a readout, sharing all weights with it.

        Args:
            blocks: how many.
            normed: whether the norm after the last block stays.

        Raises:
            InvalidArgument: the model is no image tower, or has no norm there.
        """
        raise InvalidArgument(f"a {type(self.model).__name__} is no image tower", "leave --task tokens out")

    @abstractmethod
    def embed(self, images: Tensor) -> Tokens:
        """Returns the tokens of images [B, C, H, W]: B times P prefix and N patch tokens."""

    @abstractmethod
    def heads(self, block: int, tokens: Tokens) -> Heads:
        """Returns what the attention of a block needs, the norm before it applied."""

    @abstractmethod
    def attended(self, block: int, tokens: Tokens, attended: Tensor, layout: Layout) -> Tokens:
        """Returns the tokens updated by a block's attention, whose result is [T, H*Dh]."""

    @abstractmethod
    def fed_forward(self, block: int, tokens: Tokens, layout: Layout) -> Tokens:
        """Returns the tokens updated by what follows a block's attention, its MLP."""

    @abstractmethod
    def normed(self, x: Tensor) -> Tensor:
        """Applies the norm after the last block, [T, D] to [T, D]."""

    @abstractmethod
    def readout(self, x: Tensor, layout: Layout) -> Tensor:
        """Pools normalised tokens [T, D] and applies the head: [B, classes]."""

    def run(self, tokens: Tokens, layout: Layout, first: int, end: int) -> Tokens:
        """Runs the blocks from ``first`` to before ``end``."""
        for block in range(first, end):
            tokens = self.attended(block, tokens, layout.attend(self.heads(block, tokens)), layout)
            tokens = self.fed_forward(block, tokens, layout)
        return tokens

    def scored(self, block: int, tokens: Tokens, layout: ScoringLayout) -> tuple[Tokens, Tensor]:
        """Runs a block's attention alone, and returns its weights, float32 [B, H, S, S], too."""
        attended, weights = layout.scored(self.heads(block, tokens))
        return self.attended(block, tokens, attended, layout), weights

    def run_rest(self, prune_at: int, tokens: Tokens, layout: Layout) -> Tokens:
        """Runs what follows the attention of the block pruned in: its MLP and the later blocks."""
        tokens = self.fed_forward(prune_at, tokens, layout)
        return self.run(tokens, layout, prune_at + 1, self.depth)

    # What training changes

    def drops_patches(self) -> bool:
        """Returns whether the model drops patches at random in training, which hides them from the selection."""
        return False

    def set_drop_path(self, rates: Sequence[float]) -> None:
        """Sets the rate of stochastic depth of each block.

        Raises:
            InvalidArgument: the model has no stochastic depth, and a rate is not 0.
        """
        if any(rates):
            raise InvalidArgument(f"a {type(self.model).__name__} has no stochastic depth", "set drop_path to 0")

    def new_head(self, classes: int) -> None:
        """Replaces the head by one of so many classes, with random weights.

        Raises:
            InvalidArgument: the model's head cannot be replaced.
        """
        raise InvalidArgument(f"a {type(self.model).__name__} takes no new head", "train on as many classes as it has")

    def resized(self, image_size: tuple[int, int]) -> nn.Module:
        """Returns the model for images of another size, sharing all weights with it but its position embeddings.

        Args:
            image_size: height and width, multiples of the patch size.

        Raises:
            InvalidArgument: the model has one image size.
        """
        raise InvalidArgument(f"a {type(self.model).__name__} has one image size", "leave the smaller size out")
