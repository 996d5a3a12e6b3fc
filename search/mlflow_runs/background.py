"""Write to MLflow, now or in a thread; a failure becomes a line of text and never ends a search or a training."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from stepfront.addresses import redacted, shown
from stepfront.search.mlflow_runs.client import make_writing_client
from stepfront.search.mlflow_runs.open_client import set_environment
from stepfront.search.mlflow_runs.states import explained

if TYPE_CHECKING:
    from mlflow import MlflowClient

Runs = TypeVar("Runs")


class BackgroundWriter(Generic[Runs]):
    """Write to the runs that `open_runs` makes of a client, one action at a time.

    The runs are opened at the first action, and again after a failure: what the store holds by then is not known.
    `make` gives the client: by default one for writing, which may create its store.  Nothing happens where `uri` is
    None.  `problem` says why the last action failed; it is empty when it did not.
    """

    def __init__(
        self,
        uri: str | None,
        open_runs: Callable[[MlflowClient], Runs],
        make: Callable[[str], MlflowClient] | None = None,
    ) -> None:
        set_environment()
        self.problem = ""
        self._uri, self._open_runs, self._make = uri, open_runs, make
        self._runs: Runs | None = None
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether an action runs in the thread."""
        return self._thread is not None and self._thread.is_alive()

    def write(self, action: Callable[[Runs], None]) -> bool:
        """Run an action, and return whether it succeeded."""
        if self._uri is None:
            return True
        try:
            if self._runs is None:
                self._runs = self._open_runs((self._make or make_writing_client)(self._uri))
            action(self._runs)
            self.problem = ""
        except Exception as error:  # whatever MLflow, its database or its server raises
            self._runs = None
            self.problem = f"MLflow at {shown(self._uri)}: {redacted(explained(error, self._uri))}"
        return not self.problem

    def start(self, action: Callable[[Runs], None]) -> None:
        """Run an action in a thread that does not keep the process alive."""
        self._thread = threading.Thread(target=self.write, args=(action,), name="mlflow", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> str:
        """Wait for the thread, `timeout` seconds at most; return the problem of its action."""
        if self._thread is not None:
            self._thread.join(timeout)
        return f"MLflow at {shown(self._uri or '')} is too slow" if self.busy else self.problem
