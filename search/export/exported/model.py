"""Sample images of an exported point as an MLflow model (models from code).

The model takes a table of noise seeds and returns images.

Column `seed` is the noise seed; column `image`, the number of the image within that seed, may be left out.  Then the
rows of a seed are its images 0, 1, 2, ...  So a table of 64 rows with seed 0 gives the images of
`stepfront sample --seed 0 --images 64`.  Column `label`, the class of each image, is for models with classes and may
be left out: labels are then drawn as often as in the training data.  Returns uint8 [N, H, W, C].
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd


class PlanModel(mlflow.pyfunc.PythonModel):
    """An MLflow model that samples with the sample.py among its artifacts."""

    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["point"])
        spec = importlib.util.spec_from_file_location("stepfront_exported_sample", folder / "sample.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(f"no sample.py in {folder}")
        program = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(program)
        self._point = program.Point(folder)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:
        if not len(model_input) or (model_input[["seed"]].min() < 0).any():
            raise ValueError("give at least one row, with seeds that are integers from 0 on")
        counted = model_input.groupby("seed").cumcount()
        numbers = model_input["image"].fillna(counted) if "image" in model_input else counted
        labels = None
        if "label" in model_input:
            if model_input["label"].isna().any():
                raise ValueError("some rows have no label; give every row one, or leave the column out")
            labels = model_input["label"].astype(int).tolist()
        return np.asarray(self._point.sample(model_input["seed"].tolist(), numbers.astype(int).tolist(), labels))


mlflow.models.set_model(PlanModel())
