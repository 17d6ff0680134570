"""Files of a run are readable by the next user, copies of read-only files are one's own, and what may not be read is not called missing."""

import json
import os
import shutil
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from noise_run import TINY, draw_dataset
from PIL import Image, ImageDraw

from deepfake_nbs import core
from deepfake_nbs import runs
from deepfake_nbs.classifiers import comparison
from deepfake_nbs.application import models, shipped
from deepfake_nbs.application import portable
from deepfake_nbs import claims
from deepfake_nbs import settings
from deepfake_nbs.data import annotations
from deepfake_nbs.data import build
from deepfake_nbs.data import manifest
from deepfake_nbs.miniature import drawing
from deepfake_nbs.data import storage
from deepfake_nbs import checkpoints
from deepfake_nbs.classifiers import data as classifiers_data
from deepfake_nbs.classifiers import saved
from deepfake_nbs.classifiers import training as classifiers_training
from deepfake_nbs.baselines import study as baselines_study
from deepfake_nbs.heads import cropping
from deepfake_nbs.heads import data as heads_data
from deepfake_nbs.heads import detector
from deepfake_nbs.heads import network as heads_network
from deepfake_nbs.heads import training as heads_training
from deepfake_nbs.retrieval import features as retrieval_features
from deepfake_nbs.retrieval import search
from deepfake_nbs.retrieval import store as retrieval_store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=[0o022, 0o027])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def check_modes(folder, umask, least):
    "Every file is as an ordinary program would have written it, every folder as one would have made it."
    found = {path.relative_to(folder).as_posix(): path for path in (folder, *folder.rglob("*"))}
    files = [name for name, path in found.items() if path.is_file()]
    assert len(files) >= least, files
    odd = {
        name: oct(stat.S_IMODE(path.stat().st_mode))
        for name, path in found.items()
        if stat.S_IMODE(path.stat().st_mode) != (0o666 if path.is_file() else 0o777) & ~umask
    }
    assert not odd


def close_folder(folder):
    "As another user's results may be: nobody may change them."
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o500 if path.is_dir() else 0o400)


@pytest.fixture
def photos(tmp_path):
    for label in (0, 1):
        (tmp_path / "data/challenge" / f"{label}-toy").mkdir(parents=True)
        for i in range(12):
            image = Image.new("RGB", (48, 40), (200 + i, 220, 200 + label))
            ImageDraw.Draw(image).ellipse((i, 5, 10 + i, 20 + label), fill=(9 * i, 0, 99 * label))
            image.save(tmp_path / "data/challenge" / f"{label}-toy" / f"{i:02d}.png")
    return tmp_path / "data"


# --- What is written -------------------------------------------------------------------------------------------------


def test_a_head_detector_and_its_checkpoints(tmp_path, umask, monkeypatch):
    run = tmp_path / "run"
    model = heads_network.EfficientDet()
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    history = [dict(epoch=1, iteration=1, validation_loss=1.0, validation_ap50=0.1)]
    state = dict(identity={}, progress=dict(history=history))
    checkpoints.save_checkpoint(
        run / "head_detection/phase2", model, optimiser, state, heads_training.kept_epochs(history)
    )
    checkpoints.save_weights(model, run / "head_detection/phase1/model/model.safetensors")
    core.write_json(run / "head_detection/phase1/model/config.json", {})
    check_modes(run, umask, 7)
    close_folder(run / "head_detection/phase1")
    monkeypatch.setattr(detector, "validation_ap", lambda *_: 0.5)
    detector.choose_detector(run, None, {"phase1": {}})
    check_modes(run / "models", umask, 2)
    (run / "head_detection/phase1").chmod(0o700)


def test_a_classifier_and_its_run(tmp_path, umask, monkeypatch):
    noise, run = draw_dataset(tmp_path / "cvcs_dfd", 20), tmp_path / "run"
    frames = list(classifiers_data.read_splits(noise, TINY).values())[:2]
    task = classifiers_training.classifier_training(
        TINY, *[classifiers_data.ManifestImages(frame, noise, 32) for frame in frames]
    )
    state = dict(identity={}, progress=dict(history=[dict(epoch=1, validation_auc=0.5, validation_loss=1.0)]))
    checkpoints.save_checkpoint(
        run / "training/1", task.learner.model, task.learner.opt, state, dict(best=1, early=1)
    )
    check_modes(run / "training/1", umask, 5)  # last, best, early, optimiser, state
    shutil.rmtree(run / "training/1")
    classifiers_training.train(replace(TINY, epochs=1, image_size=32), noise, run / "training/1")
    check_modes(run / "training/1", umask, 5)
    close_folder(run / "training/1/model")
    monkeypatch.setattr(comparison, "best_run", lambda *_, **__: 1)
    comparison.choose_classifier(run)
    check_modes(run / "models", umask, 2)
    assert comparison.choose_classifier(run) == run / "models/classifier", "and again, over the copy"


def test_a_codebook_and_its_cache(tmp_path, umask):
    rows, folder = [], tmp_path / "set"
    for i in range(36):
        split, rng = ("train", "train", "validation", "test")[i // 2 % 4], np.random.default_rng(i)
        image = Image.new("RGB", (96, 96), (30, 30, 30))
        for x, y in rng.integers(0, 90, (25, 2)):
            ImageDraw.Draw(image).ellipse((x, y, x + 5 + 4 * (i % 2), y + 5), fill="white")
        (folder / split).mkdir(parents=True, exist_ok=True)
        image.save(folder / split / f"{i:06d}.png")
        rows.append(
            dict(
                path=f"{split}/{i:06d}.png", label=i % 2, group=f"g{i // 2}", split=split, sha256=f"{i:064x}"
            )
        )
    config = baselines_study.BaselineConfig(
        n_words=4, kernels=("linear",), C=(1.0,), n_trees=(5,), max_descriptors=500
    )
    baselines_study.run_baselines(pd.DataFrame(rows), folder, tmp_path / "out", config, tmp_path / "cache")
    check_modes(tmp_path / "out", umask, 6)
    check_modes(tmp_path / "cache", umask, 18)


def test_datasets_whole_and_cropped_an_index_and_a_head_set(tmp_path, umask, photos):
    class Everywhere(detector.HeadDetector):
        def __init__(self):
            self.model, self.config = torch.nn.Identity(), dict(image_size=64, threshold=0.5)

        def find_in_squares(self, squares, sizes, threshold=None):
            return [[detector.HeadBox((5.0, 5.0, 30.0, 30.0), 0.9)] for _ in squares]

    run = tmp_path / "run"
    for path in photos.rglob("*.png"):
        path.chmod(0o400)
    build.build_cvcs_dfd(photos, run / "cvcs_dfd", workers=1, progress=False)
    cropping.build_cropped_dfd(run / "cvcs_dfd", Everywhere(), run / "cvcs_cropped_dfd", progress=False)
    search.build_index(
        retrieval_features.make_feature("thumbnail"),
        photos,
        run / "index",
        cache=run / "vectors",
        progress=False,
    )
    check_modes(run, umask, 110)
    drawing.draw_miniature(tmp_path / "drawn", 0, 0, 4, workers=1, progress=False)
    check_modes(tmp_path / "drawn", umask, 12)
    heads_data.build_head_set(tmp_path / "drawn/heads", tmp_path / "heads", progress=False)
    check_modes(tmp_path / "heads", umask, 5)


def test_an_exported_model_of_a_run_that_nobody_may_change(tmp_path, umask):
    run = models.untrained_run(tmp_path / "run")
    close_folder(run)
    portable.export_portable(tmp_path / "out/model", run)
    check_modes(tmp_path / "out", umask, 9)
    portable.export_portable(tmp_path / "out/model", run)
    check_modes(tmp_path / "out", umask, 9)


def test_a_figure_and_a_table(tmp_path, umask):
    figure, _ = plt.subplots()
    claims.save_figure(figure, "fig-own", tmp_path / "run", "a_chapter")
    claims.save_table(pd.DataFrame({"a": [1]}), "tbl-own", tmp_path / "run", "a_chapter")
    plt.close(figure)
    check_modes(tmp_path / "run", umask, 3)


# --- What may not be read --------------------------------------------------------------------------------------------


@pytest.fixture
def shared():
    "A folder that another user may enter, which those of pytest are not."
    before = os.umask(0o022)
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)
    os.umask(before)


def fails_with(function) -> str:
    "What a function raises for somebody who may not read everything: root may, so it runs as another user then."

    def run() -> str:
        try:
            function()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "nothing"

    if os.geteuid():
        return run()
    run()  # Loads what it needs from places that may be closed to others too
    answer, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(told, run().encode())
        finally:
            os._exit(0)
    os.close(told)
    with os.fdopen(answer) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def things(shared):
    "Something of every kind that is read, and how it is read."
    run = models.untrained_run(shared / "run")
    shutil.copyfile(run / "models/classifier/model.safetensors", shared / "again.safetensors")
    torch.save({"a": torch.zeros(1)}, shared / "state.pt")
    (shared / "settings.ini").write_text("[smoke]\n")
    (shared / "set").mkdir()
    (shared / "set/manifest.csv").write_text("path,label\n")
    (shared / "set/labels.csv").write_text("path,label\n")
    (shared / "set/dataset.json").write_text(json.dumps(dict(kind=storage.DATASET_KIND)))
    (shared / "training/1").mkdir(parents=True)
    (shared / "training/1/run.json").write_text("{}")
    (shared / "model.onnx").write_text("")
    (shared / "head_set.json").write_text("{}")
    (shared / "photos").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8), (80 * i, 0, 9)).save(shared / f"photos/{i}.png")
    thumbnail = retrieval_features.make_feature("thumbnail")
    search.build_index(thumbnail, shared / "photos", shared / "index", progress=False)
    classifier, of_detector = run / models.CLASSIFIER, run / detector.DETECTOR
    index = next((shared / "index").glob("index-*.faiss"))
    data = shared / "photos"
    return {
        of_detector / "model.safetensors": lambda: detector.HeadDetector.load(of_detector, "cpu"),
        of_detector / "config.json": lambda: detector.HeadDetector.load(of_detector, "cpu"),
        classifier / "model.safetensors": lambda: saved.load_classifier(classifier),
        classifier / "config.json": lambda: saved.load_classifier(classifier),
        shared / "again.safetensors": lambda: checkpoints.read_state(shared / "again.safetensors"),
        shared / "state.pt": lambda: checkpoints.read_state(shared / "state.pt"),
        shared / "settings.ini": lambda: settings.read_settings("smoke", shared / "settings.ini"),
        shared / "set/manifest.csv": lambda: manifest.read_manifest(shared / "set"),
        shared / "set/labels.csv": lambda: manifest.read_labels(shared / "set"),
        shared / "set/dataset.json": lambda: storage.refuse_dataset_folder(shared / "set", data),
        shared / "training/1/run.json": lambda: runs.read_run(shared / "training/1"),
        shared / "model.onnx": lambda: models.OnnxNetwork(shared / "model.onnx"),
        shared / "head_set.json": lambda: heads_data.read_head_set(shared),
        shared / "index/config.json": lambda: retrieval_store.open_index(shared / "index"),
        index: lambda: retrieval_store.open_index(shared / "index"),
    }


def test_a_file_that_may_not_be_read_is_not_called_missing(things):
    for path, read in things.items():
        path.chmod(0)
        said = fails_with(read)
        assert said.startswith("PermissionError: ") and "Permission denied" in said and str(path) in said, (
            said
        )
        path.chmod(0o644)


def test_a_folder_that_may_not_be_entered_is_not_called_empty(things, shared):
    reads = {
        shared / "run/models/classifier": lambda: models.find_run(shared / "run"),
        shared / "run/models/head_detector": lambda: detector.HeadDetector.load(
            shared / "run" / detector.DETECTOR, "cpu"
        ),
        shared / "training": lambda: comparison.finished_runs(shared),
        shared / "training/1": lambda: runs.latest_checkpoint(shared / "training/1"),
        shared / "set": lambda: manifest.read_manifest(shared / "set/manifest.csv"),
        shared / "index": lambda: retrieval_store.open_index(shared / "index"),
    }
    for place, read in reads.items():
        place.chmod(0)
        said = fails_with(read)
        assert said.startswith("PermissionError: ") and "Permission denied" in said and str(place) in said, (
            said
        )
        place.chmod(0o755)


def test_the_newest_run_is_one_that_may_be_read(shared, monkeypatch):
    monkeypatch.setattr(models, "project_root", lambda: shared)
    monkeypatch.setattr(shipped, "shipped_folder", lambda: shared / "weights")
    monkeypatch.delenv("DEEPFAKE_NBS_RUN", raising=False)
    theirs = models.untrained_run(shared / "data/runs/smoke-theirs", head_threshold=None)
    theirs.chmod(0)
    said = fails_with(models.find_run)
    assert said.startswith("PermissionError: ") and str(theirs) in said, "not: no run holds a classifier yet"
    models.untrained_run(shared / "data/runs/smoke-ours", head_threshold=None)
    assert fails_with(models.find_run) == "nothing"


def test_lists_and_annotations_that_may_not_be_read_are_not_left_out(shared):
    for part in ("Annotations", "JPEGImages", "Splits"):
        (shared / "heads" / part).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(shared / "heads/JPEGImages/a.png")
    (shared / "heads/Annotations/a.xml").write_text("<annotation/>")
    (shared / "heads/Splits/train.txt").write_text("a\n")
    for part in ("Annotations", "Splits"):
        (shared / "heads" / part).chmod(0)
        said = fails_with(lambda: annotations.read_heads(shared / "heads"))
        assert said.startswith("PermissionError: ") and str(shared / "heads" / part) in said, said
        (shared / "heads" / part).chmod(0o755)
