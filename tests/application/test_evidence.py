"Thresholds, verdicts, and evidence as plain data."

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from deepfake_nbs.application import evidence
from deepfake_nbs.application.cli import app
from deepfake_nbs.application.evidence import (
    THRESHOLDS,
    HeadPrediction,
    Thresholds,
    calibrated_thresholds,
    choose_thresholds,
)
from deepfake_nbs.application.models import CLASSIFIER, untrained_run
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.core import file_sha256, write_json, write_text
from deepfake_nbs.heads.detector import HeadBox


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def give_heads(pipeline, *boxes):
    "A detector that finds these boxes in every photograph."
    found = [HeadBox(box, 0.9 - i / 1000) for i, box in enumerate(boxes)]
    pipeline.detector.find_in_squares = lambda squares, sizes, threshold=None: [list(found) for _ in squares]
    return pipeline


def test_thresholds_by_hand():
    label = [0] * 20 + [1] * 20
    probability = [0.1] * 10 + [0.5] * 8 + [0.6, 0.65] + [0.6] * 10 + [0.9] * 10
    chosen = choose_thresholds(
        label, probability, confidence=0
    )  # From 0.6: 20 of 22 right; from 0.5: 20 of 30. Up to 0.5: 18 of 18; up to 0.6: 19 of 29
    assert (chosen.real_below, chosen.fake_above) == (0.5, 0.6)
    assert (
        choose_thresholds(label, probability, least=21, confidence=0).real_below,
        choose_thresholds(label, probability, least=23, confidence=0).fake_above,
    ) == (
        None,
        None,
    )


def test_both_classes_weigh_the_same():
    label, probability = [1] * 90 + [0] * 10, [0.8] * 90 + [0.8] * 5 + [0.1] * 5
    assert (
        choose_thresholds(label, probability).fake_above is None
    )  # 90 of 95 in numbers, but every second real image is called fake


@pytest.mark.parametrize("n, confidence", [(20, 0), (200, None)])
def test_a_gap_that_nobody_needs_is_closed(n, confidence):
    chosen = choose_thresholds(
        [0] * n + [1] * n,
        np.concatenate([np.linspace(0.1, 0.45, n), np.linspace(0.55, 0.9, n)]),
        confidence=confidence,
    )
    assert chosen.real_below == chosen.fake_above and chosen.verdict(0.46) in ("real", "fake")


@pytest.mark.parametrize("label", [[0] * 30, [1] * 30])
def test_one_class_sets_no_threshold(label):
    chosen = choose_thresholds(label, np.linspace(0, 1, 30))
    assert chosen.real_below is chosen.fake_above is None and {chosen.verdict(p) for p in (0, 0.5, 1)} == {
        "unsure"
    }


def write_training(run, weights, n=20):
    rows = ["path,label,probability,group,split,checkpoint"]
    rows += [f"{i}.png,{label},{p},g,validation,best" for i in range(n) for label, p in ((0, 0.2), (1, 0.7))]
    rows += ["x.png,0,0.99,g,test,best", "x.png,0,0.99,g,validation,last"] * 50  # Neither may matter
    write_json(run / "training" / "8" / "run.json", {"weights_sha256": weights})
    write_text(run / "training" / "8" / "predictions.csv", "\n".join(rows) + "\n")


def test_thresholds_come_from_validation_and_are_kept_under_the_weights(tmp_path):
    run = untrained_run(tmp_path)
    weights = file_sha256(run / CLASSIFIER / "model.safetensors")
    write_training(run, weights)
    expected = calibrated_thresholds([0, 1] * 20, [0.2, 0.7] * 20)
    assert Pipeline.load(run).thresholds == expected
    (run / "training" / "8" / "predictions.csv").unlink()
    assert Pipeline.load(run).thresholds == expected and weights in json.loads((run / THRESHOLDS).read_text())
    write_training(run, "another network")
    (run / THRESHOLDS).unlink()
    assert "none was set on validation" in Pipeline.load(run).thresholds.origin


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda text: text.replace(",split,", ",part,"), "lacks the columns ['split']"),
        (lambda text: text.replace(",0.2,", ",,"), "row 2: label or probability is no number"),
        (lambda text: text.replace(",0.2,", ",nan,"), "row 2: label 0, probability nan"),
        (lambda text: text.replace(",1,0.7,", ",2,0.7,"), "row 3: label 2"),
        (
            lambda text: text.replace("g,validation", "g\0\xff,validation").encode("latin-1"),
            "not a table in UTF-8",
        ),
    ],
)
def test_damaged_predictions_are_named(tmp_path, photos, damage, words):
    run = untrained_run(tmp_path)
    write_training(run, file_sha256(run / CLASSIFIER / "model.safetensors"))
    path = run / "training" / "8" / "predictions.csv"
    spoilt = damage(path.read_text())
    path.write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt.encode())
    result = invoke("check", photos, "--run", run)
    assert result.exit_code == 2 and "predictions.csv" in result.stderr and words in result.stderr


def test_a_run_that_may_only_be_read_still_judges(tmp_path, monkeypatch):
    run = untrained_run(tmp_path)
    write_training(run, file_sha256(run / CLASSIFIER / "model.safetensors"))

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(evidence, "write_json", refuse)
    assert Pipeline.load(run).thresholds.fake_above is not None and not (run / THRESHOLDS).exists()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"WEIGHTS": {"fake": 1}}',
        '{"WEIGHTS": ["real_below", "fake_above"]}',
        '{"WEIGHTS": {"real_below": "low", "fake_above": 0.7, "origin": "x"}}',
        '{"WEIGHTS": {"real_below": 0.2, "fake_above": [0.7], "origin": "x"}}',
        '{"WEIGHTS": {"real_below": 0.2, "fake_above": NaN, "origin": "x"}}',
        '{"WEIGHTS": {"real_below": 0.9, "fake_above": 0.1, "origin": "x"}}',
        '{"WEIGHTS": {"real_below": 0.2, "fake_above": 0.7, "origin": null}}',
    ],
)
def test_broken_thresholds_are_named(tmp_path, photos, text):
    run = untrained_run(tmp_path)
    write_text(run / THRESHOLDS, text.replace("WEIGHTS", file_sha256(run / CLASSIFIER / "model.safetensors")))
    result = invoke("check", photos, "--run", run)
    assert result.exit_code == 2 and "thresholds.json" in result.stderr and "Traceback" not in result.output


def test_evidence_is_plain_data_and_thresholds_change_words_only(heads_run, photos):
    answer = give_heads(Pipeline.load(heads_run), (5.0, 5.0, 25.0, 30.0)).check(sorted(photos.iterdir())[0])
    assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict() and answer.to_dict()["heads"][0][
        "box"
    ] == [5.0, 5.0, 25.0, 30.0]
    said = answer.with_thresholds(0.0, 0.0)
    assert said.verdict == said.heads[0].verdict == "fake" and said.probability == answer.probability
    assert replace(answer, probability=None, heads=()).with_thresholds(0.0, 0.0).verdict is None
    assert answer._repr_png_()[:4] == b"\x89PNG" and replace(answer, photo="gone.png")._repr_png_() is None


def test_other_thresholds_renew_what_is_said_about_other_heads(heads_run, photos):
    answer = give_heads(Pipeline.load(heads_run), (5.0, 5.0, 25.0, 30.0)).check(sorted(photos.iterdir())[0])
    heads = tuple(HeadPrediction((0, 0, 9, 9), 0.9, p, "unsure") for p in (0.3, 0.6, 0.8))
    plain = replace(answer, heads=heads, main_head=0, probability=0.3, notes=("another note",))
    said = "the main head is not classified as fake, but head {} is".format
    one, two = plain.with_thresholds(0.1, 0.7), plain.with_thresholds(0.1, 0.5)
    assert one.notes == ("another note", said("3")) and two.notes == one.with_thresholds(0.1, 0.5).notes == (
        "another note",
        said("2, 3"),
    )
    assert one.with_thresholds(0.1, 0.2).notes == one.with_thresholds(0.1, 0.9).notes == ("another note",)


def test_thresholds_of_an_earlier_version_open_and_json_keeps_its_keys(tmp_path, photos):
    run = untrained_run(tmp_path)
    weights = file_sha256(run / CLASSIFIER / "model.safetensors")
    for names in (("real_to", "fake_from"), ("real_below", "fake_above")):
        write_json(
            run / THRESHOLDS, {weights: dict(zip((*names, "origin"), (0.2, 0.7, "by hand"), strict=True))}
        )
        assert Pipeline.load(run).thresholds == Thresholds(0.2, 0.7, "by hand")
    both = dict(real_to=0.2, real_below=0.2, fake_above=0.7, origin="by hand")
    write_json(run / THRESHOLDS, {weights: both})
    with pytest.raises(ValueError, match="thresholds.json"):
        Pipeline.load(run)
    write_json(run / THRESHOLDS, {})
    line = json.loads(invoke("check", sorted(photos.iterdir())[0], "--run", run, "--json").stdout)
    assert set(line) == {
        "schema_version",
        "photo",
        "size",
        "region",
        "probability",
        "verdict",
        "reason",
        "heads",
        "strongest",
        "notes",
        "thresholds",
        "classifier",
        "versions",
        "seconds",
        "matches",
        "distance",
        "distance_limit",
    }
    assert set(line["thresholds"]) == {"real_to", "fake_from", "origin", "temperature"}
    assert set(line["heads"][0]) == {"box", "score", "probability", "verdict", "distance"}
