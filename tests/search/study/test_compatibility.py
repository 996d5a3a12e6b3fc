"""Check that a study is continued only with settings that its scores compare under."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepfront.errors import InputError
from tests.search.study.test_ledger import make_ledger, run


def test_another_searchs_storage_is_refused(tmp_path: Path) -> None:
    run(make_ledger("sqlite", tmp_path), most=2)
    with pytest.raises(InputError, match=r"begun with supernet 'abc', not 'xyz'"):
        make_ledger("sqlite", tmp_path, spec={"supernet": "xyz"})


def test_the_same_spec_is_accepted_as_the_storage_returns_it(tmp_path: Path) -> None:
    spec = {"space": {"widths": (0.5, 1.0)}, "engine": None}
    run(make_ledger("sqlite", tmp_path, spec=spec), most=2)
    assert make_ledger("sqlite", tmp_path, spec=spec).finished == 2
    with pytest.raises(InputError, match=r"begun with engine None, not 'compiled'.*--fresh"):
        make_ledger("sqlite", tmp_path, spec=spec | {"engine": "compiled"})
