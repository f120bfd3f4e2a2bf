"""docs/cluster.md and its files: commands exist, and manifests fit together, without a cloud."""

import copy
import itertools
import re
import shlex
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION
from ray.autoscaler._private.docker import validate_docker_config
from ray.autoscaler._private.util import prepare_config, validate_config
from shell import ablate_commands, parse, shell_lines

DOCS = Path(__file__).parents[2] / "docs"
GIB = {"Gi": 1.0, "Mi": 1 / 1024}


def guide_commands():
    return [
        command
        for line in shell_lines((DOCS / "cluster.md").read_text())
        for command in ablate_commands(line)
    ]


def rayjob():
    claim, job = yaml.safe_load_all((DOCS / "cluster" / "rayjob.yaml").read_text())
    return claim, job


def launcher():
    return yaml.safe_load((DOCS / "cluster" / "launcher.yaml").read_text())


def test_the_command_line_knows_each_command():
    commands = ablate_commands(rayjob()[1]["spec"]["entrypoint"])
    assert len(commands) == 2
    for command in commands:
        parse(command)


def pods(job):
    """(pod spec, its one container) of the head and of each group of workers."""
    cluster = job["spec"]["rayClusterSpec"]
    specs = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    assert all(len(spec["containers"]) == 1 for spec in specs)
    return [(spec, spec["containers"][0]) for spec in specs]


def gib(quantity):
    return float(quantity[:-2]) * GIB[quantity[-2:]]


def options(words):
    """{option: value} of a command whose options all take one."""
    return {word: value for word, value in itertools.pairwise(words) if word.startswith("--")}


def test_rayjob_is_of_the_current_kind():
    claim, job = rayjob()
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]  # head and workers mount it


def test_rayjob_mounts_what_it_declares():
    claim, job = rayjob()
    for spec, container in pods(job):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) == set(volumes)
        shm = volumes[mounts["/dev/shm"]]["emptyDir"]
        assert shm["medium"] == "Memory"
        memory = gib(container["resources"]["limits"]["memory"])
        assert DEFAULT_OBJECT_STORE_MEMORY_PROPORTION * memory <= gib(shm["sizeLimit"]) < memory
        assert volumes[mounts["/runs"]]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_rayjob_resources_fit_a_trial():
    _, job = rayjob()
    for command in ablate_commands(job["spec"]["entrypoint"]):
        asked = options(command)
        room = 0.0
        for group, (_, container) in zip(
            job["spec"]["rayClusterSpec"]["workerGroupSpecs"], pods(job)[1:], strict=True
        ):
            limits = container["resources"]["limits"]
            assert (
                limits == container["resources"]["requests"]
            )  # Ray counts limits, Kubernetes places by requests
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
            cpus = float(limits["cpu"]) // float(asked["--cpus-per-trial"])
            gpus = float(limits["nvidia.com/gpu"]) // float(asked["--gpus-per-trial"])
            room += group["maxReplicas"] * min(cpus, gpus)
        assert float(asked["--concurrency"]) == room
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in pods(job)[0][1]["resources"]["limits"]


def test_rayjob_resumes_the_run_that_it_started():
    _, job = rayjob()
    entrypoint = job["spec"]["entrypoint"]
    shell, flag, script = shlex.split(entrypoint)
    assert (shell, flag) == ("sh", "-c")
    assert not set(script) & set("$\"'\\\n")  # the submitter's shell and Ray quote it again
    resume, study = ablate_commands(entrypoint)
    run = options(study)["--out"]
    assert resume[:3] == ["ablate", "resume", run]
    assert f"test -f {run}/study.toml" in script
    shared = ("--address", "--storage", "--cpus-per-trial", "--gpus-per-trial", "--concurrency")
    assert [options(study)[name] for name in shared] == [options(resume)[name] for name in shared]
    mounts = [mount["mountPath"] for mount in pods(job)[0][1]["volumeMounts"]]
    assert all(str(Path(options(study)[name]).parent) in mounts for name in ("--out", "--storage"))


def test_one_version_of_ray_everywhere():
    """That of the base image; one that the package supports."""
    _, job = rayjob()
    dockerfile = (DOCS / "cluster" / "Dockerfile").read_text()
    base, ray_version, python = re.search(
        r"^FROM (rayproject/ray:([\d.]+)-py(\d+)-gpu)$", dockerfile, re.MULTILINE
    ).groups()
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray_version
    tags = {container["image"] for _, container in pods(job)}
    assert len(tags) == 1
    assert tags.pop() in dockerfile  # it says how to build it
    config = launcher()
    assert config["docker"]["image"] == base
    pinned = f'"ray[default,tune]=={ray_version}"'
    assert pinned in dockerfile
    assert pinned in config["setup_commands"][0]
    needs = [Requirement(text) for text in requires("ablate-vit")]
    assert next(need for need in needs if need.name == "ray").specifier.contains(ray_version)
    assert int(python[1:]) >= 11


def test_launcher_passes_rays_own_validator():
    config = launcher()
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    validate_docker_config(prepared)
    with pytest.raises(Exception, match="setup_comands"):
        validate_config(prepared | {"setup_comands": []})


def test_launcher_holds_together():
    config = launcher()
    kinds = config["available_node_types"]
    head, workers = (
        kinds[config["head_node_type"]],
        {name: kind for name, kind in kinds.items() if name != config["head_node_type"]},
    )
    assert head["resources"] == {"CPU": 0}
    assert all(kind["resources"]["GPU"] >= 1 for kind in workers.values())
    assert sum(kind["max_workers"] for kind in workers.values()) == config["max_workers"]
    (submit,) = (
        command
        for command in guide_commands()
        if "/home/ray/runs/first" in command and "--address" in command
    )
    asked = options(submit)
    assert int(asked["--concurrency"]) == config["max_workers"]
    assert all(int(asked["--cpus-per-trial"]) <= kind["resources"]["CPU"] for kind in workers.values())
    mounted = [option.split(":")[-1] for option in config["docker"]["head_run_options"]]
    assert str(Path(asked["--out"]).parent) in mounted
    wheel = config["setup_commands"][0].split()[-1]
    assert str(Path(wheel).parent) in config["file_mounts"]
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]


def test_the_guide_links_to_its_files():
    links = re.findall(r"\]\(([^)]+)\)", (DOCS / "cluster.md").read_text())
    assert {"cluster/rayjob.yaml", "cluster/launcher.yaml", "cluster/Dockerfile"} <= set(links)
