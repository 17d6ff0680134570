"People as one more classifier: agreement by hand, what both get wrong, and studies that cannot be read."

import numpy as np
import pandas as pd
import pytest

from deepfake_nbs.audit import people


@pytest.fixture
def answers():
    "40 images in 20 groups: people are wrong about every fourth, the classifier about every fourth and every fifth."
    i = np.arange(40)
    label = i % 2
    wrong_people, wrong_ours = i % 4 == 0, (i % 4 == 0) | (i % 5 == 0)
    said = [np.where(wrong, 1 - label, label) * 0.8 + 0.1 for wrong in (wrong_people, wrong_ours)]
    method = np.where(label == 1, "StyleGAN", "none")
    return pd.DataFrame(dict(label=label, method=method, group=i // 2, people=said[0], ours=said[1]))


def test_agreement_by_hand(answers):
    table = people.people_agreement(answers).set_index("images")
    assert list(table.index) == ["all", "real", "StyleGAN"]
    row = table.loc["all"]
    assert row["people_wrong"] == 10 / 40 and row["ours_wrong"] == 16 / 40 and row["both_wrong"] == 10 / 40
    assert row["agree"] == 34 / 40 and row["expected"] == pytest.approx(0.1)
    assert row["agree_low"] < row["agree"] < row["agree_high"]
    assert table.loc["real", "n"] == 20 and table.loc["StyleGAN", "people_wrong"] == 0
    assert "for 0.850 [" in people.agreement_sentence(table.reset_index())
    assert people.agreement_view(table.reset_index()).shape == (3, 8)


def test_images_without_a_prediction_are_left_out(answers):
    table = people.people_agreement(answers.assign(ours=answers["ours"].where(answers.index > 3)))
    assert table.loc[0, "n"] == 36
    nothing = people.people_agreement(answers.assign(ours=np.nan))
    assert "not compared" in people.agreement_sentence(nothing) and people.agreement_view(nothing).empty


def test_a_study_that_is_not_there_is_named(tmp_path):
    found, why = people.read_study(tmp_path / "lago")
    assert found is None
    assert why == (
        "Answers of people: not measured; the folder lago with labels.csv is not in the data root "
        f"{tmp_path.name}."
    )


def test_a_table_without_answers_is_named(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label,method,group\n0.png,real,none,a\n")
    found, why = people.read_study(tmp_path)
    assert found is None and "labels.csv: lacks the columns human_mean_1to7" in why
