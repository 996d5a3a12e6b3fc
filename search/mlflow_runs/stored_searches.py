"""Find the searches that a tracking store holds, and copy what another search reads of one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepfront.addresses import redacted
from stepfront.errors import InputError, first_line
from stepfront.search.mlflow_runs.background import BackgroundWriter
from stepfront.search.mlflow_runs.client import check_store_exists, make_client, tracking_uri
from stepfront.tables.schema import FACTS_FILE, FRONT, SETTINGS_FILE, TRIALS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LIST_SECONDS, ALL_SECONDS = 10.0, 60.0
"""How long a store is waited for: for its list of searches, and for everything, the files of several with it."""

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
    """The parent run of a search, and how many words of its space and sampler are those that were asked for.

    `begun` and `ended` are in milliseconds, as MLflow counts them.
    """

    name: str
    run_id: str
    experiment_id: str
    alike: int
    begun: int
    ended: int


class StoredSearches:
    """Reads a tracking store in a thread, and gives up where it does not answer: `problem` then says why.

    It waits `list_seconds` for the list of searches, and `all_seconds` from its making for everything.
    """

    def __init__(self, uri: str, list_seconds: float = LIST_SECONDS, all_seconds: float = ALL_SECONDS) -> None:
        self.uri, self.problem = tracking_uri(uri) or uri, ""
        self._list_seconds, self._until = list_seconds, time.monotonic() + all_seconds
        self._reader: BackgroundWriter[MlflowClient] = BackgroundWriter(self.uri, lambda client: client, make_client)

    @property
    def seconds_left(self) -> float:
        """How long the store may still take."""
        return max(0.0, self._until - time.monotonic())

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

        self._read(look, self._list_seconds)
        return sorted(found, key=lambda one: (one.alike, one.begun), reverse=True) if not self.problem else []

    def copy(self, search: StoredSearch, place: Path) -> bool:
        """Copy what is read of a search into the new folder `place`; return whether all that is needed was there.

        Raises InputError, with the reason, where the store answers and the files can't be copied: other searches may
        keep theirs elsewhere.
        """
        reasons: list[str] = []
        place.mkdir()

        def fetch(client: MlflowClient) -> None:
            try:
                there = {file.path for file in client.list_artifacts(search.run_id)}
                if there.issuperset(NEEDED):
                    for name in (*NEEDED, *(name for name in ALSO_READ if name in there)):
                        client.download_artifacts(search.run_id, name, str(place))
            except Exception as error:  # whatever the store of the files raises
                client.get_run(search.run_id)  # raises, too, where the tracking store is away: then nothing is read
                reasons.append(redacted(first_line(error)))

        self._read(fetch, self.seconds_left)
        if reasons and not self.problem:
            raise InputError(reasons[0])
        return not self.problem and holds_a_copy(place)

    def _read(self, action: Callable[[MlflowClient], None], seconds: float) -> None:
        if self.problem:
            return
        try:
            check_store_exists(self.uri)
        except InputError:  # MLflow would make it: nothing is stored yet
            return
        self._reader.start(action)
        self.problem = self._reader.wait(min(seconds, self.seconds_left))


def holds_a_copy(place: Path) -> bool:
    """Return whether a folder has all files that are needed of a search."""
    return all((place / name).is_file() for name in NEEDED)


def _stored(run: Run, facts: Mapping[str, Any]) -> StoredSearch:
    """Return a run as a stored search; its space is compared word by word."""
    words = [*space_text(facts).split(), str(facts.get("solver"))]
    theirs = [*run.data.tags.get("space", "").split(), run.data.params.get("solver", "")]
    alike = sum(one == other for one, other in zip(words, theirs, strict=False))
    info = run.info
    times = int(info.start_time or 0), int(info.end_time or 0)
    return StoredSearch(info.run_name or "", info.run_id, info.experiment_id, alike, *times)
