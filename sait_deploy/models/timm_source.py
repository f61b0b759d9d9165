"""What all families of timm's models have in common: what timm knows of a name, checkpoints, sizes and the readout."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import timm
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config
from timm.layers import AttentionPoolLatent, DropPath, PatchEmbed
from timm.models import is_model_in_modules
from torch import Tensor, nn

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import InvalidArgument, ModelError, first_line
from sait_deploy.images.preprocess import MODES, CropMode, Interpolation, Preprocessing
from sait_deploy.images.preprocessing_choice import channels_words, for_channels
from sait_deploy.models.checkpoint_names import StateDict
from sait_deploy.models.foreign_names import translated, unread_layout
from sait_deploy.models.input_channels import PATCHES, SERVED, STEM, adapted, channels_of
from sait_deploy.models.layers import attention_pool, gathered, head_outputs, linear_macs, masked_pool
from sait_deploy.models.model_request import ModelRequest
from sait_deploy.models.position_grid import ImageSizes, check_grid, size_words
from sait_deploy.models.transformer import Layout, ModelEntry, Shape, Transformer
from sait_deploy.system.loggers import errors_only
from sait_deploy.tokens import Geometry

CHATTY: Final = ("timm", "huggingface_hub")
"""Loggers that report every retry of a download and every resampled embedding."""

_AS_TIMM: Final = "save timm's model.state_dict()"


class TimmTransformer(Transformer):
    """A model that timm makes."""

    MODULES: ClassVar[tuple[str, ...]] = ()
    """timm modules whose models the family serves."""

    OTHERS: ClassVar[tuple[str, ...]] = ()
    """Parts of names of models in those modules that compute something else."""

    EMBEDDING: ClassVar[type] = PatchEmbed
    """Class of the patch embedding."""

    PIXELS: ClassVar[str] = PATCHES
    """Name of the convolution that reads the images."""

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        if self._channels not in MODES:
            raise ModelError(
                f"a model of images with {channels_words(self._channels)} cannot be exported: images are {SERVED}",
                "create it with in_chans=3, which timm makes of such weights by itself",
            )
        if not isinstance(self.model.head, nn.Module):
            raise ModelError(
                f"the head is {self.model.head!r}, no module", "give it one, or nn.Identity() for features"
            )
        if not self.model.global_pool:
            raise ModelError("a model that returns all of its tokens has no readout", "create it with a global_pool")
        self.check_part(self.model.patch_embed, self.EMBEDDING)
        if self.model.attn_pool is not None:
            self.check_part(self.model.attn_pool, AttentionPoolLatent)
        self.blocks = list(self.model.blocks)

    @property
    def _channels(self) -> int:
        pixels = dict(self.model.named_modules()).get(self.PIXELS)
        return int(getattr(pixels, "in_channels", 3))

    def check_part(self, part: nn.Module, *served: type) -> None:
        """Refuses a part of the model that is of none of the classes that the family computes.

        Raises:
            ModelError: it is of another.
        """
        if type(part) not in served:
            raise ModelError(
                f"a {type(self.model).__name__} made of {type(part).__name__} cannot be pruned",
                f"a {type(self.model).__name__} made of {' or '.join(one.__name__ for one in served)} can",
            )

    def check_attention(self, attention: nn.Module, *served: type) -> None:
        """Refuses a block's attention that is of another class, or gated.

        Raises:
            ModelError: it is.
        """
        self.check_part(attention, *served)
        if getattr(attention, "gate", None) is not None:
            raise ModelError(
                f"a {type(self.model).__name__} with gated attention cannot be pruned",
                "choose one whose attention has no gate",
            )

    @classmethod
    def names(cls) -> list[str]:
        """Returns timm's names of the family's models."""
        return [name for module in cls.MODULES for name in timm.list_models(module=module) if cls.has(name)]

    @classmethod
    def has(cls, name: str) -> bool:
        """Returns whether a name, with or without the tag of its weights, is one of ``names``."""
        return is_model_in_modules(name, cls.MODULES) and not any(part in f"{name}_" for part in cls.OTHERS)

    @classmethod
    def entry(cls, name: str) -> ModelEntry:
        """Returns the image size of timm's first weights for a name, and how many weights timm has for it."""
        config = timm.get_pretrained_cfg(name)
        size = config.input_size[1] if config is not None else 0
        return ModelEntry(int(size), len(timm.list_pretrained(f"{name}.*")))

    @classmethod
    def create(cls, asked: ModelRequest) -> nn.Module:
        """Makes the model by timm, from a name of timm's or, with pretrained weights, of the hub's."""
        pool = None if asked.global_pool is None else asked.global_pool.value
        named = {"img_size": asked.image_size, "num_classes": asked.classes, "in_chans": asked.in_chans}
        options: dict[str, Any] = {
            key: value for key, value in (named | {"global_pool": pool}).items() if value is not None
        }
        try:
            with errors_only(*CHATTY):
                model: nn.Module = timm.create_model(asked.name, pretrained=asked.pretrained, **options)
        except AssertionError as error:
            size = "its own image size" if asked.image_size is None else f"image size {size_words(asked.image_size)}"
            how = f"at {size}" if pool is None else f"with --global-pool {pool}"
            raise InvalidArgument(f"{asked.name} cannot be made {how} ({error})") from None
        except Exception as error:  # timm and its hub client raise whatever the network or a registry entry gives
            if not asked.pretrained:
                raise
            first = first_line(error).partition(". ")[0]
            raise ModelError(
                f"pretrained weights of {asked.name} cannot be had: {first}",
                "check the network and the name, or download the file elsewhere and give --weights FILE",
            ) from None
        return model

    def converted(self, tensors: dict[str, Tensor], origin: str, sizes: ImageSizes) -> StateDict:
        """Translates names and layouts of Hugging Face and JAX, and applies timm's conversion of others.

        timm would resample a patch embedding of another size too: that is another model, and is left for the check of
        shapes to name.
        """
        tensors, notes = adapted(translated(tensors, origin), self._channels, origin, self.PIXELS)
        own, patches = self.model.patch_embed.proj.weight, tensors.get(f"{PATCHES}.weight")
        if patches is not None and patches.ndim == 4 and patches.shape != own.shape:
            return StateDict(tensors, notes)
        stored, positions = tensors.get("pos_embed"), self.model.pos_embed
        if stored is not None and positions is not None and stored.shape[2:] == positions.shape[2:]:
            positioned = int(stored.shape[1]) - self.stored_position_prefix(tensors)
            notes += check_grid(positioned, self.shape(), sizes, origin)
        try:
            with errors_only(*CHATTY):
                return StateDict(self.filtered(dict(tensors)), notes)
        except Exception:  # layouts that no checkpoint of this family has: the check of shapes names what does not fit
            return StateDict(tensors, notes)

    def stored_channels(self, tensors: dict[str, Tensor], origin: str) -> int | None:
        """Returns how many channels a checkpoint's patch embedding reads; None of LV-ViT's, where that is another's."""
        return None if self._is_other(tensors) else channels_of(translated(tensors, origin), self.PIXELS)

    def _is_other(self, tensors: Mapping[str, Tensor]) -> bool:
        """Returns whether weights are an LV-ViT's, and the model is none: its patch embedding reads no images."""
        return self.PIXELS != STEM and f"{STEM}.weight" in tensors

    @abstractmethod
    def filtered(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Applies timm's conversion of checkpoints for the model's class."""

    @abstractmethod
    def stored_position_prefix(self, tensors: Mapping[str, Tensor]) -> int:
        """Returns how many prefix tokens a checkpoint's position embedding has positions of."""

    def advice(self, tensors: Mapping[str, Tensor]) -> str | None:
        """Returns how to read weights that are pooled otherwise, and names layouts that are not read."""
        if self._is_other(tensors):
            return "these weights are an LV-ViT's: give --model lvvit_small, or the size that they are of"
        own, layout, channels = self.model.state_dict(), unread_layout(tensors), channels_of(tensors, self.PIXELS)
        if channels is not None and channels != self._channels:
            return f"these weights are for images with {channels_words(channels)}: leave --in-chans out"
        if "fc_norm.weight" in tensors and "fc_norm.weight" not in own and "norm.weight" in own:
            return "these weights pool by average, as MAE's fine-tuning does: give --global-pool avg"
        if "norm.weight" in tensors and "norm.weight" not in own and "fc_norm.weight" in own:
            return "these weights normalise before pooling: give --global-pool token"
        if layout is not None:
            hint = "give their folder, with config.json, to --model" if "Hugging" in layout else _AS_TIMM
            return f"the names are those of {layout}, which are not read here: {hint}"
        if any(name.startswith("head.") and name not in own for name in tensors):
            return "their head has other layers: make the model in Python, load them, and give it to sait_deploy.export"
        return None

    def preprocessing(self) -> Preprocessing:
        """Returns what timm's configuration of the model says, at the model's image size."""
        config = resolve_model_data_config(self.model)
        size, share = self.shape().image_size, float(config["crop_pct"])
        return Preprocessing(
            image_size=size,
            resize=(math.floor(size[0] / share), math.floor(size[1] / share)),
            crop_mode=CropMode(config["crop_mode"]),
            interpolation=Interpolation(config["interpolation"]),
            antialias=True,
            mean=for_channels(config["mean"], self._channels),
            std=for_channels(config["std"], self._channels),
        )

    def default_image_size(self) -> tuple[int, int]:
        """Returns the size in timm's configuration; that of the model where it has none."""
        size = (getattr(self.model, "pretrained_cfg", None) or {}).get("input_size")
        return self.shape().image_size if size is None else (int(size[1]), int(size[2]))

    def labels(self, source: WeightsSource) -> tuple[str, ...] | None:
        """Returns the names of ImageNet's classes for pretrained weights of an ImageNet head."""
        subset = infer_imagenet_subset(self.model) if source is WeightsSource.PRETRAINED else None
        if subset is None:
            return None
        return tuple(map(ImageNetInfo(subset).index_to_description, range(self.shape().classes)))

    # Sizes

    def shape(self) -> Shape:
        """Returns the model's sizes."""
        patches = self.model.patch_embed
        sizes = (patches.img_size, patches.patch_size, patches.grid_size)
        image, patch, grid = ((int(height), int(width)) for height, width in sizes)
        return Shape(self._geometry(), image, patch, grid, self.classes(), self.has_class_token())

    def without_head(self) -> nn.Module:
        """Puts identities in place of the heads."""
        bare: Any = self._twin()
        bare.head, bare.num_classes = nn.Identity(), 0
        if hasattr(bare, "head_dist"):
            bare.head_dist = nn.Identity()
        without: nn.Module = bare.eval()
        return without

    def tower(self, blocks: int, *, normed: bool) -> nn.Module:
        """Cuts the blocks off, and puts identities in place of the heads and of norms that are not asked for.

        Raises:
            InvalidArgument: a norm is asked for, and the model has it behind its pooling.
        """
        if normed and isinstance(self.model.norm, nn.Identity):
            raise InvalidArgument(
                "the model has no norm between its last block and pooling", "give --vision-feature-layer -1"
            )
        bare: Any = self.without_head()
        bare.blocks, bare.fc_norm = bare.blocks[:blocks], nn.Identity()
        bare.attn_pool, bare.global_pool = None, "avg"
        if not normed:
            bare.norm = nn.Identity()
        tower: nn.Module = bare.eval()
        return tower

    @abstractmethod
    def has_class_token(self) -> bool:
        """Returns whether the first prefix token is a class token."""

    def classes(self) -> int:
        """Returns how many logits the head gives, whatever ``num_classes`` says of a head that was replaced."""
        return head_outputs(self.model.head, self.model.embed_dim)

    def _geometry(self) -> Geometry:
        model, attention = self.model, self.blocks[0].attn
        # Blocks differ where some share keys and values among heads: their mean is exact for all blocks together.
        projections = sum(linear_macs(block.attn) for block in self.blocks) // len(self.blocks)
        readout, readout_per_token = linear_macs(model.head) + linear_macs(getattr(model, "head_dist", _NOTHING)), 0
        if model.attn_pool is not None:
            pool = model.attn_pool
            readout_per_token = linear_macs(pool.kv) + 2 * pool.latent_len * pool.num_heads * pool.head_dim
            readout += pool.latent_len * (linear_macs(pool) - linear_macs(pool.kv))
            if not self.pools_prefix():
                readout -= model.num_prefix_tokens * readout_per_token
        return Geometry(
            depth=len(self.blocks),
            width=model.embed_dim,
            attention_width=attention.num_heads * attention.head_dim,
            patch_tokens=model.patch_embed.num_patches,
            prefix_tokens=model.num_prefix_tokens,
            embed_macs=self._embed_macs(),
            attention_macs_per_token=projections,
            mlp_macs_per_token=linear_macs(self.blocks[0].mlp),
            readout_macs=readout,
            readout_macs_per_token=readout_per_token,
        )

    def _embed_macs(self) -> int:
        """Returns the multiply-accumulates of the patch embedding for one image."""
        return int(self.model.patch_embed.num_patches * self.model.patch_embed.proj.weight.numel())

    # Readout

    def normed(self, x: Tensor) -> Tensor:
        """Applies the last norm, where the model has it before pooling."""
        normed: Tensor = self.model.norm(x)
        return normed

    @abstractmethod
    def pools_prefix(self) -> bool:
        """Returns whether pooling reads the prefix tokens too."""

    def reads_prefix_alone(self) -> bool:
        """Returns whether the head reads prefix tokens alone."""
        return bool(self.model.global_pool == "token")

    def readout(self, x: Tensor, layout: Layout) -> Tensor:
        """Pools as the model does, the tokens of each image alone, and applies the head."""
        model, slots, mask = self.model, layout.slots, layout.mask
        first = 0 if self.pools_prefix() else model.num_prefix_tokens
        if mask is None:
            x = x.reshape(-1, slots.shape[1], x.shape[-1])
            if model.attn_pool is None:
                return model.forward_head(x)  # type: ignore[no-any-return]
            pooled = attention_pool(model.attn_pool, model.attn_pool.kv(x[:, first:] if first else x), None)
        elif self.reads_prefix_alone():
            return model.forward_head(gathered(slots[:, : model.num_prefix_tokens], x))  # type: ignore[no-any-return]
        else:
            slots, mask = slots[:, first:], mask[..., first:]
            if model.attn_pool is not None:
                pooled = attention_pool(model.attn_pool, gathered(slots, model.attn_pool.kv(x)), mask)
            else:
                pooled = masked_pool(gathered(slots, x), mask[:, 0, 0, :, None], model.global_pool)
        logits: Tensor = model.head(model.head_drop(model.fc_norm(pooled)))
        return logits

    # What training changes

    def set_drop_path(self, rates: Sequence[float]) -> None:
        """Sets both halves of each block."""
        for block, rate in zip(self.blocks, rates, strict=True):
            block.drop_path1 = block.drop_path2 = DropPath(rate) if rate > 0 else nn.Identity()

    def new_head(self, classes: int) -> None:
        """Replaces the head by timm's own means."""
        self.model.reset_classifier(classes)

    def resized(self, image_size: tuple[int, int]) -> nn.Module:
        """Resamples position embeddings by timm's own means."""
        smaller = self._twin()
        smaller.set_input_size(img_size=image_size)
        resized: nn.Module = smaller.eval()
        return resized

    def _twin(self) -> Any:
        """Returns a copy of the model that shares its parameters."""
        return copy.deepcopy(self.model, memo={id(parameter): parameter for parameter in self.model.parameters()})


_NOTHING: Final = nn.Identity()
