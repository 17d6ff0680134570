"""Frozen layers, a training and its files, resuming."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.head_samples import TINY

from deepfake_nbs import engine
from deepfake_nbs.checkpoints import best_epoch
from deepfake_nbs.core import file_sha256, set_seed
from deepfake_nbs.settings import read_settings
from deepfake_nbs.engine import recalibrate_norms, train_epoch
from deepfake_nbs.heads import training
from deepfake_nbs.heads.data import HeadImages
from deepfake_nbs.heads.evaluation import read_detections
from deepfake_nbs.heads.detector import HeadDetector
from deepfake_nbs.heads.network import Backbone, EfficientDet
from deepfake_nbs.heads.training import (
    CHECKPOINT_CRITERIA,
    PHASE_FILES,
    PHASES,
    DetectionConfig,
    FrameLoader,
    apply_phase,
    detection_config,
    phase_training,
    train_detector,
    train_phase,
)
from deepfake_nbs.runs import TrainingError, find_existing_run, latest_checkpoint


@pytest.mark.parametrize("phi, number", [(0, 0), (0, 1), ("lite0", 0), ("lite0", 1)])
def test_frozen_layers_do_not_move(film, phi, number):
    torch.manual_seed(0)
    model, phase = (
        EfficientDet(phi),
        replace(PHASES[number], batch_size=4, iterations=3, epochs=1, learning_rate=0.01),
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    row = train_epoch(phase_training(phase, model, film, TINY, progress=False), 0)
    assert row["iteration"] == 3
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    of_norms = {key for key in moved if key.rpartition(".")[0] in norms}
    if phase.freeze_backbone:
        assert not any(key.startswith("backbone") for key in moved)
        assert any(key.endswith("running_mean") for key in of_norms)  # the new parts' statistics do move
    if phase.freeze_norm:
        assert of_norms == set()
        assert any(key.startswith("backbone") for key in moved)
    assert any(key.startswith("box_head") for key in moved) and any(
        key.startswith("pyramid") for key in moved
    )


def test_calibration_changes_statistics_only(film):
    backbone = Backbone()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    recalibrate_norms(backbone, [torch.randn(2, 3, 64, 64)], backbone)
    moved = {
        key.rpartition(".")[2]
        for key, value in backbone.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}
    assert {m.momentum for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}


def test_a_training_leaves_its_files(trained, film):
    out, records = trained
    for phase, record in records.items():
        assert sorted(path.name for path in (out / phase).iterdir()) == [
            "detections.csv",
            "history.csv",
            "model",
            "run.json",
        ]
        assert len(pd.read_csv(out / phase / "history.csv")) == 2
        assert record["note"].startswith("no ImageNet weights") and record["backbone_weights"] == "none"
        assert (
            record["manifest_sha256"] and record["weights_sha256"] and record["n"] == len(film.split("test"))
        )
    found = pd.read_csv(out / "phase1" / "detections.csv")
    assert list(found) == [
        "path",
        "x0",
        "y0",
        "x1",
        "y1",
        "score",
        "choice",
        "split",
    ]  # So short a training finds nothing


def test_boxes_of_both_criteria_and_both_splits_are_kept(film, tmp_path, monkeypatch):
    def one_box_a_frame(model, images, anchors, **options):
        columns = ["path", "x0", "y0", "x1", "y1", "score"]
        return pd.DataFrame(
            [(path, 1.0, 2.0, 30.0, 40.0, 0.9) for path in images.paths], columns=columns
        ), 1.0

    monkeypatch.setattr(training, "detect_split", one_box_a_frame)
    train_phase(TINY.phases[0], EfficientDet(), film, tmp_path, TINY, "x", "none", progress=False)
    for split in ("validation", "test"):
        for criterion in CHECKPOINT_CRITERIA:
            assert read_detections(tmp_path, split, criterion)["path"].tolist() == film.split(split)


def test_what_is_trained_is_not_trained_again_and_not_replaced(trained, film):
    out, records = trained
    assert (
        train_detector(film, out, replace(TINY, workers=1), device="cpu", data="film", progress=False)
        == records
    )
    with pytest.raises(TrainingError, match=r"config.image_size \(64, not 96\)"):
        train_detector(film, out, replace(TINY, image_size=96), device="cpu", progress=False)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_training_resumes(film, tmp_path, epoch):
    "Stopped after an epoch, the last one too, and continued: the same files as without a stop."
    phase = replace(PHASES[1], iterations=2, epochs=2)
    config = replace(TINY, phases=(phase,))
    arguments = dict(config=config, start="x", backbone="none", progress=False)

    def fresh():
        set_seed(1)
        return EfficientDet()

    straight = train_phase(phase, fresh(), film, tmp_path / "a", **arguments)

    class Stop(Exception):
        pass

    def stop(*arguments):
        path = save(*arguments)
        if path.name == f"checkpoint-{epoch:04d}":
            raise Stop(path)
        return path

    save = engine.save_checkpoint
    engine.save_checkpoint = stop
    try:
        with pytest.raises(Stop):
            train_phase(phase, fresh(), film, tmp_path / "b", **arguments)
    finally:
        engine.save_checkpoint = save
    assert latest_checkpoint(tmp_path / "b").name == f"checkpoint-{epoch:04d}"
    resumed = train_phase(phase, EfficientDet(), film, tmp_path / "b", **arguments)
    assert resumed["weights_sha256"] == straight["weights_sha256"]
    assert (tmp_path / "a" / "detections.csv").read_bytes() == (
        tmp_path / "b" / "detections.csv"
    ).read_bytes()
    one, other = (pd.read_csv(tmp_path / name / "history.csv").drop(columns="seconds") for name in "ab")
    assert len(one) == 2 and one.equals(other)


@pytest.mark.parametrize(
    "name", ["model/model.safetensors", "model/config.json", "detections.csv", "history.csv"]
)
@pytest.mark.parametrize(
    "change", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-4] + b"0000")]
)
def test_lost_files_and_changed_weights_are_not_done(trained, film, tmp_path, name, change):
    "A record alone is no finished phase; only of the weights is the hash known."
    shutil.copytree(trained[0] / "phase1", tmp_path / "phase1")
    record = trained[1]["phase1"]
    assert find_existing_run(tmp_path / "phase1", record["identity"], PHASE_FILES) == record
    change(tmp_path / "phase1" / name)
    whole = (tmp_path / "phase1" / name).is_file() and name != "model/model.safetensors"
    assert find_existing_run(tmp_path / "phase1", record["identity"], PHASE_FILES) == (
        record if whole else None
    )
    assert (tmp_path / "phase1").exists() == whole


def test_a_phase_that_lost_its_weights_is_trained_again(trained, film, tmp_path):
    shutil.copytree(trained[0], tmp_path / "out", ignore=shutil.ignore_patterns("copy.safetensors"))
    (tmp_path / "out/phase2/model/model.safetensors").unlink()
    records = train_detector(film, tmp_path / "out", TINY, device="cpu", data="film", progress=False)
    assert records["phase1"] == trained[1]["phase1"]
    assert file_sha256(tmp_path / "out/phase2/model/model.safetensors") == records["phase2"]["weights_sha256"]


def test_both_choices_of_an_epoch():
    history = [
        dict(epoch=i + 1, validation_loss=loss, validation_ap50=ap)
        for i, (loss, ap) in enumerate([(1.0, 0.2), (0.7, float("nan")), (0.7, 0.6), (0.9, 0.6)])
    ]
    assert (
        best_epoch(history, CHECKPOINT_CRITERIA["loss"]) == 2
        and best_epoch(history, CHECKPOINT_CRITERIA["ap"]) == 3
    )


def test_a_lite_network_is_trained_saved_and_loaded(film, tmp_path):
    config = replace(
        TINY, phi="lite0", phases=(replace(TINY.phases[0], epochs=1), replace(TINY.phases[1], epochs=1))
    )
    records = train_detector(film, tmp_path, config, device="cpu", progress=False)
    assert [record["config"]["phi"] for record in records.values()] == ["lite0", "lite0"]
    detector = HeadDetector.load(tmp_path / "phase2" / "model", device="cpu")
    assert detector.config["phi"] == "lite0" and detector.model.mean.unique().tolist() == [127.5]
    assert train_detector(film, tmp_path, config, device="cpu", progress=False) == records


def test_a_loss_that_is_no_number_stops(film):
    model = EfficientDet()
    with torch.no_grad():
        model.class_head.predict[1].bias.fill_(float("nan"))
    with pytest.raises(
        TrainingError, match="phase2: loss is not finite at epoch 1, training batch 1; lower learning_rate"
    ):
        train_epoch(phase_training(PHASES[1], model, film, TINY, progress=False), 0)


def test_a_resumed_phase_meets_the_batches_of_an_unbroken_one(film):
    images, phase = HeadImages(film, "train", 64, augment=True), replace(PHASES[1], epochs=3)
    straight, resumed = FrameLoader(images, phase, seed=1), FrameLoader(images, phase, seed=1)
    epochs = [[batch[0] for batch in straight] for straight.epoch in range(3)]
    assert [len(one) for one in epochs] == [len(straight)] * 3
    resumed.epoch = 2
    assert all(torch.equal(a, b[0]) for a, b in zip(epochs[2], resumed, strict=True))
    assert not torch.equal(epochs[0][0], epochs[1][0])


def test_a_budget_of_every_profile():
    for profile in ("smoke", "mini", "full"):
        config = detection_config(read_settings(profile))
        assert [phase.name for phase in config.phases] == ["phase1", "phase2"]
    assert [(p.batch_size, p.iterations, p.epochs) for p in config.phases] == [
        (32, 1000, 50),
        (4, 10_000, 50),
    ]  # full is the report's
    phi = {
        name: detection_config(read_settings(name)).phi for name in ("smoke", "mini", "photographs", "full")
    }
    assert phi == dict(smoke="lite0", mini="lite0", photographs="lite0", full=0)
    with pytest.raises(ValueError, match="multiple of 32"):
        replace(config, image_size=300)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(batch_size=float("nan")), "batch_size is nan, expected int"),
        (dict(epochs=1.5), "epochs is 1.5, expected int"),
        (dict(epochs=0), "epochs is 0, expected at least 1"),
        (dict(iterations=float("inf")), "iterations is inf, expected int"),
        (dict(learning_rate=float("nan")), "learning_rate is nan, expected more than 0 and less than 1"),
    ],
)
def test_a_phase_of_absurd_numbers_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        DetectionConfig(image_size=64, phases=(replace(PHASES[0], **change),))


@pytest.mark.parametrize(
    "change", [dict(seed=-1), dict(seed=float("nan")), dict(seed=1.5), dict(workers=-1), dict(workers=None)]
)
def test_a_seed_and_workers_are_whole_numbers(change):
    with pytest.raises(ValueError, match=r"^(seed|workers) is \S+, expected (int|at least 0)$"):
        DetectionConfig(**change)


def test_one_frame_a_batch_needs_more_than_one_place_to_normalise():
    with pytest.raises(ValueError, match="phase1: batch_size is 1 and image_size 128: P7 has one place"):
        DetectionConfig(image_size=128, phases=(replace(PHASES[0], batch_size=1),))
    DetectionConfig(image_size=128, phases=(replace(PHASES[1], batch_size=1),))  # Its norms are frozen
    config = DetectionConfig(image_size=160, phases=(replace(PHASES[0], batch_size=1),))
    model = apply_phase(EfficientDet(), config.phases[0])
    logits, _ = model(torch.zeros(1, 3, 160, 160, dtype=torch.uint8))  # It runs: P7 has 2 x 2 places
    assert logits.isfinite().all()
