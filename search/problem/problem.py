"""Hold everything that the scores of a search depend on, and turn genomes into plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import torch

from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.search.genomes.encodings import Encoding, Levels
from stepfront.search.genomes.sampler_genes import make_plan_encoding
from stepfront.search.initial_plans.least_error import steps_to_measure
from stepfront.search.step_tables.gap_table import GapInputs, read_gap_table
from stepfront.search.step_tables.step_error_table import StepErrorInputs, read_step_errors
from stepfront.search.storage.run_location import RunLocation
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.data import ImageData, Labels
from stepfront.trainers.diffusion.conditioning import calls_per_step
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.latents.decoder import PackedDecoder
from stepfront.trainers.metrics.features import PackedFeatures
from stepfront.trainers.metrics.fid import Reference
from stepfront.trainers.networks.card import SupernetCard
from stepfront.trainers.step_losses.error_table import StepErrors
from stepfront.trainers.variant import Variant


@dataclass(frozen=True)
class SearchProblem:
    """What a search's scores depend on; `load_problem` reads it and checks its parts against each other."""

    settings: RunSettings
    supernet: RunLocation
    data: ImageData
    card: SupernetCard
    weights: dict[str, np.ndarray]
    features: PackedFeatures
    reference: Reference
    decoder: PackedDecoder | None = None
    """The decoder of the latents that the supernet works on; None where it works on pixels."""
    samplers: Mapping[int, LearntSampler] = field(default_factory=dict)
    """The learnt samplers by number of steps; plans of other numbers use the solver and the grid of the settings."""

    @cached_property
    def encoding(self) -> Encoding:
        """Return the searchable form of a plan."""
        return make_plan_encoding(self.settings.space, self.settings.sampler, self.variants)

    @cached_property
    def encoding_of_widths(self) -> Encoding:
        """Return the searchable form of plans without marks, which the baselines have; `encoding` if it is that."""
        if not self.encoding.marks:
            return self.encoding
        plain = [variant for variant in self.variants if not variant.mark]
        return make_plan_encoding(self.settings.space, self.settings.sampler, plain)

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """Return what a step chooses from, ascending in counted cost: the space's variants, or all widths.

        Raises InputError where a variant reuses features and the network can't.
        """
        network, listed = self.card.network, self.settings.space.listed
        if not listed:
            return tuple(map(Variant, network.widths))
        calls = calls_per_step(self.settings.sampler.guidance)
        shape = (self.card.image_channels, self.card.resolution)
        widths = {variant.width for variant in listed}
        costs = {w: count_width(network, *shape, w).model_copy(update={"calls": calls}) for w in widths}
        for variant in listed:
            if variant.reuse and self.card.groups is not None:
                raise InputError(
                    f"space.variants has {variant}, and this supernet has weights per group of times, which can't read "
                    "each other's features; possible: variants without r, or the groups merged (adapt.merge=true)"
                )
            if variant.reuse and costs[variant.width].reuse_macs is None:
                raise InputError(
                    f"space.variants has {variant}, and this network has no level boundary to reuse features at; "
                    "possible: the families unet, spectral and ode with two or more multipliers, or variants without r"
                )

        def order(v: Variant) -> tuple[float, ...]:
            # Scales of guidance cost alike; the last level is full width at the sampler's own.
            return costs[v.width].gflops_of(v), v.width, v.scale is None, v.scale or 0.0

        return tuple(sorted(listed, key=order))

    @cached_property
    def times(self) -> tuple[float, ...]:
        """Return the sampler's times, noise first."""
        return self.times_of(self.settings.sampler.steps)

    def times_of(self, steps: int) -> tuple[float, ...]:
        """Return the times of a sampler with `steps` steps on the same grid, noise first."""
        if steps in self.samplers:
            return self.samplers[steps].times
        return _times(self.card.diffusion, self.settings.sampler.grid, steps)

    def plan(self, steps: Sequence[float | Variant], sampler: tuple[str, str] | None = None) -> Plan:
        """Return the plan of widths or variants, on the sampler of that many steps or another solver and grid."""
        variants = [step if isinstance(step, Variant) else Variant(step) for step in steps]
        learnt = self.samplers.get(len(variants))
        if learnt is not None:
            return Plan.of(learnt.times, variants, learnt.solver, learnt)
        solver, grid = sampler or (self.settings.sampler.solver, self.settings.sampler.grid)
        return Plan.of(_times(self.card.diffusion, grid, len(variants)), variants, solver, grid=grid)

    def plan_of(self, genome: str) -> Plan:
        """Return the plan of a genome."""
        return self.plan_at(self.encoding.unpack(genome))

    def plan_text(self, genome: str) -> str:
        """Return the plan of a genome as people read it, with solver and grid where plans choose them."""
        plan = self.plan_of(genome)
        return f"{plan.runs} ({plan.solver}, {plan.grid} grid)" if self.settings.space.searches_sampler else plan.runs

    def plan_at(self, levels: Levels) -> Plan:
        """Return the plan of levels; a plan of fewer steps uses the time grid of that many steps."""
        return self.plan(self.encoding.step_variants(levels), self.encoding.sampler_of(levels))

    def uniform_plan(self, width: float) -> Plan:
        """Return the plan that runs one width at every step."""
        return self.plan((width,) * self.settings.sampler.steps)

    def held_out_labels(self, rows: np.ndarray | slice) -> Labels | None:
        """Return the labels of held-out images; None for an unconditional supernet.

        Where prompts are the classes, the images have none: they get the null class, the empty prompt.
        """
        labels, network = self.data.held_out_labels, self.card.network
        if network.classes is not None and network.image_classes is None:
            labels = np.full(len(self.data.held_out_images), network.classes)
        return labels[rows] if labels is not None and network.classes is not None else None

    @property
    def gap_inputs(self) -> GapInputs:
        """Return what the gap table is computed from."""
        count = self.settings.training.held_out_images
        rows = self.data.held_out_sample(count)
        images, labels = self.data.clean_held_out(rows), self.held_out_labels(rows)
        variants = self.variants if self.settings.space.variants else ()
        return GapInputs(self.card, self.weights, self.times, images, labels, self.data.fingerprint, count, variants)

    @cached_property
    def gap(self) -> np.ndarray:
        """Return the gap table [steps, variants] on held-out images: the search's own, or else one computed here."""
        stored = read_gap_table(self.settings.search_directory, self.gap_inputs.key)
        return self.gap_inputs.measure(torch.device("cpu")) if stored is None else stored

    @property
    def step_error_inputs(self) -> StepErrorInputs:
        """Return what the errors of steps are measured from."""
        steps = tuple(steps_to_measure(self.encoding.of_widths, self.times_of))
        return StepErrorInputs(self.card, self.weights, self.settings.sampler, steps)

    @cached_property
    def step_errors(self) -> StepErrors:
        """Return the errors of steps: those stored with the search, or else measured here."""
        inputs = self.step_error_inputs
        stored = read_step_errors(self.settings.search_directory, inputs.key)
        return inputs.measure(torch.device("cpu")) if stored is None else stored


@lru_cache(maxsize=4096)
def _times(diffusion: DiffusionSettings, grid: str, steps: int) -> tuple[float, ...]:
    return tuple(map(float, time_grid(noise_schedule(diffusion), grid, steps)))
