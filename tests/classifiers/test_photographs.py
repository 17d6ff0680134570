"Kept numbers of photographs, in tables and sentences."

import pandas as pd
import pytest

from deepfake_nbs.classifiers import photographs


def test_kept_numbers_are_named_and_read(root):
    kept = photographs.kept_results("mini", "data/miniature")
    assert list(kept) == ["miniature", "real"] and list(
        photographs.kept_results("mini", "somewhere/real")
    ) == ["real"]
    aucs = photographs.kept_aucs(kept)
    assert {"SIFT words, SVM", "file properties", "run 11, xception"} <= set(aucs["classifier"])
    assert set(aucs["protocol"]) == {"miniature, embedded", "real, photographs"}
    claims = pd.read_csv(kept["real"], index_col="id")
    text = photographs.photographs_sentence(aucs[aucs["data"].eq("real")])
    assert f"{float(claims.measured['table2-11-auc']):.3f} [" in text and "(run 11, xception, n=590)" in text
    assert photographs.photographs_sentence(aucs[:0]) == "No results are kept for this profile."
    assert "none, so the first sections are empty" in photographs.kept_sentence({}, "full")


@pytest.mark.parametrize(
    "low, high, words",
    [
        (0.01, 0.1, "It is higher than that of runs 1 and 2"),
        (-0.1, -0.01, "It is lower than that of runs 1 and 2"),
        (-0.1, 0.1, "For runs 1 and 2 the interval includes zero."),
    ],
)
def test_a_recipe_is_better_where_the_interval_says_so(low, high, words):
    first = dict(
        row="run 11",
        auc=0.8,
        auc_low=0.75,
        auc_high=0.85,
        n=100,
        difference=float("nan"),
        low=float("nan"),
        high=float("nan"),
    )
    others = [
        first | dict(row=f"run {number}", difference=difference, low=low, high=high)
        for number, difference in ((1, 0.05), (2, 0.03))
    ]
    text = photographs.recipe_sentence(pd.DataFrame([first, *others]))
    assert text.startswith("Run 11 has an AUC of 0.800 [0.750, 0.850] (n=100).") and words in text
    assert (
        text.endswith("The smallest difference is that to run 2, +0.030.") and text.count("runs 1 and 2") == 1
    )


@pytest.mark.parametrize("low, high, zero", [(-0.1, 0.1, "includes"), (0.01, 0.1, "excludes")])
def test_the_comparison_at_another_budget_names_pixels_epochs_and_minutes(low, high, zero):
    pair = pd.Series(dict(measured=0.05, low=low, high=high, n=239))
    claims = pd.DataFrame([pair], index=["training-compare-ours-minus-published-auc"])
    ours = dict(config=dict(image_size=128, window=0.75, width=1.0), epochs=8, counts=dict(train=1000))
    theirs = dict(config=dict(image_size=96, window=1.0), wall_seconds=300)
    text = photographs.other_budget_sentence(
        claims, dict(ours=ours | dict(wall_seconds=360), published=theirs)
    )
    assert "8 epochs, width 1, 1000 photographs" in text and f"the interval {zero} zero" in text
    assert (
        "windows of 96 pixels and tested at 128, the recipe of run 1 at 96 in both; 6 and 5 minutes" in text
    )


def test_recipes_are_shown_with_pixels_epochs_and_minutes(root):
    path = root / "papers/results/training-recipes-real.csv"
    records = photographs.read_kept_record(path)["training"]
    view = photographs.recipe_view(photographs.recipe_table(pd.read_csv(path, index_col="id"), records))
    config = records["ours"]["config"]
    pixels = f"{round(config['image_size'] * config['window'])}, {config['image_size']}"
    assert view["pixels in training, test"].iloc[0] == pixels and len(view.columns) == 8
    assert view["epochs, minutes"].iloc[0].startswith(f"{records['ours']['epochs']}, ")
