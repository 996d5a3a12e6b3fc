"""A place behind each kind of file system: pyarrow's own behind file://, one of fsspec's, and S3's protocol.

Python's collector of cycles need not walk through what the imports of the whole suite have made.
"""

from __future__ import annotations

import contextlib
import gc
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from pyarrow.fs import S3FileSystem


def pytest_collection() -> None:
    """Look for no cycles while the suite is imported: a quarter of that time."""
    gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Look for cycles again, in what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a server that speaks S3: moto's, where its program is installed."""
    program = shutil.which("moto_server")
    if program is None:
        pytest.skip("no moto_server is installed (pip install 'moto[server,s3]', in an environment of its own)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(tmp_path_factory.mktemp("s3") / "log", "w") as log:
        server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    try:
        for _ in range(120):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.5)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(params=["file", "memory", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an empty place for a run: behind pyarrow's local file system, one of fsspec's, and S3's protocol."""
    fresh = uuid.uuid4().hex
    if request.param != "s3":
        return f"file://{tmp_path}/bucket/runs/digits" if request.param == "file" else f"memory://{fresh}/digits"
    address = request.getfixturevalue("s3_server")
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    where = {"endpoint_override": address, "scheme": "http", "region": "us-east-1"}
    S3FileSystem(**where, allow_bucket_creation=True).create_dir(fresh)
    # Small files in one request each: moto now and then fails to complete an upload in parts.
    return f"s3://{fresh}/runs/digits?{urlencode(where)}&allow_delayed_open=true"
