"""A small server on loopback that answers as MLflow does, and refuses what a test says."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RUN = {"info": {"run_id": "r", "experiment_id": "7", "status": "RUNNING", "lifecycle_stage": "active"}, "data": {}}
EXPERIMENT = {"experiment_id": "7", "name": "theirs", "lifecycle_stage": "active", "artifact_location": "x"}


class Answers:
    """What the server has been asked, and which requests it refuses: the ends of their paths, each with an error."""

    def __init__(self, refuses: dict[str, str]) -> None:
        self.refuses, self.asked, self.address = refuses, list[str](), ""


@contextlib.contextmanager
def running(refuses: dict[str, str] | None = None) -> Iterator[Answers]:
    """Run the server within the block."""
    answers = Answers(refuses or {})

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            end = self.path.partition("?")[0].partition("/mlflow/")[2]
            answers.asked.append(end)
            code, content = 200, _content(end)
            if error := answers.refuses.get(end):
                code, content = (404 if "NOT_EXIST" in error else 403), {"error_code": error, "message": "refused"}
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, *args: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answers.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield answers
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _content(end: str) -> dict[str, Any]:
    if end.startswith("experiments/get"):
        return {"experiment": EXPERIMENT}
    return {"run": RUN, "run_info": RUN["info"]} if end in ("runs/create", "runs/get", "runs/update") else {}
