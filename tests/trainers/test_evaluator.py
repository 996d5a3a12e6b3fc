"""A plan's score: the same every time, a reason where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings, FeatureSettings, SamplerSettings
from stepfront.trainers.data import ImageData, to_float, to_pixels
from stepfront.trainers.devices import device_name
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import SKIP, Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.evaluation import PAIRED_IMAGES, Confirmation, Evaluation
from stepfront.trainers.evaluator import Evaluator, EvaluatorParts
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.metrics.examination import CLEAR
from stepfront.trainers.metrics.features import Judge, prepare_features
from stepfront.trainers.metrics.fid import Moments, frechet_distance
from stepfront.trainers.metrics.fid_infinity import extrapolated_distance
from stepfront.trainers.metrics.harm import harm_images
from stepfront.trainers.metrics.kid_precision_recall import KernelScore, kernel_distance, precision_recall
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import save_supernet
from stepfront.trainers.variant import parse_variants

TIMES = tuple(map(float, time_grid(noise_schedule(DiffusionSettings()), "trailing", 4)))
MIXED = Plan(TIMES, (0.25, 0.5, 1.0, 0.75))
ANCESTRAL = Plan(TIMES, (1.0, 0.25, SKIP, 0.5), "ddpm")
FULL = Plan(TIMES, (1.0,) * 4)


@pytest.fixture(scope="module")
def supernet(network: NetworkSettings, random_supernet: Callable[..., Supernet]) -> Supernet:
    return random_supernet(network)


@pytest.fixture(scope="module")
def parts(supernet: Supernet, digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> EvaluatorParts:
    directory = tmp_path_factory.mktemp("supernet")
    card = save_supernet(supernet, directory, DiffusionSettings(), digits.name, digits.fingerprint)
    features = FeatureSettings(name="classifier", classifier_epochs=1)
    packed, reference = prepare_features(digits, features, directory, torch.device("cpu"))
    weights = {name: value.detach().numpy().copy() for name, value in supernet.widest.named_parameters()}
    for array in weights.values():
        array.flags.writeable = False  # as an object store hands them out
    costs = {
        width: count_width(card.network, 1, 8, width).model_copy(update={"latency_ms": width})
        for width in supernet.widths
    }
    return EvaluatorParts(
        card, weights, packed, reference, SamplerSettings(solver="ddim", grid="trailing", steps=4), costs, batch=64
    )


@pytest.fixture(scope="module")
def evaluate(parts: EvaluatorParts) -> Evaluator:
    return Evaluator(parts)


def without_time(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, seconds=0.0)


@pytest.mark.parametrize("plan", [MIXED, ANCESTRAL], ids=["ddim", "ddpm with a skip"])
def test_equal_seeds_give_equal_scores_bit_for_bit(parts: EvaluatorParts, evaluate: Evaluator, plan: Plan) -> None:
    first = evaluate(plan, 100, 5)
    assert first.error == ""
    assert math.isfinite(first.fid)
    evaluate(FULL, 20, 6)  # what was evaluated in between must not matter
    assert without_time(evaluate(plan, 100, 5)) == without_time(first)
    assert without_time(Evaluator(parts)(plan, 100, 5)) == without_time(first)  # nor which worker
    assert evaluate(plan, 100, 6).fid != first.fid


@pytest.mark.parametrize("plan", [MIXED, ANCESTRAL], ids=["ddim", "ddpm with a skip"])
@pytest.mark.parametrize("batch", [13, 100])
def test_another_batch_size_gives_the_same_score(
    parts: EvaluatorParts, evaluate: Evaluator, plan: Plan, batch: int
) -> None:
    reference, other = evaluate(plan, 100, 5), Evaluator(replace(parts, batch=batch))(plan, 100, 5)
    assert other.fid == pytest.approx(reference.fid, rel=1e-4)
    assert other.paired == pytest.approx(reference.paired, rel=1e-4)


def test_a_plan_that_reuses_features_is_scored_beside_its_full_steps_and_counted(
    parts: EvaluatorParts, supernet: Supernet
) -> None:
    evaluate = Evaluator(parts)
    plan = Plan.of(TIMES, parse_variants("1x1.00 1x1.00r 1x0.50 1x0.50r"))
    first = evaluate(plan, 100, 5)
    assert first.error == ""
    cost = {width: count_width(parts.card.network, 1, 8, width) for width in supernet.widths}
    macs = sum(cost[width].macs + (cost[width].reuse_macs or 0) for width in (1.0, 0.5))
    assert first.gflops == pytest.approx(2e-9 * macs, rel=1e-12)
    assert math.isnan(first.latency_ms), "reuse was not measured"
    assert (first.calls, first.calls_saved) == (400, 0)
    again = evaluate(plan, 100, 5)  # from the longest prefix that is kept
    assert again.fid == first.fid
    assert again.calls + again.calls_saved == 400
    assert again.gflops_saved > 0
    full = evaluate(Plan(TIMES, plan.widths), 100, 5)
    assert full.fid != first.fid
    assert full.gflops > first.gflops


def test_the_score_is_the_distance_of_the_sampled_images_computed_by_hand(
    parts: EvaluatorParts, evaluate: Evaluator, supernet: Supernet
) -> None:
    scipy_linalg = pytest.importorskip("scipy.linalg")
    evaluation = evaluate(MIXED, 100, 5)
    device = torch.device("cpu")
    denoisers = {width: supernet.subnet(width) for width in supernet.widths}
    sampler = Sampler(denoisers, noise_schedule(DiffusionSettings()), Noise(5, (1, 8, 8)), device)
    images = torch.cat(list(sampler.sample(MIXED, 100, 64)))
    assert np.array_equal(to_pixels(images), to_pixels(torch.cat(list(evaluate.sample(MIXED, 100, 5)))))
    rows = parts.features.unpack(device)(images).astype(np.float64)
    mean, covariance = parts.reference.mean, parts.reference.covariance
    root = np.real(scipy_linalg.sqrtm(covariance @ np.cov(rows.T)))
    shift = mean - rows.mean(0)
    by_hand = shift @ shift + np.trace(covariance + np.cov(rows.T) - 2 * root)
    assert evaluation.fid == pytest.approx(float(by_hand), rel=1e-4)


def test_an_evaluation_knows_its_costs_and_conditions(parts: EvaluatorParts, evaluate: Evaluator) -> None:
    evaluation = evaluate(ANCESTRAL, 40, 9)
    taken = (1.0, 0.25, 0.5)
    assert evaluation.gflops == pytest.approx(sum(2 * parts.costs[w].macs for w in taken) / 1e9)
    assert evaluation.latency_ms == pytest.approx(sum(taken))
    assert (evaluation.features, evaluation.images, evaluation.noise_seed) == ("classifier", 40, 9)
    assert evaluation.seconds > 0


# --- the paired score -------------------------------------------------------------------------------------------------


def test_the_paired_score_of_the_full_width_is_nothing(evaluate: Evaluator) -> None:
    assert evaluate(FULL, 64, 5).paired == pytest.approx(0, abs=1e-9)
    assert evaluate.paired(FULL, 5) == 0


def test_the_paired_score_of_fewer_full_width_steps_is_something(evaluate: Evaluator) -> None:
    times = tuple(map(float, time_grid(noise_schedule(DiffusionSettings()), "trailing", 2)))
    fewer = Plan(times, (1.0,) * 2)
    ours, theirs = (torch.cat(list(evaluate.sample(p, PAIRED_IMAGES, 5))) for p in (fewer, FULL))
    assert evaluate.paired(fewer, 5) == pytest.approx(float((ours - theirs).double().square().mean()), rel=1e-6)
    assert evaluate.paired(fewer, 5) > 1e-4


@pytest.mark.parametrize("plan", [MIXED, ANCESTRAL], ids=["ddim", "ddpm with a skip"])
def test_the_paired_score_is_the_squared_difference_to_the_full_width(evaluate: Evaluator, plan: Plan) -> None:
    full = replace(plan, widths=(1.0,) * 4)
    ours, theirs = (torch.cat(list(evaluate.sample(p, PAIRED_IMAGES, 5))) for p in (plan, full))
    expected = float((ours - theirs).double().square().mean())
    assert expected > 1e-4
    assert evaluate.paired(plan, 5) == pytest.approx(expected, rel=1e-6)
    assert evaluate(plan, 100, 5).paired == pytest.approx(expected, rel=1e-4)  # had on the way


def test_the_paired_score_does_not_depend_on_the_batch_size(parts: EvaluatorParts, evaluate: Evaluator) -> None:
    small = Evaluator(replace(parts, batch=5))
    assert small.paired(MIXED, 5) == pytest.approx(evaluate.paired(MIXED, 5), rel=1e-4)


# --- what has no score ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_an_evaluation_with_a_reason(parts: EvaluatorParts, value: float) -> None:
    broken = {name: array.copy() for name, array in parts.weights.items()}
    broken["head.weight"][:] = value
    evaluation = Evaluator(replace(parts, weights=broken))(MIXED, 40, 5)
    assert math.isnan(evaluation.fid)
    assert "not finite" in evaluation.error
    assert evaluation.gflops > 0


def test_unknown_widths_and_solvers_are_refused_with_what_is_possible(evaluate: Evaluator) -> None:
    with pytest.raises(InputError, match=r"width 0\.6; possible: 0\.25, 0\.375"):
        evaluate(Plan(TIMES, (0.6,) * 4), 20, 0)
    with pytest.raises(InputError, match=r"'euler'; possible: ddim"):
        evaluate(Plan(TIMES, (1.0,) * 4, "euler"), 20, 0)


def test_one_image_has_no_distance(evaluate: Evaluator) -> None:
    with pytest.raises(InputError, match="at least 2 images, given 1"):
        evaluate(FULL, 1, 0)


def test_weights_of_another_network_are_refused(parts: EvaluatorParts) -> None:
    fewer = {name: array for name, array in parts.weights.items() if name != "head.bias"}
    with pytest.raises(InputError, match=r"head\.bias is missing"):
        Evaluator(replace(parts, weights=fewer))


def test_shared_weights_are_never_written(parts: EvaluatorParts, evaluate: Evaluator) -> None:
    before = {name: array.copy() for name, array in parts.weights.items()}
    evaluate(MIXED, 20, 0)
    assert all(np.array_equal(before[name], array) for name, array in parts.weights.items())


def test_clip_is_taken_from_the_sampler_settings(parts: EvaluatorParts, evaluate: Evaluator) -> None:
    clipped = Evaluator(replace(parts, sampler=SamplerSettings(solver="ddim", grid="trailing", steps=4, clip=True)))
    assert float(next(clipped.sample(MIXED, 20, 5)).abs().max()) <= 1
    assert float(next(evaluate.sample(MIXED, 20, 5)).abs().max()) > 1


def test_an_evaluation_tells_how_long_its_parts_took_and_what_is_kept(parts: EvaluatorParts) -> None:
    evaluate = Evaluator(parts)
    first = evaluate(MIXED, 100, 5)
    told = (first.sampling_seconds, first.features_seconds, first.distance_seconds)
    assert min(told) > 0
    assert sum(told) <= first.seconds  # the rest made subnets and the paired score's images
    assert first.device == device_name(torch.device("cpu"))
    # Before every step but the first: two batches of the plan, and the full width's for the paired score.
    assert first.prefix_states == 3 * (len(TIMES) - 1)
    assert first.prefix_mb == pytest.approx(3 * (100 + PAIRED_IMAGES) * 64 * 4 / 2**20)  # float32 images of 8 x 8
    again = evaluate(MIXED, 100, 5)
    assert (again.prefix_states, again.prefix_mb) == (first.prefix_states, first.prefix_mb)
    assert again.sampling_seconds < first.seconds


def test_latency_is_that_of_the_search_whatever_the_worker(parts: EvaluatorParts) -> None:
    here = Evaluator(parts)(MIXED, 20, 0)
    costs = {width: cost.model_copy(update={"latency_ms": 7.0}) for width, cost in parts.costs.items()}
    elsewhere = Evaluator(replace(parts, costs=costs))(MIXED, 20, 0)
    assert here.latency_ms == pytest.approx(sum(MIXED.widths))
    assert elsewhere.latency_ms == pytest.approx(7.0 * len(TIMES))
    assert here.device == elsewhere.device


def test_with_real_rows_an_evaluation_has_the_scores_beside_fid(
    parts: EvaluatorParts, evaluate: Evaluator, digits: ImageData
) -> None:
    features = parts.features.unpack(torch.device("cpu"))
    real = features(to_float(digits.images[:60]))
    scored = Evaluator(replace(parts, real=real))(MIXED, 100, 5)
    assert isinstance(scored, Confirmation)
    plain = evaluate(MIXED, 100, 5)
    assert not isinstance(plain, Confirmation)  # what a search pays for is as it was
    assert (scored.fid, scored.paired, scored.real_images) == (plain.fid, plain.paired, 60)
    rows = np.concatenate([features(batch) for batch in evaluate.sample(MIXED, 100, 5)])[:60]
    assert scored.kid == pytest.approx(kernel_distance(real, rows), rel=1e-9)
    assert (scored.precision, scored.recall) == precision_recall(real, rows)
    fewer = Evaluator(replace(parts, real=real))(MIXED, 20, 5)
    assert isinstance(fewer, Confirmation)
    assert fewer.real_images == 20


def test_kid_as_a_score_is_the_kernel_distance_to_as_many_real_rows(
    parts: EvaluatorParts, evaluate: Evaluator, digits: ImageData
) -> None:
    features = parts.features.unpack(torch.device("cpu"))
    real = features(to_float(digits.images[:60]))
    scored = Evaluator(replace(parts, kernel_scores=(KernelScore("kernel_distance", real),)))(MIXED, 100, 5)
    assert not isinstance(scored, Confirmation)  # without precision and recall, which a search does not pay for
    rows = np.concatenate([features(batch) for batch in evaluate.sample(MIXED, 100, 5)])[:60]
    assert scored.value("kernel_distance") == pytest.approx(kernel_distance(real, rows), rel=1e-9)
    fewer = Evaluator(replace(parts, kernel_scores=(KernelScore("kernel_distance", real),)))(MIXED, 20, 5)
    assert fewer.value("kernel_distance") == pytest.approx(kernel_distance(real[:20], rows[:20]), rel=1e-9)


def test_a_second_judge_scores_the_same_images(
    parts: EvaluatorParts, evaluate: Evaluator, digits: ImageData, tmp_path: Path
) -> None:
    second = Judge(*prepare_features(digits, FeatureSettings(name="random"), tmp_path, torch.device("cpu")))
    scored = Evaluator(replace(parts, second=second))(MIXED, 100, 5)
    plain = evaluate(MIXED, 100, 5)
    assert isinstance(scored, Confirmation)
    assert (scored.fid, scored.paired) == (plain.fid, plain.paired)  # the first judge does not notice
    rows = second.features.unpack(torch.device("cpu"))(torch.cat(list(evaluate.sample(MIXED, 100, 5))))
    moments = (rows.astype(np.float64).mean(axis=0), np.cov(rows.astype(np.float64), rowvar=False))
    expected = frechet_distance(second.reference.mean, second.reference.covariance, *moments)
    assert scored.second_fid == pytest.approx(expected, rel=1e-6)
    assert scored.second_features == "random"
    assert np.isnan(scored.kid)
    assert np.isnan(scored.blurred_fid)  # of plans at full width alone


def test_full_width_is_scored_after_a_blur_as_well(
    parts: EvaluatorParts, evaluate: Evaluator, digits: ImageData, tmp_path: Path
) -> None:
    second = Judge(*prepare_features(digits, FeatureSettings(name="random"), tmp_path, torch.device("cpu")))
    scored = Evaluator(replace(parts, second=second))(FULL, 100, 5)
    assert isinstance(scored, Confirmation)
    images = torch.cat(list(evaluate.sample(FULL, 100, 5))).clamp(-1, 1)
    blurred = harm_images(images, "blur", CLEAR, 0)
    first = Judge(parts.features, parts.reference)
    for judge, found in ((first, scored.blurred_fid), (second, scored.second_blurred_fid)):
        rows = judge.features.unpack(torch.device("cpu"))(blurred)
        assert found == pytest.approx(judge.reference.distance(Moments.of([rows])), rel=1e-6)


def test_asked_to_extrapolate_an_evaluation_has_fid_infinity_of_all_its_images(
    parts: EvaluatorParts, evaluate: Evaluator, digits: ImageData
) -> None:
    features = parts.features.unpack(torch.device("cpu"))
    rows = np.concatenate([features(batch) for batch in evaluate.sample(MIXED, 100, 5)])
    expected = extrapolated_distance(rows, parts.reference)
    alone = Evaluator(replace(parts, extrapolate=True))(MIXED, 100, 5)
    assert isinstance(alone, Confirmation)
    assert alone.fid_infinity == pytest.approx(expected, rel=1e-9)
    assert math.isnan(alone.kid)
    real = features(to_float(digits.images[:60]))
    both = Evaluator(replace(parts, real=real, extrapolate=True))(MIXED, 100, 5)
    plain = Evaluator(replace(parts, real=real))(MIXED, 100, 5)
    assert isinstance(both, Confirmation)
    assert isinstance(plain, Confirmation)
    assert both.fid_infinity == alone.fid_infinity
    assert math.isnan(plain.fid_infinity)
    assert without_time(replace(both, fid_infinity=0.0)) == without_time(replace(plain, fid_infinity=0.0))
