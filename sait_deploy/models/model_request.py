"""Which model to make, before its weights: what the command line, a checkpoint and a family say of it."""

from __future__ import annotations

from dataclasses import dataclass

from sait_deploy.artifacts.manifest import Pooling


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A model of a name; None stands for the model's own.

    Attributes:
        name: of the model.
        image_size: height and width of the input in pixels.
        classes: outputs of the head.
        global_pool: what the head reads.
        in_chans: channels of the images.
        pretrained: whether it brings weights, which may be downloaded; else they are random.
    """

    name: str
    image_size: tuple[int, int] | None = None
    classes: int | None = None
    global_pool: Pooling | None = None
    in_chans: int | None = None
    pretrained: bool = False
