"Descriptors, cache, codebook and histograms, by hand."

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from deepfake_nbs.baselines import visual_words


@pytest.mark.parametrize("settings", [dict(image_size=8), dict(max_keypoints=-1), dict(contrast_threshold=-0.1)])
def test_impossible_detector_settings_are_refused(settings):
    with pytest.raises(ValueError, match="expected image_size of at least 16"):
        visual_words.SiftSettings(**settings)


@pytest.mark.parametrize("image", [Image.new("RGB", (50, 40), (90, 90, 90)), Image.new("L", (1, 1), 7)], ids=["flat", "one pixel"])
def test_a_image_without_keypoints_has_a_histogram_of_zeros(image, easy, tmp_path, train_of):
    image.save(tmp_path / "blank.png")
    assert visual_words.sift_features(tmp_path / "blank.png").descriptors.shape == (0, 128)
    paths, _ = train_of(easy)
    for norm, idf in (("power", False), ("l1", True)):
        words = visual_words.SiftBagOfWords(8, norm, idf).fit(paths[:20])
        found = words.transform([str(tmp_path / "blank.png"), paths[0]])
        assert not found[0].any() and found[1].any() and np.isfinite(found).all()


def test_a_set_of_flat_images_only_says_that_there_are_no_descriptors(tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "flat.png")
    with pytest.raises(ValueError, match="0 descriptors for 256 words; expected at least one descriptor a word"):
        visual_words.SiftBagOfWords().fit([tmp_path / "flat.png"])


def test_no_more_keypoints_than_asked_and_the_strongest_of_them(tmp_path, draw):
    grey = np.asarray(draw(tmp_path / "a.png", 1, 80, (299, 299)).convert("L"))
    everything, few = (visual_words.find_keypoints(grey, visual_words.SiftSettings(max_keypoints=n)) for n in (0, 20))
    assert len(few.places) == len(few.descriptors) == 20 < len(everything.places)
    assert {tuple(place) for place in few.places} <= {tuple(place) for place in everything.places}


def test_descriptors_are_those_of_opencv(tmp_path, draw):
    import cv2

    path = tmp_path / "a.png"
    draw(path, 1)
    grey = np.asarray(Image.open(path).convert("L").resize((299, 299), Image.Resampling.BILINEAR))
    _, expected = cv2.SIFT_create(500).detectAndCompute(grey, None)
    np.testing.assert_array_equal(visual_words.sift_features(path).descriptors, expected)  # no digit is lost in a byte


def test_cache_is_by_content_and_settings(tmp_path, counted, draw):
    draw(tmp_path / "a.png", 1)
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    first = visual_words.sift_features(tmp_path / "a.png", cache=tmp_path / "sift")
    np.testing.assert_array_equal(visual_words.sift_features(tmp_path / "b.png", cache=tmp_path / "sift").places, first.places)
    assert len(counted) == 1
    visual_words.sift_features(tmp_path / "a.png", visual_words.SiftSettings(max_keypoints=3), tmp_path / "sift")
    assert len(counted) == 2
    draw(tmp_path / "a.png", 2)
    visual_words.sift_features(tmp_path / "a.png", cache=tmp_path / "sift")
    assert len(counted) == 3


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"no archive"])
def test_a_damaged_cache_file_is_made_again(tmp_path, spoil, draw):
    draw(tmp_path / "a.png", 1)
    first = visual_words.sift_features(tmp_path / "a.png", cache=tmp_path / "sift")
    (file,) = (tmp_path / "sift").rglob("*.npz")
    file.write_bytes(spoil(file.read_bytes()))
    np.testing.assert_array_equal(visual_words.sift_features(tmp_path / "a.png", cache=tmp_path / "sift").descriptors, first.descriptors)
    assert np.load(file)["descriptors"].shape == first.descriptors.shape
    assert not list((tmp_path / "sift").rglob("*.partial"))


def test_threads_do_not_change_the_result_and_opencv_gets_its_threads_back(easy, train_of):
    import cv2

    paths, before = train_of(easy)[0], cv2.getNumThreads()
    one, two = (visual_words.SiftBagOfWords(8, n_jobs=n).fit(paths) for n in (1, 2))
    np.testing.assert_array_equal(one.codebook_, two.codebook_)
    np.testing.assert_array_equal(one.transform(paths), two.transform(paths))
    assert cv2.getNumThreads() == before


def test_the_reservoir_is_uniform_and_never_holds_more_than_it_should():
    times = np.zeros(1000)
    for seed in range(300):
        drawn = visual_words.reservoir_sample((np.arange(i, i + 50)[:, None] for i in range(0, 1000, 50)), 100, seed)[:, 0]
        assert len(np.unique(drawn)) == 100 and (np.diff(drawn) > 0).all()
        times[drawn] += 1
    fifths = times.reshape(5, 200).sum(1)  # 6000 expected in each; their standard deviation is about 66
    assert np.abs(fifths - 6000).max() < 350
    assert len(visual_words.reservoir_sample([np.zeros((3, 2)), np.ones((4, 2))], 100)) == 7
    assert len(visual_words.reservoir_sample([], 5)) == 0


def test_memory_of_the_sample_does_not_grow_with_the_stream():
    code = """
import sys, tracemalloc, numpy as np
from deepfake_nbs.baselines.visual_words import reservoir_sample
tracemalloc.start()
reservoir_sample((np.zeros((5000, 128), np.uint8) for _ in range(int(sys.argv[1]))), 20_000)
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
    words = visual_words.assign_words(descriptors, codebook)
    assert words.tolist() == [0, 1, 1, 2, 0, 0]
    counts = visual_words.count_words(words, [4, 0, 2], 3)
    assert counts.tolist() == [[1, 2, 1], [0, 0, 0], [2, 0, 0]]
    np.testing.assert_allclose(visual_words.normalise_counts(counts, "l1"), [[0.25, 0.5, 0.25], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(visual_words.normalise_counts(counts, "power"), [[0.5, 0.5**0.5, 0.5], [0, 0, 0], [1, 0, 0]])


def test_the_histogram_of_an_image_is_the_count_of_a_loop(easy, train_of):
    paths, _ = train_of(easy)
    words = visual_words.SiftBagOfWords(8, "l1").fit(paths)
    for path, histogram in zip(paths[:5], words.transform(paths[:5]), strict=True):
        descriptors = visual_words.sift_features(path).descriptors.astype(float)
        nearest = [int(((words.codebook_ - one) ** 2).sum(1).argmin()) for one in descriptors]
        np.testing.assert_allclose(histogram, [nearest.count(word) / len(nearest) for word in range(8)])


@pytest.mark.parametrize("counts", [[[np.nan, 1]], [[-1, 1]], [[np.inf, 1]]])
def test_counts_that_are_no_counts_are_refused(counts):
    with pytest.raises(ValueError, match="NaN, infinite or negative"):
        visual_words.normalise_counts(np.array(counts))


def test_fewer_descriptors_than_words_is_an_error_that_says_how_many(easy, train_of):
    paths, _ = train_of(easy)
    with pytest.raises(ValueError, match=r"codebook: \d+ descriptors for 5000 words"):
        visual_words.SiftBagOfWords(5000).fit(paths[:2])
    with pytest.raises(ValueError, match="for 0 words"):
        visual_words.SiftBagOfWords(0).fit(paths[:2])


def test_the_same_seed_gives_the_same_codebook_and_another_seed_another(easy, train_of):
    paths, _ = train_of(easy)
    fitted = [visual_words.SiftBagOfWords(8, max_descriptors=100, random_state=seed).fit(paths) for seed in (1, 1, 2)]
    first, again, other = (words.codebook_ for words in fitted)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_parameters_are_kept_and_clones_are_unfitted(easy, train_of):
    words = visual_words.SiftBagOfWords(n_words=8, norm="l1").set_params(max_keypoints=50).fit(train_of(easy)[0])
    copy = clone(words)
    assert copy.get_params() == words.get_params() and copy.get_params()["max_keypoints"] == 50
    with pytest.raises(NotFittedError):
        copy.transform(train_of(easy)[0])
    assert list(words.get_feature_names_out())[:2] == ["word0", "word1"] and len(words.get_feature_names_out()) == 8


def test_no_descriptors_have_no_words():
    assert visual_words.assign_words(np.zeros((0, 128), np.uint8), np.zeros((3, 128), np.float32)).tolist() == []


def test_rare_words_weigh_more_by_the_smoothed_formula(easy, train_of):
    paths, _ = train_of(easy)
    words = visual_words.SiftBagOfWords(8, idf=True).fit(paths)
    holding = (words.count(paths) > 0).sum(0)
    np.testing.assert_allclose(words.idf_, 1 + np.log((1 + len(paths)) / (1 + holding)))
    weighted = words.count(paths) * words.idf_
    np.testing.assert_allclose(words.transform(paths), np.sqrt(weighted / weighted.sum(1, keepdims=True)))
