"Coverage tables of conformal sets, on known and on unknown sources."

import numpy as np
import pandas as pd
import pytest

from deepfake_nbs.audit import sets
from deepfake_nbs.classifiers.transfer import SCORES
from deepfake_nbs.files import write_table


def draw(split, source, seed, n=600, apart=1.5):
    rng = np.random.default_rng(seed)
    label = (np.arange(n) // 3) % 2
    logit = rng.normal((2 * label - 1) * apart, 1.2)
    frame = pd.DataFrame(dict(label=label, probability=1 / (1 + np.exp(-logit)), split=split, source=source))
    return frame.assign(group=[f"{source}{seed}-{i // 3}" for i in range(n)])


@pytest.fixture(scope="module")
def frame():
    parts = [draw(split, "A", seed) for split, seed in (("validation", 0), ("test", 1))]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def hard():
    parts = [draw(split, "B", seed, apart=-0.5) for split, seed in (("validation", 2), ("test", 3))]
    return pd.concat(parts, ignore_index=True)


def test_every_classifier_risk_and_kind(frame):
    table = sets.conformal_table({"run 12 (net)": frame, "SIFT + SVM": frame}, n_splits=30)
    assert len(table) == 12 and set(table["sets"]) == set(sets.KINDS)
    assert (abs(table["splits"] - (1 - table["risk"])) < 0.02).all(), "group-resampled, within two points"
    assert (abs(table["all"] - (1 - table["risk"])) < 0.08).all() and (table["all_low"] < table["all"]).all()
    assert sets.conformal_view(table, "SIFT + SVM").shape == (6, 8)
    said = sets.coverage_sentence(table)
    assert (
        said.startswith("At risk 0.1 the promise of 0.9 is")
        and "of run 12 (net) hold the right label" in said
    )
    assert "600 test images in 200 groups" in said and "nan" not in said


def test_too_few_images_say_how_many_are_needed(frame):
    few = pd.concat([frame[:12], frame[frame["split"].eq("test")]])
    table = sets.conformal_table({"a": few}, n_splits=3)
    assert (
        table.loc[table["risk"].eq(0.05) & table["sets"].eq("by class"), "why"]
        .str.contains("at least 19")
        .all()
    )
    assert "too few images" in sets.conformal_view(table).to_numpy()
    assert "expected at least 9" in sets.coverage_sentence(table[table["sets"].eq("by class")])


def test_one_class_and_nothing(frame):
    table = sets.conformal_table({"a": frame[frame["label"].eq(0)]})
    assert table.empty and sets.conformal_view(table).shape == (0, 8)
    assert sets.coverage_sentence(table) == "Conformal sets at risk 0.1: not measured."


def test_one_group_has_no_interval_and_no_divisions(frame):
    part = frame[frame["split"].eq("test")].assign(group="one")
    row = sets.coverage_row(frame[frame["split"].eq("validation")].assign(group="one"), part, 0.1)
    assert np.isnan(row["all_low"]) and "1 group" in row["all_why"] and np.isnan(row["splits"])


def test_a_source_that_calibration_has_not_seen(frame, hard):
    table = sets.by_source_table(pd.concat([frame, hard], ignore_index=True)).set_index("source")
    assert table.loc["B", "without_value"] < table.loc["B", "with_value"] - 0.1
    assert table.loc["A", "without_value"] > 0.9
    alone = sets.by_source_table(frame)
    assert (
        alone["without_why"].tolist() == ["no other source"]
        and "undefined" in sets.shift_view(alone).to_numpy()
    )
    few = sets.by_source_table(pd.concat([frame.groupby("split").head(4), hard], ignore_index=True))
    assert (
        few.set_index("source").loc["B", "without_why"].startswith("too few images")
        or few["without_why"].str.contains("expected real and fake").any()
    )


def test_sources_that_the_network_has_not_seen(frame, hard, tmp_path):
    assert sets.left_out_table(tmp_path).empty
    said = sets.shift_sentence(sets.by_source_table(frame), sets.left_out_table(tmp_path))
    assert "not measured in this run folder; `deepfake-nbs train --leave-out-sources`" in said
    scores = pd.concat([frame.assign(left_out=0), hard.assign(left_out=1)], ignore_index=True)
    scores = scores.assign(path=scores.index.astype(str), method="none", **dict.fromkeys(SCORES, 1.0))
    (tmp_path / "leave_out/B").mkdir(parents=True)
    write_table(scores, tmp_path / "leave_out/B/scores.csv")
    table = sets.left_out_table(tmp_path)
    row = table.iloc[0]
    assert row["family"] == "B" and row["n"] == 600 and row["left_out_value"] < 0.7 < 0.85 < row["kept_value"]
    assert sets.shift_view(table).shape == (1, 5)
    assert f"left-out family: B {row['left_out_value']:.3f}" in sets.shift_sentence(
        sets.by_source_table(frame), table
    )


def test_sets_are_counted(frame):
    found = sets.count_sets(frame, 0.2)
    assert list(found.columns) == list(sets.SETS) and found.sum().sum() == 600
    assert found.loc["real", "{real}"] > found.loc["real", "{fake}"]
    with pytest.raises(ValueError, match="expected real and fake ones"):
        sets.count_sets(frame[frame["label"].eq(1)])


def test_the_figure_has_a_row_for_each_risk(frame):
    import matplotlib.pyplot as plt

    ax = sets.plot_coverage(sets.conformal_table({"a": frame}, n_splits=2))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a, 0.8", "a, 0.9", "a, 0.95"]
    plt.close("all")
