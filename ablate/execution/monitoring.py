"""The metrics that a study exports to Prometheus, and the Grafana dashboard and alerts that read them."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from ablate.errors import write_error
from ablate.paths import local_path

# Gauges: a name -> its description, and its labels beside `run`. Ray puts ray_ before every name.
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ablate_trials": (
        "Trials by state: complete, failed, pruned; running, waiting for a node; left (without a record yet)",
        ("state",),
    ),
    "ablate_front_size": ("Trials on the Pareto front", ()),
    "ablate_hypervolume": (
        "Share that the front dominates of the box from the first trial's costs to zero",
        (),
    ),
    "ablate_best_accuracy": ("Best validation accuracy within a class of packed sizes", ("size_class",)),
    "ablate_worker_deaths": ("Workers that died during a trial: a crash, a lost node, too little memory", ()),
    "ablate_duplicates_avoided": ("Proposals of the sampler that had already been run", ()),
    "ablate_end_time_seconds": ("Estimated end, in Unix time", ()),
    "ablate_slot_epoch": ("Last completed epoch of a running trial", ("slot", "trial", "layers")),
    "ablate_slot_accuracy": ("Validation accuracy after that epoch", ("slot", "trial", "layers")),
}
RUN = 'run=~"$run"'  # Grafana's variable
GRID = 24  # columns of Grafana's dashboards


class Panel(NamedTuple):
    """A panel of the dashboard. `expressions`: PromQL and its legend."""

    title: str
    unit: str
    width: int
    kind: str
    expressions: list[tuple[str, str]]


class Alert(NamedTuple):
    """An alert rule. `wait`: for how long the expression holds before the alert fires."""

    name: str
    expression: str
    wait: str
    severity: str
    summary: str


def _series(metric: str, title: str, unit: str, width: int, *labels: str, legend: str = "") -> Panel:
    """A panel of one metric over time, by run and labels."""
    expression = f"max by ({', '.join(('run', *labels))}) (ray_ablate_{metric}{{{RUN}}})"
    return Panel(title, unit, width, "timeseries", [(expression, legend or "{{run}}")])


def _quantile(q: float, name: str) -> tuple[str, str]:
    """A quantile of the training time of a trial, by run."""
    buckets = f"sum by (run, le) (ray_ablate_trial_seconds_bucket{{{RUN}}})"
    return f"histogram_quantile({q}, {buckets})", f"{{{{run}}}} {name}"


SLOT = ("slot", "trial", "layers")
SLOT_LEGEND = "slot {{slot}}: {{trial}}, {{layers}}"
PANELS = [
    _series("trials", "Trials", "short", 12, "state", legend="{{run}} {{state}}"),
    _series(
        "best_accuracy",
        "Best accuracy by packed size",
        "percentunit",
        12,
        "size_class",
        legend="{{run}} {{size_class}}",
    ),
    _series("hypervolume", "Hypervolume of the front", "percentunit", 8),
    _series("front_size", "Trials on the front", "short", 8),
    Panel(
        "Time left",
        "s",
        8,
        "stat",
        [(f"max by (run) (ray_ablate_end_time_seconds{{{RUN}}}) - time()", "{{run}}")],
    ),
    Panel(
        "Training time of a trial", "s", 8, "timeseries", [_quantile(0.5, "median"), _quantile(0.95, "95 %")]
    ),
    Panel(
        "Failed trials and worker deaths",
        "short",
        8,
        "timeseries",
        [
            (f'max by (run) (ray_ablate_trials{{state="failed", {RUN}}})', "{{run}} failed"),
            (f"max by (run) (ray_ablate_worker_deaths{{{RUN}}})", "{{run}} deaths"),
        ],
    ),
    _series("duplicates_avoided", "Duplicates avoided", "short", 8),
    _series(
        "slot_accuracy", "Running: accuracy by slot and trial", "percentunit", 12, *SLOT, legend=SLOT_LEGEND
    ),
    _series("slot_epoch", "Running: epoch by slot and trial", "short", 12, *SLOT, legend=SLOT_LEGEND),
]

# max: the series of an earlier driver of the run may still be there.
TRIALS = "max by (run, state) (ray_ablate_trials{state=~'%s'})"
DONE = "complete|failed|pruned"
ENDED = f"sum by (run) ({TRIALS % DONE})"
FAILED, RUNNING, LEFT = (f"sum by (run) ({TRIALS % state})" for state in ("failed", "running", "left"))
LAST = "max by (run) (last_over_time(ray_ablate_trials{state='%s'}[15m]))"
NONE_ENDED = f"sum by (run) (changes(ray_ablate_trials{{state=~'{DONE}'}}[6h])) == 0"
RAN_6H_AGO = "max by (run) (ray_ablate_trials{state='running'} offset 6h) > 0"
ALERTS = [
    Alert(
        "AblateManyTrialsFail",
        f"{FAILED} > 3 and {FAILED} > 0.5 * {ENDED}",
        "1m",
        "critical",
        "More than half of the trials of {{ $labels.run }} failed; `ablate status` says why",
    ),
    Alert(
        "AblateWorkersDie",
        "max by (run) (increase(ray_ablate_worker_deaths[30m])) > 5",
        "1m",
        "warning",
        "Workers of {{ $labels.run }} die repeatedly: too little memory, or nodes that are taken away",
    ),
    Alert(
        "AblateNothingRuns",
        f"{RUNNING} == 0 and {LEFT} > 0",
        "15m",
        "warning",
        "No trial of {{ $labels.run }} has run for 15 minutes although some are left: "
        "the cluster has no room",
    ),
    Alert(
        "AblateStalled",
        f"{NONE_ENDED} and {RUNNING} > 0 and {RAN_6H_AGO}",
        "10m",
        "warning",
        "No trial of {{ $labels.run }} has ended for 6 hours",
    ),
    Alert(
        "AblateDriverGone",
        f"{LAST % 'left'} - {LAST % 'running'} > 0 unless on (run) ray_ablate_trials",
        "1m",
        "critical",
        "The driver of {{ $labels.run }} is gone with trials left; continue with `ablate resume`",
    ),
]


def monitor(directory: str | Path) -> list[Path]:
    """Write the Grafana dashboard and the Prometheus rules for Ray's metrics to a folder.

    Args:
        directory: The folder; it is made if it does not exist.

    Returns:
        The paths of the dashboard and of the rules.

    Raises:
        BadInput: The folder cannot be written.
        WriteFailed: The disk is full or broken.
    """
    directory = local_path(directory)
    dashboard = directory / "ablate-grafana-dashboard.json"
    rules = directory / "ablate-prometheus-rules.yml"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        dashboard.write_text(json.dumps(_dashboard(), indent=1) + "\n", encoding="utf-8")
        rules.write_text(json.dumps(_rules(), indent=1) + "\n", encoding="utf-8")  # YAML contains JSON
    except OSError as error:
        message = f"--export must be a folder that can be written, but {str(directory)!r}: {error.strerror}"
        raise write_error(error, message) from None
    return [dashboard, rules]


def _dashboard() -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    panels: list[dict[str, Any]] = []
    x = y = 0
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > GRID:
            x, y = 0, y + 8
        panels.append(_panel(number, panel, x, y, source))
        x += panel.width
    return {
        "title": "ablate",
        "uid": "ablate",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "panels": panels,
        "templating": {"list": _variables(source)},
    }


def _panel(number: int, panel: Panel, x: int, y: int, source: dict[str, str]) -> dict[str, Any]:
    targets = [
        {"expr": expression, "legendFormat": legend, "refId": chr(ord("A") + i)}
        for i, (expression, legend) in enumerate(panel.expressions)
    ]
    return {
        "id": number,
        "title": panel.title,
        "type": panel.kind,
        "datasource": source,
        "targets": targets,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": 8},
        "fieldConfig": {"defaults": {"unit": panel.unit}},
    }


def _variables(source: dict[str, str]) -> list[dict[str, Any]]:
    """What the dashboard's user chooses: the data source, and the runs."""
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "type": "query",
            "datasource": source,
            "includeAll": True,
            "multi": True,
            "refresh": 2,
            "name": "run",
            "label": "Run",
            "query": "label_values(ray_ablate_trials, run)",
            "allValue": ".*",
        },
    ]


def _rules() -> dict[str, Any]:
    rules = [
        {
            "alert": alert.name,
            "expr": alert.expression,
            "for": alert.wait,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary},
        }
        for alert in ALERTS
    ]
    return {"groups": [{"name": "ablate", "rules": rules}]}
