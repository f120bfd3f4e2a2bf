"""export, bench and predict on a real run, and latency as an objective."""

import itertools
import json
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch
from commands import run_ablate
from PIL import Image

from ablate import LayerSpec, load_packed, load_run, pack, quantize_, run_study
from ablate.cli import main, result_tables
from ablate.config.study_spec import load_study
from ablate.data import datasets
from ablate.engine.resume import resume_study
from ablate.errors import BadInput
from ablate.execution.ray_cluster import Resources
from ablate.models import checkpoints, loading
from ablate.models.layer_groups import linear_layers
from ablate.models.loading import sharing_copy
from ablate.profiling import part_latencies
from ablate.profiling.bench import bench
from ablate.profiling.latency import measure
from ablate.profiling.latency_table import BlockLatency, LatencyTable
from ablate.profiling.part_latencies import layer_table
from ablate.quantization.fused_model import fuse_
from ablate.quantization.packed_loading import load_preprocess
from ablate.reporting.findings import findings


def command(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["ablate", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main.main()
    return end.value.code, capsys.readouterr()


def test_from_a_run_to_a_prediction(finished, tmp_path, capsys, monkeypatch):
    run = load_run(finished[0])
    smallest = run.records.loc[run.records["size_bytes"].idxmin()]
    code, _ = command(
        capsys,
        monkeypatch,
        "export",
        run.path,
        "--max-size-bytes",
        smallest["size_bytes"],
        "--to",
        tmp_path / "small",
    )
    assert code == 0
    written = sum(file.stat().st_size for file in (tmp_path / "small").iterdir())
    assert written == smallest["size_bytes"]

    dataset = datasets.load("cifar10-mini")
    model, preprocess = load_packed(tmp_path / "small"), load_preprocess(tmp_path / "small")
    pixels = torch.from_numpy(dataset.validation.images[:64].transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        logits = model(preprocess(pixels)).logits.numpy()
    stored = np.load(run.path / "predictions" / f"{smallest['trial_id']}.npz")["validation_logits"][:64]
    np.testing.assert_allclose(logits, stored, rtol=1e-4, atol=1e-5)  # what was trained is what is used

    for i in (0, 7):
        Image.fromarray(dataset.validation.images[i]).save(tmp_path / f"{i}.png")
    code, out = command(
        capsys,
        monkeypatch,
        "predict",
        tmp_path / "small",
        tmp_path / "0.png",
        tmp_path / "7.png",
        "--exact",
        "--json",
    )
    assert code == 0
    assert [row["class"] for row in json.loads(out.out)] == [
        dataset.classes[logits[i].argmax()] for i in (0, 7)
    ]

    code, out = command(
        capsys, monkeypatch, "bench", tmp_path / "small", "--seconds", "0.01", "--threads", "1", "--json"
    )
    rows = {row["model"]: row for row in json.loads(out.out)}
    assert code == 0 and rows["packed"]["size_bytes"] == written
    parameters = smallest["parameters"]
    assert (
        rows["full, float32"]["size_bytes"] == 4 * parameters
        and rows["full, bfloat16"]["size_bytes"] == 2 * parameters
    )
    assert all(
        row[f"latency_ms at batch {b}"] > 0 and row[f"n at batch {b}"] >= 5
        for row in rows.values()
        for b in (1, 8, 32)
    )


@pytest.mark.slow
def test_compiled_stands_beside_compiled(tiny_vit, tmp_path):
    model, preprocess = checkpoints.load(str(tiny_vit), datasets.CIFAR10), loading.preprocess(str(tiny_vit))
    quantize_(model, {"vit.layers.0*": LayerSpec(weights="binary")})
    pack(model, tmp_path, preprocess=preprocess)
    rows = bench(tmp_path, batches=(1,), seconds=0.01, compiled=True)
    names = ["packed", "packed, bfloat16", "full, float32", "full, bfloat16"]
    sizes = {row["model"]: row["size_bytes"] for row in rows}
    assert [*sizes] == [*names, *(f"{name}, compiled" for name in names), "packed, fused"]
    assert all(sizes[name] == sizes[f"{name}, compiled"] for name in names)


@pytest.mark.slow
def test_peers_stand_beside_it_where_they_are_installed(tiny_vit, tmp_path):
    model, preprocess = checkpoints.load(str(tiny_vit), datasets.CIFAR10), loading.preprocess(str(tiny_vit))
    quantize_(model, {"vit.layers.0*": LayerSpec(weights="binary")})
    pack(model, tmp_path, preprocess=preprocess)
    words = ("bench", str(tmp_path), "--peers", "--seconds", "0.01", "--batch", "1", "--batch", "2", "--json")
    done = run_ablate(tmp_path, *words, "--figure", "drawn/bench.png")
    assert {file.name for file in (tmp_path / "drawn").iterdir()} == {"bench.pdf", "bench.png"}
    rows = {row["model"]: row for row in json.loads(done.stdout)}
    for name in ("onnxruntime, packed", "onnxruntime, its dynamic int8", "OpenVINO, packed"):
        assert rows[name]["size_bytes"] > 0 and rows[name]["memory_bytes"] is None
        assert 0 < rows[name]["latency_ms at batch 2"] <= rows[name]["p95_ms at batch 2"]
    if absent := [name for name in ("nncf", "torchao") if find_spec(name) is None]:
        said = f"Not installed, and so not measured: {', '.join(absent)}; pip install {' '.join(absent)}"
        assert done.stderr.count(said) == 1
    assert "Please consider" not in done.stderr  # onnxruntime's advice on its own quantization


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "RUN", "--to", "new"], "give either --trial or --max-size-bytes"),
        (["export", "RUN", "--to", "new", "--trial", "zzz"], "no trial whose id starts with 'zzz'"),
        (["export", "RUN", "--to", "new", "--max-size-bytes", "10"], "no trial of at most 10 bytes"),
        (["export", "RUN", "--to", ".", "--max-size-bytes", "100000000"], "--to must be a new folder"),
        (["bench", "nowhere"], "nowhere"),
        (["predict", "nowhere", "x.png"], "nowhere"),
        (["predict", "RUN", "x.png"], "config.json"),
    ],
)
def test_refusals(finished, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out = command(capsys, monkeypatch, *(finished[0] if word == "RUN" else word for word in arguments))
    assert code == 2 and message in out.err and out.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_image(finished, tmp_path, capsys, monkeypatch):
    folder = next((finished[0] / "weights").iterdir())
    (tmp_path / "x.png").write_text("no image")
    code, out = command(capsys, monkeypatch, "predict", folder, tmp_path / "x.png")
    assert code == 2 and "an image must be a file that Pillow reads" in out.err
    code, out = command(capsys, monkeypatch, "predict", folder, "nope.png")
    assert code == 2 and out.err.endswith("'nope.png': No such file or directory; give another\n")


@pytest.mark.long
def test_the_layer_table_adds_up():
    """Full layers and the rest sum up to the model's latency; changing a layer changes only its term."""
    model = checkpoints.load("vit-micro", datasets.CIFAR10)
    binary = LayerSpec(weights="binary")
    model.unused = torch.nn.Linear(
        2, 2
    )  # never called: no layer that can be quantized, and no time of its own
    table = layer_table(
        model, (32, 32), [binary, LayerSpec(weights="int8", activation_bits=4)], torch.device("cpu")
    )
    inside = {layer for block in table.blocks for names in block.layers for layer in names}
    assert {*table.layers} == {"classifier", "vit.embeddings.patch_embeddings.projection"}
    assert inside | {"classifier"} == {*linear_layers(model)} and len(table.blocks) == 6
    block = table.blocks[0]
    assert len(block.fused) <= 27 and all(ms > 0 for ms in block.fused.values())
    assert block.apart == ({}, {}, {})  # all of them can be fused
    assert LatencyTable.restore(json.loads(json.dumps(table.dump()))) == table
    with_binary = {"vit.layers.3.attention.o_proj": binary}  # not of all four layers: as the slowest of these
    changed = [table.sum(precisions) - table.sum({}) for precisions in (with_binary, {})]
    full, quantized = (
        table.blocks[3].of(dict.fromkeys(table.blocks[3].layers[0], spec)) for spec in (LayerSpec(), binary)
    )
    assert changed == [pytest.approx(max(full, quantized) - full), 0]
    fuse_(fused := sharing_copy(model.eval()))
    whole = measure(fused, (32, 32), seconds=0.5).median_ms
    assert table.sum({}) == pytest.approx(whole, rel=1)  # the machine is noisy, but not by that much
    one = table.sum(
        {"classifier": LayerSpec(weights="ternary", activation_bits=2, beta_multiplier=3.0)}
    ) - table.sum({})
    assert one == pytest.approx(table.layers["classifier"][binary] - table.layers["classifier"][LayerSpec()])
    unsigned = [
        LayerSpec(weights="binary", signed=False, activation_scale="tensor", activation_bits=bits)
        for bits in (None, 3)
    ]
    table = layer_table(model, (32, 32), unsigned, torch.device("cpu"))
    assert all(
        table.sum({"classifier": spec}) > 0
        for spec in (*unsigned, LayerSpec(weights="binary", activation_bits=None))
    )


def test_what_cannot_be_fused_is_not_counted_as_fused():
    full, binary = LayerSpec(), LayerSpec(weights="binary")
    fused = dict.fromkeys(itertools.product((full, binary), repeat=3), 1.0)
    names = tuple(f"attention.{name}_proj" for name in "qkvo"), ("mlp.fc1",), ("mlp.fc2",)
    tensor = LayerSpec(weights="binary", activation_scale="tensor")
    one = LayerSpec(weights="binary", activation_bits=1)
    row = {full: 1.0, binary: 2.0, tensor: 3.0, one: 4.0}
    block = BlockLatency(names, fused, (row, row, row))
    assert block.of({}) == block.of({"mlp.fc1": LayerSpec(weights="ternary", activation_bits=2)}) == 1
    assert block.of({"mlp.fc1": LayerSpec(weights="ternary", activation_bits=1)}) == 1 + 4 + 1
    assert block.of({"mlp.fc1": tensor, "mlp.fc2": binary}) == 1 + 3 + 2


def test_one_bit_activations_are_timed_apart(tiny_vit, monkeypatch):
    monkeypatch.setattr(part_latencies, "_time_with", lambda *_: 1.0)
    model, bits = checkpoints.load(str(tiny_vit), ["a", "b"]), (1, 8)
    specs = [LayerSpec(weights="binary", activation_bits=n) for n in bits]
    table = layer_table(model, (32, 32), specs, torch.device("cpu"))
    assert all(table.sum(dict.fromkeys(linear_layers(model), spec)) >= 0 for spec in specs)
    old = {key: value for key, value in layer_table_of_8_bits(table).items() if key != "blocks"}
    assert LatencyTable.restore(old).sum(dict.fromkeys(table.layers, specs[0])) > 0


def layer_table_of_8_bits(table):
    """As an earlier version dumped it, which took activations of 1 bit for those of 8."""
    plain = table.dump()
    rows = plain["layers"].items()
    layers = {name: [(spec, ms) for spec, ms in row if spec["activation_bits"] != 1] for name, row in rows}
    return plain | {"layers": layers}


@pytest.mark.long
def test_a_table_of_many_precisions_grows_with_their_number(tiny_vit, monkeypatch):
    calls = []
    monkeypatch.setattr(part_latencies, "_time_with", lambda *_: calls.append(1) or 1.0)
    axes = {"weights": ["binary", "int8"], "activation_scale": ["token", "tensor"], "signed": [True, False]}
    specs = [LayerSpec(**dict(zip(axes, point, strict=True))) for point in itertools.product(*axes.values())]
    model = checkpoints.load(str(tiny_vit), ["a", "b"])
    table = layer_table(model, (32, 32), specs, torch.device("cpu"))
    assert (
        len(calls) == 1 + (1 + 2**3) + (2 + 3 * len(specs))
        and table.sum(dict.fromkeys(linear_layers(model), specs[-1])) >= 0
    )


@pytest.mark.slow
def test_latency_as_an_objective(tiny_study, tmp_path):
    (tmp_path / "tiny.toml").write_text(tiny_study.replace('"bitops"', '"latency_ms"'))
    run = run_study(
        load_study(str(tmp_path / "tiny.toml")), tmp_path / "run", resources=Resources(concurrency=1)
    )
    assert (run.records["latency_ms"] > 0).all() and run.records["latency_ms"].nunique() > 1
    measured = pd.read_csv(run.path / "tables" / "latency.csv")
    front = pd.read_csv(run.path / "tables" / "front.csv")
    assert list(measured["trial_id"]) == list(front["trial_id"])
    assert (measured["latency_ms_exact"] > 0).all()
    assert (measured["latency_ms_summed"] == front["latency_ms"]).all() and (
        measured["latency_ms_measured"] > 0
    ).all()
    assert len(result_tables.latencies(run.path / "tables" / "latency.csv").columns) == 4
    assert any("times what the front's models take" in note for note in findings(run)["front"].notes)
    shutil.rmtree(run.path / "weights")  # study.toml and ledger.jsonl alone are enough to go on
    shutil.rmtree(run.path / "tables")
    resumed, _ = resume_study(run.path, trials=5, resources=Resources(concurrency=1))
    assert len(resumed.records) == 5 and resumed.state["status"] == "finished"
    (run.path / "tables" / "latency.csv").unlink()
    assert not any("take as a whole" in note for note in findings(run)["front"].notes)


def test_a_trial_that_is_not_on_the_front_has_no_weights(finished):
    with pytest.raises(BadInput, match="has the weights of its front only"):
        load_run(finished[0]).export(finished[0] / "never", trial="0000")


def exported(finished, folder, name):
    """The arguments that export a trial of the run for another runtime."""
    trial = next((finished[0] / "weights").iterdir()).name
    return "--trial", trial[:6], "--to", folder, f"--{name}"


@pytest.mark.parametrize(("name", "package"), [("onnx", "onnxscript"), ("openvino", "openvino")])
def test_an_export_that_fails_leaves_nothing(finished, tmp_path, capsys, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)  # as without the extra
    code, out = command(
        capsys, monkeypatch, "export", finished[0], *exported(finished, tmp_path / "out", name)
    )
    assert code == 2 and f"ablate-vit[{name}]; pip install" in out.err and not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "files"), [("onnx", {"model.onnx"}), ("openvino", {"model.xml", "model.bin"})]
)
def test_export_for_other_runtimes(finished, tmp_path, capsys, monkeypatch, name, files):
    pytest.importorskip(name)
    code, _ = command(capsys, monkeypatch, "export", finished[0], *exported(finished, tmp_path / "out", name))
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert code == 0 and written == {"config.json", "model.safetensors", *files}
