"Runs at equal pixels: which are paired, what they cost, and what is said of them."

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from noise_run import TINY

from deepfake_nbs.claims import save_claims
from deepfake_nbs.classifiers import budgets
from deepfake_nbs.classifiers.tables import usable_runs
from deepfake_nbs.classifiers.training import train_run
from deepfake_nbs.runs import read_predictions

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def sizes(copy):
    "Run 1 at 48 and 64 pixels, and from a second seed; run 11 on windows of 48 of an image of 64."
    windows = replace(TINY, row=11, epochs=2, image_size=64, window=0.75, augment="flip")
    train_run(copy, windows, "11")
    train_run(copy, replace(TINY, row=0, epochs=2, image_size=64), "1-64px")
    for name, config in {"11-seed": windows, "1-seed": replace(TINY, epochs=2)}.items():
        train_run(copy, replace(config, row=0, seed=7), name)
    return copy


def test_each_way_of_being_equal_is_one_pair(sizes):
    table = budgets.equal_pixels_table(sizes, n_resamples=10)
    assert table[["first", "second", "equal"]].to_numpy().tolist() == [
        ["11", "1", "training"],
        ["11", "1-64px", "testing"],
    ]
    pixels = table[["train_pixels_first", "train_pixels_second", "test_pixels_first", "test_pixels_second"]]
    assert pixels.to_numpy().tolist() == [[48, 48, 64, 48], [48, 64, 64, 64]]
    assert (table["epochs_first"] == 2).all() and (table["minutes_second"] > 0).all()
    assert table["seeds"].tolist() == [2, 1], "the larger size has one seed"


def test_two_numbers_that_are_one_training_are_paired_once(sizes):
    train_run(sizes, replace(TINY, row=9, epochs=2), "9")
    table = budgets.equal_pixels_table(sizes, n_resamples=10)
    assert table["second"].tolist() == ["1", "1-64px"]
    assert budgets.sizes_of(sizes, usable_runs(sizes)[0], "9") == ["9", "1-64px"]


def test_differences_are_means_over_the_seeds_of_both(sizes):
    from sklearn.metrics import roc_auc_score

    def auc(name):
        frame = read_predictions(sizes / "training" / name)
        return roc_auc_score(frame["label"], frame["probability"])

    pair = budgets.equal_pixels_table(sizes, n_resamples=10).iloc[0]
    expected = np.mean([auc("11") - auc("1"), auc("11-seed") - auc("1-seed")])
    assert pair["difference"] == pytest.approx(expected)
    runs = usable_runs(sizes)[0]
    cost = budgets.cost_of(runs, ["11", "11-seed"])
    assert cost["minutes"] == pytest.approx(
        np.mean([runs[n]["wall_seconds"] for n in ("11", "11-seed")]) / 60
    )


def test_kept_numbers_give_the_sentence_back(sizes):
    table = budgets.equal_pixels_table(sizes, n_resamples=10).assign(low=-0.1, high=0.1, why="")
    save_claims(budgets.equal_pixels_claims(table, "noise"), sizes)
    kept = budgets.kept_pixels_sentence(pd.read_csv(sizes / "claims.csv"))
    assert kept == budgets.equal_pixels_sentence(table)
    assert "run 11 minus run 1-64px is" in kept and "2 seeds" in kept
    view = budgets.equal_pixels_view(table)
    assert len(view.columns) == 8 and view["pixels in testing"].tolist() == ["64, 48", "64, 64"]


def test_without_such_runs_a_sentence_says_so(copy):
    assert budgets.equal_pixels_table(copy).empty
    assert "No two runs with equal pixels" in budgets.kept_pixels_sentence(
        pd.DataFrame(columns=["id", "measured", "low", "high", "n", "protocol"], dtype=str)
    )
    assert budgets.equal_pixels_view(budgets.equal_pixels_table(copy)).shape == (0, 8)


@pytest.mark.parametrize(
    "low, high, word",
    [(0.01, 0.2, "above zero"), (-0.2, -0.01, "below zero"), (-0.1, 0.1, "on both sides of zero")],
)
def test_words_follow_the_interval(low, high, word):
    line = dict(
        first="11", second="1", equal="training", difference=0.0, low=low, high=high, why="", n=90, seeds=3
    )
    assert word in budgets.equal_pixels_sentence(pd.DataFrame([line]))


def test_our_runs_stand_beside_each_configuration_at_the_size_of_its_profile(sizes):
    train_run(sizes, replace(TINY, row=3, epochs=2, optimiser="momentum"), "3")
    table = budgets.ours_table(sizes, n_resamples=10)
    assert table[["first", "second", "equal"]].to_numpy().tolist() == [
        ["11", "1", "training"],
        ["11", "3", "training"],
        ["11", "8", "training"],
    ], "run 12 is not trained, and 1-64px is no configuration of the report"
    assert table["seeds"].tolist() == [2, 1, 1]
    view = budgets.ours_view(table)
    assert view["run"].tolist() == ["1", "3", "8"]
    assert view.columns.tolist() == ["run", "run 11 minus it, equal pixels in training"]
    save_claims(budgets.equal_pixels_claims(table.assign(low=-0.1, high=0.1, why=""), "noise"), sizes)
    kept = pd.read_csv(sizes / "claims.csv")
    assert budgets.kept_ours_pairs(kept)["second"].tolist() == ["1", "3", "8"]
    assert "run 3" not in budgets.kept_pixels_sentence(kept), "that sentence is about run 1"


def test_the_sentence_names_what_ours_does_not_beat(sizes):
    lines = [
        dict(
            first="12",
            second=second,
            equal="training and testing",
            difference=low + 0.1,
            low=low,
            high=low + 0.2,
        )
        for second, low in (("1", 0.05), ("3", -0.02))
    ]
    pairs = pd.DataFrame(lines).assign(seeds=3)
    said = budgets.ours_sentence(pairs)
    assert "for 1 of them, and not for 3" in said and "+0.080" in said and "to run 3" in said
    assert "for all of them" in budgets.ours_sentence(pairs[:1])
    assert "for none of them" in budgets.ours_sentence(pairs[1:])
    assert "No run of ours" in budgets.ours_sentence(pairs[:0])
    assert "3 seeds" in budgets.ours_view(pairs).iloc[0, 1]
