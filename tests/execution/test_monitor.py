"""A real Prometheus scrapes a study and answers every expression of the dashboard and the rules."""

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest
import yaml
from conftest import wait

from ablate.errors import BadInput
from ablate.execution.monitoring import METRICS, monitor

needs_prometheus = pytest.mark.skipif(
    not shutil.which("prometheus") or not shutil.which("promtool"),
    reason="Prometheus is not installed (Debian: prometheus)",
)


def expressions(dashboard):
    panels = json.loads(dashboard.read_text())["panels"]
    return [target["expr"].replace("$run", ".*") for panel in panels for target in panel["targets"]]


def test_the_files(tmp_path):
    dashboard, rules = monitor(tmp_path / "new" / "folder")
    shown = json.loads(dashboard.read_text())
    used = set(re.findall(r"ray_(ablate_\w+)", dashboard.read_text()))
    assert used == {*METRICS, "ablate_trial_seconds_bucket"}  # every metric is on the dashboard
    places = [tuple(panel["gridPos"].values()) for panel in shown["panels"]]
    assert len(set(places)) == len(places) and all(x + w <= 24 for x, y, w, h in places)
    alerts = yaml.safe_load(rules.read_text())["groups"][0]["rules"]
    assert set(re.findall(r"ray_(ablate_\w+)", rules.read_text())) <= set(METRICS)
    assert all({"alert", "expr", "for", "labels", "annotations"} == set(rule) for rule in alerts)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="--export must be a folder that can be written"):
        monitor(tmp_path / "file")


@needs_prometheus
def test_promtool_accepts_the_rules(tmp_path):
    _, rules = monitor(tmp_path)
    done = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True)
    assert done.returncode == 0 and "rules found" in done.stdout, done.stderr


@pytest.mark.long
@needs_prometheus
def test_the_alerts_fire_when_they_should(tmp_path):
    """promtool replays made-up series against the rules."""
    _, rules = monitor(tmp_path)

    def series(state, values, metric="trials"):
        labels = 'run="r"' + (f', state="{state}"' if state else "")
        return {"series": f"ray_ablate_{metric}{{{labels}}}", "values": values}

    healthy = [
        series("complete", "0+1x800"),
        series("failed", "0x800"),
        series("pruned", "0x800"),
        series("running", "2x800"),
    ]
    healthy += [series("left", "900-1x800"), series("", "0x800", "worker_deaths")]
    stalled = [
        series("complete", "5x800"),
        series("failed", "0x800"),
        series("pruned", "0x800"),
        series("running", "2x800"),
    ]
    failing = [series("complete", "1x800"), series("failed", "9x800"), series("pruned", "0x800")]
    fresh = [
        series("complete", "0x30"),
        series("failed", "0x30"),
        series("running", "2x30"),
        series("left", "9x30"),
    ]
    ended = [series("complete", "8 9 9"), series("running", "1 1 0"), series("left", "1 1 0")]
    stopped = [series("complete", "8 8 8"), series("running", "1 1 0"), series("left", "9 0 0")]
    cases = {
        "AblateManyTrialsFail": (failing, "30m"),
        "AblateWorkersDie": ([series("", "0+1x60", "worker_deaths")], "40m"),
        "AblateNothingRuns": ([series("running", "0x60"), series("left", "3x60")], "40m"),
        "AblateStalled": (stalled, "8h"),
        "AblateDriverGone": ([series("left", "3x20 _x20"), series("running", "1x20 _x20")], "28m"),
    }
    assert set(cases) == {rule["alert"] for rule in yaml.safe_load(rules.read_text())["groups"][0]["rules"]}
    tests = []
    for name, (given, at) in cases.items():
        seen = [
            {
                "exp_labels": {"run": "r", "severity": severity(rules, name)},
                "exp_annotations": summary(rules, name),
            }
        ]
        tests.append({"interval": "1m", "input_series": given, "alert_rule_test": [alert(name, at, seen)]})
        for quiet, at in ((healthy, "8h"), (fresh, "29m"), (ended, "9m"), (stopped, "9m")):
            tests.append({"interval": "1m", "input_series": quiet, "alert_rule_test": [alert(name, at, [])]})
    (tmp_path / "tests.yml").write_text(
        json.dumps({"rule_files": [rules.name], "evaluation_interval": "1m", "tests": tests})
    )
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def alert(name, at, seen):
    return {"eval_time": at, "alertname": name, "exp_alerts": seen}


def rule(rules, name):
    return next(r for r in yaml.safe_load(rules.read_text())["groups"][0]["rules"] if r["alert"] == name)


def severity(rules, name):
    return rule(rules, name)["labels"]["severity"]


def summary(rules, name):
    return {"summary": rule(rules, name)["annotations"]["summary"].replace("{{ $labels.run }}", "r")}


@needs_prometheus
@pytest.mark.slow
def test_prometheus_answers_every_expression_while_a_study_runs(tiny_study, tmp_path):
    (tmp_path / "tiny.toml").write_text(
        tiny_study.replace("trials = 4", "trials = 1000").replace("epochs = 1", "epochs = 20")
    )
    command = [sys.executable, "-m", "ablate", "study", "tiny.toml", "--out", "run"]
    driver = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = None
    try:
        ledger = tmp_path / "run" / "ledger.jsonl"
        wait(lambda: ledger.exists() and ledger.read_bytes().count(b"\n") >= 3)
        session = driver_session(driver)
        dashboard, rules = monitor(tmp_path)
        config = {"global": {"scrape_interval": "1s"}, "rule_files": [str(rules)]}
        config["scrape_configs"] = [
            {
                "job_name": "ray",
                "file_sd_configs": [{"files": [f"{session}/prom_metrics_service_discovery.json"]}],
            }
        ]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        files = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb"]
        server = subprocess.Popen(
            ["prometheus", *files, f"--web.listen-address=127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        missing = {}

        def answered():
            for expression in expressions(dashboard):
                missing[expression] = not answer(port, expression)
            return not any(missing.values())

        wait(answered, 120)
        names = {"complete", "failed", "pruned", "running", "waiting", "left"}

        def counted():  # Ray hands metrics on every few seconds, so the ledger is ahead of them
            rows = answer(port, "sum by (state) (ray_ablate_trials)")
            states = {row["metric"]["state"]: float(row["value"][1]) for row in rows}
            return set(states) == names and states["complete"] >= 3

        wait(counted, 60)
        [running, *_] = answer(port, "ray_ablate_slot_epoch")
        assert running["metric"]["slot"] in "01" and re.fullmatch(r"\w{12}", running["metric"]["trial"])
        assert re.search("full|binary|ternary", running["metric"]["layers"])
    finally:
        driver.terminate()
        driver.wait()
        if server:
            server.terminate()
            server.wait()


def driver_session(driver):
    """The folder of the Ray session that a driver has started, from its own command line of the log."""
    import psutil

    raylet = next(p for p in psutil.Process(driver.pid).children(recursive=True) if p.name() == "raylet")
    return next(word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--session_dir="))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer(port, expression):
    try:
        url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(expression)}"
        with urllib.request.urlopen(url, timeout=5) as reply:
            return json.load(reply)["data"]["result"]
    except OSError:
        return []
