"""Which tensors of a checkpoint are a model's: found in dictionaries and behind prefixes by the model's own names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import Tensor

from sait_deploy.errors import ModelError

_WRAPPERS: Final = ("state_dict_ema", "model_ema", "ema", "state_dict", "model", "module", "teacher", "student")
"""Keys under which training scripts put a state dict, the preferred first.

Exponential averages are what is deployed; the teacher of self-distillation is one too.
"""

_AVERAGES: Final = frozenset({"ema", "swa", "averaged"})
"""Words of which one is part of the name of an average, such as ``ema_state_dict`` or ``averaged_model``."""

_PREFIXES: Final = ("module.", "_orig_mod.", "model.")
"""Prefixes that data parallelism, torch.compile and training wrappers put before every name."""

_INFIXES: Final = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""Parts that wrappers around single blocks put inside names."""

_TRAINING_ONLY: Final = ("criterion.", "loss.", "loss_fn.", "n_averaged", "decoder.", "decoder_")
"""How names begin of what training code saves beside a model and no answer reads."""

_MOST_WRAPPERS: Final = 8
"""How many nested dictionaries are unwrapped: a hostile dictionary may hold itself."""

_SHOWN: Final = 3
"""How many names a sentence shows."""


class StateDict(NamedTuple):
    """Tensors by name, and what was assumed or left out in finding them, a sentence each."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model wants from a checkpoint.

    Attributes:
        shapes: of its tensors, by name.
        head: name of the head's weight.
        foreign: how names begin that the model's family translates itself: they keep their prefixes.
    """

    shapes: Mapping[str, tuple[int, ...]]
    head: str
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Fit:
    """A state dict of the checkpoint in which a prefix stands before names of the model's."""

    labels: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    matches: tuple[int, int]

    @property
    def preference(self) -> tuple[int, ...]:
        parts = [*self.labels, *self.prefix.split(".")[:-1]]
        words = {word for part in parts for word in re.split(r"[\W_]+", part.lower())}
        known = (_WRAPPERS.index(part) if part in _WRAPPERS else len(_WRAPPERS) for part in parts)
        return (int(not words & _AVERAGES), *known)

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Returns the shape of the tensor that stands for the model's of that name; None where there is none."""
        tensor = self.tensors.get(self.prefix + name)
        return None if tensor is None else tuple(tensor.shape)

    def __str__(self) -> str:
        return ".".join([*self.labels, *self.prefix.split(".")[:-1]]) or "the top"


def listed(names: list[str]) -> str:
    """Returns a few names and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def find_state_dict(content: Any, path: Path, wanted: Wanted | None = None) -> StateDict:
    """Returns the tensors of a checkpoint that are a model's, by the model's names.

    Of several state dicts that fit, an average is preferred. Where none fits, because the names are of another layout
    or no model is given, wrappers and prefixes that training scripts are known to use are taken off.

    Args:
        content: as ``read_checkpoint`` returns it.
        path: of its file, for errors and notes.
        wanted: what the model wants; None for no model.

    Raises:
        ModelError: it is no state dict, holds no tensors, or two that fit and neither is preferred.
    """
    fits = [] if wanted is None else _fits(content, wanted)
    if wanted is None or not fits:
        return StateDict(_without_known_prefixes(_unwrapped(content, path)))
    most = max(fit.matches for fit in fits)
    best = sorted((fit for fit in fits if fit.matches == most), key=lambda fit: fit.preference)
    heads = {fit.shape_of(wanted.head) for fit in best}
    if len(best) > 1 and (best[0].preference == best[1].preference or len(heads) > 1):
        raise ModelError(
            f"weights file {path} holds several models: {listed(list(map(str, best)))}",
            "save the state dict of one of them",
        )
    others = [str(fit) for fit in best[1:]]
    notes = (f"weights {path.name}: {best[0]} is read; {listed(others)} would fit too",) if others else ()
    return _taken(best[0], wanted, path, notes)


def _fits(content: Any, wanted: Wanted) -> list[_Fit]:
    """Returns the state dicts that hold half of the model's names or more; none where the layout is a foreign one."""
    fits = []
    for labels, tensors in _state_dicts(content):
        if any(name.startswith(wanted.foreign) for name in _without_known_prefixes(tensors)):
            return []
        for prefix, matches in _prefixes(tensors, wanted.shapes).items():
            if 2 * matches >= len(wanted.shapes):
                # A teacher of another size has the same names: shapes tell which of the two is meant.
                shapes = ((name, tensors.get(prefix + name)) for name in wanted.shapes if name != wanted.head)
                same = sum(one is not None and tuple(one.shape) == wanted.shapes[name] for name, one in shapes)
                fits.append(_Fit(labels, prefix, tensors, (same, matches)))
    return fits


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """Returns the state dict under the known wrappers."""
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(content, Mapping):
            break
        wrapper = next((key for key in _WRAPPERS if any(True for _ in _state_dicts(content.get(key)))), None)
        if wrapper is None:
            break
        content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ModelError(
            f"weights file {path} holds a {type(content).__name__}, not a state dict", "save model.state_dict()"
        )
    tensors = _tensors(content)
    if not tensors:
        nested = [tensors for _, tensors in _state_dicts(content)]
        tensors = max(nested, key=len, default={})
    if not tensors:
        keys = f"; its keys are {listed([str(key) for key in content])}" if content else ""
        raise ModelError(f"weights file {path} holds no tensors by name{keys}", "save model.state_dict()")
    return tensors


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    shorter = {".".join(part for part in name.split(".") if part not in _INFIXES): t for name, t in tensors.items()}
    return shorter if len(shorter) == len(tensors) else tensors


def _without_known_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) for name in tensors):
                tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
                stripped = True
    return tensors


def _state_dicts(
    content: Any, labels: tuple[str, ...] = (), seen: set[int] | None = None
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yields every dictionary of tensors in nested ones, each once, with the keys that lead to it."""
    seen = set() if seen is None else seen
    if not isinstance(content, Mapping) or id(content) in seen or len(labels) > _MOST_WRAPPERS:
        return
    seen.add(id(content))
    tensors = _tensors(content)
    if tensors:
        yield labels, tensors
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping):
            yield from _state_dicts(value, (*labels, key), seen)


def _prefixes(tensors: Mapping[str, Tensor], own: Mapping[str, object]) -> Counter[str]:
    """Returns what stands before names of the model's in a state dict, and before how many."""
    counts: Counter[str] = Counter()
    for name in tensors:
        start = 0
        while True:
            if name[start:] in own:
                counts[name[:start]] += 1
            start = name.find(".", start) + 1
            if not start:
                break
    return counts


def without_training_only(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the tensors without those that only training reads, and the names of those."""
    left = [name for name in tensors if name.startswith(_TRAINING_ONLY)]
    return {name: tensor for name, tensor in tensors.items() if name not in left}, left


def left_out(origin: str, names: list[str]) -> str:
    """Returns the sentence that says which tensors of a file are not read."""
    return f"weights {origin}: {listed(names)} left out, being no part of the model"


def _taken(fit: _Fit, wanted: Wanted, path: Path, notes: tuple[str, ...]) -> StateDict:
    """Takes the prefix off, and leaves out what stands outside of it and what only training reads."""
    inside = {n.removeprefix(fit.prefix): t for n, t in fit.tensors.items() if n.startswith(fit.prefix)}
    tensors, left = without_training_only(inside)
    outside = [name for name in fit.tensors if not name.startswith(fit.prefix)]
    head = _outer_head(fit, outside, wanted) if wanted.head not in tensors else None
    if head is not None:
        tensors[wanted.head] = fit.tensors[f"{head}.weight"]
        tensors[wanted.head.replace("weight", "bias")] = fit.tensors[f"{head}.bias"]
        outside = [name for name in outside if not name.startswith(f"{head}.")]
        notes += (f"weights {path.name}: {head}, beside {fit}, is read as the model's head",)
    left += outside
    if left:
        notes += (left_out(path.name, left),)
    if wanted.head in wanted.shapes and wanted.head not in tensors:
        notes += (f"weights {path.name}: no head is among them, so the model returns features, not classes",)
    return StateDict(tensors, notes)


def _outer_head(fit: _Fit, outside: list[str], wanted: Wanted) -> str | None:
    """Returns the name of the only linear layer beside the model that takes what the model's head takes.

    It may be in a module that holds nothing else, such as ``head.fc``.
    """
    beside = "".join(f"{part}." for part in fit.prefix.split(".")[:-2])
    found = []
    for name in outside:
        module, _, part = name.rpartition(".")
        weight, bias = fit.tensors[name], fit.tensors.get(f"{module}.bias")
        if part != "weight" or not module.startswith(beside) or bias is None or weight.ndim != 2:
            continue
        holder, *inner = module.removeprefix(beside).split(".")
        if len(inner) > 1 or sum(one.startswith(f"{beside}{holder}.") for one in outside) != 2:
            continue
        fits_head = weight.shape[1] == wanted.shapes[wanted.head][1] if wanted.head in wanted.shapes else True
        if fits_head and bias.shape == weight.shape[:1]:
            found.append(module)
    return found[0] if len(found) == 1 else None
