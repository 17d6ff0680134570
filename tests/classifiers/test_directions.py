"The conclusions of the report as differences that a run measures."

import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from deepfake_nbs.claims import save_claims
from deepfake_nbs.classifiers import directions
from deepfake_nbs.classifiers.verdicts import read_measured
from deepfake_nbs.metrics import paired_metrics


def predict(strength, n=160, seed=0, groups=40, ending="jpg"):
    "Predictions that tell real from fake the better, the larger `strength`."
    rng, label = np.random.default_rng(seed), np.tile([0, 1], n // 2)
    probability = 1 / (1 + np.exp(-rng.normal(strength * (2 * label - 1))))
    path = [f"test/{i:04d}.{ending}" for i in range(n)]
    return pd.DataFrame(
        dict(path=path, label=label, probability=probability, group=[f"g{i % groups}" for i in range(n)])
    )


def test_a_difference_of_two_runs_is_the_paired_one():
    first, second = predict(1.0), predict(0.5, seed=1)
    ours = directions.auc_difference([first], [second])
    assert ours["measured"] == pytest.approx(
        roc_auc_score(first["label"], first["probability"])
        - roc_auc_score(second["label"], second["probability"])
    )
    paired = paired_metrics(first, second, 20).loc["auc"]
    assert (ours["low"], ours["high"]) == pytest.approx((paired["low"], paired["high"]), abs=1e-6)
    other = directions.auc_difference([second], [first])
    assert (other["measured"], other["low"]) == pytest.approx((-ours["measured"], -ours["high"]))


def test_groups_of_runs_are_averaged_on_the_images_that_all_have():
    good, fair, bad = predict(1.5), predict(1.0, seed=1, ending="png"), predict(0.2, seed=2)
    cropped = fair.iloc[20:]  # A head was found in these; a crop is a PNG of the same name
    found = directions.auc_difference([good, cropped], [bad])
    areas = [roc_auc_score(frame["label"][20:], frame["probability"][20:]) for frame in (good, fair, bad)]
    assert found["n"] == 140 and found["measured"] == pytest.approx((areas[0] + areas[1]) / 2 - areas[2])
    assert 0 < found["low"] < found["measured"] < found["high"]


def test_ties_count_one_half_and_one_class_has_no_auc():
    flat = predict(1).assign(probability=0.5)
    assert directions.auc_difference([flat], [flat])["measured"] == 0
    one = predict(1).assign(label=1)
    assert np.isnan(directions.auc_difference([one], [one])["measured"])


def test_too_few_groups_have_no_interval():
    found = directions.auc_difference([predict(1.0, groups=3)], [predict(0.5, groups=3, seed=1)])
    assert np.isnan(found["low"]) and "groups" in found["why"]


def test_an_interval_covers_the_difference_about_as_often_as_it_says():
    "Two runs of one quality: zero lies inside in about 95 of 100 draws."
    inside = 0
    for seed in range(100):
        found = directions.auc_difference([predict(0.5, 120, seed, 30)], [predict(0.5, 120, 1000 + seed, 30)])
        inside += found["low"] <= 0 <= found["high"]
    assert 88 <= inside <= 100


def test_predictions_as_real_are_counted_against_real_images():
    always_real, always_fake = (predict(1).assign(probability=value) for value in (0.1, 0.9))
    assert directions.predicted_real_excess([always_real])["measured"] == 0.5
    assert directions.predicted_real_excess([always_fake])["measured"] == -0.5
    assert directions.predicted_real_excess([always_real, always_fake])["measured"] == 0
    perfect = predict(1).assign(probability=lambda frame: frame["label"].astype(float))
    assert directions.predicted_real_excess([perfect])["measured"] == 0


def test_an_early_epoch_is_better_where_the_difference_is_positive():
    early, last = predict(2.0), predict(0.1, seed=1)
    found = directions.early_minus_last([early], [last])
    right = [((frame["probability"] >= 0.5) == (frame["label"] == 1)).mean() for frame in (early, last)]
    assert found["measured"] == pytest.approx(right[0] - right[1]) and found["low"] > 0
    assert directions.early_minus_last([early, last], [last, early])["measured"] == pytest.approx(0)


def search(**changes):
    svm = pd.DataFrame(dict(kernel=["rbf", "rbf", "linear"], C=[0.1, 1, 1], accuracy=[0.50, 0.56, 0.58]))
    forest = pd.DataFrame(dict(trees=[100, 500, 1000], accuracy=[0.55, 0.60, 0.61]))
    return changes.get("svm", svm), changes.get("forest", forest)


def test_settings_of_the_baselines_are_compared_on_validation():
    found = directions.search_differences(*search())
    assert {id: round(value, 2) for id, (value, _) in found.items()} == {
        "conclusion-small_c": -0.08,
        "conclusion-gaussian_kernel": -0.02,
        "conclusion-500_trees": -0.01,
    }
    assert found["conclusion-small_c"][1].endswith("chosen: linear, C = 1")
    svm, forest = search()
    alone = directions.search_differences(
        svm[svm["C"].eq(1) & svm["kernel"].eq("rbf")], forest[forest["trees"].lt(900)]
    )
    assert alone == {}, "one setting has nothing to be compared with"


def test_cosine_takes_the_features_of_the_report_that_were_measured():
    ids = [
        f"retrieval-original-all-none-{f}-{how}-map"
        for f in ("harris", "resnet18")
        for how in ("cosine", "euclidean")
    ]
    claims = pd.DataFrame(
        dict(measured=[0.5, 0.4, 0.9, 0.6], low=[0.4, 0.3, 0.8, 0.5], high=[0.6, 0.5, 1.0, 0.7], n=9),
        index=ids,
    )
    both, one = directions.cosine_difference(claims), directions.cosine_difference(claims.iloc[:2])
    assert (both["measured"], both["low"], both["high"]) == pytest.approx((0.2, 0.0, 0.4))
    assert one["measured"] == pytest.approx(0.1) and "harris," in one["protocol"]
    assert directions.cosine_difference(claims.iloc[:1]) == {}


def overlap(*pairs):
    columns = ["first", "second", "common", "low", "high", "n"]
    return pd.DataFrame(
        [[*names, common, common - 1, common + 1, 60] for names, common in pairs], columns=columns
    )


def test_features_differ_by_the_pair_that_is_most_alike():
    same, near = (("harris cosine", "harris euclidean"), 9.0), (("phash cosine", "thumbnail cosine"), 7.0)
    far, reported = (("harris cosine", "phash cosine"), 2.0), (("harris cosine", "resnet18 cosine"), 1.0)
    found = directions.overlap_difference(overlap(same, near, far))
    assert (found["measured"], found["low"], found["high"]) == (3, 2, 4)
    assert directions.overlap_difference(overlap(same, near, reported))["measured"] == 9, (
        "the report's own pair"
    )
    assert directions.overlap_difference(overlap(same)) == directions.overlap_difference(pd.DataFrame()) == {}


def test_leakage_counts_groups_of_the_shuffled_split():
    rows = [
        dict(protocol=name, what="groups", total=72, crossing=n)
        for name, n in (("group", 0), ("published", 36))
    ]
    found = directions.leakage_difference(pd.DataFrame(rows))
    assert found["measured"] == -36 and "36 of 72" in found["protocol"]
    assert (
        directions.leakage_difference(pd.DataFrame(rows[:1]))
        == {}
        == directions.leakage_difference(pd.DataFrame())
    )


def test_a_run_that_has_nothing_measures_nothing(tmp_path, root):
    rows = directions.conclusion_claims(tmp_path, read_measured(tmp_path / "claims.csv"))
    listed = pd.read_csv(root / "papers/original/claims.csv")["id"]
    assert {row["id"] for row in rows} == set(listed[listed.str.startswith("conclusion-")])
    assert all(row["measured"] is None for row in rows)
    save_claims(rows, tmp_path)
    assert len(read_measured(tmp_path / "claims.csv")) == 0


def test_the_conclusions_of_finished_runs(run, tmp_path):
    copy = tmp_path / "smoke-noise"
    copy.mkdir()
    for name in ("training", "cvcs_dfd", "cvcs_cropped_dfd"):
        (copy / name).symlink_to(run / name)
    (copy / "baselines" / "group").mkdir(parents=True)
    for name, frame in zip(("svm", "forest"), search(), strict=True):
        frame.to_csv(copy / "baselines" / "group" / f"{name}_search.csv", index=False)
    rows = {row["id"]: row for row in directions.conclusion_claims(copy, read_measured(copy / "claims.csv"))}
    measured = {id for id, row in rows.items() if row["measured"] is not None}
    assert measured == {
        "conclusion-many_real", "conclusion-more_epochs", "conclusion-epoch_8",
        "conclusion-small_c", "conclusion-gaussian_kernel", "conclusion-500_trees",
    }  # fmt: skip
    assert rows["conclusion-many_real"]["protocol"].endswith(
        "fraction predicted real minus real, runs 1 and 8"
    )
    assert (
        rows["conclusion-epoch_8"]["protocol"].endswith("run 8")
        and rows["conclusion-small_c"]["data"] == "noise"
    )
    save_claims(list(rows.values()), copy)
    assert set(read_measured(copy / "claims.csv").index) == measured


def test_a_training_from_another_seed_is_a_repetition(copy):
    names = directions.repeated_runs(copy)
    assert names == {1: ["1"], 8: ["8"]}, "another configuration is none"
    shutil.copytree(copy / "training" / "8", copy / "training" / "again")
    assert directions.repeated_runs(copy)[8] == ["8"], "the same seed twice counts once"
