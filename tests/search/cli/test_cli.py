"""The verbs with wrong input: one line that says what was given and what is possible, and exit code 2."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stepfront.dashboards.claim import claim_sentence
from stepfront.errors import InputError
from stepfront.files import write_json
from stepfront.search.claims.claim import CLAIM_KEYS
from stepfront.search.cli import main as cli
from stepfront.search.config import load_settings, settings_from

VERBS = (
    "train",
    "search",
    "confirm",
    "baselines",
    "front",
    "sample",
    "report",
    "quickstart",
    "doctor",
    "resume",
    "extend",
    "sync",
    "ui",
    "register",
    "export",
    "compare",
    "fit",
    "claim",
    "init",
    "list",
    "delete",
    "submit",
    "status",
    "logs",
    "stop",
)


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    monkeypatch.setattr(sys, "argv", ["stepfront", *words])
    code = 0
    try:
        cli.main()
    except SystemExit as left:
        code = int(left.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    code, said, _ = call(monkeypatch, capsys, verb, "--help")
    assert code == 0
    assert "Example:" in said
    assert max(map(len, said.splitlines())) <= 80


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    heavy = "{'torch', 'ray', 'optuna', 'mlflow', 'pandas'}"
    code = f"import sys, stepfront.search.cli.main; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_bare_command_prints_its_help(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    for words in ((), ("import",)):
        code, shown, error = call(monkeypatch, capsys, *words)
        assert (code, error) == (0, "")
        lines = shown.splitlines()
        assert len(lines) > 8
        assert max(map(len, lines)) <= 80
        assert not [line for line in lines if line.endswith("...") and not line.startswith("Usage")]  # none is cut
        assert shown == call(monkeypatch, capsys, *words, "--help")[1]
    verbs = [line.split()[0] for line in call(monkeypatch, capsys)[1].partition("Commands:")[2].splitlines() if line]
    assert set(VERBS) < set(verbs)
    assert "controls" not in verbs


def test_the_version_is_that_of_the_package(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    assert call(monkeypatch, capsys, "--version") == (0, f"stepfront {importlib.metadata.version('stepfront')}\n", "")


def test_the_shell_completes_verbs_and_options() -> None:
    for typed, expected in (("stepfront basel", "baselines"), ("stepfront front --exp", "--export")):
        environment = {"_STEPFRONT_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": typed.count(" ")}
        environment = os.environ | {name: str(value) for name, value in environment.items()}
        code = "import sys; sys.argv = ['stepfront']; from stepfront.search.cli.main import main; main()"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert expected in done.stdout.split(), done.stderr


def test_controls_says_its_new_name(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    code, _, error = call(monkeypatch, capsys, "controls", "runs/digits", "--methods", "uniform")
    assert (code, error.count("\n")) == (2, 1)
    assert "stepfront baselines" in error


def test_importing_the_command_line_changes_no_environment() -> None:
    code = "import os; before = dict(os.environ); import stepfront.search.cli.main; print(dict(os.environ) == before)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


SETTINGS = {
    "unknown key": (
        "trianing: {steps: 3}",
        "unknown setting 'trianing'; did you mean training or tracking? possible here: adapt, budget,",
    ),
    "unknown nested key": (
        "training: {step: 3}",
        "unknown setting 'training.step'; did you mean training.steps? possible here: accumulate, ",
    ),
    "wrong type": ("training: {steps: many}", "training.steps: input should be a whole number (given: 'many')"),
    "number as text": ('training: {steps: "12"}', "training.steps: input should be a whole number (given: '12')"),
    "impossible width": ("network: {base: 16, widths: [0.3, 1.0]}", "width 0.3 of base 16 is 4.8 channels"),
    "widths without 1": ("network: {widths: [0.25, 0.5]}", "must ascend within (0, 1] and end in 1.0"),
    "unknown solver": ("sampler: {solver: euler}", "sampler.solver: unknown solver 'euler'; possible: best, learnt, "),
    "too many steps": ("{sampler: {steps: 500}, diffusion: {steps: 100}}", "sampler.steps 500 exceeds"),
    "no path": ("data: {format: idx}", "format idx needs a path"),
    "bad constraint": ("evaluation: {constraints: ['cost < 3']}", "constraints look like 'gflops <= 2.0'"),
    "unknown initial plans": ("initial_plans: {lucky: 3}", "unknown initial plans 'lucky'; possible: uniform, cuts"),
    "no limit": ("budget: {trials: null}", "a budget needs a limit"),
    "features without file": ("features: {name: inception}", "features 'inception' need a path"),
    "bad name": ("name: ../up", "name: "),
    "no mapping": ("- 1", "holds list; a mapping of settings was expected"),
    "no yaml": ("a: [", "is not YAML"),
    "empty": ("", "bad.yaml is empty; a mapping of settings was expected"),
    "old name": ("seeds: {uniform: 4}", "`seeds` is now `initial_plans`; use the new name"),
    "old nested name": ("screen: {rung: gap}", "`screen.rung` is now `screen.proxy`; use the new name"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_bad_settings(case: str, tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    text, expected = SETTINGS[case]
    config = tmp_path / "bad.yaml"
    config.write_text(text)
    code, _, error = call(monkeypatch, capsys, "train", str(config))
    assert code == 2
    assert expected in error
    assert error.count("\n") == 1
    assert error.startswith("stepfront: ")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_line_blames_the_override_or_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("{name: a, budget: {trials: 3}}")
    with pytest.raises(InputError, match=r"^--set: unknown setting 'budget\.trails'; did you mean budget\.trials\?"):
        load_settings(path, ["budget.trails=9"])
    path.write_text("{name: a, budget: {trails: 3}}")
    with pytest.raises(InputError, match=r"a\.yaml: unknown setting 'budget\.trails'; did you mean budget\.trials\?"):
        load_settings(path, ["sampler.steps=4"])


def test_a_given_value_is_shown_once() -> None:
    with pytest.raises(InputError) as caught:
        settings_from({}, ["sampler.solver=ddmi"])
    assert str(caught.value).count("'ddmi'") == 1


WORDS = {
    "no file": (("train", "nowhere.yaml"), "no settings file nowhere.yaml; give a YAML file, such as"),
    "nothing to check": (
        ("doctor", "nowhere"),
        "give a settings file, such as configs/digits.yaml, or the directory of",
    ),
    "no search": (("front", "nowhere"), "no search in nowhere"),
    "override without value": (("quickstart", "--set", "steps"), "an override looks like budget.trials=200"),
    "override of a group": (("quickstart", "--set", "name.x=1"), "name is a single value"),
    "unknown override": (
        ("quickstart", "--set", "training.lrate=1"),
        "stepfront: --set: unknown setting 'training.lrate'; did you mean training.lr?",
    ),
    "unknown verb": (("searhc",), "searhc"),
    "unknown option": (("front", "x", "--exprot", "y"), "--exprot"),
    "missing argument": (("search",), "CONFIG"),
    "one seed": (("confirm", "x", "--seeds", "1"), "--seeds"),
}


@pytest.mark.parametrize("case", WORDS)
def test_bad_words(case: str, tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    words, expected = WORDS[case]
    code, _, error = call(monkeypatch, capsys, *words)
    assert code == 2
    assert expected in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_missing_and_damaged_data(tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "c.yaml"
    config.write_text("{name: x, data: {format: idx, path: images}}")
    code, _, error = call(monkeypatch, capsys, "train", str(config))
    assert (code, error.count("\n")) == (2, 1)
    assert "images is not a directory" in error
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + b"\0\0\0\x09" * 3)
    code, _, error = call(monkeypatch, capsys, "train", str(config))
    assert code == 2
    assert "is incomplete: 0 of 729 bytes" in error


def test_search_without_a_supernet_says_what_to_do(tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    config = tmp_path / "c.yaml"
    config.write_text(f"{{name: x, directory: {tmp_path}}}")
    code, _, error = call(monkeypatch, capsys, "search", str(config))
    assert code == 2
    assert "train one first: stepfront train CONFIG" in error


def test_exports_and_samples(searched_copy: Path, tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    import numpy as np
    import pandas as pd

    front = pd.read_parquet(searched_copy / "front.parquet")
    for suffix, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        path = tmp_path / f"front.{suffix}"
        assert call(monkeypatch, capsys, "front", str(searched_copy), "--export", str(path))[0] == 0
        assert list(read(path)["trial"]) == list(front["trial"])
    path = tmp_path / "front.json"
    assert call(monkeypatch, capsys, "front", str(searched_copy), "--export", str(path))[0] == 0
    assert [row["trial"] for row in json.loads(path.read_text())] == list(front["trial"])
    code, _, error = call(monkeypatch, capsys, "front", str(searched_copy), "--export", str(tmp_path / "front.xls"))
    assert code == 2
    assert ".csv .json .parquet" in error
    exported = json.loads(path.read_text())
    code, said, _ = call(monkeypatch, capsys, "front", str(searched_copy), "--json")
    assert code == 0
    assert json.loads(said) == exported
    assert [row["fid"] for row in exported] == pytest.approx(list(front["fid"]), rel=1e-14)
    code, said, _ = call(monkeypatch, capsys, "front", str(searched_copy))
    assert code == 0
    assert "cheapest" in said
    twin = shutil.copytree(searched_copy, tmp_path / "twin" / "search")
    code, said, _ = call(monkeypatch, capsys, "compare", str(searched_copy), str(twin), "--json")
    compared = json.loads(said)
    assert (compared["differing"], compared["settings"]) == (None, {})
    assert [one["hypervolume_share"] for one in compared["searches"]] == pytest.approx([1, 1])
    assert compared["searches"][0]["front"] == exported

    grid = tmp_path / "grid.png"
    words = ("sample", str(searched_copy), "--point", "best", "--images", "5", "--out", str(grid))
    assert call(monkeypatch, capsys, *words)[0] == 0
    with np.load(tmp_path / "grid.npz") as arrays:
        assert arrays["images"].shape == (5, 8, 8, 1)
        assert arrays["images"].dtype == np.uint8
        assert str(arrays["plan"]) == front.loc[front["fid"].idxmin(), "plan"]
    assert grid.exists()
    code, _, error = call(monkeypatch, capsys, "sample", str(searched_copy), "--point", "nonsense")
    assert code == 2
    assert "possible: knee, best, cheapest" in error
    assert call(monkeypatch, capsys, "report", str(searched_copy))[0] == 0
    assert (searched_copy / "report.html").exists()


def test_scores_as_json(searched_copy: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    import pandas as pd

    words = ("baselines", str(searched_copy), "--methods", "uniform,fewer_steps", "--json")
    code, said, told = call(monkeypatch, capsys, *words)
    assert code == 0
    result = json.loads(said)
    assert {row["method"] for row in result["methods"]} == {"search", "uniform", "fewer_steps"}
    assert {row["trial"] for row in result["versus"]} == {
        int(trial) for trial in pd.read_parquet(searched_copy / "front.parquet")["trial"]
    }
    assert "report" in told
    code, said, told = call(monkeypatch, capsys, "confirm", str(searched_copy), "--json")
    assert code == 0
    result = json.loads(said)
    assert result["savings"] == json.loads((searched_copy / "search.json").read_text())["savings"]
    assert all(row["fid_confirmed"] > 0 for row in result["front"])
    assert "report" in told
    claim, sentence = result["savings"], claim_sentence(result["savings"])
    assert sentence in told
    code, said, _ = call(monkeypatch, capsys, "claim", str(searched_copy), "--json")
    assert code == 0
    assert json.loads(said) == {key: claim[key] for key in (*CLAIM_KEYS, "disagreements", "out_of_reach")}
    judge = {"features", "score", "reference", "difference", "interval", "reference_plan", "reference_sampler"}
    assert set(json.loads(said)["judges"][0]) == judge
    code, said, _ = call(monkeypatch, capsys, "claim", str(searched_copy))
    assert (code, said.splitlines()[0]) == (0, sentence)


def test_a_search_that_is_not_confirmed_claims_nothing(searched_copy: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    code, _, error = call(monkeypatch, capsys, "claim", str(searched_copy))
    assert code == 2
    assert "is not confirmed; run `stepfront confirm" in error
    facts = json.loads((searched_copy / "search.json").read_text())
    write_json(searched_copy / "search.json", facts | {"savings": {"flops_saved": 0.5}})
    code, _, error = call(monkeypatch, capsys, "claim", str(searched_copy))
    assert code == 2
    assert "not shown to be worse" in error


def test_a_registration_as_json(tmp_path: Path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    from stepfront.search.export import registry

    point = {"trial": 7, "plan": "4x1.00"}
    done = registry.Registered("digits", "3", True, point, {"knee": (None, "3"), "best": ("1", "2")})
    monkeypatch.setattr(registry, "register_point", lambda *given: done)
    code, said, told = call(monkeypatch, capsys, "register", str(tmp_path), "--json")
    assert code == 0
    expected = {"model": "digits", "version": "3", "new": True, "trial": 7, "plan": "4x1.00"}
    assert json.loads(said) == expected | {"moved": {"knee": "3", "best": "2"}}
    assert "models:/digits/3 is new" in told


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    from stepfront.search import config

    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "load_settings", interrupted)
    code, _, error = call(monkeypatch, capsys, "train", "any.yaml")
    assert code == 130
    assert "interrupted; run the same command again to continue" in error
