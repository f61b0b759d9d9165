"""States of a training that no training writes: it is not resumed, and nothing beside it is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.hostile.case import Case, Door
from tests.hostile.world import TRAIN, TRAINED

_DOOR: Final = Door("resume", TRAIN, f"{TRAINED}/state.pt", True)
_VALUES: Final = (None, [], {}, "x", 1, -1, 10**30, 1.5, True, {1: 2}, [{}])
EDITS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {}

for _part in ("identity", "epochs", "model", "average", "optimizer", "scaler", "log"):
    for _number, _value in enumerate(_VALUES):
        # A training without an average or a scale of fp16's reads none.
        if (_part, _number) not in (("average", 0), ("scaler", 0), ("scaler", 2), ("scaler", 9)):
            EDITS[f"{_part}-{_number}"] = lambda data, part=_part, value=_value: data.update({part: value})
    EDITS[f"no-{_part}"] = lambda data, part=_part: data.pop(part)


def _edit(function: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    EDITS[function.__name__.strip("_").replace("_", "-")] = function
    return function


@_edit
def _more(data: dict[str, Any]) -> None:
    data["more"] = 1


@_edit
def _epochs_beyond(data: dict[str, Any]) -> None:
    data["epochs"] = 10**6


@_edit
def _identity_of_numbers(data: dict[str, Any]) -> None:
    data["identity"] = dict.fromkeys(data["identity"], 1)


@_edit
def _weights_of_another_shape(data: dict[str, Any]) -> None:
    name = next(iter(data["model"]))
    data["model"][name] = data["model"][name][..., :1]


@_edit
def _weights_fewer(data: dict[str, Any]) -> None:
    data["model"].pop(next(iter(data["model"])))


@_edit
def _weights_by_number(data: dict[str, Any]) -> None:
    data["model"] = dict(enumerate(data["model"].values()))


@_edit
def _weights_quantised(data: dict[str, Any]) -> None:
    import torch

    name = next(iter(data["model"]))
    data["model"][name] = torch.quantize_per_tensor(data["model"][name].float(), 0.1, 0, torch.qint8)


@_edit
def _weights_sparse(data: dict[str, Any]) -> None:
    name = next(iter(data["model"]))
    data["model"][name] = data["model"][name].to_sparse()


@_edit
def _weights_expanded(data: dict[str, Any]) -> None:
    import torch

    data["model"][next(iter(data["model"]))] = torch.zeros(1).expand(10**9)


@_edit
def _optimizer_groups_fewer(data: dict[str, Any]) -> None:
    data["optimizer"]["param_groups"].pop()


@_edit
def _optimizer_of_text(data: dict[str, Any]) -> None:
    data["optimizer"]["param_groups"][0]["lr"] = "fast"


@_edit
def _optimizer_parameters(data: dict[str, Any]) -> None:
    data["optimizer"]["param_groups"][0]["params"] = [10**9]


@_edit
def _optimizer_state_beyond(data: dict[str, Any]) -> None:
    data["optimizer"]["state"][10**6] = {}


@_edit
def _optimizer_state_of_another_shape(data: dict[str, Any]) -> None:
    import torch

    data["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)


@_edit
def _log_of_text(data: dict[str, Any]) -> None:
    data["log"][0]["loss"] = "\x1b[31m"


@_edit
def _log_longer(data: dict[str, Any]) -> None:
    data["log"] = data["log"] * 3


def cases() -> Iterator[Case]:
    """Yields every edit of a state whose digest was left out, as those of earlier versions, and a flipped bit."""
    yield Case("right/resume", "right", _DOOR, lambda _: None, True)
    for name, edit in EDITS.items():

        def change(folder: Path, edit: Callable[[dict[str, Any]], Any] = edit) -> None:
            import torch

            data = torch.load(folder / _DOOR.file, weights_only=True)
            del data["sha256"]
            edit(data)
            torch.save(data, folder / _DOOR.file)

        yield Case(f"state/{name}", "state", _DOOR, change)

    def flipped(folder: Path) -> None:
        import torch

        data = torch.load(folder / _DOOR.file, weights_only=True)
        data["model"][next(iter(data["model"]))].view(-1)[0] += 1e-3
        torch.save(data, folder / _DOOR.file)

    yield Case("state/changed", "state", _DOOR, flipped)
