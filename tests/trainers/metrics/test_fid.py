"""Moments and the Frechet distance, in closed form and against scipy and numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from stepfront.errors import InputError
from stepfront.trainers.metrics.fid import Moments, Reference, frechet_distance


def two_sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(0)
    n, d = 2000, 64
    first = rng.randn(n, d) @ (np.eye(d) + 0.1 * rng.randn(d, d))
    second = rng.randn(n, d) @ (np.eye(d) + 0.1 * rng.randn(d, d)) + 0.05
    return first, second


def by_scipy(mean: np.ndarray, cov: np.ndarray, other_mean: np.ndarray, other_cov: np.ndarray) -> float:
    root = scipy.linalg.sqrtm(cov @ other_cov)
    return float((mean - other_mean) @ (mean - other_mean) + np.trace(cov + other_cov - 2 * np.real(root)))


def random_covariance(rng: np.random.RandomState, size: int) -> np.ndarray:
    a = rng.randn(size, 3 * size)
    return a @ a.T / (3 * size)


def test_golden_number_of_five_implementations() -> None:
    a, b = two_sets()
    given = (a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    assert frechet_distance(*given) == pytest.approx(35.982629777500, abs=1e-8)
    ma, mb = Moments.of([a]), Moments.of([b[:700], b[700:]])
    assert frechet_distance(ma.mean, ma.covariance, mb.mean, mb.covariance) == pytest.approx(35.982629777500, abs=1e-8)
    assert Reference(ma.mean, ma.covariance, 2000, "", "", "").distance(mb) == pytest.approx(35.982629777500, abs=1e-8)


def test_equal_covariances_leave_the_squared_mean_difference() -> None:
    rng = np.random.RandomState(1)
    covariance, shift = random_covariance(rng, 16), rng.randn(16)
    expected = float(shift @ shift)
    assert frechet_distance(np.zeros(16), covariance, shift, covariance) == pytest.approx(expected, abs=1e-10)
    assert frechet_distance(shift, covariance, shift, covariance) == pytest.approx(0, abs=1e-10)


def test_diagonal_covariances_in_closed_form() -> None:
    a, b = np.linspace(0.5, 2, 8), np.linspace(1, 3, 8)
    expected = float(((np.sqrt(a) - np.sqrt(b)) ** 2).sum())
    assert expected == pytest.approx(0.719613824277, abs=1e-12)
    assert frechet_distance(np.zeros(8), np.diag(a), np.zeros(8), np.diag(b)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [1, 2, 10, 64])
def test_agrees_with_the_matrix_square_root_of_scipy_and_is_symmetric(size: int) -> None:
    rng = np.random.RandomState(size)
    given = (rng.randn(size), random_covariance(rng, size), rng.randn(size), 2 * random_covariance(rng, size))
    assert frechet_distance(*given) == pytest.approx(by_scipy(*given), rel=1e-9)
    assert frechet_distance(*given) == pytest.approx(frechet_distance(*given[2:], *given[:2]), rel=1e-9)


def test_singular_covariances_are_no_trouble() -> None:
    # Fewer images than dimensions, as few-image scores have; on the diagonal the closed form still holds.
    a, b = np.array([2.0, 0.0, 0.0]), np.array([0.5, 3.0, 0.0])
    expected = float(((np.sqrt(a) - np.sqrt(b)) ** 2).sum())
    assert frechet_distance(np.zeros(3), np.diag(a), np.zeros(3), np.diag(b)) == pytest.approx(expected, abs=1e-12)
    few = np.random.RandomState(2).randn(5, 40)
    moments = Moments.of([few])
    own = frechet_distance(moments.mean, moments.covariance, moments.mean, moments.covariance)
    assert own == pytest.approx(0, abs=1e-4)  # the root of rounding errors of 1e-16, 40 times


@pytest.mark.parametrize("sizes", [[100], [1] * 100, [50, 50], [1, 99], [33, 33, 33, 1], [7, 93]])
def test_streamed_moments_are_those_of_numpy_in_any_batches(sizes: list[int]) -> None:
    rows = np.random.RandomState(3).randn(100, 6) @ np.diag(np.arange(1.0, 7)) + 10
    moments = Moments.of(np.split(rows, np.cumsum(sizes)[:-1]))
    assert moments.count == 100
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T), rtol=1e-11, atol=1e-11)


def test_rows_that_are_added_after_a_look_at_the_covariance_count_in_the_mean() -> None:
    rows = np.random.RandomState(3).randn(20, 64) + np.repeat([0.0, 100.0], 10)[:, None]
    moments = Moments(64)
    moments.add(rows[:10])
    np.testing.assert_allclose(moments.covariance, np.cov(rows[:10].T), rtol=1e-11, atol=1e-11)
    moments.add(rows[10:])
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T), rtol=1e-11, atol=1e-11)


def test_moments_keep_their_precision_far_from_zero() -> None:
    rows = np.random.RandomState(4).randn(1000, 3)
    far = Moments.of(np.split(rows + 1e7, 10))
    # A plain sum of squares would be left with an error of about 1e14 * 1e-16 * 1000.
    np.testing.assert_allclose(far.covariance, np.cov((rows + 1e7).T), rtol=1e-7, atol=1e-7)


def test_float32_features_are_summed_in_float64() -> None:
    rows = (np.random.RandomState(5).rand(5000, 2) + 1000).astype(np.float32)
    moments = Moments.of(np.split(rows, 50))
    np.testing.assert_allclose(moments.covariance, np.cov(rows.astype(np.float64).T), rtol=1e-9, atol=1e-12)


def test_too_few_images_for_a_covariance_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2 images, given 1"):
        _ = Moments.of([np.zeros((1, 4))]).covariance
    with pytest.raises(InputError, match="no images"):
        Moments.of([])


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def reference() -> Reference:
    rng = np.random.RandomState(6)
    return Reference(rng.randn(5), random_covariance(rng, 5), 1797, "inception", "d" * 64, "f" * 64)


def test_reference_survives_its_file_bit_for_bit(reference: Reference, tmp_path: Path) -> None:
    path = tmp_path / "new" / "reference.npz"
    reference.save(path)
    loaded = Reference.load(path)
    assert np.array_equal(loaded.mean, reference.mean)
    assert np.array_equal(loaded.covariance, reference.covariance)
    assert (loaded.count, loaded.features, loaded.digest) == (1797, "inception", "d" * 64)
    assert loaded.data_fingerprint == "f" * 64
    with np.load(path) as file:  # the names under which the field exchanges statistics
        assert np.array_equal(file["mu"], reference.mean)
        assert np.array_equal(file["sigma"], reference.covariance)


def test_a_missing_reference_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no reference statistics at .*gone\.npz"):
        Reference.load(tmp_path / "gone.npz")


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "other arrays", "pickled"])
def test_a_damaged_reference_is_refused(reference: Reference, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "reference.npz"
    reference.save(path)
    whole = path.read_bytes()
    if damage == "other arrays":
        np.savez(path, mean=reference.mean)
    elif damage == "pickled":
        np.savez(path, mu=np.array([object()]), sigma=1, count=1, features="", digest="", data_fingerprint="")
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"no archive", "empty": b""}[damage])
    with pytest.raises(InputError, match=r"reference\.npz holds no reference statistics"):
        Reference.load(path)


def test_statistics_that_say_nothing_of_their_origin_are_read(reference: Reference, tmp_path: Path) -> None:
    path = tmp_path / "exchanged.npz"
    np.savez(path, mu=reference.mean.astype(np.float32), sigma=reference.covariance)
    loaded = Reference.load(path)
    np.testing.assert_array_equal(loaded.mean, reference.mean.astype(np.float32))
    assert loaded.mean.dtype == loaded.covariance.dtype == np.float64
    assert (loaded.count, loaded.features, loaded.digest, loaded.data_fingerprint) == (0, "", "", "")
    assert loaded.content != reference.content


@pytest.mark.parametrize(
    ("mean", "covariance", "reason"),
    [
        (np.zeros(3), np.eye(4), r"mu \[3\] and sigma \[4, 4\]; \[D\] and \[D, D\] needed"),
        (np.zeros((3, 1)), np.eye(3), r"mu \[3, 1\] and sigma \[3, 3\]"),
        (np.zeros(3), np.ones(3), r"mu \[3\] and sigma \[3\]"),
        (np.full(3, np.nan), np.eye(3), "some are not finite"),
        (np.zeros(3), np.full((3, 3), np.inf), "some are not finite"),
        (np.array(["a"]), np.eye(1), "could not convert"),
    ],
)
def test_statistics_of_another_form_are_refused(
    tmp_path: Path, mean: np.ndarray, covariance: np.ndarray, reason: str
) -> None:
    np.savez(tmp_path / "a.npz", mu=mean, sigma=covariance)
    with pytest.raises(InputError, match=rf"a\.npz holds no reference statistics: .*{reason}"):
        Reference.load(tmp_path / "a.npz")


# --- fewer images than dimensions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 7, 63, 64, 65, 200])
@pytest.mark.parametrize("reference_rows", [20, 3000])
def test_the_distance_of_few_images_is_that_of_their_moments(count: int, reference_rows: int) -> None:
    rng = np.random.default_rng(count)
    real, made = rng.normal(size=(reference_rows, 64)) @ rng.normal(size=(64, 64)), 2 * rng.normal(size=(count, 64)) + 1
    reference = Reference(real.mean(0), np.cov(real.T), reference_rows, "", "", "")  # of 20 rows it is singular
    moments = Moments.of(made[i : i + 9] for i in range(0, count, 9))
    assert (moments.factor is not None) == (count <= 64)
    expected = frechet_distance(reference.mean, reference.covariance, made.mean(0), np.cov(made.T))
    assert reference.distance(moments) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [5, 16, 17, 40])
def test_moments_are_the_same_before_and_after_the_rows_are_let_go(count: int) -> None:
    rows = np.random.default_rng(0).normal(3, 2, (count, 16))
    moments = Moments.of(rows[i : i + 4] for i in range(0, count, 4))
    for _ in range(2):  # asking for the covariance merges the rows
        assert moments.mean == pytest.approx(rows.mean(0), rel=1e-12)
        assert moments.covariance == pytest.approx(np.cov(rows.T), rel=1e-9, abs=1e-12)


def test_the_triangle_is_a_root_of_a_singular_covariance_too() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 16))
    reference = Reference(rows.mean(0), np.cov(rows.T), 5, "", "", "")
    assert reference.triangle.T @ reference.triangle == pytest.approx(reference.covariance, abs=1e-12)
    assert np.array_equal(reference.triangle, np.triu(reference.triangle))
