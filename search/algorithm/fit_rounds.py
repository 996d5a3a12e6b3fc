"""Keep with the study which points a running search has fitted samplers to, and what learning them took."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

_ATTRIBUTE = "fit_rounds"


@dataclass(frozen=True)
class FitRound:
    """A pause of the search in which samplers are fitted to points of its front.

    `at` is the number of searched trials before it, `points` are the trials to fit, and `tflops` the network FLOPs of
    learning in 1e12; None while the round is under way.  `lost` are the trials whose fit failed for a reason that may
    pass; those that a later round may fit again are no `points`.
    """

    at: int
    points: tuple[int, ...]
    tflops: float | None = None
    lost: tuple[int, ...] = ()


def read_rounds(attributes: Mapping[str, Any]) -> list[FitRound]:
    """Return the rounds in a study's attributes, in their order."""
    return _rounds_of(attributes.get(_ATTRIBUTE) or [])


def _rounds_of(content: Sequence[Mapping[str, Any]]) -> list[FitRound]:
    return [FitRound(one["at"], tuple(one["points"]), one["tflops"], tuple(one.get("lost") or ())) for one in content]


def learning_tflops(attributes: Mapping[str, Any]) -> float:
    """Return the network FLOPs of learning in all rounds that have ended, in 1e12."""
    return sum(one.tflops or 0.0 for one in read_rounds(attributes))


class StudyAttributes(Protocol):
    """A store of a study's attributes."""

    def study_attribute(self, key: str) -> Any:
        """Return an attribute of the study; None where it has no such attribute."""

    def set_study_attribute(self, key: str, value: Any) -> None:
        """Store an attribute of the study."""


class FitRounds:
    """The rounds of a search, in their order; every change is stored at once, so that an interrupted one continues."""

    def __init__(self, store: StudyAttributes) -> None:
        self._store = store
        self.rounds = read_rounds({_ATTRIBUTE: store.study_attribute(_ATTRIBUTE)})

    @property
    def under_way(self) -> FitRound | None:
        """The round that was begun and has not ended; None where there is none."""
        return self.rounds[-1] if self.rounds and self.rounds[-1].tflops is None else None

    @property
    def points(self) -> set[int]:
        """The trials that a round has fitted or is fitting."""
        return {number for one in self.rounds for number in one.points}

    @property
    def tflops(self) -> float:
        """The network FLOPs of learning in all rounds that have ended, in 1e12."""
        return sum(one.tflops or 0.0 for one in self.rounds)

    def tries(self, number: int) -> int:
        """Return in how many rounds the fit of a trial failed for a reason that may pass."""
        return sum(number in one.lost for one in self.rounds)

    def next_at(self, period: int) -> int:
        """Return the number of searched trials at which the next round is due, a multiple of `period`."""
        if (now := self.under_way) is not None:
            return now.at
        return ((self.rounds[-1].at if self.rounds else 0) // period + 1) * period

    def begin(self, at: int, points: Sequence[int]) -> None:
        """Store the points of a round before the first of them is fitted."""
        self.rounds.append(FitRound(at, tuple(points)))
        self._save()

    def end(self, tflops: float, lost: Collection[int] = (), most_tries: int = 1) -> list[int]:
        """Store what learning took: the round under way has ended.

        `lost` are its points whose fit failed for a reason that may pass.  Returns those that have failed so
        `most_tries` times, and that no later round fits.
        """
        now = self.rounds[-1]
        self.rounds[-1] = replace(now, tflops=tflops, lost=tuple(sorted(lost)))
        given_up = [number for number in sorted(lost) if self.tries(number) >= most_tries]
        kept = tuple(number for number in now.points if number not in lost or number in given_up)
        self.rounds[-1] = replace(self.rounds[-1], points=kept)
        self._save()
        return given_up

    def restore(self, content: Sequence[Mapping[str, Any]]) -> None:
        """Store rounds, given as `content`, with a study that is rebuilt."""
        self.rounds = _rounds_of(content)
        self._save()

    @property
    def content(self) -> list[dict[str, Any]]:
        """The rounds as JSON values."""
        return [asdict(one) | {"points": list(one.points), "lost": list(one.lost)} for one in self.rounds]

    def _save(self) -> None:
        self._store.set_study_attribute(_ATTRIBUTE, self.content)
