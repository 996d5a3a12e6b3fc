"""The files of a supernet: what is saved is loaded, and whatever does not belong together is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.card import CARD_FILE, read_card
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import (
    WEIGHTS_FILE,
    load_supernet,
    save_supernet,
    supernet_from_weights,
)
from stepfront.trainers.networks.weights import weights_digest

WIDTHS = (0.25, 0.375, 0.5, 0.75, 1.0)
T = torch.tensor([0.0, 37.0, 999.0])


@pytest.fixture(scope="module")
def supernet(network: NetworkSettings, random_supernet: Callable[..., Supernet]) -> Supernet:
    return random_supernet(network)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def saved(supernet: Supernet, tmp_path: Path) -> Path:
    save_supernet(supernet, tmp_path, DiffusionSettings(), "digits", "f" * 64, {"losses": {"1.0": 0.1}})
    return tmp_path


def test_saved_and_loaded_computes_the_same_and_knows_what_it_was_made_from(
    saved: Path, supernet: Supernet, x: Tensor
) -> None:
    loaded, card = load_supernet(saved, "f" * 64)
    with torch.no_grad():
        for width in WIDTHS:
            assert torch.equal(loaded(x, T, width), supernet(x, T, width))
    assert (card.network, card.diffusion, card.data_name) == (supernet.settings, DiffusionSettings(), "digits")
    assert (card.image_channels, card.resolution, card.made_with) == (1, 8, {"losses": {"1.0": 0.1}})


def test_digest_depends_on_each_value_and_name_and_on_nothing_else() -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}
    digest = weights_digest(weights)
    strided = torch.arange(6.0).reshape(2, 3).T.contiguous().T  # the same values in another memory layout
    assert digest == weights_digest({"b": torch.ones(2), "a": strided})
    changed = weights["a"].clone()
    changed[1, 2] += 1e-6
    assert digest != weights_digest(weights | {"a": changed})
    assert digest != weights_digest({"a": weights["a"], "c": weights["b"]})
    assert digest != weights_digest(weights | {"a": weights["a"].reshape(3, 2)})


def test_tampered_weights_are_refused(saved: Path) -> None:
    weights = load_file(saved / WEIGHTS_FILE)
    weights["head.bias"][0] += 1e-3
    save_file(weights, saved / WEIGHTS_FILE)
    with pytest.raises(InputError, match="digest differs"):
        load_supernet(saved)


def test_weights_of_another_network_name_the_tensor_and_both_shapes(saved: Path) -> None:
    weights = load_file(saved / WEIGHTS_FILE)
    save_file(weights | {"head.bias": torch.zeros(5)}, saved / WEIGHTS_FILE)
    with pytest.raises(InputError, match=r"head\.bias is \(5,\).*\(8,\)"):
        load_supernet(saved)
    del weights["head.bias"]
    save_file(weights, saved / WEIGHTS_FILE)
    with pytest.raises(InputError, match=r"head\.bias is missing"):
        load_supernet(saved)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused_with_both_versions(saved: Path, version: object) -> None:
    card = json.loads((saved / CARD_FILE).read_text())
    (saved / CARD_FILE).write_text(json.dumps(card | {"format": version}))
    with pytest.raises(InputError, match=rf"format version {version!r}; this stepfront reads 1"):
        load_supernet(saved)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CARD_FILE])
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(InputError, match=name):
        load_supernet(saved)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"format": 1}', '{"format": 1, "network": {"bose": 3}}'])
def test_a_damaged_card_is_refused_in_one_line(saved: Path, content: str) -> None:
    (saved / CARD_FILE).write_text(content)
    with pytest.raises(InputError, match=CARD_FILE) as caught:
        read_card(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_truncated_weights_are_refused(saved: Path, keep: int) -> None:
    whole = (saved / WEIGHTS_FILE).read_bytes()
    (saved / WEIGHTS_FILE).write_bytes(whole[:keep])
    with pytest.raises(InputError, match=f"{WEIGHTS_FILE} is not a complete safetensors file"):
        load_supernet(saved)


def test_a_pickle_under_the_name_of_the_weights_is_refused_and_not_executed(
    saved: Path, trap: tuple[object, Path]
) -> None:
    bomb, witness = trap
    pickle.loads(pickle.dumps(bomb))  # the trap does work where something unpickles it
    assert witness.exists()
    witness.unlink()
    (saved / WEIGHTS_FILE).write_bytes(pickle.dumps(bomb))
    with pytest.raises(InputError, match="safetensors"):
        load_supernet(saved)
    torch.save(bomb, saved / WEIGHTS_FILE)
    with pytest.raises(InputError, match="safetensors"):
        load_supernet(saved)
    assert not witness.exists()


def test_other_data_are_refused_with_both_fingerprints(saved: Path) -> None:
    with pytest.raises(InputError, match=r"made from other data \(digits, fingerprint ffffffffffff\).*000000000000"):
        load_supernet(saved, "0" * 64)


def test_a_supernet_stands_on_the_given_weights_without_a_copy(saved: Path) -> None:
    weights = load_file(saved / WEIGHTS_FILE)
    supernet = supernet_from_weights(read_card(saved), weights)
    assert not any(buffer.is_meta for buffer in supernet.to("cpu").buffers())  # what is moved to a device has values
    pointers = {name: value.data_ptr() for name, value in supernet.widest.named_parameters()}
    assert pointers == {name: value.data_ptr() for name, value in weights.items()}
