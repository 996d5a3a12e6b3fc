"""Which room may import which: a table for every file, imports inside functions included."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.imports import (
    arrows_of,
    imports_by_string,
    libraries_of,
    module_strings,
    nodes_of,
    source_of,
    unresolved,
    with_parents,
)

ROOT = Path(__file__).resolve().parents[1]
TOP_FOLDERS = ("search", "trainers", "dashboards")

MAY_IMPORT: dict[str, str] = {
    # room: the rooms below it that it may import.  A room that stands further up is never named in a line.
    "stepfront": "search/api search/cli ground",  # `import stepfront` and `python -m stepfront`
    "testing": """search/algorithm search/genomes trainers/sampler_learning trainers/inference trainers/metrics
        trainers/diffusion trainers/networks trainers/data trainers/ground ground""",  # checks of a user's own parts
    "search/cli": """search/earlier
        search/api search/checks search/adaptation search/driver search/extending search/fitting search/scoring
        search/claims search/export
        search/execution
        search/tracking search/jobs search/records search/storage search/ground search/presets dashboards
        dashboards/terminal dashboards/claim dashboards/earlier dashboards/figures dashboards/formatting
        trainers/interop trainers/inference trainers/networks trainers/data trainers/ground tables ground""",
    "search/api": """search/adaptation search/driver search/scoring search/export search/problem search/records
        search/storage
        search/ground dashboards dashboards/terminal dashboards/figures trainers/training trainers/networks
        tables ground""",
    "search/checks": """search/driver search/scoring search/problem search/execution search/study search/tracking
        search/mlflow_runs search/records search/storage search/ground trainers/latents trainers/metrics
        trainers/diffusion trainers/networks trainers/data trainers/ground tables ground""",
    "search/adaptation": """search/driver search/scoring search/training search/tracking search/mlflow_runs
        search/records search/storage search/ground trainers/adaptation trainers/baselines trainers/training
        trainers/latents trainers/inference trainers/metrics trainers/networks trainers/data trainers/ground tables
        ground""",  # what `stepfront adapt` does
    "search/driver": """search/extending search/earlier search/scoring search/fitting search/learning search/problem
        search/training search/execution search/study
        search/initial_plans search/algorithm search/genomes
        search/tracking search/mlflow_runs search/observers search/records search/storage search/ground dashboards
        dashboards/summary dashboards/terminal dashboards/claim dashboards/figures dashboards/formatting
        trainers/evaluator trainers/evaluation trainers/baselines trainers/training trainers/latents
        trainers/inference trainers/metrics trainers/diffusion
        trainers/networks trainers/data trainers/ground tables ground""",
    "search/extending": """search/problem search/study search/earlier search/algorithm search/genomes search/records
        search/storage search/ground search/settings trainers/ground ground""",  # more budget, and larger spaces
    "search/scoring": """search/claims search/problem search/execution search/study search/initial_plans
        search/algorithm search/genomes search/records search/storage search/ground trainers/inference trainers/metrics
        trainers/diffusion trainers/evaluation tables ground""",
    "search/fitting": """search/learning search/problem search/execution search/study search/algorithm search/records
        search/ground trainers/adaptation trainers/evaluation trainers/inference trainers/diffusion trainers/networks
        trainers/ground ground""",
    "search/learning": """search/earlier search/problem search/execution search/records search/ground trainers/evaluator
        trainers/sampler_learning trainers/inference trainers/metrics trainers/diffusion trainers/networks
        trainers/data trainers/ground dashboards/formatting tables ground""",
    "search/export": """search/problem search/mlflow_runs search/records dashboards/claim dashboards trainers/latents
        trainers/network_families trainers/diffusion trainers/networks trainers/ground tables ground""",
    "search/problem": """search/earlier
        search/execution search/step_tables search/initial_plans search/algorithm search/genomes search/records
        search/storage search/ground search/settings trainers/evaluator trainers/sampler_learning trainers/latents
        trainers/inference trainers/metrics trainers/step_losses trainers/diffusion trainers/networks trainers/data
        trainers/ground tables ground""",
    "search/step_tables": """trainers/step_losses trainers/diffusion trainers/networks trainers/data trainers/ground
        ground""",  # what is measured once per search and stored with it
    "search/claims": "search/ground ground",  # what confirmed scores show
    "search/training": """search/execution search/ground trainers/training trainers/latents trainers/networks
        trainers/data trainers/ground ground""",  # trainings on Ray workers
    "search/execution": """search/study search/records search/ground trainers/evaluator trainers/evaluation
        trainers/inference trainers/diffusion trainers/networks trainers/data
        trainers/ground tables ground""",
    "search/study": """search/algorithm search/genomes search/records search/ground trainers/evaluation
        trainers/diffusion trainers/ground tables ground""",
    "search/initial_plans": "search/earlier search/algorithm search/genomes search/records search/ground tables ground",
    "search/earlier": """search/algorithm search/genomes search/mlflow_runs search/records search/storage search/ground
        trainers/diffusion trainers/ground tables ground""",  # what other searches learnt
    "search/algorithm": "search/genomes search/records search/ground trainers/diffusion trainers/ground tables ground",
    "search/genomes": "search/ground trainers/diffusion trainers/ground tables ground",  # how plans are encoded
    "search/tracking": """search/mlflow_runs search/records search/storage search/ground trainers/training
        trainers/diffusion trainers/networks trainers/data trainers/ground tables ground""",
    "search/mlflow_runs": "search/ground tables ground",
    "search/observers": "search/ground trainers/ground tables ground",
    "search/jobs": "search/records search/storage search/ground trainers/networks trainers/ground ground",
    "search/records": "search/storage search/ground trainers/diffusion trainers/networks trainers/ground tables ground",
    "search/storage": "search/ground trainers/networks trainers/ground ground",
    "search/presets": "ground",
    "search/ground": "search/settings trainers/ground ground",  # config, pareto and other single files of search/
    "search/settings": "trainers/ground tables ground",  # groups of settings, YAML and --set; config.py is above
    "dashboards": """dashboards/sections dashboards/terminal dashboards/html dashboards/summary dashboards/claim
        dashboards/figures dashboards/formatting tables ground""",
    "dashboards/terminal": "dashboards/formatting tables ground",
    "dashboards/sections": """dashboards/html dashboards/summary dashboards/claim dashboards/score_figures
        dashboards/figures dashboards/formatting tables ground""",
    "dashboards/score_figures": "dashboards/figures dashboards/formatting tables ground",
    "dashboards/html": "ground",
    "dashboards/summary": "dashboards/claim dashboards/earlier dashboards/formatting tables ground",
    "dashboards/claim": "dashboards/formatting tables ground",
    "dashboards/earlier": "dashboards/formatting tables ground",
    "dashboards/figures": "dashboards/formatting tables ground",
    "dashboards/formatting": "",
    "trainers/evaluator": """trainers/evaluation trainers/latents trainers/inference trainers/metrics trainers/diffusion
        trainers/networks trainers/data trainers/ground ground""",
    "trainers/evaluation": "ground",  # the record of one evaluation
    "trainers/sampler_learning": "trainers/diffusion trainers/networks trainers/data trainers/ground ground",
    "trainers/step_losses": "trainers/diffusion trainers/networks trainers/data trainers/ground ground",
    "trainers/adaptation": """trainers/interop trainers/training trainers/networks trainers/data trainers/ground
        ground""",  # a second training per group of times
    "trainers/baselines": "trainers/training trainers/inference trainers/ground ground",
    "trainers/training": """trainers/latents trainers/inference trainers/diffusion trainers/networks trainers/data
        trainers/ground ground""",  # forward passes run as the engines of inference do
    "trainers/latents": "trainers/interop trainers/metrics trainers/networks trainers/data trainers/ground ground",
    "trainers/interop": """trainers/network_families trainers/diffusion trainers/networks trainers/data trainers/ground
        ground""",
    "trainers/inference": "trainers/diffusion trainers/networks trainers/data trainers/ground ground",
    "trainers/solvers": "trainers/diffusion",
    "trainers/network_families": "trainers/networks trainers/ground ground",
    "trainers/feature_networks": "trainers/metrics trainers/networks trainers/data trainers/ground ground",
    "trainers/metrics": "trainers/data trainers/ground ground",
    "trainers/diffusion": "trainers/networks trainers/data trainers/ground ground",
    "trainers/networks": "trainers/ground ground",
    "trainers/data": "trainers/ground ground",
    "trainers/ground": "ground",  # config, training_settings, learning_settings and devices
    "tables": "ground",
    "ground": "",  # the single files of src/stepfront/
}

MAY_IMPORT_LIBRARY: dict[str, set[str]] = {
    "ray": {
        "search/learning",
        "search/training",
        "search/execution",
        "search/problem",
        "search/jobs",
        "search/checks",
        "search/cli",
    },
    "optuna": {"search/study", "search/algorithm", "search/ground", "testing"},
    "mlflow": {"search/tracking", "search/mlflow_runs", "search/export"},
    "typer": {"search/cli"},
    "plotly": {"dashboards/html", "dashboards/score_figures", "dashboards/figures", "search/api"},
    "matplotlib": {"dashboards/figures"},
    "diffusers": {"trainers/latents", "trainers/interop", "trainers/network_families", "search/export"},
    "transformers": {"trainers/interop"},
    "torch": {
        *(
            "search/checks",
            "search/fitting",
            "search/records",
            "search/learning",
            "search/earlier",
            "search/training",
            "search/scoring",
            "search/export",
            "search/problem",
            "testing",
        ),
        *("search/step_tables", "trainers/step_losses"),
        *(
            "trainers/adaptation",
            "trainers/evaluator",
            "trainers/training",
            "trainers/latents",
            "trainers/interop",
            "trainers/inference",
        ),
        *(
            "trainers/feature_networks",
            "trainers/metrics",
            "trainers/solvers",
            "trainers/network_families",
            "trainers/sampler_learning",
            "trainers/diffusion",
            "trainers/networks",
            "trainers/data",
            "trainers/ground",
        ),
    },
}

KNOWN: set[tuple[str, str]] = set()
"""Arrows (module, module) that the table forbids and that are still to be removed."""

PACKAGES_THAT_IMPORT = {
    *("stepfront", "stepfront.testing", "stepfront.dashboards.figures", "stepfront.trainers.data"),
    "stepfront.search.presets",
}
"""Packages that offer names of their modules; importing a module of a package runs the package first."""

IMPORT_BY_STRING = {"stepfront", "stepfront.plugins"}
"""Modules that import modules by a string: the Python API at its first use, and parts found by their names."""

MODULE_STRINGS = {
    (
        "stepfront.trainers.metrics.feature_set",
        "stepfront.trainers.feature_networks.feature_files:FeatureFile",
    ),  # a plugin
    ("stepfront.search.tracking.writer_process", "stepfront.search.tracking.writer_process"),  # `python -m`
}
"""String literals (module, text) that name modules; the table of imports does not see them."""

BARE_NAMES = {*TOP_FOLDERS, "src"}

SEARCH_GROUND = {"commented_settings", "config", "objectives", "pareto", "optuna_internals", "settings_reference"}


def find_modules() -> dict[str, Path]:
    """Return every module of the package by its name."""
    package = ROOT / "src" / "stepfront"
    modules = {}
    for folder, name in [(package, "stepfront"), *((ROOT / top, f"stepfront.{top}") for top in TOP_FOLDERS)]:
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            if folder == package and parts[0] in TOP_FOLDERS:
                continue  # the links of a checkout
            modules[".".join([name, *(part for part in parts if part != "__init__")])] = file
    return modules


def python_files(folder: Path) -> list[Path]:
    """Return the programs and notebooks of a folder."""
    return [file for file in sorted(folder.rglob("*")) if file.suffix in {".py", ".ipynb"}]


MODULES = find_modules()


def room_of(module: str) -> str:
    """Return the room of a module."""
    parts = module.split(".")[1:]
    if not parts or parts == ["__main__"]:
        return "stepfront"
    top, *rest = parts
    if top not in TOP_FOLDERS:
        return top if top in MAY_IMPORT else "ground"
    if not rest:
        return top if top == "dashboards" else f"{top}/ground"
    room = f"{top}/{rest[0]}"
    if room in MAY_IMPORT:
        return room
    if top == "dashboards":
        return top
    assert MODULES[f"stepfront.{top}.{rest[0]}"].name != "__init__.py", f"{room} is a room that the table lacks"
    return f"{top}/ground"


SOURCES = {module: file.read_text(encoding="utf-8") for module, file in MODULES.items()}


def arrows_from(module: str) -> set[str]:
    """Return the modules of the package that a module imports."""
    return arrows_of(module, SOURCES[module], MODULES)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_what_the_table_allows(room: str) -> None:
    allowed = {room, *MAY_IMPORT[room].split()}
    own = [module for module in MODULES if room_of(module) == room]
    assert own
    wrong = {(module, other) for module in own for other in arrows_from(module) if room_of(other) not in allowed}
    assert wrong - KNOWN == set()


def test_known_exceptions_exist() -> None:
    assert {(module, other) for module, other in KNOWN if other not in arrows_from(module)} == set()


def test_the_table_has_no_arrow_up() -> None:
    order = list(MAY_IMPORT)
    for room, rooms in MAY_IMPORT.items():
        below = set(order[order.index(room) + 1 :])
        later = set(rooms.split()) - below - {"search/presets"}
        assert later == set(), f"{room} stands below {sorted(later)}"
    list(TopologicalSorter({room: rooms.split() for room, rooms in MAY_IMPORT.items()}).static_order())


def test_modules_have_no_cycle() -> None:
    graph = {module: with_parents(module, arrows_from(module)) for module in MODULES}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError with the cycle
    place = {module: number for number, module in enumerate(order)}
    assert all(place[imported] < place[module] for module, arrows in graph.items() for imported in arrows)
    assert set(MODULES) <= set(order)


def test_packages_import_nothing_but_what_they_offer() -> None:
    importing = {module for module, file in MODULES.items() if file.name == "__init__.py" and arrows_from(module)}
    assert importing == PACKAGES_THAT_IMPORT


@pytest.mark.parametrize("module", MODULES)
def test_imports_of_the_package_exist(module: str) -> None:
    assert unresolved(SOURCES[module], SOURCES) == set()


def test_only_plugins_import_by_string() -> None:
    assert {module for module, source in SOURCES.items() if imports_by_string(source)} == IMPORT_BY_STRING


def test_strings_that_name_modules_are_known() -> None:
    strings = {module: module_strings(source, MODULES) for module, source in SOURCES.items()}
    wrong = {text for found in strings.values() for text in found if text.partition(":")[0] not in MODULES}
    assert wrong == set()
    naming = {(module, text) for module, found in strings.items() for text in found if module not in IMPORT_BY_STRING}
    assert naming == MODULE_STRINGS


def test_single_files_of_search_are_those_of_the_ground() -> None:
    files = {file.stem for file in (ROOT / "search").glob("*.py")} - {"__init__", "api"}
    assert files == SEARCH_GROUND


@pytest.mark.parametrize("library", MAY_IMPORT_LIBRARY)
def test_a_library_is_used_in_its_rooms_alone(library: str) -> None:
    users = {room_of(module) for module, source in SOURCES.items() if library in libraries_of(source)}
    assert users == MAY_IMPORT_LIBRARY[library]


def test_dashboards_need_no_torch() -> None:
    names = {name for module, source in SOURCES.items() if "dashboards" in module for name in libraries_of(source)}
    assert names & {"torch", "ray", "optuna", "mlflow"} == set()


def test_nobody_imports_the_top_folders_by_their_bare_names() -> None:
    folders = [ROOT / "tests", ROOT / "benchmarks", ROOT / "examples"]
    files = [*MODULES.values(), *(file for folder in folders for file in python_files(folder))]
    bare = {(file.name, name) for file in files for name in libraries_of(source_of(file)) & BARE_NAMES}
    assert bare == set()


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "examples"])
def test_imports_of_the_package_elsewhere_exist(folder: str) -> None:
    missing = {file.name: unresolved(source_of(file), SOURCES) for file in python_files(ROOT / folder)}
    assert {name: names for name, names in missing.items() if names} == {}


@pytest.mark.parametrize("top", TOP_FOLDERS)
def test_rooms_are_small_and_say_what_they_are_for(top: str) -> None:
    for init in sorted((ROOT / top).rglob("__init__.py")):
        purpose = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        assert purpose.endswith("."), f"{init.parent} does not say what it is for"
        assert len(list(init.parent.glob("*.py"))) <= 12, f"{init.parent} has too many files"


def test_no_weights_or_arrays_are_ever_unpickled() -> None:
    unsafe = []
    for module, source in SOURCES.items():
        for call in (node for node in nodes_of(source) if isinstance(node, ast.Call)):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            name = ast.unparse(call.func)
            if name == "torch.load" and given.get("weights_only") != "True":
                unsafe.append((module, call.lineno))
            if name in {"np.load", "numpy.load"} and given.get("allow_pickle") != "False":
                unsafe.append((module, call.lineno))
            if name in {"pickle.load", "pickle.loads", "pickle.Unpickler", "pd.read_pickle"}:
                unsafe.append((module, call.lineno))
    assert unsafe == []
