"""Encode prompts once, by the tokenizer and the CLIP text encoder of a pipeline's folder.

The outputs are those of diffusers' StableDiffusionPipeline.encode_prompt: padded to the length that the encoder reads,
of the last layer, after its norm.  Needs transformers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepfront.errors import InputError, first_line
from stepfront.files import read_json
from stepfront.trainers.interop.diffusers_folder import CONFIG_FILE, PIPELINE_FILE, parts_of
from stepfront.trainers.interop.model_weights import TEXT_STEM, find_weights, own_tensors, read_model
from stepfront.trainers.interop.prompted.condition_file import Conditions, read_prompts

ENCODER = "CLIPTextModel"
PROMPTS_PER_CALL = 16
_ANCHOR = "embeddings.token_embedding.weight"


@dataclass(frozen=True)
class TokenizedPrompts:
    """Prompts, their tokens [K + 1, L] and which of them are not padding, the empty prompt last; and their encoder."""

    texts: tuple[str, ...]
    tokens: Tensor
    mask: Tensor
    encoder: Path
    config: dict[str, Any]


def tokenize_prompts(
    path: Path, pipeline: Path | None, channels: int, network: Path, say: Callable[[str], None]
) -> TokenizedPrompts:
    """Return the prompts in a text file, one per line, as the encoder of a pipeline reads them; loads no weights.

    `channels` is what the network reads of a token.  Empty lines, and the part of a prompt that is cut, are said.
    Raises InputError for a file without prompts, and for a pipeline whose text encoder is not one CLIPTextModel.
    """
    lines = read_prompts(path)
    if not lines:
        raise InputError(f"{path} holds no prompts; write one per line")
    if pipeline is None:
        raise InputError(
            f"{network} is not in a pipeline's folder, so nothing encodes --prompts {path}; give the folder with "
            f"{PIPELINE_FILE}, or the encoder's outputs with --conditions FILE.safetensors"
        )
    encoder, config = _encoder_of(pipeline, channels, network)
    if importlib.util.find_spec("transformers") is None:
        raise InputError(f"encoding {path} needs transformers, which is not installed: pip install 'transformers>=5'")
    find_weights(encoder, TEXT_STEM)
    tokenizer, length = _tokenizer(pipeline / "tokenizer", config)
    empty = lines[-1][0] - len(lines)
    if empty:
        say(f"{path}: {empty} empty {'line is' if empty == 1 else 'lines are'} left out")
    for number, text in lines:
        _say_cut(tokenizer, text, length, f"{path}, line {number}", say)
    texts = [text for _, text in lines]
    given = tokenizer([*texts, ""], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    if int(given.input_ids.max()) >= config["vocab_size"]:
        raise InputError(
            f"{pipeline / 'tokenizer'} has the token {int(given.input_ids.max())}, and its text encoder knows "
            f"{config['vocab_size']} (vocab_size); copy the pipeline's folder again"
        )
    return TokenizedPrompts(tuple(texts), given.input_ids, given.attention_mask, encoder, config)


def encode_prompts(prompts: TokenizedPrompts, say: Callable[[str], None]) -> tuple[Conditions, list[Path]]:
    """Return the table of the encoder's outputs, in float32, and the files that hold the encoder's weights.

    Raises InputError for weights that do not fit the encoder's config, and for outputs that are not finite.
    """
    model, files = _load_encoder(prompts)
    reads_mask = bool(prompts.config.get("use_attention_mask"))
    say(f"encoding {len(prompts.texts)} prompts with {prompts.encoder}")
    parts = []
    for tokens, mask in zip(prompts.tokens.split(PROMPTS_PER_CALL), prompts.mask.split(PROMPTS_PER_CALL), strict=True):
        with torch.no_grad():
            parts.append(model(tokens, attention_mask=mask if reads_mask else None)[0])
    table = torch.cat(parts)
    if not table.isfinite().all():
        raise InputError(f"{prompts.encoder} encodes prompts to values that are not finite; copy its weights again")
    return Conditions(prompts.texts, table), files


def _encoder_of(pipeline: Path, channels: int, network: Path) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a pipeline's text encoder and its config.

    Raises InputError where there is none, or several, or one of another class or size.
    """
    index = pipeline / PIPELINE_FILE
    parts = parts_of(read_json(index, "pipeline's index"))
    possible = f"possible: pipelines with one {ENCODER}, or its outputs with --conditions FILE.safetensors"
    for key, kind in sorted(parts.items()):
        if key.startswith("text_encoder_"):
            raise InputError(f"{index} has a second text encoder, {key} ({kind}); {possible}")
    encoder = pipeline / "text_encoder"
    for part in (encoder / CONFIG_FILE, pipeline / "tokenizer"):
        if not part.exists():
            raise InputError(f"there is no {part}, which --prompts needs; {possible}")
    config = read_json(encoder / CONFIG_FILE, "text encoder's config")
    kind = (config.get("architectures") or [parts.get("text_encoder", ENCODER)])[0]
    if kind != ENCODER:
        raise InputError(f"{encoder / CONFIG_FILE}: the text encoder is a {kind}; {possible}")
    if config.get("hidden_size", 512) != channels:
        raise InputError(
            f"{encoder / CONFIG_FILE}: hidden_size is {config.get('hidden_size', 512)}, and {network} reads text of "
            f"{channels} channels (cross_attention_dim); give the pipeline that it was trained in"
        )
    return encoder, {"vocab_size": 49408, "max_position_embeddings": 77} | config


def _tokenizer(folder: Path, config: dict[str, Any]) -> tuple[Any, int]:
    """Return the tokenizer, and the number of tokens that the encoder reads."""
    from transformers import CLIPTokenizer

    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise InputError(f"no {name} in {folder}; copy the pipeline's folder again")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # whatever transformers raises for a damaged file
        raise InputError(f"transformers can't read the tokenizer in {folder}: {first_line(error)[:200]}") from None
    return tokenizer, min(tokenizer.model_max_length, config["max_position_embeddings"])


def _say_cut(tokenizer: Any, text: str, length: int, where: str, say: Callable[[str], None]) -> None:
    tokens = tokenizer(text, verbose=False).input_ids
    if len(tokens) > length:
        cut = tokenizer.decode(tokens[length - 1 : -1])
        say(f"{where} has {len(tokens)} tokens; the text encoder reads {length}, so this is cut: {cut}")


def _load_encoder(prompts: TokenizedPrompts) -> tuple[Any, list[Path]]:
    from transformers import CLIPTextConfig, CLIPTextModel

    source, files, tensors = read_model(prompts.encoder, TEXT_STEM)
    try:
        model: Any = CLIPTextModel(CLIPTextConfig.from_dict(prompts.config)).float()
    except Exception as error:  # whatever transformers raises for a config of another version
        raise InputError(f"transformers can't build {prompts.encoder}: {first_line(error)[:200]}") from None
    theirs = own_tensors(tensors, _ANCHOR, source)
    expected = own_tensors(model.state_dict(), _ANCHOR, source)  # versions of transformers have prefixes of their own
    theirs.pop("embeddings.position_ids", None)  # old files hold them
    for name in sorted(expected.keys() | theirs.keys()):
        found, own = (tuple(each[name].shape) if name in each else None for each in (theirs, expected))
        if found != own:
            raise InputError(
                f"{source}: the tensor for {name} is {found or 'missing'}; the {ENCODER} of its config has "
                f"{own or 'no such tensor'}"
            )
    for name, value in theirs.items():
        expected[name].copy_(value)  # state_dict holds the module's own tensors
    return model.eval().requires_grad_(False), files
