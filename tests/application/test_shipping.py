"Writing the shipped networks: whole or not at all, small, measured with the weights that are shipped, with a card that says so."

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from noise_run import TINY, draw_dataset
from PIL import Image

from deepfake_nbs.application import shipping
from deepfake_nbs.application.models import CLASSIFIER, untrained_run
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.application.risk import CONFORMAL
from deepfake_nbs.application.shipped import shipped_auc
from deepfake_nbs.application.shipping import (
    auc_by,
    add_risks,
    choose_training,
    measure_test,
    predict_again,
    terms_of,
    write_shipped,
)
from deepfake_nbs.application.evidence import Thresholds
from deepfake_nbs.classifiers import outliers
from deepfake_nbs.classifiers.calibration import scale_probability
from deepfake_nbs.classifiers.comparison import choose_classifier
from deepfake_nbs.classifiers.training import train_run
from deepfake_nbs.classifiers.transfer import SCORES
from deepfake_nbs.core import file_sha256
from deepfake_nbs.files import write_table
from deepfake_nbs.heads.detector import DETECTOR
from deepfake_nbs.metrics import classification_metrics
from deepfake_nbs.runs import read_predictions

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A run with a classifier that learned from noise, and a detector that learned nothing; tests must not change it."
    run = tmp_path_factory.mktemp("runs") / "photographs-noise"
    draw_dataset(run / "cvcs_dfd")
    train_run(run, replace(TINY, row=12, epochs=2), "12")
    choose_classifier(run)
    shutil.copytree(untrained_run(run.with_name("other")) / DETECTOR, run / DETECTOR)
    return run


@pytest.fixture(scope="module")
def written(trained):
    return write_shipped(trained, trained.with_name("photographs"))


def test_the_folder_is_small_whole_and_opens_like_a_run(trained, written):
    names = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert {
        "README.md",
        "training.json",
        "files.csv",
        "preprocessing.json",
        "models/thresholds.json",
    } <= names
    assert not any(name.endswith(".onnx") for name in names)
    listed = dict(line.split(",") for line in (written / "files.csv").read_text().splitlines())
    assert set(listed) == names - {"files.csv"}
    assert all(file_sha256(written / name) == digest for name, digest in listed.items())
    before, after = (
        (place / CLASSIFIER / "model.safetensors").stat().st_size for place in (trained, written)
    )
    assert after < 0.75 * before
    photo = Image.effect_noise((90, 120), 60)
    expected, found = (Pipeline.load(place).check(photo) for place in (trained, written))
    assert found.probability == pytest.approx(expected.probability, abs=5e-3)
    assert found.thresholds == expected.thresholds


def test_what_is_said_was_measured_with_the_weights_that_are_shipped(trained, written):
    said = json.loads((written / "training.json").read_text())
    assert said["weights_sha256"] == file_sha256(written / CLASSIFIER / "model.safetensors")
    test, networks = read_predictions(trained / "training/12"), Pipeline.load(written)
    again = predict_again(networks, [trained / "cvcs_dfd" / path for path in test["path"]])["probability"]
    measured = classification_metrics(test.assign(probability=again.to_numpy())).loc["auc", "value"]
    assert said["test"]["auc"]["value"] == measured == shipped_auc(written) and said["test"]["n"] == len(test)
    before = scale_probability(test["probability"].to_numpy(), networks.thresholds.temperature)
    change = np.abs(again.to_numpy() - before).max()
    assert said["test"]["largest_change"] == pytest.approx(change) and 0 < change < 0.02


def test_the_record_names_a_commit_only_for_its_own_code():
    from deepfake_nbs.application.shipping import commit_of_code
    from deepfake_nbs.classifiers.training import CODE
    from deepfake_nbs.runs import code_identity

    same, here = dict(code_sha256=code_identity(CODE)), dict(commit="abc", dirty=False)
    assert commit_of_code(same, here) == "abc" and commit_of_code(dict(code_sha256="0"), here) == ""
    assert commit_of_code(same, here | dict(dirty=True)) == ""


def test_the_card_is_written_from_the_record(written):
    said, card = json.loads((written / "training.json").read_text()), (written / "README.md").read_text()
    assert (
        f"- AUC {said['test']['auc']['value']:.3f}" in card and f"On {said['test']['n']} test images" in card
    )
    assert f"error {said['test']['calibration_error']:.3f}" in card and "| noise | fake | 9 |" in card
    assert "not measured" in card and "First weights of the classifier: random" in card
    for words in ("## Terms", "To accuse a person", "To say that an image is real", "Apache License 2.0"):
        assert words in card
    assert not re.search(r"[{}]|nan|None", card)


def test_leave_out_is_on_the_card_where_it_was_measured(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    rng = np.random.default_rng(0)
    rows = [
        (f"{i}.png", i % 2, s, "x", f"g{i}", s, int(out), rng.uniform(), 1.0, 1.0, 1.0)
        for i, (s, out) in enumerate(
            [("validation", False), ("test", False), ("validation", True), ("test", True)] * 20
        )
    ]
    names = ["path", "label", "source", "method", "group", "split", "left_out", "probability", *SCORES]
    scores = pd.DataFrame(rows, columns=names)
    (run / "leave_out/DFDC").mkdir(parents=True)
    write_table(scores, run / "leave_out/DFDC/scores.csv")
    out = write_shipped(run, tmp_path / "out")
    card, said = (out / "README.md").read_text(), json.loads((out / "training.json").read_text())
    assert "chance level" in card and "| DFDC | " in card
    assert [row["left out"] for row in said["leave_out"]] == ["DFDC"]


def test_validation_scores_are_shipped(trained, written):
    kept, validation = (
        json.loads((written / CONFORMAL).read_text()),
        read_predictions(trained / "training/12", "validation"),
    )
    assert kept["weights"] == file_sha256(written / CLASSIFIER / "model.safetensors")
    assert kept["real"]["n"] + kept["fake"]["n"] == len(validation)
    limits = Pipeline.load(written, risk=0.5).thresholds
    assert limits.risk == 0.5 and f"{kept['real']['n']} real and {kept['fake']['n']} fake" in limits.origin
    assert (
        json.loads((written / "training.json").read_text())["conformal"]["from"]["real"]["n"]
        == kept["real"]["n"]
    )


def test_scores_can_be_added_later(written, tmp_path):
    out, rng = shutil.copytree(written, tmp_path / "out"), np.random.default_rng(0)
    (out / CONFORMAL).unlink()
    frames = [
        pd.DataFrame(dict(label=np.arange(120) % 2, probability=rng.random(120), group=np.arange(120) // 4))
        for _ in range(2)
    ]
    before = file_sha256(out / CLASSIFIER / "model.safetensors")
    add_risks(out, *frames, "The images are noise.")
    card, said = (out / "README.md").read_text(), json.loads((out / "training.json").read_text())["conformal"]
    assert (
        "## Verdicts at a chosen risk" in card
        and "The images are noise." in card
        and "| 0.05 | 0.95 |" in card
    )
    assert "60 real images of 30 groups and 60 fake images of 30 groups" in card
    assert [row["risk"] for row in said["risks"]] == [0.2, 0.1, 0.05] and said[
        "note"
    ] == "The images are noise."
    listed = dict(line.split(",") for line in (out / "files.csv").read_text().splitlines())
    assert all(file_sha256(out / name) == digest for name, digest in listed.items()) and CONFORMAL in listed
    assert file_sha256(out / CLASSIFIER / "model.safetensors") == before
    assert Pipeline.load(out, risk=0.05).thresholds.risk == 0.05


def test_the_network_of_a_training_becomes_that_of_its_run(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(outliers, "FEWEST", 5)
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / CLASSIFIER)
    choose_training(run)
    assert file_sha256(run / CLASSIFIER / "model.safetensors") == file_sha256(
        run / "training/12/model/model.safetensors"
    )
    networks = Pipeline.load(write_shipped(run, tmp_path / "out"))
    assert networks.outliers.limit > 0 and networks.outliers.weights.startswith(
        networks.classifier["weights"]
    )
    said = json.loads((tmp_path / "out/training.json").read_text())["test"]
    assert 0 <= said["unlike"] <= 1 and said["temperature"] == networks.thresholds.temperature
    with pytest.raises(FileNotFoundError, match="training/99: holds no finished training"):
        choose_training(run, "99")


def test_a_failure_leaves_the_old_folder(trained, written, tmp_path, monkeypatch):
    old = shutil.copytree(written, tmp_path / "photographs")
    monkeypatch.setattr(
        shipping, "check_size", lambda folder: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(OSError, match="No space left"):
        write_shipped(trained, old)
    assert (old / "files.csv").read_bytes() == (written / "files.csv").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]
    monkeypatch.undo()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").touch()
    with pytest.raises(ValueError, match="mine: holds other files"):
        write_shipped(trained, tmp_path / "mine")


@pytest.mark.parametrize(
    "spoil, words",
    [
        (
            lambda run: shutil.rmtree(run / "training"),
            "no training left the weights of .*; `make report` trains",
        ),
        (lambda run: shutil.rmtree(run / DETECTOR), "holds no models/head_detector/config.json"),
        (lambda run: shutil.rmtree(run / CLASSIFIER), "holds no models/classifier/config.json"),
        (lambda run: next((run / "cvcs_dfd/test").glob("*.png")).unlink(), "no such file"),
        (lambda run: (run / "cvcs_dfd/manifest.csv").write_text("changed"), "manifest.csv: changed since"),
    ],
)
def test_a_run_that_cannot_be_shipped_is_named(trained, tmp_path, spoil, words):
    run = shutil.copytree(trained, tmp_path / "run")
    spoil(run)
    with pytest.raises((OSError, ValueError, RuntimeError), match=words):
        write_shipped(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_too_large_is_not_shipped(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(shipping.check_size, "__defaults__", (1000,))
    with pytest.raises(ValueError, match=r"MB; expected at most 0 MB to ship"):
        write_shipped(trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sources_of_one_class_are_compared_with_the_other_class():
    rows = [("A", "none", 0, 0.1), ("A", "edit", 1, 0.2), ("B", "none", 0, 0.3), ("GAN", "GAN", 1, 0.25)]
    test = pd.DataFrame(rows, columns=["source", "method", "label", "probability"]).assign(group=list("abcd"))
    found = {row["name"]: row for row in auc_by(test, "source")}
    assert found["A"]["value"] == 1.0, "its own fake is above its own photograph"
    assert found["B"]["value"] == 0.0, "below both fakes"
    assert found["GAN"]["value"] == 0.5, "between the two photographs"
    methods = {row["name"]: (row["value"], row["n_real"]) for row in auc_by(test, "method")}
    assert methods == dict(edit=(0.5, 2), GAN=(0.5, 2)), "each against all photographs"


def test_words_and_their_coverage():
    test = pd.DataFrame(
        dict(label=[0, 0, 1, 1, 1], probability=[0.1, 0.9, 0.95, 0.5, 0.1], group=list("abcde"))
    )
    test = test.assign(source="A", method=["none", "none", "x", "x", "x"], before=test["probability"])
    test = test.assign(distance=[1, 1, 1, 1, 9.0])
    found = measure_test(test, Thresholds(0.2, 0.8, "by hand"))
    assert found["coverage"] == 0.8 and found["largest_change"] == 0
    assert {row["word"]: (row["n"], row["value"]) for row in found["words"]} == dict(
        real=(2, 0.5), fake=(2, 0.5)
    )
    near = measure_test(test, Thresholds(0.2, 0.8, "by hand"), limit=5)
    assert near["coverage"] == 0.6 and near["unlike"] == pytest.approx(0.2), "what is unlike gets no word"
    assert {row["word"]: row["n"] for row in near["words"]} == dict(real=1, fake=2)


def test_every_source_has_terms():
    found = terms_of(["CelebA", "FFHQ", "StarGAN", "STYLEGAN3", "DFDC", "SCUT-HEAD Part B", "an album"])
    assert "non-commercial" in found["STYLEGAN3"] and "citation" in found["SCUT-HEAD Part B"]
    assert found["an album"] == "the terms of its owner; see data/README.md" and "" not in found.values()
