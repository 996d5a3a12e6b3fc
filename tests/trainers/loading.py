"""Loading a dataset in a test: as settings would, or its refusal in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data import ImageData, load_data


def load(format: str, path: Path, **settings: Any) -> ImageData:
    return load_data(DataSettings(format=format, path=str(path), **settings))


def refusal(format: str, path: Path, **settings: Any) -> str:
    """Return the one line that names the path."""
    with pytest.raises(InputError) as caught:
        load(format, path, **settings)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message
