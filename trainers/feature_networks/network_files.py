"""Keep the weights of a feature network with the card that says what they were made from.

The card holds the digest of the weights' file, so weights of another call that was killed in between are noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from stepfront.checksums import forget
from stepfront.errors import InputError
from stepfront.files import file_digest, read_json, write_atomically, write_json

_WHAT = "card of a feature network"


def holds_network(weights: Path, card: Path, made_from: Mapping[str, object]) -> bool:
    """Return whether both files are there and belong together, and the network was made from `made_from`.

    Cards of version 0.1 have no digest.  They are believed, and get that of the weights.
    Raises InputError when the card is damaged.
    """
    if not (weights.is_file() and card.is_file()):
        return False
    content = read_json(card, _WHAT)
    written, digest = content.pop("digest", None), file_digest(weights)
    if content != made_from:
        return False
    if written is None:
        with contextlib.suppress(InputError):  # a folder that can only be read serves as it is
            write_json(card, {**made_from, "digest": digest})
    elif written != digest:
        logging.getLogger("stepfront").warning("%s does not belong to %s, so it is made again", weights, card.name)
    return written in (None, digest)


def save_network(weights: Path, card: Path, tensors: Mapping[str, Tensor], made_from: Mapping[str, object]) -> None:
    """Write the weights, then their card.  Raises InputError when they can't be written."""
    forget(card)
    card.unlink(missing_ok=True)  # one without a digest would be believed beside the new weights
    write_atomically(weights, lambda path: save_file({k: v.contiguous() for k, v in tensors.items()}, path))
    write_json(card, {**made_from, "digest": file_digest(weights)})


def read_network(weights: Path, card: Path) -> bytes:
    """Return the bytes of the weights.  Raises InputError when they are missing or do not belong to their card."""
    if not weights.is_file():
        raise InputError(f"no feature network at {weights}; `stepfront train` makes it")
    content = weights.read_bytes()
    expected = read_json(card, _WHAT).get("digest") if card.is_file() else None
    if expected not in (None, hashlib.sha256(content).hexdigest()):
        raise InputError(
            f"{weights} does not belong to {card.name}: the weights' digest differs; `stepfront train` makes it again"
        )
    return content
