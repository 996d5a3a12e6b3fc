"""Define the verbs on the quality of a front: confirm, claim and baselines."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepfront.errors import InputError
from stepfront.search.cli.steps import confirm_step, publish_step
from stepfront.search.cli.terminal import AsJson, Output, Search, json_rows

if TYPE_CHECKING:
    from stepfront.search.fitting.plans import Fit
    from stepfront.search.fitting.weights import SamplerFit, WeightFit
    from stepfront.search.records.learnt_samplers import SamplerRecord


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command(epilog="Example: stepfront confirm runs/digits --images 2048 --seeds 5")(confirm)
    app.command(epilog="Example: stepfront fit runs/digits --point knee; or with --weights 300")(fit)
    app.command(epilog="Example: stepfront claim runs/digits --json")(claim)
    app.command(epilog="Example: stepfront baselines runs/digits --methods uniform,one_cut,monotone --evaluations 60")(
        baselines
    )


def confirm(
    search: Search,
    images: Annotated[int | None, typer.Option(min=16, help="images per score (default: confirm.images)")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=2, help="number of held-out noise seeds (default: confirm.seeds)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score the front again on held-out noise seeds."""
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.storage.run_location import open_for_writing
    from stepfront.tables.search_tables import read_snapshot

    output = Output(as_json)
    with open_for_writing(search) as location:
        directory, settings = find_search(location.local)
        confirm_step(location.local, images, seeds, output)
        publish_step(settings, output)
        snapshot = read_snapshot(directory)
    if as_json:
        savings, front = snapshot.facts.get("savings"), json_rows(snapshot.front)
        output.json({"directory": str(directory), "savings": savings, "front": front})


def fit(
    search: Search,
    point: Annotated[
        str,
        typer.Option(
            help="front point: knee, best, cheapest, a trial's number, a query such as 'fid<=12' or "
            "'gflops<=1.5', or front for all"
        ),
    ] = "knee",
    weights: Annotated[
        int | None,
        typer.Option(min=1, metavar="STEPS", help="fit the weights to the plan instead, by this many training steps"),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="PLAN",
            help="with --weights: fit those of a full-width sampler, best or a plan such as 11x1.00, not of a point",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a sampler, or the weights, to the plan of a front point.

    Learns times and coefficients, and compares them with solvers and grids made by hand.  The best becomes a new trial
    of the same cost where it is better than the point's own sampler.  Weights are trained at the plan's own times, with
    full width as teacher; they become a new trial in any case.  With --baseline they are those of a full-width sampler,
    which the next confirmation scores beside the front: the same help for both.
    """
    from stepfront.search.driver.fit import fit_point_weights, fit_points, fit_sampler_weights
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.storage.run_location import open_for_writing

    if baseline is not None and weights is None:
        raise InputError("--baseline fits weights to a full-width sampler: give --weights STEPS, too")
    output = Output(as_json)
    with open_for_writing(search) as location:
        directory, settings = find_search(location.local)
        command = f"stepfront fit {search} --point {point}"
        if baseline is not None and weights is not None:
            beside = fit_sampler_weights(location.local, baseline, weights, output.stage(settings.name))
            output.message(f"\n{_sampler_line(beside)}")
            if as_json:
                output.json({"directory": str(directory), "weights": _weights_json(beside)})
            return
        if weights is not None:
            stage = output.stage(settings.name)
            made = fit_point_weights(location.local, point, weights, stage, f"{command} --weights {weights}")
            publish_step(settings, output)
            output.message(f"\n{_weights_line(made)}")
            if as_json:
                output.json({"directory": str(directory), "weights": _weights_json(made)})
            return
        fits = fit_points(location.local, point, output.stage(settings.name), command)
        publish_step(settings, output)
    output.message()
    for one in fits:
        output.message(_fit_line(one))
    if as_json:
        output.json({"directory": str(directory), "fits": [_fit_json(one) for one in fits]})


def _weights_line(fit: WeightFit) -> str:
    """Return what fitting weights brought and took, in one line."""
    new = f"FID {fit.new_fid:.3g}" if math.isfinite(fit.new_fid) else "which failed"
    return (
        f"trial {fit.trial}, FID {fit.fid:.3g}: trial {fit.new_trial}, {new}, runs on {fit.digest} (held-out loss of "
        f"the plan's calls {fit.loss_before:.4f} -> {fit.loss_after:.4f}; training took {fit.tflops:.3g} TFLOPs and "
        f"{fit.seconds:.0f} s)"
    )


def _sampler_line(fit: SamplerFit) -> str:
    """Return what fitting the weights of a full-width sampler brought and took, in one line."""
    name = f"{fit.plan} ({fit.sampler})" if fit.sampler else fit.plan
    return (
        f"{name}, FID {fit.fid:.3g}: FID {fit.new_fid:.3g} on {fit.digest} (held-out loss of the plan's calls "
        f"{fit.loss_before:.4f} -> {fit.loss_after:.4f}; training took {fit.tflops:.3g} TFLOPs and "
        f"{fit.seconds:.0f} s); `stepfront confirm` scores it beside the front"
    )


def _weights_json(fit: WeightFit | SamplerFit) -> dict[str, Any]:
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in asdict(fit).items()}


def _fit_line(fit: Fit) -> str:
    """Return what a fit brought and took, in one line."""
    record = fit.record
    if fit.new_trial is None:
        what = f"keeps its sampler; the best other one is {_chosen(record)}"
    else:
        what = f"trial {fit.new_trial}, FID {fit.new_fid:.3g}, runs on {_chosen(record)}"
    own = "" if record.own_fid is None else f", {record.own_fid:.3g} of its own"
    return (
        f"trial {fit.trial}, FID {fit.fid:.3g}: {what} (on the noise of learning: FID {record.fid:.3g} learnt, "
        f"{record.start_fid:.3g} of {record.start}{own}; learning took {record.tflops:.3g} TFLOPs and "
        f"{record.seconds:.0f} s)"
    )


def _chosen(record: SamplerRecord) -> str:
    return "a learnt sampler" if record.chosen == "learnt" else record.start


def _fit_json(fit: Fit) -> dict[str, Any]:
    from stepfront.search.records.learnt_samplers import learning_facts

    new_fid = fit.new_fid if math.isfinite(fit.new_fid) else None
    found = {"trial": fit.trial, "trial_fid": fit.fid, "new_trial": fit.new_trial, "new_fid": new_fid}
    return found | learning_facts(fit.record)


def claim(search: Search, as_json: AsJson = False) -> None:
    """Print what is saved at equal quality, or why not.

    Equal quality: worse than the best full-width sampler by less than confirm.margin, on both judges.
    """
    from stepfront.dashboards.claim import CONFIRM_AGAIN, claim_sentences, has_claim
    from stepfront.search.claims.claim import CLAIM_KEYS
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.storage.run_location import open_for_reading
    from stepfront.tables.search_tables import read_snapshot

    directory = find_search(open_for_reading(search).local)[0]
    snapshot = read_snapshot(directory)
    savings = snapshot.facts.get("savings") or {}
    if not savings:
        raise InputError(f"the search in {directory} is not confirmed; run `stepfront confirm {search}` first")
    if not has_claim(savings):
        raise InputError(CONFIRM_AGAIN)
    output = Output(as_json)
    if as_json:
        output.json({key: savings.get(key) for key in (*CLAIM_KEYS, "disagreements", "out_of_reach")})
        return
    for sentence in claim_sentences(savings, snapshot.front, str(search)):
        output.message(sentence)


def baselines(
    search: Search,
    methods: Annotated[
        str | None, typer.Option(metavar="NAMES", help="baselines to score, comma-separated (default: all)")
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(min=1, help="evaluations per method (default: same as the search)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score what the search must beat, at equal evaluations.

    The baselines are plans made by hand, fewer steps, random plans, DDSM's own search, and full width with other
    solvers and grids.
    """
    from stepfront.search.cli.tables.scores import methods_table
    from stepfront.search.records.run_directory import find_search
    from stepfront.search.scoring.baselines import run_baselines
    from stepfront.search.scoring.versus import advice, versus_on_own_sampler
    from stepfront.search.storage.run_location import open_for_writing
    from stepfront.tables.parquet import read_table
    from stepfront.tables.schema import METHOD_SCORES, VERSUS

    output = Output(as_json)
    wanted = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    with open_for_writing(search) as location:
        directory, settings = find_search(location.local)
        with output.bar("baselines") as bar:
            run_baselines(
                location.local, wanted, evaluations, lambda name, done, total: bar(done, total, f"baseline {name}")
            )
        publish_step(settings, output)
    scored = read_table(directory / METHOD_SCORES).sort_values("share", ascending=False)
    versus = read_table(directory / VERSUS)
    hint = advice(versus_on_own_sampler(directory, settings), settings)
    output.message()
    output.message(methods_table(scored))
    if hint:
        output.message(hint)
    if as_json:
        result = {"directory": str(directory), "methods": json_rows(scored), "versus": json_rows(versus)}
        output.json(result | {"advice": hint})
