"""Where a model is that is named by a place: a folder, or a hub's repository, which is brought into the local cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sait_deploy.artifacts.manifest import WeightsSource
from sait_deploy.errors import ModelError, first_line
from sait_deploy.images.config_files import CONFIG_FILE, ConfigFile, read_config_files
from sait_deploy.models.creation import HUB, is_known
from sait_deploy.system.loggers import errors_only

FOLDER: Final = "local-dir:"
"""How a name begins that says it is a folder, as timm has it."""

_REPOSITORY: Final = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
_CONFIGURATIONS: Final = (CONFIG_FILE, "preprocessor_config.json", "processor_config.json")
_SAFETENSORS: Final = ("model*.safetensors", "model.safetensors.index.json")
_PICKLED: Final = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
_CHATTY: Final = ("huggingface_hub",)


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with a model's configuration and weights.

    Attributes:
        folder: on this machine.
        name: what the model is called.
        origin: by what the place is found again: the folder as it was named, or a hub name with its revision.
        source: of the weights there.
    """

    folder: Path
    name: str
    origin: str
    source: WeightsSource

    def configuration(self) -> ConfigFile:
        """Returns the place's config.json.

        Raises:
            ModelError: it has none.
            InvalidArgument: it cannot be read.
        """
        files = read_config_files(self.folder)
        if not files or files[0].path.name != CONFIG_FILE:
            beside = self.folder / "open_clip_config.json"
            what = "is OpenCLIP's, whose models are not read" if beside.is_file() else f"has no {CONFIG_FILE}"
            raise ModelError(f"folder {self.origin} {what}", f"give one with {CONFIG_FILE} and weights, or a timm name")
        return files[0]


def is_place(name: str) -> bool:
    """Returns whether a name is that of a place: it says so, it is a path or a hub name, or a folder is called so.

    A model's name is never that of a folder: write ``./`` before it if a folder is meant.
    """
    said = name.startswith((FOLDER, *HUB)) or any(mark in name for mark in "/\\~")
    return said or (not is_known(name) and Path(name).is_dir())


def place_of(name: str) -> Place:
    """Returns the place of a name, of which ``is_place`` is true; a hub's is downloaded unless it is in the cache.

    Raises:
        ModelError: there is no such folder, or the hub's repository cannot be had.
    """
    hub = next((prefix for prefix in HUB if name.startswith(prefix)), None)
    folder = Path(name.removeprefix(FOLDER)).expanduser()
    if hub is None and folder.is_dir():
        origin = str(folder)
        return Place(folder, folder.resolve().name or origin, origin, WeightsSource.FILE)
    if hub is None and folder.is_file():
        raise ModelError(f"{name} is a file, and names no model", "give its folder, or a timm name and --weights FILE")
    repository = name if hub is None else name.removeprefix(hub)
    if not _REPOSITORY.fullmatch(repository):
        kind = "folder" if hub is None else "hub name"
        raise ModelError(
            f"there is no {kind} {name.removeprefix(FOLDER)}",
            "give a folder, a hub name such as owner/model, or a timm name; of an artifact, --weights says where it is",
        )
    return _downloaded(name, repository)


def _downloaded(name: str, repository: str) -> Place:
    """Brings a repository's configuration and weights into the cache; safetensors where it has them."""
    from huggingface_hub import snapshot_download

    called, _, revision = repository.partition("@")
    folder = Path()
    try:
        with errors_only(*_CHATTY):
            for weights in (_SAFETENSORS, _PICKLED):
                patterns = [*_CONFIGURATIONS, *weights]
                folder = Path(snapshot_download(called, revision=revision or None, allow_patterns=patterns))
                if any(any(folder.glob(pattern)) for pattern in weights):
                    break
    except Exception as error:  # the hub's client raises whatever the network or the repository gives
        first = first_line(error).removeprefix("Got: ").partition(". ")[0]
        missing = "" if name.startswith(HUB) else ", and no folder is called so"
        raise ModelError(
            f"pretrained weights of {name} cannot be had: {first}{missing}",
            "check the network and the name, or download the files elsewhere and give --model FOLDER or --weights FILE",
        ) from None
    return Place(folder, called, f"{HUB[0]}{called}@{folder.name}", WeightsSource.PRETRAINED)
