"""Build and install the package as a user does, and check the files that describe the project."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import warnings
import zipfile
from pathlib import Path

import pytest
import yaml

from stepfront.version import __version__

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ["src", "search", "trainers", "dashboards", "tests"]
FILES = ["pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"]
PACKAGES = ["search", "trainers", "dashboards"]

DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Names of distributions that differ from the name that is imported."""

SMALL_QUICKSTART = {
    "training.steps": "2",
    "training.batch": "16",
    "features.name": "random",
    "features.examine": "skip",
    "features.real_images": "64",
    "sampler.solver": "ddim",
    "sampler.steps": "4",
    "space.stages": "2",
    "initial_plans": "{uniform: 2}",
    "budget.trials": "3",
    "variation.population": "4",
    "evaluation.images": "16",
    "evaluation.noise_repeats": "0",
    "evaluation.samplers": "false",
    "confirm.images": "16",
    "confirm.seeds": "2",
    "confirm.max_seeds": "2",
    "confirm.features.training_steps": "2",
    "confirm.features.examine": "skip",
    "workers.count": "1",
    "tracking.uri": "null",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources without build outputs, with links left as links."""
    copy = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of the checkout."""
    return built_wheel(checkout, tmp_path_factory.mktemp("wheel"))


def built_wheel(source: Path, out: Path) -> Path:
    run(sys.executable, "-m", "pip", "wheel", *OFFLINE, "--no-build-isolation", "-w", str(out), str(source), cwd=out)
    (wheel,) = out.glob("*.whl")
    return wheel


OFFLINE = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]


def run(*command: str, cwd: Path) -> str:
    """Return what the command printed; it sees no path of this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder.parent)) for path in folder.rglob("*.py")}


def test_a_wheel_puts_one_name_into_an_environment(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"stepfront", f"stepfront-{__version__}.dist-info"}
    own = {f"stepfront/{name}" for package in PACKAGES for name in python_files(ROOT / package)}
    own |= python_files(ROOT / "src" / "stepfront")
    assert own <= set(names), "every module is in the wheel"
    presets = {f"stepfront/search/presets/{path.name}" for path in (ROOT / "search" / "presets").glob("*.yaml")}
    assert presets
    assert presets | {"stepfront/py.typed", f"stepfront-{__version__}.dist-info/licenses/LICENSE"} <= set(names)


def test_configs_are_the_presets_of_the_wheel() -> None:
    presets = sorted((ROOT / "search" / "presets").glob("*.yaml"))
    names = ["cifar10", "digits", "fashion_mnist", "imagenet64", "imagenet_256_dit_xl2"]
    names += ["lsun_bedroom_256_ldm", "stable_diffusion_15"]
    assert [path.stem for path in presets] == names
    links = [path for path in sorted((ROOT / "configs").iterdir()) if path.is_symlink()]  # others are examples
    assert [path.resolve() for path in links] == presets


def test_a_source_distribution_holds_files_in_place_of_links_and_builds_the_same_wheel(
    checkout: Path, wheel: Path, tmp_path: Path
) -> None:
    run(sys.executable, "-c", f"import setuptools.build_meta as b; b.build_sdist({str(tmp_path)!r})", cwd=checkout)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        assert not [member.name for member in tar.getmembers() if member.issym()]
        assert not [name for name in tar.getnames() if "/tests/" in name]
    again = built_wheel(archive, tmp_path)
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment that holds the wheel and sees this one's dependencies, but not this checkout.

    The dependencies' folder is named in a .pth file.  Python does not read the .pth files within such a folder, among
    them that of an editable installation.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", str(python), "install", *OFFLINE, str(wheel), cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_installed_package_is_imported_from_its_own_environment(environment: Path, tmp_path: Path) -> None:
    code = "import stepfront, stepfront.search, stepfront.trainers, stepfront.dashboards; print(stepfront.__file__)"
    where = run(str(environment / "bin" / "python"), "-c", code, cwd=tmp_path).strip()
    assert Path(where).is_relative_to(environment)
    paths = run(str(environment / "bin" / "python"), "-c", "import sys; print(*sys.path, sep='\\n')", cwd=tmp_path)
    assert str(ROOT / "src") not in paths.splitlines()


def test_a_small_quickstart_runs_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    overrides = [part for key, value in SMALL_QUICKSTART.items() for part in ("--set", f"{key}={value}")]
    printed = run(str(environment / "bin" / "stepfront"), "quickstart", *overrides, cwd=tmp_path)
    assert "knee" in printed
    assert (tmp_path / "runs" / "digits" / "search" / "report.html").is_file()
    assert (tmp_path / "runs" / "digits" / "search" / "front.parquet").is_file()


def test_deprecations_and_experiments_of_ray_and_optuna_are_errors() -> None:
    from optuna._deprecated import deprecated_func
    from optuna._experimental import experimental_func
    from optuna.exceptions import ExperimentalWarning

    def old() -> int:
        return 1

    caller: dict[str, object] = {
        "__name__": "stepfront.search.algorithm.nsga2",
        "old": deprecated_func("4.0.0", "6.0.0")(old),
        "new": experimental_func("5.0.0")(old),
    }
    with pytest.raises(FutureWarning, match="deprecated"):
        exec("old()", caller)
    with pytest.raises(ExperimentalWarning, match="is experimental"):
        exec("new()", caller)
    for module in ("ray.tune.tuner", "optuna.study.study", "stepfront"):
        with pytest.raises(DeprecationWarning, match="old"):
            warnings.warn_explicit("old", DeprecationWarning, f"{module}.py", 1, module)
    warnings.warn_explicit("old", DeprecationWarning, "raymarching.py", 1, "raymarching")


def test_hooks_before_a_commit_run_the_checks_of_ci() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lines = (ROOT / "Makefile").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("check:"))
    checks = [line.strip().replace("$(BIN)", ".venv/bin") for line in lines[start + 1 : start + 4]]
    assert [hook["entry"] for hook in hooks] == checks
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["run"]["steps"]
    assert steps[-1]["run"] == ".ci/run"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_version_is_the_same_in_every_file_that_names_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == project["license"]
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_library_that_the_package_imports_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {extra: names_of(lines) for extra, lines in project["optional-dependencies"].items() if extra != "dev"}
    needed = names_of(project["dependencies"])
    assert len(needed) == len(set(needed)), "each dependency stands there once"
    optional = {name for names in extras.values() for name in names}
    files = [*(ROOT / "src" / "stepfront").rglob("*.py"), *(f for top in PACKAGES for f in (ROOT / top).rglob("*.py"))]
    libraries = {name for file in files for name in imported_libraries(file)}
    assert {"torch", "scipy", "pyyaml"} <= libraries
    assert libraries - set(needed) - optional == set(), "imported, but not declared in pyproject.toml"


def names_of(requirements: list[str]) -> list[str]:
    return [re.split(r"[\[<>=!~ ;]", line)[0].lower() for line in requirements]


def imported_libraries(file: Path) -> set[str]:
    """Return the distributions that a file imports, wherever in it."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module).partition(".")[0])
    return {DISTRIBUTIONS.get(name, name) for name in modules - set(sys.stdlib_module_names) - {"stepfront"}}
