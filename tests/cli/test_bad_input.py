"""Bad input: exit 2, one line on standard error with the rule, the value and the nearest names; no file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ablate import load_run
from ablate.cli import main
from ablate.config.builtin import ASSETS

SPACE = "description = 'd'\n[layer]\n"
STUDY = "question = '?'\nspace = 'bits'\n"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command line in an empty folder; (exit code, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ablate", *arguments])
        with pytest.raises(SystemExit) as end:
            main.main()
        return end.value.code, capsys.readouterr().err

    return run


def refused(result, *parts):
    code, error = result
    assert code == 2
    assert error.startswith("ablate: ") and error.count("\n") == 1
    for part in parts:
        assert part in error


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["stduy"], ["No such command", "study"]),
        (["study", "--spce", "bits"], ["No such option: --spce", "--space"]),
        (["study", "--trials", "many"], ["--trials", "many"]),
        (["study", "--trials"], ["--trials", "requires an argument"]),
        (["study", "defualt"], ["unknown study 'defualt'", "'default'"]),
        (["study", "--space", "layer_bits"], ["unknown search space 'layer_bits'", "'layers_bits'"]),
        (["study", "--model", "vit-mirco"], ["unknown model 'vit-mirco'", "'vit-micro'"]),
        (["study", "--data", "cifar10-mni"], ["unknown dataset 'cifar10-mni'", "'cifar10-mini'"]),
        (["study", "--objectives", "acuracy"], ["unknown objective 'acuracy'", "'accuracy'"]),
        (["study", "--objectives", "loss,loss"], ["objectives must differ", "loss"]),
        (["study", "--trials", "0"], ["trials", "greater than or equal to 1", "0"]),
        (["study", "--epochs", "-1"], ["recipe.epochs", "greater than or equal to 0", "-1"]),
        (["study", "--hours", "0"], ["hours", "greater than 0", "0"]),
        (["study", "--seed", "-5"], ["seed", "greater than or equal to 0", "-5"]),
        (
            ["study", "--sampler", "cmaes"],
            ["sampler", "'additive', 'tpe', 'nsga2', 'gp' or 'random'", "'cmaes'"],
        ),
        (["study", "--max-size-bytes", "0"], ["max_size_bytes", "greater than or equal to 1", "0"]),
        (["study", "--max-latency-ms", "nan"], ["max_latency_ms", "nan"]),
        (["study", "--min-accuracy", "50"], ["min_accuracy", "less than or equal to 1", "50"]),
        (
            ["study", "--seed", str(2**32 - 1), "--confirm", "1"],
            ["seed must leave room below 2^32", "4294967295"],
        ),
        (["study", "--confirm", "-1"], ["confirm", "greater than or equal to 0", "-1"]),
        (["study", "--early-stopping", "1"], ["early_stopping.reduction", "greater than or equal to 2", "1"]),
        (
            ["study", "--early-stopping", "3", "--epochs", "1"],
            ["early_stopping needs more epochs than its first 1", "1"],
        ),
        (
            ["study", "recipe_binary", "--early-stopping", "3"],
            ["needs a validation between its first rung, 1,", "every is 3"],
        ),
        (
            ["study", "--early-stopping", "3", "--objectives", "size_bytes"],
            ["accuracy or loss", "size_bytes"],
        ),
        (
            ["study", "--early-stopping-over", "images"],
            ["early_stopping.over", "'epochs' or 'fraction'", "'images'"],
        ),
        (
            ["study", "--early-stopping-over", "fraction", "--epochs", "0"],
            ["early_stopping needs more epochs than", "0"],
        ),
        (
            ["study", "--early-stopping", "0", "--early-stopping-over", "fraction"],
            ["early_stopping.reduction", "0"],
        ),
        (
            ["study", "--early-stopping", "1000", "--early-stopping-over", "fraction"],
            [
                "early_stopping's smallest rung must keep an image of each class",
                "1/1000000 of",
                "take fewer rungs",
            ],
        ),
        (["study", "ladder", "--confirm", "2"], ["confirm is for a search"]),
        (["study", "ladder", "--early-stopping", "2"], ["early_stopping is for a search"]),
        (["study", "ladder", "--min-accuracy", "0.5"], ["bound a search"]),
        (["study", "ladder", "--sampler", "gp"], ["--sampler is for a search", "'gp'"]),
        (["study", "ladder", "--sampler", "tpe"], ["--sampler is for a search", "'tpe'"]),
        (["sensitivity", "search_table"], ["--full-epochs", "its image_views is 512"]),
        (["monitor", "--export=~nobody99/x"], ["--export", "home folder", "'~nobody99/x'", "./~nobody99/x"]),
        (["study", "--out="], ["--out", "must not be empty"]),
        (["study", "--data", "imagefolder:~nobody99/x"], ["home folder", "'~nobody99/x'"]),
        (["study", "--model", "~nobody99/x"], ["home folder", "'~nobody99/x'"]),
        (["study", "--concurrency", "0"], ["concurrency", "greater than or equal to 1", "0"]),
        (["study", "--cpus-per-trial", "0"], ["cpus_per_trial", "0"]),
        (["study", "--gpus-per-trial", "-1"], ["gpus_per_trial", "-1"]),
        (["study", "--gpus-per-trial", "inf"], ["gpus_per_trial", "less than or equal to 1000000", "inf"]),
        (
            ["study", "--minutes-per-trial", "inf"],
            ["minutes_per_trial", "less than or equal to 10000000", "inf"],
        ),
        (["study", "--max-failed", "nan"], ["--max-failed", "less than or equal to 1", "nan"]),
        (["study", "--dry-run", "--max-failed", "50"], ["--max-failed", "less than or equal to 1", "50"]),
        (["study", "missing.toml"], ["cannot read study 'missing.toml'", "No such file"]),
        (["study", "--space", "missing/space.toml"], ["cannot read search space", "No such file"]),
        (["study", "--address", "ray://head:10001"], ["HOST:PORT", "'ray://head:10001'", "ray job submit"]),
        (["study", "--address", "127.0.0.1:1"], ["--address", "'127.0.0.1:1'", "Connection refused"]),
        (
            ["study", "--gpus-per-trial", "1.5"],
            ["gpus_per_trial must be a whole number or a fraction of one GPU", "1.5"],
        ),
        (["study", "--dashboard-host", "nowhere"], ["dashboard_host must be an IP address", "'nowhere'"]),
        (["study", "--storage", "what://ever"], ["--storage must be a folder or URI", "'what://ever'"]),
        (["study", "--storage", "/dev/null/kept"], ["--storage must be a folder or URI", "'/dev/null/kept'"]),
        (["monitor", "--export", "/dev/null/here"], ["--export must be a folder", "'/dev/null/here'"]),
        (["study", "--address", "nonsense"], ["--address", "'nonsense'"]),
        (["study", "--dry-run", "--address", "127.0.0.1:1"], ["--address", "Connection refused"]),
        (["study", "--dry-run", "--cpus-per-trial", "0"], ["cpus_per_trial", "0"]),
        (["study", "--objectives", ""], ["unknown objective ''"]),
        (["study", "--epochs", "1" + "0" * 22], ["recipe.epochs", "less than or equal to"]),
        (["study", "--cpus-per-trial", "999"], ["must fit a node", "999"]),
        (["study", "x" * 300 + ".toml"], ["File name too long"]),
        (["status", "x" * 300], ["File name too long"]),
        (["bench", "nowhere", "--threads", "0"], ["--threads must be 1 to ", "got 0"]),
        (["bench", "nowhere", "--figure", "."], ["a figure must be a file", "'.' is a folder; give 'bench'"]),
        (["bench", "nowhere", "--figure", "x" * 300], ["a figure must be a file", "File name too long"]),
        (["resume", "nowhere"], ["nowhere", "does not exist"]),
        (["status"], ["no run below"]),
        (["status", "nowhere"], ["nowhere", "does not exist"]),
        (["rerun", "nowhere", "--trial", "x"], ["nowhere", "does not exist"]),
        (["rerun", "nowhere"], ["Missing option", "--trial"]),
        (["data", "sl"], ["No such command"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_arguments(run, tmp_path, arguments, parts):
    refused(run(*arguments), *parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("question = ?", ["not valid TOML", "line 1"]),
        (b"\xff\xfe", ["not valid TOML"]),
        ("space = 'bits'", ["question: Field required"]),
        ("question = '?'", ["space: Field required"]),
        (STUDY + "design = 'arms'\n[[steps]]\nname = ''", ["steps.0.name", "at least 1 character"]),
        (STUDY + "trails = 3", ["unknown key 'trails'", "'trials'"]),
        (STUDY + "[recipe]\nlearning_rate = -1.0", ["recipe.learning_rate", "greater than 0", "-1.0"]),
        (STUDY + "[recipe]\noptimizer = 'adam'", ["recipe.optimizer", "'adamw'", "'adam'"]),
        (STUDY + "[recipe]\nlearning_rate = inf", ["recipe.learning_rate", "finite"]),
        (
            STUDY + "early_stopping = {over = 'fraction', first = 2}",
            ["first is not for early stopping over fraction", "2"],
        ),
        (
            STUDY + "early_stopping = {rungs = 1}",
            ["rungs is not for early stopping over epochs", "1", "leave it out"],
        ),
        (
            STUDY + "early_stopping = {over = 'fraction'}\n[recipe]\nimage_views = 3000",
            [
                "recipe.image_views sets the steps whatever the images",
                "3000",
                "set epochs, or stop over epochs",
            ],
        ),
        (STUDY.replace("bits", "bitts"), ["unknown search space 'bitts'", "'bits'"]),
    ],
)
def test_study_files(run, tmp_path, text, parts):
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(run("study", "mine.toml"), "mine.toml", *parts)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["weights"]),
        ("weights = 'quaternary'", ["weights", "'quaternary'", "'ternary'"]),
        (
            "weights = 'binary'\nactivation_bits = [0, 8]",
            ["activation_bits", "greater than or equal to 1", "0"],
        ),
        ("weights = 'binary'\nbeta_multipler = 2.0", ["'beta_multipler'", "'beta_multiplier'"]),
        ("weights = 'binary'\n[groups]\na = 1", ["groups"]),
        ("weights = []", ["choices must be a list of one value or more"]),
        ("weights = {}", ["low: Field required; high: Field required"]),
        ("weights = {each = ['binary', 'binary']}", ["choices must differ", "['binary', 'binary']"]),
        (
            "weights = 'binary'\nbeta_multiplier = {low = 8, high = 2}",
            ["low < high must hold", "low=8.0, high=2.0"],
        ),
        ("weights = 'binary'\nbeta_multiplier = {low = 8, high = 9, steps = 2}", ["unknown key 'steps'"]),
        ("weights = 'binary'\nsigned = {low = 0, high = 1}", ["signed: a range must be of numbers"]),
        ("weights = 'binary'\n[recipe]\nbf16 = ['auto', true]", ["bf16", "'auto'"]),
    ],
)
def test_space_files(run, tmp_path, text, parts):
    (tmp_path / "mine.toml").write_text(SPACE + text)
    refused(run("study", "--space", "mine.toml"), "mine.toml", *parts)


def test_a_space_without_a_point(run, tmp_path):
    (tmp_path / "mine.toml").write_text(SPACE + "weights = 'binary'\nactivation_bits = 1\nsigned = false")
    refused(run("study", "--space", "mine.toml"), "'mine' must have a point", "exclude each other")


def test_a_pattern_that_matches_no_group(run, tmp_path):
    (tmp_path / "mine.toml").write_text("description = 'd'\ngroups = ['blok*']\n[layer]\nweights = 'binary'")
    refused(run("study", "--space", "mine.toml"), "pattern 'blok*' matches no layer group", "block")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "harm", ["truncated", "absent", "another", "config", "processor", "tensors", "mismatch"]
)
def test_broken_checkpoints(run, tmp_path, tiny_vit, harm):
    from safetensors.torch import load_file, save_file
    from transformers import ViTImageProcessor

    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_vit.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = folder / "model.safetensors"
    if harm == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif harm == "absent":
        weights.unlink()
    elif harm == "another":
        weights.write_bytes((ASSETS / "vit-micro" / "model.safetensors").read_bytes())
    elif harm == "config":
        (folder / "config.json").write_text("{")
    elif harm == "processor":
        (folder / "preprocessor_config.json").unlink()
    elif harm == "mismatch":
        ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    else:
        tensors = load_file(weights)
        tensors.pop("vit.layernorm.weight")
        save_file(tensors, weights, {"format": "pt"})
    refused(run("study", "--model", "model", "--out", "run"), "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.long
def test_an_output_folder_in_use(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.toml").write_text("")
    refused(run("study", "--out", "run"), "--out", "holds another run")
    (tmp_path / "run" / "study.toml").rename(tmp_path / "run" / "notes.txt")
    refused(run("study", "--out", "run"), "is not an empty folder")
    refused(run("study", "--out", "run/notes.txt"), "--out")
    refused(run("study", "--out", "run/notes.txt/below"), "--out", "can be written")
    (tmp_path / "empty").mkdir()
    refused(run("study", "--out", "empty", "--cpus-per-trial", "999"), "must fit a node")
    assert (tmp_path / "empty").is_dir()  # what was there before stays


@pytest.mark.long
def test_an_address_where_something_else_answers(run):
    import http.server
    import threading

    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    refused(run("study", "--address", f"127.0.0.1:{server.server_port}"), "--address", "no Ray answers there")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("line", ["3", "null", "[]", "{}", "{"])
def test_a_ledger_that_is_none(run, tmp_path, line):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.toml").write_text(STUDY)
    (tmp_path / "run" / "ledger.jsonl").write_text(line + "\n")
    for verb in ("status", "resume", "report", "figures", "table1"):
        refused(
            run(verb, "run"),
            "ledger.jsonl:1: not a record",
            "restore the ledger from a copy or delete this line",
        )
    for verb in (["rerun", "run", "--trial", "x"], ["export", "run", "--trial", "x", "--to", "small"]):
        refused(run(*verb), "ledger.jsonl:1: not a record")


def test_a_ledger_of_a_newer_version_is_left_alone(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.toml").write_text(STUDY)
    (ledger := tmp_path / "run" / "ledger.jsonl").write_text('{"schema":2,"trial_id":"x"}\n{"schema":2,"tri')
    verbs = [[verb, "run"] for verb in ("status", "resume", "report", "figures", "table1")]
    verbs += [["rerun", "run", "--trial", "x"], ["export", "run", "--trial", "x", "--to", "small"]]
    for arguments in verbs:
        refused(run(*arguments), "ledger.jsonl:1: written by a newer version of ablate: schema 2", "upgrade")
    assert ledger.read_text() == '{"schema":2,"trial_id":"x"}\n{"schema":2,"tri'
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("text", ["", "junk", "[]", "{}", "3"])
def test_a_state_that_cannot_be_read_is_passed_over(run, tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.toml").write_text(STUDY)
    (tmp_path / "run" / "state.json").write_text(text)
    assert run("status", "run") == (0, "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_is_read_only(run, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(run("study", "--out", "locked/run"), "--out", "can be written")


def test_an_unknown_trial(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.toml").write_text(STUDY)
    (tmp_path / "run" / "ledger.jsonl").touch()
    refused(run("rerun", "run", "--trial", "abc"), "unknown trial 'abc'")


@pytest.mark.slow
def test_the_beginning_of_several_trials(run, finished):
    refused(
        run("rerun", str(finished[0]), "--trial", ""),
        "--trial must name one trial",
        *load_run(finished[0]).records["trial_id"],
    )


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_standard_streams_may_be_closed(closed, tmp_path):
    def close():
        for number in closed:
            os.close(number)

    command = [sys.executable, "-m", "ablate", "study", "stduy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=close)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == (2 not in closed)


def test_an_error_that_cannot_be_printed_keeps_its_exit_code(tmp_path):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "ablate", "study", "stduy"]
        assert subprocess.run(command, cwd=tmp_path, stderr=full).returncode == 2
