"""The findings of a run as plotly figures for the report page."""

from collections.abc import Callable

from ablate.config.study_spec import StudySpec
from ablate.reporting import plotly_design_charts, plotly_front, plotly_grid, plotly_search_charts
from ablate.reporting.plotly_panel import Panel
from ablate.reporting.run_results import Finding

CHARTS: dict[str, Callable[[Finding, list[str]], list[Panel]]] = {
    "front": plotly_front.front,
    "progress": plotly_search_charts.progress,
    "parameters": plotly_search_charts.parameters,
    "layers": plotly_search_charts.layers,
    "sensitivity": plotly_design_charts.sensitivity,
    "scaling": plotly_design_charts.scaling,
    "grid": plotly_grid.grid,
    "volume": plotly_design_charts.volume,
    "ladder": plotly_design_charts.ladder,
    "confusion": plotly_search_charts.confusion,
}


def charts(name: str, finding: Finding, study: StudySpec) -> list[Panel]:
    """The figures of a finding.

    Args:
        name: Of the finding.
        finding: Of a run.
        study: Of the run.

    Returns:
        One or more panels; none where there is nothing to draw.
    """
    draw = CHARTS.get(name)
    return draw(finding, list(study.objectives)) if draw and finding else []
