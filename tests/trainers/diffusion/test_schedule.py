"""The noise schedule and the grids of times."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings, SamplerSettings
from stepfront.trainers.diffusion.schedule import NoiseSchedule, noise_schedule, quadratic_begin, time_grid

LINEAR = noise_schedule(DiffusionSettings())
COSINE = noise_schedule(DiffusionSettings(schedule="cosine"))
GRIDS = get_args(SamplerSettings.model_fields["grid"].annotation)


def test_linear_schedule_has_the_golden_values() -> None:
    golden = [0.9999, 0.5240853738, 0.07858724288, 0.003350550439, 4.035829765e-05]
    assert LINEAR.alpha_bar[[0, 249, 499, 749, 999]] == pytest.approx(golden, rel=1e-6)


@pytest.mark.parametrize(("ours", "theirs"), [(LINEAR, "linear"), (COSINE, "squaredcos_cap_v2")])
def test_schedules_are_those_of_diffusers(ours: NoiseSchedule, theirs: str) -> None:
    scheduler = DDPMScheduler(1000, beta_schedule=theirs, beta_start=1e-4, beta_end=0.02)
    np.testing.assert_allclose(ours.alpha_bar, scheduler.alphas_cumprod.double().numpy(), rtol=2e-5)


def test_cosine_schedule_is_the_closed_form_until_its_betas_are_capped() -> None:
    edges = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(COSINE.alpha_bar[:998], edges[1:999] / edges[0], rtol=1e-9)
    assert COSINE.alpha_bar[999] == pytest.approx(COSINE.alpha_bar[998] * 0.001)


@pytest.mark.parametrize("schedule", ["scaled_linear", "cosine", "flow", "edm"])
def test_a_quadratic_grid_begins_where_the_image_no_longer_shows(schedule: Any) -> None:
    assert time_grid(LINEAR, "quadratic", 20)[0] == 800  # Song et al. 2020: 0.8 T
    uneven = noise_schedule(DiffusionSettings(steps=1001))
    assert quadratic_begin(uneven) == 0.8 * 1001  # as before, so earlier searches of such schedules continue
    assert time_grid(uneven, "quadratic", 20)[0] == 801
    other = noise_schedule(DiffusionSettings(schedule=schedule))
    begin = time_grid(other, "quadratic", 20)[:1]
    signal = float(other.alpha(begin)[0] / other.sigma(begin)[0])
    assert 0.045 < signal < 0.055
    assert other.alpha(np.array([800.0]))[0] > 0.1  # where it began before: unit noise is no such image


@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
def test_variance_is_preserved_at_integers_and_between(schedule: NoiseSchedule) -> None:
    times = np.linspace(0, 999, 777)
    np.testing.assert_allclose(schedule.alpha(times) ** 2 + schedule.sigma(times) ** 2, 1, rtol=1e-13)
    integers = np.arange(1000.0)
    np.testing.assert_allclose(schedule.alpha(integers) ** 2, schedule.alpha_bar, rtol=1e-10)
    lam = schedule.half_log_snr(times)
    np.testing.assert_allclose(lam, np.log(schedule.alpha(times) / schedule.sigma(times)), atol=1e-10)
    assert (np.diff(lam) < 0).all()


@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
def test_time_of_is_the_inverse_of_half_log_snr(schedule: NoiseSchedule) -> None:
    times = np.linspace(0, 999, 1234)
    np.testing.assert_allclose(schedule.time_of(schedule.half_log_snr(times)), times, atol=1e-7)


@pytest.mark.parametrize("grid", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 20, 50, 100, 300, 999, 1000])
def test_leading_and_trailing_grids_are_those_of_diffusers(grid: str, steps: int) -> None:
    scheduler = DDIMScheduler(1000, timestep_spacing=grid, steps_offset=0)
    scheduler.set_timesteps(steps)
    assert time_grid(LINEAR, grid, steps).tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
def test_logsnr_grid_takes_equal_steps_of_log_snr_from_end_to_end(schedule: NoiseSchedule) -> None:
    times = time_grid(schedule, "logsnr", 20)
    steps = np.diff(schedule.half_log_snr(times))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
    assert times[0] == pytest.approx(999)
    assert times[-1] == pytest.approx(0, abs=1e-9)


def test_quadratic_grid_is_dense_at_the_clean_end() -> None:
    times = time_grid(LINEAR, "quadratic", 10)
    assert times[0] == 800
    assert times[-1] == 0
    assert np.diff(np.sqrt(times)) == pytest.approx(-np.sqrt(800) / 9, abs=0.15), "equal steps of the root"


def test_one_step_begins_at_noise() -> None:
    assert [time_grid(LINEAR, grid, 1).tolist() for grid in ("trailing", "logsnr")] == [[999], [pytest.approx(999)]]
    assert time_grid(LINEAR, "quadratic", 1).tolist() == [800]


@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [2, 10, 30, 100, 500, 999, 1000])
def test_every_grid_falls_within_the_training_times(schedule: NoiseSchedule, grid: str, steps: int) -> None:
    times = time_grid(schedule, grid, steps)
    assert times.shape == (steps,)
    assert (np.diff(times) < 0).all()
    assert times[0] <= 999
    assert times[-1] >= 0


@pytest.mark.parametrize("grid", GRIDS)
def test_more_steps_than_training_times_are_refused(grid: str) -> None:
    short = noise_schedule(DiffusionSettings(steps=10))
    assert len(time_grid(short, grid, 10)) == 10
    with pytest.raises(InputError, match="11 sampling steps of only 10 training times"):
        time_grid(short, grid, 11)


def test_edm_grids_have_equal_steps_of_the_seventh_root_of_sigma() -> None:
    times = time_grid(LINEAR, "edm", 12)
    assert times[[0, -1]] == pytest.approx([999, 0], abs=1e-6)
    steps = np.diff(np.exp(-LINEAR.half_log_snr(times) / 7))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


@pytest.mark.parametrize("rule", ["logsnr", "edm"])
def test_open_grids_leave_out_the_point_at_time_0(rule: str) -> None:
    np.testing.assert_allclose(time_grid(LINEAR, f"{rule}_open", 6), time_grid(LINEAR, rule, 7)[:-1], rtol=1e-12)
    assert time_grid(LINEAR, f"{rule}_open", 1) == pytest.approx([999])


def test_quadratic_open_begins_at_the_noisiest_time() -> None:
    np.testing.assert_allclose(time_grid(LINEAR, "quadratic_open", 5), 999 * (np.arange(5, 0, -1) / 5) ** 2)


@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
def test_tensors_give_the_numbers_of_arrays_and_their_slopes(schedule: NoiseSchedule) -> None:
    times = np.array([999.0, 998.25, 500.0, 123.4, 0.5, 0.0])
    given = torch.from_numpy(times).requires_grad_()
    for method in (schedule.half_log_snr, schedule.alpha, schedule.sigma):
        torch.testing.assert_close(method(given).detach(), torch.from_numpy(method(times)), rtol=1e-12, atol=0)
    lam = schedule.half_log_snr(given)
    torch.testing.assert_close(schedule.time_of(lam), given, rtol=0, atol=1e-7)
    inner = torch.tensor([998.25, 500.5, 123.4, 0.5], dtype=torch.float64, requires_grad=True)
    for method in (schedule.half_log_snr, schedule.alpha, schedule.sigma):
        assert torch.autograd.gradcheck(method, inner)
    assert torch.autograd.gradcheck(schedule.time_of, schedule.half_log_snr(inner).detach().requires_grad_())


def test_half_log_snr_has_the_golden_values() -> None:
    found = LINEAR.half_log_snr(torch.tensor([123.4, 999.0, 0.0], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.857529102061, -5.058836591651, 4.605120183488], abs=1e-11)
