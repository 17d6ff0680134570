"Datasets on disk: whose folder it is, what is never deleted, and annotations that are read back."

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from helpers.data_sets import build, draw_challenge, draw_image, draw_official, write

from deepfake_nbs.data import storage
from deepfake_nbs.data.storage import dataset_notes, read_annotation_files, read_list_files
from deepfake_nbs.files import read_table


def test_without_links_files_are_copied(tree, tmp_path, monkeypatch):
    def no_link(*_):
        raise OSError("another disk")

    monkeypatch.setattr(storage.os, "link", no_link)
    manifest = build(tree, tmp_path / "set", link=True)
    assert all((tmp_path / "set" / path).stat().st_nlink == 1 for path in manifest["path"])


@pytest.mark.parametrize(
    "path, text, message",
    [
        ("train/{}.txt", "2\n", "expected 0 .real. or 1"),
        ("train/{}.txt", None, "without the other"),
        ("train/{}.txt", "", "expected 0"),
        ("train/extra.txt", "0\n", "extra: an image or a text"),
    ],
)
def test_bad_annotation_texts(tree, tmp_path, path, text, message):
    manifest = build(tree, tmp_path, sources=["challenge"])
    first = manifest.loc[manifest["split"].eq("train").idxmax(), "path"]
    target = tmp_path / path.format(Path(first).stem)
    target.unlink(missing_ok=True)
    if text is not None:
        target.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_annotation_files(tmp_path)


@pytest.mark.parametrize(
    "line, message",
    [
        ("train/none.png 1", "no image of this split"),
        ("{} 3", "line 1: '3'; expected 0"),
        ("odd", "no image"),
        ("", "no image"),
    ],
)
def test_bad_list_lines(tree, tmp_path, line, message):
    build(tree, tmp_path, sources=["challenge"])
    lines = (tmp_path / "train.txt").read_text().splitlines()
    lines[0] = line.format(lines[0].split()[0])
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=message):
        read_list_files(tmp_path)
    (tmp_path / "train.txt").unlink()
    with pytest.raises(FileNotFoundError):
        read_list_files(tmp_path)


def test_a_folder_with_something_else_is_refused(tree, tmp_path):
    write(tmp_path / "album/wedding.txt", "dear")
    with pytest.raises(FileExistsError, match=r"album: holds something else \(wedding.txt\)"):
        build(tree, tmp_path / "album")
    with pytest.raises(FileExistsError, match="a file; expected a new folder"):
        build(tree, tmp_path / "album/wedding.txt")
    (tmp_path / "new").mkdir()
    build(tree, tmp_path / "new")
    write(tmp_path / "new/thesis.tex", "mine")
    with pytest.raises(FileExistsError, match="thesis.tex"):
        build(tree, tmp_path / "new", seed=1)
    assert (tmp_path / "album/wedding.txt").read_text() == "dear" and (tmp_path / "new/thesis.tex").is_file()
    write(tmp_path / "other/dataset.json", '{"kind": "another program"}')
    with pytest.raises(FileExistsError, match="dataset.json"):
        build(tree, tmp_path / "other")
    for place in (tree / "set", tree, tree.parent):
        with pytest.raises(ValueError, match="inside the data root or around it"):
            build(tree, place)


def test_frames_never_lie_in_the_set_or_in_the_data(mine, tmp_path):
    for out in (tmp_path / "frames", tmp_path / "other"):
        with pytest.raises(ValueError, match="frames would lie inside"):
            build(mine, out, frames_folder=tmp_path / "frames" if out.name == "frames" else mine)
    assert (mine / "challenge").is_dir()


def test_frames_of_ones_own_are_never_deleted(tmp_path):
    draw_official(tmp_path / "data/faceforensics")
    clip = "faceforensics/original_sequences/youtube/c23/videos/003.mp4"
    own = tmp_path / "out/frames" / clip / "000001.png"
    draw_image(own, 1)
    before = own.read_bytes()
    manifest = build(tmp_path / "data", tmp_path / "out/set", n_frames=2)
    assert own.read_bytes() == before and sorted(os.listdir(own.parent)) == ["000001.png"]
    assert len(manifest) == 32 and (tmp_path / "out/set-frames" / clip / "frames.json").is_file()
    with pytest.raises(FileExistsError, match="out/frames: holds something else"):
        build(tmp_path / "data", tmp_path / "out/other", frames_folder=tmp_path / "out/frames")
    build(tmp_path / "data", tmp_path / "new/set")
    assert (tmp_path / "new/frames/.deepfake_nbs_frames").is_file() and not (
        tmp_path / "new/set-frames"
    ).exists()
    (tmp_path / "new/frames/.deepfake_nbs_frames").unlink()  # As an older build left it
    build(tmp_path / "data", tmp_path / "new/again", seed=1)
    assert (tmp_path / "new/frames/.deepfake_nbs_frames").is_file()


def test_hidden_folders_of_ones_own_are_never_deleted(tmp_path):
    draw_challenge(tmp_path / "data/challenge")
    for name in (".set.building", ".set.old"):
        write(tmp_path / name / "thesis.tex", "mine")
    with pytest.raises(FileExistsError, match=r"\.set\.building: holds something else \(thesis.tex\)"):
        build(tmp_path / "data", tmp_path / "set")
    assert (tmp_path / ".set.building/thesis.tex").read_text() == "mine"
    shutil.rmtree(tmp_path / ".set.building")
    build(
        tmp_path / "data", tmp_path / "set"
    )  # Versions before 0.2 used .set.old; it is not touched any more
    assert (tmp_path / ".set.old/thesis.tex").read_text() == "mine"


def test_a_table_of_ones_own_beside_the_dataset_stays(tmp_path):
    draw_challenge(tmp_path / "data/challenge")
    write(tmp_path / "set-rejected.csv", "proposal,reviewer\n1,two\n")
    build(tmp_path / "data", tmp_path / "set")
    assert (tmp_path / "set-rejected.csv").read_text() == "proposal,reviewer\n1,two\n"
    write(tmp_path / "data/challenge/0-FFHQ/b.png", "broken")
    with pytest.raises(ValueError, match="all are listed in .*/_set-rejected.csv"):
        build(tmp_path / "data", tmp_path / "set")
    assert (tmp_path / "set-rejected.csv").read_text().startswith("proposal")
    assert read_table(tmp_path / "_set-rejected.csv")["path"].tolist() == ["challenge/0-FFHQ/b.png"]
    build(tmp_path / "data", tmp_path / "set", reject_limit=1)
    assert not (tmp_path / "_set-rejected.csv").exists()


def test_a_strangers_file_is_not_lost_with_the_manifest(tmp_path):
    draw_challenge(tmp_path / "data/challenge")
    build(tmp_path / "data", tmp_path / "set")
    write(tmp_path / "set/train/notes.txt", "mine")
    (tmp_path / "set/manifest.csv").unlink()
    with pytest.raises(FileExistsError, match=r"set: holds something else \(train/notes.txt\)"):
        build(tmp_path / "data", tmp_path / "set")
    (tmp_path / "set/train/notes.txt").unlink()
    assert len(build(tmp_path / "data", tmp_path / "set")) == 24


def test_a_set_of_an_older_build_is_built_again(tmp_path):
    draw_challenge(tmp_path / "data/challenge")
    manifest = build(tmp_path / "data", tmp_path / "set")
    note = json.loads((tmp_path / "set/dataset.json").read_text())
    del note["notes"], note["plan"]["version"], note["plan"]["notes"]
    (tmp_path / "set/dataset.json").write_text(json.dumps(note))
    assert dataset_notes(tmp_path / "set") == []
    pd.testing.assert_frame_equal(build(tmp_path / "data", tmp_path / "set"), manifest)
    assert dataset_notes(tmp_path / "set") != []
    with pytest.raises(FileNotFoundError, match="dataset.json"):
        dataset_notes(tmp_path / "nothing")
