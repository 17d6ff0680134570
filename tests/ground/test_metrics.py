"Metrics against scikit-learn, and intervals that hold what they promise."

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, norm
from sklearn import metrics as sk

from deepfake_nbs import metrics
from deepfake_nbs.metrics import (
    METRICS,
    MIN_GROUPS,
    classification_metrics,
    effective_groups,
    jackknife_interval,
    mean_interval,
    paired_metrics,
    show_interval,
    show_value,
    subtract_metrics,
)


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
    frame = pd.DataFrame(
        {
            "label": [0, 0, 0, 0, 1, 1, 1, 1],
            "probability": [0.1, 0.2, 0.3, 0.7, 0.4, 0.6, 0.8, 0.9],
            "group": range(8),
        }
    )
    assert classification_metrics(frame, 10).value.eer == pytest.approx(0.25)


def test_interval_holds_the_value_and_draws_nothing():
    frame = random_predictions(1)
    first, again, other = (classification_metrics(frame, 200, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert (first.low <= first.value).all() and (first.value <= first.high).all()
    pd.testing.assert_frame_equal(first, other)
    assert (first.why == "").all()
    assert (first.n == 300).all() and (first.groups == frame.group.nunique()).all()


def test_interval_covers_the_truth_as_often_as_it_says():
    rng, hits, trials = np.random.default_rng(5), 0, 100
    for trial in range(trials):
        right = rng.random(40) < 0.7  # A group is right or wrong as a whole
        frame = pd.DataFrame({"label": np.tile([0, 1], 40), "group": np.repeat(np.arange(40), 2)})
        frame["probability"] = np.where(np.repeat(right, 2), frame.label, 1 - frame.label).astype(float)
        row = classification_metrics(frame, 100, seed=trial).loc["accuracy"]
        hits += row.low <= 0.7 <= row.high
    assert 0.90 <= hits / trials <= 0.99


def test_one_class_gives_nan_not_a_number():
    frame = pd.DataFrame({"label": [1, 1], "probability": [0.9, 0.2], "group": [0, 1]})
    row = classification_metrics(frame, 20)
    assert row.value[["accuracy", "recall_fake"]].tolist() == [0.5, 0.5]
    assert (
        row.value[["auc", "eer", "recall_real", "balanced_accuracy"]].isna().all()
        and row.low[["auc", "eer"]].isna().all()
    )


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
    "Answers of a network that is right about a fraction of the groups; each group has three images, all right or all wrong."
    rng = np.random.default_rng(seed)
    right = np.repeat(rng.random(len(groups)) < hit, 3)
    labels = np.repeat(rng.integers(0, 2, len(groups)), 3)
    return pd.DataFrame(
        dict(label=labels, probability=np.where(right, labels, 1 - labels), group=np.repeat(groups, 3))
    )


def test_the_interval_of_a_difference_is_that_of_two_independent_ones_where_no_group_is_shared():
    first, second = (draw_answers([f"{name}{i}" for i in range(150)], seed) for seed, name in enumerate("ab"))
    found = subtract_metrics(first, second, "accuracy")
    share = [(frame.probability == frame.label).mean() for frame in (first, second)]
    spread = 1.96 * np.sqrt(sum(p * (1 - p) / 150 for p in share))
    assert found["difference"] == pytest.approx(share[0] - share[1])
    assert [found["low"], found["high"]] == pytest.approx(
        [found["difference"] - spread, found["difference"] + spread], abs=0.02
    )


def test_a_group_in_both_test_sets_is_drawn_for_both():
    groups = [f"g{i}" for i in range(100)]
    first = draw_answers(groups, 0)
    assert subtract_metrics(first, first.iloc[::-1], "accuracy") == dict(
        difference=0.0, low=0.0, high=0.0, why=""
    )
    other = first.assign(group="h" + first["group"])
    apart = subtract_metrics(first, other, "accuracy")
    assert apart["low"] < -0.05 < 0.05 < apart["high"], (
        "the same answers about other people may differ by chance"
    )


# --- Few groups -------------------------------------------------------------------------------------------------------


def by_groups(groups, images=10, seed=0):
    "A network that is right about seven images of ten, in groups of equal size that hold both classes."
    rng = np.random.default_rng(seed)
    label = np.tile([0, 1], groups * images // 2)
    probability = (0.5 + 0.3 * (label - 0.5) + rng.normal(0, 0.25, len(label))).clip(0, 1)
    return pd.DataFrame(
        dict(label=label, probability=probability, group=np.repeat(np.arange(groups), images))
    )


@pytest.mark.parametrize("groups, words", [(1, "1 group"), (4, "4 groups"), (9, "9 groups")])
def test_too_few_groups_give_a_word_and_no_number(groups, words):
    frame = by_groups(groups)
    table = classification_metrics(frame)
    assert (
        table[["low", "high"]].isna().all(axis=None)
        and (table.why == words).all()
        and table.value.notna().all()
    )
    assert (
        show_value(*table.loc["auc", ["value", "low", "high"]], why=words)
        == f"{table.value.auc:.3f} (no interval: {words})"
    )
    pair = paired_metrics(frame, frame.assign(probability=frame.probability**2))
    assert pair[["low", "high", "p"]].isna().all(axis=None) and (pair.why == words).all()
    other = subtract_metrics(frame, frame.assign(probability=frame.probability**2), "brier")
    assert np.isnan(other["low"]) and other["why"] == words
    assert mean_interval(np.ones((groups, 1)), range(groups), (0, 1))[3] == [words]


def test_ten_groups_are_enough():
    assert classification_metrics(by_groups(MIN_GROUPS)).loc["accuracy", ["low", "high"]].notna().all()


def test_one_huge_group_counts_as_few():
    assert effective_groups(np.full(20, 7)) == pytest.approx(20) and effective_groups(
        [100, *[1] * 100]
    ) == pytest.approx(40_000 / 10_100)
    frame = by_groups(30)
    frame.loc[frame.group < 15, "group"] = 0  # One group of half of the images, and fifteen others
    assert (classification_metrics(frame).why.drop("brier") == "16 groups count as 4").all()


def test_a_class_of_few_groups_gives_no_interval_however_many_the_other_has():
    frame = by_groups(60)
    frame["label"] = (frame.group >= 3).astype(int)  # Three real people, fifty-seven fake ones
    table = classification_metrics(frame)
    assert (
        table.why["recall_real"] == "3 groups"
        and table.why["auc"].startswith("60 groups count as ")
        and np.isnan(table.low["auc"])
    )
    assert (
        table.why["recall_fake"] == ""
        and table.low["recall_fake"] < table.value["recall_fake"] < table.high["recall_fake"]
    )
    frame["label"] = (frame.group >= 1).astype(int)
    assert np.isnan(classification_metrics(frame).low["auc"]) and np.isnan(
        paired_metrics(frame, frame.assign(probability=0.5)).p["auc"]
    )


def test_a_perfect_result_is_bounded_by_its_groups():
    label = np.tile([0, 1], 20)
    alone, kin = (
        classification_metrics(pd.DataFrame(dict(label=label, probability=label, group=np.arange(40) // n)))
        for n in (1, 2)
    )
    assert alone.low["accuracy"] == pytest.approx(0.025 ** (1 / 40)) and alone.high["accuracy"] == 1
    assert kin.low["accuracy"] == kin.low["auc"] == pytest.approx(0.025 ** (1 / 20)), (
        "two images of one person are one"
    )
    assert alone.low["auc"] == pytest.approx(0.025 ** (1 / 20)) and alone.high["eer"] == pytest.approx(
        1 - 0.025 ** (1 / 20)
    )


def test_a_constant_answer_has_no_interval_of_its_auc():
    row = classification_metrics(by_groups(20).assign(probability=0.9)).loc["auc"]
    assert row.value == 0.5 and np.isnan(row.low) and row.why == "no group differs"


def test_an_interval_of_independent_images_is_never_wider_than_that_of_clopper_and_pearson():
    for wrong in range(1, 20):
        right = np.arange(40) >= wrong
        low, high, _ = jackknife_interval(right.mean(), (right.sum() - right) / 39, np.ones(40))
        exact = [right.sum(), 40 - right.sum() + 1], [right.sum() + 1, 40 - right.sum()]
        assert (
            beta.ppf(0.025, *exact[0]) - 1e-9
            <= low
            < right.mean()
            < high
            <= beta.ppf(0.975, *exact[1]) + 1e-9
        )


def test_leaving_out_agrees_with_measuring_again():
    frame = random_predictions(3, 80)
    group, names = pd.factorize(frame.group)
    values = metrics._leave_out(frame.label.to_numpy(), frame.probability.to_numpy(), group, len(names), 0.5)
    for i in range(len(names)):
        rest = classification_metrics(frame[group != i], 1).value.drop("eer")
        assert np.delete(values[i + 1], METRICS.index("eer")) == pytest.approx(rest.to_numpy()), names[i]


def test_the_equal_error_keeps_its_threshold_while_groups_are_left_out():
    from deepfake_nbs.metrics import _leave_out

    frame = random_predictions(3, 80)
    label, probability, group = (
        frame.label.to_numpy(),
        frame.probability.to_numpy(),
        pd.factorize(frame.group)[0],
    )
    rates = {
        t: (np.mean(probability[label == 0] >= t), np.mean(probability[label == 1] < t))
        for t in np.unique(probability)
    }
    after = max(
        t for t, (alarms, misses) in rates.items() if alarms >= misses
    )  # Of these two thresholds and the way between
    before = min(
        t for t, (alarms, misses) in rates.items() if alarms < misses
    )  # them comes the EER of all images
    gap = [rates[t][0] - rates[t][1] for t in (before, after)]
    part = -gap[0] / (gap[1] - gap[0])
    values = _leave_out(label, probability, group, group.max() + 1, 0.5)[:, METRICS.index("eer")]
    for i in range(group.max() + 1):
        y, p = label[group != i], probability[group != i]
        errors = [(np.mean(p[y == 0] >= t) + np.mean(p[y == 1] < t)) / 2 for t in (before, after)]
        assert values[i + 1] == pytest.approx(errors[0] + part * (errors[1] - errors[0])), i


def test_many_groups_are_left_out_in_blocks(monkeypatch):
    frame = by_groups(300, 2)
    every = classification_metrics(frame)
    monkeypatch.setattr(metrics, "MOST_BLOCKS", 60)
    blocks = classification_metrics(frame)
    assert blocks.value.equals(every.value) and (blocks.groups == 300).all()
    np.testing.assert_allclose((blocks.high - blocks.low) / (every.high - every.low), 1, atol=0.4)


def test_values_alone_are_asked_for_with_one():
    table = classification_metrics(by_groups(20), 1)
    assert (
        table.value.notna().all() and table[["low", "high"]].isna().all(axis=None) and (table.why == "").all()
    )
    assert show_value(0.7, np.nan, np.nan) == "0.700"


def test_words_in_place_of_an_interval():
    assert (
        show_interval(0.1, 0.25, 2) == "[0.10, 0.25]"
        and show_interval(-0.1, 0.25, 2, sign="+") == "[-0.10, +0.25]"
    )
    assert (
        show_interval(np.nan, np.nan, why="4 groups") == "(no interval: 4 groups)"
        and show_interval(np.nan, np.nan) == "(no interval)"
    )
    assert show_value(0.5, 0.5, 0.5) == "0.500 (no interval: all resamples agree)", (
        "as results of older runs are kept"
    )
    assert show_value(0.1, np.nan, np.nan, 2, "6 groups", "+") == "+0.10 (no interval: 6 groups)"


# --- How often they hold, seeds fixed ----------------------------------------------------------------------------------


def draw_networks(rng, groups, images, auc, single=False):
    "Two equal networks on one test set; half of the variance is shared within a group."
    group, hard = np.repeat(np.arange(groups), images), rng.normal(size=groups)
    label = (np.arange(groups) % 2)[group] if single else np.arange(groups * images) % 2
    shift = np.sqrt(2) * norm.ppf(auc) * (label - 0.5)
    own = [
        0.6 * hard[group] + 0.8 * rng.normal(size=groups)[group] + rng.normal(size=len(label))
        for _ in range(2)
    ]
    return [
        pd.DataFrame(dict(label=label, probability=norm.cdf(shift + np.sqrt(0.5) * one), group=group))
        for one in own
    ]


@pytest.mark.parametrize(
    "groups, images, auc, single",
    [
        (12, 4, 0.8, False),
        (12, 4, 0.8, True),
        (30, 3, 0.9, False),
        (30, 3, 0.9, True),
        (40, 1, 0.98, True),
        (40, 1, 0.995, True),
        (200, 1, 0.9, True),
    ],
)
def test_intervals_hold_the_truth(groups, images, auc, single):
    rng, truth, sets = (
        np.random.default_rng(16),
        dict(accuracy=norm.cdf(norm.ppf(auc) / np.sqrt(2)), auc=auc),
        200,
    )
    tables = [classification_metrics(draw_networks(rng, groups, images, auc, single)[0]) for _ in range(sets)]
    for metric, value in truth.items():
        rows = pd.DataFrame([table.loc[metric, ["low", "high"]] for table in tables]).astype(float).dropna()
        held = rows.low.le(value).mul(rows.high.ge(value)).mean()
        assert len(rows) > 0.9 * sets and held >= 0.91, (
            metric,
            held,
        )  # .95 less 2.6 standard errors of 200 sets


def test_the_equal_error_of_a_good_network_is_held():
    rng, sets, truth = np.random.default_rng(16), 200, norm.cdf(-norm.ppf(0.998) / np.sqrt(2))
    rows = pd.DataFrame(
        [classification_metrics(draw_networks(rng, 50, 8, 0.998)[0]).loc["eer"] for _ in range(sets)]
    )
    assert (
        rows.low.notna().all() and (rows.low.le(truth) & rows.high.ge(truth)).mean() >= 0.91
    )  # Was .87 with a threshold that jumps


def test_one_error_is_no_difference_of_precisions():
    label = np.tile([0, 1], 48)
    right = pd.DataFrame(dict(label=label, probability=0.1 + 0.8 * label, group=np.repeat(np.arange(12), 8)))
    wrong = right.assign(
        probability=right.probability.where(right.index != 0, 0.9)
    )  # One false alarm in the first group
    for first, second in ((right, wrong), (wrong, right)):
        pair = paired_metrics(first, second)
        assert pair.p[["accuracy", "precision_fake", "precision_real"]].tolist() == [1, 1, 1], (
            "one sign is always on one side"
        )


def test_precisions_of_equal_networks_seldom_differ_however_good_they_are():
    rng, chosen = np.random.default_rng(16), ["precision_real", "precision_fake"]
    p = np.array(
        [
            paired_metrics(*draw_networks(rng, 20, 8, 0.998), 200).loc[chosen, "p"].to_numpy()
            for _ in range(150)
        ]
    )
    assert not np.isnan(p).any() and ((p < 0.05).mean(0) <= 0.09).all(), "Was up to .29"


@pytest.mark.parametrize("groups", [4, 6, 12, 30])
def test_two_equal_networks_seldom_differ(groups):
    rng, sets, chosen = np.random.default_rng(16), 150, ["accuracy", "balanced_accuracy", "auc"]
    pairs = [paired_metrics(*draw_networks(rng, groups, 4, 0.8), 200).loc[chosen] for _ in range(sets)]
    p = np.array([pair["p"].to_numpy() for pair in pairs])
    assert np.isnan(p).all() if groups < MIN_GROUPS else not np.isnan(p).any()
    assert ((p < 0.05).mean(0) <= 0.09).all(), (p < 0.05).mean(0)  # .05 and 2.3 standard errors of 150 sets
    if groups >= MIN_GROUPS:
        held = np.mean([(pair.low <= 0) & (pair.high >= 0) for pair in pairs], 0)
        assert (held >= 0.9).all(), held


def test_a_real_difference_is_found():
    rng = np.random.default_rng(16)
    strong, weak = draw_networks(rng, 30, 4, 0.95)[0], draw_networks(rng, 30, 4, 0.6)[0]
    row = paired_metrics(strong, weak).loc["auc"]
    assert row.p < 0.01 and row.low > 0.1 and row.n == 120 and row.groups == 30


def test_a_network_that_is_always_right_against_one_that_is_always_wrong():
    label = np.tile([0, 1], 20)
    right, wrong = (
        pd.DataFrame(dict(label=label, probability=one.astype(float), group=np.arange(40) // 2))
        for one in (label, 1 - label)
    )
    pair = paired_metrics(right, wrong, 200).loc[["accuracy", "auc"]]
    assert (pair.difference == 1).all() and (pair.p < 0.01).all() and (pair.high == 1).all()
    assert pair.low.to_list() == pytest.approx([2 * 0.025 ** (1 / 20) - 1] * 2)
    six = paired_metrics(right[:12], wrong[:12])
    assert six.p.isna().all() and six.low.isna().all(), "six groups are too few to say so"


def test_networks_with_one_order_and_other_numbers_do_not_differ_in_auc():
    frame = by_groups(20)
    row = paired_metrics(frame, frame.assign(probability=frame.probability / 4)).loc["auc"]
    assert row.difference == 0 and row.p == 1 and np.isnan(row.low) and row.why == "no group differs"


def test_columns_keep_their_names():
    frame = by_groups(20)
    assert list(classification_metrics(frame)) == ["value", "low", "high", "n", "groups", "why"]
    assert list(paired_metrics(frame, frame)) == [
        "first",
        "second",
        "difference",
        "low",
        "high",
        "p",
        "n",
        "groups",
        "why",
    ]
    assert list(classification_metrics(frame).index) == list(METRICS)


# Several seeds


def draw_trainings(rng, groups=40, images=3, spread=0.5, seeds=3):
    "Predictions of trainings whose skill differs, on one test set; the accuracy that is true of the recipe."
    group = np.repeat(np.arange(groups), images)
    label, hard = np.arange(groups * images) % 2, rng.normal(size=groups)[group]
    skills = 2 + spread * rng.normal(size=seeds)
    scores = [skill * (label - 0.5) + 0.6 * hard + 0.8 * rng.normal(size=len(label)) for skill in skills]
    frames = [pd.DataFrame(dict(label=label, probability=norm.cdf(one), group=group)) for one in scores]
    return frames, norm.cdf(1 / np.sqrt(1 + spread**2 / 4))


@pytest.mark.parametrize("groups, spread", [(20, 0.1), (60, 0.5), (60, 1.0)])
def test_intervals_over_seeds_and_groups_hold_the_truth(groups, spread):
    rng, held, alone = np.random.default_rng([groups, int(10 * spread)]), [], []
    for frames, truth in (draw_trainings(rng, groups, 3, spread) for _ in range(300)):
        both, one = (metrics.seed_metrics(part).loc["accuracy"] for part in (frames, frames[:1]))
        held.append(both.low <= truth <= both.high)
        alone.append(one.low <= truth <= one.high)
    assert 0.92 <= np.mean(held), "300 sets: two standard errors of .95 are .025"
    assert spread < 1 or np.mean(alone) < 0.75, "one seed's interval holds no choice of seeds"


def test_differences_over_seeds_hold_the_truth_and_equal_recipes_seldom_differ():
    rng, held, small = np.random.default_rng(5), [], []
    for _ in range(200):
        frames = draw_trainings(rng, 40, 3, 0.5, seeds=6)[0]
        other = [frame.assign(group=frame["group"] + 40) for frame in draw_trainings(rng, 40, 3, 0.5)[0]]
        pair = metrics.paired_seed_metrics(frames[:3], frames[3:], 2).loc["accuracy"]
        apart = metrics.subtract_seed_metrics(frames[:3], other, "accuracy")
        held.append([pair.low <= 0 <= pair.high, apart["low"] <= 0 <= apart["high"]])
        small.append(pair.p < 0.05)
    assert np.mean(held, 0).min() >= 0.91 and np.mean(small) <= 0.08


def test_one_seed_is_measured_as_before():
    frames = draw_trainings(np.random.default_rng(0))[0]
    one, other = frames[0], frames[1]
    same = metrics.seed_metrics([one]).drop(columns="seeds")
    pd.testing.assert_frame_equal(same, metrics.classification_metrics(one))
    pair = metrics.paired_seed_metrics([one], [other], 50).drop(columns="seeds")
    pd.testing.assert_frame_equal(pair, metrics.paired_metrics(one, other, 50))
    apart = metrics.subtract_seed_metrics([one], [other.iloc[:90]])
    assert apart.pop("seeds") == 1 and apart == metrics.subtract_metrics(one, other.iloc[:90])


def test_equal_trainings_have_the_interval_of_one():
    one = draw_trainings(np.random.default_rng(0))[0][0]
    three = metrics.seed_metrics([one] * 3)
    columns = ["value", "low", "high"]
    assert (
        np.allclose(three[columns], metrics.classification_metrics(one)[columns]) and (three.seeds == 3).all()
    )


def test_the_mean_of_seeds_stands_between_them_and_its_interval_grows_with_their_spread():
    frames = draw_trainings(np.random.default_rng(1), spread=0.0)[0]
    wide = [
        frame.assign(probability=(frame["probability"] - step).clip(0, 1))
        for frame, step in zip(frames, (0, 0.2, 0.4), strict=True)
    ]
    widths = []
    for part in (frames, wide):
        each = [metrics.classification_metrics(frame, 1).loc["accuracy", "value"] for frame in part]
        both = metrics.seed_metrics(part).loc["accuracy"]
        assert both.value == pytest.approx(np.mean(each)) and both.low < both.value < both.high
        widths.append(both.high - both.low)
    assert widths[1] > widths[0]


def test_trainings_may_be_tested_on_different_images():
    frames = draw_trainings(np.random.default_rng(2))[0]
    parts = [frames[0].iloc[:90], frames[1].iloc[15:105], frames[2].iloc[30:]]
    found = metrics.seed_metrics(parts).loc["auc"]
    assert found.n == 90 and found.groups == 40 and found.low < found.value < found.high


def test_undefined_in_one_seed_is_undefined_in_the_mean():
    frames = draw_trainings(np.random.default_rng(3))[0]
    always = [*frames[:2], frames[2].assign(probability=1.0)]
    found = metrics.seed_metrics(always)
    assert np.isnan(found.value["precision_real"]) and found.value["accuracy"] > 0.5


def test_seeds_come_in_pairs_and_are_tested_on_the_same_images():
    frames = draw_trainings(np.random.default_rng(4))[0]
    for compare in (metrics.paired_seed_metrics, metrics.subtract_seed_metrics):
        with pytest.raises(ValueError, match="3 and 2 trainings; expected pairs"):
            compare(frames, frames[:2])
    with pytest.raises(ValueError, match="same images in the same order"):
        metrics.paired_seed_metrics(frames, [*frames[:2], frames[2].iloc[::-1]])
