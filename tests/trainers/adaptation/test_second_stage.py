"""Second stages: times divided into groups, channels sorted for them, and one supernet of what the groups learnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stepfront.errors import InputError
from stepfront.trainers.adaptation.divide_times import divide_times
from stepfront.trainers.adaptation.merge import find_factors, merged
from stepfront.trainers.adaptation.second_stage import SecondStage, check_base
from stepfront.trainers.adaptation.sort_channels import sort_for_times
from stepfront.trainers.config import DataSettings, DiffusionSettings, TrainerSettings
from stepfront.trainers.data import ImageData
from stepfront.trainers.network_settings import PROMPTED, NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import WEIGHTS_FILE, load_supernet
from stepfront.trainers.noise_schedule import noise_schedule
from stepfront.trainers.training.trainer import TrainingReport, train_supernet
from stepfront.trainers.training_settings import AdaptSettings, GroupSettings, TrainingSettings
from stepfront.trainers.validation import validate

SCHEDULE = noise_schedule(DiffusionSettings())


def settings(**training: Any) -> TrainerSettings:
    defaults = {"steps": 6, "batch": 4, "checkpoint_every": 3, "held_out_images": 8, "samples_every": 0, "warmup": 2}
    return TrainerSettings(
        data=DataSettings(flip=False),
        network=NetworkSettings(base=8, multipliers=(1, 2), groups=4, group_channels=2, widths=(0.5, 1.0)),
        training=TrainingSettings(**(defaults | training)),
    )


def adapt(**changes: Any) -> AdaptSettings:
    return validate(AdaptSettings, {"groups": {"count": 2}, "steps": 4, "warmup": 1, "sort_batches": 2} | changes)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, digits: ImageData) -> Path:
    directory = tmp_path_factory.mktemp("base")
    train_supernet(settings(), digits, directory)
    return directory


def finished(stage: SecondStage[TrainerSettings], out: Path) -> Supernet:
    for training in stage.trainings():
        train_supernet(training.settings, stage.data, training.directory)
    stage.finish(out)
    return load_supernet(out)[0]


def test_groups_by_snr_have_equal_ranges_of_decibels() -> None:
    groups = divide_times(GroupSettings(count=4), SCHEDULE)
    decibels = 20 * np.log10(np.exp(SCHEDULE.half_log_snr(np.arange(1000.0))))
    cuts = np.interp(np.linspace(decibels[0], decibels[-1], 5)[1:-1], -np.sort(-decibels)[::-1], np.arange(1000)[::-1])
    assert list(groups.first) == [0, *np.ceil(cuts)]
    assert groups.times(1000)[-1] == (groups.first[-1], 999)


def test_groups_by_loss_and_by_times_have_equal_sums() -> None:
    losses = np.linspace(1.0, 0.1, 1000)
    by_loss = divide_times(GroupSettings(count=3, by="loss"), SCHEDULE, losses)
    sums = [losses[a : b + 1].sum() for a, b in by_loss.times(1000)]
    assert max(sums) - min(sums) <= 2 * losses.max()
    assert divide_times(GroupSettings(count=4, by="times"), SCHEDULE).first == (0, 250, 500, 750)


@pytest.mark.parametrize(
    ("groups", "line"),
    [
        (GroupSettings(count=1001, by="times"), "1001 groups of 1000 training times; give at most 1000"),
        (GroupSettings(count=500), "group 2 of 500 by snr has no training time; give fewer groups, or"),
    ],
)
def test_impossible_groups_are_refused_in_one_line(groups: GroupSettings, line: str) -> None:
    with pytest.raises(InputError, match=line):
        divide_times(groups, SCHEDULE)


def test_sorting_keeps_the_function_of_full_width(digits: ImageData, random_supernet: Callable[..., Supernet]) -> None:
    given = settings(times=(0, 99))
    supernet = random_supernet(given.network)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 50, 900])
    with torch.no_grad():
        before = [supernet(x, t, width) for width in (0.5, 1.0)]
        sort_for_times(supernet, given, digits, 2)
        after = [supernet(x, t, width) for width in (0.5, 1.0)]
    torch.testing.assert_close(after[1], before[1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(after[0], before[0], atol=1e-2)


def test_channels_without_a_say_in_the_times_go_last(
    digits: ImageData, random_supernet: Callable[..., Supernet]
) -> None:
    supernet = random_supernet(settings().network)
    # Both channels of one group of the norm, so that they change nothing in the others' norms.
    dead, block = [0, 1], supernet.widest.down[0]  # type: ignore[index, union-attr]
    with torch.no_grad():
        block.conv2.weight[:, dead] = 0  # type: ignore[index, union-attr]
        block.conv1.bias[dead] = 7.0  # type: ignore[index, union-attr]
    sort_for_times(supernet, settings(), digits, 1)
    assert (block.conv1.bias[-2:] == 7.0).all()  # type: ignore[index, union-attr]


def test_each_group_runs_its_own_weights_and_only_there(base: Path, digits: ImageData, tmp_path: Path) -> None:
    stage = SecondStage.checked(settings(), adapt(), digits, base, tmp_path / "groups").begin()
    whole = finished(stage, tmp_path / "out")
    (first, second), x = stage.groups.times(1000), torch.randn(4, 1, 8, 8)
    assert first[1] + 1 == second[0]
    alone = [load_supernet(training.directory)[0] for training in stage.trainings()]
    t = torch.tensor([first[0], first[1], second[0], second[1]])
    for width in (0.5, 1.0):
        with torch.no_grad():
            expected = torch.cat([alone[0](x[:2], t[:2], width), alone[1](x[2:], t[2:], width)])
            torch.testing.assert_close(whole(x, t, width), expected)
            torch.testing.assert_close(whole.subnet(width)(x, t), expected)


def test_a_killed_second_stage_ends_with_the_same_weights(base: Path, digits: ImageData, tmp_path: Path) -> None:
    given, killed = settings(checkpoint_every=2), tmp_path / "killed"
    stage = SecondStage.checked(given, adapt(sort="groups"), digits, base, killed).begin()

    def kill(report: TrainingReport) -> None:
        if report.step == 3:
            raise KeyboardInterrupt

    training = stage.trainings()[0]
    with pytest.raises(KeyboardInterrupt):
        train_supernet(training.settings, digits, training.directory, kill)
    again = finished(SecondStage.checked(given, adapt(sort="groups"), digits, base, killed).begin(), tmp_path / "out")
    other = finished(
        SecondStage.checked(given, adapt(sort="groups"), digits, base, tmp_path / "once").begin(), tmp_path / "other"
    )
    for name, weights in again.widest.state_dict().items():
        assert torch.equal(weights, other.widest.state_dict()[name]), name


def test_merging_finds_the_best_factors_and_none_is_the_base(base: Path, digits: ImageData, tmp_path: Path) -> None:
    factors, loss = find_factors(lambda w: (w[0] - 0.75) ** 2 + (w[1] - 0.125) ** 2 + 1, 2)
    assert factors == (0.75, 0.125)
    assert loss == 1
    stage = SecondStage.checked(settings(), adapt(merge=True), digits, base, tmp_path / "groups").begin()
    supernet = finished(stage, tmp_path / "out")
    before = load_supernet(base)[0]
    assert supernet.groups is None
    ratios = [stage.losses(supernet)[w] / stage.losses(before)[w] for w in supernet.widths]
    assert np.mean(ratios) <= 1
    weights = dict(before.widest.state_dict())
    for name, value in merged(weights, [weights, weights], (0.0, 0.5)).items():
        assert torch.equal(value, weights[name])


def test_files_in_bfloat16_are_half_as_large_and_have_the_card_s_digest(
    base: Path, digits: ImageData, tmp_path: Path
) -> None:
    stage = SecondStage.checked(settings(), adapt(), digits, base, tmp_path / "groups").begin()
    finished(stage, tmp_path / "full")
    half = SecondStage.checked(settings(), adapt(weights="bfloat16"), digits, base, tmp_path / "groups").begin()
    supernet = finished(half, tmp_path / "half")
    assert {v.dtype for v in load_file(tmp_path / "half" / WEIGHTS_FILE).values()} == {torch.bfloat16}
    assert {v.dtype for v in supernet.widest.state_dict().values()} == {torch.float32}


def test_other_stages_are_refused_in_one_line(base: Path, digits: ImageData, tmp_path: Path) -> None:
    stage = SecondStage.checked(settings(), adapt(), digits, base, tmp_path / "groups").begin()
    finished(stage, tmp_path / "grouped")
    train_supernet(settings(seed=1), digits, tmp_path / "other")
    wide = settings().model_copy(update={"network": NetworkSettings(base=16)})
    cases = [
        (settings(), adapt(), tmp_path / "other", "was begun from another supernet"),
        (settings(), adapt(lr=1e-3), base, "was begun with adapt.lr 0.0001, not 0.001; start over with --fresh"),
        (settings(seed=1), adapt(), base, "was begun with training.seed 0, not 1; start over with --fresh"),
        (settings(), adapt(), tmp_path / "grouped", "has 2 groups of times with weights of their own"),
        (wide, adapt(), base, "has other network or diffusion settings than these"),
    ]
    for given, changed, supernet, line in cases:
        with pytest.raises(InputError, match=line):
            SecondStage.checked(given, changed, digits, supernet, tmp_path / "groups").begin()
    card = load_supernet(base)[1]
    prompted = card.model_copy(update={"network": card.network.model_copy(update={"family": PROMPTED})})
    with pytest.raises(InputError, match="a network of family unet2d_condition is searched as it is, not trained"):
        check_base(prompted, settings(), base)
    with pytest.raises(InputError, match=r"training.start: .* has 2 groups of times"):
        train_supernet(settings(start=str(tmp_path / "grouped")), digits, tmp_path / "started")
    with pytest.raises(InputError, match=r"set adapt.sort to shared or none"):
        adapt(merge=True, sort="groups")
