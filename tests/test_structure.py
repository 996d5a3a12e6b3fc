"""Which room may import which: data flows one way."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def imported_names(file: Path) -> set[str]:
    """Return the top-level packages that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("trainers", {"search", "ray", "optuna", "mlflow", "dashboards"}),
        ("dashboards", {"torch", "ray", "optuna", "mlflow", "search", "trainers"}),
    ],
)
def test_a_room_never_imports_what_lies_behind_it(room: str, forbidden: set[str]) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert len(files) > 5
    assert {file.name: names for file in files if (names := imported_names(file) & forbidden)} == {}


def test_the_check_sees_imports_inside_functions(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def f():\n    import ray.tune\n    from optuna.study import Study\n")
    assert imported_names(file) == {"ray", "optuna"}


def test_no_weights_or_arrays_are_ever_unpickled() -> None:
    unsafe = []
    for room in ("trainers", "search"):
        for file in (ROOT / room).rglob("*.py"):
            for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                name = ast.unparse(call.func)
                if name == "torch.load" and given.get("weights_only") != "True":
                    unsafe.append((file.name, call.lineno))
                if name in {"np.load", "numpy.load"} and given.get("allow_pickle") != "False":
                    unsafe.append((file.name, call.lineno))
                if name in {"pickle.load", "pickle.loads", "pickle.Unpickler", "pd.read_pickle"}:
                    unsafe.append((file.name, call.lineno))
    assert unsafe == []
