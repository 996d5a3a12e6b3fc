"""DDSM's checkpoints: what is imported computes, at each width, what DDSM computes there."""

from __future__ import annotations

import importlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.search.config import load_settings
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.interop.ddsm import import_ddsm
from stepfront.trainers.networks.card import check_fingerprint, read_card
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet
from tests.trainers.interop.ddsm_network import Weights, ddsm_forward, random_weights

ROOT = Path(__file__).resolve().parents[3]
WIDTHS = (0.25, 0.5, 0.75, 1.0)

NETWORKS: dict[str, dict[str, Any]] = {
    "16 groups": {"base": 64, "multipliers": [1, 2], "blocks": 1, "attention": {1}},
    "32 groups": {"base": 128, "multipliers": [1, 2], "blocks": 1, "attention": {0, 1}},
    "no attention but the middle's": {"base": 64, "multipliers": [1, 1, 3], "blocks": 2, "attention": set()},
}


def save_checkpoint(weights: Weights, path: Path, **more: object) -> Path:
    """Write a file with the keys of DDSM's main.py, the optimizer's included."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([parameter], lr=4e-4)
    parameter.sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=lambda step: 1.0)
    content = {
        "net_model": {name: value + 1 for name, value in weights.items()},  # must not be taken for the average
        "ema_model": weights,
        "sched": schedule.state_dict(),
        "optim": optimizer.state_dict(),
        "step": 450000,
        "x_T": torch.zeros(2, 3, 8, 8),
    }
    torch.save(content | more, path)
    return path


def agree(supernet: Supernet, theirs: Callable[[Tensor, Tensor, float], Tensor], resolution: int) -> None:
    """Equal to 1e-5 at all widths, by the supernet's forward pass and by its subnets."""
    x = torch.randn(3, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0, 37, 999])
    with torch.no_grad():
        for width in supernet.widths:
            expected = theirs(x, t, width)
            assert expected.std() > 0.1
            for computed in (supernet(x, t.float(), width), supernet.subnet(width)(x, t.float())):
                torch.testing.assert_close(computed, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_width_computes_what_ddsm_computes(name: str, tmp_path: Path) -> None:
    weights, groups = random_weights(**NETWORKS[name]), 32 if name == "32 groups" else 16
    import_ddsm(save_checkpoint(weights, tmp_path / "ckpt.pt"), tmp_path / "out", WIDTHS, 8, groups)
    supernet, _ = load_supernet(tmp_path / "out")
    agree(supernet, lambda x, t, width: ddsm_forward(weights, x, t, width, groups), 8)


def test_the_published_cifar10_network_at_all_widths_is_that_of_the_settings_file(tmp_path: Path) -> None:
    weights = random_weights(128, [1, 2, 2, 2], 2, {1})
    card = import_ddsm(save_checkpoint(weights, tmp_path / "ckpt.pt"), tmp_path / "out")
    supernet, _ = load_supernet(tmp_path / "out")
    agree(supernet, lambda x, t, width: ddsm_forward(weights, x, t, width, 32), 32)
    settings = load_settings(ROOT / "configs" / "cifar10.yaml")
    assert (card.network, card.diffusion) == (settings.network, settings.diffusion)
    assert (card.resolution, card.image_channels) == (32, 3)
    costs = [count_width(card.network, 3, 32, width) for width in WIDTHS]
    assert [cost.macs for cost in costs] == [421_687_296, 1_599_225_856, 3_532_615_680, 6_221_856_768]
    assert costs[-1].parameters == 35_746_307


def test_slices_by_segment_would_compute_something_else(tmp_path: Path) -> None:
    weights = random_weights(**NETWORKS["16 groups"])
    import_ddsm(save_checkpoint(weights, tmp_path / "ckpt.pt"), tmp_path / "out", WIDTHS, 8, 16)
    supernet, card = load_supernet(tmp_path / "out")
    other = Supernet(card.network.model_copy(update={"skips": "segment"}), 3, 8).eval()
    other.load_state_dict(supernet.state_dict())
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([500])
    with torch.no_grad():
        for width in WIDTHS[:-1]:
            assert (other(x, t, width) - ddsm_forward(weights, x, t, width, 16)).abs().max() > 0.05


def test_the_card_says_where_the_weights_are_from_and_any_data_is_taken(tmp_path: Path) -> None:
    path = save_checkpoint(random_weights(64, [1], 1, set(), times=400), tmp_path / "ckpt.pt")
    card = import_ddsm(path, tmp_path / "out", (0.5, 1.0), 8, 16)
    assert card == read_card(tmp_path / "out")
    assert card.diffusion.steps == 400
    assert (card.made_with["imported"], card.made_with["file"], card.made_with["step"]) == ("ddsm", "ckpt.pt", 450000)
    check_fingerprint(card, "a" * 64, tmp_path)
    with pytest.raises(InputError, match=r"there is a supernet in .* already"):
        import_ddsm(path, tmp_path / "out", (0.5, 1.0), 8, 16)


# --- files that are something else ------------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("was-run",))


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"ema_model": Malicious()}, "ckpt.pt")
    Path("bare.pt").write_bytes(pickle.dumps(Malicious()))
    for name in ("ckpt.pt", "bare.pt"):
        with pytest.raises(
            InputError, match=rf"{name} is not a complete checkpoint that can be read without running code"
        ):
            import_ddsm(Path(name), tmp_path / "out")
    assert not Path("was-run").exists()


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    weights = random_weights(64, [1, 2], 1, set())
    good = save_checkpoint(weights, tmp_path / "good.pt").read_bytes()
    cases: dict[str, tuple[object, str]] = {
        "text": (b"hello", "is not a complete checkpoint"),
        "cut": (good[: len(good) // 2], "is not a complete checkpoint"),
        "empty": (b"", "is not a complete checkpoint"),
        "list": ([1, 2], "has no 'ema_model', which DDSM's checkpoints have; it holds list"),
        "other": ({"model": {}, "epoch": 3}, "has no 'ema_model'.*it holds model, epoch"),
        "classifier": ({"ema_model": {"fc.weight": torch.zeros(2, 2)}}, "has no tensor 'head.weight'"),
    }

    def changed(**change: Tensor | None) -> dict[str, object]:
        new = {key.replace("__", "."): value for key, value in change.items()}
        return {"ema_model": {k: v for k, v in (weights | new).items() if v is not None}}

    cases |= {
        "missing": (changed(upblocks__0__block1__2__bias=None), r"up\.0\.conv1\.bias is missing"),
        "more": (changed(extra__weight=torch.zeros(2)), r"extra\.weight is \(2,\).*has no such tensor"),
        "shape": (changed(middleblocks__0__block2__0__bias=torch.zeros(5)), r"norm2\.bias is \(5,\).*has \(128,\)"),
        "not finite": (changed(tail__2__bias=torch.full((3,), torch.nan)), r"tail\.2\.bias holds values that are not"),
        "times": (changed(time_embedding__timembedding__0__weight=torch.zeros(1000, 64)), "is not the sinusoid"),
        "no key": (changed(middleblocks__0__attn__proj_k__bias=None), "proj_q.bias comes without its key or value"),
    }
    for name, (content, says) in cases.items():
        path = tmp_path / f"{name}.pt"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(InputError, match=says) as caught:
            import_ddsm(path, tmp_path / "out", (0.5, 1.0), 8, 16)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no checkpoint at"):
        import_ddsm(tmp_path / "absent.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("widths", "groups", "says"),
    [
        (
            (0.375, 1.0),
            32,
            r"width 0.375 of base 128 is 48 channels; .*32 groups runs at multiples of 32: widths 0.25, ",
        ),
        ((0.0625, 1.0), 16, "width 0.0625 of base 128 is 8 channels; .*multiples of 16"),
        ((0.3, 1.0), 32, "is 38.4 channels, not a whole number"),
    ],
)
def test_widths_that_ddsm_cannot_run_are_refused(
    widths: tuple[float, ...], groups: int, says: str, tmp_path: Path
) -> None:
    path = save_checkpoint(random_weights(128, [1], 1, set()), tmp_path / "ckpt.pt")
    with pytest.raises(InputError, match=says):
        import_ddsm(path, tmp_path / "out", widths, 8, groups)


# --- DDSM's own code, where it is given -------------------------------------------------------------------------------


@pytest.mark.skipif("STEPFRONT_DDSM" not in os.environ, reason="STEPFRONT_DDSM names no checkout of DDSM's code")
@pytest.mark.parametrize(
    ("module", "kind", "groups", "resolution", "shape"),
    [
        ("slimmable_model", "SlimmableUNet", 32, 32, {"ch": 128, "ch_mult": [1, 2, 2, 2], "num_res_blocks": 2}),
        ("slimmable_model_g16", "Slimmable16UNet", 16, 16, {"ch": 64, "ch_mult": [1, 2], "num_res_blocks": 1}),
    ],
)
def test_each_width_computes_what_ddsms_own_code_computes(
    module: str,
    kind: str,
    groups: int,
    resolution: int,
    shape: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(os.environ["STEPFRONT_DDSM"])
    network = getattr(importlib.import_module(module), kind)(T=1000, attn=[1], dropout=0.1, **shape).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if "timembedding.0" not in name:
                weights.add_(torch.randn(weights.shape, generator=generator) * weights[0].numel() ** -0.5 / 2)
    path = save_checkpoint(network.state_dict(), tmp_path / "ckpt.pt")
    import_ddsm(path, tmp_path / "out", WIDTHS, resolution, groups)
    supernet, _ = load_supernet(tmp_path / "out")

    def theirs(x: Tensor, t: Tensor, width: float) -> Tensor:
        for layer in network.modules():
            layer.width_mult = width
        return network(x, t)

    agree(supernet, theirs, resolution)
