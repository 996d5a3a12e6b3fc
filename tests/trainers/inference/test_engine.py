"""Engines: the same predictions within the tolerance, a choice by measurement, and refusals that say why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.conditioning import guided
from stepfront.trainers.inference import engine_choice, winograd
from stepfront.trainers.inference.cost import Latency
from stepfront.trainers.inference.engine import PLAIN, Engine
from stepfront.trainers.inference.engine_choice import TOLERANCE, Bench, Measured, choose_engine
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.prediction import NoiseConversion, PredictsNoise, conversion
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.noise_schedule import noise_schedule

CPU = torch.device("cpu")
CHANNELS_LAST, WINOGRAD = Engine(name="channels_last"), Engine(name="winograd")
INPUTS = [(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((4,), 500.0))]


@pytest.fixture(scope="module")
def supernet(network: NetworkSettings, random_supernet: Callable[..., Supernet]) -> Supernet:
    return random_supernet(network)


@pytest.fixture(scope="module")
def bench(supernet: Supernet) -> Bench:
    return Bench(supernet.subnet, supernet.widths, INPUTS, CPU)


class _Exact(nn.Module):
    """Returns what it is made with, in the precision of its input."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.output.to(x.dtype)


@pytest.mark.parametrize(
    ("schedule", "prediction"), [("linear", "v"), ("linear", "sample"), ("edm", "edm"), ("cosine", "v")]
)
def test_bfloat16_keeps_the_image_under_other_predictions(
    schedule: Any, prediction: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffusion = DiffusionSettings(schedule=schedule, prediction=prediction)
    time, made_from = np.array([900.0]), noise_schedule(diffusion)
    alpha, sigma = float(made_from.alpha(time)[0]), float(made_from.sigma(time)[0])
    draw = torch.Generator().manual_seed(0)
    x0, eps = torch.rand(4, 1, 8, 8, generator=draw) - 0.5, torch.randn(4, 1, 8, 8, generator=draw)
    x = alpha * x0 + sigma * eps
    at = conversion(diffusion, torch.from_numpy(made_from.half_log_snr(time)).float(), torch.from_numpy(time).float())
    network = PredictsNoise(_Exact((eps - at.of_x * x) / at.of_output), NoiseConversion(diffusion))

    def error() -> float:
        noise = Engine(precision="bfloat16").run(network, torch.device("cpu"), 4)(x, torch.full((4,), 900.0))
        return float(((x - sigma * noise) / alpha - x0).abs().max())

    assert error() < 0.01  # the output has 8 bits
    monkeypatch.setattr(PredictsNoise, "reads_float32", False)
    assert error() > 0.05  # x of 8 bits, too


@torch.inference_mode()
def test_the_plain_engine_is_the_subnet_to_the_bit_on_the_shared_weights(supernet: Supernet) -> None:
    x, t = INPUTS[0]
    network = supernet.subnet(1.0)
    assert torch.equal(PLAIN.run(network, CPU, 4)(x, t), supernet.subnet(1.0)(x, t))
    assert network.head.weight.data_ptr() == supernet.widest.head.weight.data_ptr()


@pytest.mark.parametrize(
    "engine",
    [
        CHANNELS_LAST,
        WINOGRAD,
        Engine(precision="bfloat16"),
        CHANNELS_LAST.model_copy(update={"precision": "bfloat16"}),
    ],
)
@torch.inference_mode()
def test_every_engine_predicts_what_the_plain_one_does_and_leaves_the_shared_weights(
    monkeypatch: pytest.MonkeyPatch, supernet: Supernet, engine: Engine
) -> None:
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    x, t = INPUTS[0]
    before = {name: value.clone() for name, value in supernet.widest.named_parameters()}
    strides = {name: value.stride() for name, value in supernet.widest.named_parameters()}
    for width in supernet.widths:
        expected, found = supernet.subnet(width)(x, t), engine.run(supernet.subnet(width), CPU, 4)(x, t)
        assert found.dtype == torch.float32
        assert found.is_contiguous()
        error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert error <= TOLERANCE[engine.precision]
        assert engine.precision == "float32" or error > 1e-5  # it does calculate in fewer digits
    for name, value in supernet.widest.named_parameters():
        assert torch.equal(value, before[name])
        assert value.stride() == strides[name]
        assert value.dtype == torch.float32


def test_all_widths_of_all_eager_engines_are_measured_and_compiling_is_not_tried_where_it_cannot_pay(
    bench: Bench,
) -> None:
    chosen, measured = choose_engine(bench, "auto", "auto", calls=1000)
    assert [one.engine.label for one in measured] == ["plain", "channels_last", "winograd", "compiled"]
    assert measured[2].refused == "the network has no 3x3 convolution with enough channels for it"
    for one in measured[:2]:
        assert len(one.latency_ms) == len(bench.widths)
        assert min(one.latency_ms) > 0
        assert one.difference <= 1e-4
    assert measured[0].difference == 0
    assert "not tried" in measured[3].refused
    assert chosen in measured[:2]


def test_winograd_is_tried_in_all_digits_and_where_a_layer_suits(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    with pytest.raises(
        InputError, match=r"workers\.engine winograd, .* float32: the network has no 3x3 convolution with"
    ):
        choose_engine(bench, "winograd", "auto", calls=10)
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    _, measured = choose_engine(bench, "auto", "auto", calls=10)
    assert [one.engine.label for one in measured] == ["plain", "channels_last", "winograd", "compiled"]
    assert len(measured[2].latency_ms) == len(bench.widths)
    assert not measured[2].refused
    _, measured = choose_engine(bench, "auto", "bfloat16", calls=10)
    assert "winograd" not in {one.engine.name for one in measured}
    with pytest.raises(InputError, match=r"workers\.engine winograd, .* bfloat16: is for float32"):
        choose_engine(bench, "winograd", "bfloat16", calls=10)
    gpu = replace(bench, device=torch.device("cuda"))
    monkeypatch.setattr(Bench, "measure", lambda self, engines: [made(1.0, engine) for engine in engines])
    with pytest.raises(InputError, match=r"workers\.engine winograd, .*: is for CPUs; on GPUs cuDNN"):
        choose_engine(gpu, "winograd", "float32", calls=10)


def test_what_is_forced_is_taken(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    for name in ("plain", "channels_last", "winograd"):
        chosen, measured = choose_engine(bench, name, "float32", calls=10)
        assert chosen.engine == Engine(name=name)
        assert {one.engine for one in measured} == {PLAIN, Engine(name=name)}
    assert choose_engine(bench, "plain", "bfloat16", calls=10)[0].engine == Engine(precision="bfloat16")


def made(seconds: float, engine: Engine, startup: float = 0.0) -> Measured:
    return Measured(engine=engine, latency_ms=(1000 * seconds,), startup_seconds=startup)


@pytest.mark.parametrize(
    ("other", "startup", "calls", "wins"),
    [
        (0.8, 0, 1000, True),
        (0.95, 0, 1000, False),
        (1.2, 0, 1000, False),
        (0.5, 400, 1000, True),
        (0.5, 600, 1000, False),
        (0.8, 0, 100, False),  # 20 s in all
    ],
)
def test_an_engine_must_win_clearly_and_by_what_is_worth_having_and_win_back_its_start(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, other: float, startup: float, calls: float, wins: bool
) -> None:
    table = [made(1.0, PLAIN), made(other, CHANNELS_LAST, startup)]
    monkeypatch.setattr(Bench, "measure", lambda self, engines: [one for one in table if one.engine in engines])
    monkeypatch.setattr(engine_choice, "COMPILE_SECONDS", 1e9)
    chosen, _ = choose_engine(bench, "auto", "auto", calls)
    assert chosen == table[wins]


class Rounded(nn.Module):
    """Right in float32; in fewer digits off by far more than these explain."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x if self.weight.dtype == torch.float32 else 1.1 * x


def test_a_forced_precision_that_changes_the_numbers_too_much_is_refused_in_one_line() -> None:
    bench = Bench(lambda width: Rounded(), (1.0,), INPUTS, CPU)
    with pytest.raises(InputError, match=r"workers\.precision bfloat16: changes .* by 0\.1, more than 0\.02"):
        choose_engine(bench, "plain", "bfloat16", calls=10)


def test_what_guidance_amplifies_is_what_must_agree() -> None:
    """Predictions with and without a label that differ little: scale 9 makes 9% of what is 1% of their difference."""

    class Conditional(Rounded):
        def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            scale = 1.01 if self.weight.dtype == torch.bfloat16 and int(label[0]) == 0 else 1.0
            return scale * x

    x, t = INPUTS[0]
    inputs = [(x, t, torch.zeros(len(x), dtype=torch.long))]

    def found(scale: float) -> Measured:
        guide = partial(guided, null=1, scale=scale)
        return Bench(lambda width: Conditional(), (1.0,), inputs, CPU, guide).measure([Engine(precision="bfloat16")])[0]

    assert found(1.0).difference == pytest.approx(0.01, rel=0.2)  # and what x itself loses
    assert not found(1.0).refused
    assert found(9.0).difference == pytest.approx(0.09, rel=0.2)
    assert "more than 0.02" in found(9.0).refused


def test_a_prediction_that_is_not_finite_is_refused() -> None:
    class Overflowing(Rounded):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x if self.weight.dtype == torch.float32 else x / 0

    with pytest.raises(InputError, match="changes the network's prediction"):
        choose_engine(Bench(lambda width: Overflowing(), (1.0,), INPUTS, CPU), "auto", "bfloat16", calls=10)


def test_a_machine_that_cannot_compile_is_reported(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    def fail(network: nn.Module) -> Callable[..., torch.Tensor]:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr("stepfront.trainers.inference.engine.compiled", fail)
    chosen, measured = choose_engine(bench, "auto", "auto", calls=1e12)
    assert "can't be compiled here: RuntimeError: no C++ compiler" in measured[-1].refused
    assert chosen.engine.name != "compiled"
    with pytest.raises(InputError, match=r"compiled.*no C"):
        choose_engine(bench, "compiled", "auto", calls=1e12)


@pytest.mark.parametrize("name", ["cuda_graphs", "compiled_cuda_graphs"])
def test_graphs_are_refused_on_a_cpu_in_one_line(bench: Bench, name: Any) -> None:
    with pytest.raises(InputError, match=rf"workers\.engine {name}, .*: is for GPUs: CPUs have no CUDA graphs"):
        choose_engine(bench, name, "float32", calls=10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["cuda_graphs", "compiled_cuda_graphs"])
def test_a_recorded_network_predicts_what_the_plain_one_does(supernet: Supernet, name: Any) -> None:
    device = torch.device("cuda")
    x, t = (each.to(device) for each in INPUTS[0])
    for width in supernet.widths:
        expected = PLAIN.run(supernet.subnet(width), device, 4)(x, t)
        recorded = Engine(name=name).run(supernet.subnet(width), device, 4)
        first = recorded(x, t)
        recorded(2 * x, t)  # the first result must not change with the next
        for found in (first, recorded(x, t)):
            torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


def test_calls_with_features_are_measured_where_the_space_reuses(supernet: Supernet) -> None:
    found = Bench(supernet.subnet, supernet.widths, INPUTS, CPU).feature_latencies(PLAIN, [1.0])
    assert set(found) == {1.0}
    assert found[1.0].reuse.ms > 0
    assert found[1.0].reuse.spread >= 0
    assert found[1.0].keep is None, "a plain network runs such a full call as any other"


def test_compiling_has_to_pay_off_for_all_calls_that_a_worker_compiles(
    monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    monkeypatch.setattr(engine_choice, "_seconds", lambda network, inputs: 5.0)
    monkeypatch.setattr("stepfront.trainers.inference.engine.compiled", lambda network: network)
    monkeypatch.setattr(Bench, "_latencies", lambda self, running, *given: [Latency(1.0, 0.0)] * len(running))
    widths = len(bench.widths)
    more = replace(bench, more_calls=3 * widths)  # such as three depths more
    plain, compiled = more.measure([PLAIN, Engine(name="compiled")])
    assert plain.startup_seconds == 5 * widths
    assert compiled.startup_seconds == 5 * 4 * widths
    assert bench.measure([Engine(name="compiled")])[0].startup_seconds == 5 * widths
    calls = 1000 * 6 * engine_choice.COMPILE_SECONDS * widths  # worth compiling the widths alone
    (said,) = [one.refused for one in choose_engine(more, "auto", "auto", calls)[1] if one.engine.compiles]
    assert said.startswith(f"not tried: compiling takes at least {40 * widths} s, and a worker is expected")
    (tried,) = [one for one in choose_engine(bench, "auto", "auto", calls)[1] if one.engine.compiles]
    assert not tried.refused
