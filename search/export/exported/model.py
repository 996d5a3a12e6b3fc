"""Sample images of an exported point as an MLflow model (models from code).

The model takes a table of noise seeds and returns images.

Column `seed` is the noise seed; column `image`, the number of the image within that seed, may be left out.  Then the
rows of a seed are its images 0, 1, 2, ...  So a table of 64 rows with seed 0 gives the images of
`stepfront sample --seed 0 --images 64`.  Column `label`, the class of each image, is for models with classes and may
be left out: labels are then drawn as often as in the training data.

Parameter `device` is auto (a GPU where there is one), cpu, cuda, cuda:1 and so on.  Parameter `encoding` is `pixels`
(uint8 [N, H, W, C]) or `png` (a list of N PNG files in base64).
"""

from __future__ import annotations

import base64
import importlib.util
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

ENCODINGS = ("pixels", "png")


class PlanModel(mlflow.pyfunc.PythonModel):
    """An MLflow model that samples with the sample.py among its artifacts."""

    def load_context(self, context: Any) -> None:
        folder = Path(context.artifacts["point"])
        spec = importlib.util.spec_from_file_location("stepfront_exported_sample", folder / "sample.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(f"no sample.py in {folder}")
        program = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(program)
        self._program, self._folder = program, folder
        self._points: dict[str, Any] = {}
        self._point("auto")  # damaged weights are refused here and not by the first request

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray | list[str]:
        """Return the images; what is wrong with the input is an MlflowException, whose text MLflow's server sends."""
        try:
            return self._predict(model_input, params)
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None) -> np.ndarray | list[str]:
        given = {"device": "auto", "encoding": "pixels"} | (params or {})
        if given["encoding"] not in ENCODINGS:
            raise ValueError(f"encoding {given['encoding']!r}; possible: {', '.join(ENCODINGS)}")
        if not len(model_input):
            raise ValueError("the table is empty; give one row per image")
        seeds, numbers = model_input["seed"].tolist(), self._numbers(model_input)
        labels = None
        if "label" in model_input:
            if model_input["label"].isna().any():
                raise ValueError("some rows have no label; give every row one, or leave the column out")
            labels = model_input["label"].tolist()
        images = self._point(given["device"]).sample(seeds, numbers, labels)
        if given["encoding"] == "pixels":
            return np.asarray(images)
        return [base64.b64encode(self._program.png(image)).decode() for image in images]

    def _numbers(self, table: pd.DataFrame) -> list[int]:
        counted = table.groupby("seed").cumcount()
        numbers = table["image"].fillna(counted) if "image" in table else counted
        # Where some are missing, pandas holds the others as floats.
        return [int(n) if isinstance(n, float) and n.is_integer() else n for n in numbers.tolist()]

    def _point(self, device: str) -> Any:
        """Return the point on a device; the weights stay there for the next request."""
        name = str(self._program.find_device(device))
        if name not in self._points:
            self._points[name] = self._program.Point(self._folder, name)
        return self._points[name]


mlflow.models.set_model(PlanModel())
