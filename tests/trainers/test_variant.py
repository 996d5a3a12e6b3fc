"""Variants: their texts, plans that have none to reuse, and sampling beside loops written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.conditioning import Condition
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.inference.prefix_cache import Prefixes
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.variant import (
    SKIP,
    Size,
    Variant,
    parse_runs,
    parse_variant,
    parse_variants,
    repaired,
    reuse_problem,
    runs_text,
)

SCHEDULE = noise_schedule(DiffusionSettings())
TIMES = tuple(map(float, time_grid(SCHEDULE, "trailing", 5)))
CPU, SHAPE, CLASSES = torch.device("cpu"), (1, 8, 8), 10
R, U, RU = Variant(1.0, reuse=True), Variant(1.0, guided=False), Variant(1.0, True, False)
G3 = Variant(1.0, scale=3.0)
Make = Callable[..., Supernet]

# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variants", "text"),
    [
        ((Variant(0.5),) * 12 + (Variant(1.0),) + (R,) * 4, "12x0.50 1x1.00 4x1.00r"),
        ((Variant(1.0), U, U, R._replace(width=0.375)), "1x1.00 2x1.00u 1x0.375r"),
        ((Variant(0.3125), RU, Variant(SKIP), Variant(SKIP)), "1x0.3125 1x1.00ru 2xskip"),
        ((Variant(0.5, depth=12), Variant(0.5, depth=1), U._replace(depth=2)), "1x0.50d12 1x0.50d1 1x1.00d2u"),
        ((G3, G3, Variant(0.5, scale=1.5), R._replace(scale=0.75)), "2x1.00g3 1x0.50g1.5 1x1.00rg0.75"),
        ((Variant(0.5, depth=2, scale=12.0), Variant(0.5, scale=1e-7)), "1x0.50d2g12 1x0.50g0.0000001"),
        ((Variant(1.0, scale=1 / 3), Variant(1.0, scale=1e20)), f"1x1.00g{1 / 3!r} 1x1.00g1{'0' * 20}"),
    ],
)
def test_variants_read_as_people_write_them_and_back(variants: tuple[Variant, ...], text: str) -> None:
    assert runs_text(variants) == text
    assert parse_variants(text) == variants


@pytest.mark.parametrize("text", ["1x1.00ur", "1x1.00R", "2xskipr", "1xr", "1x1.00rr", "1x1.00d0", "1x1.00d2r"])
def test_other_marks_are_shown_with_those_that_are_possible(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a run; .*4x1\.00r \(reuse\), 4x1\.00u \(unguided\) or 4x1\.00ru"):
        parse_variants(f"4x1.00 {text}")


def test_a_width_without_a_short_text_comes_back_whole() -> None:
    assert parse_variants(runs_text([1 / 3, 1 / 3, 1.0])) == (Variant(1 / 3), Variant(1 / 3), Variant(1.0))
    assert runs_text([0.125]) == "1x0.125"


@pytest.mark.parametrize("text", ["0x0.5 2x1.0", "2x0 2x1.0", "2x0.00"])
def test_runs_of_no_steps_and_widths_of_zero_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a run|width 0"):
        parse_variants(text)


def test_a_text_of_widths_alone_has_no_marks() -> None:
    with pytest.raises(InputError, match="has marks, r, u, g or d; give widths alone"):
        parse_runs("2x1.00 1x1.00r")


def test_one_variant_is_a_width_and_its_marks() -> None:
    assert (parse_variant("0.5"), parse_variant("1.0r"), parse_variant("1ru")) == (Variant(0.5), R, RU)
    with pytest.raises(InputError, match=r"'1\.0x' is not a variant; write a width"):
        parse_variant("1.0x")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1.0g1", r": scale 1 is the conditional prediction alone; write 1\.00u$"),
        ("1.0rg1.00", r": scale 1 is the conditional prediction alone; write 1\.00ru$"),
        ("1.0g0", r": a step's own scale of guidance is a finite number above 0; write 1\.00g3$"),
        (f"1.0g{'9' * 400}", r": a step's own scale of guidance is a finite number above 0; write 1\.00g3$"),
        *(
            (f"1.0{mark}", r"; .*g3 \(guided at scale 3")
            for mark in ("g", "g-3", "gx", "gu", "g3u", "ug3", "g3r", "g1e3")
        ),
    ],
)
def test_what_is_no_scale_of_guidance_is_refused_in_one_line(given: str, message: str) -> None:
    with pytest.raises(InputError, match=f"is not a variant{message}") as caught:
        parse_variant(given)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=f"in the plan .* is not a run{message}") as caught:
        parse_variants(f"2x1.00 2x{given}")
    assert "\n" not in str(caught.value)


def test_a_plan_of_widths_alone_has_no_marks_and_one_with_marks_is_another_plan() -> None:
    plain = Plan.of(TIMES, (Variant(1.0),) * 5)
    assert plain == Plan(TIMES, (1.0,) * 5)
    assert plain.marks == ()
    other = Plan.of(TIMES, (Variant(1.0), *(R,) * 4))
    assert other != plain
    assert other.widths == plain.widths
    assert other.runs == "1x1.00 4x1.00r"
    assert (other.reuses, other.switches_guidance, plain.reuses) == (True, False, False)
    assert other.on_times(TIMES, "dpmpp_2m").variants == other.variants


# --- what is impossible -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "problem", "repair"),
    [
        ("1x1.00r 4x1.00", "step 1 no full step is before it", "5x1.00"),
        ("1x0.50 2x1.00r", "step 2 the last full step is 0.50", "1x0.50 1x1.00 1x1.00r"),
        ("1x1.00 1x0.50 1x1.00r", "step 3 the last full step is 0.50", "1x1.00 1x0.50 1x1.00"),
        ("1x1.00u 2x1.00r", "step 2 the last full step is 1.00u", "1x1.00u 1x1.00 1x1.00r"),
        ("2xskip 2x1.00r", "step 3 no full step is before it", "2xskip 1x1.00 1x1.00r"),
        ("1x1.00 1xskip 2x1.00r 1x1.00ru 1x1.00r", "", ""),
        ("1x1.00u 3x1.00ru", "", ""),
        ("1x1.00 1x1.00rg3 1x1.00ru 1x1.00g2 1x1.00r", "", ""),
        ("1x1.00 1x1.00d2 2x1.00r", "step 3 the last full step is 1.00d2", "1x1.00 1x1.00d2 1x1.00 1x1.00r"),
    ],
)  # fmt: skip
def test_reuse_needs_a_full_step_of_the_same_width_with_as_many_calls(runs: str, problem: str, repair: str) -> None:
    variants = parse_variants(runs)
    assert reuse_problem(variants).replace("(1.00r) has no features to reuse: ", "").startswith(problem)
    assert bool(reuse_problem(variants)) == bool(problem)
    assert runs_text(repaired(variants)) == (repair or runs)
    assert not reuse_problem(repaired(variants))
    if problem:
        with pytest.raises(InputError, match=r"^the plan .* has no features to reuse: .*; possible there: 1\.00$"):
            Plan.of(tuple(range(len(variants), 0, -1)), variants)


def test_impossible_marks_are_refused() -> None:
    with pytest.raises(InputError, match="2 widths and 1 marks"):
        Plan((2.0, 1.0), (1.0, 1.0), marks=("r",))
    with pytest.raises(InputError, match="'x' is not a mark"):
        Plan((2.0, 1.0), (1.0, 1.0), marks=("", "x"))
    with pytest.raises(InputError, match="'g1' is not a mark"):
        Plan.of((2.0, 1.0), (Variant(1.0, scale=1.0), Variant(1.0)))
    with pytest.raises(InputError, match="none at a skipped step"):
        Plan((2.0, 1.0), (1.0, SKIP), marks=("", "r"))


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(network: NetworkSettings, random_supernet: Make) -> Sampler:
    supernet = random_supernet(network)
    return Sampler({w: supernet.subnet(w) for w in supernet.widths}, SCHEDULE, Noise(3, SHAPE), CPU)


@pytest.fixture(scope="module")
def conditional(network: NetworkSettings, random_supernet: Make) -> Sampler:
    supernet = random_supernet(network.model_copy(update={"classes": CLASSES}))
    condition = Condition(3, (1,) * CLASSES, guidance=2.0)
    denoisers = {w: supernet.subnet(w) for w in supernet.widths}
    return Sampler(denoisers, SCHEDULE, Noise(3, SHAPE), CPU, condition=condition)


def sampled(sampler: Sampler, runs: str) -> Tensor:
    return next(sampler.sample(Plan.of(TIMES, parse_variants(runs)), 4, 4))


def test_a_step_at_a_depth_runs_the_network_of_that_depth(network: NetworkSettings, random_supernet: Make) -> None:
    ode = network.model_copy(update={"family": "ode", "widths": (0.5, 1.0), "inner_steps": 2, "depths": (1, 2)})
    supernet = random_supernet(ode)
    own = Sampler({1.0: supernet.subnet(1.0)}, SCHEDULE, Noise(3, SHAPE), CPU)
    own = replace(own, shallower={Size(1.0, 1): supernet.subnet(1.0, 1)})
    # The shallower network under the name of a width.
    renamed = replace(own, denoisers={0.5: supernet.subnet(1.0, 1), **own.denoisers}, shallower={})
    assert torch.equal(sampled(own, "2x1.00d1 3x1.00"), sampled(renamed, "2x0.50 3x1.00"))
    assert not torch.equal(sampled(own, "2x1.00d1 3x1.00"), sampled(own, "5x1.00"))
    with pytest.raises(InputError, match=r"runs 1\.00d2, which is no network here; possible: 1\.00, 1\.00d1"):
        sampled(own, "5x1.00d2")
    alone = replace(own, denoisers={})
    assert torch.equal(sampled(alone, "5x1.00d1"), sampled(own, "5x1.00d1")), "needs no network of full depth"
    with pytest.raises(InputError, match=r"runs 1\.00, which is no network here; possible: 1\.00d1"):
        sampled(alone, "4x1.00d1 1x1.00")
    keys = [own.prepare(Plan.of(TIMES, parse_variants(runs))).prefix_key(2) for runs in ("2x1.00d1 3x1.00", "5x1.00")]
    assert keys[0] != keys[1], "their states are apart in the prefix cache"


def ddim(x: Tensor, eps: Tensor, step: int) -> Tensor:
    """Return the state after a DDIM step, in float64 but for the network."""
    alphas = [*SCHEDULE.alpha(torch.tensor(TIMES, dtype=torch.float64)).tolist(), 1.0]
    sigmas = [*SCHEDULE.sigma(torch.tensor(TIMES, dtype=torch.float64)).tolist(), 0.0]
    x0 = (x - sigmas[step] * eps.double()) / alphas[step]
    return alphas[step + 1] * x0 + sigmas[step + 1] * eps.double()


@torch.inference_mode()
def test_a_guidance_interval_is_the_loop_that_one_would_write(conditional: Sampler) -> None:
    """Equal to a loop with one call at unguided steps, two at guided ones: arXiv 2404.07724."""
    network, condition = conditional.denoisers[0.5], conditional.condition
    assert condition is not None
    label = torch.from_numpy(condition.labels(range(4)))
    x = torch.from_numpy(conditional.noise.initial(range(4))).double()
    for step, guided in enumerate([False, True, True, False, False]):
        t = torch.full((4,), TIMES[step])
        eps = network(x.float(), t, label)
        if guided:
            none = network(x.float(), t, torch.full_like(label, CLASSES))
            eps = none + 2.0 * (eps - none)
        x = ddim(x, eps, step)
    found = sampled(conditional, "1x0.50u 2x0.50 2x0.50u")
    torch.testing.assert_close(found.double(), x, rtol=1e-5, atol=1e-4)
    assert (found - sampled(conditional, "5x0.50")).abs().max() > 1e-2


@torch.inference_mode()
def test_reuse_is_the_loop_that_one_would_write(plain: Sampler) -> None:
    """Equal to a loop that hands the features of each full step to the steps after it: arXiv 2312.00858."""
    x, deep = torch.from_numpy(plain.noise.initial(range(4))).double(), None
    for step, (width, reuse) in enumerate([(0.5, False), (0.5, True), (1.0, False), (1.0, True), (1.0, True)]):
        network, t = plain.denoisers[width], torch.full((4,), TIMES[step])
        if reuse:
            eps = network.reusing(deep, x.float(), t)  # type: ignore[attr-defined]
        else:
            eps, deep = network.with_features(x.float(), t)  # type: ignore[attr-defined]
        x = ddim(x, eps, step)
    found = sampled(plain, "1x0.50 1x0.50r 1x1.00 2x1.00r")
    torch.testing.assert_close(found.double(), x, rtol=1e-5, atol=1e-4)
    assert (found - sampled(plain, "2x0.50 3x1.00")).abs().max() > 1e-3


@torch.inference_mode()
def test_under_guidance_both_calls_keep_features_and_an_unguided_step_takes_those_of_the_label(
    conditional: Sampler,
) -> None:
    network, condition = conditional.denoisers[1.0], conditional.condition
    assert condition is not None
    label = torch.from_numpy(condition.labels(range(4)))
    labels = {"none": torch.full_like(label, CLASSES), "label": label}
    x, deep = torch.from_numpy(conditional.noise.initial(range(4))).double(), {}
    for step, variant in enumerate([Variant(1.0), R, RU, R, U]):
        t, made = torch.full((4,), TIMES[step]), {}
        for name, each in labels.items():
            if variant.reuse:
                made[name] = network.reusing(deep[name], x.float(), t, each)  # type: ignore[attr-defined]
            else:
                made[name], deep[name] = network.with_features(x.float(), t, each)  # type: ignore[attr-defined]
        eps = made["none"] + 2.0 * (made["label"] - made["none"]) if variant.guided else made["label"]
        x = ddim(x, eps, step)
    found = sampled(conditional, "1x1.00 1x1.00r 1x1.00ru 1x1.00r 1x1.00u")
    torch.testing.assert_close(found.double(), x, rtol=1e-5, atol=1e-4)


@torch.inference_mode()
def test_each_step_is_guided_at_its_own_scale_as_in_the_loop_that_one_would_write(conditional: Sampler) -> None:
    """Classifier-free guidance with a scale per step, on the features of the last full step where a step reuses."""
    network, condition = conditional.denoisers[1.0], conditional.condition
    assert condition is not None
    label = torch.from_numpy(condition.labels(range(4)))
    labels = {"none": torch.full_like(label, CLASSES), "label": label}
    x, deep = torch.from_numpy(conditional.noise.initial(range(4))).double(), {}
    for step, (scale, reuses) in enumerate([(5.0, False), (0.5, True), (2.0, False), (1.0, True), (3.25, True)]):
        t, made = torch.full((4,), TIMES[step]), {}
        for name, each in labels.items():
            if reuses:
                made[name] = network.reusing(deep[name], x.float(), t, each)  # type: ignore[attr-defined]
            else:
                made[name], deep[name] = network.with_features(x.float(), t, each)  # type: ignore[attr-defined]
        x = ddim(x, (1 - scale) * made["none"].double() + scale * made["label"].double(), step)
    found = sampled(conditional, "1x1.00g5 1x1.00rg0.5 1x1.00 1x1.00ru 1x1.00rg3.25")
    torch.testing.assert_close(found.double(), x, rtol=1e-5, atol=1e-4)
    assert (found - sampled(conditional, "1x1.00 1x1.00r 1x1.00 1x1.00ru 1x1.00r")).abs().max() > 1e-2


def test_the_scale_of_the_sampler_is_that_of_all_steps_without_their_own(conditional: Sampler) -> None:
    assert conditional.condition is not None
    at_3 = replace(conditional, condition=replace(conditional.condition, guidance=3.0))
    assert torch.equal(sampled(conditional, "2x1.00g3 3x0.50g3"), sampled(at_3, "2x1.00 3x0.50"))
    assert torch.equal(sampled(at_3, "5x1.00g2"), sampled(conditional, "5x1.00"))


def test_states_of_other_scales_are_apart_in_the_prefix_cache(conditional: Sampler) -> None:
    texts = ("1x1.00 1x1.00g3 3x1.00", "1x1.00 1x1.00g3.5 3x1.00", "1x1.00 1x1.00u 3x1.00", "5x1.00")
    runs = [conditional.prepare(Plan.of(TIMES, parse_variants(text))) for text in texts]
    assert len({run.prefix_key(1) for run in runs}) == 1
    assert len({run.prefix_key(2) for run in runs}) == 4
    cached = replace(conditional, prefixes=Prefixes(10**6))
    for text in texts:
        assert torch.equal(sampled(cached, text), sampled(conditional, text))


def test_a_state_holds_features_only_where_the_next_step_reuses_them(conditional: Sampler) -> None:
    run = conditional.prepare(Plan.of(TIMES, parse_variants("1x1.00 1x1.00r 1x1.00u 1x1.00ru 1x0.50")))
    state, held = conditional.start(range(2)), []
    for position in range(len(run)):
        state = conditional.step(state, run, position, range(2))
        held.append(len(state.deep))
    assert held == [2, 0, 1, 0, 0]


def test_guidance_can_be_turned_off_only_where_it_is_on(plain: Sampler, conditional: Sampler) -> None:
    with pytest.raises(InputError, match=r"turns guidance off at a step \(u\), and the network has no classes"):
        sampled(plain, "4x1.00 1x1.00u")
    assert conditional.condition is not None
    unguided = replace(conditional, condition=replace(conditional.condition, guidance=1.0))
    with pytest.raises(InputError, match=r"turns guidance off at a step \(u\), and no step is guided at this scale"):
        sampled(unguided, "4x1.00 1x1.00u")
    with pytest.raises(
        InputError, match=r"has another scale of guidance at a step \(g\), and the network has no classes"
    ):
        sampled(plain, "4x1.00 1x1.00g3")
    with pytest.raises(InputError, match=r"at a step \(g\), and no step is guided at this scale; leave out the g"):
        sampled(unguided, "4x1.00 1x1.00g3")


def test_a_network_without_levels_refuses_reuse(network: NetworkSettings, random_supernet: Make) -> None:
    flat = random_supernet(network.model_copy(update={"multipliers": (1,)})).subnet(1.0)
    sampler = Sampler({1.0: flat}, SCHEDULE, Noise(3, SHAPE), CPU)
    for denoiser in (flat, lambda x, t: x):
        with pytest.raises(InputError, match=r"4x1\.00r reuses deep features \(r\), and this network has no level"):
            sampled(replace(sampler, denoisers={1.0: denoiser}), "1x1.00 4x1.00r")
