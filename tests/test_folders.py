"""A folder is there completely or not at all, and the next call mends what a killed one left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stepfront.beside import part_of
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.folders import new_folder


def ours(name: str) -> bool:
    return name in ("plan.json", "weights")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", ours) as made:
        (made / "plan.json").write_text("1")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path) == ["out", "plan.json"]


def test_an_earlier_result_is_replaced_as_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights").write_text("old")
    with new_folder(tmp_path / "out", ours) as made:
        (made / "plan.json").write_text("1")
        assert names(tmp_path / "out") == ["weights"]
    assert names(tmp_path) == ["out", "plan.json"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("No space left on device (os error 28)")]
)
def test_a_full_disk_leaves_what_was_there_and_nothing_else(error: Exception, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan.json").write_text("old")

    def write() -> None:
        with new_folder(tmp_path / "out", ours) as made:
            (made / "weights").write_text("half")
            raise error

    with pytest.raises(InputError, match=r"can't write .*out: [Nn]o space left"):
        write()
    assert names(tmp_path) == ["out", "plan.json"]
    assert (tmp_path / "out" / "plan.json").read_text() == "old"


def test_other_files_are_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files, such as letter\.txt"), new_folder(tmp_path / "out", ours):
        pass
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"), new_folder(tmp_path / "file", ours):
        pass
    assert names(tmp_path) == ["file", "letter.txt", "out"]


KILLED = """
import os, signal, sys
from pathlib import Path
from stepfront.files import write_atomically
from stepfront.folders import new_folder
out = Path(sys.argv[1])
def half(path):
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
with new_folder(out, lambda name: True) as made:
    write_atomically(made / "plan.json", half)
"""


def test_what_a_killed_process_left_is_mended_by_the_next(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.")
    with new_folder(tmp_path / "out", ours) as made:
        (made / "plan.json").write_text("1")
    assert names(tmp_path) == ["out", "plan.json"]


def test_parts_of_processes_at_work_are_left_alone(tmp_path: Path) -> None:
    mine = part_of(tmp_path / "table")
    other = mine.with_name(mine.name.replace(f"-{os.getpid()}.", "-1."))  # process 1 is always alive
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}.", "-4194999."))
    elsewhere = mine.with_name(".table.ffffff-4194999.part")  # of another machine
    for path in (other, dead, elsewhere):
        path.write_text("half")
    write_text(tmp_path / "table", "whole")
    assert names(tmp_path) == sorted(["table", other.name, elsewhere.name])
