"""The MLflow model of a point with a learnt sampler gives the images of the program."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from stepfront.search.export.exported.sample import Point
from stepfront.search.export.mlflow_model import save_model
from stepfront.search.export.program import FrontPoint, write_point


def test_a_model_carries_a_learnt_sampler(points: dict[str, FrontPoint], tmp_path: Path) -> None:
    point = points["learnt"]
    content = write_point(point.problem, point.facts, point.row, point.plan, tmp_path / "point")
    save_model(content, tmp_path / "point", tmp_path / "model")
    expected = Point(tmp_path / "point", "cpu").sample([3] * 5, range(5))
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    np.testing.assert_array_equal(model.predict(pd.DataFrame({"seed": [3] * 5}), params={"device": "cpu"}), expected)
