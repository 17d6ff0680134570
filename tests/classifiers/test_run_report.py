"Contracts of the page of one run: its sentences say what the record and the predictions say."

from dataclasses import asdict, replace

import pandas as pd
import pytest

from deepfake_nbs.classifiers.recipes import TrainingConfig, table_config
from deepfake_nbs.classifiers.run_report import (
    accuracy_sentence,
    compare_config,
    config_view,
    is_published,
    limits_sentence,
    metrics_note,
    metrics_view,
    training_sentence,
)

SMALL = TrainingConfig(image_size=96, width=0.25, epochs=3)
RECORD = dict(
    run="8",
    counts=dict(train=382, validation=128, test=88),
    class_counts=[190, 192],
    config=asdict(SMALL),
    crop=False,
    note="no cropped dataset",
    parameters=1_371_650,
    images_per_second=337.6,
    device="cpu",
    epochs=2,
    wall_seconds=96.0,
    seed=42,
    data="miniature",
)


@pytest.mark.parametrize("number", range(1, 12))
def test_every_run_is_compared_with_what_it_started_from(number):
    table = compare_config(number, SMALL)
    assert list(table) == ["the report" if is_published(number) else "our recipe", "this run"]
    assert table.iloc[:, 0]["epochs"] == table_config(number).epochs and table["this run"]["epochs"] == 3
    assert table.iloc[:, 0]["seed"] == "" and set(table.index) == set(asdict(SMALL))


def test_the_training_is_told_with_its_counts():
    sentence = training_sentence(RECORD)
    for words in (
        "**Run 8**: 382 images to train on (190 real, 192 fake), 128 to validate, 88 to test",
        "asked for: True, used: False",
        "No cropped dataset. ",
        "1,371,650 parameters, 338 training images a second on cpu in auto",
        "2 of 3 epochs, 1.6 minutes",
    ):
        assert words in sentence


def test_the_accuracy_stands_beside_the_more_frequent_class():
    test = pd.DataFrame(
        dict(path=list("abcd"), label=[0, 1, 1, 1], probability=[0.1, 0.9, 0.8, 0.2], group=list("abcd"))
    )
    sentence = accuracy_sentence(test, test.assign(probability=0.1), 1)
    assert "the accuracy is 0.75" in sentence and "(n=4)" in sentence
    assert (
        "more frequent class every time would score 0.750" in sentence
        and "whose results the report states, gives 0.250" in sentence
    )
    assert "would score 0.750" in accuracy_sentence(test.assign(label=1 - test.label), test, 1)


def test_the_limits_name_windows_and_runs_that_the_report_has_not():
    sentence = limits_sentence(RECORD, SMALL, 8)
    assert (
        "with one seed (42), trained at 96 pixels and at width 0.25 for 3 epochs on data `miniature` under the `group` split"
        in sentence
    )
    assert "full width for 25 epochs" in sentence
    sentence = limits_sentence(RECORD, replace(SMALL, image_size=128, window=0.75, augment="flip"), 11)
    assert (
        "on windows of 96 pixels of images of 128, which it classifies whole," in sentence
        and sentence.endswith("no such run.")
    )


def test_the_page_shows_fields_in_words_and_every_change():
    changed = replace(SMALL, weight_decay=0.1)
    table = config_view(compare_config(8, changed), changed).set_index("field")
    assert "run" in table.index and "row" not in table.index and "weight decay" in table.index
    assert "weight decay" not in config_view(compare_config(8, SMALL), SMALL)["field"].tolist()
    assert table.loc["head crops", "the report"] == "yes"


def test_missing_intervals_are_explained_once():
    nan = float("nan")
    rows = dict(value=[0.8, 0.15], low=[0.7, nan], high=[0.9, nan], n=464, why=["", "67 groups count as 25"])
    frame = pd.DataFrame(rows, index=pd.Index(["auc", "brier"], name="metric"))
    both = dict(validation=frame, test=frame)
    table = metrics_view(both)
    assert table["metric"].tolist() == ["AUC", "Brier score"] and table["test"].iloc[1] == "0.150 –"
    assert metrics_note(both).count("67 groups of unequal size are worth 25") == 1
