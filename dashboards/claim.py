"""Write the claim of a search in sentences: report, terminal, MLflow and registered models all have this one.

The claim is `savings` in search.json (search/claims/claim.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from stepfront.dashboards.formatting import decimal, interval, percent, plural, short_plan
from stepfront.tables.search_tables import number

PLAN_LENGTH = 120

CONFIRM_AGAIN = (
    "This search was confirmed by the rule of 0.1 (not shown to be worse), which is not a claim of equal quality; "
    "`stepfront confirm` makes one with a margin."
)


def has_claim(savings: Mapping[str, Any]) -> bool:
    """Return whether `savings` is a claim, whether it holds or not; those of 0.1 are not."""
    return isinstance(savings.get("holds"), bool)


def flops_saved(savings: Mapping[str, Any]) -> float | None:
    """Return the share of full width's FLOPs that a claim that holds saves; None without such a claim."""
    return number(savings.get("flops_saved")) if savings.get("holds") is True else None


def flops_saved_by_widths(savings: Mapping[str, Any]) -> float | None:
    """Return the share that a claim that holds saves of the cheapest full-width sampler of equal quality, or None."""
    return number(savings.get("flops_saved_against_best_full_width")) if savings.get("holds") is True else None


def claim_sentence(savings: Mapping[str, Any]) -> str:
    """Return what is saved at equal quality, or why nothing is claimed; "" where the search was never confirmed."""
    if not savings:
        return ""
    if not has_claim(savings):
        return CONFIRM_AGAIN
    if savings["holds"]:
        return _what_holds(savings)
    return _why_none_holds(savings)


def claim_sentences(savings: Mapping[str, Any], front: pd.DataFrame, where: str) -> list[str]:
    """Return all that is said of a confirmed search `where`: its claim, disagreement, and points that came later."""
    if not savings:
        return []
    said = (
        claim_sentence(savings),
        reach_sentence(savings),
        disagreement_sentence(savings),
        unconfirmed_sentence(front, where),
    )
    return [sentence for sentence in said if sentence]


def reach_sentence(savings: Mapping[str, Any]) -> str:
    """Return that the reference has a number of steps that no plan of the search has; "" where some plan has it."""
    missed = savings.get("out_of_reach")
    if not missed:
        return ""
    fewer = f" --set space.stages={missed['stages']}" if "stages" in missed else ""
    judge = f" on {missed['features']}" if missed.get("features") else ""
    named = missed if "plan" in missed else savings["reference"]  # older claims ask the first judge alone
    return (
        f"No plan of this search takes {missed['steps']} steps, as the best full-width sampler{judge}, "
        f"{sampler_text(named)}, does. A search with --set sampler.steps={missed['steps']}{fewer} has "
        "such plans."
    )


def claim_tile(savings: Mapping[str, Any]) -> tuple[str, str]:
    """Return a claim as a number and what it is, for a tile."""
    saved, margin = flops_saved(savings), percent(number(savings["margin"]))
    if saved is None:
        return "none", f"saving shown at equal quality (margin {margin})"
    latency = number(savings.get("latency_saved"))
    beside = "" if latency is None else f" and {_share(latency, 'latency')}"
    best, against = savings.get("best_full_width"), number(savings.get("flops_saved_against_best_full_width"))
    fewer = (
        "" if not best or against is None else f"; {_share(against, 'FLOPs')} than {best['plan']}, full width's best"
    )
    return percent(saved), f"fewer FLOPs{beside} at equal quality (margin {margin}, {_judges_word(savings)}){fewer}"


def unconfirmed_sentence(front: pd.DataFrame, where: str) -> str:
    """Return how many front points have no confirmed score, and what to do; "" where all or none are confirmed."""
    confirmed = front["fid_confirmed"].notna() if "fid_confirmed" in front else pd.Series(False, index=front.index)
    if confirmed.all() or not confirmed.any():
        return ""
    return (
        f"{int((~confirmed).sum())} of {plural(len(front), 'front point')} came after the confirmation or failed in "
        f"it, and the claim does not know them: `stepfront confirm {where}` scores them and makes a new claim."
    )


def disagreement_sentence(savings: Mapping[str, Any]) -> str:
    """Return on how many pairs of front points the judges disagree, with the clearest; "" where they agree."""
    found = savings.get("disagreements") or {}
    examples = found.get("examples") or []
    if not examples:
        return ""
    first, second = found["judges"]
    a, b = (short_plan(str(examples[0][key]), PLAN_LENGTH) for key in ("better_on_first", "better_on_second"))
    count = int(found["pairs"])
    return (
        f"The judges disagree on the order of {plural(count, 'pair')} of front points beyond their intervals"
        f"{': ' if count == 1 else ', for example '}{a} is better than {b} on {first}, and worse on {second}."
    )


def _what_holds(claim: Mapping[str, Any]) -> str:
    equal = claim.get("best_full_width")
    best, against = sampler_text(equal) if equal else "", number(claim.get("flops_saved_against_best_full_width"))
    latency = number(claim.get("latency_saved"))
    saved = _share(claim["flops_saved"], "FLOPs") + ("" if latency is None else f" and {_share(latency, 'latency')}")
    margin, full = percent(claim["margin"]), sampler_text(claim["full"])
    evidence = f"{_differences(claim)}; {_effort(claim)}."
    if _plan(claim) == best:
        return (
            f"Steps are saved, widths are not: at a margin of {margin}, full width in fewer steps, {best}, is as good "
            f"as the best other full-width sampler, {_reference_words(claim)}. It needs {saved} than {full}. No "
            f"narrower plan is shown to be as good. {evidence}"
        )
    other = "" if best else " No full-width sampler is shown to be as good on all judges."
    if best and against is not None:
        other = f" It needs {_share(against, 'FLOPs')} than {best}, the cheapest full-width sampler of equal quality."
    return (
        f"At a margin of {margin}, the plan {_plan(claim)} is as good as the best full-width sampler, "
        f"{_reference_words(claim)}, on {_judges_word(claim)}. It needs {saved} than full width at every step, "
        f"{full}.{other} {evidence}"
    )


def _why_none_holds(claim: Mapping[str, Any]) -> str:
    margin = percent(claim["margin"])
    if lacking := claim.get("lacking"):
        return (
            f"No saving at equal quality is claimed (margin {margin}): not all full-width samplers could be scored, "
            f"and one that could not may be the best ({lacking}). `stepfront confirm` tries again."
        )
    if claim.get("plan") is None:
        return (
            f"No saving at equal quality is claimed (margin {margin}): no confirmed point of the front is cheaper than "
            "full width at every step."
        )
    if (claim.get("blurred_reference") or {}).get("passes"):
        return _no_judge_sees_blur(claim)
    dearest = "dearest plan below full width" if claim.get("correction") else "nearest plan"
    text = (
        f"No saving at equal quality is claimed: at a margin of {margin}, the {dearest}, {_plan(claim)}, is not shown "
        f"to be as good as the best full-width sampler, {_reference_words(claim)}. "
    )
    evidence = f"{_differences(claim)}; {_effort(claim)}."
    if len(claim["judges"]) < 2:
        return f"{text}A second judge has not scored it yet, which `stepfront confirm` does. {evidence}"
    if claim.get("more_may_help"):
        return (
            f"{text}More seeds or images would help, as the differences are below the margin and only uncertain. "
            f"{evidence}"
        )
    return f"{text}More seeds or images would not help, as a difference itself exceeds the margin. {evidence}"


def _no_judge_sees_blur(claim: Mapping[str, Any]) -> str:
    """Return that nothing is claimed, since the reference's own images pass the test after a blur."""
    differences = _differences({**claim, "judges": claim["blurred_reference"]["judges"]})
    return (
        "No saving at equal quality is claimed, because the judges do not see a blur: the images of the best "
        f"full-width sampler, {_reference_words(claim)}, pass as equal to themselves when they are blurred. So they "
        f"are still poor: look at them, and train the supernet longer. {differences}; {_effort(claim)}."
    )


def sampler_text(plan: Mapping[str, Any]) -> str:
    """Return a full-width plan with its sampler: 8x1.00 (dpmpp_2m, logsnr grid)."""
    return f"{plan['plan']} ({plan['sampler']})" if plan.get("sampler") else str(plan["plan"])


def _references(claim: Mapping[str, Any]) -> list[str]:
    """Return the best full-width samplers of the judges, each once; earlier claims had one for all judges."""
    judges = [judge for judge in claim["judges"] if judge.get("reference_plan")]
    own = [
        sampler_text({"plan": judge["reference_plan"], "sampler": judge.get("reference_sampler")}) for judge in judges
    ]
    return list(dict.fromkeys(own)) or [sampler_text(claim["reference"])]


def _reference_words(claim: Mapping[str, Any]) -> str:
    """Return 20x1.00, or 10x1.00 on degradations and 20x1.00 on random, where the judges disagree."""
    found = _references(claim)
    if len(found) == 1:
        return found[0]
    return " and ".join(f"{each} on {judge['features']}" for each, judge in zip(found, claim["judges"], strict=True))


def _plan(claim: Mapping[str, Any]) -> str:
    plan = short_plan(str(claim["plan"]), PLAN_LENGTH)
    return f"{plan} ({claim['sampler']})" if claim.get("sampler") else plan


def _share(saved: float, what: str) -> str:
    """Return 62% fewer FLOPs, 62% less latency, or 8% more of either."""
    less = "less" if what == "latency" else "fewer"
    return f"{percent(abs(saved))} {less if saved >= 0 else 'more'} {what}"


def _judges_word(claim: Mapping[str, Any]) -> str:
    count = len(claim["judges"])
    return "both judges" if count == 2 else f"all {count} judges"


def _differences(claim: Mapping[str, Any]) -> str:
    limit = float(claim["margin"])
    return "; ".join(
        f"FID ({judge['features']}) {decimal(judge['score'])} against {decimal(judge['reference'])}, difference "
        f"{decimal(judge['difference'], 3)} {interval(judge['interval'][0], judge['interval'][1], 3)}".rstrip()
        + f", limit {decimal(limit * judge['reference'], 3)}"
        for judge in claim["judges"]
    )


def _effort(claim: Mapping[str, Any]) -> str:
    level = number(claim.get("level")) or 0.95
    # Claims made before there was a correction for the number of points have none.
    tested = (claim.get("correction") or {}).get("tested")
    points = "" if not tested else f", {plural(int(tested), 'point')} tested from the dearest down"
    return (
        f"{plural(int(claim['seeds']), 'held-out noise seed')} of {plural(int(claim['images']), 'image')}, intervals "
        f"at {100 * level:.3g}%{points}"
    )
