"Robustness: the sample, the same classifiers as were trained, numbers by hand and against scikit-learn, what is missing."

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from deepfake_nbs.audit import robustness
from deepfake_nbs.audit.robustness import RobustnessBudget, audit_robustness, measure_step, sample_by_group
from deepfake_nbs.baselines.study import BaselineConfig, run_baselines
from deepfake_nbs.classifiers.calibration import Limits
from deepfake_nbs.classifiers.comparison import rank_runs
from deepfake_nbs.core import write_text
from deepfake_nbs.data.manifest import read_manifest
from deepfake_nbs.distortions import LADDER, Step
from deepfake_nbs.images import read_image

SMALL = BaselineConfig(n_words=8, image_size=64, kernels=("linear",), C=(1.0,), n_trees=(10,))


@pytest.fixture(scope="module")
def audited_run(run, tmp_path_factory):
    "The two tiny runs, with an SVM on SIFT words beside them."
    place = tmp_path_factory.mktemp("audit") / "smoke-noise"
    shutil.copytree(run, place, symlinks=True)
    folder = place / "cvcs_dfd"
    out = place / "baselines" / "group"
    out.mkdir(parents=True)
    run_baselines(read_manifest(folder), folder, out, SMALL, place / "features" / "sift")
    return place


@pytest.fixture(scope="module")
def found(audited_run, one_thread):
    return audit_robustness(audited_run, RobustnessBudget(6, 1), device="cpu")


def predictions(label, probability, group=None):
    group = list(map(str, range(len(label)))) if group is None else group
    return pd.DataFrame(dict(label=label, probability=probability, group=group))


# --- The sample -------------------------------------------------------------------------------------------------------


def test_a_sample_takes_groups_before_images_and_classes_in_turn():
    rows = predictions([0] * 6 + [1] * 6, 0.5, list("aaabbc") + list("ddddde"))
    sample = sample_by_group(rows, 5)
    assert sample["label"].sum() in (2, 3) and sample["group"].nunique() == 5
    assert sample_by_group(rows, 5).equals(sample) and len(sample_by_group(rows, 99)) == 12


def test_a_sample_of_one_class_or_one_group_is_a_sample():
    assert len(sample_by_group(predictions([1] * 4, 0.5), 3)) == 3
    assert len(sample_by_group(predictions([0, 1] * 4, 0.5, ["a"] * 8), 3)) == 3


# --- Numbers ----------------------------------------------------------------------------------------------------------


def test_a_step_is_measured_as_scikit_learn_does():
    rng = np.random.default_rng(0)
    label = [0, 1] * 30
    plain = predictions(label, (0.3 * np.array(label) + 0.7 * rng.random(60)).tolist())
    changed = plain.assign(probability=rng.random(60))
    row = measure_step(plain, changed, Limits(0.3, 0.7, 0.9))
    aucs = [roc_auc_score(label, one["probability"]) for one in (changed, plain)]
    assert row["auc"] == pytest.approx(aucs[0]) and row["difference"] == pytest.approx(aucs[0] - aucs[1])
    assert row["difference_low"] < row["difference"] < row["difference_high"] and row["auc_low"] < row["auc"]
    before, after = plain["probability"], changed["probability"]
    had = (before <= 0.3) | (before >= 0.7)
    opposite = ((before <= 0.3) & (after >= 0.7)) | ((before >= 0.7) & (after <= 0.3))
    assert row["flips"] == pytest.approx(opposite.sum() / had.sum())
    assert row["coverage"] == pytest.approx(((after <= 0.3) | (after >= 0.7)).mean())


@pytest.mark.parametrize(
    "plain, why",
    [
        (predictions([1] * 12, [0.9] * 12), "auc"),  # One class
        (predictions([0, 1] * 6, [0.5] * 12), "flips"),  # No verdict
    ],
)
def test_what_is_not_defined_is_nan_and_shown_as_nothing(plain, why):
    row = measure_step(plain, plain, Limits(0.2, 0.8, 0.9))
    assert row[why] != row[why]
    table = pd.DataFrame([dict(classifier="x", distortion="jpeg", strength=30) | row])
    assert (robustness.robustness_view(table) == "").any(axis=None)


def test_one_group_has_no_interval_and_the_table_says_why():
    plain = predictions([0, 1] * 6, [0.1, 0.9] * 6, ["a"] * 12)
    row = measure_step(plain, plain, Limits(0.2, 0.8, 0.9))
    assert row["auc_low"] != row["auc_low"] and "1 group" in row["auc_why"]


# --- The classifiers of a run -----------------------------------------------------------------------------------------


def test_the_classifiers_are_those_that_were_trained(audited_run, one_thread):
    classifiers, missing = robustness.audited_classifiers(audited_run, "cpu")
    best = rank_runs(audited_run, n_resamples=1).index[0]
    assert [one.name.split(" (")[0] for one in classifiers] == [f"run {best}", "SIFT words, SVM"]
    assert missing == ["run 12 is not trained"]
    for one in classifiers:
        again = one.score([one.prepare(read_image(one.folder / path)) for path in one.test["path"]])
        assert np.allclose(again, one.test["probability"], atol=1e-3), one.name


def test_every_classifier_meets_every_distortion(found):
    table, missing = found
    assert missing and len(table) == 2 * (1 + len(LADDER))
    assert set(table["distortion"]) == {"none", *LADDER} and table["n"].eq(6).all()
    plain = table[table["distortion"].eq("none")]
    assert plain["difference"].eq(0).all() and plain["flips"].dropna().eq(0).all()


def test_threads_and_order_change_nothing(audited_run, one_thread):
    (one, _), _ = robustness.audited_classifiers(audited_run, "cpu")
    steps = [Step("noise", 16), Step("crop", 0.7)]
    rows = one.test.head(4)
    first, again = (robustness.score_steps(one, rows, steps, workers) for workers in (1, 3))
    assert first.equals(again) and len(first) == 12


def test_what_a_reader_sees(found):
    table, missing = found
    sentence = robustness.robustness_sentence(table, missing)
    assert "run 12 is not trained" in sentence
    assert re.match(
        r"The (distortion that costs|\d distortions that cost) run (8 \(Light\)|1 \(Xception\)) most",
        sentence,
    )
    assert robustness.flips_sentence(table).count("\n") == 1
    view = robustness.robustness_view(table)
    assert view.shape == (2 * len(LADDER), 8)
    figure = robustness.plot_robustness(table)
    assert len(figure.axes) == len(LADDER) and figure.axes[0].get_ylim()[0] <= 0.4
    robustness.plot_robustness(table, "flips")


# --- Bad input --------------------------------------------------------------------------------------------------------


def test_a_run_without_classifiers_says_so(tmp_path):
    table, missing = audit_robustness(tmp_path, RobustnessBudget(6, 1))
    sentence = robustness.robustness_sentence(table, missing)
    assert table.empty and "not measured" in sentence and "run.json" in sentence
    assert robustness.robustness_view(table).empty and robustness.flips_sentence(table) == ""


def test_another_svm_than_the_kept_one_is_named(audited_run, tmp_path):
    place = tmp_path / "smoke-noise"
    shutil.copytree(audited_run, place, symlinks=True)
    kept = place / "baselines" / "group" / "predictions.csv"
    table = pd.read_csv(kept, dtype=dict(group=str))
    write_text(kept, table.assign(probability=1 - table["probability"]).to_csv(index=False))
    _, missing = robustness.audited_classifiers(place, "cpu")
    assert "predictions.csv: P(fake) of the SVM fitted again differs" in missing[-1]
    (place / "baselines" / "group" / "run.json").unlink()
    assert "no finished run here" in robustness.audited_classifiers(place, "cpu")[1][-1]


def test_an_unknown_profile_takes_the_budget_of_mini():
    assert robustness.robustness_budget("photographs") == robustness.BUDGETS["mini"]
    assert json.dumps({name: budget.steps for name, budget in robustness.BUDGETS.items()})
