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
    runs = claims[claims.index.str.fullmatch(r"table2-\d+-auc")].astype(dict(measured=float))
    best = runs.loc[runs["measured"].idxmax()]
    number = best.name.split("-")[1]
    assert (
        f"{best['measured']:.3f} [" in text and f"(run {number}, " in text and f"n={best['n']:.0f})" in text
    )
    assert photographs.photographs_sentence(aucs[:0]) == "No results are kept for this profile."
    assert "none, so the first sections are empty" in photographs.kept_sentence({}, "full")


@pytest.mark.parametrize("low, high, zero", [(-0.1, 0.1, "includes"), (0.01, 0.1, "excludes")])
def test_the_comparison_at_another_budget_names_pixels_epochs_and_minutes(low, high, zero):
    pair = pd.Series(dict(measured=0.05, low=low, high=high, n=239))
    claims = pd.DataFrame([pair], index=["training-compare-ours-minus-row1-auc"])
    ours = dict(config=dict(image_size=128, window=0.75, width=1.0), epochs=8, counts=dict(train=1000))
    theirs = dict(config=dict(image_size=96, window=1.0), wall_seconds=300)
    text = photographs.other_budget_sentence(claims, dict(ours=ours | dict(wall_seconds=360), row1=theirs))
    assert "8 epochs, width 1, 1000 photographs" in text and f"the interval {zero} zero" in text
    assert (
        "windows of 96 pixels and tested at 128, the recipe of run 1 at 96 in both; 6 and 5 minutes" in text
    )


@pytest.mark.parametrize("low, near", [(0.45, True), (0.6, False)])
def test_networks_are_said_to_be_near_chance_only_where_an_interval_holds_it(low, near):
    areas = {name: dict(measured=0.7, low=low, high=0.8, n=239) for name in ("ours", "peer")}
    rows = {f"training-compare-{name}-auc": area for name, area in areas.items()}
    rows["training-compare-ours-minus-peer-auc"] = dict(measured=0.01, low=-0.1, high=0.1, n=239)
    text = photographs.peer_sentence(pd.DataFrame(rows).T, dict(ours=dict(epochs=8, counts=dict(train=1000))))
    assert (photographs.NEAR_CHANCE in text) == near and "AUC 0.700 of run 11 and 0.700 of timm's" in text
