"""Models without the network: those of a hub that its cache on this machine has, and no others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def local_only() -> Iterator[None]:
    """Keeps the hub's client off the network while the block runs; other threads fetch nothing in that time either."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def has_address_alone(name: str) -> bool:
    """Returns whether timm fetches the weights of a name by an address, and so not by the hub's client."""
    import timm

    known = timm.get_pretrained_cfg(name)
    return known is not None and bool(known.url) and not known.hf_hub_id


def is_missing(error: BaseException) -> bool:
    """Returns whether an error, or one that it was raised for, is that something is not in a hub's cache."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    found: BaseException | None = error
    while found is not None and not isinstance(found, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
        found = found.__context__
    return found is not None
