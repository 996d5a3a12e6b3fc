"""Load a search problem: read supernet, images and features, and check them against each other."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from stepfront.addresses import is_uri
from stepfront.errors import InputError
from stepfront.search.config import RunSettings
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.problem.user_parts import check_parts, check_solvers
from stepfront.search.records.learnt_samplers import SamplerRecord, read_search_samplers
from stepfront.search.settings.own_scores import KID
from stepfront.search.storage.run_location import open_for_reading
from stepfront.tables.facts import read_facts
from stepfront.trainers.data import Progress
from stepfront.trainers.diffusion.conditioning import check_classes
from stepfront.trainers.latents.autoencoder import load_autoencoder
from stepfront.trainers.latents.load_images import load_decoder, load_images
from stepfront.trainers.metrics.judges import prepare_judge
from stepfront.trainers.networks.card import (
    CARD_FILE,
    SupernetCard,
    check_autoencoder,
    check_fingerprint,
    check_latent_shape,
    read_card,
)
from stepfront.trainers.networks.supernet_files import WEIGHTS_FILE, supernet_from_weights
from stepfront.trainers.networks.weights import read_weights, weights_digest


def load_problem(
    settings: RunSettings,
    progress: Progress = lambda done, total: None,
    encoding: Progress = lambda done, total: None,
) -> SearchProblem:
    """Load the problem of the settings; a supernet at a URI is downloaded first.

    `progress` and `encoding` are told the numbers of images that are read, and encoded where they are for the first
    time.
    Raises InputError when the supernet is missing or damaged, or when it does not fit the data or the settings.
    """
    supernet = open_for_reading(settings.supernet_place)
    directory = supernet.local
    _check_supernet_exists(directory)
    card = read_card(directory)
    check_solvers(settings, card.diffusion)
    _check_autoencoder(settings, card, directory)
    data = load_images(settings.data, progress, encoding=encoding)
    check_fingerprint(card, data.fingerprint, directory)
    if data.latents is not None:
        check_latent_shape(card, data.latents.space, directory)
    _check_guidance(settings, card, directory)
    if card.network != settings.network:
        raise InputError(
            f"the supernet in {directory} was trained with other network settings than these; give the settings that "
            "it was trained with, or train one under another name"
        )
    check_classes(data, card.network.image_classes)
    weights = read_weights(directory / WEIGHTS_FILE)
    if weights_digest(weights) != card.digest:
        raise InputError(
            f"{directory / WEIGHTS_FILE} does not match its card (the digest of the weights differs); restore both "
            "files from one copy, or train again with --fresh"
        )
    supernet_from_weights(card, weights, directory / WEIGHTS_FILE)
    packed, reference = prepare_judge(data, settings.features, directory, torch.device("cpu"))
    arrays = {name: value.numpy() for name, value in weights.items()}
    decoder = load_decoder(data, card.latents)
    problem = SearchProblem(settings, supernet, data, card, arrays, packed, reference, decoder)
    _ = problem.variants  # InputError where the network can't run one, before anything is written or deleted
    return problem


def warn_of_bias(problem: SearchProblem) -> None:
    """Say that FID of fewer images than features is biased, unless KID is an objective beside it."""
    dimensions, images = len(problem.reference.mean), problem.settings.evaluation.images
    judged_by_kid = any(score.function == KID and score.use == "objective" for score in problem.settings.scores)
    if images < dimensions and not judged_by_kid:
        logging.getLogger("stepfront").warning(
            "FID of %d images on %d features is biased upwards: raise evaluation.images to %d or more, or make KID, "
            "which has no such bias, an objective: scores=[{name: kernel_distance, function: kid}]",
            images,
            dimensions,
            dimensions,
        )


def check_inputs(settings: RunSettings) -> None:
    """Check what needs no image: the parts that the settings name, and that a local supernet exists.

    Raises InputError when a part is unusable or the supernet is missing.
    """
    check_parts(settings)
    if not is_uri(settings.supernet_place):
        _check_supernet_exists(settings.supernet_directory)


def load_problem_of_search(settings: RunSettings, directory: Path) -> SearchProblem:
    """Load the problem of the search in `directory`.

    Raises InputError as `load_problem` does, and when the supernet is not the one that the search used.
    """
    problem = load_problem(settings)
    facts = read_facts(directory)
    if facts.get("supernet_digest") != problem.card.digest:
        raise InputError(
            f"the search in {directory} used another supernet than the one in {problem.supernet} "
            f"(digest {str(facts.get('supernet_digest'))[:12]}, not {problem.card.digest[:12]}); start a new search"
        )
    return with_samplers(problem, read_search_samplers(directory))


def with_samplers(problem: SearchProblem, records: Mapping[int, SamplerRecord]) -> SearchProblem:
    """Return the problem whose plans run on these learnt samplers, by number of steps.

    Those of numbers of steps that no plan has are left out: a call that made the space larger was killed.
    """
    counts = problem.encoding.step_counts
    samplers = {steps: record.sampler for steps, record in records.items() if steps in counts}
    return replace(problem, samplers=samplers)


def _check_supernet_exists(directory: Path) -> None:
    if not (directory / CARD_FILE).exists():
        raise InputError(f"no supernet in {directory}; train one first: stepfront train CONFIG")


def _check_autoencoder(settings: RunSettings, card: SupernetCard, directory: Path) -> None:
    """Raise InputError when the supernet works on other latents, or on pixels, before any image is encoded."""
    folder = settings.data.autoencoder
    autoencoder = None if folder is None else load_autoencoder(Path(folder))
    check_autoencoder(card, folder, None if autoencoder is None else autoencoder.digest, directory)
    if autoencoder is not None and autoencoder.factors is None and not card.data_fingerprint:
        logging.getLogger("stepfront").warning(
            "data.autoencoder %s gives no scale of its latents, so each channel is brought to mean 0 and deviation 1; "
            "the imported network in %s may have been trained on another scale: name its own autoencoder",
            folder,
            directory,
        )
    if folder is not None and settings.sampler.clip:
        raise InputError("sampler.clip clamps to [-1, 1], which latents exceed; set sampler.clip=false")


def _check_guidance(settings: RunSettings, card: SupernetCard, directory: Path) -> None:
    """Raise InputError when guidance needs a null class and the supernet has not learnt one."""
    guidance = settings.sampler.guidance
    if guidance == 1:
        return
    if card.made_with.get("null_class") == "none":
        raise InputError(
            f"sampler.guidance {guidance:g} needs a null class, and {directory} was imported without one; "
            "train it further (stepfront train drops labels), or set sampler.guidance=1"
        )
    training = card.made_with.get("settings", {}).get("training", {})
    if training.get("drop_labels") == 0:
        raise InputError(
            f"sampler.guidance {guidance:g} needs a supernet that was trained with training.drop_labels above 0; "
            f"{directory} was not; train another one, or set sampler.guidance=1"
        )
