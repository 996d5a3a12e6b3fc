"""Learn the sampler of a plan: make the pairs, find the best closed forms, descend from them, and compare."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.learning_settings import LearningSettings, Learnt
from stepfront.trainers.sampler_learning.descent import Descent, begin
from stepfront.trainers.sampler_learning.distances import DifferentiableFeatures, make_distance
from stepfront.trainers.sampler_learning.lesson import Lesson, Meter, OnProgress
from stepfront.trainers.sampler_learning.pairs import PairSets, check_teacher, teacher_pairs
from stepfront.trainers.sampler_learning.parameters import Frame, coefficients_of, learnt_sampler_of
from stepfront.trainers.sampler_learning.result import LearningResult
from stepfront.trainers.sampler_learning.starts import ClosedForm, best_starts, closed_forms, mean_distance
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
    on_progress: OnProgress = lambda progress: None,
    state: Path | None = None,
    depends_on: str = "",
) -> LearningResult:
    """Learn times, network times or coefficients of the plan that runs `widths`, one width per step.

    `sampler` gives networks by width, schedule, device, clip and condition; its networks must let gradients through
    (plain modules), and its noise gives only the shape of an image.  `call_gflops` are the FLOPs of one call by width,
    in 1e9.  `pairs` replace those that the teacher would make.  `starts` are the closed forms to learn from, the best
    one first; without them, those of the smallest distance are found.  An interrupted call continues from the folder
    `state` if it holds the state of the same learning; `depends_on` then names what the arguments do not show, such as
    the digest of the weights.

    The result is deterministic on one kind of device.  Raises InputError for settings that do not fit, and when
    learning diverges; a result that is not better than its start is returned, and refused by `accepted`.
    """
    plan = tuple(widths)
    student = student_of(sampler, plan)
    forms = [] if starts else closed_forms(student.schedule, student.steps, settings.solvers)
    check_teacher(settings, student.steps, student.schedule)
    check_gap(student.steps, settings.least_gap, student.schedule.steps - 1)
    meter = Meter(_planned_calls(student, settings, len(forms), pairs is None), on_progress)
    sets = _pairs(sampler, student, settings, meter) if pairs is None else pairs
    distance = make_distance(settings.distance, sets.train.target, features)
    lesson = Lesson(student, sets, distance, settings, meter)
    if not starts:
        meter.report("choosing starts")
        starts = best_starts(student, forms, sets.train.part(slice(0, TRIED)), distance, settings.starts)
        meter.add(plan, len(forms) * min(TRIED, len(sets.train)) * student.calls_per_step)
    key = _key(settings, plan, learnt, starts, depends_on)
    descent = _best_descent(lesson, learnt, starts, None if state is None else (Path(state), key))
    return _compared(lesson, descent, starts[0], learnt, call_gflops)


def _pairs(sampler: Sampler, student: Student, settings: LearningSettings, meter: Meter) -> PairSets:
    teacher = [max(sampler.denoisers)] * settings.teacher_steps

    def on_batch(images: int) -> None:
        meter.add(teacher, images * student.calls_per_step)
        meter.report("making pairs")

    return teacher_pairs(sampler, settings, on_batch)


def _planned_calls(student: Student, settings: LearningSettings, forms: int, teach: bool) -> float:
    each = student.steps * student.calls_per_step
    images = settings.pairs + settings.stopping_pairs + settings.held_out_pairs
    iterations = settings.iterations * (1 + TRIAL_SHARE * (settings.starts - 1))
    checks = iterations / settings.check_every * settings.stopping_pairs
    learning = each * (iterations * min(settings.batch, settings.pairs) * 2 + checks + forms * TRIED)
    return learning + teach * images * settings.teacher_steps * student.calls_per_step


def _key(
    settings: LearningSettings, plan: tuple[float, ...], learnt: str, starts: Sequence[ClosedForm], more: str
) -> str:
    content = [settings_json(settings), plan, learnt, [start.name for start in starts], more]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _best_descent(
    lesson: Lesson, learnt: Learnt, starts: Sequence[ClosedForm], saved: tuple[Path, str] | None
) -> Descent:
    """Descend from each start for a share of the iterations, and from the best of them to the end."""
    descents = [_begin(lesson, learnt, start) for start in starts]
    files = [None if saved is None else saved[0] / f"start-{i}.safetensors" for i in range(len(starts))]
    settings, meter = lesson.settings, lesson.meter

    def descend(number: int, until: int) -> None:
        file = files[number]
        if file is None or saved is None:
            lesson.descend(descents[number], until)
            return
        key = saved[1]
        lesson.descend(descents[number], until, lambda d: save_descent(file, key, d, meter.seconds, meter.calls))

    for file, descent in zip(files, descents, strict=True):
        if file is not None and saved is not None:
            meter.continue_from(*restore_descent(file, saved[1], descent))
    trial = settings.iterations if len(starts) == 1 else math.ceil(settings.iterations * TRIAL_SHARE)
    for number in range(len(starts)):
        descend(number, trial)
    best = min(range(len(starts)), key=lambda number: _least_until(descents[number], trial))
    descend(best, settings.iterations)
    return descents[best]


def _least_until(descent: Descent, iteration: int) -> float:
    return min(check.stopping for check in descent.history if check.iteration <= iteration)


def _begin(lesson: Lesson, learnt: Learnt, start: ClosedForm) -> Descent:
    settings, schedule = lesson.settings, lesson.student.schedule
    frame = Frame(start.solver, schedule, settings.least_gap, learnt, settings.learn_start)
    return begin(start.name, frame, torch.tensor(start.times, dtype=torch.float64), settings)


def _compared(
    lesson: Lesson,
    descent: Descent,
    start: ClosedForm,
    learnt: Learnt,
    call_gflops: Mapping[float, float] | None,
) -> LearningResult:
    """Compare the best parameters with the best closed form, on training pairs and on held-out pairs."""
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
    )
