"Building CVCS DFD: what lies on disk, what is refused, and what is said at the end."

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.data_sets import (
    build,
    contents,
    draw_challenge,
    draw_faceforensics,
    draw_image,
    draw_own,
    draw_photograph,
    draw_video,
    spoil,
    write,
)
from joblib import parallel_config
from typer.testing import CliRunner

from deepfake_nbs.application.cli import app
from deepfake_nbs.core import file_sha256
from deepfake_nbs.data import build as building
from deepfake_nbs.data import groups, inspection, video
from deepfake_nbs.data.build import build_cvcs_dfd, present_sets
from deepfake_nbs.data.groups import image_phash
from deepfake_nbs.data.manifest import SPLITS, read_manifest
from deepfake_nbs.data.splits import audit_split
from deepfake_nbs.data.storage import dataset_notes, read_annotation_files, read_list_files
from deepfake_nbs.files import hold_lock, read_table, write_table
from deepfake_nbs.images import read_image


def test_files_annotations_and_manifest_agree(tree, tmp_path):
    out = tmp_path / "run/cvcs_dfd"
    manifest = build(tree, out)
    assert (
        len(manifest) == 4 * 12 + 3 * (8 + 8)
        and not manifest["origin"].str.startswith(("pool", "heads")).any()
    )
    assert sorted(entry.name for entry in out.iterdir()) == sorted(
        [*SPLITS, "train.txt", "validation.txt", "test.txt", "manifest.csv", "rejected.csv", "dataset.json"]
    )
    pd.testing.assert_frame_equal(read_manifest(out), manifest)
    by_text, by_list = read_annotation_files(out), read_list_files(out)
    pd.testing.assert_frame_equal(by_text, by_list)
    pd.testing.assert_frame_equal(
        by_text,
        manifest[["path", "label", "split"]].sort_values("path", ignore_index=True),
        check_dtype=False,
    )
    for row in manifest.itertuples():
        data = (out / row.path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row.sha256 and row.path.startswith(f"{row.split}/")
        source = (
            tree / row.origin
            if pd.isna(row.frame)
            else out.with_name("frames") / row.origin / f"{row.frame:06d}.png"
        )
        assert data == source.read_bytes()
        assert (row.width, row.height, row.format) == (
            (24, 24, "PNG") if pd.isna(row.frame) else (32, 32, "PNG")
        )
        assert (out / row.path).with_suffix(".txt").read_text() == f"{row.label}\n"
    n_files = sum(1 for split in SPLITS for _ in (out / split).iterdir())
    assert n_files == 2 * len(manifest) and not list(out.parent.glob(".*"))
    assert audit_split(manifest)["crossing"].sum() == 0


def test_originals_give_as_many_frames_as_their_fakes(tmp_path):
    root = tmp_path / "data"
    draw_faceforensics(root / "faceforensics", pairs=[(f"{i:03d}", f"{i + 1:03d}") for i in range(0, 8, 2)])
    for a, b in (
        (f"{i:03d}", f"{i + 1:03d}") for i in range(0, 8, 2)
    ):  # The other way round too: each original has two fakes
        for method in ("Deepfakes", "FaceSwap"):
            draw_video(
                root / f"faceforensics/manipulated_sequences/{method}/c23/videos/{b}_{a}.mp4",
                7 + int(b) + 60 * len(method),
            )
    matched, plain = build(root, tmp_path / "matched"), build(root, tmp_path / "plain", match_originals=False)
    per_video = matched.groupby(["label", "video"]).size()
    assert set(per_video[0]) == {6} and set(per_video[1]) == {3} and matched["label"].mean() == 0.5
    assert set(plain.groupby("video").size()) == {3} and plain["label"].mean() == 2 / 3
    places = [part["frame"].astype(int).value_counts().to_dict() for _, part in matched.groupby("label")]
    assert places[0] == places[1], "the number of a frame does not tell real from fake"
    for method, part in matched.groupby("method"):
        assert set(part["frame"].astype(int)) == set(places[0]), f"{method} has places of its own"


@pytest.mark.parametrize("change", [{}, {"seed": 7}])
def test_a_strangers_file_in_a_split_folder_is_not_lost(tree, tmp_path, change):
    build(tree, tmp_path / "set")
    (tmp_path / "set/train/notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"set: holds something else \(train/notes.txt\)"):
        build(tree, tmp_path / "set", **change)
    assert (tmp_path / "set/train/notes.txt").read_text() == "mine"


def test_the_same_call_gives_the_same_bytes_anywhere(tree, tmp_path):
    build(tree, tmp_path / "one/set")
    build(tree, tmp_path / "two/set", workers=2)
    assert contents(tmp_path / "one/set") == contents(tmp_path / "two/set")


def test_the_second_call_returns_at_once(tree, tmp_path, monkeypatch):
    first = build(tree, tmp_path / "set")
    monkeypatch.setattr(building, "_collect_images", lambda *_: pytest.fail("it was built again"))
    pd.testing.assert_frame_equal(build(tree, tmp_path / "set"), first)


@pytest.mark.parametrize("change", ["source", "plan", "image gone", "manifest"])
def test_what_changed_is_built_again(mine, tmp_path, change):
    out, plan = tmp_path / "set", {}
    before = build(mine, out)
    if change == "source":
        draw_image(mine / "challenge/0-FFHQ/new.png", 9)
    if change == "plan":
        plan = dict(seed=7)
    if change == "image gone":
        (out / before["path"][0]).unlink()
    if change == "manifest":
        (out / "manifest.csv").write_text((out / "manifest.csv").read_text().replace("CelebA", "CelebB"))
    after = build(mine, out, **plan)
    assert len(after) == len(before) + (change == "source")
    build(mine, tmp_path / "clean", **plan)
    assert contents(out) == contents(tmp_path / "clean") and not list(tmp_path.glob(".*"))


def test_links_share_the_file(tree, tmp_path):
    manifest = build(tree, tmp_path / "set", link=True)
    row = manifest[manifest["frame"].isna()].iloc[0]
    assert os.path.samefile(tmp_path / "set" / row["path"], tree / row["origin"])
    copied = build(tree, tmp_path / "copy").set_index("origin").loc[row["origin"], "path"]
    assert not os.path.samefile(tmp_path / "copy" / copied, tree / row["origin"])


def test_other_columns_are_kept(mine, tmp_path):
    write(mine / "challenge/labels.csv", "path,label,camera\n0-FFHQ/000.png,real,old\n")
    manifest = build(mine, tmp_path / "set")
    assert (
        manifest.set_index("origin").loc["challenge/0-FFHQ/000.png", "camera"] == "old"
        and manifest["camera"].eq("old").sum() == 1
    )
    assert "role" not in manifest and "file" not in manifest


def test_any_subset_of_the_sources(tree, tmp_path):
    assert set(build(tree, tmp_path / "a", sources=["CelebA", "StarGAN"])["source"]) == {"CelebA", "StarGAN"}
    assert set(build(tree, tmp_path / "b", sources=["faceforensics"])["source"]) == {"FF++"}
    assert set(build(tree, tmp_path / "c", sources=["challenge", "FF++"])["source"]) == {
        "CelebA",
        "FFHQ",
        "StarGAN",
        "STYLEGAN2",
        "FF++",
    }
    with pytest.raises(ValueError, match="CelebB is not in .*expected some of CelebA, FF"):
        build(tree, tmp_path / "d", sources=["CelebB"])
    with pytest.raises(ValueError, match="no images or videos"):
        build(tree, tmp_path / "d", sources=[])


def test_limits_balance_and_fractions(tree, tmp_path):
    manifest = build(tree, tmp_path / "a", image_limit=40)
    assert len(manifest) == 40 and set(manifest["method"]) == {
        "none",
        "StarGAN",
        "STYLEGAN2",
        "Deepfakes",
        "FaceSwap",
    }
    even = build(tree, tmp_path / "b", balance=True, sources=["challenge"], fractions=(0.5, 0.25, 0.25))
    assert even.groupby(["split", "label"]).size().tolist() == [6, 6, 12, 12, 6, 6]  # test, train, validation


def test_the_published_protocol_leaks_and_the_audit_says_so(tree, tmp_path):
    manifest = build(tree, tmp_path / "set", protocol="published")
    audit = audit_split(manifest, tmp_path / "set").set_index("what")
    assert audit.loc["videos", "crossing"] > 5 and audit.loc["groups", "share_of_test"] > 0.3


def test_frames_stay_where_they_are(tree, tmp_path, monkeypatch):
    build(tree, tmp_path / "a", frames_folder=tmp_path / "kept")
    monkeypatch.setattr(video, "_write_png", lambda *_: pytest.fail("a frame was extracted twice"))
    build(tree, tmp_path / "b", frames_folder=tmp_path / "kept", seed=3)
    assert len(list((tmp_path / "kept").rglob("*.png"))) == 48


def test_identical_files_are_one_group(mine, tmp_path):
    for i in range(12):
        shutil.copy(mine / f"challenge/0-CelebA/{i:03d}.png", mine / f"challenge/0-FFHQ/{i:03d}.png")
    shutil.copy(mine / "challenge/0-CelebA/000.png", mine / "challenge/0-CelebA/001.png")
    for seed in range(3):
        manifest = build(mine, tmp_path / "set", seed=seed)
        assert manifest.groupby("sha256")["group"].nunique().max() == 1
        assert audit_split(manifest).set_index("what").loc["identical files", "crossing"] == 0
    assert (
        manifest.set_index("origin")["group"][["challenge/0-FFHQ/000.png", "challenge/0-CelebA/001.png"]]
        .eq("CelebA:000")
        .all()
    )


def test_one_image_cannot_be_real_and_fake(mine, tmp_path):
    shutil.copy(mine / "challenge/0-CelebA/000.png", mine / "challenge/1-StarGAN/copy.png")
    manifest = build(mine, tmp_path / "set", reject_limit=0.1)
    rejected = pd.read_csv(tmp_path / "set/rejected.csv")
    assert set(rejected["path"]) == {"challenge/0-CelebA/000.png", "challenge/1-StarGAN/copy.png"}
    assert rejected["reason"].str.contains("real in one place and fake in another").all()
    assert not set(rejected["path"]) & set(manifest["origin"])


def test_a_group_split_that_leaks_is_refused(mine, tmp_path):
    lines = [f"1-StarGAN/{i:03d}.png,fake,one.mp4,g{i}" for i in range(12)]
    write(mine / "challenge/labels.csv", "\n".join(["path,label,video,group", *lines]) + "\n")
    with pytest.raises(ValueError, match="the group split leaks: 1 videos stand in more than one split"):
        build(mine, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    build(mine, tmp_path / "set", protocol="published")


def test_bad_files_are_listed_with_reasons(mine, tmp_path):
    bad = spoil(mine)
    manifest = build(mine, tmp_path / "set", reject_limit=0.5)
    rejected = pd.read_csv(tmp_path / "set/rejected.csv").set_index("path")["reason"]
    assert set(rejected.index) == set(bad) and len(manifest) == 96
    for path, word in bad.items():
        assert pd.Series([rejected[path]]).str.contains(word).all(), (path, rejected[path])
    note = json.loads((tmp_path / "set/dataset.json").read_text())
    assert note["n_rejected"] == 8 and note["rejected_share"] == pytest.approx(8 / 72)


def test_too_many_bad_files_stop_the_build(mine, tmp_path):
    bad, out, listing = spoil(mine), tmp_path / "set", tmp_path / "set-rejected.csv"
    message = r"8 of 72 files cannot be used, more than reject_limit=0.01 allows \(.*900.mp4: the file is empty.*set-rejected.csv"
    with pytest.raises(ValueError, match=message):
        build(mine, out)
    assert not out.exists() and set(pd.read_csv(listing)["path"]) == set(bad)
    build(mine, out, reject_limit=8 / 72)
    assert out.exists() and not listing.exists()
    with pytest.raises(ValueError, match="reject_limit=0.02"):  # A set that was accepted is checked again
        build(mine, out, reject_limit=0.02)
    assert read_manifest(out).shape[0] == 96


def test_a_listed_file_that_is_not_there(mine, tmp_path):
    write(mine / "challenge/labels.csv", "path,label\n0-FFHQ/gone.png,real\n")
    with pytest.raises(ValueError, match="0-FFHQ/gone.png: no such file"):
        build(mine, tmp_path / "set")


def test_odd_names_and_endings(mine, tmp_path):
    shutil.copy(mine / "challenge/0-CelebA/003.png", mine / "challenge/0-CelebA/né à Nîmes 1.PNG")
    draw_image(mine / "challenge/0-CelebA/image.png", 99)
    os.rename(mine / "challenge/0-CelebA/image.png", mine / "challenge/0-CelebA/image.txt")
    cv2.imwrite(str(mine / "challenge/0-CelebA/x.jpg"), np.full((9, 7, 3), 80, np.uint8))
    os.rename(mine / "challenge/0-CelebA/x.jpg", mine / "challenge/0-CelebA/x.png")
    manifest = build(mine, tmp_path / "set").set_index("origin")
    assert manifest.loc["challenge/0-CelebA/né à Nîmes 1.PNG", "path"].endswith(".png")
    assert manifest.loc["challenge/0-CelebA/image.txt", "path"].endswith(".png")
    assert manifest.loc["challenge/0-CelebA/x.png", ["width", "height", "format"]].tolist() == [7, 9, "JPEG"]
    assert len(read_annotation_files(tmp_path / "set")) == len(manifest)


def test_a_source_that_changes_meanwhile_is_noticed(mine, tmp_path, monkeypatch):
    look = inspection.inspect_images

    def change(*arguments):
        notes = look(*arguments)
        draw_image(mine / "challenge/0-FFHQ/003.png", 12345)
        return notes

    monkeypatch.setattr(inspection, "inspect_images", change)
    with pytest.raises(ValueError, match="0-FFHQ/003.png: changed while the dataset was built"):
        build(mine, tmp_path / "set")
    monkeypatch.undo()
    build(mine, tmp_path / "set")
    build(mine, tmp_path / "clean")
    assert contents(tmp_path / "set") == contents(tmp_path / "clean")


def test_only_one_build_at_a_time(tree, tmp_path):
    with hold_lock(tmp_path / ".set.building/.lock"):
        with pytest.raises(BlockingIOError, match="another build of this dataset is running"):
            build(tree, tmp_path / "set")
    build(tree, tmp_path / "set")


def test_a_small_set_from_real_images(real, tmp_path):
    sets = ("challenge", "dfdc_faces", "faceforensics")
    manifest = build_cvcs_dfd(
        real, tmp_path / "set", n_frames=2, image_limit=60, sources=sets, workers=2, progress=False
    )
    assert len(manifest) == 60 and set(manifest["source"]) == {
        "CelebA",
        "FFHQ",
        "StarGAN",
        "STYLEGAN2",
        "STYLEGAN3",
        "FF++",
        "DFDC",
    }
    assert audit_split(manifest, tmp_path / "set")["crossing"][:3].sum() == 0


def test_a_carriage_return_in_a_name_does_not_spoil_the_set(mine, tmp_path):
    shutil.copy(mine / "challenge/0-CelebA/000.png", mine / "challenge/0-CelebA/Icon\r")
    build(mine, tmp_path / "set", reject_limit=0.5)
    assert read_manifest(tmp_path / "set")["label"].isin([0, 1]).all()


@pytest.mark.parametrize("lost", ["train.txt", "one annotation", "half a image"])
def test_a_set_that_lost_files_is_built_again(tree, tmp_path, lost):
    out = tmp_path / "set"
    manifest, whole = build(tree, out), None
    whole = contents(out)
    image = out / manifest["path"].iloc[0]
    {"train.txt": out / "train.txt", "one annotation": image.with_suffix(".txt")}.get(lost, image).unlink()
    if lost == "half a image":
        image.touch()
    build(tree, out)
    assert contents(out) == whole


def test_a_file_that_can_be_read_again_is_taken_again(mine, tmp_path, monkeypatch):
    def refuse(file):
        return {"reason": "Permission denied"} if file.name == "003.png" else look(file)

    look = inspection.inspect_image
    monkeypatch.setattr(inspection, "inspect_image", refuse)
    with pytest.raises(ValueError, match="reject_limit"):
        build(mine, tmp_path / "set", reject_limit=0)
    monkeypatch.setattr(inspection, "inspect_image", look)
    assert len(build(mine, tmp_path / "set", reject_limit=0)) == 4 * 12 + 3 * (8 + 8)


def test_two_sets_that_share_a_frame_cache_do_not_mix(tree, tmp_path):
    bright = Path(shutil.copytree(tree, tmp_path / "bright"))
    for i, clip in enumerate(sorted(bright.glob("faceforensics/**/*.mp4"))):
        writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 64))
        for number in range(12):
            image = np.full((64, 64, 3), 255, np.uint8)
            image[4 * (number % 12) :][:4, 2 * i : 2 * i + 4] = 200  # No two frames have the same bytes
            writer.write(image)
        writer.release()
    call = "build_cvcs_dfd(sys.argv[1], sys.argv[2], n_frames=3, workers=1, progress=False)"
    code = f"import sys; from deepfake_nbs.data.build import build_cvcs_dfd; {call}"
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(root), str(tmp_path / "o" / root.name)])
        for root in (tree, bright)
    ]
    assert [run.wait() for run in runs] == [0, 0]
    for root, light in ((tree, False), (bright, True)):
        manifest = read_manifest(tmp_path / "o" / root.name)
        frames = manifest[manifest["frame"].notna()]
        means = [cv2.imread(str(tmp_path / "o" / root.name / path)).mean() for path in frames["path"]]
        assert len(means) and all((mean > 240) == light for mean in means)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            dict(fractions=(float("nan"),) * 3),
            r"fractions are \(nan, nan, nan\); expected three fractions that add up to 1",
        ),
        (
            dict(fractions=(1e308, 1e308, 1e308)),
            r"fractions are \(1e\+308, .*expected three fractions that add up to 1",
        ),
        (dict(protocol="nonsense"), "protocol is 'nonsense'; expected 'group' or 'published'"),
        (dict(seed=-1), "^seed is -1; expected 0 or more$"),
        (dict(n_frames=0), "^n_frames is 0; expected at least 1$"),
        (dict(workers=0), "^workers is 0; expected at least 1$"),
        *(
            (dict(reject_limit=limit), "^reject_limit is .*; expected a fraction from 0 to 1$")
            for limit in (float("nan"), -1, 5)
        ),
    ],
)
def test_values_that_cannot_be_are_refused_before_anything_is_read(tmp_path, monkeypatch, option, message):
    monkeypatch.setattr(building, "read_sources", lambda *_: pytest.fail("sources were read"))
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "data", tmp_path / "set", **option)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", [None, "frames/a.png"])
def test_a_full_disk_is_said_with_a_name(tree, tmp_path, monkeypatch, file):
    def full(*_):
        raise OSError(28, "No space left on device", *([file] if file else []))

    monkeypatch.setattr(building, "write_images", full)
    with pytest.raises(OSError, match="No space left on device") as told:
        build(tree, tmp_path / "set")
    assert (told.value.errno, told.value.filename) == (28, file or str(tmp_path / "set"))
    assert not (tmp_path / "set").exists()


@pytest.fixture
def two_sets(tmp_path):
    "The same photographs in two sets under other names: 0 to 3 byte for byte, 4 to 9 smaller and compressed once more."
    root = tmp_path / "data"
    for i in range(20):
        draw_photograph(root / f"challenge/0-FFHQ/{i:03d}.jpg", i)
        draw_photograph(root / f"challenge/1-StarGAN/{i:03d}.jpg", 100 + i)
        draw_photograph(
            root / f"mine/{i:03d}.jpg", i if i < 10 else 200 + i, *((96, 95) if i < 4 else (64, 60))
        )
    write(
        root / "mine/labels.csv",
        "path,label,group\n"
        + "".join(f"{i:03d}.jpg,{'real' if i < 4 else 'fake'},p{i}\n" for i in range(20)),
    )
    return root


def test_one_photograph_in_two_sets_is_one_group(two_sets, tmp_path):
    for seed in range(3):
        manifest = build(two_sets, tmp_path / "set", seed=seed).set_index("origin")
        for i in range(10):  # A real photograph and a fake that looks nearly the same are joined, not refused
            twins = manifest.loc[[f"challenge/0-FFHQ/{i:03d}.jpg", f"mine/{i:03d}.jpg"]]
            assert twins["group"].eq(f"FFHQ:{i:03d}").all() and twins["split"].nunique() == 1
        assert manifest["group"].nunique() == 50 and manifest["group"].value_counts().max() == 2
        audit = audit_split(manifest.reset_index(), tmp_path / "set").set_index("what")
        assert audit["crossing"].sum() == 0
    notes = dataset_notes(tmp_path / "set")
    assert "8 groups were joined to 4 because they hold the same file" in notes
    assert "12 groups were joined to 6 because they hold nearly the same image" in notes
    n_test = manifest["split"].eq("test").sum()
    assert notes[-1] == f"0 of {n_test} test images look nearly the same as an image in another split"
    shuffled = build(two_sets, tmp_path / "other", protocol="published")
    assert shuffled["group"].nunique() == 60 and not any(
        "joined" in note for note in dataset_notes(tmp_path / "other")
    )
    near = audit_split(shuffled, tmp_path / "other").set_index("what").loc["near-duplicates", "test_images"]
    n_test = shuffled["split"].eq("test").sum()
    assert near > 0 and dataset_notes(tmp_path / "other")[-1].startswith(
        f"{near} of {n_test} test images look nearly the same"
    )


def test_a_set_with_two_splits_of_its_own_says_what_to_do(tmp_path):
    draw_own(tmp_path / "data", 8, ("train", "test"))
    expected = (
        r"^split validation: the sets' own splits hold all 32 groups and leave nothing for it; "
        r"expected fractions with 0 for it, or keep_official=False "
        r"\(in the terminal: --fractions 0.8,0,0.2 or --no-keep-official\)$"
    )
    with pytest.raises(ValueError, match=expected):
        build(tmp_path / "data", tmp_path / "set")
    manifest = build(tmp_path / "data", tmp_path / "set", fractions=(0.8, 0, 0.2))
    assert manifest.groupby("split").size().to_dict() == {"train": 16, "test": 16}
    kept = "train holds 50% of the images where 80% was asked for; the splits that the sets bring along were kept"
    assert kept in dataset_notes(tmp_path / "set")
    manifest = build(tmp_path / "data", tmp_path / "set", keep_official=False)
    assert manifest.groupby("split").size().to_dict() == {"train": 24, "validation": 4, "test": 4}


def test_one_class_only_is_refused(tmp_path):
    draw_own(tmp_path / "photos", 6)
    shutil.rmtree(tmp_path / "photos/fake")
    with pytest.raises(
        ValueError, match=r"photos: 6 real images and videos, and none that is fake; expected both classes"
    ):
        build(tmp_path / "photos", tmp_path / "set")
    (tmp_path / "photos/fake").mkdir()
    for i in range(6):
        write(tmp_path / f"photos/fake/{i}.png", "broken")
    with pytest.raises(
        ValueError, match="none that is fake"
    ):  # Also when all of one class turn out to be unreadable
        build(tmp_path / "photos", tmp_path / "set", reject_limit=1)


def test_too_small_for_its_splits_says_which_and_how_many(tmp_path):
    draw_own(tmp_path / "photos", 1)
    with pytest.raises(
        ValueError, match="split (validation|test): 2 groups leave nothing for it; expected at least 3 groups"
    ):
        build(tmp_path / "photos", tmp_path / "set")
    draw_own(tmp_path / "photos", 2)
    build(tmp_path / "photos", tmp_path / "set")
    assert [
        note
        for note in dataset_notes(tmp_path / "set")
        if "images only: a measure that needs both classes is undefined there" in note
    ]


def test_the_terminal_says_what_a_build_found(tmp_path):
    draw_own(tmp_path / "photos", 8)
    done = CliRunner().invoke(
        app, ["build", str(tmp_path / "photos"), str(tmp_path / "set"), "--workers", "1"]
    )
    assert done.exit_code == 0 and "real  fake" in done.stdout
    assert (
        "- photos: each of the 16 images is its own group" in done.stdout
        and "look nearly the same" in done.stdout.splitlines()[-1]
    )
    again = CliRunner().invoke(
        app, ["build", str(tmp_path / "photos"), str(tmp_path / "set"), "--workers", "1"]
    )
    assert again.stdout == done.stdout  # A set that is already there says it too


def test_sources_with_blanks(tmp_path):
    draw_challenge(tmp_path / "data/challenge")
    words = ["--sources", "CelebA, StarGAN ,", "--workers", "1"]
    done = CliRunner().invoke(app, ["build", str(tmp_path / "data"), str(tmp_path / "set"), *words])
    assert done.exit_code == 0 and set(read_manifest(tmp_path / "set")["source"]) == {"CelebA", "StarGAN"}
    done = CliRunner().invoke(
        app, ["build", str(tmp_path / "data"), str(tmp_path / "other"), "--sources", " , "]
    )
    assert (done.exit_code, done.stderr) == (
        2,
        "deepfake-nbs: --sources ' , ': no name in it; expected names of sets or folders, separated by commas\n",
    )


# --- One look, one id -------------------------------------------------------------------------------------------------


def test_an_image_is_decoded_once_and_the_audit_opens_none(tree, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(inspection, "read_image", lambda file: opened.append(str(file)) or read_image(file))
    manifest = build(tree, tmp_path / "set")
    assert len(opened) == len(set(opened)) == len(manifest)
    assert manifest["phash"].tolist() == [image_phash(tmp_path / "set" / path) for path in manifest["path"]]
    opened.clear()
    monkeypatch.setattr(groups, "perceptual_hash", lambda file: pytest.fail("an image was opened"))
    with_folder, without = audit_split(manifest, tmp_path / "set"), audit_split(manifest)
    pd.testing.assert_frame_equal(with_folder, without)
    assert "near-duplicates" in set(without["what"]) and not opened


def test_an_image_keeps_its_id(tree, tmp_path):
    manifest = build(tree, tmp_path / "set")
    assert manifest["image_id"].tolist() == [f"{i:06d}" for i in range(len(manifest))]
    assert manifest["image_id"].tolist() == [Path(path).stem for path in manifest["path"]]


def test_a_dataset_of_an_older_version_stays_and_is_audited_all_the_same(tree, tmp_path, monkeypatch):
    "Neither images nor splits of a new build differ, so what was trained on an older one keeps its dataset."
    manifest, out = build(tree, tmp_path / "set"), tmp_path / "set"
    write_table(read_table(out / "manifest.csv").drop(columns=["image_id", "phash"]), out / "manifest.csv")
    note = json.loads((out / "dataset.json").read_text())
    note["manifest_sha256"] = file_sha256(out / "manifest.csv")
    (out / "dataset.json").write_text(json.dumps(note))
    monkeypatch.setattr(building, "_collect_images", lambda *_: pytest.fail("it was built again"))
    older = build(tree, out)
    pd.testing.assert_frame_equal(older, manifest.assign(phash=pd.Series("", manifest.index, dtype=object)))
    assert "near-duplicates" not in set(audit_split(older)["what"])
    pd.testing.assert_frame_equal(audit_split(older, out), audit_split(manifest))


# --- On a cluster -----------------------------------------------------------------------------------------------------


def test_a_dask_cluster_builds_the_same_bytes_as_one_process(tree, tmp_path):
    distributed = pytest.importorskip(
        "dask.distributed", reason="dask.distributed is not installed: a cluster was not tried"
    )
    build(tree, tmp_path / "one/set", workers=1)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        with distributed.Client(cluster), parallel_config(backend="dask"):
            build(tree, tmp_path / "two/set", workers=1)
    assert contents(tmp_path / "one/set") == contents(tmp_path / "two/set")
    frames = [
        {
            path: value
            for path, value in contents(tmp_path / one / "frames").items()
            if path.endswith((".png", ".json"))
        }
        for one in ("one", "two")
    ]
    assert frames[0] == frames[1] and len(frames[0]) == 48 + 16


def test_a_profile_names_the_sets_and_absent_ones_are_said(tmp_path, capsys):
    (tmp_path / "challenge").mkdir()
    assert present_sets(tmp_path, ()) is None
    assert present_sets(tmp_path, ("challenge", "ciplab", "t2i")) == ["challenge"]
    assert f"sets that are not in {tmp_path.name}: ciplab, t2i" in capsys.readouterr().out
    with pytest.raises(ValueError, match="holds none of the sets ciplab"):
        present_sets(tmp_path, ("ciplab",))
