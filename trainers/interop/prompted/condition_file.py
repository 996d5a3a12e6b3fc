"""Read the text encoder's outputs of some prompts, and the prompts themselves, as people read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.networks.weights import read_weights

PROMPTS, EMPTY = "prompts", "empty"
"""Names of the tensors in the file."""


@dataclass(frozen=True)
class Conditions:
    """The prompts, and the table [K + 1, L, D] of their encoder outputs, that of the empty prompt last."""

    texts: tuple[str, ...]
    table: Tensor


def read_conditions(path: Path | None, channels: int, network: Path) -> Conditions:
    """Return the conditions in a safetensors file, and the lines of the text file beside it.

    The file has `prompts` [K, L, D] and `empty` [L, D] or [1, L, D], where D is the `channels` that the network reads.
    Raises InputError when there is no file, or none of the prompts' texts, and when tensors do not fit.
    """
    if path is None:
        raise InputError(
            f"{network} reads text; give prompts with --prompts FILE.txt, one per line, or its text encoder's outputs "
            "with --conditions FILE.safetensors, and the prompts in FILE.txt beside it"
        )
    tensors = read_weights(path)
    missing = [name for name in (PROMPTS, EMPTY) if name not in tensors]
    if missing:
        found = ", ".join(sorted(tensors)) or "nothing"
        raise InputError(
            f"{path} has no tensor {missing[0]}; it needs {PROMPTS} [K, L, D] and {EMPTY} [L, D]; found: {found}"
        )
    prompts, empty = tensors[PROMPTS].float(), tensors[EMPTY].float()
    empty = empty[0] if empty.ndim == 3 and len(empty) == 1 else empty
    if prompts.ndim != 3 or not len(prompts) or empty.shape != prompts.shape[1:] or prompts.shape[2] != channels:
        shapes = f"{PROMPTS} {list(tensors[PROMPTS].shape)} and {EMPTY} {list(tensors[EMPTY].shape)}"
        raise InputError(
            f"{path} has {shapes}; possible: [K, L, {channels}] and [L, {channels}], K prompts of L tokens"
        )
    table = torch.cat([prompts, empty[None]])
    if not table.isfinite().all():
        raise InputError(f"{path} holds values that are not finite; encode the prompts in float32")
    return Conditions(_read_texts(path.with_suffix(".txt"), path, len(prompts)), table)


def _read_texts(path: Path, beside: Path, count: int) -> tuple[str, ...]:
    if not path.is_file():
        raise InputError(f"no prompts at {path}; write the {count} prompts of {beside} there, one per line")
    texts = tuple(text for _, text in read_prompts(path))
    if len(texts) != count:
        raise InputError(
            f"{path} has {len(texts)} prompts and {beside} the outputs of {count}; write one line per prompt"
        )
    return texts


def read_prompts(path: Path) -> list[tuple[int, str]]:
    """Return the prompts of a text file, each with the number of its line, from 1 on; empty lines are left out.

    Raises InputError when there is no such file, and when it is not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines has others than files are read by
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8; save the prompts in this encoding") from None
    except OSError as error:
        raise InputError(f"no prompts at {path}: {error.strerror}; write them there, one per line") from None
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
