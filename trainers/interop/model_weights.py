"""Read a model's tensors as people save them: in shards, with prefixes of wrappers, beside what is no tensor of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stepfront.errors import InputError
from stepfront.files import file_digest, read_json
from stepfront.trainers.networks.weights import read_weights

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
DIFFUSERS_STEM, TEXT_STEM = "diffusion_pytorch_model", "model"
"""How the names of weights begin, in the folders of diffusers and of transformers."""


def find_weights(folder: Path, stem: str = DIFFUSERS_STEM) -> tuple[Path, list[Path]]:
    """Return the file that names a model's weights, and the files that hold them: itself, or the shards of an index.

    Raises InputError when there is none, or a pickle alone, and when several are there and none has the usual name.
    """
    shards = sorted(folder.glob(f"{stem}.safetensors.index*.json"))
    parts = {name for index in shards for name in _shard_names(index)}
    whole = [file for file in sorted(folder.glob(f"{stem}*.safetensors")) if file.name not in parts]
    usual = [file for file in whole if file.name == f"{stem}.safetensors"]
    possible = usual if usual and not shards else [*whole, *shards]
    if not possible:
        _check_no_pickle(folder, f"{stem}.safetensors")
        found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise InputError(f"no {stem}.safetensors in {folder}; found: {found}; save_pretrained writes the file")
    if len(possible) > 1:
        names = ", ".join(file.name for file in possible)
        raise InputError(f"{folder} holds the weights several times ({names}); leave only those to be imported")
    (file,) = possible
    return file, [folder / name for name in sorted(_shard_names(file))] if file in shards else [file]


def _check_no_pickle(folder: Path, name: str) -> None:
    """Raise InputError for weights that are pickled alone, with what converts them into the file `name`."""
    files = [file for suffix in ("bin", "pth", "ckpt") for file in sorted(folder.glob(f"*.{suffix}"))]
    if not files:
        return
    file = files[0]
    refused = f"{file} is a pickle, which may run code, and is not read; convert it: "
    if len(files) == 1 and file.suffix == ".bin" and not list(folder.glob("*.bin.index*.json")):
        raise InputError(
            f'{refused}python -c "import torch, safetensors.torch as s; s.save_file({{k: v.contiguous() for k, v in '
            f"torch.load('{file}', weights_only=True).items()}}, '{folder / name}')\""
        )
    path = folder / "config.json"
    config = read_json(path, "model's config") if path.is_file() else {}
    library = "transformers" if config.get("architectures") else "diffusers"
    kind = config.get("_class_name") or (config.get("architectures") or ["DiffusionPipeline"])[0]
    raise InputError(
        f"{refused}load the model with the program that wrote it, such as "
        f"{library}.{kind}.from_pretrained('{folder}', use_safetensors=False), and call its "
        f"save_pretrained('{folder}', safe_serialization=True)"
    )


def read_model(folder: Path, stem: str = DIFFUSERS_STEM) -> tuple[Path, list[Path], dict[str, Tensor]]:
    """Return the file that names a model's weights, all files that hold them, and the tensors by name.

    Raises InputError when a file is missing or damaged, or is not what the index says.
    """
    file, files = find_weights(folder, stem)
    tensors: dict[str, Tensor] = {}
    for one in files:
        tensors |= read_weights(one)
    if file not in files:
        listed = read_json(file, "index of shards")["weight_map"]
        if differ := sorted(listed.keys() ^ tensors.keys()):
            where = "in no shard" if differ[0] in listed else "in a shard and not in the index"
            raise InputError(f"{file}: the tensor {differ[0]} is {where}; copy the model's folder again")
    return file, files, tensors


def files_digest(files: list[Path]) -> str:
    """Return the sha256 of a file, or of the digests of several."""
    digests = [file_digest(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _shard_names(index: Path) -> set[str]:
    names = read_json(index, "index of shards").get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise InputError(f"{index} has no weight_map, so it is not an index of shards")
    if outside := sorted(name for name in names.values() if Path(name).name != name):
        raise InputError(f"{index} names {json.dumps(outside[0])[:80]}, which is not a file of its folder")
    return set(names.values())


def own_tensors(
    content: Mapping[str, Any], anchor: str, source: Path, say: Callable[[str], None] = lambda text: None
) -> dict[str, Tensor]:
    """Return a network's tensors by their plain names.

    `anchor` is the name of a tensor that every such network has.  What stands before it in `content`, such as
    `module.` or `_orig_mod.`, is a wrapper's prefix; an average (`ema`) goes before what it averages.  Left out, and
    said, are the other set, single numbers and what is no tensor.  Raises InputError when there is no such tensor, or
    several and no average.
    """
    content = _flat(content)
    prefixes = sorted(name.removesuffix(anchor) for name in content if name == anchor or name.endswith("." + anchor))
    if not prefixes:
        return {name: value for name, value in content.items() if isinstance(value, Tensor)}
    averages = [one for one in prefixes if "ema" in one.lower() or "shadow" in one.lower() or "average" in one.lower()]
    chosen = averages if len(prefixes) > 1 and len(averages) == 1 else prefixes
    if len(chosen) > 1:
        raise InputError(f"{source} holds several networks ({', '.join(repr(p) for p in chosen)}); save one of them")
    (prefix,) = chosen
    own = {name.removeprefix(prefix): value for name, value in content.items() if name.startswith(prefix)}
    left = sorted({*content} - {prefix + name for name in own})
    left += [prefix + name for name, value in own.items() if _is_no_weight(value)]
    if prefix or left:
        said = [f"the prefix {prefix!r} is removed"] if prefix else []
        said += [f"left out: {len(left)} ({', '.join(left[:3])}{', ...' if len(left) > 3 else ''})"] if left else []
        say(f"{source}: {'; '.join(said)}")
    return {name: value for name, value in own.items() if not _is_no_weight(value)}


def _is_no_weight(value: object) -> bool:
    """Return whether a value is no tensor, or a single number, such as an average's count of updates."""
    return not isinstance(value, Tensor) or value.ndim == 0


def _flat(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with the keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat
