"""Write an exported folder as an MLflow model: a pyfunc with a signature and requirements that anybody can install."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PROGRAM = Path(__file__).parent / "exported" / "model.py"
REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "safetensors")


def save_model(content: Mapping[str, Any], point: Path, folder: Path) -> None:
    """Write the exported folder `point`, whose plan.json holds `content`, as an MLflow model."""
    os.environ.setdefault("MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK", "true")  # the check would contact a package index
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import AnyType

    channels, height, width = content.get("decoder", content)["image_shape"]
    optional = ["image", "label"] if "condition" in content else ["image"]
    # Any, not long: MLflow's server would turn a seed of 1.5 into 1.  The program refuses it.
    columns = [ColSpec(AnyType(), "seed"), *(ColSpec(AnyType(), name, required=False) for name in optional)]
    signature = ModelSignature(
        Schema(columns),
        Schema([TensorSpec(np.dtype(np.uint8), (-1, height, width, channels))]),
        ParamSchema([ParamSpec("device", "string", "auto"), ParamSpec("encoding", "string", "pixels")]),
    )
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(PROGRAM),
        artifacts={"point": str(point)},
        signature=signature,
        input_example=pd.DataFrame({"seed": [0]} | {name: [0] for name in optional}),
        pip_requirements=[_requirement(name, importlib.metadata.version(name)) for name in REQUIREMENTS],
        metadata=dict(content["point"]),
    )


def _requirement(name: str, version: str) -> str:
    """Return what to install: from the version that made the model up to the next major one.

    A local version such as 2.13.0+cpu is on no package index; which build is right depends on who installs it.
    """
    public = version.partition("+")[0]
    return f"{name}>={public},<{int(public.partition('.')[0]) + 1}"
