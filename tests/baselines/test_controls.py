"Sanity-check baselines: planted shortcuts, shuffled labels, bad input."

import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import ImageDraw
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from deepfake_nbs.baselines import classifiers, controls, visual_words
from deepfake_nbs.images import ImageError
from deepfake_nbs.metrics import METRICS

FROM_FILES = [controls.FileProperties(), controls.BorderThumbnail(), controls.ColourHistogram()]


@pytest.mark.parametrize("estimator", [*FROM_FILES, visual_words.SiftBagOfWords(4)], ids=repr)
def test_a_file_that_cannot_be_read_is_named(estimator, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    for name in ("text.png", "gone.png"):
        with pytest.raises(ImageError, match=name):
            estimator.fit([str(tmp_path / name)]).transform([str(tmp_path / name)])
    with pytest.raises(ImageError, match=r"gone\.png"):
        visual_words.sift_features(tmp_path / "gone.png", cache=tmp_path / "sift")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [visual_words.SiftBagOfWords(), *FROM_FILES], ids=repr)
def test_transformers_of_paths_pass_what_scikit_learn_checks_without_a_table_of_numbers(estimator):
    done = check_estimator(estimator, on_fail="raise")
    assert done and all(check["status"] == "passed" for check in done)
    tags = estimator.__sklearn_tags__().input_tags
    assert tags.string and not tags.two_d_array


@parametrize_with_checks([controls.ShuffledLabels(LogisticRegression())])
def test_shuffled_labels_pass_every_check_of_a_classifier(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def auc_of(dataset, **options):
    folder, manifest = dataset
    return controls.evaluate_controls(manifest, folder, n_resamples=100, **options).set_index(["metric", "classifier"]).loc["auc"]


def saved(draw, **options):
    "Draw an image, and save it otherwise."
    def save(path, seed):
        image = draw(path, seed, size=options.get("size", (96, 96)), colour=options.get("colour", (255, 255, 255)))
        if options.get("border"):
            ImageDraw.Draw(image).rectangle((0, 0, 95, 95), outline=(200, 30, 30), width=6)
            image.save(path)
        if options.get("quality"):
            image.save(path, format="JPEG", quality=options["quality"])
    return save


@pytest.mark.parametrize("name, fake, real", [
    ("file properties", dict(size=(96, 104)), {}),
    ("file properties", dict(quality=70), dict(quality=90)),
    ("border only", dict(border=True), {}),
    ("colour histogram", dict(colour=(255, 240, 200)), {}),
], ids=["size", "quality", "border", "colour"])
def test_a_planted_shortcut_is_found_by_the_baseline_that_can_see_it(tmp_path, name, fake, real, draw, make_set):
    found = auc_of((tmp_path, make_set(tmp_path, saved(draw, **fake), real=saved(draw, **real))))
    assert found.loc[name, "value"] > 0.95
    assert found.loc["constant", "value"] == 0.5


def test_on_neutral_data_no_baseline_finds_anything(neutral):
    found = auc_of(neutral)
    learned = found.drop("constant")
    assert (learned["low"] <= 0.5).all() and (learned["high"] >= 0.5).all(), found
    assert found.loc["constant", "value"] == 0.5 and found.loc["constant", "why"] == "no group differs"
    assert found["n"].eq(40).all()


def test_the_border_baseline_cannot_see_the_middle_and_shuffled_labels_teach_nothing(tmp_path, draw, make_set):
    def fake(path, seed):
        image = draw(path, seed)
        ImageDraw.Draw(image).rectangle((30, 30, 66, 66), fill=(250, 20, 20))
        image.save(path)

    found = auc_of((tmp_path, make_set(tmp_path, fake, 240)))
    assert found.loc["colour histogram", "value"] == 1.0
    for name in ("border only", "shuffled labels"):
        assert found.loc[name, "low"] <= 0.5 <= found.loc[name, "high"], name


def test_many_permutations_score_around_one_half(blobs):
    scores = controls.permutation_scores(classifiers.make_svm(), *blobs, n_permutations=30, n_jobs=2)
    assert len(scores) == 30 and scores.std() > 0
    assert abs(np.median(scores) - 0.5) < 0.15
    np.testing.assert_array_equal(scores[:3], controls.permutation_scores(classifiers.make_svm(), *blobs, n_permutations=3))


def test_permuted_labels_are_independent_of_the_true_ones():
    true = np.random.default_rng(0).permutation(np.repeat([0, 1], [100, 300]))
    permuted = controls.permute_labels(true, 3)
    assert (np.sort(permuted) == np.sort(true)).all() and not np.array_equal(permuted, true)
    assert abs(permuted[true == 0].mean() - 0.75) <= 0.01 and abs(permuted[true == 1].mean() - 0.75) <= 0.01
    assert not np.array_equal(permuted, controls.permute_labels(true, 4))


def test_the_mask_leaves_no_pixel_of_the_face():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    other = pixels.copy()
    other[10:20, 15:40] = 0
    np.testing.assert_array_equal(controls.mask_face(pixels, (15, 10, 40, 20)), controls.mask_face(other, (15, 10, 40, 20)))
    assert not np.array_equal(controls.mask_face(pixels, (15, 10, 40, 19)), controls.mask_face(other, (15, 10, 40, 19)))
    np.testing.assert_array_equal(controls.mask_face(pixels)[:2, :2], pixels[:2, :2])  # a corner stays


def test_a_known_box_is_used_for_its_image_alone(tmp_path, draw):
    draw(tmp_path / "a.png", 1)
    path = str(tmp_path / "a.png")
    known = (None, {path: (0, 0, 96, 50)}, {"b": (0, 0, 9, 9)})
    plain, boxed, elsewhere = (controls.BorderThumbnail(boxes=boxes).transform([path]) for boxes in known)
    assert not np.array_equal(plain, boxed) and np.array_equal(plain, elsewhere)


def test_head_boxes_come_from_the_manifest_of_the_crops(tmp_path):
    row = dict(path="test/1.png", label=0, source="A", method="none", group="g", video="", frame="", width=5, height=5, format="PNG",
               sha256="0" * 64, split="test", whole="test/1.jpg", x0=1.0, y0=2, x1=3, y1=4.5)
    (tmp_path / "crops").mkdir()
    pd.DataFrame([row]).to_csv(tmp_path / "crops" / "manifest.csv", index=False)
    assert controls.head_boxes(tmp_path / "crops", tmp_path / "whole") == {str(tmp_path / "whole" / "test" / "1.jpg"): (1.0, 2.0, 3.0, 4.5)}


def test_every_metric_of_the_project_is_there_for_every_baseline(neutral):
    folder, manifest = neutral
    rows = controls.evaluate_controls(manifest, folder, "validation", n_resamples=5)
    assert rows.groupby("classifier")["metric"].agg(tuple).map(lambda names: names == METRICS).all()
    assert set(rows["classifier"]) == {"constant", "shuffled labels", "file properties", "border only", "colour histogram"}


@pytest.mark.parametrize("paths, match", [
    ([], "expected a list of at least one path"),
    ([["a.png"]], "expected a list of at least one path"),
    (["a.png", float("nan")], "nan at place 1"),
    ([3], "3 at place 0"),
])
def test_what_is_no_list_of_paths_is_refused(paths, match):
    for estimator in (visual_words.SiftBagOfWords(), controls.FileProperties()):
        with pytest.raises(ValueError, match=match):
            estimator.fit(paths)


def test_one_class_in_training_and_an_empty_split_are_errors(neutral):
    folder, manifest = neutral
    with pytest.raises(ValueError, match="every image has label 0"):
        controls.evaluate_controls(manifest[manifest["label"].eq(0)], folder)
    with pytest.raises(ValueError, match="split 'test': it has no images"):
        controls.evaluate_controls(manifest[manifest["split"].ne("test")], folder)
