"Building CVCS DFD: what lies on disk, what is refused, and that a killed build never passes for a whole one."
import fcntl
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
from test_datasets import bad_videos, draw_challenge, draw_faceforensics, draw_heads, draw_picture, draw_video, write

from deepfake_nbs import datasets
from deepfake_nbs.datasets import SPLITS, audit_split, build_cvcs_dfd, read_annotation_files, read_list_files, read_manifest


def build(root, out, **more):
    return build_cvcs_dfd(root, out, **dict(n_frames=3, workers=1, progress=False) | more)


def contents(folder):
    "Every file below a folder with the hash of its bytes."
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    "A data root that no test writes to."
    root = tmp_path_factory.mktemp("data") / "small"
    draw_challenge(root / "challenge", 12)
    draw_faceforensics(root / "faceforensics", pairs=[(f"{2 * i:03d}", f"{2 * i + 1:03d}") for i in range(4)])
    draw_heads(root / "heads")
    draw_picture(root / "pool/a.png", 77)
    write(root / "pool/labels.csv", "path,label,role\na.png,real,query\n")
    return root


@pytest.fixture
def mine(tree, tmp_path):
    "A copy of the data root that a test may spoil."
    return Path(shutil.copytree(tree, tmp_path / "mine"))


# --- What lies on disk -------------------------------------------------------------------------------------------------


def test_files_annotations_and_manifest_agree(tree, tmp_path):
    out = tmp_path / "run/cvcs_dfd"
    manifest = build(tree, out)
    assert len(manifest) == 4 * 12 + 3 * (8 + 8) and not manifest["origin"].str.startswith(("pool", "heads")).any()
    assert sorted(entry.name for entry in out.iterdir()) == sorted(
        [*SPLITS, "train.txt", "validation.txt", "test.txt", "manifest.csv", "rejected.csv", "dataset.json"])
    pd.testing.assert_frame_equal(read_manifest(out), manifest)
    by_text, by_list = read_annotation_files(out), read_list_files(out)
    pd.testing.assert_frame_equal(by_text, by_list)
    pd.testing.assert_frame_equal(by_text, manifest[["path", "label", "split"]].sort_values("path", ignore_index=True), check_dtype=False)
    for row in manifest.itertuples():
        data = (out / row.path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row.sha256 and row.path.startswith(f"{row.split}/")
        source = tree / row.origin if pd.isna(row.frame) else out.with_name("frames") / row.origin / f"{row.frame:06d}.png"
        assert data == source.read_bytes()
        assert (row.width, row.height, row.format) == ((24, 24, "PNG") if pd.isna(row.frame) else (32, 32, "PNG"))
        assert (out / row.path).with_suffix(".txt").read_text() == f"{row.label}\n"
    n_files = sum(1 for split in SPLITS for _ in (out / split).iterdir())
    assert n_files == 2 * len(manifest) and not list(out.parent.glob(".*"))
    assert audit_split(manifest)["crossing"].sum() == 0


def test_originals_give_as_many_frames_as_their_fakes(tmp_path):
    root = tmp_path / "data"
    draw_faceforensics(root / "faceforensics", pairs=[(f"{i:03d}", f"{i + 1:03d}") for i in range(0, 8, 2)])
    for a, b in ((f"{i:03d}", f"{i + 1:03d}") for i in range(0, 8, 2)):  # The other way round too: each original has two fakes
        for method in ("Deepfakes", "FaceSwap"):
            draw_video(root / f"faceforensics/manipulated_sequences/{method}/c23/videos/{b}_{a}.mp4", 7 + int(b) + 60 * len(method))
    matched, plain = build(root, tmp_path / "matched"), build(root, tmp_path / "plain", match_originals=False)
    per_video = matched.groupby(["label", "video"]).size()
    assert set(per_video[0]) == {6} and set(per_video[1]) == {3} and matched["label"].mean() == 0.5
    assert set(plain.groupby("video").size()) == {3} and plain["label"].mean() == 2 / 3


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
    monkeypatch.setattr(datasets, "_gather", lambda *_: pytest.fail("it was built again"))
    pd.testing.assert_frame_equal(build(tree, tmp_path / "set"), first)


@pytest.mark.parametrize("change", ["source", "plan", "picture gone", "manifest"])
def test_what_changed_is_built_again(mine, tmp_path, change):
    out, plan = tmp_path / "set", {}
    before = build(mine, out)
    if change == "source":
        draw_picture(mine / "challenge/0-FFHQ/new.png", 9)
    if change == "plan":
        plan = dict(seed=7)
    if change == "picture gone":
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


def test_without_links_files_are_copied(tree, tmp_path, monkeypatch):
    def no_link(*_):
        raise OSError("another disk")

    monkeypatch.setattr(datasets.os, "link", no_link)
    manifest = build(tree, tmp_path / "set", link=True)
    assert all((tmp_path / "set" / path).stat().st_nlink == 1 for path in manifest["path"])


def test_other_columns_are_kept(mine, tmp_path):
    write(mine / "challenge/labels.csv", "path,label,camera\n0-FFHQ/000.png,real,old\n")
    manifest = build(mine, tmp_path / "set")
    assert manifest.set_index("origin").loc["challenge/0-FFHQ/000.png", "camera"] == "old" and manifest["camera"].eq("old").sum() == 1
    assert "role" not in manifest and "file" not in manifest


def test_any_subset_of_the_sources(tree, tmp_path):
    assert set(build(tree, tmp_path / "a", sources=["CelebA", "StarGAN"])["source"]) == {"CelebA", "StarGAN"}
    assert set(build(tree, tmp_path / "b", sources=["faceforensics"])["source"]) == {"FF++"}
    assert set(build(tree, tmp_path / "c", sources=["challenge", "FF++"])["source"]) == {"CelebA", "FFHQ", "StarGAN", "STYLEGAN2", "FF++"}
    with pytest.raises(ValueError, match="CelebB is not in .*expected some of CelebA, FF"):
        build(tree, tmp_path / "d", sources=["CelebB"])
    with pytest.raises(ValueError, match="no pictures or videos"):
        build(tree, tmp_path / "d", sources=[])


def test_limits_balance_and_fractions(tree, tmp_path):
    manifest = build(tree, tmp_path / "a", image_limit=40)
    assert len(manifest) == 40 and set(manifest["method"]) == {"none", "StarGAN", "STYLEGAN2", "Deepfakes", "FaceSwap"}
    even = build(tree, tmp_path / "b", balance=True, sources=["challenge"], fractions=(0.5, 0.25, 0.25))
    assert even.groupby(["split", "label"]).size().tolist() == [6, 6, 12, 12, 6, 6]  # test, train, validation


def test_the_published_protocol_leaks_and_the_audit_says_so(tree, tmp_path):
    manifest = build(tree, tmp_path / "set", protocol="published")
    audit = audit_split(manifest, tmp_path / "set").set_index("what")
    assert audit.loc["videos", "crossing"] > 5 and audit.loc["groups", "share_of_test"] > 0.3


def test_frames_stay_where_they_are(tree, tmp_path, monkeypatch):
    build(tree, tmp_path / "a", frames_folder=tmp_path / "kept")
    monkeypatch.setattr(datasets, "_write_png", lambda *_: pytest.fail("a frame was extracted twice"))
    build(tree, tmp_path / "b", frames_folder=tmp_path / "kept", seed=3)
    assert len(list((tmp_path / "kept").rglob("*.png"))) == 48


# --- Twins and leaks ---------------------------------------------------------------------------------------------------


def test_identical_files_are_one_group(mine, tmp_path):
    for i in range(12):
        shutil.copy(mine / f"challenge/0-CelebA/{i:03d}.png", mine / f"challenge/0-FFHQ/{i:03d}.png")
    shutil.copy(mine / "challenge/0-CelebA/000.png", mine / "challenge/0-CelebA/001.png")
    for seed in range(3):
        manifest = build(mine, tmp_path / "set", seed=seed)
        assert manifest.groupby("sha256")["group"].nunique().max() == 1
        assert audit_split(manifest).set_index("what").loc["identical files", "crossing"] == 0
    assert manifest.set_index("origin")["group"][["challenge/0-FFHQ/000.png", "challenge/0-CelebA/001.png"]].eq("CelebA:000").all()


def test_one_picture_cannot_be_real_and_fake(mine, tmp_path):
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


# --- Bad input ---------------------------------------------------------------------------------------------------------


def spoil(root):
    "Files that cannot be used, with a word of the reason."
    folder = root / "challenge/0-CelebA"
    whole = (folder / "000.png").read_bytes()
    (folder / "b_empty.jpg").write_bytes(b"")
    (folder / "b_cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "b_text.jpg").write_text("renamed")
    (folder / "b_notes.txt").write_text("a note")
    videos = root / "faceforensics/original_sequences/youtube/c23/videos"
    reasons = bad_videos(root.parent / "bad")
    for i, name in enumerate(("empty.mp4", "text.mp4", "cut.mp4", "zero.mp4")):
        shutil.copy(root.parent / "bad" / name, videos / f"90{i}.mp4")
    place = "faceforensics/original_sequences/youtube/c23/videos"
    pictures = {"b_empty.jpg": "empty", "b_cut.png": "decoded", "b_text.jpg": "not an image", "b_notes.txt": "not an image"}
    clips = {"900.mp4": "empty", "901.mp4": "not a video", "902.mp4": "truncated", "903.mp4": reasons["zero.mp4"]}
    pictures = {f"challenge/0-CelebA/{name}": word for name, word in pictures.items()}
    return pictures | {f"{place}/{name}": word for name, word in clips.items()}


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
    with pytest.raises(ValueError, match="reject_limit=0.02"):  # A set that was accepted is judged again
        build(mine, out, reject_limit=0.02)
    assert read_manifest(out).shape[0] == 96


def test_a_listed_file_that_is_not_there(mine, tmp_path):
    write(mine / "challenge/labels.csv", "path,label\n0-FFHQ/gone.png,real\n")
    with pytest.raises(ValueError, match="0-FFHQ/gone.png: no such file"):
        build(mine, tmp_path / "set")


def test_odd_names_and_endings(mine, tmp_path):
    shutil.copy(mine / "challenge/0-CelebA/003.png", mine / "challenge/0-CelebA/né à Nîmes 1.PNG")
    draw_picture(mine / "challenge/0-CelebA/picture.png", 99)
    os.rename(mine / "challenge/0-CelebA/picture.png", mine / "challenge/0-CelebA/picture.txt")
    cv2.imwrite(str(mine / "challenge/0-CelebA/x.jpg"), np.full((9, 7, 3), 80, np.uint8))
    os.rename(mine / "challenge/0-CelebA/x.jpg", mine / "challenge/0-CelebA/x.png")
    manifest = build(mine, tmp_path / "set").set_index("origin")
    assert manifest.loc["challenge/0-CelebA/né à Nîmes 1.PNG", "path"].endswith(".png")
    assert manifest.loc["challenge/0-CelebA/picture.txt", "path"].endswith(".png")
    assert manifest.loc["challenge/0-CelebA/x.png", ["width", "height", "format"]].tolist() == [7, 9, "JPEG"]
    assert len(read_annotation_files(tmp_path / "set")) == len(manifest)


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


def test_a_source_that_changes_meanwhile_is_noticed(mine, tmp_path, monkeypatch):
    look = datasets._look_at_all

    def change(*arguments):
        notes = look(*arguments)
        draw_picture(mine / "challenge/0-FFHQ/003.png", 12345)
        return notes

    monkeypatch.setattr(datasets, "_look_at_all", change)
    with pytest.raises(ValueError, match="0-FFHQ/003.png: changed while the dataset was built"):
        build(mine, tmp_path / "set")
    monkeypatch.undo()
    build(mine, tmp_path / "set")
    build(mine, tmp_path / "clean")
    assert contents(tmp_path / "set") == contents(tmp_path / "clean")


def test_only_one_build_at_a_time(tree, tmp_path):
    staging = tmp_path / ".set.building"
    staging.mkdir()
    lock = os.open(staging, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(BlockingIOError, match="another build of this dataset is running"):
        build(tree, tmp_path / "set")
    os.close(lock)
    build(tree, tmp_path / "set")


@pytest.mark.parametrize(
    "path, text, message",
    [("train/{}.txt", "2\n", "expected 0 .real. or 1"), ("train/{}.txt", None, "without the other"), ("train/{}.txt", "", "expected 0"),
     ("train/extra.txt", "0\n", "extra: a picture or a text")],
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
    [("train/none.png 1", "no picture of this split"), ("{} 3", "line 1: '3'; expected 0"), ("odd", "no picture"), ("", "no picture")],
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


# --- Killed at any moment ----------------------------------------------------------------------------------------------

KILLER = '''
import json, os, random, signal, sys, time
from pathlib import Path
from deepfake_nbs import datasets
from deepfake_nbs.datasets import build_cvcs_dfd, check_manifest, read_annotation_files, read_list_files, read_manifest

root, out, plans, moments = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])

def killed_at(step):
    "Die at the step-th call that changes the disk, half of the time just after it."
    left = [step]
    def guard(function):
        def call(*arguments, **more):
            left[0] -= 1
            if left[0] == 0 and step % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **more)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return call
    for name in ("replace", "rename", "unlink"):
        setattr(os, name, guard(getattr(os, name)))
    Path.write_text, datasets.shutil.rmtree = guard(Path.write_text), guard(datasets.shutil.rmtree)
    datasets.shutil.copyfile = guard(datasets.shutil.copyfile)

def attempt(plan, moment):
    pid = os.fork()
    if pid == 0:
        if isinstance(moment, int):
            killed_at(moment)
        build_cvcs_dfd(root, out, n_frames=3, workers=1, progress=False, **plan)
        os._exit(0)
    if isinstance(moment, float):
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]

for i, moment in enumerate(moments):
    status, plan = attempt(plans[i % len(plans)], moment), None
    if out.exists():
        assert read_annotation_files(out).equals(read_list_files(out)) and len(read_manifest(out)) == len(read_list_files(out))
        plan = json.loads((out / "dataset.json").read_text())["plan"]
    print(json.dumps(dict(killed=os.WIFSIGNALED(status), seed=plan and plan["seed"])), flush=True)
'''


def kill_builds(tree, out, plans, moments):
    "Start a build for each moment, kill it there; after each, whatever lies at `out` must be whole."
    command = [sys.executable, "-c", KILLER, str(tree), str(out), json.dumps(plans), json.dumps(moments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_killed_at_chosen_steps_then_goes_on(tree, tmp_path):
    out = tmp_path / "set"
    states = kill_builds(tree, out, [{}], [1, 2, 3, 10, 25, 41, 60, 61, 90, 120, 150, 151, 180, 200, 220, 4, 5, 6, 7])
    assert sum(state["killed"] for state in states) > 10
    build(tree, out)
    build(tree, tmp_path / "clean")
    assert contents(out) == contents(tmp_path / "clean") and not list(tmp_path.glob(".*"))


def test_killed_while_replacing_leaves_the_old_or_the_new(tree, tmp_path):
    out = tmp_path / "set"
    build(tree, out, seed=1)
    build(tree, tmp_path / "clean", seed=2)
    seen = set()
    moments = [1, 2, 3, *range(190, 330, 7), *range(1, 25, 2), 2, 4, 6]
    for state in kill_builds(tree, out, [{"seed": 2}], moments):
        assert state["seed"] in (1, 2, None)  # None: between the two renames
        seen.add(state["seed"])
    build(tree, out, seed=2)
    assert contents(out) == contents(tmp_path / "clean") and {1, 2} <= seen and not list(tmp_path.glob(".*"))


def test_killed_between_the_two_renames(tree, tmp_path):
    "The old set comes back when another plan is refused, and gives way when the new plan goes on."
    out, old = tmp_path / "set", tmp_path / ".set.old"
    build(tree, out, seed=1)
    os.rename(out, old)
    build(tree, out, seed=1)
    assert not old.exists() and json.loads((out / "dataset.json").read_text())["plan"]["seed"] == 1
    os.rename(out, old)
    build(tree, out, seed=2)
    assert not old.exists() and json.loads((out / "dataset.json").read_text())["plan"]["seed"] == 2


def test_killed_at_random_moments(tree, tmp_path):
    out, rng = tmp_path / "set", np.random.default_rng(0)
    states = kill_builds(tree, out, [{"seed": 1}, {"seed": 1}, {"seed": 2}], [float(moment) for moment in rng.uniform(0, 0.5, 16)])
    assert any(state["killed"] for state in states)
    build(tree, out, seed=2)
    build(tree, tmp_path / "clean", seed=2)
    assert contents(out) == contents(tmp_path / "clean")


def test_files_that_are_whole_are_kept(tree, tmp_path, monkeypatch):
    out, placed, looked = tmp_path / "set", [], []
    place, look = datasets._place, datasets._look

    def stop(source, target, *rest):
        if len(placed) == 40:
            raise KeyboardInterrupt
        place(source, target, *rest)
        placed.append(target)

    monkeypatch.setattr(datasets, "_place", stop)
    with pytest.raises(KeyboardInterrupt):
        build(tree, out)
    times = {path: path.stat().st_ino for path in placed}
    monkeypatch.setattr(datasets, "_place", place)
    monkeypatch.setattr(datasets, "_look", lambda file: looked.append(file) or look(file))
    (tmp_path / ".set.building/notes.jsonl").open("a").write('\n{"key": "cut of')
    build(tree, out)
    assert not looked and len(times) == 40
    assert all((out / path.relative_to(tmp_path / ".set.building/dataset")).stat().st_ino == number for path, number in times.items())


# --- The real sets -----------------------------------------------------------------------------------------------------


def test_a_small_set_from_real_pictures(real, tmp_path):
    sets = ("challenge", "dfdc_faces", "faceforensics")
    manifest = build_cvcs_dfd(real, tmp_path / "set", n_frames=2, image_limit=60, sources=sets, workers=2, progress=False)
    assert len(manifest) == 60 and set(manifest["source"]) == {"CelebA", "FFHQ", "StarGAN", "STYLEGAN2", "STYLEGAN3", "FF++", "DFDC"}
    assert audit_split(manifest, tmp_path / "set")["crossing"][:3].sum() == 0


# --- found by trying to break it --------------------------------------------------------------------------------------


def test_a_fake_follows_the_people_that_a_list_names(mine, tmp_path):
    originals = "faceforensics/original_sequences/youtube/c23/videos"
    names = sorted(path.name for path in (mine / originals).glob("*.mp4"))[:2]
    write(mine / "faceforensics/labels.csv", "path,label,group\n" + "".join(
        f"{originals.removeprefix('faceforensics/')}/{name},0,{person}\n" for name, person in zip(names, ("alice", "bob"), strict=True)))
    videos = datasets.read_faceforensics(mine / "faceforensics")
    pair = {Path(name).stem for name in names}
    kin = videos[videos["path"].map(lambda path: set(Path(path).stem.split("_")) <= pair)]
    assert len(kin) > 2 and kin["group"].nunique() == 1


def test_a_carriage_return_in_a_name_does_not_spoil_the_set(mine, tmp_path):
    shutil.copy(mine / "challenge/0-CelebA/000.png", mine / "challenge/0-CelebA/Icon\r")
    build(mine, tmp_path / "set", reject_limit=0.5)
    assert read_manifest(tmp_path / "set")["label"].isin([0, 1]).all()


def test_links_to_folders_are_followed_once(mine, tmp_path):
    shutil.move(mine / "challenge/0-CelebA", tmp_path / "far")
    (mine / "challenge/0-CelebA").symlink_to(tmp_path / "far")
    (tmp_path / "far/round").symlink_to(tmp_path / "far")
    assert datasets.read_challenge(mine / "challenge")["source"].eq("CelebA").sum() == 12


def test_metadata_cannot_name_files_elsewhere(tmp_path):
    write(tmp_path / "data/dfdc/metadata.json", '{"../../secret.mp4": {"label": "FAKE", "original": "a.mp4"}}')
    with pytest.raises(ValueError, match="secret.mp4.* is not a file of this folder"):
        datasets.read_dfdc(tmp_path / "data/dfdc")


def test_frames_never_lie_in_the_set_or_in_the_data(mine, tmp_path):
    for out in (tmp_path / "frames", tmp_path / "other"):
        with pytest.raises(ValueError, match="frames would lie inside"):
            build(mine, out, frames_folder=tmp_path / "frames" if out.name == "frames" else mine)
    assert (mine / "challenge").is_dir()


@pytest.mark.parametrize("lost", ["train.txt", "one annotation", "half a picture"])
def test_a_set_that_lost_files_is_built_again(tree, tmp_path, lost):
    out = tmp_path / "set"
    manifest, whole = build(tree, out), None
    whole = contents(out)
    picture = out / manifest["path"].iloc[0]
    {"train.txt": out / "train.txt", "one annotation": picture.with_suffix(".txt")}.get(lost, picture).unlink()
    if lost == "half a picture":
        picture.touch()
    build(tree, out)
    assert contents(out) == whole


def test_a_file_that_can_be_read_again_is_taken_again(mine, tmp_path, monkeypatch):
    def refuse(file):
        return {"reason": "Permission denied"} if file.name == "003.png" else look(file)

    look = datasets._look
    monkeypatch.setattr(datasets, "_look", refuse)
    with pytest.raises(ValueError, match="reject_limit"):
        build(mine, tmp_path / "set", reject_limit=0)
    monkeypatch.setattr(datasets, "_look", look)
    assert len(build(mine, tmp_path / "set", reject_limit=0)) == 4 * 12 + 3 * (8 + 8)


def test_two_sets_that_share_a_frame_cache_do_not_mix(tree, tmp_path):
    bright = Path(shutil.copytree(tree, tmp_path / "bright"))
    for i, clip in enumerate(sorted(bright.glob("faceforensics/**/*.mp4"))):
        writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 64))
        for number in range(12):
            picture = np.full((64, 64, 3), 255, np.uint8)
            picture[4 * (number % 12) :][:4, 2 * i : 2 * i + 4] = 200  # No two frames have the same bytes
            writer.write(picture)
        writer.release()
    call = "build_cvcs_dfd(sys.argv[1], sys.argv[2], n_frames=3, workers=1, progress=False)"
    code = f"import sys; from deepfake_nbs.datasets import build_cvcs_dfd; {call}"
    runs = [subprocess.Popen([sys.executable, "-c", code, str(root), str(tmp_path / "o" / root.name)]) for root in (tree, bright)]
    assert [run.wait() for run in runs] == [0, 0]
    for root, light in ((tree, False), (bright, True)):
        manifest = read_manifest(tmp_path / "o" / root.name)
        frames = manifest[manifest["frame"].notna()]
        means = [cv2.imread(str(tmp_path / "o" / root.name / path)).mean() for path in frames["path"]]
        assert len(means) and all((mean > 240) == light for mean in means)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("option", "message"), [
    (dict(fractions=(float("nan"),) * 3), r"fractions are \(nan, nan, nan\); expected three shares that add up to 1"),
    (dict(fractions=(1e308, 1e308, 1e308)), r"fractions are \(1e\+308, .*expected three shares that add up to 1"),
    (dict(protocol="nonsense"), "protocol is 'nonsense'; expected 'group' or 'published'"),
    (dict(seed=-1), "^seed is -1; expected 0 or more$"),
    (dict(n_frames=0), "^n_frames is 0; expected at least 1$"),
    (dict(workers=0), "^workers is 0; expected at least 1$"),
    *((dict(reject_limit=limit), "^reject_limit is .*; expected a share from 0 to 1$") for limit in (float("nan"), -1, 5)),
])
def test_values_that_cannot_be_are_refused_before_anything_is_read(tmp_path, monkeypatch, option, message):
    monkeypatch.setattr(datasets, "read_sources", lambda *_: pytest.fail("sources were read"))
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "data", tmp_path / "set", **option)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", [None, "frames/a.png"])
def test_a_full_disk_is_said_with_a_name(tree, tmp_path, monkeypatch, file):
    def full(*_):
        raise OSError(28, "No space left on device", *([file] if file else []))

    monkeypatch.setattr(datasets, "_write_pictures", full)
    with pytest.raises(OSError, match="No space left on device") as told:
        build(tree, tmp_path / "set")
    assert (told.value.errno, told.value.filename) == (28, file or str(tmp_path / "set"))
    assert not (tmp_path / "set").exists()
