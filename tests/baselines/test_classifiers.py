"Searches on validation, calibration, bad input."

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline

from deepfake_nbs.baselines import classifiers, visual_words


def test_a_grid_search_over_the_whole_pipeline_computes_each_image_once(easy, tmp_path, counted):
    folder, manifest = easy
    rows = manifest[manifest["split"].ne("test")]
    paths, fold = visual_words.image_paths(rows, folder), np.where(rows["split"].eq("validation"), 0, -1)
    pipeline = make_pipeline(visual_words.SiftBagOfWords(8, cache=str(tmp_path / "sift")), classifiers.make_svm())
    grid = {"siftbagofwords__n_words": [4, 8], "siftbagofwords__norm": ["l1", "power"], "pipeline__svc__C": [0.1, 10.0]}
    search = GridSearchCV(pipeline, grid, cv=PredefinedSplit(fold)).fit(paths, rows["label"])
    assert len(search.cv_results_["params"]) == 8 and search.best_score_ > 0.9
    assert len(counted) == len(paths)


def test_the_svm_search_is_what_fitting_each_setting_gives(blobs):
    train, valid = blobs
    found = classifiers.search_svm(train, valid, ("linear", "poly"), (0.1, 1.0), n_jobs=2)
    assert found[["kernel", "C"]].to_records(index=False).tolist() == [("linear", 0.1), ("linear", 1.0), ("poly", 0.1), ("poly", 1.0)]
    for row in found.itertuples():
        assert row.accuracy == classifiers.make_svm(row.C, row.kernel).fit(*train).score(*valid)
    assert found["ended"].all()


def test_a_search_that_was_stopped_says_so(blobs, monkeypatch):
    monkeypatch.setattr(classifiers, "SVM_STEPS", 3)
    assert not classifiers.search_svm(*blobs, ("rbf",), (1.0,))["ended"].any()


def test_the_growing_forest_equals_a_forest_of_each_size(blobs):
    train, valid = blobs
    found = classifiers.search_forest(train, valid, (5, 12, 40), seed=3)
    for row in found.itertuples():
        assert row.accuracy == classifiers.make_forest(int(row.trees), seed=3).fit(*train).score(*valid)


def test_of_equal_settings_the_first_is_chosen():
    search = pd.DataFrame(dict(C=[1, 2, 3], accuracy=[0.5, 0.9, 0.2], balanced_accuracy=[0.6, 0.7, 0.7]))
    assert classifiers.best_setting(search)["C"] == 2 and classifiers.best_setting(search, "accuracy")["C"] == 2


@pytest.mark.parametrize("search", [classifiers.search_svm, classifiers.search_forest])
def test_one_class_or_nan_in_training_is_an_error(blobs, search):
    (x, y), valid = blobs
    with pytest.raises(ValueError, match="every image has label 1"):
        search((x, np.ones_like(y)), valid)
    with pytest.raises(ValueError, match="nan at place 4"):
        search((x, np.where(np.arange(len(y)) == 4, np.nan, y)), valid)
    if search is classifiers.search_svm:  # A forest takes NaN as a value that is missing
        with pytest.raises(ValueError, match="contains NaN"):
            search((np.where(x > 4, np.nan, x), y), valid)


def test_folds_cut_no_group_and_calibration_keeps_the_order_of_the_svm(blobs):
    x, y = blobs[0]
    groups = np.repeat(np.arange(30), 4)
    for kept, held in classifiers.group_folds(y, groups):
        assert not set(groups[kept]) & set(groups[held])
    model = classifiers.calibrated(classifiers.make_svm(), y, groups).fit(x, y)
    probability, distance = model.predict_proba(x)[:, 1], classifiers.make_svm().fit(x, y).decision_function(x)
    assert (np.diff(probability[np.argsort(distance)]) >= -1e-12).all()
    assert ((probability >= 0) & (probability <= 1)).all()


def test_calibration_counts_both_classes_the_same():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [300, 900])
    x = rng.normal(size=(1200, 1)) + 0.5 * y[:, None]
    ours = classifiers.calibrated(classifiers.make_svm(1.0, "linear"), y, np.arange(1200)).fit(x, y)
    assert abs(ours.predict_proba([[0.25]])[0, 1] - 0.5) < 0.08  # half way between the classes; the class fractions would give 0.75


def test_too_few_groups_for_calibration_is_an_error():
    with pytest.raises(ValueError, match="2 groups are too few"):
        classifiers.group_folds(np.array([0, 0, 1, 1]), np.array(["a", "a", "b", "b"]))
