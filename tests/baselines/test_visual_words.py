"""Chapter 04: descriptors, words and histograms by hand, the searches, calibration, the honest rows, bad input."""

import json
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from deepfake_nbs import baselines as bl
from deepfake_nbs.core import file_sha256
from deepfake_nbs.images import ImageError
from deepfake_nbs.metrics import METRICS

SMALL = bl.BaselineConfig(n_words=8, kernels=("linear", "rbf"), C=(0.1, 10.0), n_trees=(10, 30), max_descriptors=2000)


def draw(path, seed, spots=25, size=(96, 96), colour=(255, 255, 255)):
    "A dark picture with bright discs, which SIFT finds."
    rng, image = np.random.default_rng(seed), Image.new("RGB", size, (30, 30, 30))
    for _ in range(spots):
        x, y, radius = rng.integers(0, size[0]), rng.integers(0, size[1]), rng.integers(2, 7)
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return image


def make_set(folder, fake, n=72, real=None):
    "A dataset of n pictures in groups of two, one real and one fake; `fake(path, i)` draws the fakes."
    rows, real = [], real or draw
    for i in range(n):
        split = "train" if i < n * 2 // 3 else "validation" if i < n * 5 // 6 else "test"
        path = f"{split}/{i:06d}.png"
        (real, fake)[i % 2](folder / path, i)
        rows.append(dict(path=path, label=i % 2, group=f"person{i // 2}", split=split, sha256=file_sha256(folder / path)))
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def neutral(tmp_path_factory):
    "Fakes are drawn as reals are: nothing tells them apart."
    folder = tmp_path_factory.mktemp("neutral")
    return folder, make_set(folder, draw, 240)


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    "Fakes have small squares where reals have discs: their descriptors differ."
    folder = tmp_path_factory.mktemp("easy")

    def fake(path, seed):
        rng, image = np.random.default_rng(seed), Image.new("RGB", (96, 96), (30, 30, 30))
        for _ in range(25):
            x, y = rng.integers(0, 90, 2)
            ImageDraw.Draw(image).rectangle((x, y, x + 9, y + 3), fill=(255, 255, 255))
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)

    return folder, make_set(folder, fake)


@pytest.fixture
def counted(monkeypatch):
    "How often SIFT ran."
    calls, find = [], bl.find_keypoints
    monkeypatch.setattr(bl, "find_keypoints", lambda grey, settings: calls.append(1) or find(grey, settings))
    return calls


def train_of(dataset):
    folder, manifest = dataset
    rows = manifest[manifest["split"].eq("train")].reset_index(drop=True)
    return bl.picture_paths(rows, folder), rows


# Pictures, keypoints and the cache


@pytest.mark.parametrize("settings", [dict(image_size=8), dict(max_keypoints=-1), dict(contrast_threshold=-0.1)])
def test_impossible_detector_settings_are_refused(settings):
    with pytest.raises(ValueError, match="expected image_size of at least 16"):
        bl.SiftSettings(**settings)


@pytest.mark.parametrize("image", [Image.new("RGB", (50, 40), (90, 90, 90)), Image.new("L", (1, 1), 7)], ids=["flat", "one pixel"])
def test_a_picture_without_keypoints_has_a_histogram_of_zeros(image, easy, tmp_path):
    image.save(tmp_path / "blank.png")
    assert bl.sift_features(tmp_path / "blank.png").descriptors.shape == (0, 128)
    paths, _ = train_of(easy)
    for norm, idf in (("power", False), ("l1", True)):
        words = bl.SiftBagOfWords(8, norm, idf).fit(paths[:20])
        found = words.transform([str(tmp_path / "blank.png"), paths[0]])
        assert not found[0].any() and found[1].any() and np.isfinite(found).all()


def test_a_set_of_flat_pictures_only_says_that_there_are_no_descriptors(tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "flat.png")
    with pytest.raises(ValueError, match="0 descriptors for 256 words; expected at least one descriptor a word"):
        bl.SiftBagOfWords().fit([tmp_path / "flat.png"])


def test_no_more_keypoints_than_asked_and_the_strongest_of_them(tmp_path):
    grey = np.asarray(draw(tmp_path / "a.png", 1, 80, (299, 299)).convert("L"))
    everything, few = (bl.find_keypoints(grey, bl.SiftSettings(max_keypoints=n)) for n in (0, 20))
    assert len(few.places) == len(few.descriptors) == 20 < len(everything.places)
    assert {tuple(place) for place in few.places} <= {tuple(place) for place in everything.places}


def test_descriptors_are_those_of_opencv(tmp_path):
    import cv2

    path = tmp_path / "a.png"
    draw(path, 1)
    grey = np.asarray(Image.open(path).convert("L").resize((299, 299), Image.Resampling.BILINEAR))
    _, expected = cv2.SIFT_create(500).detectAndCompute(grey, None)
    np.testing.assert_array_equal(bl.sift_features(path).descriptors, expected)  # no digit is lost in a byte


def test_cache_is_by_content_and_settings(tmp_path, counted):
    draw(tmp_path / "a.png", 1)
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    first = bl.sift_features(tmp_path / "a.png", cache=tmp_path / "sift")
    np.testing.assert_array_equal(bl.sift_features(tmp_path / "b.png", cache=tmp_path / "sift").places, first.places)
    assert len(counted) == 1
    bl.sift_features(tmp_path / "a.png", bl.SiftSettings(max_keypoints=3), tmp_path / "sift")
    assert len(counted) == 2
    draw(tmp_path / "a.png", 2)
    bl.sift_features(tmp_path / "a.png", cache=tmp_path / "sift")
    assert len(counted) == 3


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"no archive"])
def test_a_damaged_cache_file_is_made_again(tmp_path, spoil):
    draw(tmp_path / "a.png", 1)
    first = bl.sift_features(tmp_path / "a.png", cache=tmp_path / "sift")
    (file,) = (tmp_path / "sift").rglob("*.npz")
    file.write_bytes(spoil(file.read_bytes()))
    np.testing.assert_array_equal(bl.sift_features(tmp_path / "a.png", cache=tmp_path / "sift").descriptors, first.descriptors)
    assert np.load(file)["descriptors"].shape == first.descriptors.shape
    assert not list((tmp_path / "sift").rglob("*.partial"))


@pytest.mark.parametrize("estimator", [bl.FileFacts(), bl.BorderThumbnail(), bl.ColourHistogram(), bl.SiftBagOfWords(4)], ids=repr)
def test_a_file_that_cannot_be_read_is_named(estimator, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "gone.png"):
        with pytest.raises(ImageError, match=name):
            estimator.fit([str(tmp_path / name)]).transform([str(tmp_path / name)])
    with pytest.raises(ImageError, match=r"gone\.png"):
        bl.sift_features(tmp_path / "gone.png", cache=tmp_path / "sift")


def test_threads_do_not_change_the_result_and_opencv_gets_its_threads_back(easy):
    import cv2

    paths, before = train_of(easy)[0], cv2.getNumThreads()
    one, two = (bl.SiftBagOfWords(8, n_jobs=n).fit(paths) for n in (1, 2))
    np.testing.assert_array_equal(one.codebook_, two.codebook_)
    np.testing.assert_array_equal(one.transform(paths), two.transform(paths))
    assert cv2.getNumThreads() == before


# Words


def test_the_reservoir_is_uniform_and_never_holds_more_than_it_should():
    times = np.zeros(1000)
    for seed in range(300):
        drawn = bl.sample_rows((np.arange(i, i + 50)[:, None] for i in range(0, 1000, 50)), 100, seed)[:, 0]
        assert len(np.unique(drawn)) == 100 and (np.diff(drawn) > 0).all()
        times[drawn] += 1
    fifths = times.reshape(5, 200).sum(1)  # 6000 expected in each; their standard deviation is about 66
    assert np.abs(fifths - 6000).max() < 350
    assert len(bl.sample_rows([np.zeros((3, 2)), np.ones((4, 2))], 100)) == 7
    assert len(bl.sample_rows([], 5)) == 0


def test_memory_of_the_sample_does_not_grow_with_the_stream():
    code = """
import sys, tracemalloc, numpy as np
from deepfake_nbs.baselines import sample_rows
tracemalloc.start()
sample_rows((np.zeros((5000, 128), np.uint8) for _ in range(int(sys.argv[1]))), 20_000)
print(tracemalloc.get_traced_memory()[1])
"""
    runs = [subprocess.run([sys.executable, "-c", code, n], check=True, capture_output=True, text=True) for n in ("20", "200")]
    short, long = (int(run.stdout) for run in runs)
    assert long < 1.2 * short < 20e6


def test_words_are_the_nearest_centres_and_the_histogram_is_a_hand_count():
    codebook = np.zeros((3, 128), np.float32)
    codebook[1, 0], codebook[2, 1] = 100, 200
    descriptors = np.zeros((6, 128), np.uint8)
    descriptors[1:3, 0], descriptors[3, 1] = 90, 150  # two near word 1, one near word 2, three near word 0
    words = bl.assign_words(descriptors, codebook, block=4)
    assert words.tolist() == [0, 1, 1, 2, 0, 0]
    counts = bl.count_words(words, [4, 0, 2], 3)
    assert counts.tolist() == [[1, 2, 1], [0, 0, 0], [2, 0, 0]]
    np.testing.assert_allclose(bl.normalise_counts(counts, "l1"), [[0.25, 0.5, 0.25], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(bl.normalise_counts(counts, "power"), [[0.5, 0.5**0.5, 0.5], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(bl.word_idf(counts), 1 + np.log([4 / 3, 4 / 2, 4 / 2]))


def test_the_histogram_of_a_picture_is_the_count_of_a_loop(easy):
    paths, _ = train_of(easy)
    words = bl.SiftBagOfWords(8, "l1").fit(paths)
    for path, histogram in zip(paths[:5], words.transform(paths[:5]), strict=True):
        descriptors = bl.sift_features(path).descriptors.astype(float)
        nearest = [int(((words.codebook_ - one) ** 2).sum(1).argmin()) for one in descriptors]
        np.testing.assert_allclose(histogram, [nearest.count(word) / len(nearest) for word in range(8)])


@pytest.mark.parametrize("counts", [[[np.nan, 1]], [[-1, 1]], [[np.inf, 1]]])
def test_counts_that_are_no_counts_are_refused(counts):
    with pytest.raises(ValueError, match="NaN, infinite or negative"):
        bl.normalise_counts(np.array(counts))


def test_fewer_descriptors_than_words_is_an_error_that_says_how_many(easy):
    paths, _ = train_of(easy)
    with pytest.raises(ValueError, match=r"codebook: \d+ descriptors for 5000 words"):
        bl.SiftBagOfWords(5000).fit(paths[:2])
    with pytest.raises(ValueError, match="for 0 words"):
        bl.SiftBagOfWords(0).fit(paths[:2])


def test_the_same_seed_gives_the_same_codebook_and_another_seed_another(easy):
    paths, _ = train_of(easy)
    first, again, other = (bl.SiftBagOfWords(8, max_descriptors=100, random_state=seed).fit(paths).codebook_ for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_codebook_saw_training_pictures_only(easy, tmp_path):
    folder, manifest = easy
    bl.run_baselines(manifest, folder, tmp_path / "run", SMALL, tmp_path / "sift")
    words = bl.make_words(SMALL, tmp_path / "sift").fit(train_of(easy)[0])
    by_split = manifest.groupby("split")["sha256"].agg(set)
    assert words.sha256_ == by_split["train"]
    assert not words.sha256_ & (by_split["test"] | by_split["validation"])
    np.testing.assert_array_equal(bl.read_words(tmp_path / "run", SMALL).codebook_, words.codebook_)  # and the run used this one


# As scikit-learn expects


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [bl.SiftBagOfWords(), bl.FileFacts(), bl.BorderThumbnail(), bl.ColourHistogram()], ids=repr)
def test_transformers_of_paths_pass_what_scikit_learn_checks_without_a_table_of_numbers(estimator):
    done = check_estimator(estimator, on_fail="raise")
    assert done and all(check["status"] == "passed" for check in done)
    tags = estimator.__sklearn_tags__().input_tags
    assert tags.string and not tags.two_d_array


@parametrize_with_checks([bl.ShuffledLabels(LogisticRegression())])
def test_the_shuffled_row_passes_every_check_of_a_classifier(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


def test_parameters_are_kept_and_clones_are_unfitted(easy):
    words = bl.SiftBagOfWords(n_words=8, norm="l1").set_params(max_keypoints=50).fit(train_of(easy)[0])
    copy = clone(words)
    assert copy.get_params() == words.get_params() and copy.get_params()["max_keypoints"] == 50
    with pytest.raises(NotFittedError):
        copy.transform(train_of(easy)[0])
    assert list(words.get_feature_names_out())[:2] == ["word0", "word1"] and len(words.get_feature_names_out()) == 8


def test_a_grid_search_over_the_whole_pipeline_computes_each_picture_once(easy, tmp_path, counted):
    folder, manifest = easy
    rows = manifest[manifest["split"].ne("test")]
    paths, fold = bl.picture_paths(rows, folder), np.where(rows["split"].eq("validation"), 0, -1)
    pipeline = make_pipeline(bl.SiftBagOfWords(8, cache=str(tmp_path / "sift")), bl.make_svm())
    grid = {"siftbagofwords__n_words": [4, 8], "siftbagofwords__norm": ["l1", "power"], "pipeline__svc__C": [0.1, 10.0]}
    search = GridSearchCV(pipeline, grid, cv=PredefinedSplit(fold)).fit(paths, rows["label"])
    assert len(search.cv_results_["params"]) == 8 and search.best_score_ > 0.9
    assert len(counted) == len(paths)


# Choosing on validation


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    make = {n: rng.permutation(np.repeat([0, 1], n // 2)) for n in (120, 60)}
    return [(rng.normal(size=(n, 6)) + 2.5 * y[:, None], y) for n, y in make.items()]


def test_the_svm_search_is_what_fitting_each_setting_gives(blobs):
    train, valid = blobs
    found = bl.search_svm(train, valid, ("linear", "poly"), (0.1, 1.0), n_jobs=2)
    assert found[["kernel", "C"]].to_records(index=False).tolist() == [("linear", 0.1), ("linear", 1.0), ("poly", 0.1), ("poly", 1.0)]
    for row in found.itertuples():
        assert row.accuracy == bl.make_svm(row.C, row.kernel).fit(*train).score(*valid)
    assert found["ended"].all()


def test_a_search_that_was_stopped_says_so(blobs, monkeypatch):
    monkeypatch.setattr(bl, "SVM_STEPS", 3)
    assert not bl.search_svm(*blobs, ("rbf",), (1.0,))["ended"].any()


def test_the_growing_forest_equals_a_forest_of_each_size(blobs):
    train, valid = blobs
    found = bl.search_forest(train, valid, (5, 12, 40), seed=3)
    for row in found.itertuples():
        assert row.accuracy == bl.make_forest(int(row.trees), seed=3).fit(*train).score(*valid)


def test_of_equal_settings_the_first_is_chosen():
    search = pd.DataFrame(dict(C=[1, 2, 3], accuracy=[0.5, 0.9, 0.2], balanced_accuracy=[0.6, 0.7, 0.7]))
    assert bl.best_setting(search)["C"] == 2 and bl.best_setting(search, "accuracy")["C"] == 2


@pytest.mark.parametrize("search", [bl.search_svm, bl.search_forest])
def test_one_class_or_nan_in_training_is_an_error(blobs, search):
    (x, y), valid = blobs
    with pytest.raises(ValueError, match="every picture has label 1"):
        search((x, np.ones_like(y)), valid)
    with pytest.raises(ValueError, match="nan at place 4"):
        search((x, np.where(np.arange(len(y)) == 4, np.nan, y)), valid)
    if search is bl.search_svm:  # A forest takes NaN as a value that is missing
        with pytest.raises(ValueError, match="contains NaN"):
            search((np.where(x > 4, np.nan, x), y), valid)


def test_folds_cut_no_group_and_calibration_keeps_the_order_of_the_svm(blobs):
    x, y = blobs[0]
    groups = np.repeat(np.arange(30), 4)
    for kept, held in bl.group_folds(y, groups):
        assert not set(groups[kept]) & set(groups[held])
    model = bl.calibrated(bl.make_svm(), y, groups).fit(x, y)
    probability, distance = model.predict_proba(x)[:, 1], bl.make_svm().fit(x, y).decision_function(x)
    assert (np.diff(probability[np.argsort(distance)]) >= -1e-12).all()
    assert ((probability >= 0) & (probability <= 1)).all()


def test_calibration_counts_both_classes_the_same():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [300, 900])
    x = rng.normal(size=(1200, 1)) + 0.5 * y[:, None]
    ours = bl.calibrated(bl.make_svm(1.0, "linear"), y, np.arange(1200)).fit(x, y)
    assert abs(ours.predict_proba([[0.25]])[0, 1] - 0.5) < 0.08  # half way between the classes; their shares would say 0.75


def test_too_few_groups_for_calibration_is_an_error():
    with pytest.raises(ValueError, match="2 groups are too few"):
        bl.group_folds(np.array([0, 0, 1, 1]), np.array(["a", "a", "b", "b"]))


# The honest rows


def auc_of(dataset, **options):
    folder, manifest = dataset
    return bl.honest_rows(manifest, folder, n_resamples=100, **options).set_index(["metric", "row"]).loc["auc"]


def save(**options):
    "Draw a fake as a real, and save it otherwise."
    def fake(path, seed):
        image = draw(path, seed, size=options.get("size", (96, 96)), colour=options.get("colour", (255, 255, 255)))
        if options.get("border"):
            ImageDraw.Draw(image).rectangle((0, 0, 95, 95), outline=(200, 30, 30), width=6)
            image.save(path)
        if options.get("quality"):
            image.save(path, format="JPEG", quality=options["quality"])
    return fake


@pytest.mark.parametrize("row, fake, real", [
    ("file only", save(size=(96, 104)), draw),
    ("file only", save(quality=70), save(quality=90)),
    ("border only", save(border=True), draw),
    ("colour histogram", save(colour=(255, 240, 200)), draw),
], ids=["size", "quality", "border", "colour"])
def test_a_planted_shortcut_is_found_by_the_row_that_can_see_it(tmp_path, row, fake, real):
    found = auc_of((tmp_path, make_set(tmp_path, fake, real=real)))
    assert found.loc[row, "value"] > 0.95
    assert found.loc["constant", "value"] == 0.5


def test_on_neutral_data_no_row_finds_anything(neutral):
    found = auc_of(neutral)
    learned = found.drop("constant")
    assert (learned["low"] <= 0.5).all() and (learned["high"] >= 0.5).all(), found
    assert found.loc["constant", "value"] == 0.5 and found.loc["constant", "why"] == "no group differs"
    assert found["n"].eq(40).all()


def test_the_border_row_cannot_see_the_middle_and_the_shuffled_row_learns_nothing(tmp_path):
    def fake(path, seed):
        image = draw(path, seed)
        ImageDraw.Draw(image).rectangle((30, 30, 66, 66), fill=(250, 20, 20))
        image.save(path)

    found = auc_of((tmp_path, make_set(tmp_path, fake, 240)))
    assert found.loc["colour histogram", "value"] == 1.0
    for row in ("border only", "labels shuffled"):
        assert found.loc[row, "low"] <= 0.5 <= found.loc[row, "high"], row


def test_many_deals_lie_around_one_half(blobs):
    deals = bl.deal_often(bl.make_svm(), *blobs, n_deals=30, n_jobs=2)
    assert len(deals) == 30 and deals.std() > 0
    assert abs(np.median(deals) - 0.5) < 0.15
    np.testing.assert_array_equal(deals[:3], bl.deal_often(bl.make_svm(), *blobs, n_deals=3))


def test_dealt_labels_say_nothing_of_the_right_ones():
    right = np.random.default_rng(0).permutation(np.repeat([0, 1], [100, 300]))
    dealt = bl.deal_labels(right, 3)
    assert (np.sort(dealt) == np.sort(right)).all() and not np.array_equal(dealt, right)
    assert abs(dealt[right == 0].mean() - 0.75) <= 0.01 and abs(dealt[right == 1].mean() - 0.75) <= 0.01
    assert not np.array_equal(dealt, bl.deal_labels(right, 4))


def test_the_mask_leaves_no_pixel_of_the_face():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    other = pixels.copy()
    other[10:20, 15:40] = 0
    np.testing.assert_array_equal(bl.mask_face(pixels, (15, 10, 40, 20)), bl.mask_face(other, (15, 10, 40, 20)))
    assert not np.array_equal(bl.mask_face(pixels, (15, 10, 40, 19)), bl.mask_face(other, (15, 10, 40, 19)))
    np.testing.assert_array_equal(bl.mask_face(pixels)[:2, :2], pixels[:2, :2])  # a corner stays


def test_a_known_box_is_used_for_its_picture_alone(tmp_path):
    draw(tmp_path / "a.png", 1)
    path = str(tmp_path / "a.png")
    known = (None, {path: (0, 0, 96, 50)}, {"b": (0, 0, 9, 9)})
    plain, boxed, elsewhere = (bl.BorderThumbnail(boxes=boxes).transform([path]) for boxes in known)
    assert not np.array_equal(plain, boxed) and np.array_equal(plain, elsewhere)


def test_head_boxes_come_from_the_manifest_of_the_crops(tmp_path):
    row = dict(path="test/1.png", label=0, source="A", method="none", group="g", video="", frame="", width=5, height=5, format="PNG",
               sha256="0" * 64, split="test", whole="test/1.jpg", x0=1.0, y0=2, x1=3, y1=4.5)
    (tmp_path / "crops").mkdir()
    pd.DataFrame([row]).to_csv(tmp_path / "crops" / "manifest.csv", index=False)
    assert bl.head_boxes(tmp_path / "crops", tmp_path / "whole") == {str(tmp_path / "whole" / "test" / "1.jpg"): (1.0, 2.0, 3.0, 4.5)}


def test_every_metric_of_the_project_is_there_for_every_row(neutral):
    folder, manifest = neutral
    rows = bl.honest_rows(manifest, folder, "validation", n_resamples=5)
    assert rows.groupby("row")["metric"].agg(tuple).map(lambda names: names == METRICS).all()
    assert set(rows["row"]) == {"constant", "labels shuffled", "file only", "border only", "colour histogram"}


@pytest.mark.parametrize("paths, match", [
    ([], "expected a list of at least one path"),
    ([["a.png"]], "expected a list of at least one path"),
    (["a.png", float("nan")], "nan at place 1"),
    ([3], "3 at place 0"),
])
def test_what_is_no_list_of_paths_is_refused(paths, match):
    for estimator in (bl.SiftBagOfWords(), bl.FileFacts()):
        with pytest.raises(ValueError, match=match):
            estimator.fit(paths)


def test_one_class_in_training_and_an_empty_split_are_errors(neutral):
    folder, manifest = neutral
    with pytest.raises(ValueError, match="every picture has label 0"):
        bl.honest_rows(manifest[manifest["label"].eq(0)], folder)
    with pytest.raises(ValueError, match="split 'test': it has no pictures"):
        bl.honest_rows(manifest[manifest["split"].ne("test")], folder)


# A whole run


def test_a_run_learns_what_can_be_learned_and_says_the_same_twice(easy, tmp_path, counted):
    folder, manifest = easy
    record = bl.run_baselines(manifest, folder, tmp_path / "one", SMALL, tmp_path / "sift", data="easy")
    assert len(counted) == len(manifest)  # once a picture, in two searches, two calibrations and all rows
    tables = bl.read_baselines(tmp_path / "one")
    metrics = bl.measure_rows(tables["predictions"].query("split == 'test'"), 50).set_index(["row", "metric"])["value"]
    assert metrics[bl.SIFT_ROWS[0], "accuracy"] > 0.9 and metrics[bl.SIFT_ROWS[1], "accuracy"] > 0.9
    assert metrics["constant", "balanced_accuracy"] == 0.5
    assert record["counts"] == {"train": 48, "validation": 12, "test": 12} and record["n"] == 12
    bl.run_baselines(manifest, folder, tmp_path / "two", SMALL, tmp_path / "sift")
    for name in bl._RUN_FILES[:3]:
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_a_finished_run_is_read_a_stopped_one_goes_on_another_starts_anew(easy, tmp_path, monkeypatch):
    folder, manifest = easy
    out, cache = tmp_path / "run", tmp_path / "sift"
    first, searched = bl.run_baselines(manifest, folder, out, SMALL, cache), []
    monkeypatch.setattr(bl, "search_svm", lambda *a, search=bl.search_svm, **k: searched.append(1) or search(*a, **k))
    assert bl.run_baselines(manifest, folder, out, SMALL, cache) == first
    (out / "run.json").unlink()
    (out / "predictions.csv").unlink()
    bl.run_baselines(manifest, folder, out, SMALL, cache)
    assert (out / "predictions.csv").is_file() and not searched
    moved = manifest.assign(split=manifest["split"].replace({"test": "validation", "validation": "test"}))
    bl.run_baselines(moved, folder, out, SMALL, cache)
    assert len(searched) == 1
    assert set(bl.read_baselines(out)["predictions"].query("split == 'test'")["path"]) == set(moved.query("split == 'test'")["path"])
    with pytest.raises(FileNotFoundError, match="no finished run here"):
        bl.read_baselines(tmp_path / "never")


def test_claims_have_both_accuracies_with_interval_and_the_rows_that_were_not_published(easy, tmp_path):
    from deepfake_nbs.core import save_claims

    folder, manifest = easy
    record = bl.run_baselines(manifest, folder, tmp_path / "run", SMALL, tmp_path / "sift", data="easy")
    metrics = bl.measure_rows(bl.read_baselines(tmp_path / "run")["predictions"].query("split == 'test'"), 20)
    rows = {row["id"]: row for row in bl.claim_rows(metrics.assign(protocol="group"), {"group": record})}
    assert {"baselines-svm-accuracy", "baselines-forest-accuracy", "baselines-codebook-words", "baselines-forest-trees"} <= set(rows)
    numbers = rows["baselines-svm-accuracy"]
    assert numbers["n"] == 12 and numbers["measured"] is not None and numbers["low"] is None, "few groups give no interval"
    wide = bl.claim_rows(metrics.assign(protocol="group", low=0.25, high=0.75), {"group": record})
    assert next(row for row in wide if row["id"] == "baselines-svm-accuracy")["low"] == 0.25
    assert rows["baselines-group-constant-balanced_accuracy"]["measured"] == 0.5
    text = save_claims(list(rows.values()), tmp_path).read_text()
    assert "baselines-svm-accuracy,.6756," in text and "baselines-group-file_only-auc,," in text


def test_the_record_is_plain_json_and_names_the_choice(easy, tmp_path):
    folder, manifest = easy
    bl.run_baselines(manifest, folder, tmp_path, SMALL)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["svm"]["kernel"] in SMALL.kernels and record["forest"]["trees"] in SMALL.n_trees
    assert record["config"]["n_words"] == 8


# Labels in directory order, and arithmetic


def test_labels_in_directory_order_keep_their_shares_and_lose_their_pictures():
    right = np.random.default_rng(0).permutation(np.repeat([0, 1], [300, 600]))
    handed = bl.attach_in_order(right, 1)
    assert (np.sort(handed) == np.sort(right)).all()
    assert abs((handed == right).mean() - (1 / 9 + 4 / 9)) < 0.06  # what chance gives
    np.testing.assert_array_equal(bl.attach_in_order(right, 1), handed)


def test_classifiers_that_learn_labels_in_directory_order_name_the_larger_class():
    rng = np.random.default_rng(0)
    labels = {split: rng.permutation(np.repeat([0, 1, 1], 60)) for split in ("train", "validation", "test")}
    found = bl.directory_order({split: rng.normal(size=(180, 8)) + 2 * y[:, None] for split, y in labels.items()}, labels, n_resamples=50)
    wrong, right = (found[found["labels"].eq(name)] for name in ("directory order", "right"))
    assert (right["accuracy"] > 0.95).all()
    assert (wrong["said_majority"] > 0.85).all() and (wrong["accuracy"] - wrong["majority"]).abs().max() < 0.1
    for name in ("accuracy", "accuracy_by_right_labels"):
        assert found[name].between(found[f"{name}_low"], found[f"{name}_high"]).all()


def test_intervals_of_accuracy_are_over_the_groups_that_are_given():
    labels = dict.fromkeys(("train", "validation", "test"), np.tile([0, 1, 1], 10))
    rng = np.random.default_rng(0)
    histograms = {split: rng.normal(size=(30, 4)) for split in labels}
    one_group = bl.directory_order(histograms, labels, groups=np.zeros(30, int), n_resamples=20)
    assert one_group[["accuracy_low", "accuracy_high"]].isna().all(axis=None) and (one_group["accuracy_why"] == "1 group").all()
    alone = bl.directory_order(histograms, labels, n_resamples=20)
    assert (alone["accuracy_low"] < alone["accuracy_high"]).all()
    assert (alone["accuracy"] == one_group["accuracy"]).all()


def test_an_imbalanced_sample_keeps_classes_of_a_group_together():
    every = [(group, label, i) for group in range(40) for label in (0, 1) for i in range(3)]
    rows = pd.DataFrame([dict(path=f"{group}-{label}-{i}", label=label, group=group) for group, label, i in every])
    sample = bl.draw_imbalanced(rows, 2, seed=1)
    counts = sample["label"].value_counts()
    assert counts[1] == 120 and counts[0] == 60
    assert set(sample.groupby(["group", "label"]).size()) == {3}
    few = bl.draw_imbalanced(rows[rows["label"].eq(0) | rows["group"].lt(5)], 3, seed=1)["label"].value_counts()  # 120 and 15
    assert few[1] == 15 and few[0] <= 6
    more = bl.draw_imbalanced(rows[rows["label"].eq(1) | rows["group"].lt(5)], 2, seed=1)["label"].value_counts()  # 15 and 120
    assert more[0] == 15 and more[1] == 30


def test_the_share_of_fakes_follows_from_precision_and_recall():
    low, high = bl.implied_majority(f"{240 / 310:.6f}", f"{630 / 690:.6f}", ".800000", ".900000")  # 300 real, 700 fake
    assert low <= 0.7 <= high and high - low < 1e-4
    assert np.isnan(bl.implied_majority(".9999", ".5000", ".5000", ".5000")).all()
    low, high = bl.implied_majority(".8428", ".8980", ".7811", ".9297")
    assert 0.674 < low < high < 0.675


def test_word_differences_are_in_standard_deviations_and_patches_come_from_near_the_word(easy):
    x = np.array([[0, 1.0], [2, 1], [4, 1], [6, 1]])
    np.testing.assert_allclose(bl.word_differences(x, [0, 0, 1, 1]), [4, 0])
    paths, rows = train_of(easy)
    words = bl.SiftBagOfWords(4).fit(paths)
    patches = bl.word_patches(words, paths, [0, 3], n=5)
    assert set(patches) == {0, 3} and all(len(row) <= 5 and all(patch.shape == (32, 32) for patch in row) for row in patches.values())


def test_a_patch_is_centred_on_its_keypoint():
    grey = np.zeros((99, 99), np.uint8)
    grey[48:51, 58:61] = 255
    for angle in (0.0, 90.0):
        patch = bl.cut_patch(grey, np.array([59, 49, 5, angle], np.float32), 31)
        y, x = np.nonzero(patch > 100)
        assert abs(y.mean() - 15) <= 1 and abs(x.mean() - 15) <= 1


def test_figures_can_be_drawn(easy, tmp_path):
    import matplotlib.pyplot as plt

    folder, manifest = easy
    bl.run_baselines(manifest, folder, tmp_path, SMALL)
    tables = bl.read_baselines(tmp_path)
    metrics = bl.measure_rows(tables["predictions"].query("split == 'test'"), 5).assign(protocol="group")
    search = bl.plot_search(tables["svm_search"], tables["forest_search"], 0.5)
    assert [len(ax.lines) for ax in search.axes] == [2 + 2, 1 + 2] and search.axes[0].get_xscale() == "log"
    rows = bl.plot_rows(metrics)
    assert [tick.get_text() for tick in rows.get_yticklabels()] == list(metrics["row"].unique())
    n = metrics["n"].iloc[0]
    fewer = metrics.assign(n=metrics["n"].where(metrics["row"].ne("constant"), n - 3), protocol="published")
    legend = bl.plot_rows(pd.concat([metrics, fewer])).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [f"group (n={n})", f"published (n={n - 3} to {n})"]
    labels = {metric: bl.plot_rows(metrics, metric).get_xlabel() for metric in ("balanced_accuracy", "auc", "eer")}
    assert labels == {"balanced_accuracy": "balanced accuracy", "auc": "AUC", "eer": "EER"}
    assert len(bl.plot_confusions(tables["predictions"], list(bl.SIFT_ROWS)).axes) == 2
    assert bl.show_rows(metrics, ("auc",)).index.tolist() == list(metrics["row"].unique())
    plt.close("all")
