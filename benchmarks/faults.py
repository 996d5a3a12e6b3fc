"""Inject faults into real searches and count what is lost.

Run it with `make bench-faults`; it writes docs/bench-faults.md.

Each fault is injected into a search over a small supernet of scikit-learn's digits, run by the command that users run.
Then the search is resumed, and its directory is compared with what the study held before.  A row counts injections and
evaluations that were lost or counted twice (both must be 0), and gives the seconds to the first new result.  The test
suite runs the same functions in a short form.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import psutil

from benchmarks.faults_bench import Row, bench
from benchmarks.markdown import markdown
from stepfront.search.records.versions import versions


def driver_killed(times: int, seed: int = 0) -> Row:
    """Kill the driver (SIGKILL) at random moments of one search, start-up included, and run the command again."""
    row, rng = Row("driver killed (SIGKILL) at a random moment"), random.Random(seed)
    with bench(budget={"trials": 40 + 12 * times}) as b:
        before: dict[int, tuple[str, str]] = {}
        for _ in range(times):
            process, begin = b.start("search", str(b.config)), time.monotonic()
            known = len(before)
            if rng.random() < 0.8 and b.wait_for(process, known + 1):
                row.recovery.append(time.monotonic() - begin)
                time.sleep(rng.uniform(0, 1.5))
            else:
                time.sleep(rng.uniform(1, 8))  # while it starts
            process.kill()
            process.wait()
            row.injected += 1
            before |= b.told()
            b.audit(row, before, tables=False)
        last = b.call("resume", str(b.work / "faults"))
        assert last.returncode == 0, last.stderr
        b.audit(row, before)
        assert row.told == 40 + 12 * times, f"{row.told} trials in the end"
    return row


def interrupted(times: int) -> Row:
    """Press Ctrl-C once, and twice in a row."""
    row, codes = Row("Ctrl-C, once and twice in turn"), set()
    with bench(budget={"trials": 300}) as b:
        before: dict[int, tuple[str, str]] = {}
        for i in range(times):
            process, begin = b.start("search", str(b.config)), time.monotonic()
            b.wait_for(process, len(before) + 3)
            row.recovery.append(time.monotonic() - begin)
            process.send_signal(signal.SIGINT)
            if i % 2:
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
            codes.add(process.wait(timeout=60))
            row.injected += 1
            before |= b.told()
            b.audit(row, before, tables=not i % 2)
        said = (b.work / "driver.log").read_text()
        assert said.count("continue with: stepfront resume") >= times, said[-3000:]
    assert codes == {130}, codes
    row.notes = "exit code 130"
    return row


def workers_killed(times: int) -> Row:
    """Kill a worker process again and again."""
    row = Row("a worker killed every few seconds")
    with bench(budget={"trials": 30 + 12 * times}, workers={"count": 2, "attempts": 20}) as b:
        process = b.start("search", str(b.config))
        b.wait_for(process, 4)
        while row.injected < times:
            known = len(b.told())
            if process.poll() is not None:
                break
            begin = time.monotonic()
            if not _kill_worker(process.pid):
                time.sleep(0.5)  # none is up yet
                continue
            row.injected += 1
            if b.wait_for(process, known + 3):
                row.recovery.append(time.monotonic() - begin)
            time.sleep(1)
        before = b.told()
        assert process.wait(timeout=600) == 0
        b.audit(row, before)
        assert row.told == 30 + 12 * times
    return row


def _kill_worker(driver: int) -> bool:
    """Kill one of the driver's evaluating processes; return False where there is none."""
    for process in psutil.Process(driver).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("ray::") and "Trainable" in " ".join(process.cmdline()):
                process.kill()
                return True
    return False


def mlflow_away(times: int) -> Row:
    """Stop the MLflow server during the search and start it again; at the end run `stepfront sync`."""
    import mlflow

    row = Row("MLflow server stopped and started")
    with bench(budget={"trials": 60 + 40 * times}) as b:
        port = _free_port()
        uri = f"http://127.0.0.1:{port}"
        server = _mlflow(b.work, port)
        process = b.start("search", str(b.config), "--set", f"tracking.uri={uri}")
        for _ in range(times):
            b.wait_for(process, len(b.told()) + 15)
            server.terminate()
            server.wait()
            row.injected += 1
            known, begin = len(b.told()), time.monotonic()
            if b.wait_for(process, known + 3):
                row.recovery.append(time.monotonic() - begin)  # the search does not wait for it
            server = _mlflow(b.work, port)
        assert process.wait(timeout=600) == 0
        try:
            done = b.call("sync", str(b.work / "faults"))
            assert done.returncode == 0, done.stderr
            b.audit(row, b.told())
            client = mlflow.MlflowClient(uri)
            (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
            runs = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'", max_results=5000)
            trials = [run.data.tags["trial"] for run in runs]
            row.lost += row.told - len(set(trials))
            row.twice += len(trials) - len(set(trials))
        finally:
            server.terminate()
            server.wait()
    row.notes = "MLflow's runs counted too"
    return row


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _mlflow(work: Path, port: int) -> subprocess.Popen[bytes]:
    import urllib.request

    store = f"sqlite:///{work / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--default-artifact-root", str(work / "artifacts")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=work)
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
            return server
        time.sleep(0.1)
    raise TimeoutError("the MLflow server does not answer")


def storage_cut_short(times: int, seed: int = 0) -> Row:
    """Cut a journal somewhere in its last line, as a power cut does, and resume the search."""
    row, rng = Row("journal file cut in its last line"), random.Random(seed)
    with bench(budget={"trials": 12 + 4 * times}, storage="journal") as b:
        from stepfront.search.algorithm.trials import GENOME
        from stepfront.search.study.optuna_storage import open_storage

        def told() -> dict[int, tuple[str, str]]:
            storage = open_storage("journal", b.directory)
            (study,) = storage.get_all_studies()
            trials = storage.get_all_trials(study._study_id)
            return {t.number: (t.user_attrs[GENOME], str(t.values)) for t in trials if t.state.name == "COMPLETE"}

        b.told = told  # type: ignore[method-assign]
        for i in range(times):
            done = b.call("search", str(b.config), "--set", f"budget.trials={12 + 4 * i}")
            assert done.returncode == 0, done.stderr
            before = told()
            path = b.directory / "study.journal"
            content = path.read_bytes()
            last = content[:-1].rfind(b"\n") + 1
            path.write_bytes(content[: rng.randint(last + 1, len(content) - 1)])
            row.injected += 1
            # The cut line is the state of the last trial; its result stands in the lines before.
            begin = time.monotonic()
            done = b.call("resume", str(b.work / "faults"))
            assert done.returncode == 0, done.stderr
            row.recovery.append(time.monotonic() - begin)
            b.audit(row, before)
    return row


def node_removed(times: int) -> Row:
    """Remove a node of a cluster of several raylets during the search, and add another."""
    row = Row("a node removed, another added")
    with bench(budget={"trials": 40 + 30 * times}, workers={"attempts": 20}) as b:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.faults_node", str(b.config), str(times)],
            capture_output=True,
            text=True,
            env=b.environment,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        said = json.loads(done.stdout.strip().splitlines()[-1])
        row.injected, row.recovery = said["injected"], said["recovery"]
        assert said["joined"] == times, f"{said['joined']} nodes joined"
        row.notes = f"{said['joined']} nodes joined"
        b.audit(row, b.told())
        assert row.told == 40 + 30 * times
    return row


def bad_settings(count: int, seed: int = 0) -> Row:
    """Replace one to three values of settings files by nonsense: they load or fail with one line, nothing else."""
    from stepfront.errors import InputError
    from stepfront.search.config import load_settings, settings_from
    from stepfront.search.presets import preset

    row, rng, refused = Row("bad settings files"), random.Random(seed), 0
    whole = settings_from(preset("digits")).model_dump(mode="json")
    nonsense = [None, -1, 0, 1e9, "x", "", [], {}, [1, 2], {"a": 1}, True, "1e-3", "../..", float("nan"), "null", "é\n"]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "bad.yaml"
        for _ in range(count):
            content = json.loads(json.dumps(whole))
            for _ in range(rng.randint(1, 3)):
                group = content
                while isinstance(group, dict) and group:
                    key = rng.choice([*group, "nonsense"])
                    if isinstance(group.get(key), dict) and rng.random() < 0.8:
                        group = group[key]
                        continue
                    group[key] = rng.choice(nonsense)
                    break
            path.write_text(json.dumps(content))
            if rng.random() < 0.1:
                path.write_text(path.read_text()[: rng.randrange(len(path.read_text()))])  # cut short
            row.injected += 1
            try:
                load_settings(path)
            except InputError as error:
                refused += 1
                if "\n" in str(error) or str(path) not in str(error):
                    raise AssertionError(f"no line that names the file: {error}") from None
    row.notes = f"{refused} refused in one line, the others are valid"
    return row


FAULTS: dict[str, tuple[Callable[[int], Row], int]] = {
    "driver": (driver_killed, 20),
    "interrupt": (interrupted, 6),
    "workers": (workers_killed, 10),
    "node": (node_removed, 3),
    "mlflow": (mlflow_away, 3),
    "journal": (storage_cut_short, 5),
    "settings": (bad_settings, 500),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(FAULTS), action="append", help="one fault; may be repeated")
    parser.add_argument("--times", type=int, help="number of injections per fault (default: the long form)")
    parser.add_argument("--json", action="store_true", help="print rows as JSON and write no page")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    given = parser.parse_args()
    rows = []
    for name in given.only or list(FAULTS):
        fault, times = FAULTS[name]
        rows.append(fault(given.times or times))
        print(json.dumps(asdict(rows[-1])), flush=True)
    if given.json:
        return
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    text = (
        f"# Faults\n\nMade by `make bench-faults` on {time.strftime('%Y-%m-%d')}; {found}.\n\nEach fault is injected"
        " into a search by the command that users run. Then the search is resumed, and the study, the tables and (where"
        " named) MLflow are compared with what had been recorded before. After a driver was killed, most of the seconds"
        " are the start of Ray and torch. Tests in `tests/search/study/` cover a full disk, a locked database and a"
        " PostgreSQL server that goes away.\n\n"
    )
    table = markdown(pd.DataFrame([row.shown() for row in rows]))
    (given.docs / "bench-faults.md").write_text(text + table + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
