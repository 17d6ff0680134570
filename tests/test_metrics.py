"Metrics against scikit-learn, and intervals that hold what they promise."

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from deepfake_nbs.metrics import classification_metrics, subtract_metrics


def random_predictions(seed=0, n=300):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    probability = (0.35 + 0.3 * label + rng.normal(0, 0.2, n)).clip(0, 1)
    return pd.DataFrame({"label": label, "probability": probability, "group": rng.integers(0, 60, n)})


def test_metrics_agree_with_sklearn():
    frame = random_predictions()
    said, value = (frame.probability >= 0.5).astype(int), classification_metrics(frame, 50)["value"]
    expected = {
        "accuracy": sk.accuracy_score(frame.label, said),
        "balanced_accuracy": sk.balanced_accuracy_score(frame.label, said),
        "precision_real": sk.precision_score(frame.label, said, pos_label=0),
        "precision_fake": sk.precision_score(frame.label, said),
        "recall_real": sk.recall_score(frame.label, said, pos_label=0),
        "recall_fake": sk.recall_score(frame.label, said),
        "auc": sk.roc_auc_score(frame.label, frame.probability),
        "brier": sk.brier_score_loss(frame.label, frame.probability),
    }
    for name, number in expected.items():
        assert value[name] == pytest.approx(number), name


def test_equal_error_rate_by_hand():
    # Cutting at .6: one of four real ones is called fake, one of four fakes is called real
    frame = pd.DataFrame({"label": [0, 0, 0, 0, 1, 1, 1, 1], "probability": [0.1, 0.2, 0.3, 0.7, 0.4, 0.6, 0.8, 0.9], "group": range(8)})
    assert classification_metrics(frame, 10).value.eer == pytest.approx(0.25)


def test_interval_holds_the_value_and_repeats_with_its_seed():
    frame = random_predictions(1)
    first, again, other = (classification_metrics(frame, 200, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert (first.low <= first.value).all() and (first.value <= first.high).all()
    assert not first.low.equals(other.low)
    assert (first.n == 300).all() and (first.groups == frame.group.nunique()).all()


def test_interval_covers_the_truth_as_often_as_it_says():
    rng, hits, trials = np.random.default_rng(5), 0, 100
    for trial in range(trials):
        right = rng.random(40) < 0.7  # A group is right or wrong as a whole
        frame = pd.DataFrame({"label": np.tile([0, 1], 40), "group": np.repeat(np.arange(40), 2)})
        frame["probability"] = np.where(np.repeat(right, 2), frame.label, 1 - frame.label).astype(float)
        row = classification_metrics(frame, 100, seed=trial).loc["accuracy"]
        hits += row.low <= 0.7 <= row.high
    assert 0.86 <= hits / trials <= 0.99


def test_one_class_gives_nan_not_a_number():
    frame = pd.DataFrame({"label": [1, 1], "probability": [0.9, 0.2], "group": [0, 1]})
    row = classification_metrics(frame, 20)
    assert row.value[["accuracy", "recall_fake"]].tolist() == [0.5, 0.5]
    assert row.value[["auc", "eer", "recall_real", "balanced_accuracy"]].isna().all() and row.low[["auc", "eer"]].isna().all()


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda frame: frame.drop(columns="group"), "group"),
        (lambda frame: frame.iloc[:0], "no rows"),
        (lambda frame: frame.assign(probability=np.nan), "without NaN"),
        (lambda frame: frame.assign(label=2), "0 or 1"),
        (lambda frame: frame.assign(probability=1.5), "between 0 and 1"),
    ],
)
def test_bad_predictions_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        classification_metrics(change(random_predictions()), 10)


def draw_answers(groups, seed, hit=0.8):
    "Answers of a network that is right about a share of the groups; each group has three pictures, all right or all wrong."
    rng = np.random.default_rng(seed)
    right = np.repeat(rng.random(len(groups)) < hit, 3)
    labels = np.repeat(rng.integers(0, 2, len(groups)), 3)
    return pd.DataFrame(dict(label=labels, probability=np.where(right, labels, 1 - labels), group=np.repeat(groups, 3)))


def test_the_interval_of_a_difference_is_that_of_two_independent_ones_where_no_group_is_shared():
    first, second = (draw_answers([f"{name}{i}" for i in range(150)], seed) for seed, name in enumerate("ab"))
    found = subtract_metrics(first, second, "accuracy", 2000)
    share = [(frame.probability == frame.label).mean() for frame in (first, second)]
    spread = 1.96 * np.sqrt(sum(p * (1 - p) / 150 for p in share))
    assert found["difference"] == pytest.approx(share[0] - share[1])
    assert [found["low"], found["high"]] == pytest.approx([found["difference"] - spread, found["difference"] + spread], abs=0.02)


def test_a_group_in_both_test_sets_is_drawn_for_both():
    groups = [f"g{i}" for i in range(100)]
    first = draw_answers(groups, 0)
    assert subtract_metrics(first, first.iloc[::-1], "accuracy", 100) == dict(difference=0.0, low=0.0, high=0.0)
    other = first.assign(group="h" + first["group"])
    apart = subtract_metrics(first, other, "accuracy", 100)
    assert apart["low"] < -0.05 < 0.05 < apart["high"], "the same answers about other people may differ by chance"


