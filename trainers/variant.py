"""Define what a step of a plan runs, and how people write the steps of a plan: as run lengths.

A step's variant is a width, written `1.00`, with marks:

- `d2`, depth: the step runs 2 inner steps of each block (family ode), or the first 2 blocks (dit).  Full depth has no
  mark.
- `r`, reuse: the step computes the outermost level alone and takes the deep features of the last full step (DeepCache,
  arXiv 2312.00858).
- `u`, unguided: the step is one call of the conditional network.  A guided one is two; a plan that guides some of its
  steps has a guidance interval (arXiv 2404.07724).
- `g3`, in the place of `u`: the step is guided at scale 3.  Guided steps without it are at the sampler's own scale.

Deep features are of full depth, so `d` and `r` can't be combined.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import groupby
from typing import NamedTuple

from stepfront.errors import InputError

SKIP = 0.0
"""The width of a step that is not taken."""

_NUMBER = r"\d*\.?\d+"
_GUIDANCE = rf"(?:u|g{_NUMBER})"
_MARK = rf"(d[1-9]\d*{_GUIDANCE}?|r{_GUIDANCE}?|{_GUIDANCE})?"
_RUN = re.compile(rf"([1-9]\d*)x(skip|({_NUMBER}){_MARK})")
_VARIANT = re.compile(rf"({_NUMBER}){_MARK}")


class Size(NamedTuple):
    """Which network of a supernet: its width, and its depth where that is not the full one."""

    width: float
    depth: int | None = None

    def __str__(self) -> str:
        """Return the text, such as `0.50` or `0.50d2`."""
        return str(Variant(self.width, depth=self.depth))


class Variant(NamedTuple):
    """What a step runs: a width (`SKIP` where it is not taken), its reuse of features, its guidance, and a depth.

    `depth` is None at full depth.  `scale` is the step's own scale of guidance; None where it is the sampler's.
    """

    width: float
    reuse: bool = False
    guided: bool = True
    depth: int | None = None
    scale: float | None = None

    @property
    def mark(self) -> str:
        """Return what follows the width in texts, such as `r`, `ru`, `d2u` or `g1.5`; empty for most."""
        depth = "" if self.depth is None else f"d{self.depth}"
        scale = "" if self.scale is None else f"g{_digits(self.scale)}"
        return depth + "r" * self.reuse + ("u" if not self.guided else scale)

    @property
    def size(self) -> Size:
        """Return which network the step runs."""
        return Size(self.width, self.depth)

    @property
    def full(self) -> Variant:
        """Return the variant that computes all levels."""
        return self._replace(reuse=False)

    def scale_at(self, guidance: float) -> float:
        """Return the scale of guidance of the step, on a sampler whose own is `guidance`; 1 where it is unguided."""
        if not self.guided:
            return 1.0
        return guidance if self.scale is None else self.scale

    def __str__(self) -> str:
        """Return the text, such as `0.50`, `1.00rg3` or `skip`; more than two digits where a width needs them."""
        if self.width == SKIP:
            return "skip"
        short = f"{self.width:.2f}"
        return (short if float(short) == self.width else repr(float(self.width))) + self.mark


def marked(width: float, mark: str) -> Variant:
    """Return the variant of a width and a mark (`is_mark`)."""
    others, _, scale = mark.partition("g")
    depth = others.rstrip("ru").removeprefix("d")
    own = float(scale) if scale else None
    return Variant(width, "r" in others, "u" not in others, int(depth) if depth else None, own)


def is_mark(text: str) -> bool:
    """Return whether a text may follow a width; the empty one may."""
    return re.fullmatch(_MARK, text) is not None and not _scale_problem(marked(1.0, text))


def _digits(number: float) -> str:
    """Return a number without an exponent, such as `3` or `1.5`; reading it gives the number back."""
    return format(Decimal(repr(float(number))), "f").removesuffix(".0")


def _scale_problem(variant: Variant) -> str:
    """Return why a step can't be guided at its own scale; empty where it can, or has none."""
    if variant.scale == 1:
        return f"scale 1 is the conditional prediction alone; write {variant._replace(guided=False, scale=None)}"
    if variant.scale is not None and not 0 < variant.scale < math.inf:
        return f"a step's own scale of guidance is a finite number above 0; write {variant._replace(scale=3.0)}"
    return ""


def parse_variant(text: str) -> Variant:
    """Return the variant of a text such as `0.5` or `1.0r`.  Raises InputError when it is none."""
    match = _VARIANT.fullmatch(text)
    if match is None:
        raise InputError(
            f"{text!r} is not a variant; write a width and, after it, r (reuse), u (unguided) or g3 (guided at scale "
            "3, a number above 0), ru or rg3, or d2 (depth 2, without r), d2u or d2g3, such as 1.0r"
        )
    variant = marked(float(match[1]), match[2] or "")
    if problem := _scale_problem(variant):
        raise InputError(f"{text!r} is not a variant: {problem}")
    return variant


def runs_text(steps: Iterable[float | Variant]) -> str:
    """Return widths or variants per step as run lengths, such as `12x0.50 4x1.00r 8x1.00`."""
    variants = (step if isinstance(step, Variant) else Variant(step) for step in steps)
    return " ".join(f"{len(list(run))}x{variant}" for variant, run in groupby(variants))


def parse_variants(text: str) -> tuple[Variant, ...]:
    """Return the variants per step from run lengths.  Raises InputError when the text is not run lengths."""
    variants: list[Variant] = []
    for word in text.split():
        match = _RUN.fullmatch(word)
        if match is None:
            raise InputError(
                f"{word!r} in the plan {text!r} is not a run; runs look like 12x0.50 or 3xskip, and 4x1.00r (reuse), "
                "4x1.00u (unguided) or 4x1.00ru, 4x1.00g3 (guided at scale 3) or 4x1.00rg3, and 4x1.00d2 (depth 2, "
                "without r), 4x1.00d2u or 4x1.00d2g3"
            )
        width = SKIP if match[2] == "skip" else float(match[3])
        if match[3] is not None and width == SKIP:
            raise InputError(f"{word!r} in the plan {text!r} has width 0; write 3xskip for steps that are not taken")
        variant = marked(width, match[4] or "")
        if problem := _scale_problem(variant):
            raise InputError(f"{word!r} in the plan {text!r} is not a run: {problem}")
        variants += [variant] * int(match[1])
    return tuple(variants)


def has_marks(text: str) -> bool:
    """Return whether a step of a plan's run lengths has a mark.  Raises InputError when the text is not run lengths."""
    return any(variant.mark for variant in parse_variants(text))


def parse_runs(text: str) -> tuple[float, ...]:
    """Return the widths per step from run lengths.  Raises InputError for a text with marks, or without run lengths."""
    if has_marks(text):
        raise InputError(f"the plan {text!r} has marks, r, u, g or d; give widths alone, such as 12x0.50")
    return tuple(variant.width for variant in parse_variants(text))


def depth_problem(variant: Variant, depths: Sequence[int]) -> str:
    """Return why a supernet of these depths, the full one last, can't run a variant; empty where it can."""
    if variant.depth is None or variant.depth in depths[:-1]:
        return ""
    if depths and variant.depth == depths[-1]:
        return f"{variant.depth} is the full depth, which has no mark; write {variant._replace(depth=None)}"
    trained = ", ".join(f"d{depth}" for depth in depths[:-1])
    possible = f"{trained}, and full depth without a mark" if trained else "full depth alone (network.depths)"
    return f"depth {variant.depth} was not trained; possible: {possible}"


def reuse_problem(variants: Sequence[Variant]) -> str:
    """Return why a plan can't reuse features where its variants say so, in words; empty where it can.

    A step that reuses needs a full step of the same width before it, without a full step of another width between.
    That step must have full depth.  A guided one needs the features of both calls, so that step must have been guided.
    """
    last: Variant | None = None
    for number, variant in enumerate(variants, start=1):
        if variant.width == SKIP:
            continue
        if not variant.reuse:
            last = variant
        elif last is None or not _has_features_for(last, variant):
            before = "no full step is before it" if last is None else f"the last full step is {last}"
            return f"step {number} ({variant}) has no features to reuse: {before}; possible there: {variant.full}"
    return ""


def repaired(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """Return the variants with each step that has no features to reuse made full (`reuse_problem` has the rule)."""
    found: list[Variant] = []
    last: Variant | None = None
    for variant in variants:
        if variant.reuse and (last is None or not _has_features_for(last, variant)):
            variant = variant.full
        if variant.width != SKIP and not variant.reuse:
            last = variant
        found.append(variant)
    return tuple(found)


def _has_features_for(last: Variant, variant: Variant) -> bool:
    """Return whether the features of a full step serve a later one that reuses some."""
    return last.size == variant.size and (last.guided or not variant.guided)
