"""Check a solver: finite, pure, sharing prefixes, and exact where the answer is known."""

from __future__ import annotations

import numpy as np
import torch

from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.schedule import Array, NoiseSchedule, noise_schedule, time_grid
from stepfront.trainers.diffusion.solvers import Coefficients, find_solver

GRIDS = ("leading", "trailing", "quadratic", "quadratic_open", "logsnr", "edm")


class SolverConformance:
    """The contract of a solver.  Set `solver` to the name that settings would give it."""

    solver: str

    def schedules(self) -> list[NoiseSchedule]:
        """Return the noise schedules to check on."""
        return [noise_schedule(DiffusionSettings()), noise_schedule(DiffusionSettings(schedule="cosine"))]

    def coefficients(self, schedule: NoiseSchedule, times: Array) -> Coefficients:
        """Return the solver's coefficients."""
        return find_solver(self.solver)(schedule, torch.tensor(times, dtype=torch.float64))

    def test_coefficients_are_finite_on_every_grid(self) -> None:
        """Each coefficient is one finite float64 per step, or per step and earlier step, from one to a thousand."""
        for schedule in self.schedules():
            for grid in GRIDS:
                for steps in (1, 2, 3, 10, 1000):
                    found = self.coefficients(schedule, time_grid(schedule, grid, steps))
                    for key, numbers in vars(found).items():
                        shape = (steps, steps) if key in ("states", "clean") else (steps,)
                        assert numbers.shape == shape, f"{grid}: {key} is {tuple(numbers.shape)} for {steps} steps"
                        assert numbers.dtype == torch.float64, f"{grid}: {key} is {numbers.dtype}, not float64"
                        assert numbers.isfinite().all(), f"{grid}: {key} of {steps} steps is not all finite"
                    for table in (found.states, found.clean):
                        assert not table.triu(1).any(), f"{grid}: some of {steps} steps read later ones"

    def test_equal_times_give_equal_coefficients_and_stay_as_they_are(self) -> None:
        """The function is pure: it repeats itself and does not write to the times."""
        schedule = self.schedules()[0]
        times = torch.tensor([999.0, 641.5, 300.0, 3.25], dtype=torch.float64)
        before, solver = times.clone(), find_solver(self.solver)
        first, second = solver(schedule, times), solver(schedule, times)
        assert torch.equal(times, before), "the solver writes to the times"
        for key, numbers in vars(first).items():
            assert torch.equal(numbers, vars(second)[key]), f"equal times give other {key}"

    def test_alpha_and_sigma_are_those_of_the_times(self) -> None:
        """Alpha and sigma are the schedule's: the clean image is predicted with them."""
        for schedule in self.schedules():
            times = time_grid(schedule, "trailing", 12)
            found = self.coefficients(schedule, times)
            np.testing.assert_allclose(found.alpha, schedule.alpha(times), rtol=1e-12)
            np.testing.assert_allclose(found.sigma, schedule.sigma(times), rtol=1e-12)

    def test_a_step_depends_on_no_time_after_its_end(self) -> None:
        """Plans that begin alike share their states, so a step may read times up to its end alone.

        It may also read how many steps follow: the plans compared here have equally many.
        """
        schedule = self.schedules()[0]
        times = time_grid(schedule, "logsnr", 9)
        complete = self.coefficients(schedule, times)
        for count in range(2, 9):
            moved = np.append(times[:count], times[count:] / 2)
            other = self.coefficients(schedule, moved)
            for key, numbers in vars(complete).items():
                assert torch.equal(vars(other)[key][: count - 1], numbers[: count - 1]), (
                    f"{key} of the steps before {count} reads later times"
                )

    def test_coefficients_are_differentiable_in_the_times(self) -> None:
        """Gradients reach every time, finite: times can be learnt through the table."""
        for schedule in self.schedules():
            times = torch.tensor([990.5, 641.5, 300.25, 120.75, 3.25], dtype=torch.float64, requires_grad=True)
            found = find_solver(self.solver)(schedule, times)
            total = found.states.sum() + found.clean.square().sum() + found.noise.sum()
            (slopes,) = torch.autograd.grad(total, times)
            assert slopes.isfinite().all(), f"slopes are not finite: {slopes}"
            assert (slopes != 0).all(), f"some times do not matter: {slopes}"

    def test_a_known_clean_image_is_kept(self) -> None:
        """If the network knows the clean image, each step ends at its share of it, and the last one at the image."""
        for schedule in self.schedules():
            for steps in (1, 5, 30):
                found = self.coefficients(schedule, time_grid(schedule, "trailing", steps))
                following = torch.cat([found.alpha[1:], torch.ones(1)])
                # All predicted clean images are the same one, and each state holds alpha of it.
                kept = found.states @ found.alpha + found.clean.sum(1)
                np.testing.assert_allclose(kept, following, rtol=1e-8)
                assert found.noise[-1] == 0, "the last step adds noise"

    def test_the_last_step_keeps_no_noise(self) -> None:
        """If the network knows the clean image, the last step ends at it from any state."""
        schedule = self.schedules()[0]
        for steps in (1, 5, 30):
            c = self.coefficients(schedule, time_grid(schedule, "trailing", steps))
            states = [torch.ones((), dtype=torch.float64)]
            for i in range(steps):
                states.append(c.states[i, : i + 1] @ torch.stack(states[: i + 1]))
            assert abs(states[-1]) < 1e-9, "the last step keeps noise"

    def test_many_steps_solve_the_linear_problem_of_gaussian_data(self) -> None:
        """On Gaussian data the ideal network is linear and the variance of samples is known; more steps come closer."""
        errors = [abs(self.gaussian_variance(steps) - 1) for steps in (40, 640)]
        assert errors[1] < 0.05, f"640 steps miss the variance of Gaussian data by {errors[1]:.1%}"
        assert errors[1] < max(errors[0] / 2, 0.005), f"40 and 640 steps miss the variance by {errors}"

    def gaussian_variance(self, steps: int, deviation: float = 0.5) -> float:
        """Return the variance of samples of Gaussian data of this deviation, as a multiple of the data's."""
        schedule = self.schedules()[0]
        c = self.coefficients(schedule, time_grid(schedule, "logsnr", steps))
        variance = deviation**2
        # The clean image that the ideal network predicts of x is `share` times x.
        share = c.alpha * variance / (c.alpha**2 * variance + c.sigma**2)
        reads = c.states + c.clean * share
        # Each state is a sum of independent normal draws: the starting noise, and the noise of each step.
        draws = torch.zeros(steps + 1, steps + 1, dtype=torch.float64)
        draws[0, 0] = torch.sqrt(c.alpha[0] ** 2 * variance + c.sigma[0] ** 2)
        for i in range(steps):
            draws[i + 1] = reads[i, : i + 1] @ draws[: i + 1]
            draws[i + 1, i + 1] = c.noise[i]
        return float(draws[-1].square().sum() / variance)
