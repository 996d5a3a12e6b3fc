"""Learnt samplers beside a supernet: found by other machines where it lies at a URI, and never taken for another's."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stepfront.errors import InputError
from stepfront.file_store import FileStore
from stepfront.search.learning.chosen import SamplerToLearn
from stepfront.search.learning.kept_samplers import KeptSamplers
from stepfront.search.records.learnt_samplers import FOLDER, SamplerRecord
from stepfront.search.storage.run_location import open_for_reading, open_for_writing
from stepfront.trainers.config import DiffusionSettings, SamplerSettings
from stepfront.trainers.diffusion.learnt_sampler import LearntSampler
from stepfront.trainers.inference.engine import PLAIN, Engine
from stepfront.trainers.learning_settings import LearningSettings
from stepfront.trainers.metrics.fid import Reference
from stepfront.trainers.sampler_learning.starts import EarlierStart

SAMPLER = LearntSampler("ddim", (900.0, 30.5), (899.0, 31.0), ((0.1, 0.0), (0.0, 0.2)), ((0.0, 0.0), (0.3, 0.0)))


def task(
    supernet: str = "abc",
    guidance: float = 1.0,
    widths: tuple[float, ...] = (1.0, 1.0),
    data: str = "digits",
    mean: float = 0.0,
    **of_card: Any,
) -> SamplerToLearn:
    features = SimpleNamespace(name="random", digest="f")
    card = SimpleNamespace(**({"digest": supernet, "label_counts": (), "diffusion": DiffusionSettings()} | of_card))
    sampler, reference = SamplerSettings(guidance=guidance), Reference(np.full(1, mean), np.eye(1), 9, "", "", data)
    parts: Any = SimpleNamespace(
        card=card, features=features, sampler=sampler, decoder=None, reference=reference, engine=PLAIN
    )
    return SamplerToLearn(parts, widths, "solver", LearningSettings(), 64, (("ddim", "leading"),))


def record(sampler: LearntSampler = SAMPLER, widths: tuple[float, ...] = (1.0, 1.0)) -> SamplerRecord:
    figures = {"train": 1.0, "held_out": 1.0, "start_held_out": 2.0, "fid": 1.0, "start_fid": 2.0}
    return SamplerRecord(
        *(sampler, widths, "learnt", "solver", "ddim, leading grid", sampler.times),
        distance="root",
        calls=9,
        tflops=1.0,
        seconds=1.0,
        **figures,
    )


def test_what_one_machine_learns_another_finds(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def machine(name: str) -> KeptSamplers:
        monkeypatch.setenv("STEPFRONT_CACHE", str(tmp_path / name))
        location = open_for_reading(uri)
        return KeptSamplers(location.local, location.uri)

    monkeypatch.setattr("stepfront.search.storage.lease.SETTLE_SECONDS", 0.0)
    FileStore(uri).write_json("supernet.json", {"digest": "abc"})
    early = machine("early")
    first = machine("first")
    assert first.find(task()) is None
    first.keep(task(), record())
    assert early.find(task()) == record()  # although its copy of the supernet is older
    assert machine("late").find(task()) == record()
    assert early.find(task(widths=(0.5, 1.0))) is None
    monkeypatch.setenv("STEPFRONT_CACHE", str(tmp_path / "trains"))
    with open_for_writing(uri) as location:
        (location.local / "supernet.json").write_text("{}")
    assert machine("last").find(task()) == record()  # a training that goes on leaves them there


def test_a_store_that_is_gone_costs_a_warning_and_no_learning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder can be made here")
    kept = KeptSamplers(tmp_path / "copy", f"file://{tmp_path}/file/digits")
    kept.keep(task(), record())
    assert "other machines learn this sampler again" in caplog.text
    assert kept.find(task()) == record()


def test_a_sampler_chosen_on_other_images_or_labels_is_another(tmp_path: Path) -> None:
    kept = KeptSamplers(tmp_path)
    kept.keep(task(), record())
    others = {
        "other data": task(data="letters"),
        "a file of statistics": task(data=""),
        "another such file": task(data="", mean=1.0),
        "other labels": task(label_counts=(3, 9)),
        "another training": task(diffusion=DiffusionSettings(schedule="cosine")),
        "another precision": precise(task(), "bfloat16"),
    }
    assert [name for name, other in others.items() if kept.find(other) is not None] == []
    assert len({other.key for other in others.values()}) == len(others)
    assert kept.find(task(mean=1e-9)) == record()  # statistics of the same images, from another device


def test_a_sampler_learnt_from_another_start_is_another(tmp_path: Path) -> None:
    kept, start = KeptSamplers(tmp_path), EarlierStart("the sampler of digits", SAMPLER)
    kept.keep(task(), record())
    assert kept.find(replace(task(), earlier=())) == record()  # the key of before
    assert kept.find(replace(task(), earlier=(start,))) is None
    named, other = replace(start, name="another"), replace(start, learnt=replace(SAMPLER, solver="unipc_2"))
    keys = [replace(task(), earlier=(one,)).key for one in (start, named, other)]
    assert keys[0] == keys[1] != keys[2]


def precise(given: SamplerToLearn, precision: str) -> SamplerToLearn:
    parts: Any = SimpleNamespace(**vars(given.parts) | {"engine": Engine.model_validate({"precision": precision})})
    return replace(given, parts=parts)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (task(supernet="another"), "another supernet"),
        (task(guidance=2.0), "another guidance"),
        (task(data="letters"), "another data set"),
        (task(widths=(0.5, 1.0)), "another plan"),
        (replace(task(), hand=(("dpmpp_2m", "leading"),)), "another set of solvers"),
        (replace(task(), learnt="times"), "another part of the sampler"),
    ],
)
def test_the_sampler_of_another_task_is_refused_in_one_line(tmp_path: Path, given: SamplerToLearn, named: str) -> None:
    kept = KeptSamplers(tmp_path)
    kept.keep(given, record(widths=given.widths))
    place = tmp_path / FOLDER / f"{task().key}.json"
    shutil.copy(tmp_path / FOLDER / f"{given.key}.json", place)
    before = place.read_bytes()
    with pytest.raises(InputError, match=f"{place} holds a sampler that was learnt for {named}") as caught:
        kept.find(task())
    assert "\n" not in str(caught.value)
    assert place.read_bytes() == before
