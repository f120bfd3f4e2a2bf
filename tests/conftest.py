import contextlib
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from commands import run_ablate

torch.set_num_threads(1)
GROUPS = ["block0.fc1", "block0.fc2"]
ARMS = [{"name": name, "layer": {"weights": name}} for name in ("full", "binary", "ternary")]
FRACTIONS = [0.01, 0.0316, 0.1, 0.316, 1.0]


# Fixtures that run a study, or download.
STUDIED = {"finished", "own_ray", "ray_of_one", "measured", "designed", "page_of_a_search", "real"}


def pytest_collection_modifyitems(items):
    for item in items:
        if STUDIED & {*item.fixturenames}:
            item.add_marker(pytest.mark.long)


def wait(done, seconds=180):
    """Until done() is true; fails when that takes longer."""
    limit = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.05)


def run_search(answer, search, n):
    """Up to n trials that a search proposes, each told to it before the next."""
    specs = []
    while len(specs) < n and (spec := search.ask()) is not None:
        specs.append(spec)
        search.tell(answer(spec))
    return specs


def workers(pid=None):
    """Processes below one (this one by default) that run trials, or are about to."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # gone meanwhile
            if process.status() != psutil.STATUS_ZOMBIE and "Trainable" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Neither the datasets nor the teachers of the machine's user: the tests begin with none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def logged(caplog):
    """A function that returns what the package has logged since it was last called, a line each."""
    caplog.set_level("INFO", "ablate")

    def read():
        lines = "".join(f"{message}\n" for message in caplog.messages)
        caplog.clear()
        return lines

    return read


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `save_pretrained` folder: a random ViT of 2 blocks and width 32, with its image processor."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-vit"
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


TINY_STUDY = """
question = "does it work?"
model = "{model}"
trials = 4
[recipe]
epochs = 1
bf16 = false
[space]
description = "a few points"
objectives = ["accuracy", "size_bytes", "bitops"]
fraction = [0.02, 0.04]
[space.layer]
weights = {{ each = ["full", "binary", "ternary"] }}
activation_bits = [2, 8]
"""


@pytest.fixture(scope="session")
def tiny_study(tiny_vit: Path) -> str:
    """The TOML of a study that takes a second a trial."""
    return TINY_STUDY.format(model=tiny_vit)


@pytest.fixture(scope="module")
def own_ray():
    """A Ray for all studies of a test file, whose workers have imported torch after the first."""
    import ray

    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def finished(tiny_study, tmp_path_factory):
    """One run of a tiny study by the command line, in an empty working directory."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "tiny.toml").write_text(tiny_study)
    done = run_ablate(folder, "study", "tiny.toml", "--concurrency", "1", "--out", "run")
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """(gap at 200 images, gap at 20,000, seeds) -> a run over data volume whose accuracies are simulated."""

    def make(first, last, seeds=8, arms=ARMS):
        from ablate.config.study_spec import StudySpec
        from ablate.runs.ledger import append
        from ablate.runs.record import blank_record
        from ablate.runs.run import create_run
        from ablate.search.experiment_design import Design
        from ablate.training.trial import trial_id

        space = {"name": "s", "description": "d", "layer": {"weights": "full"}, "fraction": FRACTIONS}
        study = StudySpec(question="simulated", space=space, design="arms", steps=arms, seeds=seeds)
        run = create_run(
            tmp_path_factory.mktemp("simulated") / "run",
            study,
            {"classes": [str(i) for i in range(10)], "layer_groups": GROUPS},
        )
        design, random = Design(study, GROUPS), np.random.default_rng(0)
        while spec := design.ask():
            x = np.log10(spec.fraction / FRACTIONS[0]) / 2  # 0 to 1
            arm = next((layer.weights for layer in spec.layers.values()), "full")
            gap = {"full": 0.0, "ternary": 0.02}.get(arm, first + (last - first) * x)
            record = blank_record(spec, trial_id(spec)) | {
                "status": "complete",
                "images": round(20_000 * spec.fraction),
            }
            record |= {"accuracy": round(1 - 0.65 * 0.46**x - gap + random.normal(0, 0.003), 4), "loss": 1.0}
            record |= {
                "test_accuracy": record["accuracy"],
                "test_loss": 1.0,
                "size_bytes": 1000 if arm == "full" else 100,
            }
            append(run.path / "ledger.jsonl", record)
            design.tell(record)
        return run.path

    return make
