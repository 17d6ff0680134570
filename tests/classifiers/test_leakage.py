"Leaking splits: what they add to a score, and the audit beside it."

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from noise_run import TINY

from deepfake_nbs.claims import save_claims
from deepfake_nbs.classifiers import leakage
from deepfake_nbs.classifiers.training import train_run
from deepfake_nbs.runs import read_predictions

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def both(copy):
    "Run 1 on both splits from two seeds."
    twin = replace(TINY, row=0, epochs=2)
    train_run(copy, replace(twin, protocol="published"), "twin")
    for protocol in ("group", "published"):
        train_run(copy, replace(twin, seed=7, protocol=protocol), f"{protocol}-7")
    return copy


def accuracy(run, name):
    frame = read_predictions(run / "training" / name, "test", "last")
    return frame["probability"].ge(0.5).eq(frame["label"] == 1).mean()


def test_only_runs_that_differ_in_nothing_but_the_split_are_compared(copy):
    assert leakage.leakage_table(copy).empty
    twin = replace(TINY, row=0, epochs=2, protocol="published")
    train_run(copy, replace(twin, seed=7), "other-seed")
    assert leakage.leakage_table(copy).empty
    train_run(copy, twin, "twin")
    table = leakage.leakage_table(copy, ("accuracy",))
    assert table[["run", "protocol", "seeds"]].to_numpy().tolist() == [
        ["1", "group", 1],
        ["1", "published", 1],
    ]
    pair = table.iloc[1]
    assert pair["difference"] == pytest.approx(accuracy(copy, "twin") - accuracy(copy, "1"))
    assert pair["low"] <= pair["difference"] <= pair["high"]


def test_differences_are_means_over_pairs_of_one_seed(both):
    table = leakage.leakage_table(both)
    assert table["metric"].tolist() == ["auc"] * 2 + ["accuracy"] * 2 and (table["seeds"] == 2).all()
    group, published = table[table["metric"].eq("accuracy")].to_dict("records")
    each = [
        accuracy(both, one) - accuracy(both, other)
        for one, other in (("twin", "1"), ("published-7", "group-7"))
    ]
    assert published["difference"] == pytest.approx(np.mean(each))
    assert published["difference"] == pytest.approx(published["value"] - group["value"])
    assert np.isnan(group["difference"]) and np.isnan(group["low"])


def test_the_audit_counts_groups_that_a_split_cuts(both):
    path = both / "cvcs_dfd" / "manifest.csv"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False).sort_values("split")
    frame.assign(group=[str(i // 2) for i in range(len(frame))]).to_csv(path, index=False)
    whole = leakage.audit_groups(path.parent, "group", 42)
    cut = [leakage.audit_groups(path.parent, "published", seed) for seed in (42, 7)]
    assert whole == dict(crossing=0, groups=15, touched=0)
    assert all(audit["crossing"] > 0 and 0 < audit["touched"] <= 1 for audit in cut)


def test_kept_numbers_give_the_table_back(both):
    table = leakage.leakage_table(both)
    save_claims(leakage.leakage_claims(table, "noise"), both)
    kept = leakage.kept_leakage(pd.read_csv(both / "claims.csv"))
    same = [
        "value",
        "value_low",
        "value_high",
        "difference",
        "low",
        "high",
        "n",
        "seeds",
        "crossing",
        "groups",
    ]
    assert kept["protocol"].tolist() == ["group", "published"] * 2 and set(kept["run"].astype(str)) == {"1"}
    assert kept["metric"].tolist() == ["auc"] * 2 + ["accuracy"] * 2
    assert np.allclose(kept[same].astype(float), table[same].astype(float), atol=1e-4, equal_nan=True)
    view = leakage.leakage_view(kept)
    assert list(view) == list(leakage.leakage_view(table)) and len(view.columns) == 8
    assert len(view) == 2 and len(leakage.leakage_view(kept[:2]).columns) == 6, (
        "numbers kept without accuracy"
    )


@pytest.mark.parametrize("run", ["1", "1-256px", "mine"])
def test_any_name_of_a_run_is_read_back(run):
    line = dict(zip(leakage.LEAKAGE_COLUMNS, [""] * len(leakage.LEAKAGE_COLUMNS), strict=True)) | dict(
        run=run, metric="auc", value=0.7, value_low=0.6, value_high=0.8, difference=0.1, low=0.05, high=0.15,
        n=100, seeds=3, crossing=5.0, groups=20.0, touched=0.5)  # fmt: skip
    table = pd.DataFrame([line | dict(protocol="pair")])
    kept = leakage.kept_leakage(pd.DataFrame(leakage.leakage_claims(table, "noise")))
    assert kept[["run", "protocol", "difference", "seeds"]].to_numpy().tolist() == [[run, "pair", 0.1, 3]]
    assert "an actor may stand in several splits (3 seeds)" in leakage.leakage_sentence(table)
    assert leakage.leakage_view(table).iloc[0, -1] == "5 of 20, 50%"


def test_words():
    assert "No run was also trained" in leakage.leakage_sentence(
        pd.DataFrame(columns=leakage.LEAKAGE_COLUMNS)
    )
    line = dict(
        run="1", protocol="published", metric="auc", difference=0.2, low=0.1, high=0.3, why="", touched=0.5
    )
    text = leakage.leakage_sentence(pd.DataFrame([line | dict(seeds=3), line | dict(seeds=3, low=-0.1)]))
    assert (
        "+0.200 [+0.100, +0.300] for run 1" in text
        and "zero in 1 of 2: no difference is shown in 1." in text
        and "groups and seeds" in text
    )
    none = leakage.leakage_sentence(
        pd.DataFrame([line | dict(seeds=1, low=np.nan, high=np.nan, why="4 groups")])
    )
    assert "+0.200 (no interval: 4 groups)" in none and "not of seeds" in none
    accuracy = leakage.leakage_sentence(pd.DataFrame([line | dict(seeds=1, low=-0.1), line | dict(
        seeds=1, metric="accuracy")]))  # fmt: skip
    assert "in 0 of 1: no difference is shown. The test accuracy changes by +0.200" in accuracy
    assert "The same training on several splits" not in leakage.split_words(pd.DataFrame(dict(protocol=[])))
