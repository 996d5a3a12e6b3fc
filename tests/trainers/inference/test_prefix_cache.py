"""Shared prefixes: fewer calls of the network, the same images to the bit, within a memory limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from stepfront.plugins import SOLVERS
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.noise import CachedNoise, Noise
from stepfront.trainers.diffusion.plan import SKIP, Plan
from stepfront.trainers.diffusion.sampler import Sampler, State
from stepfront.trainers.diffusion.schedule import noise_schedule, time_grid
from stepfront.trainers.diffusion.types import Denoiser
from stepfront.trainers.inference.prefix_cache import PLANS, Arrays, Prefixes
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.variant import parse_variants

SCHEDULE = noise_schedule(DiffusionSettings())
TIMES = tuple(map(float, time_grid(SCHEDULE, "trailing", 6)))
CPU = torch.device("cpu")
IMAGE = 8 * 8 * 4
"""Bytes of one image."""

PLANS_IN_TURN = [
    (0.25, 0.5, 0.5, 0.75, 1.0, 0.25),
    (0.25, 0.5, 0.5, 0.25, SKIP, 1.0),  # three steps shared
    (0.25, 0.5, SKIP, 0.75, 1.0, 0.25),  # the second step now spans a gap: one step shared
    (0.25, 0.5, 0.5, 0.75, 1.0, 1.0),  # five
    (1.0, 0.5, 0.5, 0.75, 1.0, 0.25),  # none
    (0.5, 1.0, 0.5, 0.5, SKIP, SKIP),
    (0.5, 1.0, 0.5, 0.5, 1.0, 0.25),  # three; the plan before looks back at no x0 in its last step, this one may
]
SHARED = [0, 3, 1, 5, 0, 0, 3]


REUSING = [
    "1x0.50 2x0.50r 1x0.50 2x0.50r",
    "1x0.50 2x0.50r 3x0.50",  # three steps shared, of which two reuse features
    "1x0.75 5x0.75r",
    "1x0.50 5x0.50r",  # two: after three, the first plan no longer holds features
    "1x0.50 2x0.50r 1x0.50 1x0.50r 1x0.50",  # four: before the last step, the first plan holds features
]

SHARED_OTHERWISE = {
    "dpmpp_2m": [0, 3, 1, 5, 0, 0, 2],
    "dpmpp_3m": [0, 2, 1, 5, 0, 0, 1],  # its last steps but one look back less far, and so keep less
    "unipc_2": [0, 3, 1, 5, 0, 0, 2],  # the order falls towards the end
    "unipc_3": [0, 3, 1, 5, 0, 0, 2],
    "deis_2": [0, 3, 1, 5, 0, 0, 2],  # the last step is of first order, and so keeps less
    "deis_3": [0, 3, 1, 5, 0, 0, 2],
}


def shared_by(solver: str) -> list[int]:
    """Return the number of steps that each plan shares with an earlier one."""
    return SHARED_OTHERWISE.get(solver, SHARED)


class Counting:
    """Denoisers that count the images they were called on."""

    def __init__(self, denoisers: dict[float, Denoiser]) -> None:
        self.calls = 0
        self.by_width = {width: self._counted(denoise) for width, denoise in denoisers.items()}

    def _counted(self, denoise: Denoiser) -> Denoiser:
        def counted(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            self.calls += len(x)
            return denoise(x, t)

        return counted


@pytest.fixture(scope="module")
def subnets(network: NetworkSettings, random_supernet: Callable[..., Supernet]) -> dict[float, Denoiser]:
    supernet = random_supernet(network)
    return {width: supernet.subnet(width) for width in supernet.widths}


def images(sampler: Sampler, plan: Plan, begun: Callable[[int, int], None] = lambda p, n: None) -> torch.Tensor:
    return torch.cat(list(sampler.sample(plan, 7, 4, begun)))


@pytest.mark.parametrize("solver", SOLVERS.ours)
def test_images_are_the_same_to_the_bit_and_only_what_is_new_is_computed(
    subnets: dict[float, Denoiser], solver: str
) -> None:
    counting = Counting(subnets)
    bare = Sampler(subnets, SCHEDULE, Noise(3, (1, 8, 8)), CPU)
    sharing = replace(
        bare, denoisers=counting.by_width, noise=CachedNoise(3, (1, 8, 8), 2**20), prefixes=Prefixes(2**20)
    )
    for widths, shared in zip(PLANS_IN_TURN, shared_by(solver), strict=True):
        plan, begun = Plan(TIMES, widths, solver), list[tuple[int, int]]()
        counting.calls = 0
        assert torch.equal(images(sharing, plan, lambda *told, to=begun: to.append(told)), images(bare, plan))
        assert begun == [(shared, 4), (shared, 3)]
        assert counting.calls == 7 * (len(plan.taken) - shared)


class Table:
    """What processes share, in one: states as they would travel."""

    def __init__(self) -> None:
        self.states: dict[str, Arrays] = {}

    def longest(self, keys: Sequence[str]) -> tuple[int, Arrays] | None:
        there = [index for index, key in enumerate(keys) if key in self.states]
        return (there[-1], self.states[keys[there[-1]]]) if there else None

    def offer(self, states: Sequence[tuple[str, Arrays]]) -> None:
        for key, arrays in states:
            assert key not in self.states, "nothing is offered twice"
            x, earlier, clean, deep = arrays
            for array in (x, *earlier.values(), *clean.values(), *deep):
                array.flags.writeable = False  # as in an object store
            self.states[key] = arrays


@pytest.mark.parametrize("solver", SOLVERS.ours)
def test_processes_share_prefixes_and_images_stay_the_same_to_the_bit(
    subnets: dict[float, Denoiser], solver: str
) -> None:
    counting, table = Counting(subnets), Table()
    bare = Sampler(subnets, SCHEDULE, Noise(3, (1, 8, 8)), CPU)
    workers = [replace(bare, denoisers=counting.by_width, prefixes=Prefixes(2**20, table)) for _ in range(2)]
    for number, (widths, shared) in enumerate(zip(PLANS_IN_TURN, shared_by(solver), strict=True)):
        plan = Plan(TIMES, widths, solver)
        counting.calls = 0
        assert torch.equal(images(workers[number % 2], plan), images(bare, plan))
        assert counting.calls == 7 * (len(plan.taken) - shared)  # as many as one worker alone would make


def test_what_comes_from_another_process_is_kept_within_the_limit(subnets: dict[float, Denoiser]) -> None:
    table, room = Table(), 3 * 4 * IMAGE
    bare = Sampler(subnets, SCHEDULE, Noise(3, (1, 8, 8)), CPU)
    images(replace(bare, prefixes=Prefixes(2**20, table)), Plan(TIMES, PLANS_IN_TURN[0]))
    small = Prefixes(room, table)
    for widths in PLANS_IN_TURN:
        assert torch.equal(
            images(replace(bare, prefixes=small), Plan(TIMES, widths)), images(bare, Plan(TIMES, widths))
        )
        assert small.bytes <= room


def test_states_with_deep_features_are_shared_and_images_stay_the_same_to_the_bit(
    subnets: dict[float, Denoiser],
) -> None:
    table = Table()
    bare = Sampler(subnets, SCHEDULE, Noise(3, (1, 8, 8)), CPU)
    workers = [replace(bare, prefixes=Prefixes(2**20, table)) for _ in range(2)]
    begun: list[tuple[int, int]] = []
    for number, runs in enumerate(REUSING):
        plan, told = Plan.of(TIMES, parse_variants(runs)), list[tuple[int, int]]()
        assert torch.equal(images(workers[number % 2], plan, lambda *at, to=told: to.append(at)), images(bare, plan))
        begun.append(told[0])
    assert [steps for steps, _ in begun] == [0, 3, 0, 2, 4]
    assert any(deep for _, _, _, deep in table.states.values()), "some states travel with their features"


def test_features_that_would_drive_out_the_states_of_other_plans_are_not_kept(subnets: dict[float, Denoiser]) -> None:
    prefixes = Prefixes(16 * 4 * IMAGE)
    sharing = Sampler(subnets, SCHEDULE, Noise(3, (1, 8, 8)), CPU, prefixes=prefixes)
    images(sharing, Plan.of(TIMES, parse_variants("1x1.00 5x1.00r")))
    assert len(prefixes) == 0  # features of 16 channels are a state of 17 images, more than an eighth of the limit
    images(sharing, Plan.of(TIMES, parse_variants("6x1.00")))
    assert len(prefixes) > 0


def test_another_seed_shares_nothing(subnets: dict[float, Denoiser]) -> None:
    sharing = Sampler(subnets, SCHEDULE, Noise(3, (1, 8, 8)), CPU, prefixes=Prefixes(2**20))
    plan = Plan(TIMES, PLANS_IN_TURN[0])
    images(sharing, plan)
    other = replace(sharing, noise=Noise(4, (1, 8, 8)))
    assert torch.equal(images(other, plan), images(replace(other, prefixes=None), plan))


@pytest.mark.parametrize("room", [0, 1, 3, 7, 40])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
def test_the_limit_is_kept_and_changes_no_image(subnets: dict[float, Denoiser], solver: str, room: int) -> None:
    prefixes = Prefixes(room * 4 * IMAGE)
    bare = Sampler(subnets, SCHEDULE, Noise(3, (1, 8, 8)), CPU)
    for widths in PLANS_IN_TURN * 2:
        plan = Plan(TIMES, widths, solver)
        assert torch.equal(images(replace(bare, prefixes=prefixes), plan), images(bare, plan))
        assert prefixes.bytes <= room * 4 * IMAGE
    assert (prefixes.bytes > 0) == (room > (1 if solver == "dpmpp_2m" else 0))  # two tensors a state there


def test_the_prefix_that_was_used_last_is_let_go_last() -> None:
    state = State(torch.zeros(4, 1, 8, 8))
    prefixes = Prefixes(2 * 4 * IMAGE)
    prefixes.keep("a", state)
    prefixes.keep("b", state)
    assert prefixes.longest(["a"]) is not None
    prefixes.keep("c", state)
    assert prefixes.longest(["b"]) is None
    assert [prefixes.longest(["a", "x"]), prefixes.longest(["a", "c"])] == [(0, state), (1, state)]


@pytest.mark.parametrize("steps", [1, 2, 20, 999])
@pytest.mark.parametrize("each_plan", [1, 5, 19, 1000])
def test_states_are_kept_at_evenly_spread_steps_as_many_as_there_is_room_for(steps: int, each_plan: int) -> None:
    times = tuple(float(t) for t in range(steps, 0, -1))
    sampler = Sampler({1.0: lambda x, t: x}, SCHEDULE, Noise(0, (1, 8, 8)), CPU)
    run, state = sampler.prepare(Plan(times, (1.0,) * steps)), sampler.start(range(4))
    positions = list(Prefixes(each_plan * PLANS * 4 * IMAGE).positions(run, state))
    assert len(positions) <= each_plan
    assert 2 * (len(positions) + 1) > min(each_plan, steps - 1)  # half the room at least is used
    assert len({b - a for a, b in zip([0, *positions], positions, strict=False)}) <= 1
    if each_plan >= steps - 1:
        assert positions == list(range(1, steps))


# --- noise that stays -------------------------------------------------------------------------------------------------


def test_kept_noise_is_the_noise_and_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, drawn = Noise(3, (1, 8, 8)), list[tuple[range, int]]()
    kept = CachedNoise(3, (1, 8, 8), 4 * IMAGE)
    draw = Noise._draw
    monkeypatch.setattr(
        Noise, "_draw", lambda self, images, block: drawn.append((images, block)) or draw(self, images, block)
    )
    for _ in range(2):
        for step in (None, 0, 1):
            expected = plain.on(CPU, torch.float32, range(4), step)
            drawn.clear()
            assert torch.equal(kept.on(CPU, torch.float32, range(4), step), expected)
    # The start and, within the limit of one batch, nothing more: fresh noise is drawn each time.
    assert drawn == [(range(4), 2)]
    kept.on(CPU, torch.float32, range(4))
    assert drawn == [(range(4), 2)]


def test_no_noise_is_kept_beyond_the_limit_be_it_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, drawn = CachedNoise(3, (1, 8, 8), 4 * IMAGE - 1), list[int]()
    draw = Noise._draw
    monkeypatch.setattr(Noise, "_draw", lambda self, images, block: drawn.append(block) or draw(self, images, block))
    for _ in range(2):
        assert torch.equal(kept.on(CPU, torch.float32, range(4)), Noise(3, (1, 8, 8)).on(CPU, torch.float32, range(4)))
    assert drawn == [0, 0, 0, 0]


def test_all_noise_is_kept_where_no_limit_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = CachedNoise(3, (1, 8, 8))
    first = kept.on(CPU, torch.float32, range(4))
    monkeypatch.setattr(Noise, "_draw", None)
    assert kept.on(CPU, torch.float32, range(4)) is first
