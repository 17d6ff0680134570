"Labels in directory order."

import numpy as np
import pandas as pd

from deepfake_nbs.baselines import label_order


def test_labels_in_directory_order_keep_their_fractions_and_lose_their_images():
    right = np.random.default_rng(0).permutation(np.repeat([0, 1], [300, 600]))
    attached = label_order.attach_in_order(right, 1)
    assert (np.sort(attached) == np.sort(right)).all()
    assert abs((attached == right).mean() - (1 / 9 + 4 / 9)) < 0.06  # what chance gives
    np.testing.assert_array_equal(label_order.attach_in_order(right, 1), attached)


def test_classifiers_that_learn_labels_in_directory_order_name_the_larger_class():
    rng = np.random.default_rng(0)
    labels = {split: rng.permutation(np.repeat([0, 1, 1], 60)) for split in ("train", "validation", "test")}
    histograms = {split: rng.normal(size=(180, 8)) + 2 * y[:, None] for split, y in labels.items()}
    found = label_order.compare_label_orders(histograms, labels, n_resamples=50)
    wrong, true = (found[found["labels"].eq(name)] for name in ("directory order", "true"))
    assert (true["accuracy"] > 0.95).all()
    assert (wrong["predicted_majority"] > 0.85).all() and (wrong["accuracy"] - wrong["majority"]).abs().max() < 0.1
    for name in ("accuracy", "accuracy_by_true_labels"):
        assert found[name].between(found[f"{name}_low"], found[f"{name}_high"]).all()


def test_intervals_of_accuracy_are_over_the_groups_that_are_given():
    labels = dict.fromkeys(("train", "validation", "test"), np.tile([0, 1, 1], 10))
    rng = np.random.default_rng(0)
    histograms = {split: rng.normal(size=(30, 4)) for split in labels}
    one_group = label_order.compare_label_orders(histograms, labels, groups=np.zeros(30, int), n_resamples=20)
    assert one_group[["accuracy_low", "accuracy_high"]].isna().all(axis=None) and (one_group["accuracy_why"] == "1 group").all()
    alone = label_order.compare_label_orders(histograms, labels, n_resamples=20)
    assert (alone["accuracy_low"] < alone["accuracy_high"]).all()
    assert (alone["accuracy"] == one_group["accuracy"]).all()


def test_an_imbalanced_sample_keeps_classes_of_a_group_together():
    every = [(group, label, i) for group in range(40) for label in (0, 1) for i in range(3)]
    rows = pd.DataFrame([dict(path=f"{group}-{label}-{i}", label=label, group=group) for group, label, i in every])
    sample = label_order.draw_imbalanced(rows, 2, seed=1)
    counts = sample["label"].value_counts()
    assert counts[1] == 120 and counts[0] == 60
    assert set(sample.groupby(["group", "label"]).size()) == {3}
    few = label_order.draw_imbalanced(rows[rows["label"].eq(0) | rows["group"].lt(5)], 3, seed=1)["label"].value_counts()  # 120 and 15
    assert few[1] == 15 and few[0] <= 6
    more = label_order.draw_imbalanced(rows[rows["label"].eq(1) | rows["group"].lt(5)], 2, seed=1)["label"].value_counts()  # 15 and 120
    assert more[0] == 15 and more[1] == 30
