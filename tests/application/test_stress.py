"The stress test: the same boxes, the band, verdicts that flip, the command line, the demo."

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deepfake_nbs.application import stress as module
from deepfake_nbs.application.cli import app
from deepfake_nbs.application.demo import Demo
from deepfake_nbs.application.evidence import Stress, StressStep, Thresholds, apply_stress, make_band
from deepfake_nbs.application.models import Networks, untrained_run
from deepfake_nbs.application.pipeline import check_photo, score_images
from deepfake_nbs.application.stress import STRESS, check_stressed, distorted_crops, stress_photo
from deepfake_nbs.distortions import Step, distort
from deepfake_nbs.heads.cropping import crop_head


@pytest.fixture(scope="module")
def photograph():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    return coarse.resize((192, 144), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def few_run(heads_run, photograph, tmp_path_factory):
    "The same untrained networks with a threshold that leaves three heads of the photograph."
    scores = [head.score for head in check_photo(Networks.load(heads_run), photograph).heads]
    return untrained_run(tmp_path_factory.mktemp("few"), head_threshold=scores[2] - 1e-9)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("whole"), head_threshold=None, crop=False)


@pytest.fixture(scope="module")
def whole(whole_run):
    return Networks.load(whole_run)


THRESHOLDS = Thresholds(0.2, 0.7, "by hand")

# --- What the classifier gets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [(30.5, 20.2, 81.0, 77.7), (0, 0, 192, 144), (150, 100, 192, 144)])
@pytest.mark.parametrize("step", [Step("jpeg", 30), Step("blur", 2), Step("gamma", 1.5), Step("crop", 0.8)])
def test_the_region_gives_what_the_whole_photograph_would(photograph, box, step):
    (crop,) = distorted_crops(photograph, box, 0.2, (step,))
    plain = crop_head(photograph, box, 0.2)
    expected = (
        distort(plain, *step)
        if step.distortion == "crop"
        else crop_head(distort(photograph, *step), box, 0.2)
    )
    assert (np.asarray(crop) == np.asarray(expected)).all()


@pytest.mark.parametrize("step", [Step("resize", 0.25), Step("screenshot", 0.6), Step("webp", 30)])
def test_what_resamples_or_draws_blocks_elsewhere_changes_as_much(photograph, step):
    box = (60, 40, 110, 100)
    (crop,) = distorted_crops(photograph, box, 0.2, (step,))
    plain = np.asarray(crop_head(photograph, box, 0.2), float)
    whole = np.asarray(crop_head(distort(photograph, *step), box, 0.2), float)
    assert np.asarray(crop).shape == whole.shape
    ours, theirs = (np.abs(one - plain).mean() for one in (np.asarray(crop, float), whole))
    assert theirs > 1 and 0.8 < ours / theirs < 1.25


def test_heads_are_found_once_and_all_crops_scored_in_one_batch(few_run, photograph, monkeypatch):
    networks = Networks.load(few_run)
    photo = check_photo(networks, photograph)
    assert len(photo.heads) > 1
    calls = []
    monkeypatch.setattr(
        networks.detector, "find_in_squares", lambda *words: pytest.fail("looked for heads again")
    )
    monkeypatch.setattr(
        module, "score_images", lambda *words: calls.append(len(words[1])) or score_images(*words)
    )
    evidence = stress_photo(networks, photo).answer()
    assert calls == [len(STRESS) * len(photo.heads)] and len(evidence.stress.bands) == len(evidence.heads)
    for band, head, found in zip(evidence.stress.bands, photo.heads, evidence.heads, strict=True):
        crops = distorted_crops(photograph, head.box, networks.margin)
        expected = score_images(networks, crops)[0]
        assert np.allclose([step.probability for step in band.steps], expected, atol=1e-5)
        assert band.low == min(found.probability, *(step.probability for step in band.steps))


def test_a_network_that_takes_whole_images_is_tested_on_them(whole, photograph):
    evidence = check_stressed(whole, photograph)
    (band,) = evidence.stress.bands
    crops = [distort(photograph, *step) for step in STRESS]
    expected = score_images(whole, crops)[0]
    assert np.allclose([step.probability for step in band.steps], expected, atol=1e-5)
    assert set(band.by_distortion) == {step.distortion for step in STRESS}


def test_nothing_classified_nothing_tested(tmp_path, photograph):
    networks = Networks.load(untrained_run(tmp_path / "run", head_threshold=1.0))
    evidence = check_stressed(networks, photograph)
    assert evidence.verdict is None and evidence.stress is None and "no head" in evidence.reason


def test_what_is_large_is_reduced_first(whole):
    evidence = check_stressed(whole, Image.new("RGB", (16400, 2), "tan"))  # Wider than WebP can hold
    assert len(evidence.stress.bands[0].steps) == len(STRESS)
    large = Image.new("RGB", (3000, 2400), "tan")
    sizes = {crop.size for crop in distorted_crops(large, (500, 300, 2500, 2300), 0.2)[:7]}
    assert max(max(size) for size in sizes) <= module.MOST_SIDE and len(sizes) == 1
    (small,) = distorted_crops(large, (500, 300, 600, 420), 0.2, (Step("gamma", 1.5),))
    assert small.size == crop_head(large, (500, 300, 600, 420), 0.2).size


def test_an_unknown_step_is_named(whole, photograph):
    with pytest.raises(ValueError, match="distortion 'rotation': unknown"):
        stress_photo(whole, check_photo(whole, photograph), (Step("rotation", 9),))


# --- Verdicts, by hand ------------------------------------------------------------------------------------------------


def with_steps(whole, photograph, plain, steps, distance=None, limit=None):
    "Evidence with these probabilities."
    found = check_photo(whole, photograph).answer()
    found = replace(found, probability=plain, thresholds=THRESHOLDS, distance=distance, distance_limit=limit)
    rows = [StressStep(f"step {i}", "jpeg", i, *pair) for i, pair in enumerate(steps)]
    return apply_stress(replace(found, stress=Stress((make_band(plain, rows),), 0, 1.0, 3.0)))


@pytest.mark.parametrize(
    "plain, steps, verdict, reason",
    [
        (0.8, [(0.75, None), (0.5, None)], "fake", ""),  # Unsure contradicts nothing
        (0.8, [(0.2, None), (0.9, None)], "unsure", "fake becomes real at step 0; P(fake) 0.200 to 0.900"),
        (
            0.1,
            [(0.7, None), (0.9, None)],
            "unsure",
            "real becomes fake at step 0, step 1; P(fake) 0.100 to 0.900",
        ),
        (0.5, [(0.0, None), (1.0, None)], "unsure", ""),
    ],
)
def test_a_verdict_that_flips_is_unsure_and_says_why(whole, photograph, plain, steps, verdict, reason):
    evidence = with_steps(whole, photograph, plain, steps)
    assert evidence.verdict == verdict and evidence.probability == plain
    assert evidence.reason.endswith(reason) and bool(evidence.reason) == bool(reason)


def test_a_step_that_is_unlike_the_training_images_flips_nothing(whole, photograph):
    evidence = with_steps(whole, photograph, 0.8, [(0.1, 9.0)], distance=5.0, limit=8.0)
    assert evidence.verdict == "fake" and evidence.stress.bands[0].steps[0].verdict == "unsure"
    evidence = with_steps(whole, photograph, 0.8, [(0.1, 5.0)], distance=9.0, limit=8.0)
    assert evidence.verdict == "unsure" and "too far from the training images" in evidence.reason


def test_other_thresholds_decide_anew(whole, photograph):
    evidence = with_steps(whole, photograph, 0.8, [(0.2, None)])
    calm = evidence.with_thresholds(0.1, 0.7)
    assert (calm.verdict, calm.reason) == ("fake", "")
    assert calm.with_thresholds(0.2, 0.7).reason == evidence.reason


# --- The command line and the demo ------------------------------------------------------------------------------------


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_line_prints_the_band_and_what_it_cost(few_run, photograph, tmp_path):
    photo = tmp_path / "photo.png"
    photograph.save(photo)
    result = invoke("check", photo, "--run", few_run, "--stress", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    band = found["stress"]["bands"][found["strongest"]]
    assert band["low"] <= found["probability"] <= band["high"] and found["stress"]["cost"] > 1
    assert len(band["steps"]) == len(STRESS) and found["seconds"]["stress"] == found["stress"]["seconds"]
    assert all(low <= high for low, high in band["by_distortion"].values())
    assert "stress" not in json.loads(invoke("check", photo, "--run", few_run, "--json").stdout)
    result = invoke("check", photo, "--run", few_run, "--stress", "--save", tmp_path / "saved")
    number = r"\d\.\d{3} \([\w .]+\)"
    assert re.search(rf"stress test: P\(fake\) {number} to {number}; .*times the check alone", result.stdout)
    (saved,) = (tmp_path / "saved").glob("*.json")
    assert json.loads(saved.read_text())["stress"] and len(list((tmp_path / "saved").iterdir())) == 2


def test_what_cannot_be_read_stops_nothing(whole_run, photos, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    result = invoke(
        "check", tmp_path / "text.jpg", sorted(photos.iterdir())[0], "--run", whole_run, "--stress"
    )
    assert (
        result.exit_code == 1 and "text.jpg: not an image" in result.stderr and "stress test" in result.stdout
    )


def test_a_video_is_checked_without_it_and_the_command_says_so(whole_run, video):
    result = invoke("check", video, "--run", whole_run, "--stress")
    assert result.exit_code == 0 and "videos are checked without the stress test" in result.stderr


def test_the_box_of_the_demo_shows_the_band(few_run, photograph):
    demo = Demo(few_run)
    demo.take([("mine.png", lambda: photograph)])
    assert demo.results[0].evidence.stress is None and "Stress test" not in demo.answer.value
    demo.stress.value = True
    assert demo.results[0].evidence.stress is not None
    assert "<h4>Stress test</h4><p>P(fake)" in demo.answer.value and "under distortion" in demo.answer.value
    demo.stress.value = False
    assert demo.results[0].evidence.stress is None
