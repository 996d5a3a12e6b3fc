"""Images larger than the memory that the settings grant: the same to the bit, decoded once, never all in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings, FeatureSettings, TrainerSettings
from stepfront.trainers.data import ImageData, fingerprint, load_data
from stepfront.trainers.data import decode as pixels
from stepfront.trainers.data.cache import PixelCache
from stepfront.trainers.feature_networks.feature_files import open_feature_file
from stepfront.trainers.metrics.features import PackedFeatures, make_reference
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.training.trainer import train_supernet
from stepfront.trainers.training_settings import TrainingSettings
from tests.trainers.data.formats import test_cifar, test_parquet, test_webdataset
from tests.trainers.loading import load

LITTLE = 1e-3  # MB: a thousand bytes, five of these pictures


def folder(place: Path) -> Path:
    """Grey pictures, and colour from the ninth on."""
    for i in range(24):
        path = place / "abc"[i % 3] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(test_parquet.png((test_parquet.COLOUR if i > 8 else test_parquet.GREY)[i]))
    return place


def zipped(place: Path) -> Path:
    source = folder(place / "files")
    with zipfile.ZipFile(place / "all.zip", "w") as archive:
        for file in source.rglob("*.png"):
            archive.write(file, file.relative_to(source).as_posix())
    return place / "all.zip"


def parquet(place: Path) -> Path:
    for name, part in (("train-0", slice(0, 12)), ("train-1", slice(12, 20)), ("test", slice(20, 24))):
        images = test_parquet.structs(test_parquet.COLOUR[part])
        test_parquet.write(place / f"{name}.parquet", image=images, label=test_parquet.LABELS[part])
    return place


def webdataset(place: Path) -> Path:
    for name, part in (("a.tar", slice(0, 11)), ("b.tar.gz", slice(11, 24))):
        test_webdataset.write(place / name, test_webdataset.samples(part))
    return place


def cifar_folder(place: Path) -> Path:
    return test_cifar.as_folder(place, test_cifar.cifar10_binary())


def cifar_archive(place: Path) -> Path:
    place.mkdir()
    return test_cifar.as_archive(place, test_cifar.cifar10_python())


FORMATS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "folder": ("folder", folder),
    "zip": ("folder", zipped),
    "parquet": ("parquet", parquet),
    "webdataset": ("webdataset", webdataset),
    "cifar folder": ("cifar", cifar_folder),
    "cifar archive": ("cifar", cifar_archive),
}


def assert_same(a: ImageData, b: ImageData) -> None:
    assert a.fingerprint == b.fingerprint
    for name in ("images", "labels", "held_out_images", "held_out_labels"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("limit", [None, 17])
@pytest.mark.parametrize("kind", FORMATS)
def test_mapped_images_are_those_in_memory_and_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, limit: int | None
) -> None:
    format, make = FORMATS[kind]
    path, cache = make(tmp_path / "data"), str(tmp_path / "cache")
    whole = load(format, path, limit=limit, cache=cache)
    assert not isinstance(whole.images, np.memmap)
    assert not Path(cache).exists()
    first = load(format, path, limit=limit, cache=cache, memory_mb=LITTLE)
    assert isinstance(first.images, np.memmap)
    assert isinstance(first.held_out_images, np.memmap)
    assert_same(first, whole)
    assert fingerprint((first.images, first.labels), (first.held_out_images, first.held_out_labels)) == (
        whole.fingerprint
    )
    monkeypatch.setattr(pixels, "decode", None)  # whoever decodes now fails
    monkeypatch.setattr("stepfront.trainers.data.formats.cifar.to_shape", None)
    assert_same(load(format, path, limit=limit, cache=cache, memory_mb=LITTLE), whole)
    entries = [entry.name for entry in Path(cache).iterdir() if not entry.name.endswith(".lock")]
    assert len(entries) == 1  # nothing is left of the making
    assert sorted(os.listdir(Path(cache) / entries[0])) == ["card.json", "held_out.npy", "labels.npz", "train.npy"]


def test_sources_or_settings_that_change_are_decoded_again(tmp_path: Path) -> None:
    path, cache = folder(tmp_path / "data"), str(tmp_path / "cache")
    first = load("folder", path, cache=cache, memory_mb=LITTLE)
    (path / "a" / "00.png").write_bytes(test_parquet.png(255 - test_parquet.GREY[0]))
    second = load("folder", path, cache=cache, memory_mb=LITTLE)
    assert second.fingerprint != first.fingerprint
    assert_same(second, load("folder", path))
    assert load("folder", path, cache=cache, memory_mb=LITTLE, channels=1).channels == 1
    assert load("folder", path, cache=cache, memory_mb=LITTLE, flip=True).fingerprint == second.fingerprint
    assert len([entry for entry in Path(cache).iterdir() if entry.is_dir()]) == 3


def test_a_damaged_picture_leaves_nothing_behind(tmp_path: Path) -> None:
    path, cache = folder(tmp_path / "data"), tmp_path / "cache"
    (path / "c" / "23.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"23\.png is not a readable image"):
        load("folder", path, cache=str(cache), memory_mb=LITTLE)
    assert [entry.name for entry in cache.iterdir() if not entry.name.endswith(".lock")] == []


def test_a_cache_that_cannot_be_written_or_was_truncated_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "data")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"can't write to data\.cache .*file"):
        load("folder", path, cache=str(tmp_path / "file"), memory_mb=LITTLE)
    load("folder", path, cache=str(tmp_path / "cache"), memory_mb=LITTLE)
    (entry,) = (entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir())
    os.truncate(entry / "train.npy", 500)
    with pytest.raises(InputError, match=r"is damaged .*; delete it"):
        load("folder", path, cache=str(tmp_path / "cache"), memory_mb=LITTLE)


def test_who_finds_the_images_decoded_in_the_meantime_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = folder(tmp_path / "data"), str(tmp_path / "cache")
    first = load("folder", path, cache=cache, memory_mb=LITTLE)
    (entry,) = (entry for entry in Path(cache).iterdir() if entry.is_dir())
    written = (entry / "train.npy").stat().st_mtime_ns
    find, asked = PixelCache.find, []

    def not_yet(self: PixelCache) -> object:
        asked.append(1)
        return find(self) if len(asked) > 1 else None

    monkeypatch.setattr(PixelCache, "find", not_yet)
    assert_same(load("folder", path, cache=cache, memory_mb=LITTLE), first)
    assert len(asked) == 2
    assert (entry / "train.npy").stat().st_mtime_ns == written


def reported_progress(format: str, path: Path) -> list[tuple[int, int]]:
    reported: list[tuple[int, int]] = []
    load_data(DataSettings(format=format, path=str(path)), lambda done, total: reported.append((done, total)))  # type: ignore[arg-type]
    assert all(done <= total for done, total in reported)
    return reported


def test_progress_counts_the_images(tmp_path: Path) -> None:
    each = [(done, 24) for done in range(1, 25)]
    assert reported_progress("folder", folder(tmp_path / "folder")) == each
    assert reported_progress("folder", zipped(tmp_path / "zip")) == each
    progress = reported_progress("parquet", parquet(tmp_path / "parquet"))
    assert progress == [(done, 20) for done in range(1, 21)] + [(done, 4) for done in range(1, 5)]
    assert reported_progress("webdataset", webdataset(tmp_path / "tar")) == each


def test_training_and_reference_are_the_same_to_the_bit(tmp_path: Path) -> None:
    path = parquet(tmp_path / "data")
    network = NetworkSettings(base=8, multipliers=(1,), widths=(0.5, 1.0), groups=2, group_channels=2)
    found = []
    for memory_mb in (4096.0, LITTLE):
        data_settings = DataSettings(
            format="parquet", path=str(path), flip=True, memory_mb=memory_mb, cache=str(tmp_path / "cache")
        )
        data = load_data(data_settings)
        settings = TrainerSettings(
            data=data_settings, network=network, training=TrainingSettings(steps=3, batch=8, device="cpu")
        )
        directory = tmp_path / f"memory-{memory_mb:g}"
        card = train_supernet(settings, data, directory)
        scripted = torch.jit.trace(torch.nn.Flatten(), torch.zeros(2, 3, 8, 8))
        scripted.save(str(directory / "flat.pt"))
        packed = PackedFeatures(FeatureSettings(name="flat", path="flat.pt"), (directory / "flat.pt").read_bytes())
        open_feature_file("flat", packed.content, ".pt", torch.device("cpu"))
        found.append((data, card.digest, make_reference(data, packed, torch.device("cpu")).content))
    assert isinstance(found[1][0].images, np.memmap)
    assert found[0][1:] == found[1][1:]
    # A training that began with the images in memory continues with them mapped: neither setting is part of its digest.
    checkpoint = (tmp_path / "memory-4096" / "checkpoint.safetensors").read_bytes()
    (tmp_path / f"memory-{LITTLE:g}" / "checkpoint.safetensors").write_bytes(checkpoint)
    train_supernet(settings, found[1][0], tmp_path / f"memory-{LITTLE:g}")


PEAK = """
import json, re, sys
from pathlib import Path
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data import blocks, load_data
# getrusage's peak begins with that of the process that this one was forked from, and can't be set back.
held = lambda name: int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
settings = lambda path, memory: DataSettings(format="parquet", path=path, cache=sys.argv[3], memory_mb=memory)
load_data(settings(sys.argv[1], 4096))  # what libraries take once
Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
before = held("VmRSS")
data = load_data(settings(sys.argv[2], float(sys.argv[4])))
total = sum(int(part.sum(dtype="int64")) for part in blocks(data.images, 512))
print(json.dumps([held("VmHWM") - before, data.images.nbytes / 2**20, data.fingerprint, total]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells a process's peak in memory")
def test_reading_never_holds_all_the_images(tmp_path: Path) -> None:
    generator = np.random.RandomState(0)
    distinct = [test_parquet.png(np.full((128, 128, 3), shade, np.uint8)) for shade in generator.randint(255, size=64)]
    for name, count in (("few", 64), ("many", 4600)):
        images = [distinct[i % 64] for i in range(count)]
        pq.write_table(pa.table({"image": images}), tmp_path / f"{name}.parquet", row_group_size=256)

    def measured(memory_mb: float) -> tuple[float, float, str, int]:
        given = [*(str(tmp_path / f"{name}.parquet") for name in ("few", "many")), str(tmp_path / "cache")]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *given, str(memory_mb)], capture_output=True, text=True, check=True
        )
        return tuple(json.loads(done.stdout))

    in_memory, mapped, again = measured(4096), measured(16), measured(16)
    assert in_memory[2:] == mapped[2:] == again[2:]
    size = mapped[1]
    assert size > 190  # MB
    assert in_memory[0] > size  # so the measure sees what is held
    assert mapped[0] < 0.5 * size
    assert again[0] < 0.5 * size
