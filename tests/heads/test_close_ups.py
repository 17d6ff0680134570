"""Close-ups: which images they are, and the counts of found and false heads."""

import numpy as np
import pandas as pd
import pytest
from helpers.head_samples import OnlyBright
from PIL import Image

from deepfake_nbs.heads.close_ups import (
    close_up_counts,
    count_heads,
    describe_close_ups,
    is_close_up,
    run_close_ups,
    show_close_ups,
)


def close_ups(n_heads, source="A", label=0):
    groups = [f"g{i}" for i in range(len(n_heads))]
    return pd.DataFrame(dict(source=source, label=label, group=groups, n_heads=n_heads))


def test_frames_of_a_video_are_no_close_ups():
    frames = pd.DataFrame(dict(frame=["", "3", np.nan, 0, None]))
    assert is_close_up(frames).tolist() == [True, False, True, False, True]


def test_counts_by_source_and_label_by_hand():
    close = pd.concat([close_ups([1, 1, 0, 4]), close_ups([2], label=1), close_ups([0, 1], "B")])
    table = close_up_counts(close).set_index(["source", "label"])
    assert table.index.tolist() == [("A", "real"), ("A", "fake"), ("B", "real"), ("all", "both")]
    assert table["n"].tolist() == [4, 1, 2, 7]
    assert table["found"].tolist() == pytest.approx([0.75, 1, 0.5, 5 / 7])
    assert table["false_heads"].tolist() == pytest.approx([0.75, 1, 0, 4 / 7])
    assert table.loc[("A", "fake"), "found_why"]


def test_intervals_are_over_groups_and_hold_the_value():
    table = close_up_counts(close_ups([1] * 180 + [0] * 10 + [2] * 10))
    row = table.iloc[-1]
    assert row["found_low"] < row["found"] == 0.95 < row["found_high"] <= 1
    assert row["false_heads_low"] < row["false_heads"] == 0.05 < row["false_heads_high"]
    alike = close_ups([1] * 180 + [0] * 10 + [2] * 10).assign(group=np.repeat(np.arange(20), 10))
    wide = close_up_counts(alike).iloc[-1]
    assert wide["found_high"] - wide["found_low"] > row["found_high"] - row["found_low"]


def test_an_interval_of_counts_does_not_go_below_zero():
    row = close_up_counts(close_ups([1] * 99 + [3])).iloc[-1]
    assert row["false_heads_low"] == 0 < row["false_heads"] == 0.02 < row["false_heads_high"]


def test_the_sentence_compares_with_what_is_asked():
    good = describe_close_ups(close_up_counts(close_ups([1] * 99 + [0])))
    assert good.startswith("A head was found in 99.0% of 100 close-ups") and "missed" not in good
    lost = describe_close_ups(close_up_counts(close_ups([1] * 96 + [0] * 4)))
    assert "at least 97%: **missed**" in lost and lost.count("missed") == 1
    false = describe_close_ups(close_up_counts(close_ups([1] * 94 + [2] * 6)))
    assert "0.060 false heads an image" in false and "at most 0.05: **missed**" in false
    both = describe_close_ups(close_up_counts(pd.concat([close_ups([1] * 50), close_ups([1, 0], "B", 1)])))
    assert both.endswith("Fewest were found in B, fake: 50.0% of 2.")
    tied = describe_close_ups(close_up_counts(pd.concat([close_ups([1] * 50), close_ups([1], "B", 1)])))
    assert "Fewest" not in tied and "target of this project at least 97%: reached" in tied


def test_without_close_ups_the_page_says_so():
    none = close_up_counts(close_ups([]))
    assert len(none) == 0 and len(show_close_ups(none)) == 0
    assert "no images besides frames" in describe_close_ups(none)


def test_the_table_of_a_page_shows_values_with_intervals():
    shown = show_close_ups(close_up_counts(close_ups([1] * 99 + [0])))
    assert list(shown) == ["source", "label", "n", "groups", "a head found", "false heads an image"]
    assert shown["a head found"].iloc[-1].startswith("0.990 [")


def test_a_detector_counts_heads_file_by_file(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, colour in zip(paths, ("white", "black", "white", "black", "black"), strict=True):
        Image.new("RGB", (64, 64), colour).save(path)
    assert count_heads(OnlyBright(), paths, batch_size=2) == [2, 0, 2, 0, 0]
    assert count_heads(OnlyBright(), []) == []


def test_a_run_counts_dropped_images_as_not_found(monkeypatch, tmp_path):
    whole = pd.DataFrame(
        dict(path=["a", "b", "c"], source="A", label=0, group=["x", "y", "z"], frame=["", "", "7"])
    )
    cropped = pd.DataFrame(dict(whole=["b", "c"], n_heads=["3", "1"]))
    tables = {"cvcs_dfd": whole, "cvcs_cropped_dfd": cropped}
    monkeypatch.setattr("deepfake_nbs.data.manifest.read_manifest", lambda folder: tables[folder.name])
    assert run_close_ups(tmp_path)[["path", "n_heads"]].values.tolist() == [["a", 0], ["b", 3]]
