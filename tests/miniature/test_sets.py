"The embedded data sets: layouts, labels, splits, encoders."

import json
from pathlib import Path
from xml.etree import ElementTree
import cv2
import numpy as np
import pytest
from PIL import Image
from deepfake_nbs.miniature import people
from deepfake_nbs.miniature import portraits
from deepfake_nbs.miniature import sets


METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")


def read_clip(path: Path) -> np.ndarray:
    video, frames = cv2.VideoCapture(str(path)), []
    while True:
        ok, frame = video.read()
        if not ok:
            return np.array(frames)
        frames.append(frame)


def test_challenge_folders_and_labels_agree(drawn, labels):
    files = {p.relative_to(drawn / "challenge").as_posix() for p in (drawn / "challenge").glob("*/*.jpg")}
    assert files == {row["path"] for row in labels}
    assert {path.split("/")[0] for path in files} == {
        "0-CelebA",
        "0-FFHQ",
        "1-ATTGAN",
        "1-GDWCT",
        "1-StarGAN",
        "1-STYLEGAN",
        "1-STYLEGAN2",
    }
    for row in labels:
        folder = row["path"].split("/")[0]
        assert row["label"] == ("real" if folder.startswith("0-") else "fake")
        assert row["method"] == ("none" if row["label"] == "real" else folder[2:])


def test_edits_share_the_group_of_their_photograph_and_inventions_are_alone(labels):
    photographs = {Path(row["path"]).stem: row["group"] for row in labels if row["label"] == "real"}
    for row in labels:
        if row["method"] in ("ATTGAN", "GDWCT", "StarGAN"):
            assert row["group"] == photographs[Path(row["path"]).stem]
        if row["method"].startswith("STYLEGAN"):
            assert [r["group"] for r in labels].count(row["group"]) == 1


def test_real_and_fake_leave_through_one_encoder(drawn, labels):
    kinds = {"real": set(), "fake": set()}
    for row in labels:
        with Image.open(drawn / "challenge" / row["path"]) as image:
            tables = tuple(tuple(table) for table in image.quantization.values())
            kinds[row["label"]].add(
                (
                    image.format,
                    image.size,
                    image.mode,
                    tables,
                    tuple(sorted(image.info)),
                    str(image.info.get("jfif")),
                )
            )
    assert kinds["real"] == kinds["fake"] and len(kinds["real"]) == 1


def test_clips_have_pair_names_and_every_method_has_every_pair(drawn):
    root = drawn / "faceforensics"
    assert sorted(p.name for p in (root / "original_sequences/youtube/c23/videos").iterdir()) == [
        "000.mp4",
        "001.mp4",
    ]
    for method in METHODS:
        assert sorted(p.name for p in (root / f"manipulated_sequences/{method}/c23/videos").iterdir()) == [
            "000_001.mp4",
            "001_000.mp4",
        ]


def test_every_clip_decodes_to_the_same_number_of_frames_of_one_size(drawn):
    shapes = {read_clip(path).shape for path in (drawn / "faceforensics").rglob("*.mp4")}
    assert shapes == {(sets.N_FRAMES, sets.VIDEO_SIZE, sets.VIDEO_SIZE, 3)}


def test_originals_and_fakes_share_codec_and_rate(drawn):
    properties = set()
    for path in (drawn / "faceforensics").rglob("*.mp4"):
        video = cv2.VideoCapture(str(path))
        properties.add((video.get(cv2.CAP_PROP_FOURCC), video.get(cv2.CAP_PROP_FPS)))
    assert len(properties) == 1


@pytest.mark.parametrize("n_pairs", [3, 4, 10, 12])
def test_pair_splits_cover_every_pair_once_and_none_is_empty(n_pairs):
    pairs = [[f"{2 * i:03d}", f"{2 * i + 1:03d}"] for i in range(n_pairs)]
    parts = sets.split_items(pairs, np.random.default_rng(0))
    assert sorted(sum(parts.values(), [])) == pairs
    assert all(parts.values()) and len(parts["train"]) >= n_pairs * 0.3


def test_split_files_are_lists_of_pairs(drawn):
    parts = [
        json.loads((drawn / "faceforensics/splits" / f"{name}.json").read_text())
        for name in ("train", "val", "test")
    ]
    assert sum(parts, []) == [["000", "001"]]


def test_annotations_match_images_and_splits_and_films_are_not_cut(drawn):
    root = drawn / "heads"
    images, notes = ({p.stem for p in (root / folder).iterdir()} for folder in ("JPEGImages", "Annotations"))
    lists = {name: (root / "Splits" / f"{name}.txt").read_text().split() for name in ("train", "val", "test")}
    assert images == notes == set(sum(lists.values(), [])) and len(images) == 24
    films = [{name.split("_")[1] for name in part} for part in lists.values()]
    assert all(films) and sum(map(len, films)) == len(set.union(*films)) == 3


def test_boxes_lie_inside_their_image_and_some_frames_have_no_head(drawn):
    counts = []
    for path in (drawn / "heads/Annotations").iterdir():
        root = ElementTree.parse(path).getroot()
        size = {name: int(root.find(f"size/{name}").text) for name in ("width", "height")}
        image = cv2.imread(str(drawn / "heads/JPEGImages" / root.find("filename").text))
        assert image.shape[:2] == (size["height"], size["width"])
        for box in root.iter("bndbox"):
            x0, y0, x1, y1 = (int(box.find(name).text) for name in ("xmin", "ymin", "xmax", "ymax"))
            assert 0 <= x0 < x1 <= size["width"] and 0 <= y0 < y1 <= size["height"] and 15 < y1 - y0 < 160
        counts.append(len(root.findall("object")))
    assert max(counts) <= 4 and 0 in counts and sum(counts) > len(counts)


def test_a_head_box_is_tight():
    rng = np.random.default_rng(3)
    for who in (people.random_identity(rng) for _ in range(6)):
        view = people.random_view(rng)
        canvas = np.full((200, 200, 3), 0.5, np.float32)
        before = canvas.copy()
        x0, y0, x1, y1 = portraits.mask_box(portraits.draw_person(canvas, who, view))
        changed = np.abs(canvas - before).max(-1) > 0.03
        assert not changed[: y0 - 2].any() and changed[y0 : y0 + 6, x0:x1].any()
        chin = portraits.project(who, view, [(0, 0.97)], 200, 200)[0]
        assert abs(y1 - chin[1]) < 12 and x0 < chin[0] < x1


def test_films_look_different(drawn):
    def mean_color(film):
        return np.mean(
            [
                cv2.imread(str(p)).mean((0, 1))
                for p in sorted((drawn / "heads/JPEGImages").glob(f"mov_{film:03d}_*"))
            ],
            axis=0,
        )

    assert np.abs(mean_color(1) - mean_color(2)).max() > 5


def test_an_image_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(OSError, match="x.jpg"):
        sets.write_jpeg(tmp_path / "x.jpg", np.zeros((4, 4, 3), np.uint8))


def test_the_filling_changes_length_only():
    image = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    data = sets.encode_jpeg(image)
    plain = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, sets.JPEG_QUALITY])[1]
    assert len(data) % 32768 == 0 and len(data) > len(plain)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.imdecode(plain, 1))


def test_half_of_the_challenge_tree_is_fake_and_all_its_files_are_equally_long(drawn, labels):
    assert sum(row["label"] == "fake" for row in labels) * 2 == len(labels)
    assert len({path.stat().st_size for path in (drawn / "challenge").glob("*/*.jpg")}) == 1
