"""Feature networks: the dataset's own classifier, and files in two formats."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import ImageData, to_float
from stepfront.trainers.feature_networks.classifier import (
    CLASSIFIER_CARD,
    CLASSIFIER_WEIGHTS,
    Classifier,
    train_classifier,
)
from stepfront.trainers.metrics.feature_rows import try_features
from stepfront.trainers.metrics.features import (
    FeatureNetwork,
    PackedFeatures,
    check_features,
    make_reference,
    pack_features,
    prepare_features,
    real_features,
)
from stepfront.trainers.metrics.fid import Moments, Reference

CPU = torch.device("cpu")
CLASSIFIER = FeatureSettings(name="classifier")
ONE_EPOCH = FeatureSettings(name="classifier", classifier_epochs=1, examine="skip")


@pytest.fixture(scope="module")
def trained(digits: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("features")
    train_classifier(digits, FeatureSettings(name="classifier", classifier_epochs=5), directory)
    return directory


# --- the classifier ---------------------------------------------------------------------------------------------------


def test_the_classifier_learns_digits(trained: Path, digits: ImageData) -> None:
    card = json.loads((trained / CLASSIFIER_CARD).read_text())
    assert card["held_out_accuracy"] > 0.9
    assert (card["classes"], card["data_fingerprint"]) == (10, digits.fingerprint)


def test_the_classifier_is_a_function_of_its_seed(digits: ImageData, tmp_path: Path) -> None:
    few = replace(digits, images=digits.images[:256], labels=digits.labels[:256] if digits.labels is not None else None)
    torch.manual_seed(1)
    first = train_classifier(few, ONE_EPOCH, tmp_path / "a")
    torch.manual_seed(2)  # what the caller's generator holds must not matter
    assert train_classifier(few, ONE_EPOCH, tmp_path / "b") == first
    assert (tmp_path / "a" / CLASSIFIER_WEIGHTS).read_bytes() == (tmp_path / "b" / CLASSIFIER_WEIGHTS).read_bytes()
    assert train_classifier(few, ONE_EPOCH.model_copy(update={"seed": 1}), tmp_path / "c").digest != first.digest


def test_training_the_classifier_leaves_the_callers_generator_alone(digits: ImageData, tmp_path: Path) -> None:
    few = replace(digits, images=digits.images[:128], labels=digits.labels[:128] if digits.labels is not None else None)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train_classifier(few, ONE_EPOCH, tmp_path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("resolution", [4, 5, 8, 28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_rows_of_64_at_any_resolution(resolution: int, channels: int) -> None:
    classifier = Classifier(channels, resolution, 7).eval()
    x = torch.zeros(2, channels, resolution, resolution)
    assert classifier.features(x).shape == (2, 64)
    assert classifier(x).shape == (2, 7)


def test_a_row_depends_on_its_own_image_alone(trained: Path, digits: ImageData) -> None:
    features = pack_features(CLASSIFIER, trained).unpack(CPU)
    images = to_float(digits.held_out_images[:6])
    together = features(images)
    assert together.shape == (6, 64)
    one_by_one = np.concatenate([features(image[None]) for image in images])
    np.testing.assert_allclose(one_by_one, together, atol=1e-5)


def test_features_see_the_256_levels_of_an_image_file(trained: Path, digits: ImageData) -> None:
    features = pack_features(CLASSIFIER, trained).unpack(CPU)
    images = to_float(digits.held_out_images[:4])
    assert np.array_equal(features(images), features(images + 0.4 / 127.5))
    assert not np.array_equal(features(images), features(images - 0.6 / 127.5))
    beyond = torch.where(images > 0.99, 3.0, images)
    assert np.array_equal(features(images), features(beyond))


def test_unlabelled_images_say_what_to_give_instead(digits: ImageData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no labels.*features: \{name: inception, path: FILE\.pt\}"):
        prepare_features(replace(digits, labels=None), CLASSIFIER, tmp_path, CPU)
    assert list(tmp_path.iterdir()) == []


def test_unlabelled_held_out_images_leave_the_accuracy_unknown(digits: ImageData, tmp_path: Path) -> None:
    assert digits.labels is not None
    few = replace(digits, images=digits.images[:128], labels=digits.labels[:128], held_out_labels=None)
    assert train_classifier(few, ONE_EPOCH, tmp_path).held_out_accuracy is None
    assert pack_features(CLASSIFIER, tmp_path).unpack(CPU)(to_float(few.images[:2])).shape == (
        2,
        64,
    )


def test_progress_counts_to_the_end(digits: ImageData, tmp_path: Path) -> None:
    assert digits.labels is not None
    few = replace(digits, images=digits.images[:300], labels=digits.labels[:300])
    seen: list[tuple[int, int]] = []
    train_classifier(
        few,
        FeatureSettings(name="classifier", classifier_epochs=2, examine="skip"),
        tmp_path,
        lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_classifier_of_other_weights_than_its_card_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    packed, card = pack_features(CLASSIFIER, tmp_path), tmp_path / CLASSIFIER_CARD
    card.write_text(json.dumps(json.loads(card.read_text()) | {"digest": "0" * 64}))
    with pytest.raises(InputError, match="does not belong to"):
        pack_features(CLASSIFIER, tmp_path)
    with pytest.raises(InputError, match="not a complete safetensors file"):
        replace(packed, content=packed.content[:100]).unpack(CPU)


def test_a_missing_classifier_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=CLASSIFIER_WEIGHTS):
        pack_features(CLASSIFIER, tmp_path)


# --- reference statistics ---------------------------------------------------------------------------------------------


def test_reference_is_the_moments_of_the_training_images(trained: Path, digits: ImageData) -> None:
    packed = pack_features(CLASSIFIER, trained)
    reference = make_reference(digits, packed, CPU, batch=300)
    rows = packed.unpack(CPU)(to_float(digits.images)).astype(np.float64)
    np.testing.assert_allclose(reference.mean, rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(reference.covariance, np.cov(rows.T), atol=1e-5)
    assert (reference.count, reference.features) == (len(digits.images), "classifier")
    assert (reference.digest, reference.data_fingerprint) == (packed.digest, digits.fingerprint)
    assert reference.distance(Moments.of([rows])) == pytest.approx(0, abs=1e-4)


def test_prepared_features_are_made_once_and_again_for_other_data(digits: ImageData, tmp_path: Path) -> None:
    assert digits.labels is not None
    few = replace(digits, images=digits.images[:256], labels=digits.labels[:256])

    def prepare(data: ImageData) -> tuple[str, list[int]]:
        packed, reference = prepare_features(data, ONE_EPOCH, tmp_path, CPU)
        assert reference.digest == packed.digest
        assert reference.data_fingerprint == data.fingerprint
        return packed.digest, [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]

    first = prepare(few)
    assert prepare(few) == first
    other = replace(few, images=few.images[:128], labels=few.labels[:128] if few.labels is not None else None)
    assert prepare(replace(other, fingerprint="0" * 64))[0] != first[0]


# --- files ------------------------------------------------------------------------------------------------------------


class Pooled(nn.Module):
    """Means and a projection, as a feature file might hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


@pytest.fixture(scope="module")
def pooled() -> Pooled:
    torch.manual_seed(0)
    return Pooled().eval()


@pytest.fixture(scope="module")
def feature_files(pooled: Pooled, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("files")
    paths = {suffix: directory / f"pooled{suffix}" for suffix in (".pt", ".pt2")}
    torch.jit.trace(pooled, torch.zeros(2, 1, 8, 8)).save(str(paths[".pt"]))
    batch = torch.export.Dim("batch")
    exported = torch.export.export(pooled, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(exported, paths[".pt2"])
    return paths


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_a_feature_file_computes_what_its_network_computes(
    feature_files: dict[str, Path], pooled: Pooled, digits: ImageData, tmp_path: Path, suffix: str
) -> None:
    chosen = FeatureSettings(name="pooled", path=str(feature_files[suffix]))
    packed, reference = prepare_features(replace(digits, labels=None), chosen, tmp_path, CPU)
    images = to_float(digits.held_out_images[:7])
    with torch.no_grad():
        expected = pooled(images).numpy()
        rows = pooled(to_float(digits.images)).numpy()
    np.testing.assert_allclose(packed.unpack(CPU)(images), expected, atol=1e-6)
    np.testing.assert_allclose(reference.mean, rows.mean(0), atol=1e-5)
    assert reference.features == "pooled"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real-pooled.npz", "reference-pooled.npz"]


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_a_feature_file_that_is_something_else_is_refused_and_not_executed(
    tmp_path: Path, trap: tuple[object, Path], suffix: str
) -> None:
    bomb, witness = trap
    file = io.BytesIO()
    torch.save({"weights": bomb}, file)
    for content in (pickle.dumps(bomb), file.getvalue(), b"", b"no network", b"PK\3\4"):
        path = tmp_path / f"features{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"'pooled' is neither TorchScript \(\.pt\) nor torch\.export") as caught:
            pack_features(FeatureSettings(name="pooled", path=str(path)), tmp_path).unpack(CPU)
        assert "\n" not in str(caught.value)
    assert not witness.exists()


def with_entry(path: Path, ending: str, content: bytes) -> bytes:
    """Return the archive at `path` with one entry replaced, or added."""
    changed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        names = old.namelist()
        target = next((name for name in names if name.endswith(ending)), f"{names[0].split('/')[0]}/{ending}")
        for name in names:
            if name != target:
                new.writestr(name, old.read(name))
        new.writestr(target, content)
    return changed.getvalue()


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("ending", "pack", "reason"),
    [
        ("data/sample_inputs/model.pt", saved, ""),
        ("data/constants/opaque_obj_0", pickle.dumps, "holds more than tensors and a graph: .*opaque_obj_0"),
        ("data/aotinductor/model/library.so", pickle.dumps, "holds more than tensors and a graph: .*library.so"),
    ],
)
def test_an_export_file_that_holds_more_than_tensors_is_refused_and_not_executed(
    feature_files: dict[str, Path],
    trap: tuple[object, Path],
    ending: str,
    pack: Callable[[object], bytes],
    reason: str,
) -> None:
    bomb, witness = trap
    content = with_entry(feature_files[".pt2"], ending, pack(bomb))
    before = dict(os.environ)
    with pytest.raises(InputError, match=f"neither TorchScript .*{reason}"):
        PackedFeatures(FeatureSettings(name="pooled", path="pooled.pt2"), content).unpack(CPU)
    assert not witness.exists()
    assert dict(os.environ) == before


def test_two_files_of_one_name_are_told_apart(feature_files: dict[str, Path], tmp_path: Path) -> None:
    packed = [pack_features(FeatureSettings(name="pooled", path=str(p)), tmp_path) for p in feature_files.values()]
    assert packed[0].digest != packed[1].digest


def test_a_missing_feature_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no feature file at .*gone\.pt"):
        pack_features(FeatureSettings(name="pooled", path=str(tmp_path / "gone.pt")), tmp_path)


def test_features_that_are_no_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.pt"
    torch.jit.trace(nn.Identity(), torch.zeros(1, 1, 8, 8)).save(str(path))
    features = pack_features(FeatureSettings(name="raw", path=str(path)), tmp_path).unpack(CPU)
    with pytest.raises(InputError, match=r"'raw' gave 4 axes; rows \[images, features\] are needed"):
        features(torch.zeros(2, 1, 8, 8))


class Returns(nn.Module):
    """The flat images, returned in one of the ways that feature networks have."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> object:
        rows = x.flatten(1)
        if self.way == "batch norm":
            return rows - rows.mean(0)
        if self.way == "dropout":
            return nn.functional.dropout(rows, 0.5, True)
        returned: dict[str, object] = {
            "list": [rows],
            "tuple": (rows,),
            "mapping": {"features": rows},
            "maps": rows[:, :, None, None],
            "half": rows.half(),
            "nested": [{"rows": (rows,)}],
            "two": [rows, rows],
            "names": {"a": rows, "b": rows.mean()},
            "one row": rows.mean(0, keepdim=True),
            "one axis": rows.mean(1),
            "text": "rows",
            "nan": rows / 0,
            "constant": rows * 0,
            "none": rows[:, :0],
            "complex": rows * 1j,
        }
        return returned[self.way]


def tried(way: str) -> int:
    features = FeatureNetwork("mine", lambda levels: Returns(way)(levels / 127.5 - 1), CPU)  # type: ignore[arg-type, return-value]
    images = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return try_features(features, images, "mine")


@pytest.mark.parametrize("way", ["list", "tuple", "mapping", "maps", "half", "nested"])
def test_features_in_other_containers_are_rows(way: str) -> None:
    assert tried(way) == 4


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("two", r"gave 2 outputs \(\[2, 4\], \[2, 4\]\)"),
        ("names", r"gave 2 outputs \(a: \[2, 4\], b: \[\]\)"),
        ("one row", "gave 1 rows of 4 for 2 images"),
        ("one axis", "gave 1 axis; rows"),
        ("text", "gave str; rows"),
        ("nan", "not finite"),
        ("constant", "are constant: the same for 5 different images"),
        ("none", "gave 2 rows of 0 for 2 images"),
        ("complex", "gave torch.complex64; rows"),
        ("batch norm", "depend on the other images of the call"),
        ("dropout", "differ between two calls"),
    ],
)
def test_what_is_not_one_lasting_row_per_image_is_refused(way: str, says: str) -> None:
    with pytest.raises(InputError, match=f"^features 'mine' .*{says}") as caught:
        tried(way)
    assert "\n" not in str(caught.value)


def test_a_scripted_list_and_weights_in_float16_are_taken(digits: ImageData, tmp_path: Path) -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(64, 3).half()

        def forward(self, x: Tensor) -> list[Tensor]:
            return [self.project(x.flatten(1))]

    torch.jit.script(Listed()).save(str(tmp_path / "f.pt"))
    settings = FeatureSettings(name="mine", path=str(tmp_path / "f.pt"))
    check_features(digits, settings)
    rows = pack_features(settings, tmp_path).unpack(CPU)(to_float(digits.images[:3]))
    assert (rows.shape, rows.dtype) == ((3, 3), np.float32)


# --- statistics from elsewhere ----------------------------------------------------------------------------------------


@pytest.fixture
def own(feature_files: dict[str, Path], digits: ImageData, tmp_path: Path) -> Path:
    """Return the statistics file that the product itself makes."""
    prepare_features(digits, FeatureSettings(name="pooled", path=str(feature_files[".pt"])), tmp_path / "own", CPU)
    return tmp_path / "own" / "reference-pooled.npz"


def prepare_with(
    reference: Path, feature_file: Path, data: ImageData, directory: Path
) -> tuple[PackedFeatures, Reference]:
    settings = FeatureSettings(name="pooled", path=str(feature_file), reference=str(reference))
    check_features(data, settings)
    return prepare_features(data, settings, directory, CPU)


def test_statistics_as_the_field_exchanges_them_are_the_reference_and_named_in_the_features(
    feature_files: dict[str, Path], own: Path, digits: ImageData, tmp_path: Path
) -> None:
    made = Reference.load(own)
    path = tmp_path / "digits-train.npz"
    np.savez(path, mu=made.mean, sigma=made.covariance)
    packed, reference = prepare_with(path, feature_files[".pt"], digits, tmp_path / "new")
    assert np.array_equal(reference.mean, made.mean)
    assert np.array_equal(reference.covariance, made.covariance)
    assert packed.name == f"pooled against digits-train ({made.content[:8]}, unknown images)"
    assert packed.unpack(CPU).name == packed.name  # what the tables say
    assert not (tmp_path / "new").exists()
    np.savez(path, mu=made.mean + 1, sigma=made.covariance)
    other, _ = prepare_with(path, feature_files[".pt"], digits, tmp_path / "new")
    assert other.name != packed.name


def test_our_own_statistics_of_the_same_images_need_no_remark_and_of_others_do(
    feature_files: dict[str, Path], own: Path, digits: ImageData, tmp_path: Path
) -> None:
    packed, reference = prepare_with(own, feature_files[".pt"], digits, tmp_path)
    assert packed.name == "pooled"
    assert reference.count == len(digits.images)
    packed, _ = prepare_with(own, feature_files[".pt"], replace(digits, fingerprint="0" * 64), tmp_path)
    assert packed.name == f"pooled against reference-pooled ({reference.content[:8]})"
    # Of the same images but of features that nobody knows: that is worth a remark, too.
    replace(reference, digest="").save(tmp_path / "a.npz")
    assert prepare_with(tmp_path / "a.npz", feature_files[".pt"], digits, tmp_path)[0].name.startswith("pooled against")


def test_statistics_of_other_features_are_refused(
    feature_files: dict[str, Path], own: Path, digits: ImageData, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"reference-pooled\.npz was made with other features \('pooled'\)"):
        prepare_with(own, feature_files[".pt2"], digits, tmp_path)
    path = tmp_path / "wide.npz"
    np.savez(path, mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(InputError, match=r"statistics of 2048 features, but 'pooled' gives 3 an image"):
        prepare_with(path, feature_files[".pt"], digits, tmp_path)


def test_what_cannot_serve_is_noticed_before_anything_is_trained(
    feature_files: dict[str, Path], digits: ImageData, tmp_path: Path
) -> None:
    def refused(path: Path, reference: Path | None = None, data: ImageData = digits) -> str:
        given = FeatureSettings(name="pooled", path=str(path), reference=None if reference is None else str(reference))
        with pytest.raises(InputError) as caught:
            check_features(data, given)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    check_features(digits, FeatureSettings(name="pooled", path=str(feature_files[".pt"])))
    assert "no reference statistics at" in refused(feature_files[".pt"], tmp_path / "gone.npz")
    np.savez(tmp_path / "wide.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    assert "statistics of 2048 features" in refused(feature_files[".pt2"], tmp_path / "wide.npz")
    colour = replace(digits, images=digits.images.repeat(3, axis=1))
    for path in feature_files.values():
        assert "'pooled' can't take images of 3x8x8: " in refused(path, data=colour)
    (tmp_path / "weights.pth").write_bytes(b"")
    assert "is not a state dict (.pth)" in refused(tmp_path / "weights.pth")


# --- features of real images ------------------------------------------------------------------------------------------


def test_features_of_real_images_are_a_fixed_draw_kept_beside_the_reference(
    feature_files: dict[str, Path], digits: ImageData, tmp_path: Path
) -> None:
    few = FeatureSettings(name="pooled", path=str(feature_files[".pt"]), real_images=40)
    packed, reference = prepare_features(digits, few, tmp_path, CPU)
    kept = tmp_path / "real-pooled.npz"
    made = kept.stat().st_mtime_ns
    rows = real_features(digits, packed, reference, tmp_path, CPU)
    assert rows is not None
    assert kept.stat().st_mtime_ns == made  # a by-product of the reference
    every = packed.unpack(CPU)(to_float(digits.images))
    assert rows.shape == (40, 3)
    nearest = np.abs(every[None] - rows[:, None]).sum(2).argmin(1)
    np.testing.assert_allclose(rows, every[nearest], atol=1e-6)
    assert len(set(nearest)) == 40
    more = replace(packed, settings=few.model_copy(update={"real_images": 10**6}))
    all_rows = real_features(digits, more, reference, tmp_path, CPU)
    assert all_rows is not None
    assert len(all_rows) == len(digits.images)
    np.testing.assert_allclose(all_rows[:40], rows, atol=1e-6)  # a smaller draw is the first part of a larger one
    np.testing.assert_allclose(np.sort(all_rows, 0), np.sort(every, 0), atol=1e-6)
    kept.unlink()  # as where the reference is older
    again = real_features(digits, packed, reference, tmp_path, CPU)
    assert again is not None
    np.testing.assert_allclose(again, rows, atol=1e-6)
    other = replace(digits, fingerprint="0" * 64)
    of_other = replace(reference, data_fingerprint=other.fingerprint)
    assert real_features(other, packed, of_other, tmp_path, CPU) is not None
    assert kept.stat().st_mtime_ns != made  # those of other data are not taken


def test_statistics_alone_have_no_features_of_real_images(
    feature_files: dict[str, Path], own: Path, digits: ImageData, tmp_path: Path
) -> None:
    made = Reference.load(own)
    np.savez(tmp_path / "theirs.npz", mu=made.mean, sigma=made.covariance)
    settings = FeatureSettings(
        name="pooled", path=str(feature_files[".pt"]), reference=str(tmp_path / "theirs.npz"), real_images=20
    )
    packed, reference = prepare_features(digits, settings, tmp_path / "new", CPU)
    assert real_features(digits, packed, reference, tmp_path / "new", CPU) is None
    assert not (tmp_path / "new").exists()
    # Our own file of the very images that are at hand says which they are.
    known = settings.model_copy(update={"reference": str(own)})
    packed, reference = prepare_features(digits, known, tmp_path / "new", CPU)
    assert real_features(digits, packed, reference, tmp_path / "new", CPU) is not None


# --- a classifier that has learnt nothing -----------------------------------------------------------------------------


@pytest.mark.parametrize("examine", ["refuse", "warn", "skip"])
def test_labels_that_the_images_do_not_show_make_no_features(digits: ImageData, tmp_path: Path, examine: str) -> None:
    random = np.random.RandomState(0)
    assert digits.held_out_labels is not None
    few = replace(
        digits,
        images=digits.images[:256],
        labels=random.randint(0, 10, 256),
        held_out_labels=random.randint(0, 10, len(digits.held_out_labels)),
    )
    settings = FeatureSettings(name="classifier", classifier_epochs=1, examine=examine)  # type: ignore[arg-type]
    if examine != "refuse":
        train_classifier(few, settings, tmp_path)
        return
    with pytest.raises(InputError, match="has learnt nothing: on 180 held-out images of 10 classes"):
        train_classifier(few, settings, tmp_path)
    with pytest.raises(InputError, match="all training images are of one class"):
        train_classifier(replace(few, labels=np.zeros(256, np.int64)), settings, tmp_path)
