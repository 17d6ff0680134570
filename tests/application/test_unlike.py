"Images that look like nothing a classifier was trained on, and the temperature of a classifier."

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deepfake_nbs.application.cli import app
from deepfake_nbs.application.evidence import THRESHOLDS, give_verdict
from deepfake_nbs.application.models import CLASSIFIER, untrained_run
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.classifiers.calibration import scale_probability
from deepfake_nbs.classifiers.outliers import Outliers, features_and_logits, write_outliers
from deepfake_nbs.core import file_sha256, write_json
from deepfake_nbs.heads.detector import HeadBox


def add_outliers(run, limit, **changes):
    "A distance from zero beside the classifier of a run."
    model = Pipeline.load(run).model
    n = features_and_logits(model, torch.zeros(1, 3, 64, 64))[0].shape[1]
    centre = np.full((1, n), 9, np.float32)
    write_outliers(
        Outliers(np.eye(n, dtype=np.float32), centre, limit, ("A, real",), **changes), run / CLASSIFIER
    )


def give_heads(pipeline, *boxes):
    found = [HeadBox(box, 0.9 - i / 1000) for i, box in enumerate(boxes)]
    pipeline.detector.find_in_squares = lambda squares, sizes, threshold=None: [list(found) for _ in squares]
    return pipeline


def set_thresholds(run, **values):
    weights = file_sha256(run / CLASSIFIER / "model.safetensors")
    write_json(run / THRESHOLDS, {weights: dict(real_below=0.0, fake_above=0.0, origin="by hand") | values})


@pytest.mark.parametrize("crop", [True, False])
def test_an_image_beyond_the_limit_is_unsure_with_the_reason(tmp_path, photos, crop):
    run, photo = untrained_run(tmp_path, crop=crop), sorted(photos.iterdir())[0]
    set_thresholds(run)  # Everything is fake
    boxes = (5.0, 5.0, 25.0, 30.0), (30.0, 0.0, 80.0, 50.0)
    before = give_heads(Pipeline.load(run), *boxes).check(photo)
    assert (before.verdict, before.reason, before.distance, before.distance_limit) == ("fake", "", None, None)
    add_outliers(run, 0.1)
    beyond = give_heads(Pipeline.load(run), *boxes).check(photo)
    assert beyond.verdict == "unsure" and beyond.probability == pytest.approx(before.probability, abs=1e-6)
    said = f"too far from the training images for a verdict: distance {beyond.distance:.1f}, limit 0.1"
    assert beyond.reason == said and beyond.to_dict()["distance"] == beyond.distance > 0.1
    assert beyond.to_dict()["distance_limit"] == pytest.approx(0.1)
    assert [head.verdict for head in beyond.heads] == (["unsure"] * 2 if crop else [None] * 2)
    assert [head.distance is None for head in beyond.heads] == [not crop] * 2
    assert beyond.with_thresholds(0.0, 0.0).verdict == "unsure"
    add_outliers(run, 1e6)
    within = give_heads(Pipeline.load(run), *boxes).check(photo)
    assert (within.verdict, within.reason, within.distance) == ("fake", "", beyond.distance)


def test_a_photograph_without_a_head_has_no_distance(tmp_path, photos):
    run = untrained_run(tmp_path, head_threshold=1.0)
    add_outliers(run, 0.1)
    answer = Pipeline.load(run).check(sorted(photos.iterdir())[0])
    assert answer.verdict is answer.distance is None and "only when asked" in answer.reason


def test_batches_give_each_photograph_its_own_distance(tmp_path, photos):
    run, some = untrained_run(tmp_path, crop=False), sorted(photos.iterdir())[:7]
    add_outliers(run, 0.1)
    pipeline = Pipeline.load(run)
    alone = [pipeline.check(photo).distance for photo in some]
    together = [answer.distance for answer in pipeline.check_many(some, batch_size=3)]
    assert together == pytest.approx(alone, rel=1e-4) and len({round(one, 6) for one in alone}) > 1


def test_a_form_without_features_says_that_nothing_was_measured(tmp_path, photos):
    run = untrained_run(tmp_path, crop=False)
    set_thresholds(run)
    add_outliers(run, 0.1)
    pipeline = Pipeline.load(run)
    network = pipeline.model

    class OnlyLogits(torch.nn.Module):  # As the ONNX form
        def forward(self, x):
            return network(x)

    pipeline.model = OnlyLogits()
    answer = pipeline.check(sorted(photos.iterdir())[0])
    assert answer.verdict == "fake" and answer.distance is None
    assert any("the ONNX form gives no features" in note for note in answer.notes)


def test_damaged_outliers_are_one_sentence(tmp_path, photos):
    run = untrained_run(tmp_path)
    add_outliers(run, 0.1, weights="c0ffee")
    photo = sorted(photos.iterdir())[0]
    done = CliRunner().invoke(app, ["check", str(photo), "--run", str(run)])
    assert (
        done.exit_code == 2
        and "fitted for the weights c0ffee" in done.stderr
        and "Traceback" not in done.output
    )


def test_the_temperature_scales_what_is_shown(tmp_path, photos):
    run, photo = untrained_run(tmp_path, crop=False), sorted(photos.iterdir())[0]
    raw = Pipeline.load(run).check(photo).probability
    set_thresholds(run, temperature=4.0)
    found = Pipeline.load(run)
    answer = found.check(photo)
    assert found.thresholds.temperature == 4.0
    assert answer.probability == pytest.approx(scale_probability([raw], 4.0)[0], abs=1e-6)
    assert answer.with_thresholds(0.1, 0.9).thresholds.temperature == 4.0
    line = json.loads(CliRunner().invoke(app, ["check", str(photo), "--run", str(run), "--json"]).stdout)
    assert line["thresholds"]["temperature"] == 4.0


def test_nothing_classified_gets_no_word():
    thresholds = Pipeline  # Never asked
    assert give_verdict(thresholds, None, 9.0, 1.0) is None
