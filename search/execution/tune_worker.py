"""Evaluate the plans of a search in a Tune Trainable that is reused from packet to packet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from functools import cache
from typing import Any

from ray import tune

from stepfront.search.execution.worker import EvaluationError, Load, attempt, worker_name
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.plan import Plan


class EvaluationWorker(tune.Trainable):
    """A worker for Ray Tune: each step evaluates the plans of one packet, one after another.

    Nothing is loaded in `setup`, since Tune repeatedly replaces an actor that starts slowly by a warm one.
    """

    def setup(self, config: dict[str, Any], load: Load | None = None) -> None:
        """Take the configuration of the first trial."""
        assert load is not None
        self._config, self._load = config, cache(load)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the configuration of the next trial."""
        self._config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Return the evaluations of the packet's plans, or raise EvaluationError at the first without a score."""
        # Tuples, because Tune flattens mappings on their way to the searcher.
        done: list[tuple[Any, ...]] = []
        for job in self._config["packet"]:
            try:
                evaluation = attempt(self._load, plan_of_message(job["plan"]), job["images"], job["noise_seed"])
            except EvaluationError as error:
                error.before = done, worker_name()
                raise
            done.append(astuple(evaluation))
        return {"evaluations": done, "worker": worker_name(), "done": True}


def plan_of_message(message: Sequence[Any]) -> Plan:
    """Return the plan of a message: times, widths, solver, the learnt sampler as JSON values or None, and marks."""
    times, widths, solver, learnt, marks = message
    return Plan(tuple(times), tuple(widths), solver, learnt and LearntSampler.from_json(learnt), marks=tuple(marks))
