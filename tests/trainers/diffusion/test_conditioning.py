"""Class labels: networks that take them, guidance by them, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings, FeatureSettings, SamplerSettings, TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.diffusion.conditioning import (
    Condition,
    calls_per_step,
    check_classes,
    guided,
    label_counts,
    make_condition,
)
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.evaluator import Evaluator, EvaluatorParts
from stepfront.trainers.inference.cost import count_width, plan_gflops, plan_latency_ms
from stepfront.trainers.inference.prefix_cache import Prefixes
from stepfront.trainers.interop.channel_importance import sort_channels
from stepfront.trainers.metrics.features import prepare_features
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.families import build_backbone
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet, save_supernet
from stepfront.trainers.networks.weights import weights_digest
from stepfront.trainers.step_losses.loss_gap import gap_table
from stepfront.trainers.training.trainer import TrainingReport, train_supernet
from stepfront.trainers.training_settings import TrainingSettings

CLASSES, NULL = 10, 10
SCHEDULE = noise_schedule(DiffusionSettings())
TIMES = tuple(map(float, time_grid(SCHEDULE, "trailing", 6)))
PLAN = Plan(TIMES, (0.25, 0.5, 0.5, 0.75, 1.0, 0.25))
CPU = torch.device("cpu")
COUNTS = (3, 0, 1)

Make = Callable[..., Supernet]


@pytest.fixture(scope="module")
def conditional(network: NetworkSettings) -> NetworkSettings:
    return network.model_copy(update={"classes": CLASSES})


@pytest.fixture(scope="module")
def supernet(conditional: NetworkSettings, random_supernet: Make) -> Supernet:
    return random_supernet(conditional)


def batch(images: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, 1, 8, 8, generator=generator)
    return x, torch.arange(images) * 150.0, torch.arange(images) % CLASSES


# --- networks ---------------------------------------------------------------------------------------------------------


def test_without_classes_a_network_is_what_it_was(network: NetworkSettings, conditional: NetworkSettings) -> None:
    networks = []
    for settings in (network, conditional):
        torch.manual_seed(5)
        networks.append(build_backbone(settings, 1, 8, 1.0).eval())
    plain, other = (n.state_dict() for n in networks)
    assert other.keys() - plain.keys() == {"label.weight"}
    assert all(torch.equal(plain[name], other[name]) for name in plain)
    x, t, label = batch()
    # The embedding begins as zero, so the conditional network begins as the unconditional one.
    assert torch.equal(networks[0](x, t), networks[1](x, t, label))


def test_the_weights_of_an_unconditional_network_have_the_digest_of_old(random_supernet: Make) -> None:
    supernet = random_supernet(NetworkSettings(base=8, multipliers=(1, 2), attention=(8,), groups=4, group_channels=2))
    digest = weights_digest(supernet.widest.state_dict())
    # Measured before networks had classes.
    assert digest == "008c558aad93243d7daa5bb2513b0d949ff00b387a3648fa6be89b2165722b18"


def test_labels_cost_parameters_but_no_macs(network: NetworkSettings, conditional: NetworkSettings) -> None:
    for width in network.widths:
        plain, other = (count_width(settings, 1, 8, width) for settings in (network, conditional))
        assert other.macs == plain.macs
        assert other.parameters - plain.parameters == (CLASSES + 1) * round(network.base * width) * 4


def test_subnets_are_the_supernet_sliced_bit_for_bit_with_labels(supernet: Supernet) -> None:
    x, t, label = batch()
    for width in supernet.widths:
        subnet, channels = supernet.subnet(width), round(8 * width) * 4
        assert torch.equal(subnet(x, t, label), supernet(x, t, width, label))
        assert torch.equal(subnet.label.weight, supernet.widest.label.weight[:, :channels])  # type: ignore[union-attr,index]


def test_each_label_changes_the_prediction_and_none_is_the_null_class(supernet: Supernet) -> None:
    x, t, _ = batch(1)
    predicted = [supernet(x, t, 0.5, torch.tensor([label])) for label in range(CLASSES + 1)]
    assert len({p.detach().numpy().tobytes() for p in predicted}) == CLASSES + 1
    assert torch.equal(supernet(x, t, 0.5), predicted[NULL])


def test_sorting_channels_keeps_a_conditional_network(conditional: NetworkSettings, random_supernet: Make) -> None:
    network, (x, t, label) = random_supernet(conditional, seed=3).widest, batch()
    with torch.no_grad():
        before = network(x, t, label)
        sort_channels(network)  # type: ignore[arg-type]
        torch.testing.assert_close(network(x, t, label), before, rtol=0, atol=2e-5)


# --- guidance ---------------------------------------------------------------------------------------------------------


def test_scale_1_is_the_conditional_prediction_and_0_that_of_the_null_class(supernet: Supernet) -> None:
    network, (x, t, label) = supernet.subnet(0.5), batch()
    assert torch.equal(guided(network, label, NULL, 1.0)(x, t), network(x, t, label))
    assert torch.equal(guided(network, label, NULL, 0.0)(x, t), network(x, t, torch.full_like(label, NULL)))


def test_the_prediction_is_linear_in_the_scale(supernet: Supernet) -> None:
    network, (x, t, label) = supernet.subnet(0.5).double(), batch()
    x, scales = x.double(), (0.0, 1.0, 2.5, 4.0)
    none, plain, half, full = (guided(network, label, NULL, scale)(x, t) for scale in scales)
    torch.testing.assert_close(half, 0.375 * none + 0.625 * full, rtol=0, atol=1e-12)
    torch.testing.assert_close(full - none, 4 * (plain - none), rtol=0, atol=1e-12)
    assert not torch.equal(plain, none)


class Counting:
    """A network that counts its calls."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network, self.calls = network, 0

    def __call__(self, *inputs: Tensor) -> Tensor:
        self.calls += 1
        return self.network(*inputs)


@pytest.mark.parametrize(("scale", "calls"), [(0.0, 1), (1.0, 1), (0.5, 2), (3.0, 2)])
def test_a_guided_step_makes_as_many_calls_as_are_counted(supernet: Supernet, scale: float, calls: int) -> None:
    network = Counting(supernet.subnet(1.0))
    sampler = sampler_of(supernet, Condition(3, COUNTS, scale), {1.0: network})
    list(sampler.sample(Plan(TIMES, (1.0,) * 6), 4, 4))
    assert network.calls == 6 * calls == 6 * calls_per_step(scale)


# --- labels of generated images ---------------------------------------------------------------------------------------


def ranges(count: int, size: int) -> Iterator[range]:
    for first in range(0, count, size):
        yield range(first, min(first + size, count))


@pytest.mark.parametrize("size", [1, 3, 4, 7, 50])
def test_labels_are_the_same_in_any_batches(size: int) -> None:
    condition = Condition(3, (5, 1, 4, 8))
    parts = [condition.labels(images) for images in ranges(50, size)]
    np.testing.assert_array_equal(np.concatenate(parts), condition.labels(range(50)))
    assert not np.array_equal(Condition(4, (5, 1, 4, 8)).labels(range(50)), condition.labels(range(50)))


def test_labels_come_in_the_proportions_of_the_training_images(digits: ImageData) -> None:
    counts, n = np.array(label_counts(digits, 12)), 40_000
    assert (counts.sum(), len(counts)) == (len(digits.images), 12)
    drawn = np.bincount(Condition(0, tuple(counts.tolist())).labels(range(n)), minlength=12)
    share = counts / counts.sum()
    assert drawn[10:].sum() == 0
    assert (np.abs(drawn / n - share) < 4.5 * np.sqrt(share * (1 - share) / n) + 1e-12).all()


def test_labels_are_independent_of_the_noise() -> None:
    labels = Condition(7, (1, 1)).labels(range(4000))
    first = Noise(7, (2,)).initial(range(4000)).astype(float)
    assert np.abs(np.corrcoef(first.T, labels)[2, :2]).max() < 4 / np.sqrt(4000)


def test_what_makes_no_condition_is_said() -> None:
    assert make_condition(None, (), 1.0, 0) is None
    assert make_condition(3, (), 1.0, 0) == Condition(0, (1, 1, 1))
    with pytest.raises(InputError, match="no class 3; possible: 0 to 2"):
        make_condition(3, COUNTS, 1.0, 0, label=3)
    with pytest.raises(InputError, match="label 3 needs a class-conditional supernet"):
        make_condition(None, (), 1.0, 0, label=3)
    with pytest.raises(InputError, match="guidance 2 needs a class-conditional supernet"):
        make_condition(None, (), 2.0, 0)


# --- sampling ---------------------------------------------------------------------------------------------------------


def sampler_of(supernet: Supernet, condition: Condition | None, networks: dict | None = None) -> Sampler:  # type: ignore[type-arg]
    subnets = networks or {w: supernet.subnet(w) for w in supernet.widths}
    return Sampler(subnets, SCHEDULE, Noise(3, (1, 8, 8)), CPU, condition=condition)


def images(sampler: Sampler, count: int, size: int) -> Tensor:
    return torch.cat(list(sampler.sample(PLAN, count, size)))


@pytest.mark.parametrize("size", [1, 3, 4])
def test_batches_of_any_size_give_the_same_images(supernet: Supernet, size: int) -> None:
    sampler = sampler_of(supernet, Condition(3, (1,) * CLASSES, 2.0))
    torch.testing.assert_close(images(sampler, 7, size), images(sampler, 7, 7), rtol=0, atol=2e-4)


def test_images_are_those_of_one_step_after_another_with_their_labels(supernet: Supernet) -> None:
    condition = Condition(3, (1,) * CLASSES, 3.0)
    labels = torch.from_numpy(condition.labels(range(5)))
    subnets = {w: supernet.subnet(w) for w in supernet.widths}
    plain = {w: guided(subnet, labels, NULL, 3.0) for w, subnet in subnets.items()}
    expected = images(Sampler(plain, SCHEDULE, Noise(3, (1, 8, 8)), CPU), 5, 5)
    assert torch.equal(images(sampler_of(supernet, condition), 5, 5), expected)


def test_prefixes_of_other_labels_are_not_taken_for_ones_own(supernet: Supernet) -> None:
    prefixes = Prefixes(2**20)
    for label in (None, 3, 4, None):
        condition = Condition(3, (1,) * CLASSES, 2.0, label)
        bare = sampler_of(supernet, condition)
        assert torch.equal(images(replace(bare, prefixes=prefixes), 4, 4), images(bare, 4, 4))


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(supernet: Supernet, digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> EvaluatorParts:
    directory = tmp_path_factory.mktemp("evaluation")
    counts = label_counts(digits, CLASSES)
    card = save_supernet(supernet, directory, DiffusionSettings(), digits.name, digits.fingerprint, label_counts=counts)
    assert load_supernet(directory)[1].label_counts == counts
    packed, reference = prepare_features(
        digits, FeatureSettings(name="classifier", classifier_epochs=1), directory, CPU
    )
    weights = {name: value.numpy() for name, value in supernet.widest.state_dict().items()}
    costs = {w: count_width(card.network, 1, 8, w).model_copy(update={"latency_ms": w}) for w in supernet.widths}
    return EvaluatorParts(
        card, weights, packed, reference, SamplerSettings(solver="ddim", grid="trailing"), costs, batch=16
    )


def with_guidance(parts: EvaluatorParts, scale: float) -> EvaluatorParts:
    costs = {w: cost.model_copy(update={"calls": 2}) for w, cost in parts.costs.items()}
    return replace(parts, sampler=SamplerSettings(solver="ddim", grid="trailing", guidance=scale), costs=costs)


def test_guidance_doubles_calls_and_costs_exactly(parts: EvaluatorParts) -> None:
    plain, guiding = Evaluator(parts), Evaluator(with_guidance(parts, 2.0))
    other = replace(PLAN, widths=(*PLAN.widths[:4], 0.5, 0.5))
    for plan in (PLAN, other):  # the second continues from what it shares with the first
        one, two = plain(plan, 24, 5), guiding(plan, 24, 5)
        assert (two.gflops, two.latency_ms) == (2 * one.gflops, 2 * one.latency_ms)
        assert (two.calls, two.calls_saved) == (2 * one.calls, 2 * one.calls_saved)
        assert two.gflops_saved == 2 * one.gflops_saved
        assert one.calls + one.calls_saved == 6 * 24
        assert one.fid != two.fid
    assert one.calls_saved > 0
    assert plan_gflops(PLAN, parts.costs) == pytest.approx(sum(2e-9 * parts.costs[w].macs for w in PLAN.widths))
    assert plan_latency_ms(PLAN, parts.costs) == pytest.approx(sum(PLAN.widths))


def test_an_evaluator_samples_the_class_that_is_asked_for(parts: EvaluatorParts) -> None:
    evaluate = Evaluator(parts)
    mixed, threes = (torch.cat(list(evaluate.sample(PLAN, 20, 5, label))) for label in (None, 3))
    labels = evaluate.labels(20, 5)
    assert labels is not None
    same = [torch.equal(one, other) for one, other in zip(mixed, threes, strict=True)]
    assert same == (labels == 3).tolist()
    assert 0 < sum(same) < 20
    with pytest.raises(InputError, match="no class 10; possible: 0 to 9"):
        evaluate.labels(20, 5, 10)


def test_the_gap_is_that_of_the_conditional_prediction(supernet: Supernet, digits: ImageData) -> None:
    pixels, labels = digits.held_out_images[:6], digits.held_out_labels
    assert labels is not None
    given = torch.from_numpy(labels[:6])

    def denoiser(width: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: supernet.subnet(width)(x, t, given)

    table = gap_table({w: denoiser(w) for w in (0.25, 1.0)}, SCHEDULE, TIMES[:1], pixels, CPU, seed=7)
    eps = torch.from_numpy(Noise(7, (1, 8, 8)).after_step(range(6), 0))
    alpha, sigma = (float(f(np.array(TIMES[:1]))[0]) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
    x = alpha * (torch.from_numpy(pixels).float() / 127.5 - 1) + sigma * eps
    t = torch.full((6,), TIMES[0])
    with torch.no_grad():
        losses = [float((supernet(x, t, w, given) - eps).square().double().mean()) for w in (0.25, 1.0)]
    assert table[0, 0] == pytest.approx(losses[0] - losses[1], rel=1e-5)


# --- training ---------------------------------------------------------------------------------------------------------


def settings(conditional: bool = True, **training: object) -> TrainerSettings:
    classes = CLASSES if conditional else None
    given = {"steps": 12, "batch": 4, "checkpoint_every": 5, "held_out_images": 16, "device": "cpu", "warmup": 4}
    given["samples_every"] = 3  # at the end alone: a grid takes longer than the steps between two
    return TrainerSettings(
        network=NetworkSettings(base=8, multipliers=(1, 2), groups=4, group_channels=2, classes=classes),
        training=TrainingSettings.model_validate(given | training),
    )


def test_a_resumed_conditional_training_equals_a_whole_one(digits: ImageData, tmp_path: Path) -> None:
    whole = train_supernet(settings(), digits, tmp_path / "whole")

    def killed(state: TrainingReport) -> None:
        if state.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_supernet(settings(), digits, tmp_path / "cut", killed)
    assert train_supernet(settings(), digits, tmp_path / "cut").digest == whole.digest
    assert whole.label_counts == tuple(np.bincount(digits.labels).tolist())  # type: ignore[arg-type]
    assert train_supernet(settings(drop_labels=0.5), digits, tmp_path / "dropped").digest != whole.digest


def test_only_labels_that_are_met_are_learnt(digits: ImageData, tmp_path: Path) -> None:
    some = digits.labels < 5  # type: ignore[operator]
    data = replace(digits, images=digits.images[some], labels=digits.labels[some])  # type: ignore[index]
    train_supernet(settings(drop_labels=0.0), data, tmp_path / "none")
    learnt = load_file(tmp_path / "none" / "supernet.safetensors")["label.weight"].abs().amax(dim=1) > 0
    assert learnt.tolist() == [True] * 5 + [False] * 6
    train_supernet(settings(drop_labels=0.5), data, tmp_path / "half")
    learnt = load_file(tmp_path / "half" / "supernet.safetensors")["label.weight"].abs().amax(dim=1) > 0
    assert learnt.tolist() == [True] * 5 + [False] * 5 + [True]


def test_a_conditional_training_can_start_from_an_unconditional_supernet(digits: ImageData, tmp_path: Path) -> None:
    train_supernet(settings(conditional=False), digits, tmp_path / "plain")
    card = train_supernet(settings(start=str(tmp_path / "plain")), digits, tmp_path / "on")
    started = card.made_with["started_from"]
    assert started["of"] - started["weights"] == (CLASSES + 1) * 32


def test_labels_that_do_not_fit_are_refused_before_a_step(digits: ImageData, tmp_path: Path) -> None:
    nameless = replace(digits, labels=None, held_out_labels=None)
    with pytest.raises(InputError, match=r"network\.classes is 10, but the images have no labels"):
        train_supernet(settings(), nameless, tmp_path)
    with pytest.raises(InputError, match=r"labels are 0 to 9; possible: 10 or more"):
        check_classes(digits, 9)
    check_classes(nameless, None)
    check_classes(digits, 12)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"training\.drop_labels 0\.2 needs a class-conditional network"):
        TrainerSettings(training=TrainingSettings(drop_labels=0.2))
