"""Check which choices of solver and grid a search accepts, and that others end in one line."""

from __future__ import annotations

import pytest

from stepfront.errors import InputError
from stepfront.search.config import settings_from
from stepfront.search.problem.user_parts import check_solvers


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"space": {"solvers": ["unipc_2", "euler"]}}, r"euler"),
        ({"space": {"grids": ["quadratic", "karras"]}}, r"space\.grids.*leading"),
        (
            {"space": {"solvers": []}},
            r"space\.solvers: the list is empty; give some, or null for sampler\.solver alone",
        ),
        ({"space": {"grids": []}}, r"space\.grids: the list is empty; give some, or null for sampler\.grid alone"),
        ({"space": {"grids": ["quadratic", "quadratic"]}}, r"quadratic is given twice; give each once"),
        ({"space": {"solvers": ["ddim", "ipndm_3"]}}, r"space\.solvers lacks sampler\.solver unipc_2.*add it, or set"),
        ({"space": {"grids": ["leading"]}}, r"space\.grids lacks sampler\.grid quadratic"),
        (
            {"sampler": {"times": "learnt"}, "space": {"solvers": ["unipc_2", "ipndm_3"]}},
            r"a learnt sampler has its own solver and times, so plans can't choose them; leave out space\.solvers",
        ),
        (
            {"sampler": {"solver": "learnt"}, "space": {"grids": ["quadratic", "leading"]}},
            r"a learnt sampler has its own solver and times",
        ),
    ],
)
def test_bad_choices_end_in_one_line(given: dict[str, object], line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        settings_from(given)
    assert "\n" not in str(caught.value)


def needs_three_steps(schedule: object, times: object) -> object:
    """Return the coefficients of DDIM; fail on fewer than three steps."""
    from stepfront.trainers.diffusion.solvers import ddim

    if len(times) < 3:  # type: ignore[arg-type]
        raise ValueError("three steps are needed")
    return ddim(schedule, times)  # type: ignore[arg-type]


def test_a_solver_that_needs_more_steps_than_a_plan_may_have_is_refused() -> None:
    own = f"{__name__}:needs_three_steps"
    settings = settings_from({"space": {"solvers": ["unipc_2", own]}, "sampler": {"steps": 6}})
    with pytest.raises(InputError, match=r"needs_three_steps' fails on 1 steps \(ValueError: three steps are needed\)"):
        check_solvers(settings, settings.diffusion)
    all_steps = settings_from({"space": {"solvers": ["unipc_2", own], "skip": False}, "sampler": {"steps": 6}})
    check_solvers(all_steps, all_steps.diffusion)
