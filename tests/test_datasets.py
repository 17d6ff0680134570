"Readers of every layout, frames of videos, splits, the audit, and what bad input gets."
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from deepfake_nbs import datasets
from deepfake_nbs.datasets import (
    MANIFEST_COLUMNS,
    SPLITS,
    VideoError,
    audit_split,
    check_manifest,
    dataset_table,
    extract_frames,
    plot_examples,
    plot_heads,
    read_boxes,
    read_challenge,
    read_dfdc,
    read_faceforensics,
    read_frames,
    read_heads,
    read_labels,
    read_manifest,
    read_sources,
    split_manifest,
)
from deepfake_nbs.files import read_table


# --- Small trees in the real layouts -----------------------------------------------------------------------------------


def draw_picture(path, seed, size=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = cv2.resize(np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8), (size, size))
    assert cv2.imwrite(str(path), picture)


def draw_video(path, seed=0, n=20, size=32):
    "A clip whose frame number can be read off its brightness."
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (size, size))
    noise = np.random.default_rng(seed).integers(0, 20, (size, size, 3))
    for number in range(n):
        writer.write((noise + 10 * number).clip(0, 255).astype(np.uint8))
    writer.release()


def draw_challenge(root, n=6):
    for i, folder in enumerate(("0-CelebA", "0-FFHQ", "1-StarGAN", "1-STYLEGAN2")):
        for number in range(n):
            draw_picture(root / folder / f"{number:03d}.png", 1000 * i + number)


def draw_faceforensics(root, quality="c23", pairs=(("000", "001"), ("002", "003"), ("004", "005"))):
    for method in ("Deepfakes", "FaceSwap"):
        for a, b in pairs:
            draw_video(root / f"manipulated_sequences/{method}/{quality}/videos/{a}_{b}.mp4", int(a) + 50 * len(method))
    for name in sorted({name for pair in pairs for name in pair}):
        draw_video(root / f"original_sequences/youtube/{quality}/videos/{name}.mp4", int(name))


def draw_heads(root):
    names = ["mov_001_000010", "mov_001_000020", "mov_002_000010", "mov_003_000010"]
    for i, name in enumerate(names):
        draw_picture(root / f"JPEGImages/{name}.jpeg", i, size=64)
        box = "<object><name>head</name><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>30.5</xmax><ymax>40</ymax></bndbox></object>"
        write(root / f"Annotations/{name}.xml", f"<annotation>{box * (i % 3)}<object><name>head</name></object></annotation>")
    write(root / "Splits/train.txt", "mov_001_000010.jpeg\nmov_001_000020\n")
    write(root / "Splits/val.txt", "mov_002_000010\n")
    write(root / "Splits/test.txt", "mov_003_000010.jpeg\n")
    write(root / "Splits/trainval.txt", "mov_002_000010\n")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# --- The manifest ------------------------------------------------------------------------------------------------------


def good_rows(n=3):
    rows = [dict(path=f"train/{i:06d}.png", label=i % 2, source="A", method="x" if i % 2 else "none", group=f"g{i}", video="", frame=i,
                 width=8, height=9, format="PNG", sha256=f"{i:064x}", split="train") for i in range(n)]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    "column, value",
    [("path", "/etc/passwd"), ("path", "../up.png"), ("path", "train/000000.png"), ("path", ""), ("path", "a\\b.png"), ("label", 2),
     ("label", None), ("source", ""), ("method", "none"), ("method", ""), ("group", ""), ("frame", -1), ("frame", 1.5), ("frame", "one"),
     ("width", 0), ("height", "x"),
     ("format", ""), ("sha256", "12"), ("split", "val")],
)
def test_the_first_bad_cell_is_named(column, value):
    df = good_rows().astype(object)
    df.loc[1, column] = value
    with pytest.raises(ValueError, match=f"row 1, column {column}"):
        check_manifest(df)


def test_a_manifest_survives_the_disk(tmp_path):
    df = check_manifest(good_rows().assign(note="kept", frame=[0, None, 2]))
    df.to_csv(tmp_path / "manifest.csv", index=False)
    pd.testing.assert_frame_equal(read_manifest(tmp_path), df)
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "manifest.csv"), df)
    assert list(df)[:12] == list(MANIFEST_COLUMNS) and df["frame"].isna().sum() == 1


def test_bad_manifests_say_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="columns group are missing"):
        check_manifest(good_rows().drop(columns="group"))
    with pytest.raises(ValueError, match="no rows"):
        check_manifest(good_rows()[:0])
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        read_manifest(tmp_path)
    write(tmp_path / "manifest.csv", "")
    with pytest.raises(ValueError, match="manifest.csv"):
        read_manifest(tmp_path)


# --- Readers -----------------------------------------------------------------------------------------------------------


def test_challenge_labels_come_from_folder_names(tmp_path):
    draw_challenge(tmp_path)
    draw_picture(tmp_path / "1-New" / "deep" / "übung 1.png", 5)
    write(tmp_path / "0-FFHQ" / ".hidden", "x")
    df = read_challenge(tmp_path).set_index("path")
    assert len(df) == 25 and not df.index.str.contains("hidden").any()
    row = df.loc["1-New/deep/übung 1.png"]
    assert (row.label, row.source, row.method) == (1, "New", "New")
    assert df.loc["0-FFHQ/000.png", "method"] == "none" and df["group"].is_unique


@pytest.mark.parametrize("name", ["2-Odd", "StarGAN", "0-", "real"])
def test_an_unknown_class_folder_is_named(tmp_path, name):
    draw_challenge(tmp_path / "challenge", 1)
    (tmp_path / "challenge" / name).mkdir()
    for read in (lambda: read_challenge(tmp_path / "challenge"), lambda: read_sources(tmp_path)):
        with pytest.raises(ValueError, match=rf"{name}: unknown class folder; expected .*0- \(real\) or 1- \(fake\)"):
            read()


def test_labels_csv_wins_over_folder_names(tmp_path):
    draw_challenge(tmp_path, 2)
    write(tmp_path / "labels.csv", "path,label,source,method,group,split,camera\n"
          "1-StarGAN/000.png,fake,,StarGAN:age,CelebA:000,val,\n0-CelebA/000.png,REAL,,,CelebA:000,val,old\n1-StarGAN/gone.png,1,,,,,\n"
          "0-FFHQ/001.png,fake,,,,,\n")
    df = read_challenge(tmp_path).set_index("path")
    edit, photo, gone = df.loc["1-StarGAN/000.png"], df.loc["0-CelebA/000.png"], df.loc["1-StarGAN/gone.png"]
    assert (edit.method, edit.group, edit.split, edit.source) == ("StarGAN:age", photo.group, "validation", "StarGAN")
    assert photo.camera == "old" and photo.method == "none"
    assert gone.label == 1 and gone.method == "unknown" and len(df) == 9
    assert df.loc["0-FFHQ/001.png", ["label", "method"]].tolist() == [1, "unknown"]
    assert df.loc["1-STYLEGAN2/000.png", "group"] == "STYLEGAN2:000"


@pytest.mark.parametrize(
    "text, message",
    [("path,label\na.png,maybe\n", "line 2, column label: 'maybe'; expected one of real, fake"),
     ("path,label,split\na.png,real,dev\n", "column split"), ("path,label,role\na.png,real,wall\n", "column role"),
     ("path,label\na.png,real\n../b.png,real\n", "line 3: path"), ("path\na.png\n", "at least path and label"),
     ("path,label\n/a.png,real\n", "inside the folder"), ("path,label\na.png,real\na.png,fake\n", "named once"), ("", "not a table"),
     ("path,label\n./a.png,real\na.png,real\n", "line 2: path"), ("path,label\nb//a.png,real\n", "line 2: path"),
     ("path,label,method\na.png,real,StarGAN\n", "line 2, column method"), ("path,label,method\na.png,fake,none\n", "column method")],
)
def test_a_bad_labels_file_names_line_and_column(tmp_path, text, message):
    write(tmp_path / "labels.csv", text)
    with pytest.raises(ValueError, match=message) as error:
        read_labels(tmp_path)
    assert "labels.csv" in str(error.value)


def test_labels_fill_what_is_left_out(tmp_path):
    write(tmp_path / "mine/labels.csv", "path,label,video\na.png,real,\nb.png,fake,v.mp4\nc.png,fake,v.mp4\n")
    df = read_labels(tmp_path / "mine")
    assert df["source"].eq("mine").all() and df["method"].tolist() == ["none", "unknown", "unknown"]
    assert df["group"].tolist() == ["mine:a.png", "mine:v.mp4", "mine:v.mp4"]
    with pytest.raises(FileNotFoundError):
        read_labels(tmp_path)


def test_a_fake_joins_the_groups_of_both_people(tmp_path):
    draw_faceforensics(tmp_path, pairs=(("000", "001"), ("001", "002"), ("010", "011")))
    (tmp_path / "original_sequences/youtube/c23/videos/011.mp4").unlink()
    draw_video(tmp_path / "manipulated_sequences/Deepfakes/masks/videos/000_001.mp4")
    draw_video(tmp_path / "manipulated_sequences/Face2Face/c23/videos/700_800.mp4")
    df = read_faceforensics(tmp_path)
    assert not df["path"].str.contains("masks").any() and set(df["source"]) == {"FF++"}
    group = df.set_index("path")["group"]
    assert group["original_sequences/youtube/c23/videos/000.mp4"] == "FF++:000"
    assert group["manipulated_sequences/FaceSwap/c23/videos/001_002.mp4"] == "FF++:000"
    assert group["manipulated_sequences/Deepfakes/c23/videos/010_011.mp4"] == "FF++:010"
    assert group["manipulated_sequences/Face2Face/c23/videos/700_800.mp4"] == "FF++:700"
    assert df.groupby("label")["method"].agg(set).to_dict() == {0: {"none"}, 1: {"Deepfakes", "FaceSwap", "Face2Face"}}


def test_actors_have_their_own_names_and_groups(tmp_path):
    draw_faceforensics(tmp_path, pairs=(("01", "02"),))
    for name in ("01__talking", "03__walking_outside"):
        draw_video(tmp_path / f"original_sequences/actors/c23/videos/{name}.mp4")
    draw_video(tmp_path / "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__walking_down__YVGY8LOK.mp4")
    df = read_faceforensics(tmp_path).set_index("method")
    assert df.loc["DeepFakeDetection", ["source", "group"]].tolist() == ["DFD", "DFD:01"]
    reals = df.loc["none"].set_index("path")["group"]
    assert reals["original_sequences/actors/c23/videos/01__talking.mp4"] == "DFD:01"
    assert reals["original_sequences/actors/c23/videos/03__walking_outside.mp4"] == "DFD:03"
    assert reals["original_sequences/youtube/c23/videos/01.mp4"] == "FF++:01"


def test_official_splits_of_id_pairs(tmp_path):
    draw_faceforensics(tmp_path)
    write(tmp_path / "splits/train.json", json.dumps([["000", "001"], ["001", "000"]]))
    write(tmp_path / "splits/val.json", json.dumps([["002", "003"]]))
    write(tmp_path / "splits/test.json", json.dumps([["004", "900"]]))
    df = read_faceforensics(tmp_path)
    split = df.set_index(df["path"].map(lambda path: Path(path).stem))["split"]
    assert set(split["000_001"]) == {"train"} and split["003"] == "validation" and set(split["004_005"]) == {"test"} and split["005"] == ""
    write(tmp_path / "splits/test.json", json.dumps([["000", "900"]]))
    with pytest.raises(ValueError, match="id 000 is also in"):
        read_faceforensics(tmp_path)
    write(tmp_path / "splits/test.json", "[1, 2]")
    with pytest.raises(ValueError, match="test.json: not an official split"):
        read_faceforensics(tmp_path)


def test_one_quality_for_all(tmp_path):
    draw_faceforensics(tmp_path, "raw")
    assert read_faceforensics(tmp_path)["path"].str.contains("/raw/").all()
    draw_faceforensics(tmp_path, "c23")
    assert read_faceforensics(tmp_path)["path"].str.contains("/c23/").all()
    assert read_faceforensics(tmp_path, "raw")["path"].str.contains("/raw/").all()
    for quality in ("c40", "c99"):
        with pytest.raises(ValueError, match=f"not every folder has {quality}.*youtube has c23, raw"):
            read_faceforensics(tmp_path, quality)
    draw_video(tmp_path / "manipulated_sequences/Face2Face/c40/videos/000_001.mp4")
    with pytest.raises(ValueError, match="the same quality.*Face2Face has c40"):
        read_faceforensics(tmp_path)


@pytest.mark.parametrize("name", ["000.mp4", "a_b_c.mp4", "_1.mp4", "000_001.txt"])
def test_a_clip_that_does_not_say_who_is_in_it(tmp_path, name):
    draw_faceforensics(tmp_path, pairs=(("000", "001"),))
    write(tmp_path / "manipulated_sequences/Deepfakes/c23/videos" / name, "x")
    with pytest.raises(ValueError, match=f"{name}.*expected <target>_<source>"):
        read_faceforensics(tmp_path)


def test_a_faceforensics_tree_without_videos(tmp_path):
    with pytest.raises(ValueError, match="no videos; expected original_sequences"):
        read_faceforensics(tmp_path)
    (tmp_path / "original_sequences/youtube/c23/videos").mkdir(parents=True)
    with pytest.raises(ValueError, match="video folders are empty"):
        read_faceforensics(tmp_path)


def test_dfdc_metadata(tmp_path):
    part = {"a.mp4": {"label": "REAL", "split": "train"}, "b.mp4": {"label": "FAKE", "split": "train", "original": "a.mp4"}}
    write(tmp_path / "part_0/metadata.json", json.dumps(part))
    write(tmp_path / "part_1/metadata.json", json.dumps({"c.mp4": {"label": "FAKE", "split": "train", "original": "a.mp4"}}))
    df = read_dfdc(tmp_path)
    assert df["path"].tolist() == ["part_0/a.mp4", "part_0/b.mp4", "part_1/c.mp4"]
    assert df["group"].nunique() == 1 and df["label"].tolist() == [0, 1, 1] and df["split"].eq("").all()
    write(tmp_path / "part_1/metadata.json", json.dumps({"c.mp4": {"label": "FAKE", "split": "test", "original": None}}))
    assert read_dfdc(tmp_path)["split"].tolist() == ["train", "train", "test"]
    for text in ('{"a.mp4": {"label": "ODD"}}', '["a.mp4"]', '{"a.mp4": "FAKE"}', "{"):
        write(tmp_path / "part_1/metadata.json", text)
        with pytest.raises(ValueError, match="metadata.json: not DFDC metadata.*expected"):
            read_dfdc(tmp_path)
    shutil.rmtree(tmp_path / "part_0")
    (tmp_path / "part_1/metadata.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no metadata\.json"):
        read_dfdc(tmp_path)


def test_heads_are_grouped_by_film(tmp_path):
    draw_heads(tmp_path)
    df = read_heads(tmp_path)
    assert df["group"].tolist() == ["HollywoodHeads:mov_001"] * 2 + ["HollywoodHeads:mov_002", "HollywoodHeads:mov_003"]
    assert df["split"].tolist() == ["train", "train", "validation", "test"]
    boxes = read_boxes(tmp_path)
    assert boxes.columns.tolist() == ["path", "xmin", "ymin", "xmax", "ymax", "name"]
    assert boxes.groupby("path").size().to_dict() == {"JPEGImages/mov_001_000020.jpeg": 1, "JPEGImages/mov_002_000010.jpeg": 2}
    assert boxes["xmax"].eq(30.5).all()


def test_lists_of_frames_are_text_that_can_be_read(tmp_path):
    draw_heads(tmp_path)
    lists = tmp_path / "Splits"
    write(lists / "test.txt", "\ufeff" + (lists / "test.txt").read_text())
    assert read_heads(tmp_path)["split"].tolist() == ["train", "train", "validation", "test"]
    (lists / "test.txt").write_bytes("mov_003_é".encode("latin-1"))
    with pytest.raises(ValueError, match="test.txt: not UTF-8"):
        read_heads(tmp_path)
    for path in list(lists.iterdir()):
        path.rename(path.with_name(f"heads_{path.name}"))
    with pytest.raises(ValueError, match="Splits: holds heads_.*but none of train.txt, val.txt, test.txt"):
        read_heads(tmp_path)


def test_bad_head_trees(tmp_path):
    draw_heads(tmp_path)
    write(tmp_path / "Annotations/lonely.xml", (tmp_path / "Annotations/mov_001_000020.xml").read_text())
    with pytest.warns(UserWarning, match="1 boxes left out.*lonely.xml"):
        read_boxes(tmp_path)
    write(tmp_path / "Annotations/lonely.xml", "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>")
    with pytest.raises(ValueError, match="lonely.xml: a box without four numbers"):
        read_boxes(tmp_path)
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>'
    for text in ("<annotation>", "", bomb):
        write(tmp_path / "Annotations/lonely.xml", text)
        with pytest.raises(ValueError, match="lonely.xml: not a Pascal VOC annotation"):
            read_boxes(tmp_path)
    write(tmp_path / "Splits/test.txt", "mov_001_000010\n")
    with pytest.raises(ValueError, match="mov_001_000010.* is also in"):
        read_heads(tmp_path)
    shutil.rmtree(tmp_path / "JPEGImages")
    (tmp_path / "Splits/test.txt").unlink()
    (tmp_path / "Annotations/lonely.xml").unlink()
    with pytest.raises(FileNotFoundError, match="no pictures in JPEGImages"):
        read_heads(tmp_path)


def test_one_root_with_everything(tmp_path):
    draw_challenge(tmp_path / "challenge")
    draw_faceforensics(tmp_path / "faceforensics")
    draw_heads(tmp_path / "heads")
    write(tmp_path / "dfdc/metadata.json", '{"a.mp4": {"label": "REAL"}}')
    write(tmp_path / "pool/labels.csv", "path,label,group,role\na.jpg,real,Ann,query\nb.jpg,real,Ann,gallery\nc.jpg,real,Ann,\n")
    write(tmp_path / "mine/labels.csv", "path,label,video\nclip.MP4,fake,\npicture.png,fake,001.mp4\n")
    write(tmp_path / "miniature.json", "{}")
    (tmp_path / ".cache").mkdir()
    found = read_sources(tmp_path)
    assert (len(found.images), len(found.videos), len(found.heads), len(found.pools)) == (26, 14, 4, 2)
    assert found.pools["role"].tolist() == ["query", "gallery"] and found.images["role"].eq("").all()
    assert "mine/clip.MP4" in set(found.videos["path"]) and "mine/001.mp4" in set(found.images["video"])
    assert found.videos["video"].str.startswith(("faceforensics/", "dfdc/", "")).all()
    table = dataset_table(found, read_boxes(tmp_path / "heads")).set_index("id")["here"]
    assert table["datasets-challenge-images"] == 24 and table["datasets-challenge-fake"] == 12
    assert table["datasets-faceforensics-originals"] == 6 and table["datasets-faceforensics-methods"] == 2
    assert (table["datasets-heads-heads"], table["datasets-heads-frames"], table["datasets-heads-films"]) == (3, 4, 3)


def test_published_counts_stand_beside_ours(tmp_path, root):
    draw_challenge(tmp_path / "challenge", 2)
    table = dataset_table(read_sources(tmp_path), None, pd.read_csv(root / "papers/original/claims.csv")).set_index("id")
    assert table.loc["datasets-challenge-images", ["published", "here"]].tolist() == [15000, 8]
    assert table["published"].notna().all() and pd.isna(table.loc["datasets-heads-films", "here"])


@pytest.mark.parametrize("inside", [[], ["a.jpg"], ["images/a.jpg"]])
def test_an_unknown_folder_is_an_error(tmp_path, inside):
    draw_challenge(tmp_path / "challenge", 1)
    (tmp_path / "holiday").mkdir()
    for name in inside:
        draw_picture(tmp_path / "holiday" / name, 0)
    message = r"holiday: a folder in no known layout; expected challenge .*faceforensics .*heads .*DFDC .*labels\.csv"
    with pytest.raises(ValueError, match=message):
        read_sources(tmp_path)


def test_layouts_are_known_by_their_inside_too(tmp_path):
    draw_challenge(tmp_path / "gan", 1)
    draw_faceforensics(tmp_path / "ff", pairs=(("000", "001"),))
    draw_heads(tmp_path / "hollywood")
    found = read_sources(tmp_path)
    assert (len(found.images), len(found.videos), len(found.heads)) == (4, 4, 4)
    with pytest.raises(FileNotFoundError):
        read_sources(tmp_path / "nowhere")


def test_a_list_may_not_name_a_clip_that_is_not_there(tmp_path):
    draw_faceforensics(tmp_path, pairs=(("000", "001"),))
    write(tmp_path / "labels.csv", "path,label\noriginal_sequences/youtube/c23/videos/009.mp4,real\n")
    with pytest.raises(ValueError, match=r"labels.csv: path 'original_sequences/youtube/c23/videos/009.mp4' is no file"):
        read_faceforensics(tmp_path)


def test_a_broken_first_annotation_does_not_stop_who_needs_no_boxes(tmp_path):
    draw_heads(tmp_path / "heads")
    write(tmp_path / "heads/Annotations/aaa.xml", "<broken")
    assert len(read_sources(tmp_path).heads) == 4
    with pytest.raises(ValueError, match="aaa.xml"):
        datasets.read_boxes(tmp_path / "heads")


_METADATA = [('{"made": "by hand"}', "labels"), ('["a"]', "labels"), ('{"a.mp4": {"label": "FAKE"}}', "dfdc")]


@pytest.mark.parametrize("metadata, layout", _METADATA)
def test_another_programs_metadata_makes_no_dfdc(tmp_path, metadata, layout):
    draw_picture(tmp_path / "album/a.png", 0)
    write(tmp_path / "album/labels.csv", "path,label\na.png,real\n")
    write(tmp_path / "album/part/metadata.json", metadata)
    assert datasets._layout(tmp_path / "album") == layout


# --- Frames ------------------------------------------------------------------------------------------------------------


def test_frame_numbers_are_exact(tmp_path):
    draw_video(tmp_path / "a.mp4", n=20)
    frames = read_frames(tmp_path / "a.mp4", 5)
    assert list(frames) == [2, 6, 10, 14, 18]
    for number, frame in frames.items():
        assert frame.shape == (32, 32, 3) and abs(frame.mean() - 10 * number - 9.5) < 4
    assert list(read_frames(tmp_path / "a.mp4", 99)) == list(range(20))


def test_frames_are_rgb(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "red.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 32))
    for _ in range(3):
        writer.write(np.full((32, 32, 3), (0, 0, 255), np.uint8))
    writer.release()
    red = read_frames(tmp_path / "red.avi", 1)[1]
    assert red[..., 0].min() > 200 and red[..., 2].max() < 60


def bad_videos(folder):
    "Files that are no whole video, and what must be said about them."
    draw_video(folder / "good.mp4", n=60, size=96)
    whole = (folder / "good.mp4").read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is a text")
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "codec.mp4").write_bytes(whole.replace(b"mp4v", b"zzzz").replace(b"esds", b"free"))
    draw_video(folder / "zero.mp4", n=0)
    (folder / "folder.mp4").mkdir()
    return {"missing.mp4": "no such file", "empty.mp4": "the file is empty", "text.mp4": "not a video", "cut.mp4": "truncated",
            "codec.mp4": "no decoder", "zero.mp4": "it has no frames", "folder.mp4": "a folder"}


def test_bad_videos_get_one_error_that_names_file_and_reason(tmp_path):
    for name, reason in bad_videos(tmp_path).items():
        with pytest.raises(VideoError, match=f"{name}: .*({reason})"):
            read_frames(tmp_path / name)


def cut_in_the_middle(path):
    "Index first, then media: an mp4 of that order opens although its end is gone."
    data = path.read_bytes()
    i, boxes = 0, {}
    while i < len(data):
        size, kind = int.from_bytes(data[i : i + 4], "big"), data[i + 4 : i + 8]
        boxes[kind] = data[i : i + size]
        i += size
    moov, shift = bytearray(boxes[b"moov"]), len(boxes[b"moov"])
    place = moov.find(b"stco")
    for k in range(int.from_bytes(moov[place + 8 : place + 12], "big")):
        at = place + 12 + 4 * k
        moov[at : at + 4] = (int.from_bytes(moov[at : at + 4], "big") + shift).to_bytes(4, "big")
    data = boxes[b"ftyp"] + moov + b"".join(boxes[kind] for kind in boxes if kind not in (b"ftyp", b"moov"))
    path.write_bytes(data[: int(len(data) * 0.6)])


def test_a_video_that_ends_early_is_truncated(tmp_path):
    draw_video(tmp_path / "a.mp4", n=200, size=96)
    cut_in_the_middle(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match=r"a\.mp4: truncated: (\d+) bytes of (\d+) are there") as error:
        read_frames(tmp_path / "a.mp4")
    there, told = [int(number) for number in re.findall(r"\d+", error.value.reason)]
    assert there == (tmp_path / "a.mp4").stat().st_size == int(told * 0.6)


@pytest.mark.parametrize("promised", [0, 1, 15, 19, 21, 40, 400])
def test_a_header_may_promise_any_number_of_frames(tmp_path, monkeypatch, promised):
    draw_video(tmp_path / "a.mp4", n=20)
    monkeypatch.setattr(datasets, "_promised", lambda path, capture: promised)
    for n, numbers in {1: [10], 4: [2, 7, 12, 17], 21: list(range(20))}.items():
        frames = read_frames(tmp_path / "a.mp4", n)
        assert list(frames) == numbers and all(abs(frame.mean() - 10 * number - 9.5) < 4 for number, frame in frames.items())
        assert datasets._save_frames(tmp_path / "a.mp4", tmp_path / "frames", n) == numbers
        assert sorted(int(file.stem) for file in (tmp_path / "frames").glob("*.png")) == numbers


def test_frames_are_counted_when_the_header_is_silent(tmp_path, monkeypatch):
    draw_video(tmp_path / "a.mp4", n=7)

    class Silent:
        def __init__(self, capture):
            self.capture = capture

        def __getattr__(self, name):
            return getattr(self.capture, name)

        def get(self, key):
            return -1

    opened = datasets._open_video
    monkeypatch.setattr(datasets, "_open_video", lambda path: Silent(opened(path)))
    assert list(read_frames(tmp_path / "a.mp4", 99)) == list(range(7)) and list(read_frames(tmp_path / "a.mp4", 1)) == [3]


def video_rows(root, names):
    rows = [dict(path=name, label=0, source="FF++", method="none", group=name, video=name) for name in names]
    return datasets._as_manifest(rows)


def test_extraction_goes_on_where_it_stopped(tmp_path):
    names = [f"v{i}.mp4" for i in range(3)]
    for name in names:
        draw_video(tmp_path / name)
    out = tmp_path / "frames"
    frames, rejected = extract_frames(video_rows(tmp_path, names), tmp_path, out, 4, progress=False)
    assert len(frames) == 12 and rejected.empty and frames["frame"].tolist() == [2, 7, 12, 17] * 3
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    (out / "v1.mp4/frames.json").unlink()
    (out / "v2.mp4/000007.png").unlink()
    again, _ = extract_frames(video_rows(tmp_path, names), tmp_path, out, 4, progress=False)
    pd.testing.assert_frame_equal(again, frames)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    same = {path.parent.name for path in before if after[path] == before[path]}
    assert same == {"v0.mp4"} and set(after) == set(before)
    fewer, _ = extract_frames(video_rows(tmp_path, names), tmp_path, out, 2, progress=False)
    assert len(fewer) == 6 == len(list(out.rglob("*.png")))


@pytest.mark.parametrize("damage", ["empty frame", "cut marker", "odd marker"])
def test_a_damaged_cache_is_extracted_again(tmp_path, damage):
    draw_video(tmp_path / "a.mp4")
    rows, out = video_rows(tmp_path, ["a.mp4"]), tmp_path / "frames"
    extract_frames(rows, tmp_path, out, 2, progress=False)
    frame, marker = out / "a.mp4/000005.png", out / "a.mp4/frames.json"
    whole = frame.read_bytes()
    if damage == "empty frame":
        frame.write_bytes(b"")
    else:
        marker.write_text(marker.read_text()[:9] if damage == "cut marker" else "[]")
        frame.unlink()
    assert len(extract_frames(rows, tmp_path, out, 2, progress=False)[0]) == 2 and frame.read_bytes() == whole


def test_each_video_may_give_its_own_number_of_frames(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        draw_video(tmp_path / name)
    frames, _ = extract_frames(video_rows(tmp_path, ["a.mp4", "b.mp4"]), tmp_path, tmp_path / "frames", [1, 3], progress=False)
    assert frames["video"].value_counts().to_dict() == {"a.mp4": 1, "b.mp4": 3}
    with pytest.raises(ValueError, match="at least 1"):
        extract_frames(video_rows(tmp_path, ["a.mp4", "b.mp4"]), tmp_path, tmp_path / "frames", [1, 0])


def test_two_workers_do_what_one_does(tmp_path):
    bad = bad_videos(tmp_path)
    draw_video(tmp_path / "b.mp4", 3)
    rows = video_rows(tmp_path, [*bad, "b.mp4", "good.mp4"])
    one = extract_frames(rows, tmp_path, tmp_path / "one", 3, workers=1, progress=False)
    two = extract_frames(rows, tmp_path, tmp_path / "two", 3, workers=2, progress=False)
    for a, b in zip(one, two, strict=True):
        pd.testing.assert_frame_equal(a, b)
    assert set(one[1]["path"]) == set(bad) and len(one[0]) == 6
    for path in one[0]["path"]:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    with pytest.raises(ValueError, match="at least 1"):
        extract_frames(rows, tmp_path, tmp_path / "one", 0)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to see child processes")
def test_workers_end_with_their_parent(tmp_path):
    names = [f"v{i}.mp4" for i in range(4)]
    for name in names:
        draw_video(tmp_path / name, n=600, size=256)
    code = ("import sys; from pathlib import Path; from deepfake_nbs.datasets import extract_frames, _as_manifest\n"
            "root = Path(sys.argv[1])\n"
            "rows = _as_manifest([dict(path=p.name, label=0) for p in sorted(root.glob('*.mp4'))])\n"
            "extract_frames(rows, root, root / 'frames', 600, workers=2, progress=False)")
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        wait_for(lambda: len(list((tmp_path / "frames").rglob("*.png"))) > 5)
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    finally:
        parent.kill()
        parent.wait()
    assert len(children) >= 2
    wait_for(lambda: not any(is_running(child) for child in children))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(happens, seconds=30):
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_errors_travel_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(VideoError("a.mp4", "it has no frames")))
    assert (error.path, error.reason, str(error)) == ("a.mp4", "it has no frames", "a.mp4: it has no frames")


def test_long_mp4_boxes(tmp_path):
    long_box = (1).to_bytes(4, "big") + b"mdat" + (24).to_bytes(8, "big") + b"12345678"
    (tmp_path / "a.mp4").write_bytes((8).to_bytes(4, "big") + b"ftyp" + long_box + (8).to_bytes(4, "big") + b"moov")
    with open(tmp_path / "a.mp4", "rb") as file:  # Name, where the content begins, where the box ends
        assert list(datasets._boxes(file, 0, 40)) == [("ftyp", 8, 8), ("mdat", 24, 32), ("moov", 40, 40)]


# --- Splits ------------------------------------------------------------------------------------------------------------


def random_rows(seed):
    "Groups of very different sizes, several sources, with kin that cross labels."
    rng, rows = np.random.default_rng(seed), []
    for number in range(rng.integers(12, 80)):
        source = rng.choice(["A", "B", "C"], p=[0.6, 0.3, 0.1])
        for _ in range(rng.choice([1, 2, 5, 12])):
            label = int(rng.random() < 0.6)
            rows.append(dict(path=f"{len(rows)}.png", label=label, source=source, method="x" if label else "none", group=f"g{number}"))
    return datasets._as_manifest(rows).sample(frac=1, random_state=seed).reset_index(drop=True)


@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.8, 0.0, 0.2)])
def test_no_group_is_ever_cut(fractions):
    for seed in range(40):
        rows = random_rows(seed)
        done = split_manifest(rows, "group", fractions, seed)
        assert done.groupby("group")["split"].nunique().eq(1).all()
        assert done.drop(columns="split").equals(rows.drop(columns="split"))
        largest = rows.groupby("group").size().max()
        for name, fraction in zip(SPLITS, fractions, strict=True):
            n = int(done["split"].eq(name).sum())
            assert abs(n - fraction * len(rows)) <= largest + 6, (seed, name, n, fraction * len(rows))  # 6 strata
            assert n > 0 or fraction == 0
        pd.testing.assert_frame_equal(done, split_manifest(rows, "group", fractions, seed))
        mixed = split_manifest(rows.sample(frac=1, random_state=1), "group", fractions, seed).sort_index()
        pd.testing.assert_frame_equal(mixed, done)


def test_single_pictures_split_exactly_by_source_and_label():
    rows = pd.concat([random_rows(seed) for seed in range(5)], ignore_index=True)
    rows["group"] = [f"g{i}" for i in range(len(rows))]
    done = split_manifest(rows, seed=3)
    for (source, label), part in done.groupby(["source", "label"]):
        for name, fraction in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
            assert abs(part["split"].eq(name).sum() - fraction * len(part)) <= 1.5, (source, label)


def test_seeds_differ():
    rows = random_rows(2)
    assert split_manifest(rows, seed=1)["split"].ne(split_manifest(rows, seed=2)["split"]).any()


def test_a_giant_group_goes_where_there_is_room():
    rows = random_rows(3)
    rows.loc[rows.index[: len(rows) // 2], "group"] = "giant"
    done = split_manifest(rows)
    assert set(done.loc[done["group"].eq("giant"), "split"]) == {"train"} and set(done["split"]) == set(SPLITS)


def test_official_splits_are_kept_unless_a_group_is_cut():
    rows = random_rows(4)
    names = sorted(rows["group"].unique())
    rows["split"] = ""
    rows.loc[rows["group"].eq(names[0]), "split"] = "test"
    rows.loc[rows["group"].eq(names[1]).idxmax(), "split"] = "validation"  # One row speaks for its group
    cut = rows.index[rows["group"].eq(rows["group"].value_counts().index[0])]
    rows.loc[cut[0], "split"], rows.loc[cut[1], "split"] = "train", "test"
    done = split_manifest(rows)
    assert set(done.loc[done["group"].eq(names[0]), "split"]) == {"test"}
    assert set(done.loc[done["group"].eq(names[1]), "split"]) == {"validation"}
    assert done.loc[cut, "split"].nunique() == 1
    free = [split_manifest(rows, seed=seed, keep_official=False) for seed in range(20)]
    assert any(set(df.loc[df["group"].eq(names[0]), "split"]) != {"test"} for df in free)


def test_too_few_groups_say_so():
    rows = random_rows(5)
    with pytest.raises(ValueError, match="split .*: 2 groups leave nothing for it"):
        split_manifest(rows.assign(group=np.where(rows.index % 2, "a", "b")))
    with pytest.raises(ValueError, match="keep_official=False"):
        split_manifest(rows.assign(split="train"))
    three = split_manifest(rows.assign(group=[f"g{i % 3}" for i in rows.index]))
    assert set(three["split"]) == set(SPLITS)


def test_published_shuffles_rows_and_leaks():
    rows = pd.concat([random_rows(seed) for seed in range(4)], ignore_index=True)
    done = split_manifest(rows, "published", (0.5, 0.2, 0.3), seed=1)
    n = len(rows)
    assert [int(done["split"].eq(name).sum()) for name in SPLITS] == [round(0.5 * n), round(0.7 * n) - round(0.5 * n), n - round(0.7 * n)]
    assert audit_split(done).set_index("what").loc["groups", "crossing"] > 0


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.6, 0.1), (1.2, -0.1, -0.1), (0.3, 0.3, 0.3)])
def test_bad_fractions(fractions):
    with pytest.raises(ValueError, match="add up to 1"):
        split_manifest(random_rows(0), fractions=fractions)


def test_bad_protocol_and_nothing_to_split():
    with pytest.raises(ValueError, match="expected 'group' or 'published'"):
        split_manifest(random_rows(0), "random")
    with pytest.raises(ValueError, match="nothing to split"):
        split_manifest(random_rows(0)[:0])


def test_balance_drops_from_the_larger_class_of_each_split():
    rows = pd.concat([random_rows(seed) for seed in range(3)], ignore_index=True)
    plain, even = split_manifest(rows, seed=2), split_manifest(rows, seed=2, balance=True)
    for name in SPLITS:
        counts = even.loc[even["split"].eq(name), "label"].value_counts()
        assert counts[0] == counts[1] == plain.loc[plain["split"].eq(name), "label"].value_counts().min()
    assert even["split"].equals(plain.loc[even.index, "split"])
    pd.testing.assert_frame_equal(even, split_manifest(rows, seed=2, balance=True))
    with pytest.raises(ValueError, match="one class only"):
        split_manifest(rows[rows["label"].eq(1)], balance=True)


def test_a_limit_keeps_every_source_method_and_label():
    for seed in range(10):
        rows = random_rows(seed)
        strata = ["source", "method", "label"]
        for limit in (len(rows.groupby(strata)), 20, len(rows) - 1):
            few = datasets._limit_rows(rows, limit, seed, np.ones(len(rows)))
            assert len(few) == limit
            assert set(map(tuple, few[strata].to_numpy())) == set(map(tuple, rows[strata].to_numpy()))
    assert len(datasets._limit_rows(rows, 0, 0, np.ones(len(rows)))) == len(rows)
    with pytest.raises(ValueError, match="image_limit is 2; expected 0 .all. or at least"):
        datasets._limit_rows(rows, 2, 0, np.ones(len(rows)))


def test_a_limit_takes_kin_together():
    labels = [(i, label) for i in range(50) for label in (0, 1)]
    rows = [dict(path=f"{label}/{i}", label=label, source="S", method="x" if label else "none", group=f"g{i}") for i, label in labels]
    few = datasets._limit_rows(datasets._as_manifest(rows), 20, 7, np.ones(100))
    assert few["group"].nunique() == 10


# --- The audit ---------------------------------------------------------------------------------------------------------


def test_the_audit_counts_a_case_made_by_hand(tmp_path):
    rows = good_rows(6).assign(
        group=["a", "a", "b", "c", "d", "d"], video=["v", "v", "", "w", "", ""], sha256=[f"{i:064x}" for i in (0, 1, 2, 3, 2, 5)],
        split=["train", "test", "train", "validation", "test", "test"])
    for i, path in enumerate(rows["path"]):
        draw_picture(tmp_path / path, 2 if i == 4 else i, size=64)
    audit = audit_split(rows, tmp_path).set_index("what")
    assert audit["total"].to_dict() == {"groups": 4, "videos": 2, "identical files": 5, "near-duplicates": 6}
    assert audit["crossing"].to_dict() == {"groups": 1, "videos": 1, "identical files": 1, "near-duplicates": 2}
    assert audit["test_images"].to_dict() == {"groups": 1, "videos": 1, "identical files": 1, "near-duplicates": 1}
    assert audit["share_of_test"].to_dict() == pytest.approx({name: 1 / 3 for name in audit.index})
    clean = audit_split(rows[rows["split"].eq("train")])
    assert clean["crossing"].sum() == 0 and clean["share_of_test"].isna().all()


def photograph(seed, size=128):
    "Noise with the spectrum of a photograph: the finer, the weaker."
    rng, total = np.random.default_rng(seed), np.zeros((size, size, 3))
    for n in (2, 4, 8, 16, 32, 64):
        total += cv2.resize(rng.normal(size=(n, n, 3)), (size, size), interpolation=cv2.INTER_CUBIC) * 60 / n**0.7
    return (128 + total).clip(0, 255).astype(np.uint8)


def test_hashes_see_through_resizing_but_not_everything(tmp_path):
    for seed in range(5):
        cv2.imwrite(str(tmp_path / "a.png"), photograph(seed))
        cv2.imwrite(str(tmp_path / "small.jpg"), cv2.resize(photograph(seed), (96, 96)), [cv2.IMWRITE_JPEG_QUALITY, 75])
        cv2.imwrite(str(tmp_path / "b.png"), photograph(seed + 100))
        a, small, b = (datasets._perceptual_hash(tmp_path / name) for name in ("a.png", "small.jpg", "b.png"))
        assert (a ^ small).bit_count() <= 4 < 12 < (a ^ b).bit_count()
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((64, 64, 3), 99, np.uint8))
    assert datasets._perceptual_hash(tmp_path / "flat.png") is None


def test_near_duplicates_in_blocks_equal_the_plain_loop(monkeypatch):
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 300, dtype=np.uint64)
    hashes[:40] = hashes[200:240] ^ np.uint64(5)
    split = rng.choice(SPLITS, 300)
    pairs = list(zip(hashes.tolist(), split, strict=True))
    plain = [any(s != t and (a ^ b).bit_count() <= 4 for b, t in pairs) for a, s in pairs]
    found = datasets._seen_elsewhere(hashes, split, 4)
    assert found.tolist() == plain and 10 < found.sum() < 80


# --- Pictures ----------------------------------------------------------------------------------------------------------


def test_examples_stand_beside_their_closest_kin(tmp_path):
    rows = []
    kinds = [("none", "000", 3), ("none", "000", 7), ("none", "001", 7), ("Deepfakes", "000_001", 7), ("GAN", "", None)]
    for method, video, frame in kinds:
        label = int(method != "none")
        rows.append(dict(path=f"{len(rows)}.png", label=label, source="FF++" if video else "Web", method=method,
                         group="FF++:000" if video else "w", video=video and f"{video}.mp4", frame=frame))
        draw_picture(tmp_path / rows[-1]["path"], len(rows))
    df = datasets._as_manifest(rows)
    pairs = datasets._pairs(df, 2, 0)
    assert pairs["Deepfakes"] == [("1.png", "3.png")] and pairs["GAN"][0][0] in ("0.png", "1.png", "2.png")
    fig = plot_examples(df, tmp_path, n_pairs=2)
    assert len(fig.axes) == 8 and sum(bool(ax.images) for ax in fig.axes) == 4
    assert [ax.get_title() for ax in fig.axes[:4]] == ["real", "fake"] * 2
    only_fakes = plot_examples(df[df["label"].eq(1)], tmp_path, n_pairs=1)
    assert sum(bool(ax.images) for ax in only_fakes.axes) == 2


def test_every_head_gets_a_box(tmp_path):
    draw_heads(tmp_path)
    fig = plot_heads(read_boxes(tmp_path), tmp_path)
    assert sorted(len(ax.patches) for ax in fig.axes) == [1, 2]
    assert len(plot_heads(read_boxes(tmp_path)[:0], tmp_path).axes) == 1


# --- The real sets -----------------------------------------------------------------------------------------------------


def test_the_real_sets_are_read(real):
    found = read_sources(real)
    listed = pd.concat([read_table(path) for path in real.glob("*/labels.csv")])  # Of challenge/ too, which needs none
    moving, pool = listed["path"].str.endswith(".mp4"), listed["role"].fillna("").ne("")
    clips = list(real.glob("faceforensics/*_sequences/*/*/videos/*.mp4"))
    heads, annotations = list(real.glob("heads/JPEGImages/*")), list(real.glob("heads/Annotations/*.xml"))
    counts = [(~moving & ~pool).sum(), moving.sum() + len(clips), len(heads), pool.sum()]
    assert [len(df) for df in (found.images, found.videos, found.heads, found.pools)] == counts and min(counts) > 0
    images, videos = (df[df["path"].str.startswith(("challenge/", "dfdc_faces/", "faceforensics/"))] for df in (found.images, found.videos))
    assert images["split"].isin(SPLITS).all() and videos["split"].isin(SPLITS).all()  # Sets with a split of their own
    done = split_manifest(images.reset_index(drop=True))
    assert done["split"].tolist() == images["split"].tolist()  # No official group is cut, so all of them are kept
    n_boxes = sum(path.read_text(encoding="utf-8").count("<bndbox>") for path in annotations)
    assert len(read_boxes(real / "heads")) == n_boxes > 0
