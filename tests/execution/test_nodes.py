"""Several real Ray nodes on one machine."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from conftest import wait
from ray.cluster_utils import Cluster
from ray.util.state import list_actors
from saved_models import SMALL, numbered, save
from transformers import ViTImageProcessor

import ablate
from ablate import load_run
from ablate.config.trial_spec import checked
from ablate.data.datasets import CIFAR10
from ablate.errors import BadInput
from ablate.execution.ray_cluster import Resources, _fit

PACKAGE = Path(ablate.__file__).parent
LONGER = ("trials = 4", "trials = 6"), ("epochs = 1", "epochs = 40")


@pytest.fixture
def nodes():
    """A cluster whose head has no CPU for trials."""
    with socket.socket() as probe:  # another Ray of this machine may have the usual port
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "dashboard_port": port})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def study(tmp_path, text, *options):
    (tmp_path / "tiny.toml").write_text(text)
    command = [sys.executable, "-m", "ablate", "study", "tiny.toml", "--out", "run", *options]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def running(tmp_path):
    return (
        load_run(tmp_path / "run").state.get("running", [])
        if (tmp_path / "run" / "study.toml").exists()
        else []
    )


@pytest.mark.slow
def test_trials_share_gpus_on_unlike_nodes_and_survive_the_loss_of_one(nodes, tiny_study, tmp_path):
    """GPUs as logical resources: one node has two, the other none, so all trials run on the first."""
    first = nodes.add_node(num_cpus=4, num_gpus=1)
    nodes.add_node(num_cpus=8)
    for change in LONGER:
        tiny_study = tiny_study.replace(*change)
    driver = study(tmp_path, tiny_study, "--address", nodes.address, "--gpus-per-trial", "0.5")
    wait(lambda: len(running(tmp_path)) == 2 and all(row["epoch"] for row in running(tmp_path)))
    ray.init(nodes.address, log_to_driver=False)
    slots = [
        actor
        for actor in list_actors(detail=True)
        if actor.state == "ALIVE" and actor.repr_name.startswith("slot")
    ]
    assert sorted(actor.repr_name for actor in slots) == ["slot 0", "slot 1"]
    assert {actor.node_id for actor in slots} == {first.node_id}
    nodes.remove_node(first, allow_graceful=False)
    nodes.add_node(num_cpus=2, num_gpus=1)
    _, error = driver.communicate()
    assert driver.returncode == 0, error
    run = load_run(tmp_path / "run")
    assert list(run.records["status"]) == ["complete"] * 6 and run.records["trial_id"].is_unique
    assert run.state["deaths"] == 2 and run.state["concurrency"] == 2
    assert len(list((tmp_path / "run" / "predictions").iterdir())) == 6  # all came to the driver's folder


@pytest.mark.slow
@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0, reason="needs root"
)
def test_a_node_that_does_not_share_the_file_system(nodes, tiny_study, tiny_vit, tmp_path):
    """A raylet that sees neither this package nor the folders of model and teacher: all travel."""
    teacher = tmp_path / "teacher"
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(teacher)
    save(teacher, "ViTForImageClassification", SMALL, **numbered(CIFAR10))
    hidden = PACKAGE, tiny_vit, teacher
    hide = " && ".join(f"mount -t tmpfs none {folder}" for folder in hidden)
    tiny_study = tiny_study.replace("[recipe]", '[recipe]\ndistill = 0.5\nteacher = "teacher"')
    there = f"{sys.executable} -m ray.scripts.scripts start --address {nodes.address} --num-cpus 1 --block"
    raylet = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"{hide} && exec {there}"], stdout=subprocess.DEVNULL
    )
    try:
        ray.init(nodes.address, log_to_driver=False)
        wait(lambda: ray.cluster_resources().get("CPU") == 1)

        @ray.remote
        def sees():
            return [Path(folder).is_dir() and any(Path(folder).iterdir()) for folder in hidden]

        assert ray.get(sees.remote()) == [False, False, False]
        driver = study(tmp_path, tiny_study.replace('"bitops"', '"latency_ms"'), "--address", nodes.address)
        _, error = driver.communicate()
        records = load_run(tmp_path / "run").records
        assert list(records["status"]) == ["complete"] * 4, (error, list(records["error"]))
        assert (records["latency_ms"] > 0).all()
    finally:
        raylet.terminate()
        raylet.wait()


@pytest.mark.slow
def test_a_trial_must_fit_one_node(nodes, tiny_study, tmp_path):
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    driver = study(tmp_path, tiny_study, "--address", nodes.address, "--cpus-per-trial", "2")
    _, error = driver.communicate()
    assert driver.returncode == 2 and "must fit a node" in error and "1 CPUs and 0 GPUs" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("node", "cpus", "gpus", "n"),
    [
        ({"CPU": 16}, 4, 0, 4),
        ({"CPU": 16, "GPU": 2}, 1, 1, 2),
        ({"CPU": 16, "GPU": 2}, 1, 0.4, 4),  # two on each GPU, not five on two
        ({"CPU": 3, "GPU": 2}, 1, 0.5, 3),
        ({"CPU": 16, "GPU": 8}, 1, 4, 2),
        ({"CPU": 16}, 1, 1, 0),
    ],
)
def test_what_fits_a_node(node, cpus, gpus, n):
    assert _fit(node, cpus, gpus) == n


def test_gpus_are_whole_or_shared():
    with pytest.raises(BadInput, match=r"whole number or a fraction of one GPU, but got 1\.5"):
        checked(Resources, {"gpus_per_trial": 1.5}, "options")
