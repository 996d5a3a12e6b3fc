"""Find the sampler of one plan: the best closed form, or a learnt one where learning helps."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from stepfront.search.records.learnt_samplers import SamplerRecord
from stepfront.trainers.devices import pick_device
from stepfront.trainers.diffusion.conditioning import make_condition
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.evaluator import Evaluator, EvaluatorParts
from stepfront.trainers.learning_settings import Found, LearningSettings
from stepfront.trainers.networks.supernet_files import supernet_from_weights
from stepfront.trainers.sampler_learning.learn import learn_sampler
from stepfront.trainers.sampler_learning.lesson import OnProgress
from stepfront.trainers.sampler_learning.pairs import learning_seed
from stepfront.trainers.sampler_learning.starts import different_forms
from stepfront.trainers.validation import settings_json

VERSION = 2
"""Of the rules by which samplers are learnt and chosen; samplers of another version are learnt again."""

NOT_FINITE = 1e9
"""What stands for a score that is not finite, since JSON can't hold that."""


@dataclass(frozen=True)
class Task:
    """A sampler to learn: the plan's width per step, what is learnt, and all that the result depends on.

    It travels to a worker.  `hand` are the solvers and grids that learning starts from and has to beat; `images` are
    those of each score that decides between them.  `own` is the plan on its sampler so far, which is scored as well.
    """

    parts: EvaluatorParts
    widths: tuple[float, ...]
    learnt: Found
    settings: LearningSettings
    images: int
    hand: tuple[tuple[str, str], ...]
    own: Plan | None = None

    @property
    def key(self) -> str:
        """Return a digest of all that the result depends on, 16 hexadecimal digits."""
        parts = self.parts
        content: list[Any] = [
            *(VERSION, parts.card.digest, self.widths, self.learnt, settings_json(self.settings)),
            *(self.images, self.hand),
            *(parts.features.name, parts.features.digest, parts.sampler.clip, parts.sampler.guidance),
        ]
        if self.own is not None:
            content += [self.own.solver, self.own.times, self.own.learnt and self.own.learnt.digest]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def run(self, on_progress: OnProgress = lambda progress: None) -> SamplerRecord:
        """Learn the sampler and return it, or the best closed form where that scores at least as well or is asked for.

        Closed forms are ranked by FID on noise of its own: the nearest to the teacher's images need not look best.  A
        learnt sampler is chosen where its held-out distance and its FID are both smaller than the best one's.
        """
        parts, begin = self.parts, time.monotonic()
        if parts.threads:
            torch.set_num_threads(parts.threads)
        evaluate = Evaluator(replace(parts, scores=(), prefix_mb=0.0))

        def fid(tried: LearntSampler) -> float:
            return score_of(Plan(tried.times, self.widths, tried.solver, tried))

        def score_of(plan: Plan) -> float:
            score = evaluate(plan, self.images, learning_seed(self.settings.seed) + 1).fid
            return score if math.isfinite(score) else NOT_FINITE

        sampler = self._sampler()
        forms = different_forms(sampler.schedule, len(self.widths), self.hand)
        scores = {form: fid(form.sampler()) for form in forms}
        starts = sorted(forms, key=lambda form: scores[form])[: self.settings.starts]
        own_fid = None if self.own is None else score_of(self.own)
        scored = len(forms) + (self.own is not None)
        of_image = sum(parts.costs[width].step_gflops for width in self.widths)
        if self.learnt == "closed_form":
            return SamplerRecord(
                sampler=starts[0].sampler(),
                widths=self.widths,
                chosen="closed form",
                learnt=self.learnt,
                start=starts[0].name,
                start_times=starts[0].times,
                start_fid=scores[starts[0]],
                calls=scored * self.images * len(self.widths),
                tflops=scored * self.images * of_image / 1e3,
                seconds=time.monotonic() - begin,
                own_fid=own_fid,
            )
        gflops = {width: cost.step_gflops / cost.calls for width, cost in parts.costs.items()}
        result = learn_sampler(
            *(sampler, self.widths, self.learnt, self.settings),
            call_gflops=gflops,
            starts=starts,
            on_progress=on_progress,
        )
        learnt_fid, start_fid = fid(result.sampler), scores[starts[0]]
        helps = result.better and learnt_fid < start_fid
        scoring = (scored + 1) * self.images * of_image
        return SamplerRecord(
            sampler=result.sampler if helps else result.start,
            widths=self.widths,
            chosen="learnt" if helps else "closed form",
            learnt=self.learnt,
            distance=self.settings.distance,
            start=result.start_name,
            start_times=result.start.times,
            train=result.train,
            held_out=result.held_out,
            start_held_out=result.start_held_out,
            fid=learnt_fid,
            start_fid=start_fid,
            calls=result.calls,
            tflops=(result.gflops + scoring) / 1e3,
            seconds=result.seconds,
            own_fid=own_fid,
        )

    def _sampler(self) -> Sampler:
        parts, card = self.parts, self.parts.card
        device = pick_device(parts.device)
        # Copies: the arrays may be read-only views of shared memory.
        weights = {name: torch.from_numpy(np.array(array)) for name, array in parts.weights.items()}
        supernet = supernet_from_weights(card, weights)
        denoisers = {width: supernet.subnet(width).to(device) for width in {*self.widths, supernet.widths[-1]}}
        condition = make_condition(card.network.classes, card.label_counts, parts.sampler.guidance, 0)
        shape = (card.image_channels, card.resolution, card.resolution)
        return Sampler(
            denoisers,
            noise_schedule(card.diffusion),
            Noise(0, shape),
            device,
            clip=parts.sampler.clip,
            condition=condition,
        )
