"Readers of every layout, alone and under one data root."

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from helpers.data_sets import (
    build,
    draw_challenge,
    draw_faceforensics,
    draw_heads,
    draw_image,
    draw_official,
    draw_own,
    write,
)

from deepfake_nbs.core import write_json
from deepfake_nbs.data.annotations import read_boxes
from deepfake_nbs.data.manifest import SPLITS, read_labels
from deepfake_nbs.data.readers import (
    _known_layout,
    _layout,
    read_challenge,
    read_dfdc,
    read_folders,
    read_sources,
)
from deepfake_nbs.data.report import dataset_table
from deepfake_nbs.data.splits import split_manifest
from deepfake_nbs.data.storage import dataset_notes
from deepfake_nbs.files import read_table


def test_challenge_labels_come_from_folder_names(tmp_path):
    draw_challenge(tmp_path)
    draw_image(tmp_path / "1-New" / "deep" / "übung 1.png", 5)
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
        with pytest.raises(
            ValueError, match=rf"{name}: unknown class folder; expected .*0- \(real\) or 1- \(fake\)"
        ):
            read()


def test_dfdc_metadata(tmp_path):
    part = {
        "a.mp4": {"label": "REAL", "split": "train"},
        "b.mp4": {"label": "FAKE", "split": "train", "original": "a.mp4"},
    }
    write(tmp_path / "part_0/metadata.json", json.dumps(part))
    write(
        tmp_path / "part_1/metadata.json",
        json.dumps({"c.mp4": {"label": "FAKE", "split": "train", "original": "a.mp4"}}),
    )
    df = read_dfdc(tmp_path)
    assert df["path"].tolist() == ["part_0/a.mp4", "part_0/b.mp4", "part_1/c.mp4"]
    assert df["group"].nunique() == 1 and df["label"].tolist() == [0, 1, 1] and df["split"].eq("").all()
    write(
        tmp_path / "part_1/metadata.json",
        json.dumps({"c.mp4": {"label": "FAKE", "split": "test", "original": None}}),
    )
    assert read_dfdc(tmp_path)["split"].tolist() == ["train", "train", "test"]
    for text in ('{"a.mp4": {"label": "ODD"}}', '["a.mp4"]', '{"a.mp4": "FAKE"}', "{"):
        write(tmp_path / "part_1/metadata.json", text)
        with pytest.raises(ValueError, match="metadata.json: not DFDC metadata.*expected"):
            read_dfdc(tmp_path)
    shutil.rmtree(tmp_path / "part_0")
    (tmp_path / "part_1/metadata.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no metadata\.json"):
        read_dfdc(tmp_path)


def test_one_root_with_everything(tmp_path):
    draw_challenge(tmp_path / "challenge")
    draw_faceforensics(tmp_path / "faceforensics")
    draw_heads(tmp_path / "heads")
    write(tmp_path / "dfdc/metadata.json", '{"a.mp4": {"label": "REAL"}}')
    write(
        tmp_path / "pool/labels.csv",
        "path,label,group,role\na.jpg,real,Ann,query\nb.jpg,real,Ann,gallery\nc.jpg,real,Ann,\n",
    )
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
    assert (table["datasets-heads-heads"], table["datasets-heads-frames"], table["datasets-heads-films"]) == (
        3,
        4,
        3,
    )


@pytest.mark.parametrize("inside", [[], ["a.jpg"], ["images/a.jpg"]])
def test_an_unknown_folder_is_an_error(tmp_path, inside):
    draw_challenge(tmp_path / "challenge", 1)
    (tmp_path / "holiday").mkdir()
    for name in inside:
        draw_image(tmp_path / "holiday" / name, 0)
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


_METADATA = [('{"made": "by hand"}', "labels"), ('["a"]', "labels"), ('{"a.mp4": {"label": "FAKE"}}', "dfdc")]


@pytest.mark.parametrize("metadata, layout", _METADATA)
def test_another_programs_metadata_makes_no_dfdc(tmp_path, metadata, layout):
    draw_image(tmp_path / "album/a.png", 0)
    write(tmp_path / "album/labels.csv", "path,label\na.png,real\n")
    write(tmp_path / "album/part/metadata.json", metadata)
    assert _layout(tmp_path / "album") == layout


def test_the_real_sets_are_read(real):
    found = read_sources(real)
    listed = pd.concat(
        [read_table(path) for path in real.glob("*/labels.csv")]
    )  # Of challenge/ too, which needs none
    moving, pool = listed["path"].str.endswith(".mp4"), listed["role"].fillna("").ne("")
    clips = list(real.glob("faceforensics/*_sequences/*/*/videos/*.mp4"))
    heads, annotations = list(real.glob("heads/JPEGImages/*")), list(real.glob("heads/Annotations/*.xml"))
    counts = [(~moving & ~pool).sum(), moving.sum() + len(clips), len(heads), pool.sum()]
    assert [len(df) for df in (found.images, found.videos, found.heads, found.pools)] == counts and min(
        counts
    ) > 0
    images, videos = (
        df[df["path"].str.startswith(("challenge/", "dfdc_faces/", "faceforensics/"))]
        for df in (found.images, found.videos)
    )
    assert (
        images["split"].isin(SPLITS).all() and videos["split"].isin(SPLITS).all()
    )  # Sets with a split of their own
    done = split_manifest(images.reset_index(drop=True))
    assert (
        done["split"].tolist() == images["split"].tolist()
    )  # No official group is cut, so all of them are kept
    n_boxes = sum(path.read_text(encoding="utf-8").count("<bndbox>") for path in annotations)
    assert len(read_boxes(real / "heads")) == n_boxes > 0


CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.fixture
def cases():
    if not CASES.is_dir():
        pytest.skip("../shared/cases is not on this machine")
    return CASES


def test_a_name_means_the_same_in_every_set(tmp_path):
    draw_official(tmp_path / "data/faceforensics")
    for i in range(3):
        draw_image(tmp_path / f"data/mine/{i}.png", 70 + i)
    write(
        tmp_path / "data/mine/labels.csv",
        "path,label,group\n0.png,real,FF++:640\n1.png,fake,FFHQ:000\n2.png,real,alone\n",
    )
    draw_challenge(tmp_path / "data/challenge", 8)
    found = read_sources(tmp_path / "data")
    group = found.images.set_index("path")["group"]
    assert group["mine/0.png"] == "FF++:001"  # The name that the ids of one video were joined to
    assert (
        group["mine/1.png"] == group["challenge/0-FFHQ/000.png"] == "FFHQ:000"
        and group["mine/2.png"] == "alone"
    )
    assert "related" not in found.images and "related" not in found.videos
    manifest = build(tmp_path / "data", tmp_path / "set")
    assert manifest.groupby("group")["split"].nunique().max() == 1
    assert "2 groups hold images of more than one set, because their names are the same" in dataset_notes(
        tmp_path / "set"
    )


@pytest.mark.parametrize("below", [True, False])
def test_folders_named_real_and_fake_are_read(tmp_path, below):
    root = tmp_path / "photos"
    draw_own(root / "mine" if below else root)
    manifest = build(root, tmp_path / "set")
    assert manifest["label"].value_counts().to_dict() == {0: 12, 1: 12} and manifest["group"].is_unique
    name = "mine" if below else "photos"
    assert manifest["source"].eq(name).all()
    assert (
        manifest[manifest["label"].eq(0)]["origin"].str.startswith("mine/real/" if below else "real/").all()
    )
    assert set(manifest[manifest["label"].eq(1)]["method"]) == {"unknown"}
    notes = dataset_notes(tmp_path / "set")
    assert (
        notes[0].startswith(f"{name}: each of the 24 images is its own group")
        and "add a column `group` to a labels.csv" in notes[0]
    )
    assert re.fullmatch(r"\d+ of \d+ test images look nearly the same as an image in another split", notes[1])


def test_splits_above_or_below_the_classes_are_kept(tmp_path):
    draw_own(tmp_path / "data", 5, ("train", "VAL", "Testing"))
    df = read_sources(tmp_path / "data").images
    assert df["split"].value_counts().to_dict() == {split: 10 for split in SPLITS}
    manifest = build(tmp_path / "data", tmp_path / "set")
    assert manifest.groupby("split").size().to_dict() == {split: 10 for split in SPLITS}
    for label in (0, 1):
        for split in ("train", "valid", "test"):
            draw_image(tmp_path / f"turned/{label}/{split}/a.png", label)
    assert read_folders(tmp_path / "turned")["split"].tolist() == ["test", "train", "validation"] * 2
    assert read_folders(tmp_path / "turned")["label"].tolist() == [0, 0, 0, 1, 1, 1]


def test_an_image_in_neither_class_is_named(tmp_path):
    draw_own(tmp_path / "photos", 3)
    write(tmp_path / "photos/README.txt", "mine")
    assert len(read_folders(tmp_path / "photos")) == 6
    draw_image(tmp_path / "photos/maybe/a.png", 1)
    with pytest.raises(ValueError, match=r"photos/maybe/a.png: lies in neither real/ nor fake/"):
        read_sources(tmp_path / "photos")


def test_a_root_that_is_itself_a_set(tmp_path):
    draw_challenge(tmp_path / "gan")
    assert read_sources(tmp_path / "gan").images["path"].str.startswith(("0-", "1-")).all()
    assert (
        dataset_table(read_sources(tmp_path / "gan"), None).set_index("id")["here"][
            "datasets-challenge-images"
        ]
        == 24
    )
    draw_official(tmp_path / "clips")
    assert len(read_sources(tmp_path / "clips").videos) == 16
    draw_image(tmp_path / "listed/images/a.png", 1)
    write(tmp_path / "listed/labels.csv", "path,label\nimages/a.png,real\n")
    assert read_sources(tmp_path / "listed").images["path"].tolist() == ["images/a.png"]
    draw_own(tmp_path / "listed/own", 2)  # Then the list at the root is not what describes its folders
    with pytest.raises(ValueError, match="listed/images: a folder in no known layout"):
        read_sources(tmp_path / "listed")


def test_a_set_that_happens_to_be_called_real_is_no_class(tmp_path):
    for name in ("real", "other"):
        draw_image(tmp_path / name / "a.png", len(name))
        write(tmp_path / name / "labels.csv", "path,label\na.png,fake\n")
    assert read_sources(tmp_path).images["label"].tolist() == [1, 1]
    write(tmp_path / "other/labels.csv", "path,label\n")
    assert len(read_sources(tmp_path).images) == 1


def test_a_list_beside_another_programs_metadata_wins(cases, tmp_path):
    found = read_sources(cases / "foreign-metadata").images
    assert found["label"].tolist() == [0, 1] * 6 and found["group"].nunique() == 6
    mine = Path(shutil.copytree(cases / "foreign-metadata/mine", tmp_path / "data/mine"))
    (mine / "labels.csv").unlink()
    with pytest.raises(
        ValueError, match=r"metadata.json: not DFDC metadata .*expected .*or a labels.csv beside it"
    ):
        read_sources(tmp_path / "data")


def test_the_test_set_of_dfdc_is_read(cases, tmp_path):
    found = read_sources(cases / "dfdc-test-set/root").videos
    assert (
        found["label"].tolist() == [0, 1] * 5
        and found["group"].nunique() == 10
        and set(found["source"]) == {"DFDC"}
    )


def test_dfdc_labels_in_every_form(tmp_path):
    for one in "abc":
        write(tmp_path / f"{one}.mp4", "x")
    entries = {
        "a.mp4": {"is_fake": 0},
        "b.mp4": {"is_fake": 1, "original": "a.mp4"},
        "c.mp4": {"is_fake": True},
    }
    write_json(tmp_path / "metadata.json", entries)
    assert read_dfdc(tmp_path)["label"].tolist() == [0, 1, 1] and read_dfdc(tmp_path)["group"].nunique() == 2
    write(tmp_path / "labels.csv", "filename,label\nc.mp4,0\n")  # As the set comes
    assert read_dfdc(tmp_path)["label"].tolist() == [0, 1, 0]
    write_json(tmp_path / "metadata.json", {"a.mp4": {"augmentations": {}}})
    assert _known_layout(tmp_path) == "labels" and read_labels(tmp_path)["path"].tolist() == ["c.mp4"]
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(ValueError, match="a.mp4 has neither label nor is_fake"):
        read_dfdc(tmp_path)


HIDDEN = (
    "._a.png",
    "__MACOSX/._a.png",
    "__MACOSX/a.png",
    ".ipynb_checkpoints/a.png",
    "Thumbs.db",
    "desktop.ini",
    "@eaDir/a.png",
)


def test_every_reader_leaves_out_hidden_files(tmp_path):
    draw_challenge(tmp_path / "challenge", 2)
    draw_official(tmp_path / "faceforensics")
    draw_own(tmp_path / "own", 2)
    draw_image(tmp_path / "mine/a.png", 1)
    write(
        tmp_path / "mine/labels.csv",
        "path,label\na.png,real\n" + "".join(f"{name},fake\n" for name in HIDDEN),
    )
    write(tmp_path / "dfdc/metadata.json", '{"a.mp4": {"label": "REAL"}, "._a.mp4": {"label": "REAL"}}')
    clips = "faceforensics/original_sequences/youtube/c23/videos"
    folders = ("challenge/0-FFHQ", "challenge", clips, "faceforensics", "own/real", "own", ".")
    for name in HIDDEN:
        for folder in folders:
            write(tmp_path / folder / name, "x")
    found = read_sources(tmp_path)
    assert (len(found.images), len(found.videos)) == (8 + 4 + 1, 16 + 1)
    assert (
        found.notes[-1]
        == f"mine/labels.csv: {len(HIDDEN)} hidden files were left out, the first of them ._a.png"
    )


def test_the_hidden_files_of_the_case(cases, tmp_path):
    shutil.copytree(cases / "folder-hidden/album", tmp_path / "own/real")
    write(tmp_path / "own/real/.thumbnails/a.jpg", "x")
    draw_image(tmp_path / "own/fake/b.png", 1)
    assert read_folders(tmp_path / "own")["path"].tolist() == ["fake/b.png", "real/a.jpg"]


def test_links_to_folders_are_followed_once(mine, tmp_path):
    shutil.move(mine / "challenge/0-CelebA", tmp_path / "far")
    (mine / "challenge/0-CelebA").symlink_to(tmp_path / "far")
    (tmp_path / "far/round").symlink_to(tmp_path / "far")
    assert read_challenge(mine / "challenge")["source"].eq("CelebA").sum() == 12


def test_metadata_cannot_name_files_elsewhere(tmp_path):
    write(
        tmp_path / "data/dfdc/metadata.json", '{"../../secret.mp4": {"label": "FAKE", "original": "a.mp4"}}'
    )
    with pytest.raises(ValueError, match="secret.mp4.* is not a file of this folder"):
        read_dfdc(tmp_path / "data/dfdc")
