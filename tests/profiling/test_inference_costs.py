"""Peak memory and energy of inference: what is counted, and what is refused where it cannot be."""

import re
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from commands import run_ablate
from torch import nn

from ablate import BadInput, LayerSpec, Resources, load_packed, pack, run_trial
from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import Recipe, TrialSpec
from ablate.data import datasets
from ablate.engine import doctor
from ablate.engine.energy_check import check_energy
from ablate.models.loading import preprocess
from ablate.profiling import energy
from ablate.profiling.energy import NvmlCounter, RaplCounter, energy_counter, energy_mj
from ablate.profiling.memory import memory_bytes, peak_memory_bytes
from ablate.training.trial import build

RANGE = 262_143_328_850  # microjoules, after which a counter begins again
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Package:
    """The files of one CPU package below a folder, which stands for /sys/class/powercap."""

    def __init__(self, folder, zone, name, microjoules):
        self.folder, self.microjoules = folder / zone, microjoules
        self.folder.mkdir(parents=True)
        (self.folder / "name").write_text(f"{name}\n")
        (self.folder / "max_energy_range_uj").write_text(f"{RANGE}\n")
        self.spend(0)

    def spend(self, microjoules):
        self.microjoules = (self.microjoules + microjoules) % (RANGE + 1)
        (self.folder / "part").write_text(f"{self.microjoules}\n")
        (self.folder / "part").replace(self.folder / "energy_uj")  # never half-written for a reader


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two CPU packages of a machine, and the counters beside them that are not to be added."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    for zone, name in (("intel-rapl:0:0", "core"), ("intel-rapl:0:1", "dram"), ("intel-rapl:2", "psys")):
        Package(tmp_path, zone, name, 9)
    Package(tmp_path, "intel-rapl-mmio:0", "package-0", 9)  # the same package, seen another way
    return [
        Package(tmp_path, "intel-rapl:0", "package-0", 5),
        Package(tmp_path, "intel-rapl:1", "package-1", RANGE - 50),
    ]


@pytest.fixture
def running(packages, monkeypatch):
    """The same, and they take energy all the time."""
    monkeypatch.setattr(energy, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(energy, "BLOCK_SECONDS", 0.02)
    stop = threading.Event()

    def spend():
        while not stop.wait(0.001):
            packages[0].spend(50)

    thread = threading.Thread(target=spend)
    thread.start()
    yield packages
    stop.set()
    thread.join()


class Spends(nn.Module):
    """A classifier whose calls take 700 and 300 microjoules of two packages."""

    def __init__(self, packages):
        super().__init__()
        self.packages, self.linear = packages, nn.Linear(3, 2)

    def forward(self, pixels):
        for package, microjoules in zip(self.packages, (700, 300), strict=True):
            package.spend(microjoules)
        return self.linear(pixels.mean((2, 3)))


def test_peak_memory_is_that_of_tensors_and_of_what_is_alive_at_once(capfd):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1000), nn.ReLU(), nn.Linear(1000, 2)).eval()
    weights = 4 * (12 * 1000 + 1000 + 1000 * 2 + 2)
    assert memory_bytes(model) == weights
    image, activations = 4 * 12, 4 * (1000 + 1000)  # before and after the ReLU
    assert peak_memory_bytes(model, (2, 2)) == weights + image + activations
    model[2].inplace = True
    assert peak_memory_bytes(model, (2, 2)) == weights + image + 4 * (1000 + 2)
    assert capfd.readouterr() == ("", "")


@needs_gpu
def test_peak_memory_of_a_gpu_leaves_out_what_others_hold():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1000), nn.ReLU(), nn.Linear(1000, 2)).eval().cuda()
    alone = peak_memory_bytes(model, (2, 2))
    held = torch.zeros(10**7, device="cuda")
    assert peak_memory_bytes(model, (2, 2)) == alone and 0 < alone - memory_bytes(model) < held.nbytes


def test_energy_is_that_of_the_packages_and_goes_on_where_their_counters_begin_again(packages, monkeypatch):
    monkeypatch.setattr(energy, "BLOCK_SECONDS", 0.05)
    counter = RaplCounter()
    assert counter.name == "package-0, package-1 by RAPL"
    assert energy_mj(Spends(packages), (4, 4), counter) == pytest.approx(1.0)
    assert packages[1].microjoules < RANGE - 50  # it has begun again


@needs_gpu
def test_a_gpu_counts_its_energy():
    pytest.importorskip("pynvml")
    counter = energy_counter(of_gpu=True)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 1000)).cuda().eval()
    assert 0 < energy_mj(model, (64, 64), counter) < 1e6


def test_what_cannot_be_measured_is_refused_by_name(packages, monkeypatch, tmp_path):
    monkeypatch.setattr(energy, "PATIENCE_SECONDS", 0.05)

    def refused(text, **how):
        with pytest.raises(BadInput, match=f"^energy cannot be measured here: .*{re.escape(text)}"):
            energy_counter(how.get("of_gpu", False))

    refused("package-0, package-1 by RAPL did not change in 0.05 s, though it must all the time; leave")
    (packages[1].folder / "energy_uj").write_text("\n")
    refused("intel-rapl:1/energy_uj must hold a number")
    (packages[1].folder / "energy_uj").unlink()
    (packages[1].folder / "energy_uj").mkdir()  # root reads any file
    refused("intel-rapl:1/energy_uj must be readable, but gives Is a directory; as root: chmod a+r")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    refused("none/intel-rapl:*/energy_uj (RAPL), and there is no such file")
    [finding] = doctor._findings(doctor.EXAMINATIONS["energy"])
    assert finding.status == "note" and finding.mend.endswith("leave energy_mj out")
    gpu = SimpleNamespace(name="some GPU", uuid="00000000-0000-0000-0000-000000000000")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    refused("nvidia-ml-py, which is not installed; pip install 'ablate-vit[energy]'", of_gpu=True)


def test_a_gpu_that_its_library_does_not_know_is_refused(monkeypatch):
    pytest.importorskip("pynvml")
    gpu = SimpleNamespace(name="some GPU", uuid="00000000-0000-0000-0000-000000000000")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    with pytest.raises(BadInput, match=r"energy cannot be measured here: .*some GPU by NVML gives .+; leave"):
        NvmlCounter()


def test_a_study_of_energy_runs_one_trial_at_a_time(running):
    space = {"description": "?", "layer": {"weights": ["full", "binary"]}}
    study = StudySpec(question="?", space=space, objectives=["accuracy", "energy_mj"])
    check_energy(study, Resources(concurrency=1, gpus_per_trial=0))
    for resources, got in ((Resources(gpus_per_trial=0), "as many as fit"), (Resources(concurrency=2), "2")):
        with pytest.raises(BadInput, match=f"one trial at a time.* but got {got}; give --concurrency 1"):
            check_energy(study, resources.model_copy(update={"gpus_per_trial": 0}))
    check_energy(study.model_copy(update={"objectives": ("accuracy",)}), Resources())
    [finding] = doctor._findings(doctor.EXAMINATIONS["energy"])
    assert finding.found.endswith("package-0, package-1 by RAPL") or torch.cuda.is_available()


@pytest.mark.long
def test_a_trial_records_both_only_on_request(tiny_vit, running, tmp_path):
    dataset, layers = datasets.load("cifar10-mini"), {"block0.fc1": LayerSpec(weights="binary")}
    recipe = Recipe(epochs=0, bf16=False)
    spec = TrialSpec(model=str(tiny_vit), layers=layers, fraction=0.02, recipe=recipe)
    record = run_trial(spec, dataset, objectives=("peak_memory_bytes", "energy_mj"))
    assert record["status"] == "complete" and 0 < record["energy_mj"] < 1e6
    pack(build(spec, dataset.classes), tmp_path / "packed")  # untrained: as large
    assert record["peak_memory_bytes"] == peak_memory_bytes(
        load_packed(tmp_path / "packed"), preprocess(str(tiny_vit)).size
    )
    other = run_trial(spec, dataset, objectives=("accuracy",))
    assert other["energy_mj"] is None and other["peak_memory_bytes"] is None
    (running[1].folder / "energy_uj").unlink()
    lost = run_trial(spec, dataset, objectives=("energy_mj",))
    assert lost["status"] == "failed" and "energy cannot be measured here" in lost["error"]


@pytest.mark.long
@pytest.mark.skipif(
    energy.POWERCAP.exists() or torch.cuda.is_available(), reason="energy can be measured here"
)
def test_the_command_is_refused_before_anything_runs(tmp_path):
    for more in ([], ["--dry-run"]):
        done = run_ablate(tmp_path, "study", "--objectives", "accuracy,energy_mj", *more)
        error = done.stderr.splitlines()[-1]
        assert done.returncode == 2 and error.startswith("ablate: energy cannot be measured here: ")
    assert not list(tmp_path.iterdir())
