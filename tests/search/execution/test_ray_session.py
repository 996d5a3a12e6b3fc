"""The environment of a Ray session: what workers inherit, and where they import the package from."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from stepfront.environment import SOURCE_ROOT
from stepfront.search.execution.ray_session import ENVIRONMENT, import_path


def test_workers_import_a_checkout_from_where_the_driver_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert import_path(Path("/checkout/src")) == {"PYTHONPATH": "/checkout/src"}
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    assert import_path(Path("/checkout/src")) == {"PYTHONPATH": os.pathsep.join(["/checkout/src", "/theirs"])}


def test_an_installed_package_is_found_without_pythonpath() -> None:
    # In PYTHONPATH, site-packages would come before the standard library.
    assert import_path(Path(sysconfig.get_path("purelib")).resolve()) == {}


def test_importing_the_executor_changes_no_environment() -> None:
    names = [*ENVIRONMENT, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]
    code = f"""
import os
import stepfront.search.execution.executor, stepfront.search.execution.ray_session
print([name for name in {names!r} if name in os.environ])
"""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "TUNE_"))}
    clean["PYTHONPATH"] = str(SOURCE_ROOT)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=True)
    assert run.stdout.strip() == "[]"
