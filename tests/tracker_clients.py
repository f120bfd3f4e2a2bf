"""What trackers hold of a run, read by their own clients, and an MLflow server on loopback."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import psutil


@contextlib.contextmanager
def mlflow_server(folder):
    """The URI of a server whose files are in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/files",
    ]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), *places]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--workers", "1"],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
    uri, limit = f"http://127.0.0.1:{port}", time.monotonic() + 300
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=5):
                break
            assert server.poll() is None and time.monotonic() < limit, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield uri
    finally:
        for process in [*psutil.Process(server.pid).children(recursive=True), server]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        server.wait()


def in_mlflow(uri):
    """(trials, parents, files of the first parent): each trial (id, curve, accuracy, status)."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("ablate").experiment_id])
    parents = [run for run in runs if "ablate.trial" not in run.data.tags]
    trials = []
    for run in runs:
        if run in parents:
            continue
        assert run.data.tags["mlflow.parentRunId"] in {parent.info.run_id for parent in parents}
        history = client.get_metric_history(run.info.run_id, "epoch/accuracy")
        curve = [(row.step, row.value) for row in history]
        trials.append((run.data.tags["ablate.trial"], curve, run.data.metrics["accuracy"], run.info.status))
    files = [
        file.path
        for folder in ("", "figures", "tables")
        for file in client.list_artifacts(parents[0].info.run_id, folder)
    ]
    return sorted(trials), parents, files


def in_tensorboard(folder):
    """(trials, pictures, texts): each trial (its id, its curve, its accuracy); the others of the study."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trials, pictures, texts = [], [], []
    for each in folder.iterdir():
        events = EventAccumulator(str(each))
        events.Reload()
        if each.name == "study":
            pictures = events.Tags()["images"]
            texts = events.Tags()["tensors"]
            continue
        curve = [(row.step, row.value) for row in events.Scalars("epoch/accuracy")]
        [accuracy] = [row.value for row in events.Scalars("accuracy")]
        trials.append((each.name, curve, accuracy))
    return sorted(trials), pictures, texts


def in_wandb(folder):
    """(trials, keys of the study's run): each trial (its id, its curve, its accuracy)."""
    trials, keys = [], []
    for file in folder.glob("offline-run-*/run-*.wandb"):
        records = [*_wandb_records(file.read_bytes())]
        assert records[-1].HasField("exit"), "the run is not whole"
        [name] = [record.run.display_name for record in records if record.HasField("run")]
        rows = [_items(record.history.item) for record in records if record.HasField("history")]
        if name == "study":
            keys = [key for row in rows for key in row]
            continue
        summary = {}
        for record in records:
            summary |= _items(record.summary.update)
        curve = [(row["_step"], row["epoch/accuracy"]) for row in rows]
        trials.append((name, curve, summary["accuracy"]))
    return sorted(trials), keys


def _items(items):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _wandb_records(content):
    """The messages of an offline run, by wandb's own protocol: blocks of 32 KiB as in LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    place, message = 7, b""
    assert content.startswith(b":W&B")
    while place < len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        message += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole one, or the last part
            yield Record.FromString(message)
            message = b""
