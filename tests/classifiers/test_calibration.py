"Temperature, calibration error, and the limits of the words real and fake."

import numpy as np
import pandas as pd
import pytest

from deepfake_nbs.classifiers import calibration as cal


def draw(n=3000, sharp=3.0, spread=2.0, seed=0):
    "Labels of a calibrated logit, and the probabilities of a network that is `sharp` times as sure."
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=n) * spread
    label = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int)
    return pd.DataFrame(dict(label=label, probability=1 / (1 + np.exp(-sharp * logit))))


@pytest.mark.parametrize("sharp", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_was_too_sure_or_too_unsure(sharp):
    frame = draw(sharp=sharp)
    temperature = cal.fit_temperature(frame["label"], frame["probability"])
    assert temperature == pytest.approx(sharp, rel=0.1)
    assert temperature == cal.fit_temperature(frame["label"], frame["probability"])

    def loss(t):
        p = cal.scale_probability(frame["probability"], t)
        return -np.mean(np.log(np.where(frame["label"] == 1, p, 1 - p)))

    assert loss(temperature) <= min(loss(temperature * 1.02), loss(temperature / 1.02))


def test_scaling_keeps_the_order_and_the_middle():
    p = np.linspace(0, 1, 101)
    scaled = cal.scale_probability(p, 2.5)
    assert (np.diff(scaled) > 0).all() and scaled[50] == pytest.approx(0.5)
    assert np.array_equal(cal.scale_probability(p, 1.0), p)
    assert cal.scale_probability([0.9], 2)[0] == pytest.approx(0.75)  # Odds of 9 become odds of 3


@pytest.mark.parametrize(
    "label, probability, expected",
    [
        ([0] * 5, [0.1, 0.2, 0.9, 0.3, 0.4], 1.0),  # One class
        ([0, 0, 1, 1], [0.1, 0.4, 0.6, 0.9], 1.0),  # No minimum: the sharper, the better
        ([1, 0] * 8, [0.1, 0.9] * 8, 100.0),  # Wrong more often than right
        ([0, 1] * 8, [0.0, 1.0] * 8, 1.0),
    ],
)
def test_images_that_cannot_tell_set_no_temperature(label, probability, expected):
    assert cal.fit_temperature(label, probability) == expected


@pytest.mark.parametrize(
    "label, probability, words",
    [
        ([0, 1], [0.5], "2 labels, 1 probabilities"),
        ([], [], "0 labels"),
        ([0, 1], [0.5, float("nan")], "not between 0 and 1"),
        ([0, 1], [0.5, 2.0], "not between 0 and 1"),
    ],
)
def test_what_is_no_prediction_is_refused(label, probability, words):
    for function in (cal.fit_temperature, cal.expected_calibration_error, cal.choose_limits):
        with pytest.raises(ValueError, match=words):
            function(label, probability)


@pytest.mark.parametrize(
    "label, probability, error",
    [
        ([1, 1, 0, 0], [1.0, 1.0, 0.0, 0.0], 0.0),
        ([0, 0, 0, 0], [1.0, 1.0, 1.0, 1.0], 1.0),
        ([1, 0, 1, 1], [0.95, 0.95, 0.15, 0.15], 0.65),  # (2 x |.95 - .5| + 2 x |.15 - 1|) / 4
        ([0, 1, 1], [0.1, 0.15, 0.5], (2 * 0.375 + 0.5) / 3),  # An edge belongs to the bin above it
    ],
)
def test_the_calibration_error_by_hand(label, probability, error):
    assert cal.expected_calibration_error(label, probability) == pytest.approx(error)


def test_bins_count_every_image_once_and_empty_ones_say_nothing():
    bins = cal.calibration_bins([0, 1, 1], [0.0, 1.0, 0.95])
    assert bins[:, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2] and np.isnan(bins[1, 1:]).all()


def test_a_limit_is_surer_than_the_fraction_that_was_seen():
    scores = np.arange(60.0)
    assert cal.lowest_precise(scores, scores >= 38) == 38.0  # 22 of 22: .9 to the power of 22 is below .1
    assert cal.lowest_precise(scores, scores >= 39) is None
    assert cal.lowest_precise(scores, scores >= 39, confidence=0) is not None
    assert cal.lowest_precise(scores, scores >= 58, confidence=0, least=10) is None


@pytest.mark.parametrize("spread, sure", [(4.0, 0.9), (1.0, 0)])
def test_words_are_as_sure_as_a_network_allows(spread, sure):
    frame = draw(n=900, sharp=1.0, spread=spread)
    limits = cal.choose_words(frame["label"], frame["probability"])
    assert limits.confidence == sure
    words = cal.call_images(frame["probability"], limits.real_below, limits.fake_above)
    for word in (0, 1):
        said, weight = (
            words == word,
            np.where(frame["label"] == 1, 1 / frame["label"].mean(), 1 / (1 - frame["label"].mean())),
        )
        if said.any():
            assert np.average(frame["label"][said] == word, weights=weight[said]) >= 0.9
    if sure:
        assert (words >= 0).mean() >= cal.COVERAGE


def test_the_words_are_right_on_other_images_too():
    right = []
    for seed in range(30):
        validation, test = draw(900, 2.5, 2.5, seed), draw(4000, 2.5, 2.5, 1000 + seed)
        found = cal.measure_calibration(validation, test)
        right += [found.right_real, found.right_fake]
        assert found.error_after < found.error_before
    assert np.nanmin(right) > 0.85


def test_a_run_in_words():
    found = cal.measure_calibration(draw(seed=1), draw(seed=2))
    text = cal.calibration_sentence(found)
    assert f"Temperature {found.temperature:.2f}, fitted on 3000 validation images" in text
    assert f"*fake* is right for {found.right_fake:.3f} of the {found.n_fake} images" in text
    assert cal.calibration_sentence(None) == "Calibration: not measured."
    never = found._replace(n_real=0, right_real=float("nan"))
    assert "*real* is never said" in cal.calibration_sentence(
        never
    ) and "nan" not in cal.calibration_sentence(never)
