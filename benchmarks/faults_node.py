"""Run one search on a cluster of several raylets, and replace nodes while it runs.

It is a process of its own, because Ray connects to one cluster per process.  It takes CONFIG and a number of exchanges
and prints JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ray.cluster_utils import Cluster

from stepfront.search.config import load_settings
from stepfront.search.driver.search import run_search
from stepfront.search.driver.search_report import SearchReport
from stepfront.search.execution.ray_private import keep_to_loopback

_LAST = 10
"""Results before the end at which a search waits for a node that is joining."""


class _Exchange:
    """A view of the search that replaces a node every so many results."""

    def __init__(self, cluster: Cluster, times: int) -> None:
        self.cluster, self.left, self.injected, self.joined = cluster, times, 0, 0
        self._replacing: list[threading.Thread] = []
        self.nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
        self.recovery: list[float] = []
        self._since: float | None = None
        self._next, self._at = 10, 0
        self._complete: Callable[[], int] = lambda: 0

    def update(self, report: SearchReport) -> None:
        if self._since is not None and report.complete >= self._at + 3:
            self.recovery.append(time.monotonic() - self._since)
            self._since = None
        if self.left and report.complete >= self._next:
            self.left, self.injected, self._next = self.left - 1, self.injected + 1, self._next + 25
            self._complete = lambda: report.complete
            self._replacing.append(threading.Thread(target=self._replace, daemon=True))
            self._replacing[-1].start()
        if report.complete >= report.total - _LAST:
            for replacing in self._replacing:
                replacing.join()  # the search must not end before its nodes have joined, however slow the machine is

    def _replace(self) -> None:
        self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)
        self._at, self._since = self._complete(), time.monotonic()
        time.sleep(2)
        self.nodes.append(self.cluster.add_node(num_cpus=1))
        self.joined += 1


def main() -> None:
    config, times = Path(sys.argv[1]), int(sys.argv[2])
    keep_to_loopback()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    exchange = _Exchange(cluster, times)
    # A node binds its end to signals, which only the main thread may set; here nodes join from another thread.
    cluster._shutdown_at_exit = False
    settings = load_settings(config, [f"workers.address={cluster.address}"])
    try:
        run_search(settings, False, exchange, lambda text: None)
        print(json.dumps({"injected": exchange.injected, "joined": exchange.joined, "recovery": exchange.recovery}))
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
