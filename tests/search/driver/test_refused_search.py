"""What a training or a search refuses: other data, another supernet, a directory in use, plans that nobody can keep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stepfront.errors import InputError
from stepfront.search.driver.publish import publish
from stepfront.search.driver.search import run_search
from stepfront.search.driver.train import run_training
from stepfront.search.scoring.confirm import run_confirmation
from tests.search.conftest import Silent, do_search, tiny_settings


def test_training_reports_and_is_not_repeated(trained: Path) -> None:
    card, worked = run_training(tiny_settings(trained), False, lambda report: None, lambda text: None)
    assert not worked
    assert set(card.made_with["held_out_losses"]) == {"0.25", "0.5", "1.0"}
    with pytest.raises(InputError, match=r"trained with training.steps 12, not 13"):
        run_training(tiny_settings(trained, "training.steps=13"), False, lambda r: None, lambda t: None)


def test_a_constraint_that_no_plan_keeps_is_refused_before_anything_is_evaluated(fresh: Path) -> None:
    settings = tiny_settings(fresh, "evaluation.constraints=['gflops <= 1e-6']")
    with pytest.raises(InputError, match=r"no plan keeps the constraint gflops <= 1e-06.*narrowest uniform plan has"):
        run_search(settings, False, Silent(), lambda text: None)


def test_two_drivers_in_one_directory(fresh: Path) -> None:
    from stepfront.search.storage.lock import directory_lock

    settings = tiny_settings(fresh)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib, stepfront.search.storage.lock as l\n"
            "with l.directory_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()",
            str(settings.search_directory),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"in use by another stepfront \\(process {holder.pid}\\)"):
        do_search(fresh)
    holder.kill()
    holder.wait()
    with directory_lock(settings.search_directory):
        pass


def test_a_supernet_of_other_data_or_damaged_is_refused(fresh: Path) -> None:
    with pytest.raises(InputError, match="made from other data"):
        do_search(fresh, "data.limit=200")
    weights = fresh / "tiny" / "supernet" / "supernet.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(InputError, match="digest of the weights differs"):
        do_search(fresh)
    with pytest.raises(InputError, match="no supernet in"):
        do_search(fresh / "elsewhere")


def test_fresh_deletes_nothing_before_the_settings_are_checked(searched_copy: Path, tmp_path: Path) -> None:
    directory, fresh = searched_copy, tmp_path
    before = sorted(path.name for path in directory.iterdir())
    with pytest.raises(InputError):
        do_search(fresh, "supernet=/nowhere", fresh=True)
    assert sorted(path.name for path in directory.iterdir()) == before
    supernet = fresh / "tiny" / "supernet"
    held = sorted(path.name for path in supernet.iterdir())
    for bad in ("data={format: npz, path: gone.npz}", "training.device=foo", "features={name: f, path: gone.pt}"):
        with pytest.raises(InputError):
            run_training(tiny_settings(fresh, bad), True, lambda report: None, lambda text: None)
    assert sorted(path.name for path in supernet.iterdir()) == held


def test_a_search_whose_supernet_was_trained_anew_is_not_read_with_it(searched_copy: Path, tmp_path: Path) -> None:
    directory, fresh = searched_copy, tmp_path
    run_training(tiny_settings(fresh, "training.steps=3"), True, lambda report: None, lambda text: None)
    settings = tiny_settings(fresh, "training.steps=3")
    with pytest.raises(InputError, match="used another supernet"):
        publish(settings, directory, True)
    with pytest.raises(InputError, match="used another supernet"):
        run_confirmation(directory, None, None)


def test_a_shared_database_holds_a_study_a_search(tmp_path: Path) -> None:
    from stepfront.search.study.optuna_storage import study_name

    names = {study_name("postgresql://x", tmp_path / run / "search") for run in ("a", "b")}
    assert len(names) == 2
    assert study_name(None, tmp_path / "a") == study_name("journal", tmp_path / "b")
