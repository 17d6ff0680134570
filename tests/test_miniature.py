"The drawn datasets: same bytes, real layouts, nothing given away, nothing half-drawn."

import csv
import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image

from deepfake_nbs import miniature as mini

SIZES = dict(n_people=5, n_videos=2, n_head_frames=24)
METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")


def hashes(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def read_clip(path: Path) -> np.ndarray:
    video, frames = cv2.VideoCapture(str(path)), []
    while True:
        ok, frame = video.read()
        if not ok:
            return np.array(frames)
        frames.append(frame)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "miniature"
    mini.draw_miniature(folder, **SIZES, workers=2, progress=False)
    return folder


@pytest.fixture(scope="module")
def pair() -> list[mini.Portrait]:
    return [mini.clip_frame(mini.make_clip(42, i), 3) for i in (2, 3)]


@pytest.fixture(scope="module")
def labels(drawn) -> list[dict]:
    with open(drawn / "challenge" / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


# ---- the same bytes


def test_one_process_draws_the_bytes_that_two_drew(drawn, tmp_path):
    mini.draw_miniature(tmp_path / "again", **SIZES, workers=1, progress=False)
    assert hashes(tmp_path / "again") == hashes(drawn)


def test_another_seed_draws_other_people(drawn, tmp_path):
    mini.draw_miniature(tmp_path / "other", 1, 0, 0, seed=43, workers=1, progress=False)
    name = "challenge/0-CelebA/00000_0.jpg"
    assert hashes(tmp_path / "other")[name] != hashes(drawn)[name]


def test_every_file_has_one_modification_time(drawn):
    assert len({p.stat().st_mtime_ns for p in drawn.rglob("*") if p.is_file()}) == 1


def test_the_same_arguments_return_at_once(drawn):
    before = drawn.stat().st_ino, hashes(drawn)
    counts = mini.draw_miniature(drawn, **SIZES, workers=1, progress=False)
    assert counts == json.loads((drawn / "miniature.json").read_text())["counts"]
    assert (drawn.stat().st_ino, hashes(drawn)) == before


# ---- challenge


def test_challenge_folders_and_labels_agree(drawn, labels):
    files = {p.relative_to(drawn / "challenge").as_posix() for p in (drawn / "challenge").glob("*/*.jpg")}
    assert files == {row["path"] for row in labels}
    assert {path.split("/")[0] for path in files} == {"0-CelebA", "0-FFHQ", "1-ATTGAN", "1-GDWCT", "1-StarGAN", "1-STYLEGAN", "1-STYLEGAN2"}
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
            kinds[row["label"]].add((image.format, image.size, image.mode, tables, tuple(sorted(image.info)), str(image.info.get("jfif"))))
    assert kinds["real"] == kinds["fake"] and len(kinds["real"]) == 1


# ---- faceforensics


def test_clips_have_pair_names_and_every_method_has_every_pair(drawn):
    root = drawn / "faceforensics"
    assert sorted(p.name for p in (root / "original_sequences/youtube/c23/videos").iterdir()) == ["000.mp4", "001.mp4"]
    for method in METHODS:
        assert sorted(p.name for p in (root / f"manipulated_sequences/{method}/c23/videos").iterdir()) == ["000_001.mp4", "001_000.mp4"]


def test_every_clip_decodes_to_the_same_number_of_frames_of_one_size(drawn):
    shapes = {read_clip(path).shape for path in (drawn / "faceforensics").rglob("*.mp4")}
    assert shapes == {(mini.N_FRAMES, mini.VIDEO_SIZE, mini.VIDEO_SIZE, 3)}


def test_originals_and_fakes_share_codec_and_rate(drawn):
    properties = set()
    for path in (drawn / "faceforensics").rglob("*.mp4"):
        video = cv2.VideoCapture(str(path))
        properties.add((video.get(cv2.CAP_PROP_FOURCC), video.get(cv2.CAP_PROP_FPS)))
    assert len(properties) == 1


@pytest.mark.parametrize("n_pairs", [3, 4, 10, 12])
def test_pair_splits_cover_every_pair_once_and_none_is_empty(n_pairs):
    pairs = [[f"{2 * i:03d}", f"{2 * i + 1:03d}"] for i in range(n_pairs)]
    parts = mini.split_items(pairs, np.random.default_rng(0))
    assert sorted(sum(parts.values(), [])) == pairs
    assert all(parts.values()) and len(parts["train"]) >= n_pairs * 0.3


def test_split_files_are_lists_of_pairs(drawn):
    parts = [json.loads((drawn / "faceforensics/splits" / f"{name}.json").read_text()) for name in ("train", "val", "test")]
    assert sum(parts, []) == [["000", "001"]]


@pytest.mark.parametrize("method", METHODS)
def test_a_fake_differs_inside_the_face_and_hardly_outside(pair, method):
    target, donor = pair
    fake = mini.FACE_METHODS[method](target, donor, np.random.default_rng(0))
    h, w = target.image.shape[:2]
    face = mini.soft_mask(target.oval(0, 0.25, 0.72, 0.85), h, w, 1.0) > 0.3
    change = np.abs(fake - target.image).mean(-1)
    assert change[face].mean() > 0.002
    assert change[~face].max() < 0.1 and change[~face].mean() < change[face].mean() / 50
    assert fake.min() >= 0 and fake.max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_a_fake_clip_differs_from_its_original_mostly_inside_the_face(drawn, method):
    root, clip = drawn / "faceforensics", mini.make_clip(42, 0)
    real = read_clip(root / "original_sequences/youtube/c23/videos/000.mp4").astype(float)
    fake = read_clip(root / f"manipulated_sequences/{method}/c23/videos/000_001.mp4").astype(float)
    ratio = []
    for i in range(0, mini.N_FRAMES, 8):
        frame = mini.clip_frame(clip, i)
        inside = mini.soft_mask(frame.inner_face, mini.VIDEO_SIZE, mini.VIDEO_SIZE, 1.0) > 0.5
        grade = np.median(real[i][~inside] / np.maximum(fake[i][~inside], 1), axis=0)  # each clip has its own grade
        change = np.abs(cv2.GaussianBlur(real[i] - fake[i] * grade, (0, 0), 1.5)).mean(-1)
        ratio.append(change[inside].mean() / change[~inside].mean())
    assert np.mean(ratio) > 1.5


# ---- heads


def test_annotations_match_images_and_splits_and_films_are_not_cut(drawn):
    root = drawn / "heads"
    images, notes = ({p.stem for p in (root / folder).iterdir()} for folder in ("JPEGImages", "Annotations"))
    lists = {name: (root / "Splits" / f"{name}.txt").read_text().split() for name in ("train", "val", "test")}
    assert images == notes == set(sum(lists.values(), [])) and len(images) == SIZES["n_head_frames"]
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
    for who in (mini.random_identity(rng) for _ in range(6)):
        view = mini.random_view(rng)
        canvas = np.full((200, 200, 3), 0.5, np.float32)
        before = canvas.copy()
        x0, y0, x1, y1 = mini.mask_box(mini.draw_person(canvas, who, view))
        changed = np.abs(canvas - before).max(-1) > 0.03
        assert not changed[: y0 - 2].any() and changed[y0 : y0 + 6, x0:x1].any()
        chin = mini.project(who, view, [(0, 0.97)], 200, 200)[0]
        assert abs(y1 - chin[1]) < 12 and x0 < chin[0] < x1


def test_films_look_different(drawn):
    def mean_color(film):
        return np.mean([cv2.imread(str(p)).mean((0, 1)) for p in sorted((drawn / "heads/JPEGImages").glob(f"mov_{film:03d}_*"))], axis=0)

    assert np.abs(mean_color(1) - mean_color(2)).max() > 5


# ---- people


@pytest.mark.parametrize("hair", sorted(mini.HAIR_REACH))
@pytest.mark.parametrize("collar", ["crew", "jacket"])
def test_every_hair_style_and_collar_draws_a_finite_picture(hair, collar):
    who = mini.Identity(hair=hair, collar=collar, beard_style="goatee", beard=0.9, glasses="round", age=0.9, freckles=0.5, pattern="check")
    portrait = mini.draw_portrait(who, mini.View(yaw=-0.4, mouth_open=0.4), mini.Camera(), 1, 96)
    assert np.isfinite(portrait.image).all() and portrait.image.std() > 0.05
    x0, y0, x1, y1 = portrait.head_box
    assert 0.3 < (x1 - x0) / (y1 - y0) < 1.3


@pytest.mark.parametrize(
    "field, value",
    [
        ("yaw", 0.5),
        ("smile", 1.0),
        ("mouth_open", 0.8),
        ("light", 0.9),
        ("eyes", 0.3),
        ("gaze_x", 0.5),
        ("roll", 0.2),
        ("brow_raise", 1.0),
        ("warmth", -1.0),
    ],
)
def test_every_part_of_a_view_changes_the_picture(field, value):
    who = mini.random_identity(np.random.default_rng(21))
    pictures = [mini.draw_portrait(who, view, mini.Camera(), 1, 96).image for view in (mini.View(), mini.View(**{field: value}))]
    assert np.abs(pictures[0] - pictures[1]).max() > 0.03


@pytest.mark.parametrize("method", sorted(mini.GENERATORS))
def test_a_generator_pass_takes_fine_detail_away(pair, method):
    image = pair[0].image
    real, fake = (mini.radial_spectrum(a) for a in (image, mini.generator_pass(image, method, np.random.default_rng(0))))
    assert fake[30:40].mean() < real[30:40].mean()
    assert np.abs(image - mini.generator_pass(image, method, np.random.default_rng(0))).mean() < 0.05


@pytest.mark.parametrize("method", ["ATTGAN", "GDWCT", "StarGAN"])
def test_an_edit_changes_attributes_and_nothing_of_the_geometry(method):
    who = mini.random_identity(np.random.default_rng(4))
    other = mini.edited(who, method, np.random.default_rng(1))
    assert other != who
    assert (other.width, other.eye_gap, other.nose_width, other.texture) == (who.width, who.eye_gap, who.nose_width, who.texture)


def test_a_contact_sheet_has_one_cell_an_image(pair):
    figure = mini.plot_contact_sheet([[p.image for p in pair]] * 2, ["a", "b"], ["x", "y"], [[p.head_box] for p in pair])
    assert len(figure.axes) == 4 and figure.axes[0].get_title() == "a" and len(figure.axes[0].patches) == 1


# ---- all or nothing


def test_other_arguments_replace_a_drawn_folder_and_leave_nothing_beside_it(tmp_path):
    out = tmp_path / "m"
    mini.draw_miniature(out, 1, 0, 0, workers=1, progress=False)
    counts = mini.draw_miniature(out, 0, 0, 3, workers=1, progress=False)
    assert counts["heads/JPEGImages"] == 3 and not (out / "challenge").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_damaged_record_is_drawn_again(tmp_path):
    out = tmp_path / "m"
    mini.draw_miniature(out, 0, 0, 3, workers=1, progress=False)
    before = hashes(out)
    (out / "miniature.json").write_text("{")
    mini.draw_miniature(out, 0, 0, 3, workers=1, progress=False)
    assert hashes(out) == before


@pytest.mark.parametrize("make", ["file inside", "is a file"])
def test_a_foreign_folder_is_refused_by_name_and_left_alone(tmp_path, make):
    out = tmp_path / "photos"
    if make == "file inside":
        out.mkdir()
        (out / "holiday.jpg").write_text("mine")
    else:
        out.write_text("mine")
    with pytest.raises(FileExistsError, match="photos"):
        mini.draw_miniature(out, 1, 0, 0, workers=1, progress=False)
    assert (out / "holiday.jpg" if out.is_dir() else out).read_text() == "mine"


def test_a_kill_leaves_no_folder_and_the_next_call_cleans_up(tmp_path):
    out = tmp_path / "m"
    code = f"from deepfake_nbs.miniature import draw_miniature; draw_miniature({str(out)!r}, 40, 0, 0, workers=1, progress=False)"
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(Path(mini.__file__).parents[1])})
    staging, deadline = tmp_path / ".m.drawing", time.monotonic() + 60
    while not list(staging.rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(staging.rglob("*.jpg")) and not out.exists()
    mini.draw_miniature(out, 1, 0, 0, workers=1, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert len(list((out / "challenge").glob("*/*.jpg"))) == 8


@pytest.mark.parametrize(
    "sizes, message",
    [
        (dict(n_people=1, n_videos=3, n_head_frames=1), "n_videos=3"),
        (dict(n_people=-1, n_videos=2, n_head_frames=1), "n_people=-1"),
        (dict(n_people=1, n_videos=2, n_head_frames=1.5), "n_head_frames=1.5"),
        (dict(n_people=0, n_videos=0, n_head_frames=0), "nothing to draw"),
        (dict(n_people=1, n_videos=2, n_head_frames=1, workers=0), "workers=0"),
    ],
)
def test_sizes_that_make_no_sense_are_named(tmp_path, sizes, message):
    with pytest.raises(ValueError, match=message):
        mini.draw_miniature(tmp_path / "m", **sizes, progress=False)
    assert not (tmp_path / "m").exists()


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(OSError, match="x.jpg"):
        mini.write_jpeg(tmp_path / "x.jpg", np.zeros((4, 4, 3), np.uint8))


def test_the_filling_changes_length_only():
    picture = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    data = mini.encode_jpeg(picture)
    plain = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, mini.JPEG_QUALITY])[1]
    assert len(data) % 32768 == 0 and len(data) > len(plain)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.imdecode(plain, 1))


def test_half_of_the_challenge_tree_is_fake_and_all_its_files_are_equally_long(drawn, labels):
    assert sum(row["label"] == "fake" for row in labels) * 2 == len(labels)
    assert len({path.stat().st_size for path in (drawn / "challenge").glob("*/*.jpg")}) == 1
