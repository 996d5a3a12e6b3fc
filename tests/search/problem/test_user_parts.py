"""Parts that can't be used: one line, before a search leaves anything behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepfront.errors import InputError
from stepfront.search.checks.doctor import check_environment, run_check
from stepfront.search.driver.search import run_search
from stepfront.search.problem.load import load_problem
from stepfront.search.problem.user_parts import check_parts
from tests.search.conftest import Silent, tiny_settings

PARTS = """
from dataclasses import replace
from stepfront.trainers.diffusion.solvers import ddim


def raises(schedule, times):
    raise ZeroDivisionError("no such step")


def short(schedule, times):
    return ddim(schedule, times[:-1])


def infinite(schedule, times):
    return replace(ddim(schedule, times), noise=times / 0)


def ahead(schedule, times):
    found = ddim(schedule, times)
    return replace(found, states=found.states.T + found.states.diag().diag(1)[1:, 1:])


def nothing(schedule, times):
    return None


class Unmakeable:
    def __init__(self, settings):
        raise KeyError("weights")
"""

UNUSABLE = {
    "sampler.solver=own_parts:missing": r"can't import the solver 'own_parts:missing' \(AttributeError: ",
    "sampler.solver=own_parts:raises": r"'own_parts:raises' fails on 4 steps \(ZeroDivisionError: no such step\)",
    "sampler.solver=own_parts:short": r"returns alpha of shape \(3,\) for 4 steps, not \(4,\)",
    "sampler.solver=own_parts:infinite": r"returns noise with values that are not finite",
    "sampler.solver=own_parts:ahead": r"returns states that read later steps; leave zeros above the diagonal",
    "sampler.solver=own_parts:nothing": r"fails on 4 steps \(AttributeError: ",
    "screen.proxy=own_parts:missing": r"can't import the proxy 'own_parts:missing'",
    "features.name=own_parts:missing": r"can't import the feature set 'own_parts:missing'",
    "features.name=own_parts:Unmakeable": r"'own_parts:Unmakeable' can't be made \(KeyError: 'weights'\)",
    "confirm.features.name=own_parts:missing": r"can't import the feature set 'own_parts:missing'",
}


@pytest.fixture
def own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "own_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.usefixtures("own_parts")
@pytest.mark.parametrize("override", UNUSABLE)
def test_an_unusable_part_fails_in_one_line_before_a_search_leaves_anything(override: str, fresh: Path) -> None:
    settings = tiny_settings(fresh, "sampler.steps=4", override)
    with pytest.raises(InputError, match=UNUSABLE[override]) as caught:
        run_search(settings, False, Silent(), lambda text: None)
    assert "\n" not in str(caught.value)
    assert not settings.search_directory.exists()
    finding = run_check("parts", lambda: str(check_parts(settings)))
    assert not finding.usable
    assert finding.detail == str(caught.value)


@pytest.mark.usefixtures("own_parts")
def test_a_problem_is_not_loaded_with_an_unusable_solver(fresh: Path) -> None:
    with pytest.raises(InputError, match="no such step"):
        load_problem(tiny_settings(fresh, "sampler.solver=own_parts:raises"))


@pytest.mark.usefixtures("own_parts")
def test_doctor_has_a_finding_of_the_parts(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepfront.search.checks.doctor._ray", lambda settings: "not started in this test")
    found = {f.what: f for f in check_environment(tiny_settings(fresh, "sampler.solver=own_parts:missing"))}
    assert not found["parts"].usable
    assert "own_parts:missing" in found["parts"].detail
    assert not found["supernet"].usable


def test_a_search_without_a_supernet_leaves_no_directory(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    with pytest.raises(InputError, match=r"no supernet in .*; train one first"):
        run_search(settings, False, Silent(), lambda text: None)
    assert not settings.run_directory.exists()
