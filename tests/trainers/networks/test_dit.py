"""The diffusion transformer: published costs, widths that are cuts of the widest network, and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings, DiffusionSettings, FeatureSettings, SamplerSettings, TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.evaluator import Evaluator, EvaluatorParts
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.inference.engine import Engine
from stepfront.trainers.inference.engine_choice import Bench, choose_engine
from stepfront.trainers.metrics.features import prepare_features
from stepfront.trainers.network_settings import DitSettings, NetworkSettings
from stepfront.trainers.networks.dit import build_dit, positions
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.training.trainer import train_supernet
from stepfront.trainers.training_settings import TrainingSettings
from stepfront.trainers.validation import validate

Slim = Literal["all", "inner"]

PUBLISHED = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}


def tiny(slim: Slim = "all", classes: int | None = None, **dit: Any) -> NetworkSettings:
    sizes = {"hidden": 16, "depth": 2, "heads": 4, "slim": slim} | dit
    return NetworkSettings(family="dit", widths=(0.25, 0.5, 1.0), classes=classes, dit=DitSettings(**sizes))


# --- costs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "gmacs", "millions"), [("S", 6.06, 33), ("B", 23.01, 130), ("L", 80.71, 458), ("XL", 118.64, 675)]
)
def test_costs_of_the_published_sizes_are_the_published_ones(size: str, gmacs: float, millions: int) -> None:
    hidden, depth, heads = PUBLISHED[size]
    dit = DitSettings(patch=2, hidden=hidden, depth=depth, heads=heads)
    cost = count_width(NetworkSettings(family="dit", classes=1000, widths=(1.0,), dit=dit), 4, 32, 1.0)
    assert cost.macs == pytest.approx(gmacs * 1e9, rel=1e-3)  # table 4 of the paper, with learnt variances
    assert round(cost.parameters / 1e6) == millions


@pytest.mark.parametrize("slim", ["all", "inner"])
@pytest.mark.parametrize("width", [0.25, 0.5, 1.0])
def test_macs_of_a_width_are_the_closed_form(slim: Slim, width: float) -> None:
    depth, tokens, hidden, pixels = 3, 16, 32, 4
    settings = tiny(slim, hidden=hidden, depth=depth)
    inner = round(width * hidden)
    own = inner if slim == "all" else hidden
    block = 4 * own * inner * tokens + 2 * tokens**2 * inner + 8 * own * inner * tokens + 6 * own**2
    ends = 2 * pixels * own * tokens + 256 * own + own**2 + 2 * own**2
    assert count_width(settings, 1, 8, width).macs == depth * block + ends


# --- widths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slim", ["all", "inner"])
def test_a_narrow_network_has_the_first_heads_and_the_first_channels_of_each_modulation(
    slim: Slim, random_supernet: Callable[..., Supernet]
) -> None:
    supernet = random_supernet(tiny(slim))
    wide, narrow = dict(supernet.widest.named_parameters()), dict(supernet.subnet(0.5).named_parameters())
    own = 8 if slim == "all" else 16
    qkv = wide["blocks.1.qkv.weight"].view(3, 4, 4, 16)[:, :2, :, :own]  # of 4 heads of 4 channels
    assert torch.equal(narrow["blocks.1.qkv.weight"], qkv.reshape(24, own))
    six = wide["blocks.1.modulation.weight"].view(6, 16, 16)[:, :own, :own]
    assert torch.equal(narrow["blocks.1.modulation.weight"], six.reshape(6 * own, own))
    two = wide["modulation.bias"].view(2, 16)[:, :own]
    assert torch.equal(narrow["modulation.bias"], two.reshape(-1))
    assert torch.equal(narrow["blocks.0.mlp.2.weight"], wide["blocks.0.mlp.2.weight"][:own, :32])
    assert torch.equal(narrow["tail.weight"], wide["tail.weight"][:, :own])
    assert torch.equal(narrow["head.weight"], wide["head.weight"][:own])


def test_positions_are_the_closed_form_and_a_prefix_of_any_four_channels_knows_row_and_column() -> None:
    table = positions(3, 5, 12, torch.device("cpu"))
    for row, column, i in ((0, 0, 0), (2, 4, 1), (1, 3, 2)):
        rate = 10000 ** (-i / 3)
        waves = [f(at * rate) for at in (column, row) for f in (math.sin, math.cos)]
        assert table[5 * row + column, 4 * i : 4 * i + 4].tolist() == pytest.approx(waves, abs=1e-12)
    assert len({tuple(one) for one in table[:, :4].tolist()}) == 15


def test_positions_are_those_of_the_paper_in_another_order() -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    theirs = embeddings.get_2d_sincos_pos_embed(32, 8, base_size=8, output_type="pt")
    ours = positions(8, 8, 32, torch.device("cpu")).view(64, 8, 4).transpose(1, 2).reshape(64, 32)
    torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=1e-6)


def test_the_first_prediction_is_zero_and_patches_do_not_mix_up_pixels() -> None:
    settings = tiny(patch=4, hidden=64, heads=4)
    network = build_dit(settings, 3, 8, 1.0)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.0, 999.0])
    with torch.no_grad():
        assert torch.equal(network(x, t), torch.zeros_like(x))
        # Maps in and out that undo each other: what comes out is the norm of each patch's pixels.
        network.head.weight.copy_(torch.eye(48).repeat(2, 1)[:64])
        order = torch.arange(48).view(3, 4, 4).permute(1, 2, 0).flatten()
        network.tail.weight.copy_(torch.eye(64)[order])
        noise = network(100 * x, t)  # so large that the positions do not matter
    for row in range(2):
        for column in range(2):
            of = (0, slice(None), slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
            both = torch.stack([noise[of].flatten(), x[of].flatten()])
            assert torch.corrcoef(both)[0, 1] > 0.99


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"dit": {"heads": 5}}, "hidden 64 can't be divided into 5 heads; possible: 1, 2, 4, 8, 16, 32, 64"),
        ({"dit": {"heads": 2}}, "width 0.25 of 2 heads (dit.heads) is 0.5 heads, not a whole number"),
        ({"dit": {"hidden": 36, "heads": 6}}, "width 0.25 of 6 heads (dit.heads) is 1.5 heads"),
        ({"dit": {"hidden": 34}}, "network.dit.hidden: input should be a multiple of 4 (given: 34)"),
        ({"dit": {"layers": 3}}, "unknown setting 'network.dit.layers'"),
        ({"base": 16, "groups": 4}, "does not have the settings network.base, network.groups; its own are in network."),
        ({"family": "unet", "dit": {"depth": 2}}, "family unet does not have the settings network.dit; they are for"),
    ],
)
def test_settings_that_fit_no_transformer_are_refused_in_one_line(network: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        validate(TrainerSettings, {"network": {"family": "dit"} | network})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rounded_width_is_the_nearest_number_of_heads() -> None:
    dit = DitSettings(hidden=36, heads=6)
    settings = NetworkSettings(family="dit", widths=(0.333, 0.5, 0.667, 1.0), dit=dit)
    assert [dit.sizes(width).heads for width in settings.widths] == [2, 3, 4, 6]
    assert dit.sizes(0.333) == (12, 2, 12, 48)


def test_a_patch_that_does_not_divide_the_images_is_refused_with_those_that_do() -> None:
    with pytest.raises(InputError, match=r"images of 28 pixels .* patches of 8 .*possible: 1, 2, 4, 7, 14, 28; or"):
        build_dit(tiny(patch=8), 1, 28, 1.0)


# --- what runs it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slim", ["all", "inner"])
def test_a_small_transformer_is_trained_and_a_plan_of_it_is_scored(
    slim: Slim, digits: ImageData, tmp_path: Path
) -> None:
    training = TrainingSettings(
        **{"steps": 30, "batch": 16, "lr": 8e-3, "ema": 0.9, "checkpoint_every": 30},
        **{"held_out_images": 64, "device": "cpu", "warmup": 4},
    )
    settings = TrainerSettings(data=DataSettings(), network=tiny(slim, classes=10), training=training)
    losses: list[dict[float, float]] = []
    card = train_supernet(settings, digits, tmp_path, lambda report: losses.append(report.losses))
    supernet, _ = load_supernet(tmp_path)
    measured = [one for one in losses if one]
    assert all(measured[-1][width] < 1.0 for width in supernet.widths)  # 1: the first prediction, which is zero

    packed, reference = prepare_features(
        digits, FeatureSettings(name="random", examine="skip"), tmp_path, torch.device("cpu")
    )
    weights = {name: value.detach().numpy() for name, value in supernet.widest.named_parameters()}
    costs = {width: count_width(card.network, 1, 8, width) for width in supernet.widths}
    sampler = SamplerSettings(solver="ddim", steps=3)
    times = tuple(map(float, time_grid(noise_schedule(DiffusionSettings()), "quadratic", 3)))
    evaluate = Evaluator(EvaluatorParts(card, weights, packed, reference, sampler, costs, batch=32))
    scored = evaluate(Plan(times, (0.25, 0.5, 1.0)), 48, 0)
    assert scored.error == ""
    assert math.isfinite(scored.fid)


@pytest.mark.parametrize("engine", [Engine(name="channels_last"), Engine(precision="bfloat16")])
@torch.inference_mode()
def test_engines_predict_what_the_plain_one_does(engine: Engine, random_supernet: Callable[..., Supernet]) -> None:
    supernet = random_supernet(tiny())
    x, t = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((4,), 500.0)
    for width in supernet.widths:
        expected = supernet(x, t, width)
        made = engine.run(supernet.subnet(width), torch.device("cpu"), 4)(x, t)
        assert made.is_contiguous()
        if engine.precision == "float32":
            assert torch.equal(made, expected)
        assert (made - expected).square().mean().sqrt() < 2e-2 * expected.square().mean().sqrt()


def test_engines_are_measured_and_winograd_is_not_for_it(random_supernet: Callable[..., Supernet]) -> None:
    supernet = random_supernet(tiny())
    inputs = [(torch.randn(4, 1, 8, 8), torch.full((4,), 500.0))]
    chosen, measured = choose_engine(
        Bench(supernet.subnet, supernet.widths, inputs, torch.device("cpu")), "auto", "auto", 100.0
    )
    refused = {one.engine.name: one.refused for one in measured}
    assert chosen.engine.name == "plain"
    assert refused["channels_last"] == ""
    assert refused["winograd"] == "the network has no 3x3 convolution with enough channels for it"


def test_a_compiled_network_predicts_what_the_plain_one_does(random_supernet: Callable[..., Supernet]) -> None:
    subnet = random_supernet(tiny(depth=1)).subnet(0.5)
    x, t = torch.randn(4, 1, 8, 8), torch.full((4,), 500.0)
    program = torch.compile(subnet, dynamic=False, fullgraph=True, backend="eager")  # what the compiler sees
    with torch.inference_mode():
        torch.testing.assert_close(program(x, t), subnet(x, t))


def test_it_is_one_program_of_torch_export_for_any_number_of_images(random_supernet: Callable[..., Supernet]) -> None:
    subnet = random_supernet(tiny(depth=1, classes=3)).subnet(0.5)
    x, t, label = torch.randn(4, 1, 8, 8), torch.full((4,), 500.0), torch.tensor([0, 1, 2, 3])
    images = torch.export.Dim("images", min=1)
    dynamic = {"x": {0: images}, "t": {0: images}, "label": {0: images}}
    with torch.no_grad():
        program = torch.export.export(subnet, (x, t, label), dynamic_shapes=dynamic).module()
        for count in (1, 3):
            torch.testing.assert_close(
                program(x[:count], t[:count], label[:count]), subnet(x[:count], t[:count], label[:count])
            )
