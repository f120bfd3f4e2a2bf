"""What a study shows to Prometheus, and the Grafana dashboard and alert rules that read it."""

import json
from pathlib import Path
from typing import Any

from ablate.errors import write_error

METRICS: dict[str, tuple[str, tuple[str, ...]]] = {  # gauges: name -> (description, labels beside `run`)
    "ablate_trials": (
        "Trials by state: complete, failed, pruned; running, waiting for a node; left to be recorded",
        ("state",),
    ),
    "ablate_front_size": ("Trials on the Pareto front", ()),
    "ablate_hypervolume": (
        "Share of the box between the first trial's costs and none that the front dominates",
        (),
    ),
    "ablate_best_accuracy": ("Best validation accuracy of a class of packed sizes", ("size_class",)),
    "ablate_worker_deaths": ("Workers that died under a trial, by crash, lost node or lack of memory", ()),
    "ablate_duplicates_avoided": ("Proposals of the sampler that had been run already", ()),
    "ablate_end_time_seconds": ("Estimated end, in Unix time", ()),
    "ablate_slot_epoch": ("Last epoch that a running trial has ended", ("slot", "trial", "layers")),
    "ablate_slot_accuracy": ("Validation accuracy after it", ("slot", "trial", "layers")),
}
RUN = 'run=~"$run"'  # Grafana's variable
PANELS = [  # title, unit, width of 24, kind, and expressions with their legends; Ray puts ray_ before every name
    ("Trials", "short", 12, "timeseries", [(f"max by (run, state) (ray_ablate_trials{{{RUN}}})", "{{run}} {{state}}")]),
    ("Best accuracy by packed size", "percentunit", 12, "timeseries", [
        (f"max by (run, size_class) (ray_ablate_best_accuracy{{{RUN}}})", "{{run}} {{size_class}}")]),
    ("Hypervolume of the front", "percentunit", 8, "timeseries", [
        (f"max by (run) (ray_ablate_hypervolume{{{RUN}}})", "{{run}}")]),
    ("Trials on the front", "short", 8, "timeseries", [(f"max by (run) (ray_ablate_front_size{{{RUN}}})", "{{run}}")]),
    ("Time left", "s", 8, "stat", [(f"max by (run) (ray_ablate_end_time_seconds{{{RUN}}}) - time()", "{{run}}")]),
    ("Training time of a trial", "s", 8, "timeseries", [
        (f"histogram_quantile({q}, sum by (run, le) (ray_ablate_trial_seconds_bucket{{{RUN}}}))", f"{{{{run}}}} {name}")
        for q, name in ((0.5, "median"), (0.95, "95 %"))]),
    ("Failed trials and worker deaths", "short", 8, "timeseries", [
        (f'max by (run) (ray_ablate_trials{{state="failed", {RUN}}})', "{{run}} failed"),
        (f"max by (run) (ray_ablate_worker_deaths{{{RUN}}})", "{{run}} deaths")]),
    ("Duplicates avoided", "short", 8, "timeseries", [(f"max by (run) (ray_ablate_duplicates_avoided{{{RUN}}})", "{{run}}")]),
    ("Running: accuracy by slot and trial", "percentunit", 12, "timeseries", [
        (f"max by (run, slot, trial, layers) (ray_ablate_slot_accuracy{{{RUN}}})", "slot {{slot}}: {{trial}}, {{layers}}")]),
    ("Running: epoch by slot and trial", "short", 12, "timeseries", [
        (f"max by (run, slot, trial, layers) (ray_ablate_slot_epoch{{{RUN}}})", "slot {{slot}}: {{trial}}, {{layers}}")]),
]  # fmt: skip
TRIALS = (
    "max by (run, state) (ray_ablate_trials{state=~'%s'})"  # max: an old driver's series may still be there
)
ENDED = f"sum by (run) ({TRIALS % 'complete|failed|pruned'})"
FAILED, RUNNING, LEFT = (f"sum by (run) ({TRIALS % state})" for state in ("failed", "running", "left"))
LAST = "max by (run) (last_over_time(ray_ablate_trials{state='%s'}[15m]))"
ALERTS = [  # name, expression, for how long, severity, summary
    ("AblateManyTrialsFail", f"{FAILED} > 3 and {FAILED} > 0.5 * {ENDED}", "1m", "critical",
     "More than half of the trials of {{ $labels.run }} failed; `ablate status` says why"),
    ("AblateWorkersDie", "max by (run) (increase(ray_ablate_worker_deaths[30m])) > 5", "1m", "warning",
     "Workers of {{ $labels.run }} die again and again: too little memory, or nodes that are taken away"),
    ("AblateNothingRuns", f"{RUNNING} == 0 and {LEFT} > 0", "15m", "warning",
     "No trial of {{ $labels.run }} has run for 15 minutes although some are left: the cluster has no room"),
    ("AblateStalled", "sum by (run) (changes(ray_ablate_trials{state=~'complete|failed|pruned'}[6h])) == 0 and "
     f"{RUNNING} > 0 and max by (run) (ray_ablate_trials{{state='running'}} offset 6h) > 0", "10m", "warning",
     "No trial of {{ $labels.run }} has ended for 6 hours"),
    ("AblateDriverGone", f"{LAST % 'left'} - {LAST % 'running'} > 0 unless on (run) ray_ablate_trials", "1m", "critical",
     "The driver of {{ $labels.run }} is gone with trials left; go on with `ablate resume`"),
]  # fmt: skip


def monitor(directory: Path) -> list[Path]:
    """Write the Grafana dashboard and the Prometheus rules for Ray's metrics to a folder; the two files.

    Raises BadInput when the folder cannot be written.
    """
    dashboard, rules = directory / "ablate-grafana-dashboard.json", directory / "ablate-prometheus-rules.yml"
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
    for number, (title, unit, width, kind, expressions) in enumerate(PANELS, 1):
        x, y = (0, y + 8) if x + width > 24 else (x, y)
        targets = [
            {"expr": e, "legendFormat": legend, "refId": chr(65 + i)}
            for i, (e, legend) in enumerate(expressions)
        ]
        panel = {"id": number, "title": title, "type": kind, "datasource": source, "targets": targets}
        panels.append(
            panel
            | {"gridPos": {"x": x, "y": y, "w": width, "h": 8}, "fieldConfig": {"defaults": {"unit": unit}}}
        )
        x += width
    query = {"type": "query", "datasource": source, "includeAll": True, "multi": True, "refresh": 2}
    variables = [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        query
        | {"name": "run", "label": "Run", "query": "label_values(ray_ablate_trials, run)", "allValue": ".*"},
    ]
    about = {
        "title": "ablate",
        "uid": "ablate",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
    }
    return about | {"panels": panels, "templating": {"list": variables}}


def _rules() -> dict[str, Any]:
    rules = [
        {
            "alert": name,
            "expr": e,
            "for": wait,
            "labels": {"severity": severity},
            "annotations": {"summary": summary},
        }
        for name, e, wait, severity, summary in ALERTS
    ]
    return {"groups": [{"name": "ablate", "rules": rules}]}
