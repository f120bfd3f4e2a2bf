"""Runs side by side: the page says what a plain computation says, and what does not compare is said."""

import json

import chromium
import numpy as np
import pandas as pd
import pytest
from commands import run_ablate
from scipy import stats

from ablate.config.study_spec import StudySpec
from ablate.config.trial_spec import LayerSpec, TrialSpec
from ablate.runs.record import blank_record
from ablate.runs.run import create_run
from ablate.training.trial import trial_id

GROUPS = ["block0.fc1", "block0.fc2", "block1.fc1", "block1.fc2"]
SPACE = {
    "name": "s",
    "description": "d",
    "objectives": ["accuracy", "size_bytes"],
    "layer": {"weights": "full"},
}
EVIL = "<img src=x onerror=alert(1)>"


def searched(path, seed, gain=0.0, digest="d" * 64, **fields):
    """A made-up search whose trials are more accurate by a gain, and sizes 1 to 5 kB in each."""
    study = StudySpec(**{"question": "which?", "space": SPACE, "trials": 5, "seed": seed, **fields})
    create_run(path, study, {"dataset_sha256": digest, "layer_groups": GROUPS})
    random, lines = np.random.default_rng([seed, round(100 * gain)]), []
    for n_full in range(len(GROUPS) + 1):
        layers = {group: LayerSpec(weights="binary") for group in GROUPS[n_full:]}
        spec = TrialSpec(layers=layers, seed=seed)
        record = blank_record(spec, trial_id(spec)) | {"status": "complete", "loss": 1.0}
        record |= {"accuracy": 0.4 + 0.05 * n_full + gain + 0.01 * random.random()}
        record |= {"size_bytes": 1000 * (1 + n_full), "bitops": 10**9 * (1 + n_full), "images": 100}
        lines.append(json.dumps(record) + "\n")
    (path / "ledger.jsonl").write_text("".join(lines))
    return path


def accuracies(runs):
    """(runs, sizes): by the size of the model."""
    ledgers = [(run / "ledger.jsonl").read_text().splitlines() for run in runs]
    return np.array([[json.loads(line)["accuracy"] for line in lines] for lines in ledgers])


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    plain = [searched(folder / f"plain-{seed}", seed) for seed in range(3)]
    better = [searched(folder / f"better-{seed}", seed, 0.03, sampler="tpe") for seed in range(3)]
    done = run_ablate(folder, "report", *[run.name for run in (*plain, *better)])
    assert done.returncode == 0 and "comparison.html" in done.stdout, done.stderr
    return folder, plain, better


def table(folder, name):
    return pd.read_csv(folder / "comparison_tables" / f"{name}.csv")


def test_differences_are_those_of_pairs_with_simultaneous_intervals(compared):
    folder, plain, better = compared
    rows = table(folder, "differences")
    assert set(rows["runs"]) == {"better-0 (3 seeds)"} and list(rows["n"]) == [3] * 5
    gaps = 100 * (accuracies(better) - accuracies(plain))  # (seeds, sizes)
    sizes = 1000 * np.arange(1, 6)
    quantile = stats.t.ppf(1 - 0.05 / 2 / 5, 2)  # five contrasts, three seeds
    for row in rows[rows["level"].notna()].to_dict("records"):
        gap = gaps[:, sizes <= row["level"] * (1 + 1e-9)][:, -1]  # accuracy grows with size
        half = quantile * gap.std(ddof=1) / np.sqrt(3)
        assert row["mean"] == pytest.approx(gap.mean())
        assert (row["low"], row["high"]) == pytest.approx((gap.mean() - half, gap.mean() + half))
    assert rows["mean"].iloc[-1] > 0 and rows["of"].iloc[-1] == "hypervolume"


def test_fronts_are_what_a_share_of_the_seeds_attains(compared):
    folder, plain, _ = compared
    rows = table(folder, "front_attained")
    found = rows[(rows["runs"] == "plain-0 (3 seeds)")].set_index(["level", "size_bytes"])["accuracy"]
    by_size = np.sort(accuracies(plain), axis=0)  # (seeds, sizes)
    for level, place in ((1 / 3, 2), (0.5, 1), (1.0, 0)):
        ours = found[np.isclose(found.index.get_level_values(0), level)]
        assert list(ours.droplevel(0).sort_index()) == pytest.approx(list(by_size[place]))


def test_what_differs_is_named_by_field(compared):
    folder, *_ = compared
    rows = table(folder, "differing").set_index("field")
    assert set(rows.index) == {"seed", "sampler"}
    assert list(rows.loc["sampler"]) == ["additive"] * 3 + ["tpe"] * 3


@pytest.mark.long
@pytest.mark.skipif(chromium.NAME is None, reason="Chromium is not installed (Debian: chromium)")
def test_the_page_is_whole_in_a_browser(compared, tmp_path):
    folder, *_ = compared
    evil = searched(folder / EVIL.replace("/", ""), 0, sampler="random", question=EVIL)
    done = run_ablate(folder, "report", "plain-0", "better-0", evil.name, "--out", "evil.html")
    assert done.returncode == 0, done.stderr
    with chromium.browser(tmp_path) as address:
        for name, n_groups in (("comparison.html", 2), ("evil.html", 3)):
            with chromium.Page(address, folder / name) as page:
                assert not page.errors, page.errors
                assert {url for url in page.requests if not url.startswith("data:")} == {
                    (folder / name).as_uri()
                }
                lines = page(
                    "document.getElementById('fronts-0').data.filter(t => t.mode === 'lines' && t.name)"
                )
                assert len(lines) == n_groups
                assert page("document.querySelectorAll('#differing tr').length") >= 2
                assert page("document.querySelectorAll('img').length") == 0


def test_what_does_not_compare_is_refused_or_said(tmp_path):
    one, other = searched(tmp_path / "one", 0), searched(tmp_path / "other", 1, digest="e" * 64)
    space = SPACE | {"objectives": ["loss"]}
    searched(tmp_path / "loss", 0, space=space, objectives=["loss"])
    empty = [searched(tmp_path / name, 0) for name in ("empty", "empty2")]
    for run in empty:
        (run / "ledger.jsonl").write_text("")
    for words, rule in [
        (("one", "one"), "is given twice"),
        (("one", "loss"), "must share an objective"),
        (("empty", "empty2"), "must have complete trials"),
        (("one", "nowhere"), "does not exist"),
        (("one", "other", "--out", "."), "is a folder"),
    ]:
        done = run_ablate(tmp_path, "report", *words)
        assert done.returncode == 2 and rule in done.stderr, done.stderr
    assert not (tmp_path / "comparison.html").exists()
    assert run_ablate(tmp_path, "report", one.name, other.name).returncode == 0
    page = (tmp_path / "comparison.html").read_text()
    assert "different images" in page and not (tmp_path / "comparison_tables" / "differences.csv").exists()
    assert run_ablate(tmp_path, "report", "one", "empty").returncode == 0
