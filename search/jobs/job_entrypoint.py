"""Prepare a job on the cluster's head: put the supernet that was sent in its place, and report differing versions."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from pathlib import Path

from stepfront.errors import InputError
from stepfront.files import write_atomically
from stepfront.search.config import load_settings
from stepfront.search.storage.run_location import local_settings
from stepfront.trainers.networks.card import CARD_FILE, read_card

CONFIG_FILE, REQUIREMENTS_FILE, SUPERNET_FOLDER = "job.yaml", "requirements.txt", "supernet"


def supernet_files(directory: Path) -> list[Path]:
    """Return the files of a supernet that a search needs, without its checkpoint and the records of its training."""
    read_card(directory)
    not_sent = ("lock", "mlflow.json", "training.parquet")
    return [
        path
        for path in sorted(directory.iterdir())
        if path.is_file() and not path.name.startswith((".", "checkpoint")) and path.name not in not_sent
    ]


def place_supernet(sent: Path, directory: Path) -> bool:
    """Copy a supernet to the directory of the settings, and return whether it was missing there.

    Raises InputError when the directory holds another supernet, whose searches would no longer fit.
    """
    if (directory / CARD_FILE).exists():
        if read_card(directory).digest != read_card(sent).digest:
            raise InputError(
                f"{directory} holds another supernet than the one that was sent; give the run another name"
            )
        return False
    directory.mkdir(parents=True, exist_ok=True)
    # The card last: a directory without it counts as empty.
    for path in sorted(supernet_files(sent), key=lambda path: path.name == CARD_FILE):
        _copy(path, directory / path.name)
    return True


def _copy(file: Path, place: Path) -> None:
    def write(beside: Path) -> None:
        shutil.copyfile(file, beside)

    write_atomically(place, write)


def differing_versions(requirements: str) -> list[str]:
    """Return a phrase per `name==version` line that this machine does not fulfil."""
    differing = []
    for line in requirements.split():
        name, _, version = line.partition("==")
        try:
            here = importlib.metadata.version(name.partition("[")[0]).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            here = "none"
        if here != version:
            differing.append(f"{name} {here} (sent from {version})")
    return differing


def main() -> None:
    """Prepare the job whose folder is the working directory."""
    folder = Path.cwd()
    settings = load_settings(folder / CONFIG_FILE)
    differing = differing_versions((folder / REQUIREMENTS_FILE).read_text(encoding="utf-8"))
    if differing:
        print(f"stepfront: this cluster differs in {', '.join(differing)}", flush=True)
    if (folder / SUPERNET_FOLDER).is_dir():
        with local_settings(settings, trains=True) as (here, _):
            if place_supernet(folder / SUPERNET_FOLDER, here.supernet_directory):
                print(f"stepfront: the supernet that was sent is now in {here.supernet_directory}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"stepfront: {error}")
