"Clips of FaceForensics++ and DFD: who is in them, their splits, and the videos they were cut from."

import json
import shutil
from pathlib import Path

import pytest
from helpers.data_sets import VIDEOS, build, draw_faceforensics, draw_official, draw_video, stems, write

from deepfake_nbs.core import write_json
from deepfake_nbs.data.faceforensics import read_faceforensics
from deepfake_nbs.data.readers import read_sources
from deepfake_nbs.data.splits import audit_split
from deepfake_nbs.data.storage import dataset_notes


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
    assert df.groupby("label")["method"].agg(set).to_dict() == {
        0: {"none"},
        1: {"Deepfakes", "FaceSwap", "Face2Face"},
    }


def test_actors_have_their_own_names_and_groups(tmp_path):
    draw_faceforensics(tmp_path, pairs=(("01", "02"),))
    for name in ("01__talking", "03__walking_outside"):
        draw_video(tmp_path / f"original_sequences/actors/c23/videos/{name}.mp4")
    draw_video(
        tmp_path / "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__walking_down__YVGY8LOK.mp4"
    )
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
    assert (
        set(split["000_001"]) == {"train"}
        and split["003"] == "validation"
        and set(split["004_005"]) == {"test"}
        and split["005"] == ""
    )
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


def test_a_list_may_not_name_a_clip_that_is_not_there(tmp_path):
    draw_faceforensics(tmp_path, pairs=(("000", "001"),))
    write(tmp_path / "labels.csv", "path,label\noriginal_sequences/youtube/c23/videos/009.mp4,real\n")
    with pytest.raises(
        ValueError, match=r"labels.csv: path 'original_sequences/youtube/c23/videos/009.mp4' is no file"
    ):
        read_faceforensics(tmp_path)


@pytest.mark.parametrize(
    "place", [".", "splits", "..", "original_sequences/youtube", "downloaded_videos_info"]
)
@pytest.mark.parametrize("form", [str, str.split, lambda entry: entry.split()[:1]])
def test_ids_that_were_cut_from_one_video_are_one_group(tmp_path, place, form):
    root = tmp_path / "faceforensics"
    draw_official(root, videos=None)
    assert read_faceforensics(root)["group"].nunique() == 4
    (root / place).mkdir(exist_ok=True)
    write_json(root / place / "conversion_dict.json", {one: form(entry) for one, entry in VIDEOS.items()})
    group = stems(read_faceforensics(root))["group"]
    assert group.nunique() == 3 and set(group[["639", "640"]]) == {"FF++:001"}
    assert set(group["639_001"]) == set(group["640_002"]) == {"FF++:001"} and group["755"] != group["003"]


def test_an_official_split_that_cuts_a_video_is_said_and_the_group_wins(tmp_path):
    draw_official(tmp_path / "data/faceforensics")
    manifest = build(tmp_path / "data", tmp_path / "set")
    notes = dataset_notes(tmp_path / "set")
    assert notes[0] == (
        "faceforensics: the official splits cut 1 source video: 639/640 (train, validation); under protocol 'group' "
        "each stays whole, so some of its clips leave their official split"
    )
    assert manifest[manifest["group"].eq("FF++:001")]["split"].nunique() == 1
    kept = {"003": "test", "755": "validation"}  # What is not cut stays where it is
    assert all(
        set(manifest[manifest["video"].str.contains(one)]["split"]) == {split} for one, split in kept.items()
    )
    audit = audit_split(manifest).set_index("what").loc["source videos"]
    assert (audit["total"], audit["crossing"], audit["test_images"]) == (7, 0, 0)
    clips = read_faceforensics(tmp_path / "data/faceforensics")
    official = dict(zip("faceforensics/" + clips["path"], clips["split"], strict=True))
    assert (
        audit_split(manifest.assign(split=manifest["video"].map(official)))
        .set_index("what")
        .loc["source videos", "crossing"]
        == 1
    )


def test_a_missing_list_of_source_videos_is_said(tmp_path):
    draw_official(tmp_path / "data/faceforensics", videos=None)
    assert (
        read_sources(tmp_path / "data").notes[0].startswith("faceforensics: conversion_dict.json is missing")
    )
    write(
        tmp_path / "data/miniature.json", "{}"
    )  # The embedded data are drawn: there is no video behind an id
    assert read_sources(tmp_path / "data").notes == ()
    (tmp_path / "data/miniature.json").unlink()
    shutil.rmtree(
        tmp_path / "data/faceforensics/splits"
    )  # The download script brings none: ids of three digits are official enough
    assert (
        read_sources(tmp_path / "data").notes[0].startswith("faceforensics: conversion_dict.json is missing")
    )
    write(tmp_path / "data/faceforensics/conversion_dict.json", '{"bWN 0": "000"}')  # Turned round
    found = "faceforensics: faceforensics/conversion_dict.json names none of these clips; the official one says that 45"
    assert read_sources(tmp_path / "data").notes[0].startswith(found)
    write(tmp_path / "data/faceforensics/conversion_dict.json", "{}")
    assert "source_video" not in read_faceforensics(tmp_path / "data/faceforensics")


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"000": 3}', '{"000": ""}', '{"000": []}', '{"000": [""]}', '{"000": null}']
)
def test_a_list_of_source_videos_in_another_form_is_named(tmp_path, text):
    draw_official(tmp_path, videos=None)
    write(tmp_path / "conversion_dict.json", text)
    with pytest.raises(
        ValueError, match=r"conversion_dict.json: not the list of source videos .*expected {\"000\""
    ):
        read_faceforensics(tmp_path)


def test_a_fake_follows_the_people_that_a_list_names(mine, tmp_path):
    originals = "faceforensics/original_sequences/youtube/c23/videos"
    names = sorted(path.name for path in (mine / originals).glob("*.mp4"))[:2]
    write(
        mine / "faceforensics/labels.csv",
        "path,label,group\n"
        + "".join(
            f"{originals.removeprefix('faceforensics/')}/{name},0,{person}\n"
            for name, person in zip(names, ("alice", "bob"), strict=True)
        ),
    )
    videos = read_faceforensics(mine / "faceforensics")
    pair = {Path(name).stem for name in names}
    related = videos[videos["path"].map(lambda path: set(Path(path).stem.split("_")) <= pair)]
    assert len(related) > 2 and related["group"].nunique() == 1
