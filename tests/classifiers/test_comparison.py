"Two runs compared on the same images, ranked on validation, and the classifier that is chosen."

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from noise_run import TINY, rewrite
from sklearn.metrics import roc_auc_score

from deepfake_nbs.classifiers import comparison
from deepfake_nbs.classifiers.comparison import choose_classifier
from deepfake_nbs.classifiers.report import describe_ranking
from deepfake_nbs.classifiers.saved import load_classifier
from deepfake_nbs.classifiers.training import train_run
from deepfake_nbs.core import file_sha256, write_json
from deepfake_nbs.metrics import classification_metrics, paired_metrics
from deepfake_nbs.runs import read_predictions, read_run


pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_classifier_is_chosen_on_validation(copy):
    def set_probability(row, split, probability):
        path = copy / "training" / row / "predictions.csv"
        frame = pd.read_csv(path, dtype={"group": str})
        mask = (frame.checkpoint == "best") & (frame.split == split)
        frame.loc[mask, "probability"] = probability(frame[mask].label)
        frame.to_csv(path, index=False)

    for good, bad in (("1", "8"), ("8", "1")):
        set_probability(good, "validation", lambda label: label.astype(float))
        set_probability(good, "test", lambda label: 1.0 - label)
        set_probability(bad, "validation", lambda label: 1.0 - label)
        set_probability(bad, "test", lambda label: label.astype(float))
        place = choose_classifier(copy)
        assert load_classifier(place)[1]["row"] == int(good)
        assert (
            file_sha256(place / "model.safetensors") == read_run(copy / "training" / good)["weights_sha256"]
        )
    assert [p.name for p in (copy / "models").iterdir()] == ["classifier"]


def test_the_application_gets_a_network_of_head_crops(copy):
    assert comparison.best_run(copy / "empty") is None and choose_classifier(copy / "empty") is None
    best, other = comparison.best_run(copy), {1: 8, 8: 1}[comparison.best_run(copy)]
    assert comparison.best_run(copy, crop=True) is None
    record = read_run(copy / "training" / str(other))
    write_json(copy / "training" / str(other) / "run.json", record | dict(crop=True))
    assert (comparison.best_run(copy), comparison.best_run(copy, crop=True)) == (best, other)
    assert load_classifier(choose_classifier(copy))[1]["row"] == other, (
        "a run on whole images has never seen a head alone"
    )


def test_methods_are_measured_against_all_real_images(run):
    table = comparison.method_table(run / "training" / "1", n_resamples=20)
    predictions = read_predictions(run / "training" / "1")
    assert table["method"].tolist() == ["smooth"] and table["n"].item() + table["n_real"].item() == len(
        predictions
    )
    expected = roc_auc_score(predictions["label"], predictions["probability"])
    assert table["auc"].item() == pytest.approx(expected)
    assert np.isnan(table["low"].item()) and table["why"].item().endswith("groups"), (
        "six images are too few for an interval"
    )


def test_how_often_a_verdict_is_correct():
    scores = pd.DataFrame(
        dict(label=[0, 0, 1, 1, 1, 0], probability=[0.1, 0.2, 0.2, 0.9, 0.95, 0.99], group=list("aabbcc"))
    )
    table = comparison.verdict_accuracy(scores, 0.2, 0.9, 100).set_index("word")
    assert table["n"].to_dict() == dict(real=3, fake=3) and table["value"].tolist() == pytest.approx(
        [2 / 3, 2 / 3]
    )
    assert table["low"].isna().all() and (table["why"] == "2 groups").all(), (
        "two of three groups are too few for an interval"
    )
    many = pd.concat([scores.assign(group=scores["group"] + str(i)) for i in range(12)])
    table = comparison.verdict_accuracy(many, 0.2, 0.9, 100).set_index("word")
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all()
    never = comparison.verdict_accuracy(scores, None, None, 100)
    assert never["n"].tolist() == [0, 0] and never[["value", "low", "high"]].isna().all(axis=None)
    same = comparison.verdict_accuracy(scores, 0.9, 0.9, 100).set_index("word")["n"]
    assert same["fake"] == 3 and same.sum() == len(scores), "no image gets both verdicts"


def test_validation_ranks_the_runs(copy):
    ranked = comparison.rank_runs(copy, n_resamples=20)
    areas = {
        row: roc_auc_score(
            *read_predictions(copy / "training" / str(row), "validation")[["label", "probability"]]
            .to_numpy()
            .T
        )
        for row in (1, 8)
    }
    assert ranked["value"].to_dict() == pytest.approx(areas) and ranked["value"].is_monotonic_decreasing
    assert (
        describe_ranking(ranked).startswith(f"run {ranked.index[0]} with ")
        and describe_ranking(ranked).count("(n=6)") == 2
    )
    assert describe_ranking(ranked[:0]) == "no run" and comparison.best_run(copy) == ranked.index[0]
    assert comparison.rank_runs(copy, crop=True, n_resamples=5).empty


def predictions(probability, labels=None, suffix="png"):
    n = len(probability)
    labels = np.arange(n) % 2 if labels is None else labels
    return pd.DataFrame(
        dict(
            path=[f"test/{i:03d}.{suffix}" for i in range(n)],
            label=labels,
            probability=probability,
            group=[f"g{i}" for i in range(n)],
        )
    )


def test_common_images_line_up_crops_and_photographs():
    first, second = (
        predictions(np.linspace(0, 1, 6), suffix="jpg"),
        predictions(np.linspace(0, 1, 8)).iloc[[7, 1, 3]],
    )
    pair = comparison.common_images(first, second)
    assert [frame.image.tolist() for frame in pair] == [["test/001", "test/003"]] * 2
    assert pair[0].path.tolist() == ["test/001.jpg", "test/003.jpg"] and pair[1].path.tolist() == [
        "test/001.png",
        "test/003.png",
    ]


def test_a_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    skill = 0.5 + 0.15 * (labels - 0.5) + rng.normal(0, 0.15, 300)
    first, second = (
        predictions((skill + rng.normal(0, 0.02, 300) + worse * (0.5 - labels)).clip(0, 1), labels)
        for worse in (0.0, 0.06)
    )
    pair = paired_metrics(first, second, 300).loc["auc"]
    alone = [classification_metrics(frame, 300).loc["auc"] for frame in (first, second)]
    assert pair.difference == pytest.approx(alone[0].value - alone[1].value)
    assert pair.high - pair.low < alone[0].high - alone[0].low and 0 < pair.low and pair.p < 0.05
    assert alone[0].low < alone[1].high, "the two intervals overlap, the paired one excludes zero"


def test_p_is_honest_where_there_is_no_difference():
    rng, ps = np.random.default_rng(1), []
    for _ in range(60):
        labels = rng.integers(0, 2, 80)
        first, second = (
            predictions((0.5 + 0.2 * (labels - 0.5) + rng.normal(0, 0.2, 80)).clip(0, 1), labels)
            for _ in range(2)
        )
        ps.append(paired_metrics(first, second, 100).p["auc"])
    assert np.mean(np.array(ps) < 0.05) < 0.15 and np.mean(np.array(ps) < 0.5) > 0.25


def test_runs_are_compared_on_what_both_have(copy):
    table = comparison.compare_runs(copy, 8, n_resamples=20)
    assert table.row.tolist() == [1] and table.n.item() == 6
    own = [read_predictions(copy / "training" / row) for row in ("8", "1")]
    areas = [roc_auc_score(frame.label, frame.probability) for frame in own]
    assert table.difference.item() == pytest.approx(areas[0] - areas[1])


def test_crops_are_compared_on_common_images(copy):
    assert comparison.compare_crops(copy, n_resamples=10).empty, (
        "run 8 asked for crops, there were none, so nothing was cropped"
    )
    shutil.copytree(copy / "cvcs_dfd", copy / "cvcs_cropped_dfd")
    rewrite(copy / "cvcs_cropped_dfd", lambda df: df[df.path != "test/000004.png"])
    train_run(copy, replace(TINY, row=7, crop=True, epochs=1), "7")
    crops = comparison.compare_crops(copy, n_resamples=10)
    assert crops[["cropped_row", "whole_row", "n", "n_cropped", "n_whole"]].to_numpy().tolist() == [
        [7, 1, 5, 5, 6]
    ]


def test_an_early_epoch_is_compared_with_the_last(run):
    table = comparison.compare_epochs(run, n_resamples=20).set_index("run")
    assert (
        table.index.tolist() == ["1", "8"]
        and (table.early_epoch == 1).all()
        and (table.last_epoch == 2).all()
    )
    frames = [read_predictions(run / "training" / "1", "test", name) for name in ("early", "last")]
    accuracy = [((frame.probability >= 0.5) == frame.label).mean() for frame in frames]
    assert table.difference["1"] == pytest.approx(accuracy[0] - accuracy[1])
