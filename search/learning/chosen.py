"""Find the sampler of one plan: the best closed form, or a learnt one where learning helps."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from stepfront.search.learning.distance_features import open_for_gradients
from stepfront.search.learning.unfinished import Unfinished
from stepfront.search.records.learnt_samplers import SamplerRecord
from stepfront.trainers.devices import pick_device
from stepfront.trainers.diffusion.conditioning import make_condition
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.evaluator import Evaluator, EvaluatorParts
from stepfront.trainers.learning_settings import LearningSettings, SamplerKind
from stepfront.trainers.metrics.features import PackedFeatures
from stepfront.trainers.networks.supernet_files import supernet_from_weights
from stepfront.trainers.sampler_learning.learn import learn_sampler
from stepfront.trainers.sampler_learning.pairs import learning_seed
from stepfront.trainers.sampler_learning.result import without_nan
from stepfront.trainers.sampler_learning.starts import ClosedForm, EarlierStart, different_forms
from stepfront.trainers.validation import settings_json

VERSION = 3
"""Of the rules by which samplers are learnt and chosen; samplers of another version are learnt again."""

NOT_FINITE = 1e9
"""What stands for a score that is not finite, since JSON can't hold that."""

Score = Callable[[Plan], float]
"""Returns the FID of a plan."""


@dataclass(frozen=True)
class SamplerToLearn:
    """A sampler to learn: the plan's width per step, what is learnt, and all that the result depends on.

    It travels to a worker.  `hand` are the solvers and grids that learning starts from and has to beat; `images` are
    those of each score that decides between them.  `own` is the plan on its sampler so far, which is scored as well.
    `features` are those that the distance compares; None where it compares pixels.  `earlier` are samplers of earlier
    searches to learn from as well.  `unfinished` has what an interrupted call has done.
    """

    parts: EvaluatorParts
    widths: tuple[float, ...]
    learnt: SamplerKind
    settings: LearningSettings
    images: int
    hand: tuple[tuple[str, str], ...]
    own: Plan | None = None
    features: PackedFeatures | None = None
    earlier: tuple[EarlierStart, ...] = ()
    unfinished: Unfinished = field(default_factory=Unfinished)

    @property
    def key(self) -> str:
        """Return a digest of all that the result depends on, 16 hexadecimal digits."""
        parts, card = self.parts, self.parts.card
        settings = {name: value for name, value in settings_json(self.settings).items() if name != "features"}
        content: list[Any] = [
            *(VERSION, card.digest, self.widths, self.learnt, settings),
            *(settings_json(card.diffusion), card.label_counts),
            *(self.images, self.hand, parts.reference.images, parts.engine.precision),
            *(parts.features.name, parts.features.digest, parts.sampler.clip, parts.sampler.guidance),
        ]
        if parts.decoder is not None:
            content.append(parts.decoder.space.digest)
        if self.features is not None:
            content += ["features of the distance", self.features.digest]
        if self.own is not None:
            content += [self.own.solver, self.own.times, self.own.learnt and self.own.learnt.digest]
        if self.earlier:
            content += ["starts of earlier searches", [start.learnt.digest for start in self.earlier]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def run(self) -> SamplerRecord:
        """Learn the sampler and return it, or the best closed form where that scores at least as well or is asked for.

        Closed forms are ranked by FID on noise of its own: the nearest to the teacher's images need not look best.  A
        learnt sampler is chosen where its held-out distance and its FID are both smaller than the best one's.
        An interrupted call is continued, and ends with the same sampler.
        """
        begin = time.monotonic()
        if self.parts.threads:
            torch.set_num_threads(self.parts.threads)
        score, sampler = self._scorer(), self._sampler()
        forms = different_forms(sampler.schedule, len(self.widths), self.hand)
        scores = {form: self._kept_score(form.name, self._on(form.sampler()), score) for form in forms}
        starts = sorted(forms, key=lambda form: scores[form])[: self.settings.starts]
        own_fid = None if self.own is None else self._kept_score("own", self.own, score)
        if self.learnt == "closed_form":
            record = self._measured(starts[0], scores[starts[0]])
        else:
            record = self._learnt_from(sampler, starts, scores[starts[0]], score)
        images = self.images * (len(forms) + (self.own is not None) + (record.fid is not None))
        costs = [self.parts.costs[width] for width in self.widths]
        return replace(
            record,
            calls=record.calls + images * sum(cost.calls for cost in costs),
            tflops=record.tflops + images * sum(cost.step_gflops for cost in costs) / 1e3,
            seconds=record.seconds + time.monotonic() - begin,
            own_fid=own_fid,
        )

    def _kept_score(self, name: str, plan: Plan, score: Score) -> float:
        return self.unfinished.score(name, lambda: score(plan))

    def _measured(self, form: ClosedForm, fid: float) -> SamplerRecord:
        """Return the record of a closed form, without what measuring it took."""
        return SamplerRecord(
            sampler=form.sampler(),
            widths=self.widths,
            chosen="closed form",
            learnt=self.learnt,
            start=form.name,
            start_times=form.times,
            start_fid=fid,
            calls=0,
            tflops=0.0,
            seconds=0.0,
        )

    def _learnt_from(
        self, sampler: Sampler, starts: Sequence[ClosedForm], start_fid: float, score: Score
    ) -> SamplerRecord:
        """Learn from closed forms, the best one first, and return the record.

        `calls` and `tflops` are of learning, and `seconds` those that interrupted calls have spent on it.
        """
        begin, state = time.monotonic(), self.unfinished.descents
        assert self.learnt != "closed_form", "there is something to learn"
        gflops = {width: cost.step_gflops / cost.calls for width, cost in self.parts.costs.items()}
        result = learn_sampler(
            *(sampler, self.widths, self.learnt, self.settings),
            features=None if self.features is None else open_for_gradients(self.features, sampler.device),
            call_gflops=gflops,
            starts=starts,
            earlier=self.earlier,
            on_progress=self.unfinished.report,
            state=state,
            depends_on="" if state is None else state.stem,  # the key of this task
        )
        earlier = max(0.0, result.seconds - (time.monotonic() - begin))
        fid = score(self._on(result.sampler))
        helps = result.better and fid < start_fid
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
            fid=fid,
            start_fid=start_fid,
            calls=result.calls,
            tflops=result.gflops / 1e3,
            seconds=earlier,
            taken=result.taken,
            tried=tuple(without_nan(asdict(one)) for one in result.tried),
        )

    def _on(self, sampler: LearntSampler) -> Plan:
        return Plan(sampler.times, self.widths, sampler.solver, sampler)

    def _scorer(self) -> Score:
        """Return a function from a plan to its FID on noise that neither learning nor search uses."""
        evaluate, seed = self._evaluator(), learning_seed(self.settings.seed) + 1

        def score(plan: Plan) -> float:
            fid = evaluate(plan, self.images, seed).fid
            return fid if math.isfinite(fid) else NOT_FINITE

        return score

    def _evaluator(self) -> Evaluator:
        """Return an evaluator of FID alone."""
        return Evaluator(replace(self.parts, scores=(), kernel_scores=(), prefix_mb=0.0))

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
