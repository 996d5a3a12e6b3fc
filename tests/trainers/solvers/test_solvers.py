"""Higher-order solvers against golden numbers, diffusers and their order, on a denoiser in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DEISMultistepScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.schedule import Array, noise_schedule
from stepfront.trainers.diffusion.solvers import find_solver
from stepfront.trainers.solvers.exponential import moments, weights
from tests.trainers.diffusers_sampling import sample_with

LINEAR = noise_schedule(DiffusionSettings())


def trajectory(denoise: object, times: Array, solver: str) -> list[Tensor]:
    """Return x_0 ... x_N, each [64, 2], straight from the equation in solvers.py."""
    t = torch.tensor(times, dtype=torch.float64)
    c = find_solver(solver)(LINEAR, t)
    xs, x0s = [torch.from_numpy(np.random.RandomState(0).randn(64, 2))], []
    for i in range(len(t)):
        x0s.append((xs[i] - c.sigma[i] * denoise(xs[i], t[i].expand(64))) / c.alpha[i])
        terms = [c.states[i, j] * xs[j] for j in c.states[i].nonzero()[:, 0].tolist()]
        terms += [c.clean[i, j] * x0s[j] for j in c.clean[i].nonzero()[:, 0].tolist()]
        xs.append(torch.stack(terms).sum(0))
    return xs


@pytest.mark.parametrize(
    ("solver", "steps", "total", "squares", "first"),
    [
        ("unipc_3", 10, -9.910764705, 55.909955892, (1.131204, -0.441112)),
        ("unipc_2", 10, -9.966198059, 55.564785108, (1.129587, -0.440432)),
        ("unipc_3", 20, -8.738462912, 59.045008695, (1.157414, -0.395318)),
        ("ipndm_2", 10, -9.207010551, 59.257924122, (1.120499, -0.414527)),
        ("ipndm_3", 10, -8.208653887, 61.378809955, (1.090813, -0.387346)),
        ("ipndm_4", 10, -7.522851915, 61.116706518, (1.075064, -0.370723)),
    ],
)
def test_golden_numbers(
    two_gaussians: type, solver: str, steps: int, total: float, squares: float, first: tuple[float, float]
) -> None:
    x = trajectory(two_gaussians(LINEAR), np.linspace(999, 0, steps + 1).round()[:-1], solver)[-1]
    assert x[0].tolist() == pytest.approx(first, abs=1e-6)
    assert (float(x.sum()), float(x.square().sum())) == pytest.approx((total, squares), rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 20])
@pytest.mark.parametrize("solver", ["unipc_2", "unipc_3", "dpmpp_3m"])
def test_solvers_are_those_of_diffusers(two_gaussians: type, start: np.ndarray, solver: str, steps: int) -> None:
    denoise = two_gaussians(LINEAR)
    given = {"beta_start": 1e-4, "beta_end": 0.02, "final_sigmas_type": "zero"}
    if solver.startswith("unipc"):
        theirs = UniPCMultistepScheduler(**given, solver_order=int(solver[-1]), solver_type="bh2")
    else:
        given |= {"solver_order": 3, "solver_type": "midpoint"}
        theirs = DPMSolverMultistepScheduler(**given, algorithm_type="dpmsolver++")
    times, x = sample_with(theirs, LINEAR, denoise, start, steps)
    torch.testing.assert_close(trajectory(denoise, times, solver)[-1], x, rtol=0, atol=5e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_is_that_of_diffusers(two_gaussians: type, start: np.ndarray, order: int) -> None:
    # Theirs ends at time 0 instead of at the clean image, and from 15 steps on its last step is of full order.
    denoise = two_gaussians(LINEAR)
    theirs = DEISMultistepScheduler(beta_start=1e-4, beta_end=0.02, solver_order=order)
    end = float(np.exp(-LINEAR.half_log_snr(np.array([0.0]))[0]))
    times, x = sample_with(theirs, LINEAR, denoise, start, 20, end)
    solver = "ddim" if order == 1 else f"deis_{order}"
    ours = trajectory(denoise, np.append(times, 0.0), solver)[-2]
    torch.testing.assert_close(ours, x, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("solver", "ratio"),
    # dpmpp_3m as shipped takes half of the curvature, so halving the step divides its error by four; the correctors of
    # UniPC raise its order by one.
    [("dpmpp_3m", 4.0), ("unipc_2", 8.0), ("unipc_3", 16.0), ("deis_2", 4.0), ("deis_3", 8.0)],
)
def test_halving_the_step_divides_the_error_as_the_order_says(two_gaussians: type, solver: str, ratio: float) -> None:
    denoise = two_gaussians(LINEAR)
    ends = LINEAR.half_log_snr(np.array([999.0, 0.0]))
    first, second, exact = (
        trajectory(denoise, LINEAR.time_of(np.linspace(*ends, steps)), by)[-2]
        for steps, by in ((51, solver), (101, solver), (801, "unipc_3"))
    )
    errors = [float((x - exact).square().mean().sqrt()) for x in (first, second)]
    assert errors[0] / errors[1] > 0.85 * ratio


@pytest.mark.parametrize(("solver", "order"), [("ipndm_2", 2), ("ipndm_3", 3), ("ipndm_4", 4)])
def test_ipndm_integrates_polynomials_of_noise_exactly_on_even_steps(solver: str, order: int) -> None:
    # In s = sigma / alpha the noise drives x / alpha by d(x / alpha) / ds = eps.  Even steps of s, eps = s^(order - 1).
    s = np.linspace(3.0, 1.0, 11)
    times = torch.from_numpy(LINEAR.time_of(-np.log(s)))
    c = find_solver(solver)(LINEAR, times)
    exact = torch.from_numpy(s**order / order)  # x / alpha
    x, x0 = c.alpha * exact, exact - torch.from_numpy(s ** (order - 1)) * c.sigma / c.alpha
    for i in range(order - 1, 10):
        reached = c.states[i] @ x + c.clean[i] @ x0
        assert float(reached) == pytest.approx(float(x[i + 1]), rel=1e-9)


def test_weights_integrate_polynomials_exactly() -> None:
    h, nodes = torch.tensor([0.3, 7.0]), torch.tensor([[1.0, 0.0, -0.8], [1.0, 0.0, -0.1]])
    h, nodes = h.double(), nodes.double()
    s = torch.linspace(0, 1, 20001, dtype=torch.float64)
    for k in range(3):
        by_sum = torch.trapezoid(h[:, None] * torch.exp(h[:, None] * (s - 1)) * s**k, s)
        torch.testing.assert_close((weights(nodes, h) * nodes**k).sum(1), by_sum, rtol=1e-6, atol=0)
        torch.testing.assert_close(moments(h, 3)[:, k], by_sum, rtol=1e-6, atol=0)


@pytest.mark.parametrize("solver", ["unipc_2", "unipc_3", "dpmpp_3m"])
def test_rows_depend_on_the_number_of_steps_that_follow_and_on_nothing_else_behind(solver: str) -> None:
    times = torch.tensor([999.0, 800.0, 600.0, 400.0, 300.0, 200.0, 100.0, 50.0], dtype=torch.float64)
    longer = find_solver(solver)(LINEAR, times)
    shorter = find_solver(solver)(LINEAR, times[:6])
    # The first three rows are far enough from the end; the last one of the shorter table is of first order.
    assert torch.equal(longer.clean[:3, :6], shorter.clean[:3])
    assert not torch.equal(longer.clean[5, :6], shorter.clean[5])
