"`check --risk`: verdicts from conformal sets, in the package, in the command line, and beside portable networks."

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from deepfake_nbs.application import risk
from deepfake_nbs.application.cli import app
from deepfake_nbs.application.models import CLASSIFIER
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.application.portable import export_portable
from deepfake_nbs.classifiers.conformal import Quantiles
from deepfake_nbs.core import file_sha256, write_json

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(n=40, seed=0, spread=1.0):
    logit = np.random.default_rng(seed).normal(np.repeat([-1, 1], n), spread)
    p = 1 / (1 + np.exp(-logit))
    return [dict(label=i // n, probability=float(x), group=f"g{i // 2}") for i, x in enumerate(p)]


@pytest.fixture(scope="module")
def run(heads_run, tmp_path_factory):
    "A run whose classifier learned nothing, with validation predictions that say otherwise."
    place = shutil.copytree(heads_run, tmp_path_factory.mktemp("risk") / "run")
    lines = [
        f"{i}.png,{row['label']},{row['probability']},{row['group']},{split},best"
        for split in ("validation", "test")
        for i, row in enumerate(rows())
    ]
    training = place / "training/8"
    training.mkdir(parents=True)
    (training / "predictions.csv").write_text(
        "\n".join(["path,label,probability,group,split,checkpoint", *lines])
    )
    weights = file_sha256(place / CLASSIFIER / "model.safetensors")
    write_json(training / "run.json", dict(weights_sha256=weights))
    return place


def test_verdicts_are_those_of_the_sets():
    for quantiles in (Quantiles(0.3, 0.2), Quantiles(0.7, 0.6), Quantiles(1.0, 0.2), Quantiles(0.0, 1.0)):
        real_to, fake_from, both = risk.set_limits(quantiles)
        limits = risk.RiskThresholds(real_to, fake_from, "", both=both)
        for p in (0.0, 0.2, 0.3, 0.4, 0.7, 0.8, 1.0):
            real, fake = p <= quantiles.real, 1 - p <= quantiles.fake
            expected = "unsure" if real == fake else "real" if real else "fake"
            assert limits.verdict(p) == expected, (quantiles, p)
            reason = limits.reason(p)
            assert (reason == "") == (expected != "unsure")
            assert not reason or ("holds both" if real else "is empty") in reason


def test_a_pipeline_at_a_risk(run, photos):
    plain, safe = Pipeline.load(run), Pipeline.load(run, risk=0.05)
    photo = sorted(photos.iterdir())[0]
    before, found = plain.check(photo, whole=True), safe.check(photo, whole=True)
    assert found.probability == before.probability and found.thresholds.risk == 0.05
    assert found.verdict == "unsure" and "at risk 0.05 it may be real or fake" in found.reason
    assert "40 real and 40 fake validation images" in found.thresholds.origin
    assert found.to_dict()["thresholds"]["risk"] == 0.05
    moved = found.with_thresholds(0.0, 0.1)
    assert moved.verdict == "fake" and moved.reason == "", "the reason belonged to the sets"


def invoke(*words):
    return CliRunner().invoke(app, ["check", *map(str, words)])


def test_the_command(run, photos):
    photo = sorted(photos.iterdir())[0]
    done = invoke(photo, "--run", run, "--whole", "--risk", "0.05")
    assert done.exit_code == 0 and "conformal sets at risk 0.05" in done.output, done.output
    assert "the set of possible labels holds both" in done.output
    said = json.loads(invoke(photo, "--run", run, "--whole", "--risk", "0.2", "--json").stdout)
    assert said["thresholds"]["risk"] == 0.2 and said["verdict"] in ("real", "fake", "unsure")


@pytest.mark.parametrize(
    "value, words",
    [
        ("0", "risk is 0.0; expected a number between 0 and 1"),
        ("1.5", "risk is 1.5; expected a number between 0 and 1"),
        ("0.001", "40 real calibration images; expected at least 999"),
    ],
)
def test_a_risk_that_cannot_be_kept_is_one_sentence(run, photos, value, words):
    done = invoke(photos, "--run", run, "--whole", "--risk", value)
    assert done.exit_code == 2 and words in " ".join(done.output.split()), done.output


def test_networks_without_scores_are_one_sentence(heads_run, photos):
    done = invoke(photos, "--run", heads_run, "--whole", "--risk", "0.1")
    said = " ".join(done.output.split())
    assert (
        done.exit_code == 2
        and "holds neither validation predictions of this classifier nor conformal.json" in said
    )


def test_one_class_of_validation_images(run, tmp_path, photos):
    place = shutil.copytree(run, tmp_path / "run")
    lines = (place / "training/8/predictions.csv").read_text().splitlines()
    (place / "training/8/predictions.csv").write_text(
        "\n".join([lines[0], *(x for x in lines if ",1," in x)])
    )
    done = invoke(photos, "--run", place, "--whole", "--risk", "0.1")
    assert done.exit_code == 2 and "0 real calibration images; expected at least 9" in " ".join(
        done.output.split()
    )


def test_a_portable_model_keeps_the_scores(run, tmp_path):
    out = export_portable(tmp_path / "out", run, half=True, onnx=False)
    expected, found = Pipeline.load(run, risk=0.1).thresholds, Pipeline.load(out, risk=0.1).thresholds
    assert found.origin == expected.origin and found.both == expected.both
    assert found.real_below == pytest.approx(expected.real_below, abs=1e-5)
    kept = json.loads((out / risk.CONFORMAL).read_text())
    assert kept["weights"] == file_sha256(out / CLASSIFIER / "model.safetensors")
    assert risk.CONFORMAL in (out / "files.csv").read_text()
    again = export_portable(tmp_path / "again", out, onnx=False)
    assert json.loads((again / risk.CONFORMAL).read_text())["real"] == kept["real"]


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(weights="0" * 64), "scores of other weights, 000000000000; expected"),
        (dict(temperature=9.0), "scores at temperature 9.0; expected"),
        (dict(temperature="hot"), "scores at temperature 'hot'; expected"),
        (dict(real=dict(n=1, groups=1, scores=[0.1, 0.2])), "real cannot be used; expected n and groups"),
        (dict(fake=dict(n=2, groups=1, scores=[0.1, 2.0])), "fake cannot be used; expected n and groups"),
        (dict(fake=[0.1]), "fake cannot be used; expected n and groups"),
        (dict(real=dict(n=2, groups=1, scores=[0.2, 0.1])), "real cannot be used"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(run, tmp_path, change, words):
    out = export_portable(tmp_path / "out", run, onnx=False)
    path = out / risk.CONFORMAL
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=f"conformal.json: {words}"):
        Pipeline.load(out, risk=0.1)
    assert Pipeline.load(out).thresholds.verdict(0.5), "without a risk the file is not needed"


def test_scores_are_kept_with_the_temperature_that_is_shown():
    given = rows()
    plain, scaled = (risk.scores_of(given, temperature) for temperature in (1.0, 3.0))
    assert plain["real"].n == scaled["real"].n == 40 and plain["real"].groups == 20
    for one, other in zip(plain["fake"].scores, scaled["fake"].scores, strict=True):
        odds = (one / (1 - one)) ** (1 / 3)
        assert other == pytest.approx(odds / (1 + odds), abs=1e-4)


def test_many_scores_are_thinned():
    kept = risk.scores_of(rows(n=3000))["real"]
    assert kept.n == 3000 and len(kept.scores) == 1000


def test_what_a_risk_is_worth():
    import pandas as pd

    test = pd.DataFrame(rows(200, seed=1))
    found = risk.measure_risks(test, risk.scores_of(rows(200, seed=2)))
    assert [row["risk"] for row in found] == [0.2, 0.1, 0.05]
    assert all(abs(row["all"]["value"] - (1 - row["risk"])) < 0.06 for row in found)
    assert risk.measure_risks(test, risk.scores_of(rows(5))) == [
        found[0] | risk.measure_risks(test, risk.scores_of(rows(5)), (0.2,))[0]
    ]
    lines = risk.risk_lines(found)
    assert lines[1]["risk"] == "0.1" and "[" in lines[1]["real images covered"]
