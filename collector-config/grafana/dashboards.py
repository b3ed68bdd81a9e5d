"""Writes the dashboards: ``python dashboards.py`` (needs ``pip install grafana-foundation-sdk``).

The files in ``dashboards/`` are what Grafana reads; change a ``board_*.py`` and run this.
"""

# ruff: noqa: INP001 - scripts beside what they write, not a package

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from board_cost import COST
from board_fleet import FLEET
from board_model import ONE_MODEL
from grafana_foundation_sdk.builders import (
    common,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphTresholdsStyleMode, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from panels import Panel

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
FORMATS: Final = {"heatmap": PromQueryFormat.HEATMAP, "table": PromQueryFormat.TABLE}

AnyPanel = timeseries.Panel | statetimeline.Panel | stat.Panel | heatmap.Panel | table.Panel


def panel(described: Panel) -> AnyPanel:
    """Grafana's panel of a described one."""
    kinds = {
        "lines": timeseries.Panel,
        "states": statetimeline.Panel,
        "number": stat.Panel,
        "heatmap": heatmap.Panel,
        "table": table.Panel,
    }
    built: AnyPanel = kinds[described.kind]()
    built = (
        built.title(described.title)
        .description(described.description)
        .unit(described.unit)
        .datasource(SOURCE)
        .height(4 if described.kind == "number" else 8)
        .span(described.width)
    )
    steps = [Threshold(color="green")]
    if described.limit is not None:
        steps.append(Threshold(color="red", value=described.limit))
    built = built.thresholds(board.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    if isinstance(built, timeseries.Panel):
        built = built.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        built = built.legend(common.VizLegendOptions().show_legend(True))
        if described.limit is not None:
            dashed = common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED)
            built = built.thresholds_style(dashed)
    if isinstance(built, statetimeline.Panel):
        built = built.color_scheme(board.FieldColor().mode(FieldColorModeId.THRESHOLDS)).merge_values(True)
        built = built.legend(common.VizLegendOptions().show_legend(False))
    for position, (expression, legend) in enumerate(described.queries):
        query = prometheus.Dataquery().datasource(SOURCE).expr(expression).ref_id(chr(ord("A") + position))
        query = query.legend_format(legend or "__auto").exemplar(described.exemplars)
        if described.kind in FORMATS:
            query = query.format(FORMATS[described.kind])
        built = built.with_target(query.instant() if described.kind == "table" else query.range())
    return built


def choice(name: str, label: str, values: str) -> board.QueryVariable:
    """Return a variable whose values Prometheus gives."""
    return (
        board.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".+")
    )


def dashboard(uid: str, title: str, rows: Sequence[Panel | str], *, by_model: bool = False) -> str:
    """Return a dashboard as Grafana's JSON, linked to the others of the project."""
    links = board.DashboardLink("Quantized models").type(DashboardLinkType.DASHBOARDS).tags(["quantmon"])
    built = (
        board.Dashboard(title)
        .uid(uid)
        .tags(["quantmon"])
        .refresh("1m")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(links.as_dropdown(True).include_vars(True).keep_time(True))
        .with_variable(board.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(choice("job", "Service", "label_values(quantmon_model_info_ratio, job)"))
    )
    if by_model:
        models = 'label_values(quantmon_model_info_ratio{job=~"$job"}, quantmon_model_name)'
        built = built.with_variable(choice("model", "Model", models))
    for row in rows:
        built = built.with_row(board.Row(row)) if isinstance(row, str) else built.with_panel(panel(row))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def rendered() -> dict[str, str]:
    """Every dashboard by the name of its file."""
    return {
        "fleet.json": dashboard("quantmon-fleet", "Quantized models: fleet", FLEET),
        "model.json": dashboard("quantmon-model", "Quantized models: one model", ONE_MODEL, by_model=True),
        "cost.json": dashboard("quantmon-cost", "Quantized models: cost of monitoring", COST),
    }


if __name__ == "__main__":
    for name, text in rendered().items():
        (Path(__file__).parent / "dashboards" / name).write_text(text)
