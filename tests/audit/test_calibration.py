"Calibration error and Brier parts by hand and against scikit-learn; the curve of error against coverage."

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from deepfake_nbs.audit import calibration as cal


def draw(n=900, sharp=2.0, seed=0, per_group=3):
    rng = np.random.default_rng(seed)
    logit = np.repeat(rng.normal(size=n // per_group), per_group) + rng.normal(size=n)
    label = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int)
    group = [f"g{seed}-{i // per_group}" for i in range(n)]
    return pd.DataFrame(dict(label=label, probability=1 / (1 + np.exp(-sharp * logit)), group=group))


@pytest.fixture(scope="module")
def frame():
    return pd.concat(
        [draw(seed=0).assign(split="validation"), draw(seed=1).assign(split="test")], ignore_index=True
    )


def measures(frame, n_bins=10):
    sums = cal.bin_sums(frame["label"], frame["probability"], frame["group"], n_bins)
    return dict(zip(cal.MEASURES, cal.calibration_measures(sums.sum(0)), strict=True))


def test_by_hand():
    frame = pd.DataFrame(dict(label=[0, 1, 1, 1], probability=[0.25, 0.25, 0.75, 1.0], group=list("abcd")))
    found = measures(frame, 2)
    assert found["ece"] == pytest.approx((2 * 0.25 + 2 * 0.125) / 4)
    assert found["brier"] == pytest.approx((0.25**2 + 0.75**2 + 0.25**2) / 4)
    assert found["reliability"] == pytest.approx((2 * 0.25**2 + 2 * 0.125**2) / 4)
    assert found["resolution"] == pytest.approx(0.25**2) and found["uncertainty"] == pytest.approx(3 / 16)


@pytest.mark.parametrize("n_bins", [5, 10, 15])
def test_against_scikit_learn(n_bins):
    frame = draw(seed=3)
    found, p = measures(frame, n_bins), frame["probability"].to_numpy()
    rate, mean = calibration_curve(frame["label"], p, n_bins=n_bins)
    n = np.histogram(p, np.linspace(0, 1, n_bins + 1))[0]
    n = n[n > 0]
    assert found["ece"] == pytest.approx((n * abs(rate - mean)).sum() / n.sum())
    assert found["brier"] == pytest.approx(brier_score_loss(frame["label"], p))
    parts = found["reliability"] - found["resolution"] + found["uncertainty"] + found["inside"]
    assert found["brier"] == pytest.approx(parts)
    assert found["reliability"] == pytest.approx((n * (rate - mean) ** 2).sum() / n.sum())


def test_a_score_of_few_values_has_nothing_inside_bins():
    rng = np.random.default_rng(0)
    p = rng.choice([0.05, 0.35, 0.85], 300)
    frame = pd.DataFrame(dict(label=(rng.random(300) < p).astype(int), probability=p, group=np.arange(300)))
    assert measures(frame)["inside"] == pytest.approx(0, abs=1e-12)


def test_leaving_out_a_group_is_a_subtraction():
    frame = draw(90)
    sums = cal.bin_sums(frame["label"], frame["probability"], frame["group"])
    left_out = cal.calibration_measures(sums.sum(0) - sums)
    rest = frame[frame["group"].ne(frame["group"].iloc[0])]
    assert left_out[0] == pytest.approx([measures(rest)[name] for name in cal.MEASURES])


def test_maps_are_fitted_on_validation_alone(frame):
    validation, test = (frame[frame["split"].eq(name)] for name in ("validation", "test"))
    maps = cal.calibrate(validation, test["probability"])
    other = cal.calibrate(validation, test["probability"].iloc[:5])
    assert all((maps[name][:5] == other[name]).all() for name in cal.MAPS)
    assert (np.diff(maps["isotonic"][np.argsort(test["probability"])]) >= 0).all()
    assert cal.calibrate(validation, [0.0, 1.0])["isotonic"].tolist() == sorted(
        cal.calibrate(validation, [0.0, 1.0])["isotonic"]
    )


def test_a_network_that_is_too_sure_is_corrected(frame):
    table = cal.calibration_table({"run 12 (net)": frame}).set_index("map")
    assert table.loc["temperature", "ece"] < table.loc["as given", "ece"]
    assert table.loc["as given", "change"] == 0 and table.loc["temperature", "change_high"] < 0
    assert (table["ece_low"] < table["ece"]).all() and (table["ece"] < table["ece_high"]).all()
    said = cal.error_sentence(table.reset_index())
    assert said.startswith(
        "The expected calibration error of run 12 (net) on 900 test images in 300 groups is 0."
    )
    assert f"{table.loc['temperature', 'ece']:.3f} [" in said and "nan" not in said


def test_the_error_by_chance_is_that_of_drawn_labels():
    p = np.full(100, 0.5)
    expected = np.sqrt(2 / np.pi) * 0.5 / 10  # Mean distance of a binomial fraction from .5
    assert cal.error_by_chance(p, 4000) == pytest.approx(expected, rel=0.05)
    assert cal.error_by_chance(np.array([0.0, 1.0])) == 0


def test_the_curve_by_hand():
    label, p = [1, 0, 1, 0], [0.99, 0.9, 0.3, 0.45]  # Right, wrong, wrong, right; surest first
    assert cal.risk_coverage(label, p)[:, 1] == pytest.approx([0, 1 / 2, 2 / 3, 1 / 2])
    assert cal.curve_area(label, p) == pytest.approx((0 + 1 / 2 + 2 / 3 + 1 / 2) / 4)
    assert cal.risk_coverage([1, 0], [0.8, 0.8])[:, 1] == pytest.approx([0.5, 0.5])
    assert cal.curve_area([0, 1], [0.1, 0.9]) == 0


def test_area_with_interval(frame):
    row = cal.area_table({"a": frame}).iloc[0]
    assert (
        row["low"] < row["area"] < row["high"]
        and row["area"] < row["error_0.5"] + 0.05 < row["error_1"] + 0.05
    )
    assert cal.area_view(cal.area_table({"a": frame})).shape == (1, 6)


def test_few_groups_have_values_and_no_interval(frame):
    few = pd.concat([frame[frame["split"].eq("validation")], frame[frame["split"].eq("test")][:12]])
    table = cal.calibration_table({"a": few})
    assert table["ece_low"].isna().all() and table["ece_why"].str.contains("4 groups").all()
    assert "(no interval: 4 groups)" in cal.error_sentence(table)


@pytest.mark.parametrize(
    "part, words",
    [
        (lambda f: f[f["split"].ne("test") | f["label"].eq(1)], "its test split holds one class only"),
        (lambda f: f[f["split"].eq("test")], "its validation split holds no image"),
    ],
)
def test_what_cannot_be_measured_is_named(frame, part, words):
    classifiers = {"run 8 (xception)": part(frame)}
    assert cal.left_out_sentence(classifiers) == f"run 8 (xception) is left out: {words}"
    table = cal.calibration_table(classifiers)
    assert table.empty and cal.calibration_view(table).shape == (0, 8)
    assert cal.error_sentence(table).startswith("Calibration: not measured")
    assert cal.area_table(classifiers).empty and cal.reliability_table(classifiers).empty


def test_probabilities_that_are_none_are_refused(frame):
    with pytest.raises(ValueError, match="a probability is not between 0 and 1"):
        cal.bin_sums([0, 1], [0.1, 1.5], "ab")


def test_an_empty_run_folder(tmp_path):
    assert cal.read_classifiers(tmp_path) == {}
    assert cal.left_out_sentence({}).startswith("This run folder holds no finished run")


def test_figures_hold_every_classifier(frame):
    import matplotlib.pyplot as plt

    both = {"run 12 (net)": frame, "SIFT + SVM": frame}
    fig = cal.plot_reliability(cal.reliability_table(both))
    assert [ax.get_title() for ax in fig.axes] == list(both)
    ax = cal.plot_risk_coverage(both)
    assert (
        len(ax.lines) == 2
        and json.dumps([text.get_text() for text in ax.get_legend().texts]).count("n=900") == 2
    )
    plt.close("all")
