"""Take the pictures in docs/screenshots from a real search, by Chromium without a window.

    make screenshots                  # from runs/digits, which `make quickstart` makes
    python -m benchmarks.screenshots runs/mine

The browser reaches only 127.0.0.1, so a page that needs more would show it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse
from PIL import Image

from stepfront.search.mlflow_runs.client import get_existing, make_client, tracking_uri
from stepfront.search.mlflow_runs.open_client import set_environment
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.records.run_directory import find_search
from stepfront.search.tracking.saved_view import view_path
from stepfront.search.tracking.server import server_command, server_environment
from stepfront.tables.search_tables import read_snapshot

OUT = Path("docs/screenshots")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ASSISTANT = 436
"""Pixels on the right that MLflow 3.17 gives its assistant in a fresh browser; they are cropped."""
PLOTS = "document.querySelectorAll('.js-plotly-plot .main-svg').length >= {}"
HIDE_PATHS = """for (const box of document.querySelectorAll('*'))
  if (box.textContent.startsWith('Path: file:')) box.style.visibility = 'hidden'"""  # this machine's own
SETTLE = 4.0  # seconds for drawings to come to rest, and for a framed page to be painted


def find_browser() -> str | None:
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


class Browser:
    """Chromium without a window, driven through its DevTools protocol.

    `away` collects the requests that would have left the machine; they lead nowhere.
    """

    def __init__(self, devtools: ClientWebSocketResponse) -> None:
        self._devtools, self._last, self.away = devtools, 0, set[str]()

    @staticmethod
    @contextlib.asynccontextmanager
    async def open(program: str) -> AsyncIterator[Browser]:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
            command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
            command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={profile}"]
            process = subprocess.Popen(
                [*command, "--remote-debugging-port=0", "about:blank"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                while not (ready := Path(profile) / "DevToolsActivePort").exists() or not ready.read_text().strip():
                    await asyncio.sleep(0.1)
                address = f"http://127.0.0.1:{ready.read_text().split()[0]}"
                async with ClientSession() as session:
                    async with session.get(f"{address}/json/list") as answer:
                        pages = [page for page in await answer.json() if page["type"] == "page"]
                    socket_address = pages[0]["webSocketDebuggerUrl"]
                    async with session.ws_connect(socket_address, max_msg_size=0, heartbeat=None) as devtools:
                        browser = Browser(devtools)
                        await browser._do("Network.enable")
                        yield browser
            finally:
                process.terminate()
                process.wait()

    async def shoot(self, address: str, out: Path, width: int, height: int, ready: str, cut: int = 0) -> None:
        """Save the page as PNG once the JavaScript expression `ready` is true, without `cut` pixels on its right."""
        screen = {"width": width + cut, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self._do("Emulation.setDeviceMetricsOverride", **screen)
        await self._do("Page.navigate", url="about:blank")  # another fragment alone would load nothing
        await self._do("Page.navigate", url=address)
        for _ in range(240):
            answer = await self._do("Runtime.evaluate", expression=f"Boolean({ready})")
            if answer["result"].get("value"):
                break
            await asyncio.sleep(0.5)
        else:
            raise SystemExit(f"{address} was not drawn within two minutes")
        await asyncio.sleep(SETTLE)
        await self._do("Runtime.evaluate", expression=HIDE_PATHS)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        picture = await self._do("Page.captureScreenshot", format="png", clip=clip)
        out.parent.mkdir(parents=True, exist_ok=True)
        drawn = Image.open(io.BytesIO(base64.b64decode(picture["data"]))).convert("RGB")
        # Pages have few colours: a palette makes the files a third as large.
        drawn.quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)
        print(f"{out}  {out.stat().st_size / 1000:.0f} kB", flush=True)

    async def _do(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        await self._devtools.send_json({"id": self._last, "method": method, "params": parameters})
        while True:
            said = await self._devtools.receive_json(timeout=120)
            if said.get("method") == "Network.requestWillBeSent":
                url = said["params"]["request"]["url"]
                if url.startswith("http") and not url.startswith("http://127.0.0.1:"):
                    self.away.add(url)
            if said.get("id") == self._last:
                return dict(said.get("result", {}))


@contextlib.contextmanager
def server(uri: str) -> Iterator[str]:
    """Run MLflow's server as `stepfront ui` starts it, on a free port, and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = server_command(uri, "127.0.0.1", port)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, env=server_environment())
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("search", type=Path, nargs="?", default=Path("runs/digits"))
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    program = find_browser()
    if program is None:
        print(f"no screenshots: none of {', '.join(BROWSERS)} is installed; those in {OUT} stay as they are")
        return
    if not given.search.exists():
        sys.exit(f"no search in {given.search}; first: make quickstart")
    set_environment()
    asyncio.run(shoot_all(program, given.search, given.out))


async def shoot_all(program: str, search: Path, out: Path) -> None:
    directory, settings = find_search(search)
    written, search_id = WrittenSearch.read(directory), str(read_snapshot(directory).facts["search_id"])
    uri = tracking_uri(settings.tracking.uri)
    if uri is None or not uri.startswith("sqlite") or not written.run_id:
        sys.exit(f"the search in {search} has no runs in an MLflow SQLite file; run `stepfront sync {search}` first")
    name, training = f"stepfront-{settings.name}", "?workflowType=machine_learning"
    async with Browser.open(program) as browser:
        with server(uri) as address:
            run = f"{address}/#/experiments/{written.experiment_id}/runs/{written.run_id}"
            view, size = address + view_path(written.experiment_id, search_id), (1280, 1290)
            await browser.shoot(view, out / "front.png", *size, PLOTS.format(4), ASSISTANT)
            described = "document.body.innerText.includes('trials_per_hour')"
            await browser.shoot(run + training, out / "run.png", 1280, 760, described, ASSISTANT)
            framed = "document.querySelector('iframe')"
            await browser.shoot(
                f"{run}/artifacts/report.html{training}", out / "artifact.png", 1280, 900, framed, ASSISTANT
            )
            if _registered(uri, name):
                model, listed = f"{address}/#/models/{name}{training}", "document.body.innerText.includes('Version 1')"
                await browser.shoot(model, out / "model.png", 1280, 900, listed, ASSISTANT)
        if browser.away:
            print(f"MLflow's own pages asked in vain for {', '.join(sorted(browser.away))}")
        browser.away.clear()
        report = (directory / "report.html").resolve().as_uri()
        await browser.shoot(report, out / "report.png", 1120, 1750, PLOTS.format(4))
        if browser.away:
            sys.exit(f"the report asked for {', '.join(sorted(browser.away))}")


def _registered(uri: str, model: str) -> bool:
    return get_existing(lambda: make_client(uri).get_registered_model(model)) is not None


if __name__ == "__main__":
    main()
