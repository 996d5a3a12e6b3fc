"""Check a solver: finite, pure, sharing prefixes, and exact where the answer is known."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np

from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.schedule import Array, NoiseSchedule, noise_schedule, time_grid
from stepfront.trainers.diffusion.solvers import Coefficients, find_solver

GRIDS = ("leading", "trailing", "quadratic", "logsnr")


class SolverConformance:
    """The contract of a solver.  Set `solver` to the name that settings would give it."""

    solver: str

    def schedules(self) -> list[NoiseSchedule]:
        """Return the noise schedules to check on."""
        return [noise_schedule(DiffusionSettings()), noise_schedule(DiffusionSettings(schedule="cosine"))]

    def coefficients(self, schedule: NoiseSchedule, times: Array) -> Coefficients:
        """Return the solver's coefficients."""
        return find_solver(self.solver)(schedule, times)

    def test_coefficients_are_finite_on_every_grid(self) -> None:
        """Each coefficient is one finite float64 per step, from one step to a thousand."""
        for schedule in self.schedules():
            for grid in GRIDS:
                for steps in (1, 2, 3, 10, 1000):
                    found = astuple(self.coefficients(schedule, time_grid(schedule, grid, steps)))
                    for column in found:
                        assert column.shape == (steps,), f"{grid}: {column.shape} coefficients for {steps} steps"
                        assert column.dtype == np.float64, f"{grid}: coefficients are {column.dtype}, not float64"
                        assert np.isfinite(column).all(), f"{grid}: coefficients of {steps} steps are not all finite"

    def test_equal_times_give_equal_coefficients_and_stay_as_they_are(self) -> None:
        """The function is pure: it repeats itself and does not write to the times."""
        schedule = self.schedules()[0]
        times = np.array([999.0, 641.5, 300.0, 3.25])
        before = times.copy()
        first, second = self.coefficients(schedule, times), self.coefficients(schedule, times)
        assert np.array_equal(times, before), "the solver writes to the times"
        assert np.array_equal(astuple(first), astuple(second)), "equal times give other coefficients"

    def test_alpha_and_sigma_are_those_of_the_times(self) -> None:
        """The first two columns are the schedule's: the clean image is predicted with them."""
        for schedule in self.schedules():
            times = time_grid(schedule, "trailing", 12)
            found = self.coefficients(schedule, times)
            np.testing.assert_allclose(found.alpha, schedule.alpha(times), rtol=1e-12)
            np.testing.assert_allclose(found.sigma, schedule.sigma(times), rtol=1e-12)

    def test_a_step_depends_on_no_time_after_its_end(self) -> None:
        """Plans that begin alike share their states, so a step may read times up to its end alone."""
        schedule = self.schedules()[0]
        times = time_grid(schedule, "logsnr", 9)
        complete = np.stack(astuple(self.coefficients(schedule, times)))
        for count in range(2, 9):
            part = np.stack(astuple(self.coefficients(schedule, times[:count])))
            # The last step of the shorter plan ends elsewhere: at the clean image.
            assert np.array_equal(part[:, : count - 1], complete[:, : count - 1]), (
                f"steps before {count} read later times"
            )

    def test_a_known_clean_image_is_kept(self) -> None:
        """If the network knows the clean image, each step ends at its share of it, and the last one at the image."""
        for schedule in self.schedules():
            for steps in (1, 5, 30):
                found = self.coefficients(schedule, time_grid(schedule, "trailing", steps))
                following = np.append(found.alpha[1:], 1.0)
                # The clean image of the step before is the same one; before the first step there is none.
                assert found.c[0] == 0, "the first step has no clean image of a step before"
                np.testing.assert_allclose(found.a * found.alpha + found.b + found.c, following, rtol=1e-8)
                assert abs(found.a[-1]) < 1e-12, "the last step keeps noise"
                assert found.d[-1] == 0, "the last step adds noise"

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
        # The clean image that the ideal network predicts of x is `clean` times x.
        clean = c.alpha * variance / (c.alpha**2 * variance + c.sigma**2)
        covariance = np.zeros((2, 2))  # of x and of the clean image of the step before
        covariance[0, 0] = c.alpha[0] ** 2 * variance + c.sigma[0] ** 2
        for i in range(steps):
            step = np.array([[c.a[i] + c.b[i] * clean[i], c.c[i]], [clean[i], 0.0]])
            covariance = step @ covariance @ step.T
            covariance[0, 0] += c.d[i] ** 2
        return float(covariance[0, 0] / variance)
