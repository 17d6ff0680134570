"Contracts of a training run: what it leaves, how it stops and resumes, what it refuses."

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from noise_run import TINY, draw_dataset, rewrite

from deepfake_nbs import checkpoints, engine, runs
from deepfake_nbs.application.cli import app
from deepfake_nbs.classifiers import training
from deepfake_nbs.classifiers.data import ManifestImages, SeededLoader, read_splits
from deepfake_nbs.classifiers.recipes import TrainingConfig
from deepfake_nbs.classifiers.saved import load_classifier
from deepfake_nbs.classifiers.training import make_loss, train, train_run
from deepfake_nbs.classifiers.xception import normalise
from deepfake_nbs.classifiers.comparison import choose_classifier
from deepfake_nbs.classifiers.tables import results_table, training_table
from deepfake_nbs.classifiers import tables
from deepfake_nbs.core import file_sha256
from deepfake_nbs.settings import read_settings
from deepfake_nbs.images import ImageError, read_image, resize_square
from deepfake_nbs.runs import TrainingError, read_predictions, read_run


pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_window_is_large_enough_for_the_network(noise):
    with pytest.raises(
        ValueError, match="image_size 16, window 0.25: expected windows of at least 16 pixels"
    ):
        replace(TINY, image_size=16, window=0.25, augment="flip")
    config = replace(TINY, image_size=64, window=0.25, augment="flip")
    images = ManifestImages(read_splits(noise, config)["train"], noise, 64, augment_seed=0, window=0.25)
    assert np.isfinite(
        engine.train_epoch(training.classifier_training(config, images, images), 0)["train_loss"]
    )


def test_the_rate_of_every_batch_is_that_of_the_schedule(noise):
    config, seen = replace(TINY, schedule="cosine", epochs=4), []
    splits = read_splits(noise, config)
    task = training.classifier_training(
        config, *(ManifestImages(splits[name], noise, 48) for name in ("train", "validation"))
    )

    class Watch(engine.Callback):
        def before_step(self):
            seen.append(self.opt.hypers[0]["lr"])

    task.learner.add_cb(Watch())
    engine.train_epoch(task, 2)
    assert seen == pytest.approx([engine.SCHEDULES["cosine"](0.01, 2 + i / 4, 4) for i in range(4)])


@pytest.mark.parametrize("device, precision, problem", [("cpu", "float16", "needs a GPU")])
def test_an_impossible_precision_is_refused(noise, tmp_path, device, precision, problem):
    with pytest.raises(ValueError, match=problem):
        train(replace(TINY, precision=precision), noise, tmp_path / "out", device=device)


def test_half_precision_is_used_recorded_and_left(noise, tmp_path, monkeypatch):
    record = train(replace(TINY, precision="bfloat16", epochs=1), noise, tmp_path / "out", device="cpu")
    assert record["config"]["precision"] == "bfloat16" and not torch.is_autocast_enabled("cpu")
    monkeypatch.setattr(training, "make_loss", lambda labels, weighted: Exploding(2))
    with pytest.raises(TrainingError, match="not finite"):
        train(replace(TINY, precision="bfloat16", epochs=1), noise, tmp_path / "bad", device="cpu")
    assert not torch.is_autocast_enabled("cpu"), (
        "a run that failed must not leave the next one in half precision"
    )


def test_half_precision_predicts_what_float32_predicts(noise, tmp_path):
    config = replace(TINY, epochs=12, learning_rate=0.005, schedule="constant")
    train(config, noise, tmp_path / "out", device="cpu")
    model, _ = load_classifier(tmp_path / "out/model")
    images = ManifestImages(pd.concat(read_splits(noise, config).values()), noise, config.image_size)
    exact, half = (
        training.predict(model, images, precision=precision) for precision in ("float32", "bfloat16")
    )
    assert np.ptp(exact) > 0.3, "a network that has learned something"
    assert np.abs(exact - half).max() <= 0.01 and (exact != half).any()


def test_windows_are_cropped_from_training_images_alone(noise, tmp_path):
    frame = read_splits(noise, TINY)["train"]
    images = ManifestImages(frame, noise, 32, augment_seed=0, window=0.75)
    (x, _), (again, _) = images[3], images[3]
    assert x.shape == (24, 24, 3) and torch.equal(x, again)
    assert ManifestImages(frame, noise, 32, window=0.75)[3][0].shape == (32, 32, 3)
    record = train(replace(TINY, epochs=1, augment="all", window=0.75), noise, tmp_path / "out")
    assert load_classifier(tmp_path / "out/model")[1]["image_size"] == record["config"]["image_size"] == 48
    with pytest.raises(ValueError, match="window is 0.5 with augment 'none'"):
        replace(TINY, window=0.5)


def test_batch_norms_are_measured_on_recalibrate_batch_norm_after_windows(noise):
    frame = read_splits(noise, TINY)["train"]
    config = replace(TINY, augment="flip", window=0.5, precision="float32", batch_size=len(frame))
    windows, whole = (
        ManifestImages(frame, noise, config.image_size, augment_seed=seed, window=0.5) for seed in (0, None)
    )
    task = training.classifier_training(config, windows, whole)
    learner = task.learner
    assert all(
        not isinstance(each, training.RecalibrateBatchNorm)
        for each in training.classifier_learner(config, whole, whole).cbs
    )
    engine.train_epoch(task, 0)
    weights = [value.clone() for value in learner.model.parameters()]
    with torch.no_grad():
        seen = learner.model.conv1(torch.cat([x for x, _ in SeededLoader(whole, len(frame))]))
    torch.testing.assert_close(learner.model.bn1.running_mean, seen.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    learner.recalibrate_batch_norm.after_train()
    assert all(
        torch.equal(before, after) for before, after in zip(weights, learner.model.parameters(), strict=True)
    )


@pytest.mark.parametrize("batch_size", [2, 5])
def test_a_last_batch_of_one_trains_with_windows(noise, batch_size):
    "17 images: batches of 2 leave one alone, whose last map has one place and no spread."
    frame = read_splits(noise, TINY)["train"].iloc[:17]
    config = replace(TINY, augment="flip", window=0.75, batch_size=batch_size, image_size=32)
    windows = ManifestImages(frame, noise, 32, augment_seed=0, window=0.75)
    task = training.classifier_training(config, windows, windows)
    learner = task.learner
    measured = [len(y) for _, y in learner.recalibrate_batch_norm.loader]
    assert measured == {2: [2] * 8, 5: [5] * 3 + [2]}[batch_size], "one alone is left out, more are not"
    row = engine.train_epoch(task, 0)
    assert np.isfinite([row["train_loss"], row["validation_loss"]]).all()
    assert all(
        torch.isfinite(norm.running_var).all()
        for norm in learner.model.modules()
        if isinstance(norm, torch.nn.BatchNorm2d)
    )


@pytest.mark.parametrize("augment, window", [("none", 1.0), ("flip", 1.0), ("all", 0.75)])
def test_a_run_of_batches_and_one_image_more_trains(tmp_path, augment, window):
    "45 images give 27 to train on: 13 batches of 2 and one image."
    noise = draw_dataset(tmp_path / "cvcs_dfd", 45)
    config = replace(TINY, epochs=1, batch_size=2, image_size=32, augment=augment, window=window)
    record = train(config, noise, tmp_path / "out")
    assert record["counts"] == dict(train=27, validation=9, test=9) and record["epochs"] == 1


def test_only_training_images_are_augmented(noise, tmp_path, monkeypatch):
    made = []

    class Watched(ManifestImages):
        def __init__(self, frame, *args, **more):
            made.append((frame.split.iloc[0], more.get("augment_seed")))
            super().__init__(frame, *args, **more)

    monkeypatch.setattr(training, "ManifestImages", Watched)
    train(replace(TINY, epochs=1, augment="all"), noise, tmp_path / "out")
    assert made == [("train", 42), ("validation", None), ("test", None)]


def test_both_classes_pull_with_the_same_force():
    weight = make_loss([1] * 30 + [0] * 10).weight
    assert torch.allclose(weight, torch.tensor([2.0, 2 / 3]))
    assert 10 * weight[0] == pytest.approx(30 * weight[1].item())


def test_missing_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match="manifest.csv: no such manifest"):
        train(TINY, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda df: df[(df.split != "train") | (df.label == "1")], r"'train' holds label \[1\] only"),
        (lambda df: df[df.split != "validation"], "'validation' is empty"),
        (lambda df: df[df.split != "test"], "'test' is empty"),
        (lambda df: df.drop(columns="group"), "group"),
    ],
)
def test_data_that_cannot_be_trained_on(noise, tmp_path, change, problem):
    folder = shutil.copytree(noise, tmp_path / "cvcs_dfd")
    rewrite(folder, change)
    with pytest.raises(ValueError, match=problem) as error:
        train(TINY, folder, tmp_path / "out")
    assert "manifest.csv" in str(error.value) and not (tmp_path / "out").exists()


def test_the_first_file_that_moved_is_named(noise, tmp_path):
    folder = shutil.copytree(noise, tmp_path / "cvcs_dfd")
    for name in ("test/000009.png", "validation/000008.png"):
        (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"validation/000008.png: .*2 files missing"):
        train(TINY, folder, tmp_path / "out")


def test_a_broken_image_is_named(noise, tmp_path):
    folder = shutil.copytree(noise, tmp_path / "cvcs_dfd")
    (folder / "train/000006.png").write_bytes(b"not an image")
    with pytest.raises(ImageError, match="train/000006.png"):
        train(TINY, folder, tmp_path / "out")


def test_what_a_run_leaves(run):
    folder = run / "training" / "8"
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == sorted(
        ["run.json", "predictions.csv", *runs.RUN_FILES]
    )
    record, history = read_run(folder), pd.read_csv(folder / "history.csv")
    assert list(history) == [
        "epoch",
        "train_loss",
        "validation_loss",
        "validation_accuracy",
        "validation_auc",
        "learning_rate",
        "seconds",
    ]
    assert history.epoch.tolist() == [1, 2] and np.isfinite(history.to_numpy()).all()
    assert (
        record["n"] == 6
        and record["counts"] == dict(train=18, validation=6, test=6)
        and sum(record["class_counts"]) == 18
    )
    assert record["weights_sha256"] == file_sha256(folder / "model/model.safetensors")
    assert record["manifest_sha256"] == file_sha256(run / "cvcs_dfd/manifest.csv")
    assert (
        record["config"]["net"] == "light" and record["wall_seconds"] > 0 and record["images_per_second"] > 0
    )
    assert (record["crop"], record["config"]["crop"]) == (False, True) and "whole images used" in record[
        "note"
    ]
    assert read_run(run / "training" / "1")["note"] == ""
    assert "tmp" not in (folder / "run.json").read_text(), "a record must not hold an absolute path"


def test_predictions_agree_with_history(run):
    folder = run / "training" / "8"
    history, record = pd.read_csv(folder / "history.csv").set_index("epoch"), read_run(folder)
    loss = make_loss(read_splits(run / "cvcs_dfd", TINY)["train"].label.tolist())
    for checkpoint, epoch in (("best", record["best_epoch"]), ("last", 2)):
        frame = read_predictions(folder, "validation", checkpoint)
        assert np.mean((frame.probability >= 0.5) == frame.label) == pytest.approx(
            history.validation_accuracy[epoch]
        )
        probability = torch.tensor(np.stack([1 - frame.probability, frame.probability], 1))
        expected = torch.nn.functional.nll_loss(
            probability.log().float(), torch.tensor(frame.label.to_numpy()), weight=loss.weight
        )
        assert expected.item() == pytest.approx(history.validation_loss[epoch], rel=1e-3)
    splits = read_splits(run / "cvcs_dfd", TINY)
    for split in ("validation", "test"):
        assert read_predictions(folder, split).path.tolist() == splits[split].path.tolist()
        assert read_predictions(folder, split).group.tolist() == splits[split].group.tolist(), (
            "a group like 004 must stay text"
        )


def test_the_classifier_predicts_what_the_run_predicted(run, tmp_path):
    shutil.copytree(run, tmp_path / run.name)
    model, config = load_classifier(choose_classifier(tmp_path / run.name))
    frame = read_predictions(run / "training" / str(config["row"]), "test")
    pixels = np.stack(
        [resize_square(read_image(run / "cvcs_dfd" / path), config["image_size"]) for path in frame.path]
    )
    with torch.inference_mode():
        probability = model(normalise(torch.from_numpy(pixels), config["mean"], config["std"])).softmax(1)[
            :, 1
        ]
    assert np.allclose(probability.numpy(), frame.probability, atol=1e-4)


def without_seconds(path):
    return pd.read_csv(path / "history.csv").drop(columns="seconds")


@pytest.mark.parametrize(
    "changes",
    [
        dict(optimiser="adam"),
        dict(optimiser="momentum"),
        dict(
            optimiser="adamw",
            weight_decay=0.05,
            schedule="cosine",
            augment="all",
            window=0.75,
            precision="bfloat16",
        ),
    ],
    ids=["adam", "momentum", "recipe"],
)
def test_a_killed_run_resumes_as_if_nothing_had_happened(noise, tmp_path, monkeypatch, capsys, changes):
    config = replace(TINY, **changes)
    whole = train(config, noise, tmp_path / "whole", device="cpu")
    with monkeypatch.context() as patch:

        def killed(task, epoch, run_epoch=engine.train_epoch):
            if epoch == 2:
                task.learner.dls.train.epoch = 99
                raise KeyboardInterrupt
            return run_epoch(task, epoch)

        patch.setattr(engine, "train_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, noise, tmp_path / "cut", device="cpu")
    assert not (tmp_path / "cut" / "run.json").exists()
    assert tables.run_status(tmp_path / "cut") == "stopped after epoch 2"
    (tmp_path / "cut" / ".checkpoint-0003.building" / "new").mkdir(
        parents=True
    )  # what a kill in the middle of writing leaves
    capsys.readouterr()
    again = train(config, noise, tmp_path / "cut", device="cpu")
    printed = capsys.readouterr().out
    assert "resuming after epoch 2" in printed and "epoch  3/3" in printed and "epoch  2/3" not in printed
    pd.testing.assert_frame_equal(without_seconds(tmp_path / "whole"), without_seconds(tmp_path / "cut"))
    assert again["weights_sha256"] == whole["weights_sha256"]
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "whole/predictions.csv"), pd.read_csv(tmp_path / "cut/predictions.csv")
    )
    assert not list((tmp_path / "cut").glob("checkpoint*")) and not list(
        (tmp_path / "cut").glob(".checkpoint*")
    )


def test_killed_before_the_test_split_was_read(noise, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "predict_checkpoints", stop)
        with pytest.raises(KeyboardInterrupt):
            train(replace(TINY, epochs=1), noise, tmp_path / "out")
    monkeypatch.setattr(engine, "train_epoch", stop)  # No epoch is left to be trained
    record = train(replace(TINY, epochs=1), noise, tmp_path / "out")
    assert record["best_epoch"] == 1 and (tmp_path / "out/predictions.csv").is_file()


@pytest.mark.parametrize(
    "where, name, error",
    [
        (torch, "save", OSError(28, "No space left on device")),
        (checkpoints, "save_weights", OSError(28, "No space left on device")),
    ],
)
def test_a_full_disk_leaves_the_epoch_before(noise, tmp_path, monkeypatch, where, name, error):
    save = getattr(where, name)
    with monkeypatch.context() as patch:

        def full(state, path):
            if "checkpoint-0002" in str(path):
                raise error
            save(state, path)

        patch.setattr(where, name, full)
        with pytest.raises(OSError, match="No space left"):
            train(TINY, noise, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").glob("checkpoint*")] == ["checkpoint-0001"]
    resumed, straight = (train(TINY, noise, tmp_path / name) for name in ("out", "straight"))
    assert [resumed[key] for key in ("best_epoch", "weights_sha256")] == [
        straight[key] for key in ("best_epoch", "weights_sha256")
    ]


class Exploding(torch.nn.Module):
    "A loss that is not a number from its n-th call on."

    def __init__(self, n):
        super().__init__()
        self.calls, self.n = 0, n

    def forward(self, logits, labels):
        self.calls += 1
        return torch.nn.functional.cross_entropy(logits, labels) * (
            float("nan") if self.calls >= self.n else 1.0
        )


@pytest.mark.parametrize(
    "call, place, kept",
    [(2, "epoch 1, training batch 2", None), (4 + 2 + 1 + 3, "epoch 2, training batch 3", "checkpoint-0001")],
)
def test_a_loss_that_is_not_a_number_stops_the_run(noise, tmp_path, monkeypatch, call, place, kept):
    monkeypatch.setattr(training, "make_loss", lambda labels, weighted: Exploding(call))
    with pytest.raises(TrainingError, match=place):
        train(TINY, noise, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").glob("checkpoint*")] == ([kept] if kept else [])


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("error", NO_MEMORY)
def test_out_of_memory_says_what_to_lower(noise, tmp_path, monkeypatch, error, precision):
    def explode(labels, weighted):
        def loss(logits, labels):
            raise error

        return type("Loss", (torch.nn.Module,), dict(forward=lambda self, *args: loss(*args)))()

    monkeypatch.setattr(training, "make_loss", explode)
    message = r"out of memory at epoch 1, batch 1; lower batch_size \(now 5\) or image_size \(now 48\). There is no checkpoint yet"
    with pytest.raises(TrainingError, match=message):
        train(replace(TINY, precision=precision), noise, tmp_path / "out", device="cpu")
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("error", NO_MEMORY)
@pytest.mark.parametrize("step", ["ManifestImages", "classifier_learner", "predict_checkpoints"])
def test_out_of_memory_outside_an_epoch(noise, tmp_path, monkeypatch, step, error):
    def explode(*args, **more):
        raise error

    monkeypatch.setattr(training, step, explode)
    with pytest.raises(
        TrainingError, match=r"^out of memory; lower batch_size \(now 5\) or image_size \(now 48\)$"
    ):
        train(replace(TINY, epochs=1), noise, tmp_path / "out")


def test_another_error_is_not_called_out_of_memory(noise, tmp_path, monkeypatch):
    class Broken(torch.nn.Module):
        def forward(self, logits, labels):
            raise RuntimeError("shapes do not match")

    monkeypatch.setattr(training, "make_loss", lambda labels, weighted: Broken())
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(TINY, noise, tmp_path / "out")


def test_patience_stops_a_run_and_a_resumed_one(noise, tmp_path, monkeypatch):
    def getting_worse(task, epoch, run_epoch=engine.train_epoch):
        return run_epoch(task, epoch) | dict(validation_auc=0.9 - 0.1 * epoch)

    monkeypatch.setattr(engine, "train_epoch", getting_worse)
    record = train(replace(TINY, epochs=9, patience=2), noise, tmp_path / "out")
    assert (record["best_epoch"], record["epochs"], record["config"]["epochs"]) == (1, 3, 9)
    assert len(pd.read_csv(tmp_path / "out/history.csv")) == 3
    assert train(replace(TINY, epochs=4), noise, tmp_path / "patient")["epochs"] == 4


def test_the_early_epoch_is_kept(noise, tmp_path):
    config = replace(TINY, epochs=6)
    record = train(config, noise, tmp_path / "long")
    train(
        replace(config, epochs=2, schedule="constant"), noise, tmp_path / "short"
    )  # the published rate is constant for 5 epochs
    assert record["early_epoch"] == 2
    pd.testing.assert_frame_equal(
        read_predictions(tmp_path / "long", "test", "early").drop(columns="checkpoint"),
        read_predictions(tmp_path / "short", "test", "last").drop(columns="checkpoint"),
    )


def test_first_weights_are_read_or_refused(noise, tmp_path):
    whole = train(replace(TINY, epochs=1), noise, tmp_path / "first")
    weights = str(tmp_path / "first/model/model.safetensors")
    config = replace(TINY, epochs=1, learning_rate=1e-9, dropout=0.0)
    record = train(replace(config, weights=weights), noise, tmp_path / "second")
    assert record["config"]["weights"] == file_sha256(tmp_path / "first/model/model.safetensors"), (
        "never a path"
    )
    assert train(replace(config, weights=weights), noise, tmp_path / "second") == record
    train(config, noise, tmp_path / "fresh")
    last = {
        name: read_predictions(tmp_path / name, "validation", "last").probability
        for name in ("second", "fresh")
    }
    assert not np.allclose(last["second"], last["fresh"], atol=1e-3) and whole["config"]["weights"] == "none"
    with pytest.raises(ValueError, match="another variant"):
        train(replace(config, net="light", weights=weights), noise, tmp_path / "third")
    (tmp_path / "evil.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="evil.pt: refused"):
        train(replace(config, weights=str(tmp_path / "evil.pt")), noise, tmp_path / "fourth")
    with pytest.raises(ValueError, match="width 1 only"):
        train(replace(config, weights="imagenet"), noise, tmp_path / "fifth")


TOGETHER = """
import json, sys, torch
from pathlib import Path

from deepfake_nbs import engine
from deepfake_nbs.classifiers.recipes import TrainingConfig
from deepfake_nbs.classifiers.training import train
from deepfake_nbs.engine import distributed_context, rank_and_world_size
torch.set_num_threads(1)

def watched(task, *rest, run_epochs=engine.run_epochs):
    run_epochs(task, *rest)
    heard, learner = task.learner.epoch_recorder, task.learner
    loss = sum(a.item() * n for a, n in zip(heard.losses, heard.counts)) / sum(heard.counts)
    part, parts = rank_and_world_size()
    weights = [p.double().sum().item() for p in learner.model.parameters()]
    Path(sys.argv[3], f"part{part}.json").write_text(json.dumps(dict(parts=parts, weights=weights, loss=loss)))

engine.run_epochs = watched
config = TrainingConfig(row=8, crop=False, epochs=2, image_size=48, width=0.1, batch_size=6, dropout=0.0, learning_rate=0.01, workers=1,
                        precision="float32")
with distributed_context("cpu"):
    train(config, sys.argv[1], sys.argv[2], device="cpu")
"""


def test_two_processes_train_one_network(noise, tmp_path):
    (tmp_path / "together.py").write_text(TOGETHER)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(tmp_path / "together.py"),
    ]
    done = subprocess.run(
        [*command, str(noise), str(tmp_path / "out"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = [
        json.loads(path.read_text()) for path in sorted(tmp_path.glob("part*.json"))
    ]  # Not printed: two processes may share a line
    assert [one["parts"] for one in said] == [2, 2]
    losses = [one["loss"] for one in said]
    assert said[0]["weights"] == said[1]["weights"] and losses[0] != losses[1], (
        "one network, in each process after its own images"
    )
    assert pd.read_csv(tmp_path / "out/history.csv").train_loss[1] == pytest.approx(np.mean(losses))
    assert done.stdout.count("epoch  1/2") == 1, "one process writes and prints"
    record = read_run_without_place(tmp_path / "out")
    assert record["processes"] == 2 and len(pd.read_csv(tmp_path / "out/history.csv")) == 2
    alone = train(replace(TINY, epochs=2, batch_size=6, dropout=0.0), noise, tmp_path / "alone", device="cpu")
    histories = [pd.read_csv(tmp_path / name / "history.csv") for name in ("out", "alone")]
    assert histories[0].train_loss[0] == pytest.approx(histories[1].train_loss[0], rel=0.5), (
        "batch norm sees half a batch"
    )
    assert alone["processes"] == 1
    with pytest.raises(TrainingError, match=r"processes \(2, not 1\)"):
        train(replace(TINY, epochs=2, batch_size=6, dropout=0.0), noise, tmp_path / "out", device="cpu")


SAME = """
import sys
from deepfake_nbs.classifiers.recipes import TrainingConfig
from deepfake_nbs.classifiers.training import train
print(train(eval(sys.argv[1]), sys.argv[2], sys.argv[3], device="cpu")["finished"])
"""


def test_a_second_process_waits_for_the_same_run(noise, tmp_path):
    config, out = replace(TINY, epochs=3), tmp_path / "out"
    command = [sys.executable, "-c", SAME, repr(config), str(noise), str(out)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said, wrong = zip(*(process.communicate(timeout=300) for process in both), strict=True)
    assert [process.returncode for process in both] == [0, 0], wrong
    assert sorted("already finished" in text for text in said) == [False, True], (
        "one trains, the other has nothing left to do"
    )
    assert {text.splitlines()[-1] for text in said} == {train(config, noise, out, device="cpu")["finished"]}
    assert sorted(path.name for path in out.iterdir()) == [
        "history.csv",
        "model",
        "predictions.csv",
        "run.json",
    ]


def read_run_without_place(folder):
    return json.loads((folder / "run.json").read_text())


def test_the_command_trains_a_run_and_refuses_what_it_does_not_know(run, tmp_path, monkeypatch, capsys):
    from typer.testing import CliRunner

    shutil.copytree(run, tmp_path / run.name)
    small = replace(read_settings("smoke"), image_size=48, width=0.1, epoch_limit=1)
    monkeypatch.setattr("deepfake_nbs.core.run_folder", lambda profile, data: tmp_path / run.name)
    monkeypatch.setattr("deepfake_nbs.settings.read_settings", lambda profile: small)
    done = CliRunner().invoke(app, ["train", "--run-number", "6", "seed=3"])
    assert done.exit_code == 0 and "best epoch 1" in done.output, done.output
    old = CliRunner().invoke(app, ["train", "--row", "6", "seed=3"])
    assert (
        old.exit_code == 0
        and "--row is now called --run-number" in old.output
        and "best epoch 1" in old.output
    )
    assert [path.name for path in (tmp_path / run.name / "training").glob("custom-light*seed3*")]
    for arguments, words in [
        (["--run-number", "14"], "run number is 14"),
        (["nets=midway"], "expected key=value"),
        (["epochs=many"], "expected epochs=int"),
        (["optimiser=sgd"], "unknown optimiser 'sgd'"),
        (["epochs=0"], "epochs is 0, expected at least 1"),
        (["weights=nothing.pt"], "nothing.pt: no such file"),
    ]:
        done = CliRunner().invoke(app, ["train", *arguments])
        assert done.exit_code == 2 and words in done.output and "Traceback" not in done.output


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("weights='imagenet': cannot download"),
        OSError(28, "No space left on device"),
        TrainingError("loss is not finite"),
        ImageError("a.png", "broken"),
    ],
)
def test_the_command_ends_with_a_message(tmp_path, monkeypatch, error):
    from typer.testing import CliRunner

    def fail(*args):
        raise error

    monkeypatch.setattr("deepfake_nbs.core.run_folder", lambda profile, data: tmp_path)
    monkeypatch.setattr(training, "train_run", fail)
    done = CliRunner().invoke(app, ["train"])
    assert done.exit_code == 2 and str(error) in done.output and "Traceback" not in done.output


def test_a_finished_run_is_not_trained_again(run, monkeypatch):
    monkeypatch.setattr(training, "classifier_learner", None)
    config = TrainingConfig(**read_run(run / "training/8")["config"])
    for overwrite in (False, True):
        record = train(replace(config, workers=0), run / "cvcs_dfd", run / "training/8", overwrite=overwrite)
        assert record == read_run(run / "training/8")


def test_another_run_is_refused_by_the_keys_that_differ(copy):
    config = TrainingConfig(**read_run(copy / "training/8")["config"])
    before = (copy / "training/8/run.json").read_bytes()
    with pytest.raises(TrainingError, match=r"epochs \(2, not 1\), seed \(42, not 1\)"):
        train(replace(config, seed=1, epochs=1), copy / "cvcs_dfd", copy / "training/8")
    assert (copy / "training/8/run.json").read_bytes() == before
    record = train(replace(config, seed=1, epochs=1), copy / "cvcs_dfd", copy / "training/8", overwrite=True)
    assert record["seed"] == 1 and len(pd.read_csv(copy / "training/8/history.csv")) == 1


def test_an_unfinished_run_of_another_kind_is_refused_too(noise, tmp_path, monkeypatch):
    def stop(*args, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "predict_checkpoints", stop)
        with pytest.raises(KeyboardInterrupt):
            train(replace(TINY, epochs=1), noise, tmp_path / "out")
    with pytest.raises(TrainingError, match="learning_rate"):
        train(replace(TINY, epochs=1, learning_rate=0.5), noise, tmp_path / "out")


def test_changed_data_makes_it_another_run(copy):
    rewrite(copy / "cvcs_dfd", lambda df: df[df.path != "train/000000.png"])
    with pytest.raises(TrainingError, match="manifest.csv: changed since run 8"):
        read_run(copy / "training/8")
    for page in (tables.finished_runs, results_table, training_table, choose_classifier):
        with pytest.raises(TrainingError, match="changed since run 1"):
            page(copy)
    config = TrainingConfig(**json.loads((copy / "training/8/run.json").read_text())["config"])
    with pytest.raises(TrainingError, match="manifest_sha256"):
        train(config, copy / "cvcs_dfd", copy / "training/8")


def test_changed_weights_are_refused(copy):
    with open(copy / "training/8/model/model.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(TrainingError, match="model.safetensors: changed"):
        read_run(copy / "training/8")


def test_one_class_in_validation_has_no_auc_but_a_best_epoch(tmp_path):
    folder = draw_dataset(tmp_path / "cvcs_dfd")
    rewrite(folder, lambda df: df[(df.split != "validation") | (df.label == "1")])
    record = train(replace(TINY, epochs=2), folder, tmp_path / "out")
    history = pd.read_csv(tmp_path / "out/history.csv")
    assert history.validation_auc.isna().all()
    assert record["best_epoch"] == history.set_index("epoch").validation_loss.idxmin()


def test_a_run_made_by_other_code_is_another_run(copy, monkeypatch):
    config = replace(TINY, row=1, net="xception", crop=False, epochs=2)
    kept = train_run(copy, config, "1")
    monkeypatch.setattr(training, "code_identity", lambda modules: "0" * 64)
    with pytest.raises(TrainingError, match="code_sha256"):
        train_run(copy, config, "1")
    assert read_run(copy / "training" / "1")["finished"] == kept["finished"]
    assert train_run(copy, config, "1", overwrite=True)["code_sha256"] == "0" * 64
