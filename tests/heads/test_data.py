"""Letterbox, augmentation, order of frames, and a set that is checked whole."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from helpers.head_samples import voc

from deepfake_nbs.heads.data import (
    HeadImages,
    as_boxes,
    build_head_set,
    close_up,
    heads_root,
    read_head_set,
    schedule,
)
from deepfake_nbs.images import letterbox, read_image


@pytest.mark.parametrize("size", [(400, 20), (20, 400), (1, 1), (64, 64), (3000, 5), (640, 427)])
def test_boxes_survive_the_letterbox(size):
    square, scale = letterbox(Image.new("RGB", size, "white"), 64)
    assert square.shape == (64, 64, 3)
    white = (square == 255).all(2)
    assert (
        abs(white.any(0).sum() - max(1, size[0] * scale)) <= 1
        and abs(white.any(1).sum() - max(1, size[1] * scale)) <= 1
    )


@pytest.mark.parametrize("side, size", [((0, 5), 64), ((5, 0), 64), ((5, 5), 0)])
def test_an_image_without_pixels_is_an_error(side, size):
    with pytest.raises(ValueError, match="expected at least one pixel"):
        letterbox(Image.new("RGB", side), size)


def test_flipping_there_and_back(film):
    path = next(path for path in film.boxes if len(film.boxes[path]))
    image, boxes = read_image(film.root / path), film.boxes[path]
    flip = v2.RandomHorizontalFlip(p=1)
    mirrored, moved = flip(image, as_boxes(boxes, image.size))
    assert np.allclose(moved[:, [0, 2]], image.width - boxes[:, [2, 0]]) and np.allclose(
        moved[:, [1, 3]], boxes[:, [1, 3]]
    )
    again, back = flip(mirrored, moved)
    assert np.array_equal(again, image) and np.allclose(back, boxes)


def test_augmented_boxes_still_hold_the_head(film):
    "The oval is the one bright thing: wherever a box went, it must still be around it."
    images = HeadImages(film, "train", 64, augment=True)
    number = next(i for i, boxes in enumerate(images.boxes) if len(boxes))
    seen = 0
    for place in range(60):
        pixels, boxes, _ = images[(place, number)]
        for x0, y0, x1, y1 in boxes.round().int().tolist():
            assert 0 <= x0 < x1 <= 64 and 0 <= y0 < y1 <= 64
            inside, overall = pixels[:, y0:y1, x0:x1].float().mean(), pixels.float().mean()
            if (x1 - x0) * (y1 - y0) < 0.5 * 64 * 64 and min(x1 - x0, y1 - y0) >= 6:
                seen += 1
                assert inside > overall
    assert seen > 20


def test_order_of_frames_is_that_of_an_unbroken_training():
    whole = list(schedule(7, 3, 20, seed=5))
    assert whole[11:] == list(schedule(7, 3, 20, seed=5, start=11))
    places = [place for batch in whole for place, _ in batch]
    assert places == list(range(60))
    first_lap = [number for batch in whole for place, number in batch if place < 7]
    assert sorted(first_lap) == list(range(7))


@pytest.mark.parametrize("n", [9, 13])
def test_batches_of_the_detector_are_full_where_frames_are_not_a_multiple(n):
    "n is a multiple of 4 and one more: the last batch continues with the next pass."
    assert [len(keys) for keys in schedule(n, 4, 2 * n)] == [4] * (2 * n)
    lap = [key for keys in schedule(n, 4, n) for key in keys][:n]
    assert sorted(number for _, number in lap) == list(range(n))


BOMB = '<!DOCTYPE a [<!ENTITY b "boom"><!ENTITY c "&b;&b;&b;&b;">]><annotation><object><name>&c;</name></object></annotation>'
NO_PLACE = "<object><name>head</name></object>"
BAD = {
    "box outside the image": (voc((200, 10, 240, 50)), "outside the image of 96 x 72"),
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
    "another class without a box": (
        f"<annotation>{NO_PLACE.replace('head', 'dog')}</annotation>",
        "object 1: unknown class 'dog'",
    ),
    "a head without a box beside another": (
        voc((10, 10, 40, 50)).replace("</annotation>", f"{NO_PLACE}</annotation>"),
        "object 2: a head without a box",
    ),
    "two heads without a box": (f"<annotation>{NO_PLACE * 2}</annotation>", "object 1: a head without a box"),
    "no name": (voc((10, 10, 40, 50)).replace("<name>head</name>", ""), "object 1: it has no name"),
    "size of another image": (
        voc((10, 10, 40, 50)).replace(
            "<object>", "<size><width>960</width><height>720</height></size><object>"
        ),
        "its size is 960 x 720, that of its image 96 x 72",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_annotation_is_rejected_by_name(copy, tmp_path, case):
    text, reason = BAD[case]
    name = "mov_002_000001"
    (copy / "Annotations" / f"{name}.xml").write_text(text)
    with pytest.raises(ValueError, match="1 of 18 frames rejected, more than the limit of 1.0%") as caught:
        build_head_set(copy, tmp_path / "set", progress=False)
    assert name in str(caught.value) and reason in str(caught.value)
    heads = build_head_set(copy, tmp_path / "set", reject_limit=0.1, progress=False)
    (row,) = heads.rejected.to_dict("records")
    assert row["path"] == f"JPEGImages/{name}.jpeg" and reason in row["reason"]
    assert len(heads.frames) == 17 and row["path"] not in heads.boxes


def test_one_head_without_a_box_means_a_frame_without_heads(copy, tmp_path):
    text = f"<annotation><size><width>96</width><height>72</height></size>{NO_PLACE}</annotation>"
    (copy / "Annotations" / "mov_002_000001.xml").write_text(text)
    heads = build_head_set(copy, tmp_path / "set", progress=False)
    assert heads.rejected.empty and len(heads.boxes["JPEGImages/mov_002_000001.jpeg"]) == 0


def test_images_that_share_an_annotation_are_rejected(copy, tmp_path):
    with Image.open(copy / "JPEGImages/mov_002_000001.jpeg") as image:
        image.save(copy / "JPEGImages/mov_002_000001.png")
        (copy / "JPEGImages/more").mkdir()
        image.save(copy / "JPEGImages/more/mov_002_000001.jpeg")
    with open(copy / "Splits/train.txt", "a") as file:
        file.write("more/mov_002_000001\n")
    heads = build_head_set(copy, tmp_path / "set", reject_limit=0.5, progress=False)
    names = {
        f"JPEGImages/{name}"
        for name in ("more/mov_002_000001.jpeg", "mov_002_000001.jpeg", "mov_002_000001.png")
    }
    assert (
        names == set(heads.rejected.loc[heads.rejected["what"].eq("frame"), "path"])
        and len(heads.frames) == 17
    )
    assert (
        heads.rejected["reason"]
        .str.contains("share Annotations/mov_002_000001.xml; expected one image")
        .any()
    )


def test_a_set_without_any_good_frame_is_an_error(copy, tmp_path):
    for path in (copy / "Annotations").glob("*.xml"):
        path.write_text("")
    with pytest.raises(ValueError, match="18 of 18 frames rejected, none is left; first JPEGImages/"):
        build_head_set(copy, tmp_path / "set", reject_limit=1.0, progress=False)


def test_nothing_is_left_over_in_silence(copy, tmp_path):
    (copy / "Annotations" / "mov_002_000001.xml").unlink()
    (copy / "JPEGImages" / "mov_003_000002.jpeg").unlink()
    (copy / "JPEGImages" / "mov_004_000003.jpeg").write_bytes(b"\xff\xd8 cut short")
    with open(copy / "Splits" / "train.txt", "a") as file:
        file.write("mov_009_000099\n")
    Image.new("RGB", (40, 40)).save(copy / "JPEGImages" / "mov_001_999999.jpeg")
    (copy / "Annotations" / "mov_001_999999.xml").write_text(voc())
    (copy / "Annotations" / "mov_005_000010.xml").write_text(voc((-10, 10, 40, 50)))
    heads = build_head_set(copy, tmp_path / "set", reject_limit=0.5, progress=False)
    reasons = {(row.path, row.what): row.reason for row in heads.rejected.itertuples()}
    assert reasons[("JPEGImages/mov_002_000001.jpeg", "frame")] == "an image without annotation"
    assert reasons[("Annotations/mov_003_000002.xml", "annotation")] == "an annotation without image"
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
        build_head_set(copy, tmp_path / "set", progress=False)
    (lists / "train.txt").write_text((lists / "train.txt").read_text() + (lists / "test.txt").read_text())
    (lists / "val.txt").write_text("mov_005_000004\nmov_005_000010\nmov_005_000016\n")
    (lists / "test.txt").write_text("")
    with pytest.raises(ValueError, match="the split 'test' is empty"):
        build_head_set(copy, tmp_path / "set", progress=False)


def test_without_lists_films_are_dealt_out_whole(copy, tmp_path):
    shutil.rmtree(copy / "Splits")
    heads = build_head_set(copy, tmp_path / "set", progress=False)
    assert (
        heads.frames.groupby("group")["split"].nunique().max() == 1 and heads.frames["split"].nunique() == 3
    )


def test_a_set_that_changed_is_noticed(film, tmp_path):
    shutil.copytree(film.folder, tmp_path / "set")
    (tmp_path / "set" / "boxes.csv").write_text((tmp_path / "set" / "boxes.csv").read_text() + "\n")
    with pytest.raises(ValueError, match="boxes.csv: changed since"):
        read_head_set(tmp_path / "set")
    with pytest.raises(FileNotFoundError, match="head_set.json"):
        read_head_set(tmp_path)


def test_heads_are_found_under_a_data_root(film, tmp_path):
    assert heads_root(film.root.parent) == film.root
    with pytest.raises(FileNotFoundError, match="no frames with head boxes"):
        heads_root(tmp_path)


def test_real_photographs(real, tmp_path):
    "Read whole, nothing rejected in silence."
    heads, n_frames = (
        build_head_set(real / "heads", tmp_path / "set", progress=False),
        len(list(real.glob("heads/JPEGImages/*"))),
    )
    assert len(heads.frames) + heads.rejected["what"].eq("frame").sum() == n_frames
    n_boxes = sum(
        path.read_text(encoding="utf-8").count("<bndbox>") for path in real.glob("heads/Annotations/*.xml")
    )
    assert n_boxes >= heads.frames["n_heads"].sum() >= 0.98 * n_boxes


@pytest.mark.parametrize("seed", range(12))
def test_a_close_up_shows_one_head_large(seed):
    image = Image.new("RGB", (300, 200), "tan")
    boxes = as_boxes(np.array([[10, 20, 70, 100], [200, 150, 260, 200.0]]), image.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        closer, kept = close_up(image, boxes)
    sides = (kept[:, 2:] - kept[:, :2]).amax(1)
    assert 1 <= len(kept) <= 2 and sides.max() / max(closer.size) > 0.3
    assert max(closer.size) <= 80 / 0.33 + 2 and closer.width <= 300 and closer.height <= 200
    x0, y0, x1, y1 = kept.unbind(1)
    assert (x0 >= 0).all() and (x1 <= closer.width).all() and (y0 >= 0).all() and (y1 <= closer.height).all()


def test_a_close_up_moves_boxes_with_their_pixels():
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[20:100, 10:70] = 255
    with torch.random.fork_rng(devices=[]):
        for seed in range(8):
            torch.manual_seed(seed)
            image = Image.fromarray(pixels)
            closer, kept = close_up(image, as_boxes(np.array([[10, 20, 70, 100.0]]), image.size))
            x0, y0, x1, y1 = closer.convert("L").getbbox()
            assert kept[0].tolist() == [x0, y0, x1, y1]


def test_augmented_frames_with_heads_hold_close_ups(film):
    images = HeadImages(film, "train", 64, augment=True)
    number = next(i for i, boxes in enumerate(images.boxes) if len(boxes))
    height = images.boxes[number][0, 3] - images.boxes[number][0, 1]
    shown = [images[(place, number)][1] for place in range(40)]
    large = [bool(len(boxes) and (boxes[:, 3] - boxes[:, 1]).max() > 1.5 * height) for boxes in shown]
    assert 4 < sum(large) < 36
    assert all(
        len(images[(place, i)][1]) == 0
        for place in range(4)
        for i, boxes in enumerate(images.boxes)
        if not len(boxes)
    )
