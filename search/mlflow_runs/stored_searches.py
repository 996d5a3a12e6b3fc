"""Find the searches that a tracking store holds, and copy what another search reads of one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepfront.errors import InputError
from stepfront.search.mlflow_runs.background import BackgroundWriter
from stepfront.search.mlflow_runs.client import check_store_exists, tracking_uri
from stepfront.tables.schema import FACTS_FILE, FRONT, SETTINGS_FILE, TRIALS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ANSWER_SECONDS, COPY_SECONDS = 10.0, 60.0
"""How long a store is waited for: for its list of searches, and for the files of one."""

MOST_LISTED = 500
"""Runs that are listed, the newest ones."""

NEEDED = (SETTINGS_FILE, FACTS_FILE, TRIALS, FRONT)
ALSO_READ = ("gap.npz", "samplers")
"""What a search reads of an earlier one: files that each has, and a file and a folder that some have."""

IDENTITY = "search_id"


def space_text(facts: Mapping[str, Any]) -> str:
    """Return the space of plans in one line, the tag `space` by which alike searches are found."""
    widths = "/".join(f"{width:g}" for width in facts.get("widths") or [])
    return f"{facts.get('encoding')} skip={facts.get('skip')} widths={widths} steps={facts.get('steps')}"


@dataclass(frozen=True)
class StoredSearch:
    """The parent run of a search, and how many words of its space and sampler are those that were asked for."""

    name: str
    run_id: str
    experiment_id: str
    alike: int
    begun: int


class StoredSearches:
    """Reads a tracking store in a thread, and gives up where it does not answer: `problem` then says why.

    `answer` and `copy` are the seconds that it may take.
    """

    def __init__(self, uri: str, answer: float = ANSWER_SECONDS, copy: float = COPY_SECONDS) -> None:
        self._uri, self._answer, self._copy = tracking_uri(uri) or uri, answer, copy
        self._reader: BackgroundWriter[MlflowClient] = BackgroundWriter(self._uri, lambda client: client)
        self.problem = ""

    def alike(self, facts: Mapping[str, Any], known: Collection[str]) -> list[StoredSearch]:
        """Return the searches that have ended, the most alike first, of equals the newest.

        `facts` are those of the space that is asked for, and of the sampler's solver.  Those whose id is `known` are
        left out.
        """
        found: list[StoredSearch] = []

        def look(client: MlflowClient) -> None:
            experiments = [one.experiment_id for one in client.search_experiments(max_results=1000)]
            query = "tags.kind = 'search' and attributes.status != 'RUNNING'"
            newest: dict[str, Any] = {"max_results": MOST_LISTED, "order_by": ["attributes.start_time DESC"]}
            runs = client.search_runs(experiments, query, **newest) if experiments else []
            found.extend(_stored(run, facts) for run in runs if run.data.tags.get(IDENTITY) not in known)

        self._read(look, self._answer)
        return sorted(found, key=lambda one: (one.alike, one.begun), reverse=True) if not self.problem else []

    def copy(self, search: StoredSearch, place: Path) -> bool:
        """Copy what is read of a search into the folder `place`; return whether all that is needed was there."""
        with tempfile.TemporaryDirectory(prefix="stepfront-", ignore_cleanup_errors=True) as folder:
            target = Path(folder)

            def fetch(client: MlflowClient) -> None:
                there = {file.path for file in client.list_artifacts(search.run_id)}
                if there.issuperset(NEEDED):
                    for name in (*NEEDED, *(name for name in ALSO_READ if name in there)):
                        client.download_artifacts(search.run_id, name, str(target))

            self._read(fetch, self._copy)
            if self.problem or not all((target / name).is_file() for name in NEEDED):
                return False
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(target, place)
        return True

    def _read(self, action: Callable[[MlflowClient], None], seconds: float) -> None:
        if self.problem:
            return
        try:
            check_store_exists(self._uri)
        except InputError:  # MLflow would make it: nothing is stored yet
            return
        self._reader.start(action)
        self.problem = self._reader.wait(seconds)


def _stored(run: Run, facts: Mapping[str, Any]) -> StoredSearch:
    """Return a run as a stored search; its space is compared word by word."""
    words = [*space_text(facts).split(), str(facts.get("solver"))]
    theirs = [*run.data.tags.get("space", "").split(), run.data.params.get("solver", "")]
    alike = sum(one == other for one, other in zip(words, theirs, strict=False))
    info = run.info
    return StoredSearch(info.run_name or "", info.run_id, info.experiment_id, alike, int(info.start_time or 0))
