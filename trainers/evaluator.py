"""Evaluate plans: sample images, and compute their Frechet distance and costs."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepfront.trainers.config import SamplerSettings
from stepfront.trainers.data import Labels, to_pixels
from stepfront.trainers.devices import device_name
from stepfront.trainers.diffusion.conditioning import Condition, make_condition
from stepfront.trainers.diffusion.noise import CachedNoise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.evaluation import PAIRED_IMAGES, Confirmation, Evaluation
from stepfront.trainers.inference.cost import WidthCost, plan_gflops, plan_latency_ms
from stepfront.trainers.inference.engine import PLAIN, Engine
from stepfront.trainers.inference.prefix_cache import Prefixes, Shared
from stepfront.trainers.inference.running_networks import RunningNetworks
from stepfront.trainers.latents.decoder import PackedDecoder
from stepfront.trainers.metrics.examination import CLEAR
from stepfront.trainers.metrics.features import FeatureNetwork, Judge, PackedFeatures
from stepfront.trainers.metrics.fid import Moments, Reference
from stepfront.trainers.metrics.fid_infinity import extrapolated_distance
from stepfront.trainers.metrics.harm import harm_images
from stepfront.trainers.metrics.kid_precision_recall import KernelScore, kernel_distance, precision_recall
from stepfront.trainers.metrics.user_scores import UserScore, compute_scores
from stepfront.trainers.networks.card import SupernetCard

_NOT_FINITE = "the score is not finite, because the sampled images or their features are not"


@dataclass(frozen=True)
class EvaluatorParts:
    """All that an evaluator is made of, as plain arrays and bytes that travel to any worker.

    `weights` are the widest network's parameters as numpy arrays, which an object store shares between the processes of
    a node without a copy.  Scores depend on `engine` in their last digits, so all workers of a search have the same.
    `prefix_mb` limits the cached states of recent plans, and `noise_mb` the cached noise.  With
    `real`, feature rows [N, D] of real images, with `extrapolate`, or with a `second` judge, every evaluation is a
    `Confirmation`.  `scores` are a user's own, each computed on all images; `kernel_scores` are KID under other names.
    Latents are decoded by `decoder` before they are judged; the score `paired` compares them as they are.  `fitted` are
    weights that were fitted to plans, by their digests.
    """

    card: SupernetCard
    weights: Mapping[str, np.ndarray]
    features: PackedFeatures
    reference: Reference
    sampler: SamplerSettings
    costs: Mapping[float, WidthCost]
    batch: int
    device: str = "cpu"
    threads: int = 0
    engine: Engine = PLAIN
    prefix_mb: float = 256.0
    noise_mb: float = 256.0
    real: NDArray[np.float32] | None = None
    second: Judge | None = None
    extrapolate: bool = False
    scores: tuple[UserScore, ...] = ()
    kernel_scores: tuple[KernelScore, ...] = ()
    decoder: PackedDecoder | None = None
    fitted: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)


class Evaluator:
    """Subnets, a feature network and the reference, resident on one device.  This is the function that a search calls.

    `shared` holds states of evaluators of the same parts in other processes.
    """

    def __init__(self, parts: EvaluatorParts, shared: Shared | None = None) -> None:
        if parts.threads:
            torch.set_num_threads(parts.threads)
        self._parts = parts
        self._device = torch.device(parts.device)
        self._device_name = device_name(self._device)
        self._networks = RunningNetworks(
            parts.card, parts.weights, parts.fitted, parts.engine, self._device, parts.batch
        )
        self._features: FeatureNetwork = parts.features.unpack(self._device)
        self._second = None if parts.second is None else parts.second.features.unpack(self._device)
        self._scores = {score.name: score.load() for score in parts.scores}
        self._decoder = None if parts.decoder is None else parts.decoder.unpack(self._device)
        self._full: dict[tuple[object, ...], Tensor] = {}
        self._schedule = noise_schedule(parts.card.diffusion)
        shape = (parts.card.image_channels, parts.card.resolution, parts.card.resolution)
        self._noise = CachedNoise(0, shape, parts.noise_mb * 2**20)
        self._prefixes = Prefixes(parts.prefix_mb * 2**20, shared, self._device)

    def __call__(self, plan: Plan, images: int, noise_seed: int) -> Evaluation:
        """Score `images` images of the plan on the noise of `noise_seed`."""
        begin, clock = time.perf_counter(), _Clock(self._device)
        blurs = plan.runs_only(self._networks.supernet.widths[-1])
        collected = _Collected(self._wanted_rows(images), bool(self._scores), blurs)
        moments = Moments.of(self._feature_batches(plan, images, noise_seed, clock, collected))
        fid = self._parts.reference.distance(moments) if np.isfinite(moments.mean).all() else float("nan")
        clock.lap("distance")
        scored = Evaluation(
            fid=fid,
            gflops=plan_gflops(plan, self._parts.costs),
            latency_ms=plan_latency_ms(plan, self._parts.costs),
            features=self._features.name,
            images=images,
            noise_seed=noise_seed,
            seconds=time.perf_counter() - begin,
            error="" if math.isfinite(fid) else collected.not_decoded or _NOT_FINITE,
            paired=self._paired(plan, torch.cat(collected.first), noise_seed),
            sampling_seconds=clock.seconds["sampling"],
            features_seconds=clock.seconds["features"],
            distance_seconds=clock.seconds["distance"],
            prefix_states=len(self._prefixes),
            prefix_mb=self._prefixes.bytes / 2**20,
            device=self._device_name,
            **self._savings(plan, collected.starts),
        )
        if self._parts.kernel_scores and not scored.error:
            rows = np.concatenate(collected.rows)
            scored = replace(scored, scores={score.name: score.of(rows) for score in self._parts.kernel_scores})
        if self._scores and not scored.error:
            scored = self._scored_by_user(scored, collected.pixels)
        if scored.error or not self._confirms:
            return scored
        return self._confirmed(scored, collected)

    def _feature_batches(
        self, plan: Plan, images: int, noise_seed: int, clock: _Clock, collected: _Collected
    ) -> Iterator[NDArray[np.float32]]:
        """Sample the plan's images and yield the features of each batch; the rest is collected on the way."""
        sampler = self._sampler(plan, noise_seed)
        clock.lap("subnets")
        for batch in sampler.sample(plan, images, self._parts.batch, lambda *start: collected.starts.append(start)):
            collected.add_first(batch)
            batch = self._decoded(batch, collected)
            clock.lap("sampling")
            collected.add_images(batch)
            features = self._features(batch)
            collected.add_rows(features)
            if self._second is not None:
                _add_moments(collected.second, self._second(batch))
                if collected.blurs:
                    blurred = harm_images(batch.clamp(-1, 1), "blur", CLEAR, 0)
                    _add_moments(collected.blurred, self._features(blurred))
                    _add_moments(collected.second_blurred, self._second(blurred))
            clock.lap("features")
            yield features
            clock.lap("distance")  # the moments have added them

    def _decoded(self, batch: Tensor, collected: _Collected) -> Tensor:
        """Return images [B, C, H, W] of what was sampled, and note where the decoder is at fault for NaN."""
        if self._decoder is None:
            return batch
        images = self._decoder(batch)
        collected.not_decoded = collected.not_decoded or self._decoder.why_not_finite(batch, images)
        return images

    def _scored_by_user(self, scored: Evaluation, pixels: Sequence[np.ndarray]) -> Evaluation:
        """Return the evaluation with the user's own scores, or with the reason why one has no value."""
        images, labels = torch.from_numpy(np.concatenate(pixels)), self.labels(scored.images, scored.noise_seed)
        values, problem = compute_scores(self._scores, images, labels, scored.noise_seed)
        return replace(scored, scores={**scored.scores, **values}, error=problem)

    @property
    def _confirms(self) -> bool:
        parts = self._parts
        return parts.extrapolate or parts.real is not None or parts.second is not None

    def _wanted_rows(self, images: int) -> int:
        """Return how many feature rows KID and the scores of a confirmation need; 0 where there are none."""
        if self._parts.extrapolate:
            return images
        beside_fid = 0 if self._parts.real is None else min(images, len(self._parts.real))
        return max([beside_fid, *(score.wanted(images) for score in self._parts.kernel_scores)])

    def _confirmed(self, scored: Evaluation, collected: _Collected) -> Confirmation:
        parts, rows = self._parts, collected.rows
        confirmed = Confirmation(**{each.name: getattr(scored, each.name) for each in fields(scored)})
        if parts.extrapolate:
            infinity = extrapolated_distance(np.concatenate(rows), parts.reference)
            confirmed = replace(confirmed, fid_infinity=infinity)
        if parts.real is not None:
            confirmed = _beside_fid(confirmed, parts.real, np.concatenate(rows))
        if parts.second is not None:
            confirmed = _judged_again(confirmed, parts.second, collected.second[0])
            if collected.blurs and not confirmed.error:
                blurred = parts.reference.distance(collected.blurred[0])
                second = parts.second.reference.distance(collected.second_blurred[0])
                confirmed = replace(confirmed, blurred_fid=blurred, second_blurred_fid=second)
        return confirmed

    def _savings(self, plan: Plan, starts: Sequence[tuple[int, int]]) -> _Savings:
        variants, costs = [plan.variants[i] for i in plan.taken], self._parts.costs
        each = [costs[variant.width].gflops_of(variant) for variant in variants]
        calls = [costs[variant.width].calls_of(variant) for variant in variants]
        saved = sum(sum(calls[:steps]) * images for steps, images in starts)
        return {
            "calls": sum(sum(calls) * images for _, images in starts) - saved,
            "calls_saved": saved,
            "gflops_saved": sum(images * sum(each[:steps]) for steps, images in starts),
        }

    def sample(self, plan: Plan, images: int, noise_seed: int, label: int | None = None) -> Iterator[Tensor]:
        """Yield the plan's images in batches [B, C, H, W] in about [-1, 1], all of the class `label` if it is given.

        Latents are decoded.  Raises InputError for a label that is not a class of the supernet, and for latents that
        are decoded to NaN.
        """
        for batch in self._sampled(plan, images, noise_seed, label):
            yield batch if self._decoder is None else self._decoder.check_finite(batch, self._decoder(batch))

    def _sampled(self, plan: Plan, images: int, noise_seed: int, label: int | None = None) -> Iterator[Tensor]:
        """Yield what the networks make: images, or latents."""
        return self._sampler(plan, noise_seed, label).sample(plan, images, self._parts.batch)

    def labels(self, images: int, noise_seed: int, label: int | None = None) -> Labels | None:
        """Return the labels [images] of what `sample` yields; None for an unconditional supernet."""
        condition = self._condition(noise_seed, label)
        return None if condition is None else condition.labels(range(images))

    def _condition(self, noise_seed: int, label: int | None) -> Condition | None:
        card, guidance = self._parts.card, self._parts.sampler.guidance
        return make_condition(card.network.classes, card.label_counts, guidance, noise_seed, label)

    def paired(self, plan: Plan, noise_seed: int, images: int = PAIRED_IMAGES) -> float:
        """Return the score `paired` alone, which samples `images` images."""
        return self._paired(plan, torch.cat(list(self._sampled(plan, images, noise_seed))), noise_seed)

    def _paired(self, plan: Plan, first: Tensor, noise_seed: int) -> float:
        key = (plan.solver, noise_seed, len(first))
        if key not in self._full:
            # With all of the sampler's steps; a plan may have fewer, and any at full width would else score 0.
            steps = self._parts.sampler.steps
            times = time_grid(self._schedule, self._parts.sampler.grid, steps)
            full = Plan(tuple(map(float, times)), (self._networks.supernet.widths[-1],) * steps, plan.solver)
            # One per solver: plans of a search may run on several in turn.
            kept = {known: images for known, images in self._full.items() if known[1:] == key[1:]}
            self._full = {**kept, key: torch.cat(list(self._sampled(full, len(first), noise_seed)))}
        return float((first - self._full[key]).double().square().mean())

    def _sampler(self, plan: Plan, noise_seed: int, label: int | None = None) -> Sampler:
        networks = self._networks.of(plan)
        if noise_seed != self._noise.seed:
            self._noise = replace(self._noise, seed=noise_seed)  # with an empty cache
        return Sampler(
            networks.full,
            self._schedule,
            self._noise,
            self._device,
            clip=self._parts.sampler.clip,
            prefixes=self._prefixes,
            condition=self._condition(noise_seed, label),
            shallower=networks.shallower,
        )


@dataclass
class _Collected:
    """What one evaluation collects beside the moments of its features.

    `first` are the images (or latents) of the paired score, `starts` the steps saved and the images of each batch, and
    `rows` the first `wanted` rows of features.  `second` has one item where there is a second judge; so have `blurred`
    and `second_blurred` where it `blurs`.  `pixels` are all images, uint8 [B, C, H, W] per batch, where a user's own
    scores need them.  `not_decoded` says that finite latents were decoded to images that are not.
    """

    wanted: int
    keeps_pixels: bool = False
    blurs: bool = False
    pixels: list[NDArray[np.uint8]] = field(default_factory=list)
    first: list[Tensor] = field(default_factory=list)
    starts: list[tuple[int, int]] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    second: list[Moments] = field(default_factory=list)
    blurred: list[Moments] = field(default_factory=list)
    second_blurred: list[Moments] = field(default_factory=list)
    not_decoded: str = ""

    def add_images(self, batch: Tensor) -> None:
        """Keep the pixels of a batch where a user's own scores need them."""
        if self.keeps_pixels:
            self.pixels.append(to_pixels(batch))

    def add_first(self, batch: Tensor) -> None:
        """Keep of what was sampled what the paired score lacks."""
        missing = PAIRED_IMAGES - sum(map(len, self.first))
        if missing > 0:
            self.first.append(batch[:missing])

    def add_rows(self, features: NDArray[np.float32]) -> None:
        """Keep the rows of features that are still wanted."""
        if missing := self.wanted - sum(map(len, self.rows)):
            self.rows.append(features[:missing])


def _add_moments(moments: list[Moments], rows: NDArray[np.float32]) -> None:
    """Add rows to the one item of `moments`, which the first call makes: the number of features is known by then."""
    if not moments:
        moments.append(Moments(rows.shape[1]))
    moments[0].add(rows)


def _beside_fid(confirmed: Confirmation, real: NDArray[np.float32], rows: NDArray[np.float32]) -> Confirmation:
    # Precision and recall are defined on equal numbers of both.
    count = min(len(rows), len(real))
    real, rows = real[:count], rows[:count]
    precision, recall = precision_recall(real, rows)
    return replace(
        confirmed, kid=kernel_distance(real, rows), precision=precision, recall=recall, real_images=len(real)
    )


def _judged_again(confirmed: Confirmation, judge: Judge, moments: Moments) -> Confirmation:
    finite = np.isfinite(moments.mean).all()
    fid = judge.reference.distance(moments) if finite else float("nan")
    error = "" if math.isfinite(fid) else f"the score on the features {judge.features.name!r} is not finite"
    return replace(confirmed, second_fid=fid, second_features=judge.features.name, error=error)


class _Clock:
    """Measures the seconds of each part; a part ends when the device has finished its work."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._device, self._last = device, time.perf_counter()

    def lap(self, part: str) -> None:
        """Add the time since the last lap to this part."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now


class _Savings(TypedDict):
    calls: int
    calls_saved: int
    gflops_saved: float
