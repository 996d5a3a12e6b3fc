"""A program gives the images of stepfront's sampler: with weights, torch.export's programs or ONNX files."""

from __future__ import annotations

import errno
import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from stepfront.errors import InputError
from stepfront.search.export import network_files
from stepfront.search.export.exported.sample import Point, load_network
from stepfront.search.export.network_files import check_form, write_decoder, write_network
from stepfront.search.export.program import FrontPoint, write_point
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.data import to_pixels
from stepfront.trainers.diffusion.conditioning import make_condition
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.latents.decoder import PackedDecoder
from stepfront.trainers.network_settings import DitSettings, NetworkSettings
from stepfront.trainers.networks.supernet_files import supernet_from_weights
from stepfront.trainers.variant import Size, parse_variants
from tests.search.export.conftest import PLANS, TIMES, make_random_supernet


def images(point: FrontPoint, folder: Path, form: str) -> np.ndarray:
    write_point(point.problem, point.facts, point.row, point.plan, folder, form)
    return Point(folder, "cpu").sample([3] * 5, range(5))


@pytest.mark.parametrize("name", PLANS)
def test_the_program_gives_the_images_of_the_sampler(points: dict[str, FrontPoint], tmp_path: Path, name: str) -> None:
    point = points[name]
    card, sampler = point.problem.card, point.problem.settings.sampler
    supernet = supernet_from_weights(card, {key: torch.from_numpy(v) for key, v in point.problem.weights.items()})
    noise = Noise(3, (card.image_channels, card.resolution, card.resolution))
    condition = make_condition(card.network.classes, card.label_counts, sampler.guidance, 3)
    denoisers = {width: supernet.subnet(width) for width in supernet.widths}
    schedule, device = noise_schedule(card.diffusion), torch.device("cpu")
    ours = Sampler(denoisers, schedule, noise, device, clip=sampler.clip, condition=condition)
    expected = np.moveaxis(to_pixels(next(ours.sample(point.plan, 5, 5))), 1, 3)
    assert (point.plan.learnt is not None) == (name == "learnt")
    found = images(point, tmp_path / "out", "program")
    # The program knows a flow's conversion in float64, the sampler in float32.
    assert np.abs(found.astype(int) - expected).max() <= (name == "flow")


def at_one_width(point: FrontPoint) -> FrontPoint:
    """Return the point with a plan of one width at several scales of guidance: exporting a network takes seconds."""
    return replace(point, plan=Plan.of(TIMES, parse_variants("1x0.50u 1x0.50g4 2x0.50 1x0.50g1.5"), "ddpm"))


class Refused(torch.nn.Module):
    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x  # depends on values, which no export knows


def test_a_network_that_can_not_be_traced_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^width-0.5: this network can't be written as torch-export: .+") as caught:
        write_network(Refused(), (torch.ones(2, 1, 4, 4), torch.zeros(2)), Size(0.5), "torch-export", tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("written", ["network", "decoder"])
def test_a_full_disk_is_not_called_a_fault_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(network_files, "_write_program", full)
    monkeypatch.setitem(network_files.FORMS, "torch-export", (full, ".pt2"))
    space = SimpleNamespace(channels=1, resolution=4)
    packed = SimpleNamespace(space=space, kind="AutoencoderKL", unpack=lambda device: SimpleNamespace(module=None))
    calls = {
        "network": lambda: write_network(Refused(), (torch.ones(2, 1, 4, 4),), Size(0.5), "torch-export", tmp_path),
        "decoder": lambda: write_decoder(cast(PackedDecoder, packed), tmp_path),
    }
    with pytest.raises(InputError, match=r"^can't write .*: No space left on device"):
        calls[written]()


def test_torch_exports_programs_give_the_same_images(points: dict[str, FrontPoint], tmp_path: Path) -> None:
    point = at_one_width(points["classes"])
    expected = images(point, tmp_path / "weights", "program")
    assert expected.std() > 10
    np.testing.assert_array_equal(images(point, tmp_path / "programs", "torch-export"), expected)
    assert {path.suffix for path in (tmp_path / "programs").glob("width-*")} == {".pt2"}


def test_onnx_files_give_the_same_images_up_to_rounding(points: dict[str, FrontPoint], tmp_path: Path) -> None:
    needs_onnx()
    point = at_one_width(points["classes"])
    expected = images(point, tmp_path / "weights", "program")
    found = images(point, tmp_path / "onnx", "onnx")
    assert np.abs(found.astype(int) - expected).max() <= 1


def needs_onnx() -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed; pip install {library}")


SMALL = {"base": 8, "multipliers": (1, 2), "attention": (), "blocks": 1, "groups": 4, "group_channels": 2}


@pytest.mark.parametrize(
    ("network", "depth"),
    [
        (NetworkSettings(family="ode", inner_steps=2, depths=(1, 2), **SMALL | {"multipliers": (1,)}), 1),  # type: ignore[arg-type]
        (NetworkSettings(family="dit", depths=(1, 2), classes=3, dit=DitSettings(hidden=16, depth=2, heads=4)), 1),
        (NetworkSettings(family="spectral", **SMALL), None),  # type: ignore[arg-type]
    ],
    ids=lambda given: getattr(given, "family", ""),
)
def test_onnx_knows_the_other_families_and_their_depths(
    network: NetworkSettings, depth: int | None, tmp_path: Path
) -> None:
    needs_onnx()
    supernet, size = make_random_supernet(network, 1, DiffusionSettings()), Size(0.5, depth)
    label = () if network.classes is None else (torch.tensor([0, 2, 3]),)
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    given = (x, torch.tensor([0.0, 500.5, 999.0]), *label)
    examples = tuple(torch.zeros_like(tensor[:2]) for tensor in given)
    entry = write_network(supernet.backbone(*size), examples, size, "onnx", tmp_path)
    assert entry["file"] == ("width-0.5.onnx" if depth is None else f"width-0.5-depth-{depth}.onnx")
    expected = supernet.subnet(*size)(*given)
    found = load_network(tmp_path / entry["file"], entry, {}, torch.device("cpu"))(*given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert float((expected - supernet.subnet(0.5)(*given)).abs().max()) > 1e-3 or depth is None


def test_what_onnx_lacks_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def hide(name: str) -> object:
        return None if name in ("onnx", "onnxscript") else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", hide)
    with pytest.raises(InputError, match=r"^--as onnx needs onnx and onnxscript; pip install onnx onnxscript, or"):
        check_form("onnx")
    check_form("torch-export")
