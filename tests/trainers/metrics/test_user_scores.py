"""Scores of a user's own: what they get, and one line where they can't be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stepfront.errors import InputError
from stepfront.trainers.metrics.user_scores import UserScore, check_scores_on, compute_scores

CODE = """
import itertools
counter = itertools.count()
def mean(images): return images.double().mean()
def share(images, labels=None, noise_seed=0): return 0.5 + noise_seed + (0 if labels is None else labels.sum())
def raises(images): raise ValueError("no\\nsuch target")
def infinite(images): return float("inf")
def several(images): return images.float().mean(dim=(1, 2, 3))
def needs_more(images, targets): return 1.0
def nothing(): return 1.0
def writes(images): return float(images.fill_(7)[0, 0, 0, 0])
def restless(images): return float(next(counter))
"""
IMAGES = np.arange(4 * 64, dtype=np.uint8).reshape(4, 1, 8, 8)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scores_of_a_user.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)


def computed(name: str, images: Tensor, **context: object) -> tuple[dict[str, float], str]:
    score = UserScore(name, f"scores_of_a_user:{name}")
    given = {"labels": None, "noise_seed": 0} | context
    return compute_scores({name: score.load()}, images, **given)  # type: ignore[arg-type]


@pytest.mark.usefixtures("module")
def test_a_score_gets_the_images_and_what_it_names() -> None:
    images = torch.from_numpy(IMAGES)
    assert computed("mean", images) == ({"mean": IMAGES.mean()}, "")
    assert computed("share", images, noise_seed=3, labels=np.array([1, 2])) == ({"share": 6.5}, "")


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", r"the score 'raises' failed \(ValueError: no"),
        ("infinite", "the score 'infinite' is inf, which is not finite on 6 real images"),
        ("several", r"the score 'several' failed \((RuntimeError|ValueError): "),
        ("needs_more", "the score 'needs_more' .* needs targets; a score takes images, and of labels, noise_seed"),
        ("nothing", "the score 'nothing' .* takes no images"),
        ("writes", "the score 'writes' writes to the images"),
        ("restless", "the score 'restless' gives two values for the same images"),
        ("missing", "can't import the score 'scores_of_a_user:missing'"),
    ],
)
def test_a_score_that_cannot_be_used_is_refused_in_one_line(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        check_scores_on([UserScore(name, f"scores_of_a_user:{name}")], IMAGES, 6, None)
    assert "\n" not in str(caught.value)
