"""`stepfront doctor CONFIG`: what is usable, with Ray.  A file of its own: where tests use Ray, all of a file do."""

from __future__ import annotations

import json
from pathlib import Path

from tests.search.cli.test_cli import call


def test_doctor_says_what_is_usable(tmp_path: Path, monkeypatch, capsys, cluster: None) -> None:  # type: ignore[no-untyped-def]
    config = tmp_path / "c.yaml"
    config.write_text(f"{{name: x, directory: {tmp_path}, tracking: {{uri: null}}}}")
    code, said, _ = call(monkeypatch, capsys, "doctor", str(config))
    assert code == 0
    assert said.count("ok  ") == 10
    config.write_text(
        f"{{name: x, directory: {tmp_path}, data: {{format: npz, path: gone.npz}}, tracking: {{uri: null}}}}"
    )
    code, said, _ = call(monkeypatch, capsys, "doctor", str(config))
    assert code == 1
    assert "FAIL  data       no data file at gone.npz" in said
    code, said, told = call(monkeypatch, capsys, "doctor", str(config), "--json")
    assert code == 1
    found = {row["what"]: row for row in json.loads(said)}
    assert (found["data"]["usable"], found["data"]["detail"]) == (False, "no data file at gone.npz")
    assert found["python"]["usable"]
    assert "FAIL  data" in told
