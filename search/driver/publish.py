"""Publish the results of a search: sample images, pictures of the front, the report and the MLflow run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stepfront.dashboards.claim import disagreement_sentence
from stepfront.dashboards.figures.picture import save_front_picture
from stepfront.dashboards.report import write_report
from stepfront.dashboards.summary import summary_sentences
from stepfront.files import write_atomically, write_json
from stepfront.search.config import RunSettings
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.evaluator_parts import local_parts
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import read_samplers
from stepfront.search.records.plan_rows import on_own_sampler, own_sampler, plan_of_row
from stepfront.search.storage.lock import directory_lock
from stepfront.search.tracking.search_mirror import SearchMirror
from stepfront.search.tracking.server import server_address, ui_link
from stepfront.tables.adaptation import adaptation_sentence
from stepfront.tables.facts import search_id_of
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import FRONT
from stepfront.tables.search_tables import read_snapshot, read_tables
from stepfront.trainers.data import to_pixels
from stepfront.trainers.data.image_grid import save_grid
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.evaluator import Evaluator

GRID_IMAGES = 24


def make_evaluator(problem: SearchProblem, directory: Path) -> Evaluator:
    """Return an evaluator in this process, on its CPU, with the costs that the search measured."""
    return Evaluator(local_parts(problem, read_costs(directory)))


def sample_pixels(
    evaluator: Evaluator, plan: Plan, images: int, noise_seed: int, label: int | None = None
) -> np.ndarray:
    """Sample images of a plan as uint8 [N, C, H, W], all of the class `label` where one is given."""
    return np.concatenate([to_pixels(batch) for batch in evaluator.sample(plan, images, noise_seed, label)])


def by_class(pixels: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Return the images [N, ...] ordered by class; unchanged where there are no classes."""
    return pixels if labels is None else pixels[np.argsort(labels, kind="stable")]


def draw_images(problem: SearchProblem, directory: Path) -> None:
    """Draw image grids of full width and of up to five front points, all from the same noise."""
    snapshot = read_snapshot(directory)
    evaluator = make_evaluator(problem, directory)
    full, samplers = problem.uniform_plan(1.0), read_samplers(directory)
    complete = snapshot.trials[(snapshot.trials["state"] == "complete") & (snapshot.trials["origin"] != "fit")]
    complete = on_own_sampler(complete, own_sampler(problem.settings))
    chosen = [("full width", row) for _, row in complete[complete["plan"] == full.runs].iterrows()]
    chosen += [(str(r["label"]) or f"trial {r['trial']}", r) for _, r in _few(snapshot.front).iterrows()]
    index: list[dict[str, Any]] = []
    for title, row in chosen:
        name = "full.png" if title == "full width" else f"trial-{row['trial']}.png"
        seed = int(row["noise_seed"])
        pixels = sample_pixels(evaluator, plan_of_row(row, samplers), GRID_IMAGES, seed)
        save_grid(by_class(pixels, evaluator.labels(GRID_IMAGES, seed)), directory / "images" / name)
        entry = {"file": name, "title": title, "plan": row["plan"], "gflops": float(row["gflops"])}
        index.append(entry | {"fid": float(row["fid"])})
    write_json(directory / "images" / "index.json", index)


def _few(front: pd.DataFrame) -> pd.DataFrame:
    """Return the labelled points, and others picked evenly between them, five in all."""
    labelled = [i for i, label in enumerate(front["label"]) if label]
    even = np.linspace(0, len(front) - 1, min(5, len(front))).round().astype(int)
    return front.iloc[sorted(set(labelled + [i for i in even if i not in labelled][: max(0, 5 - len(labelled))]))]


def draw_report(directory: Path) -> Path:
    """Write the report, and the front as svg, png and csv; return the report's path."""
    found = read_tables(directory)
    for suffix in ("svg", "png"):
        save_front_picture(found, directory / f"front.{suffix}")
    front = read_table(directory / FRONT)
    write_atomically(directory / "front.csv", lambda path: front_csv(front).to_csv(path, index=False))
    return write_report(directory)


def front_csv(front: pd.DataFrame) -> pd.DataFrame:
    """Return the front without its list columns, which a CSV cannot hold."""
    return front.drop(columns=["parents", "widths", "times"])


def publish(settings: RunSettings, directory: Path, finished: bool) -> tuple[str, str]:
    """Draw images and report, and write the search to MLflow.

    Returns what went wrong with MLflow, and the command or link that opens it; either may be empty.
    """
    draw_images(load_problem_of_search(settings, directory), directory)
    draw_report(directory)
    return log_to_mlflow(settings, directory, finished)


def log_to_mlflow(settings: RunSettings, directory: Path, finished: bool, mend: bool = False) -> tuple[str, str]:
    """Bring MLflow in line with the tables and store the artifacts; returns what `publish` returns.

    With `mend`, an experiment or run that was deleted in MLflow is restored.
    """
    if settings.tracking.uri is None:
        return "", ""
    with directory_lock(directory):  # a running search writes for itself; two writers would write trials twice
        return _log_to_mlflow(settings, directory, finished, mend)


def _note(directory: Path) -> str:
    """Return what the note of the run begins with.

    It is the first sentence, on which points the judges disagree, and what the supernet's second stage gained.
    """
    tables = read_tables(directory)
    parts = (
        summary_sentences(tables)[0],
        disagreement_sentence(tables.savings),
        adaptation_sentence(tables.adaptation),
    )
    return " ".join(filter(None, parts))


def _log_to_mlflow(settings: RunSettings, directory: Path, finished: bool, mend: bool) -> tuple[str, str]:
    mirror = SearchMirror(settings, directory, mend)
    assert mirror.uri is not None
    snapshot = read_snapshot(directory)
    problem = mirror.close(snapshot, directory, finished, _note(directory))
    if not mirror.written.run_id:
        return problem, ""
    search_id = mirror.written.id_in_mlflow(search_id_of(snapshot.facts))
    link = ui_link(server_address(mirror.uri), mirror.written.experiment_id, search_id)
    return problem, link if server_address(mirror.uri) == mirror.uri else f"stepfront ui {settings.run_directory}"
