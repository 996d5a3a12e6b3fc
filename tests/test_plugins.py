"""Names of parts: ours, entry points and import paths; what is refused, and in which words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stepfront import plugins
from stepfront.errors import InputError
from stepfront.plugins import FAMILIES, FEATURES, FORMATS, PROXIES, SOLVERS, Registry, is_import_path
from stepfront.trainers.config import DataSettings, SamplerSettings, TrainerSettings
from stepfront.trainers.validation import validate

ALL = (FAMILIES, FORMATS, FEATURES, SOLVERS, PROXIES)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Put a module on the path, and an installed package's entry points."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def make(package: str, code: str, points: str = "") -> None:
        (tmp_path / f"{package}.py").write_text(code)
        info = tmp_path / f"{package}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(points)
        plugins._entry_points.cache_clear()

    yield make
    plugins._entry_points.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("registry", ALL, ids=lambda registry: registry.group)
def test_our_own_parts_are_found_like_those_of_others(registry: Registry) -> None:
    for name, path in registry.ours.items():
        assert is_import_path(path)
        assert registry.load(name) is registry.load(path)


def test_groups_and_kinds_differ() -> None:
    assert len({registry.group for registry in ALL}) == len({registry.kind for registry in ALL}) == len(ALL)


def test_an_import_path_names_a_users_function(install: Callable[..., None]) -> None:
    install("mine_a", "class Box:\n    @staticmethod\n    def solve(schedule, times): return times\n")
    assert SOLVERS.load("mine_a:Box.solve")(None, 3) == 3
    assert validate(SamplerSettings, {"solver": "mine_a:Box.solve"}).solver == "mine_a:Box.solve"


def test_an_entry_point_names_a_users_function(install: Callable[..., None]) -> None:
    points = "[stepfront.solvers]\neuler = mine_b:euler\nddim = mine_b:euler\n[stepfront.formats]\nfits = mine_b:read\n"
    install("mine_b", "def euler(schedule, times): return 'euler'\n", points)
    assert SOLVERS.load("euler")(None, None) == "euler"
    assert "euler" in SOLVERS.possible
    assert SOLVERS.load("ddim") is SOLVERS.load(SOLVERS.ours["ddim"])  # our names stay ours
    assert validate(DataSettings, {"format": "fits"}).path is None  # whether a path is needed is the reader's to decide
    assert "mine_b" not in sys.modules or FORMATS.check("fits") == "fits"


def test_two_packages_of_one_name_are_refused(install: Callable[..., None]) -> None:
    install("mine_c", "", "[stepfront.solvers]\nheun = mine_c:heun\n")
    install("mine_d", "", "[stepfront.solvers]\nheun = mine_d:heun\n")
    with pytest.raises(
        InputError, match=r"two installed packages register the solver 'heun': mine_.:heun and mine_.:heu"
    ):
        SOLVERS.check("heun")


def test_checking_a_name_imports_nothing(install: Callable[..., None]) -> None:
    install("mine_e", "raise SystemError('imported')\n", "[stepfront.proxies]\nlucky = mine_e:lucky\n")
    assert [PROXIES.check(name) for name in ("gap", "lucky", "mine_e:x")] == ["gap", "lucky", "mine_e:x"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "euler",
            "unknown solver 'euler'; possible: ddim, ddpm, .*, deis_3, or your own function as package",
        ),
        (
            "no.such:euler",
            r"can't import the solver 'no.such:euler' \(ModuleNotFoundError: No module named 'no'\);.*PATH",
        ),
        (
            "json:euler",
            r"can't import the solver 'json:euler' \(AttributeError: module 'json' has no attribute 'euler'",
        ),
        ("math:pi", "the solver 'math:pi' is not callable but float"),
        ("mine_f:euler", r"can't import the solver 'mine_f:euler' \(SyntaxError: "),
    ],
)
def test_what_is_no_part_is_refused_in_one_line(install: Callable[..., None], name: str, message: str) -> None:
    install("mine_f", "def euler(:\n")
    with pytest.raises(InputError, match=message) as caught:
        SOLVERS.load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("network.family", "network family"),
        ("data.format", "dataset format"),
    ],
)
def test_settings_refuse_a_name_that_nothing_has(key: str, kind: str) -> None:
    group, name = key.split(".")
    with pytest.raises(InputError, match=f"^{key}: unknown {kind} 'nothing'; possible: .*package.module:function"):
        validate(TrainerSettings, {group: {name: "nothing"}})


def test_features_without_a_file_are_ours_or_a_users() -> None:
    assert validate(TrainerSettings, {"features": {"name": "mine:Features"}}).features.is_file is False
    assert validate(TrainerSettings, {"features": {"name": "inception", "path": "a.pth"}}).features.is_file
    with pytest.raises(InputError, match="features 'inception' need a path; without one possible: auto, degradations"):
        validate(TrainerSettings, {"features": {"name": "inception"}})


def test_settings_are_checked_without_heavy_imports() -> None:
    code = (
        "import sys\nfrom stepfront.search.config import settings_from\n"
        "settings_from({'sampler': {'solver': 'mine:euler'}, 'network': {'family': 'mine:build'}})\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'pandas', 'mine'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
