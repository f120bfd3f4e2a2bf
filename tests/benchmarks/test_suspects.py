"""The shares of the suspects, from a table of trials that is written by hand."""

from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

ROWS = [  # arm, passes, rate, validation and test accuracy
    ("full", 1, 0.1, 80.0, 82.0),
    ("full", 3, 0.1, 90.0, 91.0),
    ("full", 3, 0.01, 88.0, 90.0),
    ("full", 3, 0.001, 87.9, 89.0),  # 2.1 points below the best
    ("binary", 1, 0.1, 70.0, 70.0),
    ("binary", 3, 0.1, 50.0, 50.5),
    ("binary", 3, 0.01, 40.0, 38.0),
    ("binary", 3, 0.001, 10.0, 10.0),
]


@pytest.fixture
def suspects(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("suspects")


def table():
    names = ["step", "passes", "learning_rate", "accuracy", "test_accuracy"]
    return pd.DataFrame(ROWS, columns=names).assign(augment=False, seed=0)


def test_recipes_count_where_full_precision_is_near_its_best(suspects):
    assert suspects.counting(table())[["passes", "learning_rate"]].to_numpy().tolist() == [
        [3, 0.01],
        [3, 0.1],
    ]


def test_shares_are_of_full_precision_by_the_same_recipe(suspects):
    found = suspects.distributions(suspects.shares(table())).set_index("arm")
    assert found.loc["full", ["n", "smallest", "largest", "near"]].tolist() == [2, 1.0, 1.0, 0]
    assert found.loc["binary", "largest"] == pytest.approx(40.5 / 81)
    assert found.loc["binary", "smallest"] == pytest.approx(28 / 80)  # 0.35, and the paper's is 0.344
    assert found.loc["binary", ["n", "near", "part near"]].tolist() == [2, 1, 0.5]


def test_a_seed_without_full_precision_has_no_share(suspects):
    rows = table()
    rows.loc[rows["step"] == "binary", "seed"] = 1
    assert set(suspects.shares(rows)["step"]) == {"full"}
