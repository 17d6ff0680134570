"Tables, claims and sentences of the baselines."

import numpy as np
import pandas as pd
import pytest

from deepfake_nbs import claims
from deepfake_nbs.baselines import controls, report, study


def test_claims_have_both_accuracies_with_interval_and_what_was_not_published(easy, tmp_path, small):
    from deepfake_nbs.claims import save_claims

    folder, manifest = easy
    record = study.run_baselines(manifest, folder, tmp_path / "run", small, tmp_path / "sift", data="easy")
    metrics = controls.score_classifiers(
        study.read_baselines(tmp_path / "run")["predictions"].query("split == 'test'"), 20
    )
    rows = {
        row["id"]: row for row in report.baseline_claims(metrics.assign(protocol="group"), {"group": record})
    }
    assert {
        "baselines-svm-accuracy",
        "baselines-forest-accuracy",
        "baselines-codebook-words",
        "baselines-forest-trees",
    } <= set(rows)
    numbers = rows["baselines-svm-accuracy"]
    assert numbers["n"] == 12 and numbers["measured"] is not None and numbers["low"] is None, (
        "few groups give no interval"
    )
    wide = report.baseline_claims(metrics.assign(protocol="group", low=0.25, high=0.75), {"group": record})
    assert next(row for row in wide if row["id"] == "baselines-svm-accuracy")["low"] == 0.25
    assert rows["baselines-group-constant-balanced_accuracy"]["measured"] == 0.5
    text = save_claims(list(rows.values()), tmp_path).read_text()
    assert "baselines-svm-accuracy,.6756," in text and "baselines-group-file_only-auc,," in text


# Sentences: each clause with numbers that call for it


@pytest.fixture(scope="module")
def published():
    return claims.published_values()


def scores(
    low, high, value=None, classifier=study.SIFT_CLASSIFIERS[0], protocol="group", why="", n=40, groups=20
):
    "Balanced accuracy and AUC of one classifier; `low`, `high` and `value` of each."
    values = [(a + b) / 2 for a, b in zip(low, high, strict=True)] if value is None else value
    return pd.DataFrame(
        dict(
            classifier=classifier,
            metric=["balanced_accuracy", "auc"],
            value=values,
            low=low,
            high=high,
            n=n,
            groups=groups,
            why=why,
            protocol=protocol,
        )
    )


CONSTANT = scores([np.nan] * 2, [np.nan] * 2, [0.5, 0.5], "constant")


@pytest.mark.parametrize(
    "low, high, clause",
    [
        (
            [0.6, 0.6],
            [0.8, 0.8],
            "Both intervals lie above the constant baseline: the SVM has learned something.",
        ),
        ([0.4, 0.6], [0.8, 0.8], "Only the interval of its AUC lies above the constant baseline"),
        (
            [0.6, 0.4],
            [0.8, 0.8],
            "Only the interval of its balanced accuracy lies above the constant baseline",
        ),
        ([0.4, 0.4], [0.8, 0.8], "No interval lies above the constant baseline"),
        ([0.4, np.nan], [0.8, np.nan], "No interval lies above the constant baseline"),
    ],
)
def test_chance_sentence_follows_the_intervals(low, high, clause):
    text = report.chance_sentence(pd.concat([scores(low, high, [0.7, 0.7]), CONSTANT]), "group")
    assert clause in text and text.startswith("On the group split the tuned SVM reaches 0.700")
    assert "n=40 images in 20 groups" in text and "the constant baseline 0.500" in text


def test_chance_sentence_without_intervals_or_without_a_class():
    none = scores([np.nan] * 2, [np.nan] * 2, [0.7, 0.7], why="4 groups")
    assert "Without an interval this does not show" in report.chance_sentence(
        pd.concat([none, CONSTANT]), "group"
    )
    assert "0.700 (no interval: 4 groups)" in report.chance_sentence(pd.concat([none, CONSTANT]), "group")
    undefined = scores([np.nan] * 2, [np.nan] * 2, [np.nan, np.nan])
    assert "need images of both classes" in report.chance_sentence(pd.concat([undefined, CONSTANT]), "group")


def test_shortcut_sentence_names_what_lies_above_and_below_chance():
    rows = [
        scores([0.4, 0.6], [0.6, 0.8], classifier="file properties"),
        scores([0.1, 0.4], [0.3, 0.6], classifier="border only"),
        scores([0.4, 0.4], [0.6, 0.6], classifier="colour histogram", protocol="published"),
    ]
    text = report.shortcut_sentence(pd.concat(rows))
    assert (
        "On the group split the interval lies above chance for *file properties* in AUC (0.700 [0.600, 0.800], n=40)"
        in text
    )
    assert "wholly below chance for *border only* in balanced accuracy (0.200 [0.100, 0.300], n=40)." in text
    assert (
        "On the published split no interval of *file properties*, *border only*, *colour histogram* lies above chance"
        in text
    )
    assert text.endswith("The intervals are not corrected for multiple comparisons.")


def differences(low, high):
    rows = [
        dict(
            classifier=name,
            metric=metric,
            first=0.7,
            second=second,
            difference=0.7 - second,
            low=low[i],
            high=high[i],
            p=0.1,
            n=40,
            why="",
        )
        for name, second in (("file properties", 0.5), ("border only", 0.6))
        for i, metric in enumerate(("balanced_accuracy", "auc"))
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    "low, high, clause",
    [
        ([0.01, 0.01], [0.2, 0.2], "Every interval lies above zero: there the SVM is better"),
        ([-0.1, 0.01], [0.2, 0.2], "Only that of the AUC lies above zero: there the SVM is better"),
        ([-0.1, -0.1], [0.2, 0.2], "No interval lies above zero: it is not shown to be better"),
        ([np.nan, np.nan], [np.nan, np.nan], "There is no interval: it is not shown to be better"),
    ],
)
def test_paired_sentence_takes_the_best_baseline_and_follows_the_intervals(low, high, clause):
    text = report.paired_sentence(differences(low, high))
    assert clause in text and "*border only*" in text and "*file properties*" not in text and "+0.100" in text


def test_paired_sentence_of_one_class():
    frame = differences([0, 0], [0, 0]).assign(difference=np.nan)
    assert (
        report.paired_sentence(frame) == "The test split has one class only: neither metric can be compared."
    )


@pytest.mark.parametrize("value, where", [(0.7, "above"), (0.3, "below"), (0.5, "inside"), (np.nan, None)])
def test_permutation_sentence_says_where_the_tuned_svm_lies(value, where):
    metrics = scores([np.nan] * 2, [np.nan] * 2, [value, value])
    text = report.permutation_sentence(pd.DataFrame(dict(group=[0.4, 0.45, 0.6])), metrics)
    assert "over 3 permutations: group split 0.450 in the median, from 0.400 to 0.600 (n=40)" in text
    assert (f"lies {where}" in text) if where else ("lies" not in text)


def test_sibling_sentence_with_misleading_siblings_and_without_any():
    row = pd.Series(dict(value=0.2, low=0.1, high=0.3, n=30, why=""))
    text = report.sibling_sentence(pd.DataFrame({report.OTHER_LABEL: row, report.SAME_LABEL: row}).T, 70)
    assert "60 of 70 test images have siblings" in text and "Knowing the border misleads there" in text
    assert (
        "correct for 20.0% [10.0, 30.0] where most siblings carry the other label (n=30), and for 20.0%"
        in text
    )
    same = report.sibling_sentence(pd.DataFrame({report.SAME_LABEL: row}).T, 70)
    assert "Knowing" not in same and report.OTHER_LABEL not in same
    none = report.sibling_sentence(pd.DataFrame(), 70)
    assert none == "On the published split 0 of 70 test images have siblings of their group in training."


def test_scores_by_siblings_count_only_images_with_siblings():
    manifest = pd.DataFrame(
        dict(group=[1, 1, 2, 3], label=[0, 0, 1, 0], split=["train", "train", "train", "test"])
    )
    predictions = pd.DataFrame(dict(label=[1, 1, 0], probability=[0.2, 0.9, 0.1], group=[1, 2, 3]))
    found = report.score_by_siblings(manifest, predictions, 1)
    assert found["n"].to_dict() == {report.OTHER_LABEL: 1, report.SAME_LABEL: 1}
    assert found["value"].to_dict() == {report.OTHER_LABEL: 0.0, report.SAME_LABEL: 1.0}


@pytest.mark.parametrize(
    "ends, clause",
    [
        ([(-0.1, 0.1)] * 4, "Every interval includes zero"),
        ([(0.0, 0.1)] * 4, "Every interval includes zero"),
        ([(0.01, 0.1)] * 4, "inflates every score: 4 of 4 intervals above zero, 0 below"),
        (
            [(0.01, 0.1), (-0.1, 0.1), (-0.2, -0.1), (-0.2, -0.1)],
            "No consistent inflation**: 1 of 4 intervals above zero, 2 below",
        ),
        ([(0.01, 0.1)] * 3 + [(-0.1, 0.1)], "No consistent inflation**: 3 of 4 intervals above"),
        ([(np.nan, np.nan)] * 4, "Without an interval"),
    ],
)
def test_leakage_sentence_follows_the_intervals_of_both_classifiers_and_metrics(monkeypatch, ends, clause):
    gaps = [dict(difference=0.05, low=low, high=high, why="") for low, high in ends]
    found = iter(gaps)
    monkeypatch.setattr(report, "subtract_metrics", lambda *_: next(found))
    manifest = pd.DataFrame(dict(group=[1, 1, 2, 3], split=["train", "test", "test", "train"]))
    parts = {"group": [1, 2], "published": [2, 3, 3]}
    parts = {
        protocol: pd.concat(
            [pd.DataFrame(dict(group=groups, classifier=one)) for one in study.SIFT_CLASSIFIERS]
        )
        for protocol, groups in parts.items()
    }
    text = report.leakage_sentence(manifest, parts)
    assert "50.0% of the test images have a sibling" in text and clause in text
    assert "(n=2 group, 3 published)" in text and "the 3 groups of both test sets" in text
    assert text.count("+0.050") == 4 and "the random forest scores +0.050" in text
    nothing = gaps[0] | dict(difference=np.nan)
    monkeypatch.setattr(report, "subtract_metrics", lambda *_: nothing)
    assert report.leakage_sentence(manifest, parts).endswith("in another split.")


def test_label_order_sentence_measures_the_distance_to_the_larger_class(published):
    text = report.label_order_sentence(0.6750, 0.6754, published)
    assert "a fraction of 0.6750 to 0.6754" in text
    assert (
        ".6756 for the SVM (0.0002 away from it)" in text
        and ".6753 for the forest, later version (inside)" in text
    )
    assert ".5843 for the forest (0.0907 away from it)" in text


def order_results(true=0.7, wrong=0.95):
    common = {
        f"{name}_{part}": value
        for name in ("accuracy", "accuracy_by_true_labels")
        for part, value in dict(low=0.6, high=0.8, why="").items()
    }
    return pd.DataFrame(
        [
            dict(
                classifier=name,
                labels=labels,
                accuracy=0.7,
                accuracy_by_true_labels=0.65,
                majority=0.67,
                predicted_majority=predicted,
                n=60,
                **common,
            )
            for labels, predicted in (("true", true), ("directory order", wrong))
            for name in ("SVM", "forest")
        ]
    )


def test_label_order_outcome_follows_what_was_predicted():
    text = report.label_order_outcome(order_results())
    assert (
        "the SVM predicts the larger class for 95.0% of the test images (n=60) and has an accuracy of 0.700 [0.600, 0.800]"
        in text
    )
    assert "A classifier trained so predicts the larger class." in text and "With true labels" not in text
    weak = report.label_order_outcome(order_results(wrong=0.8))
    assert "The effect is weaker than it could be" in weak and "trained so" not in weak
    assert "With true labels a classifier does nearly the same here" in report.label_order_outcome(
        order_results(true=0.95)
    )
    table = report.label_order_table(order_results())
    assert table.shape == (4, 7) and table["accuracy, true labels"].iloc[0] == "0.650 [0.600, 0.800]"


def test_sample_sentence_counts_each_split():
    sample = pd.DataFrame(dict(label=[1, 0, 1, 1], split=["train", "train", "test", "validation"]))
    text = report.sample_sentence(sample)
    assert text.endswith(
        "75.0% of the sample (n=4); 50.0% in train (n=2), 100.0% in validation (n=1), 100.0% in test (n=1)."
    )


def test_study_and_settings_sentences(published):
    record = dict(
        counts=dict(train=10, validation=2, test=3), svm=dict(kernel="rbf", C=0.1), forest=dict(trees=50.0)
    )
    text = report.study_sentence({"group": record}, 7, 15)
    assert (
        text.startswith("**group** split: 10 images for training, 2 for validation, 3 for test.")
        and "for 7 of 15 images" in text
    )
    assert "no cropped dataset" in report.study_sentence({"group": record}, 0, 15)
    search = {"group": {"svm_search": pd.DataFrame(dict(ended=[True, True]))}}
    text = report.settings_sentence({"group": record}, search, published)
    assert "kernel rbf with C = 0.1, forest of 50 trees" in text and text.endswith(
        "Every optimisation converged."
    )
    assert "The report's forest has 500 trees" in text
    search["group"]["svm_search"]["ended"] = [True, False]
    assert report.settings_sentence({"group": record}, search, published).endswith(
        "before convergence: 1 (group)."
    )


def every_metric(published_forest=0.6):
    "Accuracy, balanced accuracy and AUC of all classifiers."
    rows = []
    for i, name in enumerate(report.CLAIM_SLUGS):
        both = scores([0.4, 0.4 + i / 100], [0.6, 0.6 + i / 100], classifier=name)
        rows += [both, both[:1].assign(metric="accuracy", value=published_forest)]
    return pd.concat(rows, ignore_index=True)


def test_the_findings_and_the_table_of_accuracies_have_the_published_values(published):
    metrics = every_metric()
    text = report.findings_sentence(metrics, published)
    assert (
        "accuracy of 0.600 [0.400, 0.600] (published .6756)" in text
        and "(published .5843), n=40 test images" in text
    )
    assert (
        "of the baselines that cannot know the shape of a face, *colour histogram* has the highest, 0.560"
        in text
    )
    undefined = metrics.assign(value=metrics["value"].where(metrics["metric"].ne("auc")))
    assert "shape of a face" not in report.findings_sentence(undefined, published)
    table = report.accuracy_table(metrics, published)
    assert table["published"].tolist() == [".6756", ".5843; in a later version .6753"]
    assert table["group split"].tolist() == ["0.600 [0.400, 0.600] (n=40)"] * 2
    verdicts = "verdict, group split"
    assert table[verdicts].tolist() == ["not comparable", "compatible"] and table.columns[-1] == verdicts
    other = report.accuracy_table(metrics, published, trees=1000)
    assert other[verdicts].tolist() == ["not comparable"] * 2


def test_a_classifier_that_gives_one_answer_is_named_first(published):
    svm, forest = study.SIFT_CLASSIFIERS
    predictions = pd.DataFrame(
        dict(classifier=[svm, svm, forest, forest], probability=[0.5001, 0.5002, 0.4, 0.6])
    )
    text = report.findings_sentence(every_metric(), published, predictions)
    assert text.startswith("On the group split the SVM predicts *fake* for all 40 test images: it has an")
    assert text.count("for all") == 1
    why = report.one_class_sentence(predictions, 0.606, 0.591)
    assert "0.606 in balanced accuracy on validation, and 0.591 on test" in why
    assert "between 0.5001 and 0.5002 for every test image, at or above 0.5" in why
    assert report.one_class_sentence(predictions.assign(probability=[0.4, 0.6] * 2), 0.6, 0.6) == ""


@pytest.mark.parametrize(
    "low, decision, clause",
    [
        ([0.6, 0.6], 0.61, "Both intervals lie above the constant baseline: the SVM has learned something."),
        ([0.6, 0.6], 0.56, "its own decision is not distinguishable from shuffled labels"),
        ([0.6, 0.6], 0.57, "its own decision is not distinguishable from shuffled labels"),
        ([0.4, 0.6], 0.56, "Only the interval of its AUC lies above the constant baseline, but its own"),
        ([0.4, 0.6], 0.61, "the evidence that the SVM has learned something is weak"),
        ([0.4, 0.4], 0.61, "No interval lies above the constant baseline"),
    ],
)
def test_chance_sentence_takes_the_verdict_from_intervals_and_permutations(low, decision, clause):
    rows = pd.concat([scores(low, [0.8, 0.8], [0.7, 0.7]), CONSTANT])
    text = report.chance_sentence(rows, "group", pd.Series([0.46, 0.57]), decision)
    assert clause in text and "0.460 to 0.570 on 2 permutations of the labels" in text


def test_permutations_are_compared_with_the_decision_that_they_score():
    metrics = scores([np.nan] * 2, [np.nan] * 2, [0.5, 0.5])
    text = report.permutation_sentence(pd.DataFrame(dict(group=[0.4, 0.55])), metrics, {"group": 0.59})
    assert "trained on true labels, 0.590, lies above" in text


def test_decision_score_is_that_of_predict():
    from sklearn.dummy import DummyClassifier

    x, y = np.zeros((4, 1)), np.array([0, 0, 0, 1])
    assert report.decision_score(DummyClassifier(), (x, y), (x, y)) == 0.5


def test_cells_without_an_interval_have_a_dash_and_one_note():
    rows = pd.DataFrame(
        dict(
            metric=["auc", "auc", "brier", "brier", "eer"],
            value=[0.6, 0.5, 0.25, 0.2, np.nan],
            low=[0.5, np.nan, np.nan, np.nan, np.nan],
            high=[0.7, np.nan, np.nan, np.nan, np.nan],
            why=["", "no group differs", "67 groups count as 25", "67 groups count as 25", ""],
        )
    )
    cells, note = claims.interval_cells(rows)
    assert cells == ["0.600 [0.500, 0.700]", "0.500 –", "0.250 –", "0.200 –", "undefined"]
    assert "leaving out any group gives the same value (AUC)" in note
    assert note.count("67 groups of unequal size are worth 25 of equal size") == 1
    assert "an interval needs 40 (Brier score)" in note
    assert claims.interval_cells(rows[:1])[1] == ""


def test_words_sentence_counts_what_lies_above_every_permutation():
    shown = np.array([-0.2, 0.0, 0.1])
    assert "Above all of these: 1 of the 2; the others may be chance" in report.words_sentence(
        shown, np.array([0.1, 0.15]), 2
    )
    assert "all may be chance" in report.words_sentence(shown, np.array([0.3]), 2)
    labels = np.array([0, 0, 1, 1] * 5)
    assert report.permuted_differences(labels[:, None].astype(float), labels, 3).shape == (3,)


def test_ids_of_claims_do_not_change_with_names():
    assert list(report.CLAIM_SLUGS.values()) == [
        "svm",
        "forest",
        "constant",
        "labels_shuffled",
        "file_only",
        "border_only",
        "colour_histogram",
    ]
    assert set(report.CLAIM_SLUGS) == {*study.SIFT_CLASSIFIERS, *controls.control_estimators()}


def test_paired_differences_are_those_of_the_metrics(easy, tmp_path, small):
    folder, manifest = easy
    study.run_baselines(manifest, folder, tmp_path, small)
    predictions = study.read_baselines(tmp_path)["predictions"].query("split == 'test'")
    found = report.compare_with_controls(predictions, 20)
    value = controls.score_classifiers(predictions, 1).set_index(["classifier", "metric"])["value"]
    for row in found.itertuples():
        assert (
            row.first == value[study.SIFT_CLASSIFIERS[0], row.metric]
            and row.second == value[row.classifier, row.metric]
        )
        assert row.difference == pytest.approx(row.first - row.second)
    assert len(found) == 6 and report.paired_table(found).shape == (6, 7)
