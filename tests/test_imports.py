"""The reader of imports behind the table of rooms: it catches every way around the table."""

from __future__ import annotations

import json
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.imports import (
    arrows_of,
    imports_by_string,
    imports_of,
    libraries_of,
    module_strings,
    source_of,
    unresolved,
    with_parents,
)


def graph_of(sources: dict[str, str]) -> dict[str, set[str]]:
    return {module: with_parents(module, arrows_of(module, source, sources)) for module, source in sources.items()}


def test_imports_inside_functions_are_seen() -> None:
    source = "def f():\n    import ray.tune\n    from optuna.study import Study\n"
    assert imports_of(source) == (("ray.tune", ()), ("optuna.study", ("Study",)))


def test_a_library_in_any_file_is_seen() -> None:
    assert libraries_of("if True:\n    import torch.nn as nn\n") == {"torch"}


def test_a_cycle_through_a_package_is_seen() -> None:
    sources = {
        "stepfront": "",
        "stepfront.low": "from stepfront.high.driver import drive",
        "stepfront.low.table": "",
        "stepfront.high": "",
        "stepfront.high.driver": "from stepfront.low.table import read",
    }
    with pytest.raises(CycleError):
        list(TopologicalSorter(graph_of(sources)).static_order())


def test_a_package_that_offers_names_of_its_modules_is_no_cycle() -> None:
    sources = {
        "stepfront": "",
        "stepfront.data": "from stepfront.data.image import Image",
        "stepfront.data.image": "from stepfront.data.pixels import Pixels",
        "stepfront.data.pixels": "",
        "stepfront.user": "from stepfront.data import Image",
    }
    graph = graph_of(sources)
    list(TopologicalSorter(graph).static_order())
    assert graph["stepfront.user"] == {"stepfront.data"}


@pytest.mark.parametrize(
    "source",
    [
        "import importlib\nimportlib.import_module('stepfront.search.driver')",
        "from importlib import import_module\ndef f(name):\n    return import_module(name)",
        "__import__('stepfront.search.driver')",
        "import runpy\nrunpy.run_module('stepfront.search.driver')",
    ],
)
def test_an_import_by_string_is_seen(source: str) -> None:
    assert len(imports_by_string(source)) == 1


def test_strings_that_name_modules_are_seen() -> None:
    modules = ["stepfront", "stepfront.search", "stepfront.search.driver", "stepfront.errors"]
    source = "a = 'stepfront.search.driver:run'\nb = f'stepfront.search.{a}'\nc = 'stepfront.errors'\nd = 'stepfront.x'"
    assert module_strings(source, modules) == {
        "stepfront.search.driver:run",
        "stepfront.search.",
        "stepfront.errors",
    }


def test_imports_that_do_not_resolve_are_seen() -> None:
    sources = {"stepfront": "", "stepfront.search": "A = 1", "stepfront.search.driver": "def run(): pass"}
    wrong = (
        "import stepfront.gone\nfrom stepfront.search import A, lost\nfrom stepfront.search.driver import run, walk\n"
    )
    assert unresolved(wrong + "from stepfront.search import driver\nimport numpy.gone", sources) == {
        "stepfront.gone",
        "stepfront.search.lost",
        "stepfront.search.driver.walk",
    }


@pytest.mark.parametrize("source", ["from . import driver", "from .driver import run", "from ..jobs import submit"])
def test_a_relative_import_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="line 1 has a relative import"):
        imports_of(source)


def test_a_bare_name_in_a_notebook_is_seen(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["import dashboards"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "import search.api\n", "x = 1"]},
        {"cell_type": "code", "source": ["import trainers"]},
    ]
    notebook = tmp_path / "a.ipynb"
    notebook.write_text(json.dumps({"cells": cells}))
    assert libraries_of(source_of(notebook)) == {"search", "trainers"}
