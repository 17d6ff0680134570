"Split-conformal quantiles by hand, sets, and their coverage by simulation."

import numpy as np
import pandas as pd
import pytest

from deepfake_nbs.classifiers import conformal as con


def draw(rng, n, fakes=0.5, groups=1):
    "Predictions in which real images are harder than fake ones; `groups` images share a group and part of their noise."
    label = np.repeat(rng.random(n // groups) < fakes, groups).astype(int)
    shared = np.repeat(rng.normal(size=n // groups), groups)
    logit = np.where(label == 1, 2.0, -0.7) + 0.8 * shared + rng.normal(size=n)
    group = np.repeat(np.arange(n // groups), groups)
    return pd.DataFrame(dict(label=label, probability=1 / (1 + np.exp(-logit)), group=group))


def test_the_quantile_by_hand():
    scores = np.arange(1, 20) / 20  # 19 of them
    assert con.conformal_quantile(scores, 0.05) == 0.95, "20 times .95 is 19: the largest"
    assert con.conformal_quantile(scores, 0.1) == 0.9 and con.conformal_quantile(scores, 0.5) == 0.5
    assert con.conformal_quantile(scores[::-1], 0.12) == 0.9, "17.6 is rounded up, the order does not matter"


@pytest.mark.parametrize("risk", [0.5, 0.2, 0.1, 0.05, 0.01, 1 / 3])
def test_so_many_images_are_needed_and_one_less_is_refused(risk):
    n = con.images_needed(risk)
    assert con.conformal_quantile(np.arange(n), risk) == n - 1, "the largest"
    with pytest.raises(ValueError, match=rf"{n - 1} calibration images?; expected at least {n}$"):
        con.conformal_quantile(np.arange(n - 1), risk)


@pytest.mark.parametrize("risk", [0, 1, -1, 2, float("nan"), "0.1", None, True])
def test_what_is_no_risk(risk):
    with pytest.raises(ValueError, match=r"risk is .*; expected a number between 0 and 1, such as 0\.1"):
        con.fit_quantiles([0, 1], [0.1, 0.9], risk)


@pytest.mark.parametrize(
    "label, words", [([1] * 30, "30 images, all fake"), ([0] * 30, "30 images, all real")]
)
def test_one_class_is_refused(label, words):
    with pytest.raises(ValueError, match=f"{words}; expected real and fake ones"):
        con.fit_quantiles(label, np.linspace(0, 1, 30), 0.2)


def test_too_few_of_one_class_are_named():
    with pytest.raises(ValueError, match="3 fake calibration images; expected at least 9"):
        con.fit_quantiles([0] * 50 + [1] * 3, np.linspace(0, 1, 53), 0.1)


def test_thinned_scores_never_make_a_set_smaller():
    rng = np.random.default_rng(0)
    for n in (999, 1000, 1001, 2500, 12345):
        scores = rng.random(n)
        kept = con.thin_scores(scores)
        assert (
            len(kept) == min(n, con.MOST_SCORES) and kept[-1] == scores.max() and (np.diff(kept) >= 0).all()
        )
        for risk in (0.3, 0.1, 0.05, 0.01):
            exact, thinned = con.conformal_quantile(scores, risk), con.conformal_quantile(kept, risk, n)
            assert exact <= thinned <= exact + 0.01 and (n > 1000 or exact == thinned)


def test_sets_and_their_names():
    inside = con.conformal_sets([0.0, 0.4, 0.6, 1.0], con.Quantiles(0.5, 0.3))
    assert con.name_sets(inside).tolist() == ["{real}", "{real}", "{}", "{fake}"]
    assert con.name_sets(con.conformal_sets([0.5], con.Quantiles(0.5, 0.5))).tolist() == ["{both}"]


def simulate(risk, by_class, groups=1, n_runs=40):
    covered = []
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        fit, new = draw(rng, 900, groups=groups), draw(rng, 3000, groups=groups)
        inside = con.conformal_sets(
            new["probability"], con.fit_quantiles(fit["label"], fit["probability"], risk, by_class)
        )
        hit = inside[np.arange(len(new)), new["label"]]
        covered.append((hit.mean(), hit[new["label"] == 0].mean(), hit[new["label"] == 1].mean()))
    return np.mean(covered, 0)


@pytest.mark.parametrize("risk", [0.2, 0.1, 0.05])
@pytest.mark.parametrize("groups", [1, 6])
def test_coverage_is_within_two_points_of_the_promise(risk, groups):
    assert abs(simulate(risk, False, groups)[0] - (1 - risk)) < 0.02
    assert (abs(simulate(risk, True, groups) - (1 - risk)) < 0.02).all(), "for each class too"


def test_one_quantile_is_paid_for_by_the_harder_class():
    _, real, fake = simulate(0.1, False)
    assert real < 0.87 < 0.92 < fake


def test_coverage_with_intervals_over_groups():
    frame = draw(np.random.default_rng(1), 600, groups=6)
    quantiles = con.fit_quantiles(frame["label"], frame["probability"], 0.1)
    inside = con.conformal_sets(frame["probability"], quantiles)
    found = con.measure_coverage(frame, inside)
    assert (
        tuple(found.index) == con.COVERAGES
        and found.loc["all", "n"] == 600
        and found.loc["all", "groups"] == 100
    )
    for name in ("all", "real", "fake", "group"):
        assert found.loc[name, "low"] < found.loc[name, "value"] < found.loc[name, "high"]
    alone = con.measure_coverage(frame.assign(group=np.arange(600)), inside)
    width, narrow = (one.loc["all", "high"] - one.loc["all", "low"] for one in (found, alone))
    assert width > narrow, "images of a group are alike, and the interval knows it"
    few = con.measure_coverage(frame[:12], inside[:12])
    assert np.isnan(few.loc["all", "low"]) and "2 groups" in few.loc["all", "why"]


def test_coverage_of_a_class_that_is_not_there():
    frame = pd.DataFrame(dict(label=[0, 0], group=["a", "b"]))
    found = con.measure_coverage(frame, np.ones((2, 2), bool))
    assert np.isnan(found.loc["fake", "value"]) and found.loc["fake", "why"] == "no image"


def test_coverage_over_divisions_by_group():
    frame = draw(np.random.default_rng(2), 1200, groups=6)
    found = con.resampled_coverage(frame, 0.1, n_splits=60)
    assert abs(found.mean() - 0.9) < 0.02 and (found == con.resampled_coverage(frame, 0.1, n_splits=60)).all()
    with pytest.raises(ValueError, match="1 group; expected at least 2"):
        con.resampled_coverage(frame.assign(group="x"), 0.1)
