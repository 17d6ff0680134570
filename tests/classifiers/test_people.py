"A classifier beside people who looked at the same images."

import numpy as np
import pytest

from deepfake_nbs.classifiers import people


def write_study(folder, change=lambda lines: lines, n=60):
    "Photographs that get 2 of 7, StyleGAN faces 5, and StyleGAN2 faces that people believe more than photographs."
    lines = [f"path,label,method,group,{people.ANSWER}"]
    for i in range(n):
        method = ("none", "StyleGAN", "StyleGAN2")[i % 3]
        answer = dict(none=3, StyleGAN=5, StyleGAN2=2)[method] + (i % 7) / 20
        lines.append(f"{i}.png,{'fake' if i % 3 else 'real'},{method},g{i},{answer}")
    (folder / "labels.csv").write_text("\n".join(change(lines)))
    return folder


def test_people_and_a_classifier_are_scored_on_the_same_images(tmp_path):
    asked = []

    def predict(files):
        asked.extend(files)
        return np.array([float(int(path.stem) % 3 == 2) for path in files])  # Finds StyleGAN2 alone

    table = people.compare_with_people(write_study(tmp_path), predict).set_index("method")
    assert asked[1] == tmp_path / "1.png" and list(table.index) == ["all", "StyleGAN", "StyleGAN2"]
    assert table["people"].tolist() == pytest.approx([0.5, 1.0, 0.0])
    assert table["ours"].tolist() == pytest.approx([0.75, 0.5, 1.0])
    assert table["n"].tolist() == [60, 40, 40]
    text = people.people_sentence(table.reset_index())
    assert "On 60 images of the study" in text and "StyleGAN2 1.000 and 0.000" in text


def test_images_without_a_head_are_left_out_for_both_and_counted(tmp_path):
    def predict(files):
        return np.array([np.nan if path.stem in ("0", "1") else 0.5 for path in files])

    table = people.compare_with_people(write_study(tmp_path), predict)
    assert table.loc[0, ["n", "n_missing"]].tolist() == [58, 2]
    assert "2 images in which no head was found" in people.people_sentence(table)
    nothing = people.compare_with_people(tmp_path, lambda files: np.full(len(files), np.nan))
    assert nothing["n"].tolist() == [0, 0, 0] and "undefined" in people.people_sentence(nothing)


def test_an_absent_study_is_not_measured(tmp_path):
    table = people.compare_with_people(tmp_path / "lago", lambda files: pytest.fail("nothing to predict"))
    assert table.empty and "not measured" in people.people_sentence(table)


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda lines: [lines[0], lines[1].replace(",3.0", ",9"), *lines[2:]],
            "line 2: label 'real', human_mean_1to7 9.0",
        ),
        (lambda lines: [lines[0], lines[1].replace("real", "maybe"), *lines[2:]], "line 2: label 'maybe'"),
        (
            lambda lines: [lines[0], lines[1].replace(",3.0", ",high"), *lines[2:]],
            "'high'; expected a number",
        ),
        (
            lambda lines: [line.replace("human_mean", "mean") for line in lines],
            "lacks the columns human_mean_1to7",
        ),
        (lambda lines: lines[:2], "holds one label only"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path, change, words):
    with pytest.raises(ValueError, match="labels.csv") as error:
        people.read_answers(write_study(tmp_path, change))
    assert words in str(error.value)
