"""Two judges that put front points in opposite orders."""

from __future__ import annotations

import warnings

import pandas as pd

from stepfront.search.claims.disagreement import find_disagreements
from tests.search.claims.scores import scored


def test_opposite_orders_beyond_both_intervals_are_found() -> None:
    table = pd.concat([scored("front", "few FLOPs", 2.0, 3.5), scored("front", "quick", 2.5, 3.0)])
    found = find_disagreements(table)
    assert found["pairs"] == 1
    (example,) = found["examples"]
    assert (example["better_on_first"], example["better_on_second"]) == ("few FLOPs", "quick")
    assert example["trials"] == [1, 2]
    assert example["differences"][0] < 0 < example["differences"][1]


def test_orders_within_the_intervals_and_equal_orders_are_not() -> None:
    noisy = pd.concat([scored("front", "few FLOPs", 2.0, 3.01, noise=0.5), scored("front", "quick", 2.01, 3.0)])
    assert find_disagreements(noisy)["pairs"] == 0
    same = pd.concat([scored("front", "few FLOPs", 2.0, 3.0), scored("front", "quick", 2.5, 3.5)])
    assert find_disagreements(same)["pairs"] == 0


def test_differences_without_noise_are_the_clearest() -> None:
    table = pd.concat([scored("front", "few FLOPs", 2.0, 3.5), scored("front", "quick", 2.5, 3.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact = table.assign(fid=[2.0] * 5 + [2.5] * 5, second_fid=[3.5] * 5 + [3.0] * 5)
        assert find_disagreements(exact)["pairs"] == 1


def test_one_judge_agrees_with_itself() -> None:
    table = pd.concat([scored("front", "few FLOPs", 2.0, 3.5), scored("front", "quick", 2.5, 3.0)])
    assert find_disagreements(table.drop(columns=["second_fid", "second_features"]))["pairs"] == 0
