"""Draw figures in two steps: `..._data(tables)` returns plain numbers, `..._figure(data)` draws them."""

from stepfront.dashboards.figures.attainment import attainment_data, attainment_figure
from stepfront.dashboards.figures.comparison import (
    comparison_data,
    comparison_figure,
    hypervolume_shares,
    relative_data,
)
from stepfront.dashboards.figures.front import beyond, front_data, front_figure
from stepfront.dashboards.figures.hypervolume import hypervolume_data, hypervolume_figure
from stepfront.dashboards.figures.latency import latency_data, latency_figure
from stepfront.dashboards.figures.origins import origins_data, origins_figure
from stepfront.dashboards.figures.picture import save_front_picture
from stepfront.dashboards.figures.plans import plans_data, plans_figure

__all__ = [
    "attainment_data",
    "attainment_figure",
    "beyond",
    "comparison_data",
    "comparison_figure",
    "front_data",
    "front_figure",
    "hypervolume_data",
    "hypervolume_figure",
    "hypervolume_shares",
    "latency_data",
    "latency_figure",
    "origins_data",
    "origins_figure",
    "plans_data",
    "plans_figure",
    "relative_data",
    "save_front_picture",
]
