"""The JSON files beside weights that say what they are for: ``config.json`` of timm and of others, and its like."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sait_deploy.errors import InvalidArgument
from sait_deploy.system.reading import parse_json, read_text

CONFIG_FILE: Final = "config.json"
_FILES: Final = (CONFIG_FILE, "preprocessor_config.json")
_PROCESSOR: Final = "processor_config.json"
"""What newer files of models of images and text are called; the part on images is what the older ones hold."""

_WHOLE: Final = "mend it or download it again; or move it away, if it is not of these weights"
CONFIG_HINT: Final = "mend it or move it away, and give --mean, --std, --crop-pct and --interpolation where it is wrong"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One such file: its path and the object it holds."""

    path: Path
    data: Mapping[str, Any]


def read_config_files(weights: Path) -> tuple[ConfigFile, ...]:
    """Reads the files beside a weights file, or in a folder of weights.

    Raises:
        InvalidArgument: one of them cannot be read, or holds no JSON object.
    """
    folder = weights if weights.is_dir() else weights.parent
    found = [_read(path) for path in (folder / name for name in _FILES) if os.path.lexists(path)]
    if not (folder / _FILES[1]).is_file() and (folder / _PROCESSOR).is_file():
        whole = _read(folder / _PROCESSOR)
        if isinstance(whole.data.get("image_processor"), dict):
            found.append(ConfigFile(whole.path, whole.data["image_processor"]))
    return tuple(found)


def _read(path: Path) -> ConfigFile:
    try:
        data = parse_json(read_text(path, encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path} cannot be read ({error})", _WHOLE) from None
    if not isinstance(data, dict):
        raise InvalidArgument(f"{path} holds no JSON object", _WHOLE)
    return ConfigFile(path, data)
