"""Define the settings of scores beside FID: KID, and a user's own, such as a classifier's accuracy."""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stepfront.plugins import SCORES
from stepfront.tables.schema import RESERVED_NAMES, confirmed_columns
from stepfront.trainers.validation import Settings

MOST_OBJECTIVES = 5
"""Objectives at most: with more, nearly every plan is on the front, and hypervolumes take minutes."""


KID = "kid"
"""The function that is ours: the kernel distance of the features that FID is computed on."""


def _known_function(name: str) -> str:
    return name if name == KID else SCORES.check(name)


class ScoreSettings(Settings):
    """A score beside FID, computed on the images that FID is computed on: KID, or a function of your own."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,39}$",
        description="name of the score, and of its column in tables, report and MLflow",
    )
    function: Annotated[str, AfterValidator(_known_function)] = Field(
        description="kid (unbiased, also where images are fewer than features), or the import path of a function from "
        "images to a number (docs/plugins.md)"
    )
    goal: Literal["lower", "higher"] = Field("lower", description="whether lower or higher values are better")
    use: Literal["objective", "confirm"] = Field(
        "objective",
        description="objective: every trial is scored, and the front has the score as a further objective; confirm: "
        "only the points of the front are scored, on held-out noise seeds",
    )

    @model_validator(mode="after")
    def _lower_kid_is_better(self) -> Self:
        if self.function == KID and self.goal != "lower":
            raise ValueError(f"a lower KID is better; give {self.name!r} the goal lower")
        return self


def check_scores(scores: Sequence[ScoreSettings], objectives: Sequence[str]) -> None:
    """Raise ValueError for names that are taken or given twice, and for more objectives than a front can have."""
    names = [score.name for score in scores]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"scores: the name {name!r} is given {names.count(name)} times; give each its own")
        if keyword.iskeyword(name):
            raise ValueError(f"scores: the name {name!r} is a keyword of Python; give another name")
        others = {column: other for other in names if other != name for column in confirmed_columns(other)}
        for column in (name, *confirmed_columns(name)):
            if column in RESERVED_NAMES:
                raise ValueError(
                    f"scores: {name!r} needs the column {column!r}, which the tables have; rename the score"
                )
            if column in others:
                raise ValueError(f"scores: {name!r} and {others[column]!r} both need {column!r}; rename one of them")
    together = [*objectives, *(score.name for score in scores if score.use == "objective")]
    if len(together) > MOST_OBJECTIVES:
        raise ValueError(
            f"{len(together)} objectives ({', '.join(together)}); at most {MOST_OBJECTIVES} are possible: give some "
            "scores use: confirm"
        )
