"The most confident mistakes: what is gathered about each, and what may be shown."

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import zero_one_loss

from deepfake_nbs.classifiers import mistakes
from deepfake_nbs.classifiers.outliers import OUTLIERS


def draw(n=60, seed=0):
    "Test images of fifteen groups, with everything that the evidence needs."
    rng, i = np.random.default_rng(seed), np.arange(n)
    label, probability = i % 2, rng.random(n)
    images = pd.DataFrame(
        dict(path=[f"test/secret{k:03d}.png" for k in i], label=label, probability=probability)
    )
    images = images.assign(
        group=[f"person{k}" for k in i // 4], video="", frame=pd.NA, source="CelebA", width=90
    )
    images = images.assign(height=120, method=np.where(label, "StarGAN", "none"), split="test")
    images = images.assign(
        origin=[f"set/{k // 2}.jpg" for k in i], image=mistakes.image_names(images["path"])
    )
    wrong = (images["probability"] >= 0.5) != (label == 1)
    return images.assign(wrong=wrong, confidence=(images["probability"] - 0.5).abs())


def study(images, names=("3", "8"), **changes):
    others = {name: draw(len(images), int(name))[["path", "probability"]] for name in names}
    full = mistakes.with_heads(mistakes.with_counterparts(mistakes.with_others(images, others)), None)
    record = dict(config=dict(net="light", protocol="group"), crop=False)
    values = dict(name="12", record=record, folder=Path("training/12"), images=full, others=list(names))
    return mistakes.Mistakes(**values | dict(learned=[], dropped=0) | changes)


def test_the_error_rate_is_that_of_scikit_learn():
    images = draw()
    text = mistakes.mistakes_sentence(study(images))
    error = zero_one_loss(images["label"], images["probability"] >= 0.5)
    n, sure = images["wrong"].sum(), (images["wrong"] & (images["confidence"] > 0.4)).sum()
    assert f"classifies {n} of 60 test images wrongly: an error rate of {error:.3f} [" in text
    assert "over 15 groups" in text and f"In {sure} of these mistakes" in text


def test_the_kind_that_leads_is_chosen_by_rate_and_not_by_number():
    reals, fakes = 10 * [dict(label=0, method="none")], 90 * [dict(label=1, method="StarGAN")]
    images = pd.DataFrame(reals + fakes).assign(wrong=[True] * 5 + [False] * 5 + [True] * 9 + [False] * 81)
    text = mistakes.kind_sentence(images)
    assert (
        "of real images than of fakes is classified wrongly: 9 of 90 fakes" in text
        and "StarGAN (9 of 90) is missed" in text
    )
    one = mistakes.kind_sentence(images[images["label"].eq(0)])  # A class that is not there
    assert one == "5 of 10 real images are classified as fake."


def test_a_run_without_a_mistake_and_a_folder_without_a_run_say_so(tmp_path):
    images = draw().assign(probability=lambda df: df["label"].astype(float), wrong=False)
    found = study(images)
    assert "classifies 0 of 60 test images wrongly" in mistakes.mistakes_sentence(found)
    assert mistakes.shared_sentence(found) == mistakes.agreement_sentence(found) == ""
    shown = mistakes.most_confident(found.images)
    assert mistakes.shown_sentence(shown, found, True) == "There is no mistake to show."
    assert mistakes.mistakes_view(shown).empty and mistakes.mistakes_table(found, named=False).empty
    assert mistakes.study_mistakes(tmp_path) is None and "No run is finished" in mistakes.mistakes_sentence(
        None
    )


def test_sharing_counts_the_runs_that_saw_the_image():
    images = draw(4)
    seen = images[["path"]].assign(
        path=images["path"].str.replace("png", "jpg"), probability=[0.9, 0.9, 0.1, 0.1]
    )
    found = mistakes.with_others(images, {"3": seen, "8": seen[:2]})
    assert found["others"].tolist() == [2, 2, 1, 1] and found["others_wrong"].tolist() == [2, 0, 0, 1]
    assert found["run 8"].isna().tolist() == [False, False, True, True]


def test_what_is_shared_is_compared_with_the_rest():
    same = draw()
    found = study(same)
    both, fraction = mistakes.agreement(found.images), found.images["others_wrong"] / 2
    wrong = found.images["wrong"]
    assert both["difference"] == pytest.approx(fraction[wrong].mean() - fraction[~wrong].mean())
    assert both["low"] < both["difference"] < both["high"]
    copied = mistakes.with_others(same, {"3": same[["path", "probability"]]})  # It shares every mistake
    assert mistakes.agreement(copied)["difference"] == 1
    few = mistakes.agreement(found.images[found.images["group"].isin(["person0", "person1"])])
    assert np.isnan(few["low"]) and "group" in few["why"]


@pytest.mark.parametrize(
    "real, fake",
    [
        (dict(pair="L1"), dict(pair="L1")),
        (dict(video="a/012.mp4", frame=3), dict(video="b/012_013.mp4", frame=3)),
        (dict(video="a/03__hall.mp4", frame=3), dict(video="b/03_05__hall__XY.mp4", frame=3)),
        (dict(origin="0-CelebA/0_1.jpg"), dict(origin="1-StarGAN/0_1.jpg")),
    ],
)
def test_a_fake_has_the_key_of_its_original(real, fake):
    rows = [dict(group="g", path="test/0.png", video="", frame=pd.NA) | row for row in (real, fake)]
    assert mistakes.counterpart_key(rows[0]) == mistakes.counterpart_key(rows[1])
    other = {"frame": 9} if rows[1]["video"] else {key: "other" for key in fake}
    assert mistakes.counterpart_key(rows[0]) != mistakes.counterpart_key(rows[1] | other)


def test_without_a_name_in_common_the_only_real_image_of_the_group_is_the_original():
    names = dict(path=["a.png", "b.png", "c.png", "d.png"], label=[0, 1, 1, 1], group=["g", "g", "g", "h"])
    images = pd.DataFrame(names).assign(video="", frame=pd.NA, wrong=[False, True, False, True])
    found = mistakes.with_counterparts(images)
    assert found["counterparts"].tolist() == [2, 1, 1, 0]
    assert found["counterparts_right"].tolist() == [1, 1, 1, 0]
    two = pd.concat([images, images[:1].assign(path="e.png")], ignore_index=True)  # No longer the only one
    assert mistakes.with_counterparts(two)["counterparts"].tolist() == [0] * 5


def test_nothing_names_an_image_or_a_person_where_faces_are_not_shown():
    found = study(draw())
    shown = mistakes.most_confident(found.images)
    texts = [mistakes.mistakes_view(shown).to_csv(), mistakes.mistakes_table(found, named=False).to_csv()]
    texts += [mistakes.shown_sentence(shown, found, False), mistakes.mistakes_sentence(found)]
    for text in [*texts, mistakes.shared_sentence(found), mistakes.agreement_sentence(found)]:
        assert not any(word in text for word in ("secret", "person", ".png", ".jpg"))
    assert "No face and no name of an image is shown" in texts[2]
    assert "secret" in mistakes.mistakes_table(found, named=True).to_csv()


def test_at_most_six_of_each_class_are_shown_in_order():
    shown = mistakes.most_confident(draw(200))
    assert shown["label"].tolist() == [1] * 6 + [0] * 6 and shown["number"].tolist() == [*range(1, 13)]
    for _, part in shown.groupby("label"):
        assert part["confidence"].is_monotonic_decreasing and part["wrong"].all()
    assert mistakes.mistakes_view(study(draw()).images.assign(number=1, distance=1.0)).shape[1] == 8


def test_a_box_is_measured_in_the_whole_image_and_a_missing_one_is_said():
    images = draw(2)
    crops = pd.DataFrame(
        dict(path=["test/secret000.png"], x0=["10"], y0=["20"], x1=["50"], y1=["90"], score=["0.5"])
    )
    found = mistakes.with_heads(images, crops)
    assert found["head"].tolist() == ["found", "not found"]
    assert found.loc[0, ["head_width", "head_height"]].tolist() == [40, 70]
    view = mistakes.mistakes_view(study(images).images.assign(number=[1, 2]))
    assert view.iloc[0, -1] == "90 x 120; head not looked for"


def test_runs_that_learned_are_named_by_number_alone():
    found = study(draw(), learned=["3", "custom-xception-adam"])
    text = mistakes.shared_sentence(found)
    assert "Of the others, 2 (run 3 and 1 with other settings) have" in text and "custom" not in text
    assert "Of the others, 0 have" in mistakes.shared_sentence(study(draw()))


def test_a_damaged_file_of_distances_is_named(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / OUTLIERS).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=OUTLIERS):
        mistakes.with_distances(mistakes.most_confident(draw()), tmp_path)
