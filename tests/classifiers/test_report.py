"Sentences and tables of the classifiers' results page, clause by clause."

import numpy as np
import pandas as pd
import pytest

from deepfake_nbs.classifiers import report, views
from deepfake_nbs.classifiers.tables import MORE_COLUMNS, RESULT_COLUMNS, check_arithmetic, printed_table2
from deepfake_nbs.metrics import holm_adjusted

NOTHING = float("nan")
RECORD = dict(
    config=dict(net="xception", crop=True, image_size=299, width=1.0),
    crop=True,
    epochs=25,
    run="8",
    weights_sha256="a",
    counts=dict(train=382, validation=128, test=88),
)


def make_results(status="run", low=0.8, high=0.9, measured=0.85):
    columns = [*RESULT_COLUMNS, *MORE_COLUMNS]
    return pd.DataFrame(
        [
            dict(
                row=8,
                column=name,
                published=NOTHING if name in MORE_COLUMNS else 0.86,
                measured=measured,
                low=low,
                high=high,
                why="",
                n=88 if status == "run" else 0,
                seeds=1 if status == "run" else 0,
                learned="yes" if status == "run" else "",
                status=status,
            )
            for name in columns
        ]
    )


def make_pairs(*differences, holm=None):
    rows = [
        dict(
            row=i,
            value=0.7,
            reference=0.7 + d,
            difference=d,
            low=d - 0.01,
            high=d + 0.01,
            p=0.001,
            n=88,
            why="",
            seeds=1,
        )
        for i, d in enumerate(differences, 1)
    ]
    return pd.DataFrame(rows).assign(holm=holm if holm is not None else 0.01)


RANKED = pd.DataFrame(
    [
        dict(row=8, value=0.8, low=0.75, high=0.85, n=128, why=""),
        dict(row=1, value=0.7, low=0.6, high=0.76, n=128, why=""),
    ]
).set_index("row")


@pytest.mark.parametrize(
    "names, words", [([1], "run 1"), ([1, 3], "runs 1 and 3"), ([1, 3, "mine"], "runs 1, 3 and mine")]
)
def test_runs_are_listed_in_words(names, words):
    assert report.join_runs(names) == words


def test_which_runs_there_are():
    text = report.runs_sentence({}, {}, {}, "smoke", "x")
    assert text.startswith("Finished runs of profile `smoke` on `x`: none.") and "make report" in text
    text = report.runs_sentence(
        {8: RECORD, 11: RECORD}, {8: RECORD, 11: RECORD, "mine": RECORD}, {"old": "changed"}, "smoke", "x"
    )
    assert (
        "8, 11 (1 of the report's nine)" in text
        and "Your own runs: mine." in text
        and text.endswith("since: old.")
    )
    whole = RECORD | dict(crop=False, weights_sha256="b")
    assert report.crop_sentence({8: RECORD}) == "Every finished run used the kind of image that it asked for."
    assert report.crop_sentence({2: whole, 8: whole}).endswith("no cropped dataset: runs 2 and 8.")
    assert report.same_weights_sentence({1: RECORD, 2: whole}) == "No two runs have the same weights."
    assert report.same_weights_sentence({1: RECORD, 9: RECORD}).startswith("The same weights: runs 1 and 9.")


def test_a_paired_test_is_said_with_what_it_shows():
    text = report.ranking_sentence(RANKED, 8, make_pairs(0.1, 0.0, -0.1, holm=[0.01, 0.6, 0.02]))
    assert text.startswith(
        "Run 8 has the best validation AUC: run 8 with 0.800 [0.750, 0.850] (n=128), then run 1"
    )
    assert (
        "Run 8 has a higher test AUC than run 1 (paired sign-flip test over groups, Holm-adjusted p < .05)."
        in text
    )
    assert (
        "Run 8 has a lower test AUC than run 3 (paired" in text
        and "no difference between run 8 and run 2." in text
    )
    assert text.endswith("which was not used for this choice, run 3 scored higher.")
    several = report.ranking_sentence(RANKED, 8, make_pairs(0.1, 0.2))
    assert (
        "higher test AUC than runs 1 and 2" in several
        and "no difference" not in several
        and "scored higher" not in several
    )
    unknown = report.ranking_sentence(RANKED, 8, make_pairs(0.1, holm=[NOTHING]))
    assert "higher" not in unknown and "no difference between run 8 and run 1" in unknown


def test_no_p_is_smaller_than_before_holm():
    p = pd.Series([0.01, NOTHING, 0.04, 0.03, 0.5])
    adjusted = holm_adjusted(p)
    assert adjusted.tolist()[0] == pytest.approx(0.04) and np.isnan(adjusted[1])
    assert adjusted[[3, 2, 4]].tolist() == pytest.approx([0.09, 0.09, 0.5]) and not (adjusted < p).any()


@pytest.mark.parametrize(
    "low, high, same, verdict",
    [
        (0.8, 0.9, True, "compatible"),
        (0.8, 0.9, False, "not comparable"),
        (0.7, 0.8, True, "not comparable"),
        (NOTHING, NOTHING, True, "not comparable"),
    ],
)
def test_a_verdict_on_a_published_number(low, high, same, verdict):
    value = make_results(low=low, high=high).iloc[0]
    assert (
        views.result_verdict(value, same) == verdict
        and views.result_verdict(value, same, impossible=True) == "impossible"
    )
    assert views.result_verdict(make_results("not run", measured=NOTHING).iloc[0], same) == "not measured"


def test_only_the_published_settings_make_a_run_comparable():
    table1 = pd.DataFrame(dict(crop=[True], epochs=[25]), index=[8])
    for change in (
        dict(),
        dict(epochs=3),
        dict(crop=False),
        dict(config=RECORD["config"] | dict(width=0.25)),
    ):
        view = views.accuracy_view(make_results(), {8: RECORD | change}, table1)
        assert (
            view["verdict"].tolist() == ["not comparable" if change else "compatible"] and view.shape[1] == 8
        )
    assert views.accuracy_view(make_results("not run", measured=NOTHING), {}, table1).iloc[0, 2] == "not run"
    assert views.precision_view(make_results()).iloc[0].tolist() == [
        8,
        *["0.86: 0.850 [0.800, 0.900]"] * 4,
        88,
    ]
    idle = views.accuracy_view(make_results().assign(seeds=3, learned="no"), {8: RECORD}, table1).iloc[0]
    assert idle[["n (test)", "verdict"]].tolist() == ["88, 3 seeds", "did not learn"]
    never = views.accuracy_view(make_results().assign(learned="no"), {8: RECORD}, table1, [8])
    assert never["verdict"].item() == "impossible", "what no test set gives, no training can test"


def test_every_table_for_reading_has_at_most_eight_columns():
    pairs = make_pairs(0.1, -0.1)
    shown = views.paired_view(pairs, views.RANKING_NAMES)
    assert list(shown) == [
        "run",
        "AUC",
        "AUC of the reference",
        "difference [95 % interval]",
        "p",
        "Holm-adjusted p",
        "n",
        "seeds",
    ]
    assert shown.iloc[0, 3] == "+0.100 [+0.090, +0.110]"
    for names in (views.CROP_NAMES, views.EPOCH_NAMES):
        empty = pd.DataFrame(columns=[*names, "difference", "low", "high"])
        assert views.paired_view(empty, names).shape == (0, len(names) + 1) and len(names) < 8


def make_scores(high=0.6):
    rows = [("border only", 0.55, high), ("run 1, xception", 0.62, 0.66), ("run 8, light", 0.8, 0.84)]
    return pd.DataFrame(
        [
            dict(
                classifier=name,
                metric="auc",
                value=value,
                low=value - 0.04,
                high=top,
                why="4 groups" if top != top else "",
            )
            for name, value, top in rows
        ]
    )


def test_runs_are_compared_with_the_shortcuts():
    text = report.baselines_sentence(make_scores(), ("border only", "not measured"))
    assert (
        "*border only* has the highest AUC, 0.550" in text
        and "The interval of 1 of 2 runs" in text
        and text.endswith(": run 8, light.")
    )
    text = report.baselines_sentence(make_scores(NOTHING), ("border only",))
    assert "(4 groups)" in text and "not shown that a run lies above" in text
    assert "above chance level (0.500)" in report.baselines_sentence(make_scores().iloc[1:], ("border only",))
    assert report.baselines_sentence(pd.DataFrame(), ()) == "Nothing is measured yet."


def test_how_many_published_numbers_are_measured():
    assert report.coverage_sentence(make_results(measured=NOTHING)) == "No number of Table 2 is measured yet."
    assert (
        "6 of 6 published numbers are measured. 6 have an interval, and 6 of these intervals include"
        in report.coverage_sentence(make_results())
    )
    assert "None has an interval" in report.coverage_sentence(make_results(low=NOTHING, high=NOTHING))
    far = report.coverage_sentence(make_results(low=0.1, high=0.2))
    assert far.endswith("6 have an interval, and none of these intervals includes the published number.")


def test_early_epochs_in_words():
    pair = dict(
        run="8",
        schedule="published",
        early_epoch=8,
        last_epoch=25,
        early=0.5,
        last=0.4,
        difference=0.1,
        n=88,
        why="",
    )
    for low, high, end in (
        (0.05, 0.15, "the early epoch is better."),
        (-0.2, -0.1, "the last epoch is better."),
        (-0.1, 0.1, "no difference is shown."),
    ):
        text = report.epochs_sentence(pd.DataFrame([pair | dict(low=low, high=high)]))
        assert end in text and "too short" not in text
    short = pd.DataFrame([pair | dict(low=-0.1, high=0.1, last_epoch=3)])
    assert report.epochs_sentence(short).endswith("8th epoch against its 24th.")
    assert report.epochs_sentence(short.assign(low=NOTHING, high=NOTHING)).endswith(
        "8th epoch against its 24th."
    )
    assert "no run is trained" in report.epochs_sentence(short[:0]).lower()


def test_the_published_arithmetic_in_words():
    arithmetic = check_arithmetic(printed_table2())
    text = report.arithmetic_sentence(arithmetic)
    assert "Run 7 implies another fraction, 0.499 to 0.507" in text and text.endswith(
        "Either way none gives run 7."
    )
    assert (
        "If digits were rounded, no test set gives runs 3 and 7. If digits were cut off, no test set gives runs 7, 8 and 9."
        in text
    )
    verdicts = views.arithmetic_view(arithmetic).set_index("run")["verdict"].to_dict()
    assert verdicts == {n: "impossible" if n == 7 else "" for n in range(1, 10)}


@pytest.mark.parametrize(
    "ends, words",
    [
        ((0.6, 0.76), "other validation images could have reversed them"),
        ((0.6, 0.7), ""),
        ((NOTHING, NOTHING), "it is not known whether"),
    ],
)
def test_how_sure_the_choice_of_the_classifier_is(ends, words):
    ranked = RANKED.assign(low=[0.75, ends[0]], high=[0.85, ends[1]])
    text = report.classifier_sentence(dict(row=8, crop=True), ranked)
    assert text.startswith("`models/classifier` is now run 8: of the runs on head crops,") and words in text
    assert ("reversed them" in text) == bool(words) and text.endswith(
        "The test split was not used for this choice."
    )
    assert report.classifier_sentence({}, ranked) == "No run is trained, so there is no classifier yet."


def test_the_page_opens_with_what_was_found():
    against = make_pairs(0.05, 0.005, -0.05, holm=[0.01, 0.3, 0.2])
    lines = report.opening_sentences(make_results(), make_scores(), ("border only",), 8, against)
    assert lines[0] == (
        "Run 8, the best on validation, has a test AUC of 0.850 [0.800, 0.900] (n=88); the interval of its paired "
        "difference lies above zero for 1 of 3 other runs and below it for 1; Holm-adjusted p is under .05 for 1."
    )
    assert len(lines) == 3 and lines[2].startswith("6 of 6 published numbers are measured.")
    alone = report.opening_sentences(make_results(), make_scores(), (), 8, against[:0])
    assert alone[0].endswith("(n=88).")
    few = against.assign(low=NOTHING, high=NOTHING, holm=NOTHING)
    assert "too few groups" in report.opening_sentences(make_results(), make_scores(), (), 8, few)[0]
    nothing = report.opening_sentences(
        make_results("not run", measured=NOTHING), pd.DataFrame(), (), None, pd.DataFrame()
    )
    assert nothing == ["Nothing is measured yet.", "No number of Table 2 is measured yet."]


NONE = pd.DataFrame(columns=["first", "equal"])
CHANGE = dict(difference=0.03, low=0.01, high=0.05, why="", n=88)


def make_equal(*seconds, **changes):
    first = dict(first="11", equal="training", seeds=1)
    return pd.DataFrame([CHANGE | first | dict(second=name) | changes for name in seconds])


def test_comparisons_that_were_not_trained_have_no_line():
    nothing = report.comparison_sentences(NONE, NONE, NONE, NONE)
    assert nothing == ["No two runs or epochs that can be compared are trained."]
    lines = report.comparison_sentences(make_equal("1", seeds=3), NONE, NONE, NONE)
    assert lines == [
        "The recipe of run 11 instead of that of run 1 changes the test AUC by +0.030 [+0.010, +0.050] at equal "
        "pixels in training (n=88, 3 seeds)."
    ]


def test_our_runs_are_counted_against_each_configuration():
    ours = make_equal("1", "3").assign(difference=[0.03, 0.02], low=[0.01, -0.01])
    (line,) = report.comparison_sentences(NONE, ours, NONE, NONE)
    assert "above zero for 1 of 2; the smallest difference is +0.020 [-0.010, +0.050], to run 3." in line
    few = ours.assign(low=NOTHING, high=NOTHING, why="5 groups")
    (line,) = report.comparison_sentences(NONE, few, NONE, NONE)
    assert "above zero" not in line and "+0.020 (no interval: 5 groups), to run 3" in line


def test_crops_and_epochs_have_a_line_each():
    crops = pd.DataFrame([CHANGE | dict(cropped_row=8, whole_row=1)])
    early = pd.DataFrame([CHANGE | dict(run=run, early_epoch=3, last_epoch=10) for run in ("1", "8")])
    lines = report.comparison_sentences(NONE, NONE, crops, early)
    assert lines == [
        "Head crops instead of whole images change the test AUC by +0.030 [+0.010, +0.050] (run 8 minus run 1, "
        "n=88).",
        "An early epoch instead of the last changes the accuracy in run 8 by +0.030 [+0.010, +0.050] (epoch 3 minus "
        "10, n=88); of the intervals of 2 runs 2 lie above zero and 0 below it.",
    ]
    (line,) = report.comparison_sentences(NONE, NONE, NONE, early[:1])
    assert "run 8" not in line


def test_the_reading_of_the_report_stands_beside_the_published_values():
    arithmetic = check_arithmetic(printed_table2())
    leaks = pd.DataFrame([CHANGE | dict(run="8", metric="auc", protocol="published", seeds=1)])
    lines = report.reading_sentences(make_results(), leaks, arithmetic)
    assert lines == [
        "Test accuracy where frames are shuffled and the last epoch is read: run 8 0.850 [0.800, 0.900] (published "
        "0.86, n=88).",
        "Against a split that cuts no group, the test AUC changes by +0.030 [+0.010, +0.050] for run 8 where frames "
        "are shuffled one by one (1 seed).",
        "No test set gives the accuracy, precision and recall published for run 7.",
    ]
    ours = report.reading_sentences(make_results().assign(published=NOTHING), leaks[:0], arithmetic.drop(7))
    assert ours[0].endswith("(not published, n=88).") and len(ours) == 1
    none = report.reading_sentences(make_results("not run", measured=NOTHING), leaks[:0], arithmetic)
    assert none[0] == "No run was trained on the report's own split."
