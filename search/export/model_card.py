"""Write the model card of an exported pipeline: what it is, what was searched, its scores and how to run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from stepfront.dashboards.claim import claim_sentence
from stepfront.search.records.plan_rows import fitted_weights_of
from stepfront.trainers.latents.autoencoder import RAW

EXAMPLE_FILE = "example.png"


def model_card(
    content: Mapping[str, Any],
    facts: Mapping[str, Any],
    row: pd.Series,
    folder: str,
    license_name: str,
    imported: str = "",
) -> str:
    """Return the README.md of a folder; `content` is the plan.json of the point.

    `imported` says from where a network came that was not trained here.
    """
    point, classes = content["point"], content.get("condition")
    kind = "class-conditional-image-generation" if classes else "unconditional-image-generation"
    decoder = content.get("decoder")
    channels, height, width = (decoder or content)["image_shape"]
    what = f"{height}x{width} images with {channels} channel{'s' * (channels > 1)}"
    if classes:
        what += f" of {len(classes['counts'])} {'prompts' if 'prompts' in classes else 'classes'}"
    words = "class_labels=0, " if classes else ""
    data = point["dataset"]
    made = f"imported from {imported}; its FID is against {data}" if imported else f"trained on {data}"
    programs = ["pipeline.py", "unet/*.py", "scheduler/*.py"]
    programs += ["vae/*.py"] if decoder and decoder["kind"] == RAW else []
    return f"""---
license: {license_name}
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags: [diffusers, {kind}, stepfront]
---

# {point["name"]}, trial {point["trial"]}

A diffusion model of {what}, {made}. At each of its {len(content["steps"])} steps it runs the
network of the width that a search with stepfront found, noise first:

    {content["plan"]}

![Images 0 to {content["examples"] - 1} of noise seed 0]({EXAMPLE_FILE})

## Use

Needs torch and diffusers from 0.36 on. `trust_remote_code` lets diffusers run {", ".join(programs[:-1])} and
{programs[-1]} of this folder; read them first.

    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained("{folder}", trust_remote_code=True)
    images = pipeline({words}batch_size=16, seed=0).images

`seed` gives the images of `stepfront sample --seed`; `generator` takes a torch.Generator, or a list of one per image.
The number of steps is the plan's.

## Scores

{_scores(row)}

The cost is {_figure(row["gflops"])} GFLOPs per image (2 per multiply-add){_share(facts, row)}. {_claim(facts, point)}
{_decoding(decoder)}{_prompts(classes)}
## What was searched

{_searched(content, row)}
"""


def _scores(row: pd.Series) -> str:
    rows = ["| score | judge (features) | value | 95 % interval | images |", "|---|---|---|---|---|"]
    rows.append(f"| FID, on the noise of the search | {row['features']} | {_figure(row['fid'])} | | {row['images']} |")
    how_many = f"{row['confirm_seeds']} x {row['confirm_images']}"
    judged = (
        ("FID", "fid_confirmed", "fid", row["features"]),
        ("FID", "second_confirmed", "second", row["second_features"]),
        ("KID", "kid", "kid", row["features"]),
    )
    for name, column, ends, features in judged:
        if not pd.isna(row[column]):
            between = f"{_figure(row[f'{ends}_low'])} to {_figure(row[f'{ends}_high'])}"
            rows.append(
                f"| {name}, on held-out noise seeds | {features} | {_figure(row[column])} | {between} | {how_many} |"
            )
    if pd.isna(row["fid_confirmed"]):
        rows.append(
            "\nThe score was not confirmed on held-out noise seeds, so it favours the points that were chosen by it."
        )
    return "\n".join(rows)


def _decoding(decoder: Mapping[str, Any] | None) -> str:
    if decoder is None:
        return ""
    return f"""
The networks make latents, which the autoencoder in vae/ decodes: {decoder["kind"]}, digest {_short(decoder["digest"])}.
Decoding takes another {_figure(decoder["gflops"])} GFLOPs per image. The autoencoder has a licence of its own.
"""


def _prompts(classes: Mapping[str, Any] | None) -> str:
    if classes is None or "prompts" not in classes:
        return ""
    return """
The network reads text. `class_labels` chooses one of the prompts in `pipeline.unet.config.texts` by its number.
"""


def _share(facts: Mapping[str, Any], row: pd.Series) -> str:
    full = (facts.get("full") or {}).get("gflops")
    return f", {row['gflops'] / full:.0%} of full width at every step of the search" if full else ""


def _claim(facts: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    savings = facts.get("savings") or {}
    if not (sentence := claim_sentence(savings)):
        return "No saving is claimed: the search was not confirmed."
    if savings.get("holds") and savings.get("trial") != point["trial"]:
        return f"No saving is claimed for this point. What the search claims is of trial {savings['trial']}: {sentence}"
    return sentence


def _learnt(learnt: str) -> str:
    weights = fitted_weights_of(learnt)
    sampler = ", with learnt times and coefficients" if learnt != weights else ""
    return sampler + (", with weights that were fitted to the plan" if weights else "")


def _searched(content: Mapping[str, Any], row: pd.Series) -> str:
    point = content["point"]
    said = {
        "search": f"{point['name']} ({point['search_id']})",
        "data": f"{point['dataset']} (fingerprint {_short(point['fingerprint'])})",
        "supernet": f"digest {_short(point['supernet_digest'])}",
        "features of the FID": point["features"],
        "widths of the plan": ", ".join(f"{width:g}" for width in sorted({step["width"] for step in content["steps"]})),
        "solver": point["solver"] + _learnt(str(row["learnt"])),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in said.items())])


def _short(digest: Any) -> str:
    return f"`{str(digest)[:12]}`"


def _figure(value: Any) -> str:
    return f"{float(value):.4g}"
