"""Chapter 02: the network beside its peer, frozen layers, box geometry, AP beside COCO's, files, bad input, cropping."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw

from deepfake_nbs import head_detection as hd
from deepfake_nbs import core
from deepfake_nbs.core import read_settings
from deepfake_nbs.datasets import build_cvcs_dfd, read_annotation_files, read_list_files, read_manifest
from deepfake_nbs.images import read_image
from deepfake_nbs.metrics import jackknife_interval

TINY = hd.DetectionConfig(
    image_size=64,
    weights="none",
    workers=0,
    phases=(replace(hd.PHASES[0], batch_size=4, iterations=2, epochs=2), replace(hd.PHASES[1], iterations=2, epochs=2)),
)


@pytest.fixture(autouse=True)
def one_thread():  # Small pictures: a second thread costs more than it brings
    torch.set_num_threads(1)


def voc(*boxes, name="head"):
    names = ("xmin", "ymin", "xmax", "ymax")
    corners = ["".join(f"<{k}>{v}</{k}>" for k, v in zip(names, box, strict=True)) for box in boxes]
    return f"<annotation>{''.join(f'<object><name>{name}</name><bndbox>{c}</bndbox></object>' for c in corners)}</annotation>"


def draw_film(root, n=18, size=(96, 72)):
    "Ovals in the layout of HollywoodHeads: 6 films, every third frame empty."
    rng, lists = np.random.default_rng(0), {"train": [], "val": [], "test": []}
    for part in ("Annotations", "JPEGImages", "Splits"):
        (root / part).mkdir(parents=True)
    for i in range(n):
        name = f"mov_{i % 6 + 1:03d}_{i:06d}"
        image = Image.fromarray(rng.integers(60, 110, (size[1], size[0], 3)).astype(np.uint8))
        boxes = []
        if i % 3:
            x, y = int(rng.integers(0, 60)), int(rng.integers(0, 35))
            ImageDraw.Draw(image).ellipse((x, y, x + 26, y + 32), fill=(225, 180, 150))
            boxes.append((x, y, x + 26, y + 32))
        image.save(root / "JPEGImages" / f"{name}.jpeg")
        (root / "Annotations" / f"{name}.xml").write_text(voc(*boxes))
        lists["train" if i % 6 < 4 else "val" if i % 6 == 4 else "test"].append(name)
    for split, names in lists.items():
        (root / "Splits" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    return hd.build_head_set(draw_film(folder / "heads"), folder / "set", progress=False)


@pytest.fixture(scope="module")
def trained(film, tmp_path_factory):
    out = tmp_path_factory.mktemp("training")
    return out, hd.train_detector(film, out, TINY, device="cpu", data="film", progress=False)


@pytest.fixture
def copy(film, tmp_path):
    "A head set of one's own to spoil."
    shutil.copytree(film.root, tmp_path / "heads")
    return tmp_path / "heads"


# --- The network -----------------------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_peer():
    total = hd.count_parameters(hd.EfficientDet())["total"]
    assert abs(total / 3_828_002 - 1) < 0.01  # effdet 0.4.1, tf_efficientdet_d0 with one class


def test_shapes_are_those_of_the_peer():
    effdet = pytest.importorskip("effdet", reason="effdet, the peer, is not installed; extra `bench` brings it")
    peer = effdet.create_model("tf_efficientdet_d0", num_classes=1, pretrained=False, pretrained_backbone=False, bench_task="").eval()
    model = hd.EfficientDet().eval()
    assert abs(hd.count_parameters(model)["total"] / sum(p.numel() for p in peer.parameters()) - 1) < 0.01
    picture = torch.zeros(1, 3, 512, 512)
    with torch.inference_mode():
        theirs, ours = peer.backbone(picture), model.backbone(picture)
        assert [x.shape for x in ours] == [x.shape for x in theirs]
        assert [x.shape for x in model.pyramid(ours)] == [x.shape for x in peer.fpn(theirs)]
        classes, boxes = peer(picture)
        logits, offsets = model(picture.byte())
    assert logits.shape[1] == sum(x.numel() for x in classes) and offsets.numel() == sum(x.numel() for x in boxes)


def test_phi_sets_width_depth_backbone_and_size():
    with torch.device("meta"):
        models = [hd.EfficientDet(phi) for phi in hd.COMPOUND]
    totals = [hd.count_parameters(model)["total"] for model in models]
    assert totals == sorted(totals) and totals[3] > 2 * totals[0]
    assert [len(model.pyramid.layers) for model in models] == [3, 4, 5, 6]
    assert [len(model.classes.convs) for model in models] == [3, 3, 3, 4]
    assert [hd.COMPOUND[phi].image_size for phi in range(4)] == [512, 640, 768, 896]
    assert [hd.DetectionConfig(phi=phi).image_size for phi in range(4)] == [512, 640, 768, 896]
    assert hd.DetectionConfig(phi=2, image_size=128).image_size == 128
    with pytest.raises(ValueError, match="phi is 4; expected one of 0, 1, 2, 3"):
        hd.EfficientDet(4)


def test_a_second_graph_is_another_list():
    down_only = (hd.Node(6, (3, 4)), hd.Node(5, (2, 5)), hd.Node(4, (1, 6)), hd.Node(3, (0, 7)), hd.Node(7, (4,)))
    layer = hd.BiFPNLayer([8] * 5, 8, down_only).eval()
    maps = [torch.zeros(1, 8, side, side) for side in (16, 8, 4, 2, 1)]
    lit = [x.clone() for x in maps]
    lit[0][..., 0, 0] = 1
    with torch.inference_mode():
        changed = [not torch.equal(a, b) for a, b in zip(layer(lit), layer(maps), strict=True)]
    assert changed == [True, False, False, False, False]  # P3 does not flow upwards in this one


@pytest.mark.parametrize("size", [64, 96, 160, 192, 256])
def test_every_anchor_has_an_answer(size):
    with torch.inference_mode():
        logits, offsets = hd.EfficientDet().eval()(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    anchors = hd.make_anchors((size, size))
    assert logits.shape[1] == offsets.shape[1] == len(anchors)


def test_anchors_sit_where_their_cells_are():
    "A network that copies its input to one cell answers at that cell's anchors."
    anchors = hd.make_anchors((128, 128))
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    cell = (3 * 16 + 5) * 9  # P3, row 3, column 5
    assert torch.allclose(middle[cell : cell + 9], torch.tensor([5 * 8 + 4.0, 3 * 8 + 4.0]).expand(9, 2), atol=0.6)


def test_imagenet_weights_fit_or_are_refused(monkeypatch, capsys):
    full = hd.get_model("efficientnet_b0", weights=None)
    enum = hd.get_model_weights("efficientnet_b0")
    monkeypatch.setattr(enum, "get_state_dict", lambda self, **_: full.state_dict())
    backbone = hd.Backbone()
    assert hd.load_backbone_weights(backbone, "efficientnet_b0", "imagenet") == "imagenet"
    assert torch.equal(backbone.features[0][0].weight, full.features[0][0].weight)

    def fail(self, **_):
        raise OSError("no network")

    monkeypatch.setattr(enum, "get_state_dict", fail)
    with pytest.raises(ConnectionError, match="choose weights='none'"):
        hd.load_backbone_weights(backbone, "efficientnet_b0", "imagenet")
    assert hd.load_backbone_weights(backbone, "efficientnet_b0", "auto") == "none"
    assert "starts at random" in capsys.readouterr().out


# --- Loss and boxes --------------------------------------------------------------------------------------------------


def test_decode_finds_what_the_loss_wants():
    "Offsets that bring the loss to nothing decode to the very boxes."
    torch.manual_seed(0)
    anchors = hd.make_anchors((128, 128))
    boxes = torch.tensor([[10.0, 12, 40, 50], [70, 60, 118, 120]])
    which = hd.assign_anchors(boxes, anchors)
    offsets = torch.zeros(1, len(anchors), 4)
    held = which >= 0
    offsets[0, held] = hd.CODER.encode_single(boxes[which[held]], anchors[held])
    logits = torch.where(held, 8.0, -8.0)[None]
    assert sum(hd.detection_loss(logits, offsets, anchors, [boxes])) < 1e-3
    found, scores = hd.decode(logits, offsets, anchors)[0]
    assert len(found) == 2 and torch.allclose(found[found[:, 0].argsort()], boxes, atol=1e-3)
    assert (scores > 0.99).all()


def test_a_batch_is_decoded_picture_by_picture():
    torch.manual_seed(0)
    anchors = hd.make_anchors((128, 128))
    logits, offsets = torch.randn(3, len(anchors)) - 2, 0.1 * torch.randn(3, len(anchors), 4)
    together = hd.decode(logits, offsets, anchors)
    for i, (boxes, scores) in enumerate(together):
        alone, its_scores = hd.decode(logits[i : i + 1], offsets[i : i + 1], anchors)[0]
        assert torch.equal(boxes, alone) and torch.equal(scores, its_scores)
        assert (scores.diff() <= 0).all()


def test_frames_without_heads_count_in_the_loss():
    anchors = hd.make_anchors((64, 64))
    nothing = torch.zeros(0, 4)
    quiet, loud = (
        sum(hd.detection_loss(torch.full((1, len(anchors)), value), torch.zeros(1, len(anchors), 4), anchors, [nothing]))
        for value in (-8.0, 8.0)
    )
    assert torch.isfinite(quiet) and quiet < 1e-3 < loud


@pytest.mark.parametrize("size", [(400, 20), (20, 400), (1, 1), (64, 64), (3000, 5), (640, 427)])
def test_boxes_survive_the_letterbox(size):
    square, scale = hd.letterbox(Image.new("RGB", size, "white"), 64)
    assert square.shape == (64, 64, 3)
    white = (square == 255).all(2)
    assert abs(white.any(0).sum() - max(1, size[0] * scale)) <= 1 and abs(white.any(1).sum() - max(1, size[1] * scale)) <= 1


def test_flipping_there_and_back(film):
    path = next(path for path in film.boxes if len(film.boxes[path]))
    image, boxes = read_image(film.root / path), film.boxes[path]
    flip = hd.v2.RandomHorizontalFlip(p=1)
    mirrored, moved = flip(image, hd.as_boxes(boxes, image.size))
    assert np.allclose(moved[:, [0, 2]], image.width - boxes[:, [2, 0]]) and np.allclose(moved[:, [1, 3]], boxes[:, [1, 3]])
    again, back = flip(mirrored, moved)
    assert np.array_equal(again, image) and np.allclose(back, boxes)


def test_augmented_boxes_still_hold_the_head(film):
    "The oval is the one bright thing: wherever a box went, it must still be around it."
    images = hd.HeadImages(film, "train", 64, augment=True)
    number = next(i for i, boxes in enumerate(images.boxes) if len(boxes))
    seen = 0
    for place in range(60):
        pixels, boxes, _ = images[(place, number)]
        for x0, y0, x1, y1 in boxes.round().int().tolist():
            assert 0 <= x0 < x1 <= 64 and 0 <= y0 < y1 <= 64
            inside, picture = pixels[:, y0:y1, x0:x1].float().mean(), pixels.float().mean()
            if (x1 - x0) * (y1 - y0) < 0.5 * 64 * 64 and min(x1 - x0, y1 - y0) >= 6:
                seen += 1
                assert inside > picture
    assert seen > 20


def test_order_of_frames_is_that_of_an_unbroken_training():
    whole = list(hd.schedule(7, 3, 20, seed=5))
    assert whole[11:] == list(hd.schedule(7, 3, 20, seed=5, start=11))
    places = [place for batch in whole for place, _ in batch]
    assert places == list(range(60))
    first_lap = [number for batch in whole for place, number in batch if place < 7]
    assert sorted(first_lap) == list(range(7))


# --- Average precision -----------------------------------------------------------------------------------------------


def test_average_precision_by_hand():
    heads = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], float)
    found = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], float)  # right, a double, right
    hits = hd.match_boxes(found, heads, (0.5,))[0]
    assert hits.tolist() == [True, False, True]
    assert hd.average_precision(np.array([0.9, 0.8, 0.7]), hits, 2) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert np.isnan(hd.average_precision(np.array([0.9]), np.array([False]), 0))


def random_set(seed, n=30):
    "Frames and found boxes of every kind: shifted, doubled, missed, false, empty frames."
    rng = np.random.default_rng(seed)
    paths, boxes, found = [f"JPEGImages/{i}.jpeg" for i in range(n)], {}, []
    for path in paths:
        m = int(rng.integers(0, 5))
        corner, side = rng.uniform(0, 400, (m, 2)), rng.uniform(10, 160, (m, 2))
        boxes[path] = np.concatenate([corner, corner + side], 1)
        for box in boxes[path]:
            for _ in range(int(rng.integers(0, 3))):
                found.append((path, *(box + rng.normal(0, 6, 4)), round(float(rng.uniform(0, 1)), 2)))
        for _ in range(int(rng.integers(0, 2))):
            x, y = rng.uniform(0, 400, 2)
            found.append((path, x, y, x + 50, y + 60, float(rng.uniform())))
    found = pd.DataFrame(found, columns=["path", "x0", "y0", "x1", "y1", "score"])
    found[["x1", "y1"]] = np.maximum(found[["x1", "y1"]], found[["x0", "y0"]].to_numpy() + 1)
    frames = pd.DataFrame({"path": paths, "split": "test", "n_heads": [len(boxes[path]) for path in paths]})
    return hd.HeadSet(Path("."), Path("."), frames, boxes, pd.DataFrame()), found


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_pycocotools(seed):
    pytest.importorskip("torchmetrics")
    heads, found = random_set(seed)
    ours, theirs = hd.match_frames(found, heads, heads.split("test")), hd.coco_metrics(found, heads, heads.split("test"))
    assert ours.ap(0.5) == pytest.approx(theirs["ap50"], abs=1e-6)
    assert ours.ap(0.75) == pytest.approx(theirs["ap75"], abs=1e-6)
    assert np.mean([ours.ap(overlap) for overlap in hd.OVERLAPS]) == pytest.approx(theirs["ap"], abs=1e-6)


def test_weights_count_like_repeated_frames():
    heads, found = random_set(0, n=6)
    weight = np.array([2.0, 0, 1, 3, 0, 1])
    again = [(path, f"{path}-{k}") for path, times in zip(heads.frames["path"], weight, strict=True) for k in range(int(times))]
    repeated = pd.concat([found[found["path"].eq(path)].assign(path=name) for path, name in again])
    boxes = {name: heads.boxes[path] for path, name in again}
    other = hd.HeadSet(Path("."), Path("."), pd.DataFrame({"path": list(boxes), "split": "test"}), boxes, pd.DataFrame())
    expected = hd.match_frames(repeated, other, list(boxes)).ap(0.5)
    assert hd.match_frames(found, heads, heads.split("test")).ap(0.5, weight) == pytest.approx(expected)


def test_evaluation_keeps_frames_without_heads():
    pytest.importorskip("torchmetrics")
    heads, found = random_set(1)
    result = hd.evaluate_heads(found, heads, "test", 0.5, n_resamples=100)
    empty = [path for path in heads.boxes if not len(heads.boxes[path])]
    false = found[found["path"].isin(empty) & found["score"].ge(0.5)]
    assert result.value["false_heads_per_headless_frame"] == pytest.approx(len(false) / len(empty))
    assert result.n["ap50"] == 30 and result.n["false_heads_per_headless_frame"] == len(empty)
    assert result.low["ap50"] < result.value["ap50"] < result.high["ap50"]
    less = found[~found["path"].isin(empty)]
    assert hd.evaluate_heads(less, heads, "test", 0.5, n_resamples=2).value["ap50"] >= result.value["ap50"]


def test_intervals_leave_out_films_not_frames():
    pytest.importorskip("torchmetrics")
    heads, found = random_set(1, n=60)
    table = {}
    for n in (60, 20, 5):
        films = heads.frames.assign(group=[f"film {i * n // 60}" for i in range(60)])
        table[n] = hd.evaluate_heads(found, hd.HeadSet(heads.root, heads.folder, films, heads.boxes, heads.rejected), "test", 0.5)
    assert (table[20].value.dropna() == table[60].value.dropna()).all() and (table[20].films == 20).all() and (table[20].n["ap50"] == 60)
    assert (table[60].why[["ap50", "ap75"]] == "").all() and table[20].low["ap50"] < table[20].value["ap50"] < table[20].high["ap50"]
    assert table[5][["low", "high"]].isna().all(axis=None) and table[5].why["ap50"] == "5 films"
    without = hd.match_frames(found, heads, heads.split("test")).ap(0.5, (np.arange(60) >= 3).astype(float))
    rest = [hd.match_frames(found, heads, heads.split("test")).ap(0.5, (np.arange(60) // 3 != i).astype(float)) for i in range(20)]
    size = [sum(len(heads.boxes[path]) for path in heads.split("test")[3 * i : 3 * i + 3]) for i in range(20)]
    low, high, _ = jackknife_interval(table[20].value["ap50"], np.array(rest), np.array(size))
    assert rest[0] == without and (table[20].low["ap50"], table[20].high["ap50"]) == pytest.approx((low, high), abs=1e-6)


def test_threshold_balances_precision_and_recall():
    heads, found = random_set(2)
    matches = hd.match_frames(found, heads, heads.split("test"))

    def f1(threshold):
        said = matches.scores >= threshold
        return 2 * matches.hits[0][said].sum() / (said.sum() + matches.n_heads.sum())

    assert f1(hd.best_threshold(matches)) >= max(f1(t) for t in np.linspace(0.05, 0.95, 91)) - 1e-9


# --- Frozen layers, training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
def test_frozen_layers_do_not_move(film, number):
    torch.manual_seed(0)
    model, phase = hd.EfficientDet(), hd.PHASES[number]
    anchors = hd.make_anchors((64, 64))
    optimiser = torch.optim.AdamW([p for p in hd.apply_phase(model, phase).parameters() if p.requires_grad], 0.01)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = hd.HeadImages(film, "train", 64, augment=True)
    batches = iter(hd.load_batches(images, hd.schedule(len(images), 4, 3)))
    hd.train_epoch(model, phase, optimiser, batches, range(3), 3, anchors, "cpu", progress=False)
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    of_norms = {key for key in moved if key.rpartition(".")[0] in norms}
    if phase.freeze_backbone:
        assert not any(key.startswith("backbone") for key in moved)
        assert any(key.endswith("running_mean") for key in of_norms)  # the new parts' statistics do move
    if phase.freeze_norm:
        assert of_norms == set()
        assert any(key.startswith("backbone") for key in moved)
    assert any(key.startswith("boxes") for key in moved) and any(key.startswith("pyramid") for key in moved)


def test_calibration_changes_statistics_only(film):
    backbone = hd.Backbone()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    hd.calibrate_norms(backbone, [torch.randn(2, 3, 64, 64)], backbone)
    moved = {key.rpartition(".")[2] for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}
    assert {m.momentum for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}


def test_a_training_leaves_its_files(trained, film):
    out, records = trained
    for phase, record in records.items():
        assert sorted(path.name for path in (out / phase).iterdir()) == ["detections.csv", "history.csv", "model", "run.json"]
        assert len(pd.read_csv(out / phase / "history.csv")) == 2
        assert record["note"].startswith("no ImageNet weights") and record["backbone_weights"] == "none"
        assert record["manifest_sha256"] and record["weights_sha256"] and record["n"] == len(film.split("test"))
    found = pd.read_csv(out / "phase1" / "detections.csv")
    assert set(found["choice"]) <= {"ap", "loss"} and set(found["split"]) <= {"validation", "test"}


def test_what_is_trained_is_not_trained_again_and_not_replaced(trained, film):
    out, records = trained
    start = time.perf_counter()
    assert hd.train_detector(film, out, replace(TINY, workers=1), device="cpu", data="film", progress=False) == records
    assert time.perf_counter() - start < 20
    with pytest.raises(hd.TrainingError, match="config differ"):
        hd.train_detector(film, out, replace(TINY, image_size=96), device="cpu", progress=False)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_training_goes_on(film, tmp_path, epoch):
    "Stopped after an epoch, the last one too, and continued: the same files as without a stop."
    phase = replace(hd.PHASES[1], iterations=2, epochs=2)
    config = replace(TINY, phases=(phase,))
    arguments = dict(config=config, start="x", backbone="none", progress=False)

    def fresh():
        core.set_seed(1)
        return hd.EfficientDet()

    straight = hd.train_phase(phase, fresh(), film, tmp_path / "a", **arguments)

    class Stop(Exception):
        pass

    def stop(*arguments):
        path = save(*arguments)
        if path.name == f"checkpoint-{epoch:04d}":
            raise Stop(path)
        return path

    save = hd.save_checkpoint
    hd.save_checkpoint = stop
    try:
        with pytest.raises(Stop):
            hd.train_phase(phase, fresh(), film, tmp_path / "b", **arguments)
    finally:
        hd.save_checkpoint = save
    assert hd.latest_checkpoint(tmp_path / "b").name == f"checkpoint-{epoch:04d}"
    resumed = hd.train_phase(phase, hd.EfficientDet(), film, tmp_path / "b", **arguments)
    assert resumed["weights_sha256"] == straight["weights_sha256"]
    assert (tmp_path / "a" / "detections.csv").read_bytes() == (tmp_path / "b" / "detections.csv").read_bytes()
    one, other = (pd.read_csv(tmp_path / name / "history.csv").drop(columns="seconds") for name in "ab")
    assert len(one) == 2 and one.equals(other)


@pytest.mark.parametrize("name", ["model/model.safetensors", "model/config.json", "detections.csv", "history.csv"])
@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-4] + b"0000")])
def test_lost_files_and_changed_weights_are_not_done(trained, film, tmp_path, name, change):
    "A record alone is no finished phase; only of the weights is the hash known."
    shutil.copytree(trained[0] / "phase1", tmp_path / "phase1")
    record = trained[1]["phase1"]
    assert hd._earlier(tmp_path / "phase1", record["identity"], overwrite=False) == record
    change(tmp_path / "phase1" / name)
    whole = (tmp_path / "phase1" / name).is_file() and name != "model/model.safetensors"
    assert hd._earlier(tmp_path / "phase1", record["identity"], overwrite=False) == (record if whole else None)
    assert (tmp_path / "phase1").exists() == whole


def test_a_phase_that_lost_its_weights_is_trained_again(trained, film, tmp_path):
    shutil.copytree(trained[0], tmp_path / "out", ignore=shutil.ignore_patterns("copy.safetensors"))
    (tmp_path / "out/phase2/model/model.safetensors").unlink()
    records = hd.train_detector(film, tmp_path / "out", TINY, device="cpu", data="film", progress=False)
    assert records["phase1"] == trained[1]["phase1"]
    assert core.file_sha256(tmp_path / "out/phase2/model/model.safetensors") == records["phase2"]["weights_sha256"]


def test_both_choices_of_an_epoch():
    history = [
        dict(epoch=i + 1, validation_loss=loss, validation_ap50=ap)
        for i, (loss, ap) in enumerate([(1.0, 0.2), (0.7, float("nan")), (0.7, 0.6), (0.9, 0.6)])
    ]
    assert hd.chosen_epoch(history, "loss") == 2 and hd.chosen_epoch(history, "ap") == 3


def test_a_loss_that_is_no_number_stops(film):
    model = hd.EfficientDet()
    with torch.no_grad():
        model.classes.predict[1].bias.fill_(float("nan"))
    images = hd.HeadImages(film, "train", 64)
    optimiser = torch.optim.SGD(hd.apply_phase(model, hd.PHASES[1]).parameters(), 0.1)
    with pytest.raises(hd.TrainingError, match="not finite at iteration 1; lower learning_rate"):
        hd.train_epoch(
            model,
            hd.PHASES[1],
            optimiser,
            iter(hd.load_batches(images, hd.schedule(4, 2, 1))),
            range(1),
            1,
            hd.make_anchors((64, 64)),
            "cpu",
            False,
        )


def test_a_budget_of_every_profile():
    for profile in ("smoke", "mini", "full"):
        config = hd.detection_config(read_settings(profile))
        assert [phase.name for phase in config.phases] == ["phase1", "phase2"]
    assert [(p.batch_size, p.iterations, p.epochs) for p in config.phases] == [(32, 1000, 50), (4, 10_000, 50)]  # full is the report's
    with pytest.raises(ValueError, match="multiple of 32"):
        replace(config, image_size=300)


# --- Files -----------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_are_equal(trained):
    model, config = hd.load_network(trained[0] / "phase2" / "model")
    again = hd.EfficientDet(config["phi"])
    hd.save_weights(model, trained[0] / "copy.safetensors")
    hd.read_weights(again, trained[0] / "copy.safetensors")
    picture = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(model(picture), again.eval()(picture), strict=True))


@pytest.fixture
def saved(trained, tmp_path):
    shutil.copytree(trained[0] / "phase2" / "model", tmp_path / "model")
    return tmp_path / "model"


def test_files_that_do_not_fit_are_named(saved, tmp_path):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"phi": 1}))
    with pytest.raises(ValueError, match="not weights of this network.*says phi 1"):
        hd.HeadDetector.load(saved)
    (saved / "config.json").write_text(json.dumps(config | {"phi": 9}))
    with pytest.raises(ValueError, match="phi is 9"):
        hd.HeadDetector.load(saved)
    (saved / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "threshold"}))
    with pytest.raises(ValueError, match="config.json: lacks the key 'threshold'"):
        hd.HeadDetector.load(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: not JSON"):
        hd.HeadDetector.load(saved)
    (saved / "config.json").write_text(json.dumps(config))
    torch.save(hd.EfficientDet(), saved / "model.safetensors")  # a pickle that could run code
    with pytest.raises(ValueError, match="not a safetensors file"):
        hd.HeadDetector.load(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no such file of weights"):
        hd.HeadDetector.load(saved)
    with pytest.raises(FileNotFoundError, match="config.json"):
        hd.HeadDetector.load(tmp_path / "nowhere")


BAD_VALUES = [
    *(("version", value, "expected 1") for value in (99, None, "1", True)),
    *(("phi", value, "expected one of 0, 1, 2, 3") for value in ([0], "0", True, 1.0, None)),
    *(("image_size", value, "expected a multiple of 32, at least 64") for value in ("256", 0, -64, 100, 64.0, None)),
    *(("threshold", value, "expected a number between 0 and 1") for value in (7, "high", None, -0.1, True, float("nan"))),
]


@pytest.mark.parametrize("key, value, expected", BAD_VALUES)
def test_values_of_a_config_are_checked(saved, key, value, expected):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ValueError) as caught:
        hd.read_config(saved)
    assert str(caught.value) == f"{saved / 'config.json'}: {key} is {value!r}; {expected}"


# --- Bad input -------------------------------------------------------------------------------------------------------

BOMB = '<!DOCTYPE a [<!ENTITY b "boom"><!ENTITY c "&b;&b;&b;&b;">]><annotation><object><name>&c;</name></object></annotation>'
NO_PLACE = "<object><name>head</name></object>"
BAD = {
    "box outside the image": (voc((200, 10, 240, 50)), "outside the picture of 96 x 72"),
    "zero-area box": (voc((10, 10, 10, 50)), "it has no area"),
    "xmin > xmax": (voc((50, 10, 10, 50)), "xmin > xmax"),
    "ymin > ymax": (voc((10, 50, 40, 10)), "ymin > ymax"),
    "not a number": (voc(("nan", 10, 40, 50)), "not numbers"),
    "a word": (voc(("left", 10, 40, 50)), "a box without four numbers"),
    "unknown class": (voc((10, 10, 40, 50), name="dog"), "unknown class 'dog'"),
    "empty xml": ("", "not a Pascal VOC annotation"),
    "truncated xml": (voc((10, 10, 40, 50))[:60], "not a Pascal VOC annotation"),
    "entity bomb": (BOMB, "EntitiesForbidden"),
    "another xml": ("<html></html>", "its outermost element is 'html'"),
    "another class without a box": (f"<annotation>{NO_PLACE.replace('head', 'dog')}</annotation>", "object 1: unknown class 'dog'"),
    "a head without a box beside another": (
        voc((10, 10, 40, 50)).replace("</annotation>", f"{NO_PLACE}</annotation>"),
        "object 2: a head without a box",
    ),
    "two heads without a box": (f"<annotation>{NO_PLACE * 2}</annotation>", "object 1: a head without a box"),
    "no name": (voc((10, 10, 40, 50)).replace("<name>head</name>", ""), "object 1: it has no name"),
    "size of another picture": (
        voc((10, 10, 40, 50)).replace("<object>", "<size><width>960</width><height>720</height></size><object>"),
        "its size is 960 x 720, that of its picture 96 x 72",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_annotation_is_rejected_by_name(copy, tmp_path, case):
    text, reason = BAD[case]
    name = "mov_002_000001"
    (copy / "Annotations" / f"{name}.xml").write_text(text)
    with pytest.raises(ValueError, match="1 of 18 frames rejected, more than the limit of 1.0%") as caught:
        hd.build_head_set(copy, tmp_path / "set", progress=False)
    assert name in str(caught.value) and reason in str(caught.value)
    heads = hd.build_head_set(copy, tmp_path / "set", reject_limit=0.1, progress=False)
    (row,) = heads.rejected.to_dict("records")
    assert row["path"] == f"JPEGImages/{name}.jpeg" and reason in row["reason"]
    assert len(heads.frames) == 17 and row["path"] not in heads.boxes


def test_one_head_without_a_box_says_that_nobody_is_there(copy, tmp_path):
    text = f"<annotation><size><width>96</width><height>72</height></size>{NO_PLACE}</annotation>"
    (copy / "Annotations" / "mov_002_000001.xml").write_text(text)
    heads = hd.build_head_set(copy, tmp_path / "set", progress=False)
    assert heads.rejected.empty and len(heads.boxes["JPEGImages/mov_002_000001.jpeg"]) == 0


def test_pictures_that_share_an_annotation_are_rejected(copy, tmp_path):
    with Image.open(copy / "JPEGImages/mov_002_000001.jpeg") as image:
        image.save(copy / "JPEGImages/mov_002_000001.png")
        (copy / "JPEGImages/more").mkdir()
        image.save(copy / "JPEGImages/more/mov_002_000001.jpeg")
    with open(copy / "Splits/train.txt", "a") as file:
        file.write("more/mov_002_000001\n")
    heads = hd.build_head_set(copy, tmp_path / "set", reject_limit=0.5, progress=False)
    names = {f"JPEGImages/{name}" for name in ("more/mov_002_000001.jpeg", "mov_002_000001.jpeg", "mov_002_000001.png")}
    assert names == set(heads.rejected.loc[heads.rejected["what"].eq("frame"), "path"]) and len(heads.frames) == 17
    assert heads.rejected["reason"].str.contains("share Annotations/mov_002_000001.xml; expected one picture").any()


def test_a_set_without_any_good_frame_is_an_error(copy, tmp_path):
    for path in (copy / "Annotations").glob("*.xml"):
        path.write_text("")
    with pytest.raises(ValueError, match="18 of 18 frames rejected, none is left; first JPEGImages/"):
        hd.build_head_set(copy, tmp_path / "set", reject_limit=1.0, progress=False)


def test_nothing_is_left_over_in_silence(copy, tmp_path):
    (copy / "Annotations" / "mov_002_000001.xml").unlink()
    (copy / "JPEGImages" / "mov_003_000002.jpeg").unlink()
    (copy / "JPEGImages" / "mov_004_000003.jpeg").write_bytes(b"\xff\xd8 cut short")
    with open(copy / "Splits" / "train.txt", "a") as file:
        file.write("mov_009_000099\n")
    Image.new("RGB", (40, 40)).save(copy / "JPEGImages" / "mov_001_999999.jpeg")
    (copy / "Annotations" / "mov_001_999999.xml").write_text(voc())
    (copy / "Annotations" / "mov_005_000010.xml").write_text(voc((-10, 10, 40, 50)))
    heads = hd.build_head_set(copy, tmp_path / "set", reject_limit=0.5, progress=False)
    reasons = {(row.path, row.what): row.reason for row in heads.rejected.itertuples()}
    assert reasons[("JPEGImages/mov_002_000001.jpeg", "frame")] == "a picture without annotation"
    assert reasons[("Annotations/mov_003_000002.xml", "annotation")] == "an annotation without picture"
    assert reasons[("JPEGImages/mov_003_000002", "list")] == "named in Splits, but not there"
    assert reasons[("JPEGImages/mov_009_000099", "list")] == "named in Splits, but not there"
    assert (
        "not an image" in reasons[("JPEGImages/mov_004_000003.jpeg", "frame")]
        or "decoded" in reasons[("JPEGImages/mov_004_000003.jpeg", "frame")]
    )
    assert reasons[("JPEGImages/mov_001_999999.jpeg", "frame")] == "named in no Splits/*.txt"
    assert "clipped" in reasons[("JPEGImages/mov_005_000010.jpeg", "box clipped")]
    assert heads.boxes["JPEGImages/mov_005_000010.jpeg"].tolist() == [[0, 10, 40, 50]]
    assert len(reasons) == 7


def test_a_frame_in_two_splits_and_an_empty_split_are_errors(copy, tmp_path):
    lists = copy / "Splits"
    (lists / "val.txt").write_text((lists / "val.txt").read_text() + "mov_001_000000.jpeg\n")
    with pytest.raises(ValueError, match="mov_001_000000.* is also in"):
        hd.build_head_set(copy, tmp_path / "set", progress=False)
    (lists / "train.txt").write_text((lists / "train.txt").read_text() + (lists / "test.txt").read_text())
    (lists / "val.txt").write_text("mov_005_000004\nmov_005_000010\nmov_005_000016\n")
    (lists / "test.txt").write_text("")
    with pytest.raises(ValueError, match="the split 'test' is empty"):
        hd.build_head_set(copy, tmp_path / "set", progress=False)


def test_without_lists_films_are_dealt_out_whole(copy, tmp_path):
    shutil.rmtree(copy / "Splits")
    heads = hd.build_head_set(copy, tmp_path / "set", progress=False)
    assert heads.frames.groupby("group")["split"].nunique().max() == 1 and heads.frames["split"].nunique() == 3


def test_a_set_that_changed_is_noticed(film, tmp_path):
    shutil.copytree(film.folder, tmp_path / "set")
    (tmp_path / "set" / "boxes.csv").write_text((tmp_path / "set" / "boxes.csv").read_text() + "\n")
    with pytest.raises(ValueError, match="boxes.csv: changed since"):
        hd.read_head_set(tmp_path / "set")
    with pytest.raises(FileNotFoundError, match="head_set.json"):
        hd.read_head_set(tmp_path)


# --- Finding and cropping --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector(trained):
    return hd.HeadDetector.load(trained[0] / "phase2" / "model", device="cpu")


def test_pictures_of_any_shape_get_an_answer(detector):
    pictures = [Image.new("RGB", size, "tan") for size in ((1, 1), (8, 8), (2000, 100), (100, 2000), (3, 900), (640, 480))]
    answers = detector.find_heads(pictures, threshold=1e-4)
    assert len(answers) == len(pictures)
    for picture, heads in zip(pictures, answers, strict=True):
        for (x0, y0, x1, y1), score in heads:
            assert 0 <= x0 < x1 <= picture.width and 0 <= y0 < y1 <= picture.height and 0 < score < 1
    assert detector.find_heads([]) == []


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_one_picture_of_any_mode_gives_its_own_list(detector, film, mode):
    photo = read_image(film.root / film.split("test")[0])
    picture = Image.new(mode, photo.size) if mode == "I;16" else photo.convert(mode)
    heads = detector.find_heads(picture, threshold=1e-4)
    assert heads and all(isinstance(head, hd.Head) for head in heads)
    assert heads == detector.find_heads([picture], threshold=1e-4)[0]
    assert mode != "RGBA" or heads == detector.find_heads(photo, threshold=1e-4)


def test_neighbours_in_a_batch_change_nothing(detector, film):
    pictures = [read_image(film.root / path) for path in film.split("test")]
    together, alone = detector.find_heads(pictures, 1e-3, batch_size=3), [detector.find_heads([p], 1e-3)[0] for p in pictures]
    for a, b in zip(together, alone, strict=True):
        assert np.allclose([head.score for head in a], [head.score for head in b], atol=1e-5)


def test_a_crop_has_a_margin_and_no_padding():
    image = Image.new("RGB", (300, 200), "white")
    assert hd.crop_head(image, (100, 50, 180, 150), margin=0.5).size == (160, 200)
    assert hd.crop_head(image, (100, 50, 180, 150), margin=0).size == (80, 100)
    corner = hd.crop_head(image, (-20, -20, 60, 60), margin=0.2)
    assert corner.getextrema() == ((255, 255),) * 3
    assert hd.crop_head(image, (10.2, 10.2, 10.4, 10.4), margin=0).size == (1, 1)
    for box in ((400, 0, 500, 100), (50, 50, 50, 80), (80, 50, 40, 80)):
        with pytest.raises(ValueError, match="no part of the picture"):
            hd.crop_head(image, box)
    assert [crop.size for crop in hd.crop_heads(image, [hd.Head((0, 0, 10, 10), 0.5), hd.Head((0, 0, 20, 30), 0.4)], margin=0)] == [
        (10, 10),
        (20, 30),
    ]


class OnlyBright(hd.HeadDetector):
    "A detector without a network: pictures that are bright in the middle have two heads, the larger with the lower score."

    def __init__(self):
        self.model, self.config = torch.nn.Identity(), dict(image_size=64, threshold=0.5)

    def find_in_squares(self, squares, sizes, threshold=None):
        bright = [square[:20, :20].mean() > 128 for square, _ in squares]
        heads = [hd.Head((0.0, 0.0, 10.0, 10.0), 0.9), hd.Head((10.0, 10.0, 40.0, 44.0), 0.6)]
        return [heads if one else [] for one in bright]


@pytest.fixture
def whole(tmp_path):
    "CVCS DFD of 40 pictures, one in eight dark."
    for label in (0, 1):
        (tmp_path / "data/challenge" / f"{label}-toy").mkdir(parents=True)
        for i in range(20):
            colour = (i, 10 * label, 3) if i % 8 == 3 else (200 + i, 220, 200 + label)
            Image.new("RGB", (80, 60), colour).save(tmp_path / "data/challenge" / f"{label}-toy" / f"{i:02d}.png")
    build_cvcs_dfd(tmp_path / "data", tmp_path / "run/cvcs_dfd", workers=1, progress=False)
    return tmp_path / "run/cvcs_dfd"


def test_the_cropped_dataset_keeps_names_labels_groups_and_splits(whole):
    out = whole.with_name("cvcs_cropped_dfd")
    cropped, before = hd.build_cropped_dfd(whole, OnlyBright(), out, margin=0.1, progress=False), read_manifest(whole)
    dropped, common = pd.read_csv(out / "dropped.csv"), pd.read_csv(out / "common.csv")
    assert len(dropped) == 6 and set(dropped["reason"]) == {"no head found"}
    assert len(cropped) == 34 == len(common) and set(cropped["whole"]) | set(dropped["path"]) == set(before["path"])
    kept = before.set_index("path").loc[cropped["whole"]].reset_index()
    for column in ("label", "group", "split", "method", "source", "origin"):
        assert cropped[column].tolist() == kept[column].tolist()
    assert [Path(path).stem for path in cropped["path"]] == [Path(path).stem for path in cropped["whole"]]
    for row in cropped.itertuples():
        with Image.open(out / row.path) as image:
            assert image.format == "PNG" and image.size == (row.width, row.height) == (36, 42)  # the larger of both heads
        source = read_image(whole / row.whole).crop((7, 6, 43, 48))
        assert np.array_equal(read_image(out / row.path), source)
    labels = read_annotation_files(out)
    assert (
        labels.equals(read_list_files(out)) and labels.set_index("path")["label"].to_dict() == cropped.set_index("path")["label"].to_dict()
    )
    assert json.loads((out / "dataset.json").read_text())["plan"]["protocol"] == "group"
    counts = hd.crop_counts(whole.parent)
    assert counts["dropped"].sum() == 6 and counts["more_heads"].sum() == 34


def test_the_cropped_dataset_is_built_once(whole, monkeypatch):
    out = whole.with_name("cvcs_cropped_dfd")
    first = hd.build_cropped_dfd(whole, OnlyBright(), out, progress=False)
    seen = []
    prepare = hd._prepare
    monkeypatch.setattr(hd, "_prepare", lambda path, size: seen.append(path) or prepare(path, size))
    assert hd.build_cropped_dfd(whole, OnlyBright(), out, progress=False).equals(first) and seen == []
    hd.build_cropped_dfd(whole, OnlyBright(), out, margin=0.3, progress=False)
    assert len(seen) == len(set(seen)) == 40  # another margin is another dataset; each picture is decoded once


@pytest.fixture
def built(whole):
    "A cropped dataset to spoil."
    out = whole.with_name("cvcs_cropped_dfd")
    hd.build_cropped_dfd(whole, OnlyBright(), out, progress=False)
    return out


@pytest.mark.parametrize("name", ["notes.md", "train/mine.png"])
def test_what_a_stranger_put_into_a_cropped_dataset_is_not_deleted(whole, built, name):
    (built / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"holds something else .*{name}"):
        hd.build_cropped_dfd(whole, OnlyBright(), built, margin=0.4, progress=False)
    assert (built / name).read_text() == "mine"


@pytest.mark.parametrize("what", ["manifest.csv", "common.csv", "dropped.csv", "test.txt", "crop", "label", "empty crop"])
def test_a_cropped_dataset_that_is_not_whole_is_built_again(whole, built, what):
    crop = next((built / "train").glob("*.png"))
    path = {"crop": crop, "empty crop": crop, "label": crop.with_suffix(".txt")}.get(what, built / what)
    before = path.read_bytes()
    path.write_bytes(b"") if what.startswith("empty") else path.unlink()
    assert len(hd.build_cropped_dfd(whole, OnlyBright(), built, progress=False)) == 34
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["[]", "{", "null", "{}"])
def test_a_folder_with_a_strange_dataset_file_is_refused(whole, built, text):
    (built / "dataset.json").write_text(text)
    with pytest.raises(FileExistsError, match="holds something else"):
        hd.build_cropped_dfd(whole, OnlyBright(), built, progress=False)


@pytest.mark.parametrize("options", [dict(margin=-0.1), dict(margin=float("nan")), dict(margin=float("inf")), dict(threshold=7)])
def test_a_margin_and_a_threshold_that_cannot_be_are_refused(whole, options):
    with pytest.raises(ValueError, match="expected a margin of 0 or more, a threshold between 0 and 1"):
        hd.build_cropped_dfd(whole, OnlyBright(), whole.with_name("new"), progress=False, **options)
    with pytest.raises(ValueError, match="inside the data root or around it"):
        hd.build_cropped_dfd(whole, OnlyBright(), whole / "cropped", progress=False)


def test_a_killed_cropping_goes_on(whole, monkeypatch):
    out, calls = whole.with_name("cvcs_cropped_dfd"), []

    class Dies(OnlyBright):
        def find_in_squares(self, squares, sizes, threshold=None):
            calls.append(len(squares))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return super().find_in_squares(squares, sizes, threshold)

    with pytest.raises(KeyboardInterrupt):
        hd.build_cropped_dfd(whole, Dies(), out, progress=False)
    assert not out.exists()
    cropped = hd.build_cropped_dfd(whole, OnlyBright(), out, progress=False)
    assert len(cropped) == 34 and not list(whole.parent.glob(".cvcs_cropped_dfd*"))


def test_a_foreign_folder_and_a_blind_detector_are_refused(whole, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/wedding.txt").write_text("do not delete")
    with pytest.raises(FileExistsError, match="holds something else"):
        hd.build_cropped_dfd(whole, OnlyBright(), tmp_path / "photos", progress=False)

    class Blind(OnlyBright):
        def find_in_squares(self, squares, sizes, threshold=None):
            return [[] for _ in squares]

    with pytest.raises(ValueError, match="no head found in any picture of the split 'train'"):
        hd.build_cropped_dfd(whole, Blind(), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_head_detection import OnlyBright
from deepfake_nbs import head_detection as hd
from deepfake_nbs import core

class Slow(OnlyBright):
    def find_in_squares(self, *arguments):
        print("batch", flush=True)
        time.sleep(0.3)
        return super().find_in_squares(*arguments)

if __name__ == "__main__":
    hd.build_cropped_dfd(sys.argv[2], Slow(), sys.argv[3], progress=False)
"""


def test_sigkill_leaves_no_half_dataset(whole):
    out = whole.with_name("cvcs_cropped_dfd")
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(Path(__file__).parent), str(whole), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for _ in range(2):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert len(hd.build_cropped_dfd(whole, OnlyBright(), out, progress=False)) == 34


# --- What pages read -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(trained, film, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "smoke-film"
    shutil.copytree(trained[0], run / "head_detection")
    return run


def test_results_and_claims(run, film, trained):
    pytest.importorskip("torchmetrics")
    results = hd.results_table(run, film, n_resamples=10)
    assert results[["phase", "chosen_by"]].to_numpy().tolist() == [[p, c] for p in ("phase1", "phase2") for c in ("loss", "ap")]
    claims = {row["id"]: row for row in hd.claim_rows(results, trained[1], film)}
    assert set(claims) == {
        f"heads-{phase}-{what}" for phase in ("phase1", "phase2") for what in ("map", "batch_size", "iterations", "epochs")
    }
    assert claims["heads-phase2-map"]["n"] == len(film.split("test")) and claims["heads-phase2-iterations"]["measured"] == 2
    assert {row["protocol"] for row in claims.values()} == {"group"}
    assert hd.show_results(results)["published"].tolist() == [0.85, 0.85, 0.88, 0.88]
    published = pd.read_csv(Path(__file__).resolve().parents[1] / "papers/original/claims.csv", index_col="id")["published"]
    assert {phase: float(published[f"heads-{phase}-map"]) for phase in ("phase1", "phase2")} == hd.PUBLISHED_AP


def test_lists_that_cut_a_film_are_said_to(copy, tmp_path, run, film, trained):
    assert (film.cut_films, film.protocol) == ([], "group")
    (copy / "Splits/test.txt").write_text((copy / "Splits/test.txt").read_text() + "mov_001_000000\n")
    names = (copy / "Splits/train.txt").read_text().split()
    (copy / "Splits/train.txt").write_text("\n".join(name for name in names if name != "mov_001_000000"))
    heads = hd.build_head_set(copy, tmp_path / "set", progress=False)
    assert (heads.cut_films, heads.protocol) == (["HollywoodHeads:mov_001"], "lists")
    pytest.importorskip("torchmetrics")
    rows = hd.claim_rows(hd.results_table(run, film, n_resamples=2), trained[1], heads)
    assert {row["protocol"] for row in rows} == {"lists"}


def test_a_fresh_network_is_measured_on_the_same_frames(film, trained, monkeypatch):
    pytest.importorskip("torchmetrics")
    honest = hd.compare_fresh(film, trained[1], n_resamples=5)
    assert 0 <= honest["value"] < 0.5 and np.isnan(honest["low"]) and honest["n"] == len(film.split("test"))
    assert "film" in honest["why"] and honest["films"] < 10, "frames of a few films are no interval"
    core.set_seed(TINY.seed)
    fresh = hd.EfficientDet().state_dict()

    def see_all(model, images, anchors):
        assert all(torch.equal(value, fresh[key]) for key, value in model.state_dict().items())
        assert images.paths == film.split("test") and images.image_size == 64 and not images.augment
        rows = [(path, *box, 0.9) for path in images.paths for box in film.boxes[path]]
        return pd.DataFrame(rows, columns=["path", "x0", "y0", "x1", "y1", "score"]), 0.0

    monkeypatch.setattr(hd, "detect_split", see_all)
    assert hd.compare_fresh(film, trained[1], n_resamples=5)["value"] == pytest.approx(1)


def test_targets_are_judged():
    fresh = pd.Series(dict(value=0.1, low=0.05, high=0.15, n=40))
    good, weak = pd.Series(dict(ap50=0.851, low=0.8, high=0.9)), pd.Series(dict(ap50=0.3, low=0.1, high=0.5))
    assert "is **reached**: 0.851. " in hd.judge_targets(good, fresh, embedded=True)
    assert "is **missed**: 0.300. " in hd.judge_targets(weak, fresh, embedded=True)
    for row, words in ((good, "0.800, lies above"), (weak, "0.100, does **not** lie above")):
        sentence = hd.judge_targets(row, fresh, embedded=False)
        assert words in sentence and "target" not in sentence and "0.100 [0.050, 0.150] (n=40 frames)" in sentence
    perfect, chance = pd.Series(dict(ap50=1.0, low=1.0, high=1.0)), pd.Series(dict(value=0.0, low=0.0, high=0.0, n=40))
    sentence = hd.judge_targets(perfect, chance, embedded=False)
    assert "second phase, 1.000 (no interval: all resamples agree), lies above" in sentence and "[" not in sentence
    few = pd.Series(dict(ap50=0.9, low=np.nan, high=np.nan, why="4 films"))
    assert "second phase, 0.900 (no interval: 4 films), is not shown to lie above" in hd.judge_targets(few, fresh, embedded=False)


def test_a_page_refuses_a_run_of_other_data(run, film, trained):
    weights = run / "head_detection/phase2/model/model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-4] + b"0000")
    with pytest.raises(hd.TrainingError, match="not what phase2 was trained with"):
        hd.read_training(run, film)
    weights.write_bytes(kept)
    assert list(hd.read_training(run, film)) == ["phase1", "phase2"]
    with pytest.raises(FileNotFoundError, match="not finished"):
        hd.read_training(run / "elsewhere", film)


def test_the_better_phase_is_used(run, film, trained):
    place = hd.choose_detector(run, film, trained[1])
    assert place == run / "models/head_detector" and hd.read_config(place)["phase"] in ("phase1", "phase2")


def test_heads_are_found_under_a_data_root(film, tmp_path):
    assert hd.heads_root(film.root.parent) == film.root
    with pytest.raises(FileNotFoundError, match="no frames with head boxes"):
        hd.heads_root(tmp_path)


def test_importing_is_light():
    heavy = ("fastai", "sklearn", "matplotlib", "pandas", "torchmetrics")
    code = f"import sys, deepfake_nbs.head_detection; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_real_photographs(real, tmp_path):
    "Read whole, nothing rejected in silence."
    heads, n_frames = hd.build_head_set(real / "heads", tmp_path / "set", progress=False), len(list(real.glob("heads/JPEGImages/*")))
    assert len(heads.frames) + heads.rejected["what"].eq("frame").sum() == n_frames
    n_boxes = sum(path.read_text(encoding="utf-8").count("<bndbox>") for path in real.glob("heads/Annotations/*.xml"))
    assert n_boxes >= heads.frames["n_heads"].sum() >= 0.98 * n_boxes


@pytest.mark.parametrize("threshold, n", [(0.0, 1), (1.0, 0)])
def test_the_ends_of_the_threshold_keep_all_or_nothing(threshold, n):
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    boxes, scores = hd.decode(torch.full((1, 1), 30.0), torch.zeros(1, 1, 4), anchors, threshold)[0]
    assert len(boxes) == len(scores) == n
