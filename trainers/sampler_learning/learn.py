"""Learn the sampler of a plan: make the pairs, find the best starts, descend from them, and compare."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.learning_settings import LearningSettings, Learnt
from stepfront.trainers.sampler_learning.descent import Descent, begin
from stepfront.trainers.sampler_learning.distances import DifferentiableFeatures, make_distance
from stepfront.trainers.sampler_learning.lesson import DivergedError, Lesson, Meter, OnProgress
from stepfront.trainers.sampler_learning.pairs import PairSets, check_teacher, teacher_pairs
from stepfront.trainers.sampler_learning.parameters import Frame, coefficients_of, learnt_sampler_of
from stepfront.trainers.sampler_learning.result import LearningResult, TriedStart
from stepfront.trainers.sampler_learning.starts import (
    ClosedForm,
    EarlierStart,
    Start,
    best_starts,
    closed_forms,
    mean_distance,
)
from stepfront.trainers.sampler_learning.state_file import restore_descent, save_descent
from stepfront.trainers.sampler_learning.times import check_gap
from stepfront.trainers.sampler_learning.trajectory import Student, student_of
from stepfront.trainers.validation import settings_json

TRIED = 32
"""Training pairs that closed forms are ranked on."""

TRIAL_SHARE = 0.2
"""Share of the iterations after which the best of several starts is chosen."""


def learn_sampler(
    sampler: Sampler,
    widths: Sequence[float],
    learnt: Learnt = "solver",
    settings: LearningSettings = LearningSettings(),  # noqa: B008  # frozen
    *,
    features: DifferentiableFeatures | None = None,
    call_gflops: Mapping[float, float] | None = None,
    pairs: PairSets | None = None,
    starts: Sequence[ClosedForm] = (),
    earlier: Sequence[EarlierStart] = (),
    on_progress: OnProgress = lambda progress: None,
    state: Path | None = None,
    depends_on: str = "",
) -> LearningResult:
    """Learn times, network times or coefficients of the plan that runs `widths`, one width per step.

    `sampler` gives networks by width, schedule, device, clip and condition; its networks must let gradients through
    (plain modules), and its noise gives only the shape of an image.  `call_gflops` are the FLOPs of one call by width,
    in 1e9.  `pairs` replace those that the teacher would make.  `starts` are the closed forms to learn from, the best
    one first; without them, those of the smallest distance are found.  `earlier` are samplers of as many steps to learn
    from as well.  The start of the smallest distance to the stopping pairs, after a share of the iterations, is taken.
    An interrupted call continues from the folder `state` if it holds the state of the same learning; `depends_on` then
    names what the arguments do not show, such as the digest of the weights.

    The result is deterministic on one kind of device.  Raises InputError for settings that do not fit, and when
    learning diverges; a result that is not better than its start is returned, and refused by `accepted`.
    """
    plan = tuple(widths)
    student = student_of(sampler, plan)
    forms = [] if starts else closed_forms(student.schedule, student.steps, settings.solvers)
    check_teacher(settings, student.steps, student.schedule)
    check_gap(student.steps, settings.least_gap, student.schedule.steps - 1)
    meter = Meter(_planned_calls(student, settings, len(forms), len(earlier), pairs is None), on_progress)
    sets = _pairs(sampler, student, settings, meter) if pairs is None else pairs
    distance = make_distance(settings.distance, sets.train.target, features)
    lesson = Lesson(student, sets, distance, settings, meter)
    if not starts:
        meter.report("choosing starts")
        starts = best_starts(student, forms, sets.train.part(slice(0, TRIED)), distance, settings.starts)
        meter.add(plan, len(forms) * min(TRIED, len(sets.train)) * student.calls_per_step)
    key = _key(settings, plan, learnt, starts, earlier, depends_on)
    descents = _Descents.begin(lesson, learnt, starts, earlier, None if state is None else (Path(state), key))
    return _compared(lesson, descents, starts[0], learnt, call_gflops)


def _pairs(sampler: Sampler, student: Student, settings: LearningSettings, meter: Meter) -> PairSets:
    teacher = [max(sampler.denoisers)] * settings.teacher_steps

    def on_batch(images: int) -> None:
        meter.add(teacher, images * student.calls_per_step)
        meter.report("making pairs")

    return teacher_pairs(sampler, settings, on_batch)


def _planned_calls(student: Student, settings: LearningSettings, forms: int, earlier: int, teach: bool) -> float:
    each = student.steps * student.calls_per_step
    images = settings.pairs + settings.stopping_pairs + settings.held_out_pairs
    iterations = settings.iterations * (1 + TRIAL_SHARE * (settings.starts + earlier - 1))
    checks = iterations / settings.check_every * settings.stopping_pairs
    learning = each * (iterations * min(settings.batch, settings.pairs) * 2 + checks + forms * TRIED)
    return learning + teach * images * settings.teacher_steps * student.calls_per_step


def _key(
    settings: LearningSettings,
    plan: tuple[float, ...],
    learnt: str,
    starts: Sequence[ClosedForm],
    earlier: Sequence[EarlierStart],
    more: str,
) -> str:
    content: list[Any] = [settings_json(settings), plan, learnt, [start.name for start in starts], more]
    content += [[start.learnt.digest for start in earlier]] if earlier else []
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Descents:
    """Learning from each start: closed forms, and `earlier` samplers behind them."""

    lesson: Lesson
    each: list[Descent]
    files: list[Path | None]
    key: str
    earlier: int

    @staticmethod
    def begin(
        lesson: Lesson,
        learnt: Learnt,
        starts: Sequence[ClosedForm],
        earlier: Sequence[EarlierStart],
        saved: tuple[Path, str] | None,
    ) -> _Descents:
        """Begin at each start, or where an interrupted call was, whose state is `saved` under a key."""
        every: list[Start] = [*starts, *earlier]
        descents = [_begin(lesson, learnt, start) for start in every]
        files = [None if saved is None else saved[0] / f"start-{i}.safetensors" for i in range(len(every))]
        key = "" if saved is None else saved[1]
        for file, descent in zip(files, descents, strict=True):
            if file is not None:
                lesson.meter.continue_from(*restore_descent(file, key, descent))
        return _Descents(lesson, descents, files, key, len(earlier))

    def best(self) -> tuple[Descent, list[TriedStart]]:
        """Descend from each start for a share of the iterations, and from the best of them to the end.

        An earlier sampler from which learning diverges is passed over.  Raises DivergedError for a closed form.
        """
        every, settings = range(len(self.each)), self.lesson.settings
        trial = settings.iterations if len(every) == 1 else math.ceil(settings.iterations * TRIAL_SHARE)
        least = {n: _least_until(self.each[n], trial) if self._descend(n, trial) else math.nan for n in every}
        tried = [
            TriedStart(d.name, _or_nan(d.history[0].stopping), _or_nan(least[n]), self._is_earlier(n))
            for n, d in enumerate(self.each)
        ]
        # A distance that is not a number: an earlier sampler is behind the closed forms then, which stay as they were.
        sound = [n for n in every if not self._is_earlier(n) or math.isfinite(least[n])]
        while not self._descend(best := min(sound, key=lambda n: least[n]), settings.iterations):
            sound.remove(best)
        return self.each[best], tried

    def _is_earlier(self, number: int) -> bool:
        return number >= len(self.each) - self.earlier

    def _descend(self, number: int, until: int) -> bool:
        """Continue from a start; return whether it did not diverge."""
        file, meter = self.files[number], self.lesson.meter

        def save(descent: Descent) -> None:
            if file is not None:
                save_descent(file, self.key, descent, meter.seconds, meter.calls)

        try:
            self.lesson.descend(self.each[number], until, save)
        except DivergedError:
            if not self._is_earlier(number):
                raise
            return False
        return True


def _or_nan(distance: float) -> float:
    return distance if math.isfinite(distance) else math.nan


def _least_until(descent: Descent, iteration: int) -> float:
    return min(check.stopping for check in descent.history if check.iteration <= iteration)


def _begin(lesson: Lesson, learnt: Learnt, start: Start) -> Descent:
    settings, sampler = lesson.settings, start.sampler()
    frame = Frame(sampler.solver, lesson.student.schedule, settings.least_gap, learnt, settings.learn_start)
    return begin(start.name, frame, sampler, settings)


def _compared(
    lesson: Lesson,
    descents: _Descents,
    start: ClosedForm,
    learnt: Learnt,
    call_gflops: Mapping[float, float] | None,
) -> LearningResult:
    """Learn, and compare the best parameters with the best closed form, on training pairs and on held-out pairs."""
    descent, tried = descents.best()
    student, sets, meter = lesson.student, lesson.pairs, lesson.meter
    forms = coefficients_of(descent.frame, descent.best), start.coefficients(student.schedule)
    train = [mean_distance(student, form, sets.train, lesson.distance) for form in forms]
    held = [mean_distance(student, form, sets.held_out, lesson.distance) for form in forms]
    difference = held[0] - held[1]
    error = float(difference.std() / math.sqrt(len(difference))) if len(difference) > 1 else math.nan
    meter.add(student.widths, 2 * (len(sets.train) + len(sets.held_out)) * student.calls_per_step)
    gflops = math.nan if call_gflops is None else sum(call_gflops[w] * n for w, n in meter.calls.items())
    return LearningResult(
        sampler=learnt_sampler_of(descent.frame, descent.best),
        start=start.sampler(),
        start_name=start.name,
        learnt=learnt,
        distance=lesson.settings.distance,
        widths=student.widths,
        train=float(train[0].mean()),
        held_out=float(held[0].mean()),
        held_out_error=error,
        start_train=float(train[1].mean()),
        start_held_out=float(held[1].mean()),
        iterations=descent.iteration,
        calls=meter.calls.total(),
        gflops=gflops,
        seconds=meter.seconds,
        history=tuple(descent.history),
        taken=descent.name,
        tried=tuple(tried),
    )
