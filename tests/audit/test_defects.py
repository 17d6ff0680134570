"Every switch changes what it says, and nothing is on unless it is named."

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.svm import SVC
from torch import nn

from deepfake_nbs.audit import defects
from deepfake_nbs.audit.defects import DEFECTS

TESTED = {}  # Switch: its test


def covers(*names):
    def keep(test):
        TESTED.update(dict.fromkeys(names, test))
        return test

    return keep


def functions(name):
    return DEFECTS[name].honest, DEFECTS[name].faulty


def clips(n_actors=20):
    "Each actor has two clips of two frames, each with a fake."
    made = [
        dict(label=label, source="FF++", group=f"actor {actor}", video=f"clip {actor} {clip}")
        for actor in range(n_actors)
        for clip in range(2)
        for label in (0, 1)
        for _ in range(2)
    ]
    return pd.DataFrame(made)


def crossing(rows, split, key):
    return int(pd.Series(split).groupby(rows[key].to_numpy()).nunique().gt(1).sum())


@covers("actors_shared")
def test_actors_stand_in_several_splits_and_clips_in_one():
    rows = clips()
    honest, faulty = (split(rows, 3) for split in functions("actors_shared"))
    assert crossing(rows, honest, "group") == 0
    assert crossing(rows, faulty, "group") > 0 and crossing(rows, faulty, "video") == 0


@covers("frames_shuffled")
def test_shuffled_frames_divide_clips():
    rows = clips()
    honest, faulty = (split(rows, 3) for split in functions("frames_shuffled"))
    assert crossing(rows, honest, "video") == 0 and crossing(rows, faulty, "video") > 10
    assert abs((faulty == "train").mean() - defects.FRACTIONS[0]) < 0.02
    assert set(honest) == set(faulty) == {"train", "validation", "test"}


@covers("bgr_pixels")
def test_pixels_are_blue_first_and_up_to_255():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    honest, faulty = (scale(pixels) for scale in functions("bgr_pixels"))
    np.testing.assert_allclose(honest * 255, pixels, rtol=1e-6)
    np.testing.assert_array_equal(faulty, pixels[..., [2, 1, 0]])
    assert honest.dtype == faulty.dtype == np.float32


@covers("keypoints")
def test_splits_get_another_number_of_keypoints():
    honest, faulty = (limits(500, 200) for limits in functions("keypoints"))
    assert set(honest.values()) == {500}
    assert faulty == dict(train=500, validation=200, test=200)


@covers("unscaled")
def test_an_svm_on_raw_features_is_that_of_scikit_learn_without_a_scaler():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)) * [1, 10, 100], np.arange(60) % 2
    honest, faulty = (make(2.0).fit(x, y).decision_function(x) for make in functions("unscaled"))
    np.testing.assert_allclose(faulty, SVC(C=2.0).fit(x, y).decision_function(x))
    scaled = (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(honest, SVC(C=2.0).fit(scaled, y).decision_function(scaled), atol=1e-6)
    assert np.abs(honest - faulty).max() > 0.1


@covers("steep_decay")
def test_the_rate_falls_to_a_twentieth_each_five_epochs():
    honest, faulty = functions("steep_decay")
    np.testing.assert_allclose([faulty(1.0, epoch, 20) for epoch in (0, 4.9, 5, 10)], [1, 1, 0.05, 0.0025])
    optimiser = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    peer = torch.optim.lr_scheduler.StepLR(optimiser, step_size=5, gamma=0.05)
    for epoch in range(11):
        assert peer.get_last_lr()[0] == pytest.approx(faulty(1.0, epoch, 20))
        optimiser.step()
        peer.step()
    assert honest(1.0, 10, 20) > 0.3


@covers("norms_moving")
def test_a_norm_that_is_frozen_without_effect_moves():
    honest, faulty = functions("norms_moving")
    x = torch.tensor([[9.0], [11.0]])
    moved = {}
    for hold in (honest, faulty):
        net = hold(nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1)))
        out = net[0](x)
        moved[hold] = net[0].running_mean.item()
        assert not net[0].weight.requires_grad and net[1].weight.requires_grad and net[1].training
        assert (out.detach().mean().abs() < 1e-5) == (hold is faulty)  # Normalised by the batch
    assert moved[honest] == 0 and moved[faulty] == pytest.approx(1)


@covers("last_epoch", "epoch_on_test", "setting_on_test")
def test_choices_look_where_they_should_not():
    validation, test = np.array([0.5, 0.8, 0.7, 0.8]), np.array([0.9, 0.6, 0.7, 0.65])
    for name in ("last_epoch", "epoch_on_test", "setting_on_test"):
        assert DEFECTS[name].honest(validation, test) == 1  # The first of equals
    assert DEFECTS["last_epoch"].faulty(validation, test) == 3
    assert DEFECTS["epoch_on_test"].faulty(validation, test) == 0
    assert DEFECTS["setting_on_test"].faulty(validation, test) == 0


@covers("other_images")
def test_images_without_a_head_are_left_out():
    has_crop = np.array([True, False, True])
    honest, faulty = (choose(has_crop) for choose in functions("other_images"))
    assert honest.all() and len(honest) == 3
    np.testing.assert_array_equal(faulty, has_crop)


@covers("accuracy")
def test_weights_make_accuracy_or_balanced_accuracy():
    rng = np.random.default_rng(1)
    labels, margins = np.array([0, 1, 1, 1] * 20), rng.normal(size=80)
    honest, faulty = (defects.weighted_accuracy(labels, margins, weigh) for weigh in functions("accuracy"))
    assert honest == pytest.approx(balanced_accuracy_score(labels, margins > 0))
    assert faulty == pytest.approx(accuracy_score(labels, margins > 0))
    np.testing.assert_allclose(defects.weigh_classes(np.array([0, 1, 1, 1])), [2, 2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(defects.weigh_classes(np.ones(3)), 1)  # One class alone


@covers("labels_in_order")
def test_labels_keep_their_number_and_lose_their_image():
    labels = np.array([0, 1, 1] * 100)
    honest, faulty = (attach(labels, 5) for attach in functions("labels_in_order"))
    np.testing.assert_array_equal(honest, labels)
    assert faulty.sum() == labels.sum() and 0.4 < (faulty == labels).mean() < 0.7  # By chance 5 of 9


def test_the_order_of_the_directory_is_not_that_of_the_split():
    labels = np.array([0, 1, 1] * 100)
    rows = pd.DataFrame(dict(label=labels, source="a", group=[f"g{i}" for i in range(300)], video=""))
    for seed in range(3):  # Both permute 300 rows: with the same seed, all real labels would be in training
        attached, split = defects.labels_in_order(labels, seed), defects.shuffle_frames(rows, seed)
        assert abs(attached[split == "train"].mean() - attached[split == "test"].mean()) < 0.2


@covers("query_in_pool")
def test_a_query_in_its_pool_finds_itself():
    likeness = np.array([[1, 0.1, 0.8], [0.1, 1, 0.3], [0.8, 0.3, 1]])
    honest, faulty = (pool(likeness).argmax(1) for pool in functions("query_in_pool"))
    assert faulty.tolist() == [0, 1, 2] and honest.tolist() == [2, 2, 0]
    assert likeness[0, 0] == 1  # The caller's table is left as it was


def test_every_switch_has_a_test_that_it_changes_something():
    assert TESTED.keys() == DEFECTS.keys() and len(DEFECTS) >= 12
    assert all(defect.source and defect.honest is not defect.faulty for defect in DEFECTS.values())


def test_nothing_is_on_unless_it_is_named():
    for name, defect in DEFECTS.items():
        assert defects.link(frozenset(), name) is defect.honest
        assert defects.link(frozenset({name}), name) is defect.faulty
    both = frozenset({"last_epoch", "epoch_on_test"})
    assert defects.link(both, "last_epoch", "epoch_on_test") is defects.choose_on_test  # The later one wins


def test_bad_switches_are_named():
    with pytest.raises(ValueError, match="switch 'frames': unknown; "):
        defects.check_switches(["frames"])
    with pytest.raises(
        ValueError, match="switch 'keypoints': the system 'network' does not have it; expected "
    ):
        defects.check_switches(["keypoints"], "network")
    with pytest.raises(ValueError, match="system 'forest': unknown; expected words, network or retrieval"):
        defects.system_switches("forest")
