"What belongs together, in one set or in several; what a build says at its end; and what it never deletes."
import json
import os
import re
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from test_datasets import draw_challenge, draw_faceforensics, draw_picture, photograph, write
from typer.testing import CliRunner

from deepfake_nbs import datasets
from deepfake_nbs.baselines import study as baselines_study
from deepfake_nbs.application import app
from deepfake_nbs.runs import read_predictions
from deepfake_nbs.core import write_json
from deepfake_nbs.datasets import (
    SPLITS,
    audit_split,
    build_cvcs_dfd,
    dataset_notes,
    read_dfdc,
    read_faceforensics,
    read_folders,
    read_labels,
    read_manifest,
    read_sources,
    split_manifest,
)
from deepfake_nbs.files import read_table, write_table
from deepfake_nbs.metrics import classification_metrics

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"


@pytest.fixture
def cases():
    if not CASES.is_dir():
        pytest.skip("../shared/cases is not on this machine")
    return CASES


def build(root, out, **more):
    return build_cvcs_dfd(root, out, **dict(n_frames=2, workers=1, progress=False) | more)


def draw_photograph(path, seed, size=96, quality=95):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.resize(photograph(seed), (size, size)), [cv2.IMWRITE_JPEG_QUALITY, quality])


def stems(df):
    return df.set_index(df["path"].map(lambda path: Path(path).stem))


# --- One source video under several ids --------------------------------------------------------------------------------


PAIRS = (("639", "001"), ("640", "002"), ("003", "004"), ("755", "756"))
VIDEOS = {"639": "kCGKcmu9Pho 0", "640": "kCGKcmu9Pho 1"} | {one: f"video-{one} 0" for one in ("001", "002", "003", "004", "755", "756")}


def draw_official(root, videos=VIDEOS):
    draw_faceforensics(root, pairs=PAIRS)
    for name, ids in {"train": [["639", "001"]], "val": [["640", "002"], ["755", "756"]], "test": [["003", "004"]]}.items():
        write_json(root / f"splits/{name}.json", ids)
    if videos is not None:
        write_json(root / "conversion_dict.json", videos)


@pytest.mark.parametrize("place", [".", "splits", "..", "original_sequences/youtube", "downloaded_videos_info"])
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
    assert notes[0] == ("faceforensics: the official splits cut 1 source video: 639/640 (train, validation); under protocol 'group' "
                        "each stays whole, so some of its clips leave their official split")
    assert manifest[manifest["group"].eq("FF++:001")]["split"].nunique() == 1
    kept = {"003": "test", "755": "validation"}  # What is not cut stays where it is
    assert all(set(manifest[manifest["video"].str.contains(one)]["split"]) == {split} for one, split in kept.items())
    audit = audit_split(manifest).set_index("what").loc["source videos"]
    assert (audit["total"], audit["crossing"], audit["test_images"]) == (7, 0, 0)
    clips = read_faceforensics(tmp_path / "data/faceforensics")
    official = dict(zip("faceforensics/" + clips["path"], clips["split"], strict=True))
    assert audit_split(manifest.assign(split=manifest["video"].map(official))).set_index("what").loc["source videos", "crossing"] == 1


def test_a_missing_list_of_source_videos_is_said(tmp_path):
    draw_official(tmp_path / "data/faceforensics", videos=None)
    assert read_sources(tmp_path / "data").notes[0].startswith("faceforensics: conversion_dict.json is missing")
    write(tmp_path / "data/miniature.json", "{}")  # The embedded data are drawn: there is no video behind an id
    assert read_sources(tmp_path / "data").notes == ()
    (tmp_path / "data/miniature.json").unlink()
    shutil.rmtree(tmp_path / "data/faceforensics/splits")  # The download script brings none: ids of three digits are official enough
    assert read_sources(tmp_path / "data").notes[0].startswith("faceforensics: conversion_dict.json is missing")
    write(tmp_path / "data/faceforensics/conversion_dict.json", '{"bWN 0": "000"}')  # Turned round
    found = "faceforensics: faceforensics/conversion_dict.json names none of these clips; the official one says that 45"
    assert read_sources(tmp_path / "data").notes[0].startswith(found)
    write(tmp_path / "data/faceforensics/conversion_dict.json", "{}")
    assert "source_video" not in read_faceforensics(tmp_path / "data/faceforensics")


@pytest.mark.parametrize("text", ["[]", "{", '{"000": 3}', '{"000": ""}', '{"000": []}', '{"000": [""]}', '{"000": null}'])
def test_a_list_of_source_videos_in_another_form_is_named(tmp_path, text):
    draw_official(tmp_path, videos=None)
    write(tmp_path / "conversion_dict.json", text)
    with pytest.raises(ValueError, match=r"conversion_dict.json: not the list of source videos .*expected {\"000\""):
        read_faceforensics(tmp_path)


def test_the_audit_counts_source_videos_by_hand():
    rows = pd.DataFrame(dict(path=list("abcd"), group=list("abcd"), video="", sha256=list("abcd"), split=["train", "test", "test", "test"],
                             source_video=["v w", "w", "x", ""]))
    audit = audit_split(rows).set_index("what").loc["source videos"]
    assert (audit["total"], audit["crossing"], audit["test_images"]) == (3, 1, 1) and audit["share_of_test"] == pytest.approx(1 / 3)
    assert "source videos" not in set(audit_split(rows.drop(columns="source_video"))["what"])


# --- Groups over all sets ----------------------------------------------------------------------------------------------


def test_a_name_means_the_same_in_every_set(tmp_path):
    draw_official(tmp_path / "data/faceforensics")
    for i in range(3):
        draw_picture(tmp_path / f"data/mine/{i}.png", 70 + i)
    write(tmp_path / "data/mine/labels.csv", "path,label,group\n0.png,real,FF++:640\n1.png,fake,FFHQ:000\n2.png,real,alone\n")
    draw_challenge(tmp_path / "data/challenge", 8)
    found = read_sources(tmp_path / "data")
    group = found.images.set_index("path")["group"]
    assert group["mine/0.png"] == "FF++:001"  # The name that the ids of one video were joined to
    assert group["mine/1.png"] == group["challenge/0-FFHQ/000.png"] == "FFHQ:000" and group["mine/2.png"] == "alone"
    assert "kin" not in found.images and "kin" not in found.videos
    manifest = build(tmp_path / "data", tmp_path / "set")
    assert manifest.groupby("group")["split"].nunique().max() == 1
    assert "2 groups hold images of more than one set, because their names are the same" in dataset_notes(tmp_path / "set")


@pytest.fixture
def two_sets(tmp_path):
    "The same photographs in two sets under other names: 0 to 3 byte for byte, 4 to 9 smaller and compressed once more."
    root = tmp_path / "data"
    for i in range(20):
        draw_photograph(root / f"challenge/0-FFHQ/{i:03d}.jpg", i)
        draw_photograph(root / f"challenge/1-StarGAN/{i:03d}.jpg", 100 + i)
        draw_photograph(root / f"mine/{i:03d}.jpg", i if i < 10 else 200 + i, *((96, 95) if i < 4 else (64, 60)))
    write(root / "mine/labels.csv", "path,label,group\n" + "".join(f"{i:03d}.jpg,{'real' if i < 4 else 'fake'},p{i}\n" for i in range(20)))
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
    assert shuffled["group"].nunique() == 60 and not any("joined" in note for note in dataset_notes(tmp_path / "other"))
    near = audit_split(shuffled, tmp_path / "other").set_index("what").loc["near-duplicates", "test_images"]
    n_test = shuffled["split"].eq("test").sum()
    assert near > 0 and dataset_notes(tmp_path / "other")[-1].startswith(f"{near} of {n_test} test images look nearly the same")


def test_images_without_contrast_or_of_other_colours_are_not_joined(tmp_path):
    rows, rng = [], np.random.default_rng(0)
    base = cv2.GaussianBlur(photograph(1), (0, 0), 2)
    images = [np.full((64, 64, 3), value, np.uint8) for value in (0, 128, 255)]
    images += [(128 + rng.normal(0, 1, (64, 64, 3)) + np.linspace(-4, 4, 64)[:, None, None]).astype(np.uint8) for _ in range(4)]
    images += [base, np.roll(base, 1, axis=2), base[:, ::-1]]
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
        rows.append(datasets._look(tmp_path / f"{i}.png") | dict(group=f"g{i}"))
    assert [row["look"] == "" for row in rows] == [True] * 3 + [False] * 7
    done, notes = datasets._join_same_images(pd.DataFrame(rows))
    assert done["group"].tolist() == [f"g{i}" for i in range(10)] and notes == []
    flat, notes = datasets._join_same_images(pd.DataFrame(rows[:2]))
    assert flat["group"].tolist() == ["g0", "g1"] and notes == []


def test_chains_of_alike_images_are_one_group_and_pairs_are_all_found():
    rng = np.random.default_rng(0)
    looks = [rng.bytes(312) for _ in range(400)]
    for i in range(0, 60, 3):  # Three alike in each group of three, two bits apart
        one = int.from_bytes(looks[i][:8], "big")
        looks[i + 1] = (one ^ 3).to_bytes(8, "big") + looks[i][8:]
        looks[i + 2] = (one ^ 0xF00000).to_bytes(8, "big") + looks[i][8:]
    names = [f"g{i:03d}" for i in range(400)]
    done = datasets._merge_alike(pd.DataFrame(dict(look=[look.hex() for look in looks], group=names)))
    assert done["group"].tolist() == [names[i - i % 3] if i < 60 else names[i] for i in range(400)]


def test_no_real_photographs_of_different_groups_are_joined(real, tmp_path):
    images = read_sources(real).images
    images = images[images["path"].str.startswith(("challenge/", "dfdc_faces/"))]  # Sets that are known to hold no photograph twice
    rows = images.groupby("source", group_keys=False).head(150)
    rows = rows.assign(file=[str(real / path) for path in rows["path"]], origin=rows["path"])
    rows, _ = datasets._inspect(rows, tmp_path, 2, False)
    done, notes = datasets._join_same_images(rows)
    assert notes == [] and done["group"].equals(rows["group"])


def test_a_giant_group_is_said_where_it_spoils_the_splits(tmp_path):
    rows = pd.DataFrame(dict(source="DFD", label=[0, 1] * 20, group="DFD:01"))
    message = r"1 group leaves nothing.*at least 3 groups.*largest group, DFD:01, holds 40 of the 40 .*DFD were swapped"
    with pytest.raises(ValueError, match=message):
        split_manifest(rows)
    rows.loc[rows.index[-4:], "group"] = ["a", "a", "b", "b"]
    done = split_manifest(rows).assign(look="")
    notes = datasets._split_notes(done, (0.7, 0.15, 0.15))
    assert notes[1] == ("train holds 90% of the images where 70% was asked for; the largest group, DFD:01, holds 36 of the 40 images "
                        "(the actors of DFD were swapped with each other, which joins their clips)")


# --- One's own data ----------------------------------------------------------------------------------------------------


def draw_own(root, n=12, splits=("",)):
    for split in splits:
        for label in ("real", "fake"):
            for i in range(n):
                draw_picture(root / split / label / f"{label}{split}{i}.png", zlib.crc32(f"{split}/{label}/{i}".encode()))


@pytest.mark.parametrize("below", [True, False])
def test_folders_named_real_and_fake_are_read(tmp_path, below):
    root = tmp_path / "photos"
    draw_own(root / "mine" if below else root)
    manifest = build(root, tmp_path / "set")
    assert manifest["label"].value_counts().to_dict() == {0: 12, 1: 12} and manifest["group"].is_unique
    name = "mine" if below else "photos"
    assert manifest["source"].eq(name).all()
    assert manifest[manifest["label"].eq(0)]["origin"].str.startswith("mine/real/" if below else "real/").all()
    assert set(manifest[manifest["label"].eq(1)]["method"]) == {"unknown"}
    notes = dataset_notes(tmp_path / "set")
    assert notes[0].startswith(f"{name}: each of the 24 images is its own group") and "add a column `group` to a labels.csv" in notes[0]
    assert re.fullmatch(r"\d+ of \d+ test images look nearly the same as an image in another split", notes[1])


def test_splits_above_or_below_the_classes_are_kept(tmp_path):
    draw_own(tmp_path / "data", 5, ("train", "VAL", "Testing"))
    df = read_sources(tmp_path / "data").images
    assert df["split"].value_counts().to_dict() == {split: 10 for split in SPLITS}
    manifest = build(tmp_path / "data", tmp_path / "set")
    assert manifest.groupby("split").size().to_dict() == {split: 10 for split in SPLITS}
    for label in (0, 1):
        for split in ("train", "valid", "test"):
            draw_picture(tmp_path / f"turned/{label}/{split}/a.png", label)
    assert read_folders(tmp_path / "turned")["split"].tolist() == ["test", "train", "validation"] * 2
    assert read_folders(tmp_path / "turned")["label"].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_set_with_two_splits_of_its_own_says_what_to_do(tmp_path):
    draw_own(tmp_path / "data", 8, ("train", "test"))
    expected = (r"^split validation: the sets' own splits hold all 32 groups and leave nothing for it; "
                r"expected fractions with 0 for it, or keep_official=False "
                r"\(in the terminal: --fractions 0.8,0,0.2 or --no-keep-official\)$")
    with pytest.raises(ValueError, match=expected):
        build(tmp_path / "data", tmp_path / "set")
    manifest = build(tmp_path / "data", tmp_path / "set", fractions=(0.8, 0, 0.2))
    assert manifest.groupby("split").size().to_dict() == {"train": 16, "test": 16}
    kept = "train holds 50% of the images where 80% was asked for; the splits that the sets bring along were kept"
    assert kept in dataset_notes(tmp_path / "set")
    manifest = build(tmp_path / "data", tmp_path / "set", keep_official=False)
    assert manifest.groupby("split").size().to_dict() == {"train": 24, "validation": 4, "test": 4}


def test_an_image_in_neither_class_is_named(tmp_path):
    draw_own(tmp_path / "photos", 3)
    write(tmp_path / "photos/README.txt", "mine")
    assert len(read_folders(tmp_path / "photos")) == 6
    draw_picture(tmp_path / "photos/maybe/a.png", 1)
    with pytest.raises(ValueError, match=r"photos/maybe/a.png: lies in neither real/ nor fake/"):
        read_sources(tmp_path / "photos")


def test_a_root_that_is_itself_a_set(tmp_path):
    draw_challenge(tmp_path / "gan")
    assert read_sources(tmp_path / "gan").images["path"].str.startswith(("0-", "1-")).all()
    assert datasets.dataset_table(read_sources(tmp_path / "gan"), None).set_index("id")["here"]["datasets-challenge-images"] == 24
    draw_official(tmp_path / "clips")
    assert len(read_sources(tmp_path / "clips").videos) == 16
    draw_picture(tmp_path / "listed/pictures/a.png", 1)
    write(tmp_path / "listed/labels.csv", "path,label\npictures/a.png,real\n")
    assert read_sources(tmp_path / "listed").images["path"].tolist() == ["pictures/a.png"]
    draw_own(tmp_path / "listed/own", 2)  # Then the list at the root is not what describes its folders
    with pytest.raises(ValueError, match="listed/pictures: a folder in no known layout"):
        read_sources(tmp_path / "listed")


def test_a_set_that_happens_to_be_called_real_is_no_class(tmp_path):
    for name in ("real", "other"):
        draw_picture(tmp_path / name / "a.png", len(name))
        write(tmp_path / name / "labels.csv", "path,label\na.png,fake\n")
    assert read_sources(tmp_path).images["label"].tolist() == [1, 1]
    write(tmp_path / "other/labels.csv", "path,label\n")
    assert len(read_sources(tmp_path).images) == 1


def test_one_class_only_is_refused(tmp_path):
    draw_own(tmp_path / "photos", 6)
    shutil.rmtree(tmp_path / "photos/fake")
    with pytest.raises(ValueError, match=r"photos: 6 real images and videos, and none that is fake; expected both classes"):
        build(tmp_path / "photos", tmp_path / "set")
    (tmp_path / "photos/fake").mkdir()
    for i in range(6):
        write(tmp_path / f"photos/fake/{i}.png", "broken")
    with pytest.raises(ValueError, match="none that is fake"):  # Also when all of one class turn out to be unreadable
        build(tmp_path / "photos", tmp_path / "set", reject_limit=1)


def test_too_small_for_its_splits_says_which_and_how_many(tmp_path):
    draw_own(tmp_path / "photos", 1)
    with pytest.raises(ValueError, match="split (validation|test): 2 groups leave nothing for it; expected at least 3 groups"):
        build(tmp_path / "photos", tmp_path / "set")
    draw_own(tmp_path / "photos", 2)
    build(tmp_path / "photos", tmp_path / "set")
    assert [note for note in dataset_notes(tmp_path / "set") if "images only: a measure that needs both classes is undefined there" in note]


def test_the_terminal_says_what_a_build_found(tmp_path):
    draw_own(tmp_path / "photos", 8)
    done = CliRunner().invoke(app, ["build", str(tmp_path / "photos"), str(tmp_path / "set"), "--workers", "1"])
    assert done.exit_code == 0 and "real  fake" in done.stdout
    assert "- photos: each of the 16 images is its own group" in done.stdout and "look nearly the same" in done.stdout.splitlines()[-1]
    again = CliRunner().invoke(app, ["build", str(tmp_path / "photos"), str(tmp_path / "set"), "--workers", "1"])
    assert again.stdout == done.stdout  # A set that is already there says it too


def test_sources_with_blanks(tmp_path):
    draw_challenge(tmp_path / "data/challenge")
    words = ["--sources", "CelebA, StarGAN ,", "--workers", "1"]
    done = CliRunner().invoke(app, ["build", str(tmp_path / "data"), str(tmp_path / "set"), *words])
    assert done.exit_code == 0 and set(read_manifest(tmp_path / "set")["source"]) == {"CelebA", "StarGAN"}
    done = CliRunner().invoke(app, ["build", str(tmp_path / "data"), str(tmp_path / "other"), "--sources", " , "])
    assert (done.exit_code, done.stderr) == (
        2, "deepfake-nbs: --sources ' , ': no name in it; expected names of sets or folders, separated by commas\n")


# --- Lists of other programs -------------------------------------------------------------------------------------------


def test_a_list_beside_another_programs_metadata_wins(cases, tmp_path):
    found = read_sources(cases / "foreign-metadata").images
    assert found["label"].tolist() == [0, 1] * 6 and found["group"].nunique() == 6
    mine = Path(shutil.copytree(cases / "foreign-metadata/mine", tmp_path / "data/mine"))
    (mine / "labels.csv").unlink()
    with pytest.raises(ValueError, match=r"metadata.json: not DFDC metadata .*expected .*or a labels.csv beside it"):
        read_sources(tmp_path / "data")


def test_the_test_set_of_dfdc_is_read(cases, tmp_path):
    found = read_sources(cases / "dfdc-test-set/root").videos
    assert found["label"].tolist() == [0, 1] * 5 and found["group"].nunique() == 10 and set(found["source"]) == {"DFDC"}


def test_dfdc_labels_in_every_form(tmp_path):
    for one in "abc":
        write(tmp_path / f"{one}.mp4", "x")
    entries = {"a.mp4": {"is_fake": 0}, "b.mp4": {"is_fake": 1, "original": "a.mp4"}, "c.mp4": {"is_fake": True}}
    write_json(tmp_path / "metadata.json", entries)
    assert read_dfdc(tmp_path)["label"].tolist() == [0, 1, 1] and read_dfdc(tmp_path)["group"].nunique() == 2
    write(tmp_path / "labels.csv", "filename,label\nc.mp4,0\n")  # As the set comes
    assert read_dfdc(tmp_path)["label"].tolist() == [0, 1, 0]
    write_json(tmp_path / "metadata.json", {"a.mp4": {"augmentations": {}}})
    assert datasets._known_layout(tmp_path) == "labels" and read_labels(tmp_path)["path"].tolist() == ["c.mp4"]
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(ValueError, match="a.mp4 has neither label nor is_fake"):
        read_dfdc(tmp_path)


# --- Names that other programs read as missing -------------------------------------------------------------------------


NAMES = ("NA", "None", "null", "nan", "NaN", "n/a", "", "-nan", "<NA>", "inf", "1e3", "007")


def test_a_person_called_na_keeps_the_name_everywhere(tmp_path):
    lines = ["path,label,source,method,group,shade"]
    for i, name in enumerate(NAMES):
        for label, source in (("real", "null"), ("fake", "NA")):
            draw_picture(tmp_path / f"data/mine/{name.replace('/', '')}{i}{label}.png", 2 * i + (label == "real"))
            lines.append(f"{name.replace('/', '')}{i}{label}.png,{label},{source},{'none' if label == 'real' else 'None'},{name},")
    write(tmp_path / "data/mine/labels.csv", "\n".join(lines) + "\n")
    manifest = build(tmp_path / "data", tmp_path / "set")
    wanted = {name for name in NAMES if name}
    assert wanted <= set(manifest["group"]) and manifest["group"].nunique() == len(wanted) + 2  # A row without a group is its own
    assert set(manifest["source"]) == {"null", "NA"} and set(manifest["method"]) == {"none", "None"} and manifest["shade"].eq("").all()
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "set"), manifest)
    answers = manifest[["path", "label"]].assign(probability=np.linspace(0, 1, len(manifest)), group=manifest["group"])
    answers = answers.assign(split="test", checkpoint="best")
    write_table(answers, tmp_path / "predictions.csv")
    back = read_predictions(tmp_path)
    pd.testing.assert_frame_equal(back, answers, check_dtype=False)
    assert back["label"].dtype == np.int64 and back["probability"].dtype == float
    assert classification_metrics(back, 50)["n"].max() == len(manifest)
    assert back["group"].nunique() == manifest["group"].nunique()


def test_the_baselines_tables_keep_names_and_kinds(tmp_path):
    answers = pd.DataFrame(dict(row="NA", path=["null", "a.png"], label=[0, 1], probability=np.nan, group=["None", "NA"], split="test"))
    pd.testing.assert_frame_equal(baselines_study._kept(tmp_path / "p.csv", lambda: answers), answers, check_dtype=False)
    search = pd.DataFrame(dict(kernel=["rbf", "nan"], C=[0.1, 10.0], accuracy=[0.5, 1.0], balanced_accuracy=np.nan, ended=[True, False]))
    back = baselines_study._kept(tmp_path / "s.csv", lambda: search)
    pd.testing.assert_frame_equal(back, search, check_dtype=False)
    assert back["ended"].dtype == bool and back["C"].dtype == float and back["balanced_accuracy"].dtype == float


def test_a_column_of_numbers_that_are_all_undefined(tmp_path):
    write_table(pd.DataFrame(dict(group=["NA", "nan"], auc=[np.nan, np.nan], note=["", "None"])), tmp_path / "t.csv")
    table = read_table(tmp_path / "t.csv", numbers=("auc",))
    assert table["group"].tolist() == ["NA", "nan"] and table["auc"].isna().all() and table["auc"].dtype == float
    assert table["note"].tolist() == ["", "None"]


def test_a_line_with_more_cells_than_columns_is_no_table(tmp_path):
    for text in ("path,label\na.png,real,x\n", "path,label\na.png,real\nb.png,real,x\n"):
        write(tmp_path / "t.csv", text)
        with pytest.raises(ValueError, match="t.csv: not a table"):
            read_table(tmp_path / "t.csv")


# --- Hidden files ------------------------------------------------------------------------------------------------------


HIDDEN = ("._a.png", "__MACOSX/._a.png", "__MACOSX/a.png", ".ipynb_checkpoints/a.png", "Thumbs.db", "desktop.ini", "@eaDir/a.png")


def test_every_reader_leaves_out_hidden_files(tmp_path):
    draw_challenge(tmp_path / "challenge", 2)
    draw_official(tmp_path / "faceforensics")
    draw_own(tmp_path / "own", 2)
    draw_picture(tmp_path / "mine/a.png", 1)
    write(tmp_path / "mine/labels.csv", "path,label\na.png,real\n" + "".join(f"{name},fake\n" for name in HIDDEN))
    write(tmp_path / "dfdc/metadata.json", '{"a.mp4": {"label": "REAL"}, "._a.mp4": {"label": "REAL"}}')
    clips = "faceforensics/original_sequences/youtube/c23/videos"
    folders = ("challenge/0-FFHQ", "challenge", clips, "faceforensics", "own/real", "own", ".")
    for name in HIDDEN:
        for folder in folders:
            write(tmp_path / folder / name, "x")
    found = read_sources(tmp_path)
    assert (len(found.images), len(found.videos)) == (8 + 4 + 1, 16 + 1)
    assert found.notes[-1] == f"mine/labels.csv: {len(HIDDEN)} hidden files were left out, the first of them ._a.png"


def test_the_hidden_files_of_the_case(cases, tmp_path):
    shutil.copytree(cases / "folder-hidden/album", tmp_path / "own/real")
    write(tmp_path / "own/real/.thumbnails/a.jpg", "x")
    draw_picture(tmp_path / "own/fake/b.png", 1)
    assert read_folders(tmp_path / "own")["path"].tolist() == ["fake/b.png", "real/a.jpg"]


# --- What is never deleted ---------------------------------------------------------------------------------------------


def test_frames_of_ones_own_are_never_deleted(tmp_path):
    draw_official(tmp_path / "data/faceforensics")
    clip = "faceforensics/original_sequences/youtube/c23/videos/003.mp4"
    own = tmp_path / "out/frames" / clip / "000001.png"
    draw_picture(own, 1)
    before = own.read_bytes()
    manifest = build(tmp_path / "data", tmp_path / "out/set")
    assert own.read_bytes() == before and sorted(os.listdir(own.parent)) == ["000001.png"]
    assert len(manifest) == 32 and (tmp_path / "out/set-frames" / clip / "frames.json").is_file()
    with pytest.raises(FileExistsError, match="out/frames: holds something else"):
        build(tmp_path / "data", tmp_path / "out/other", frames_folder=tmp_path / "out/frames")
    build(tmp_path / "data", tmp_path / "new/set")
    assert (tmp_path / "new/frames/.deepfake_nbs_frames").is_file() and not (tmp_path / "new/set-frames").exists()
    (tmp_path / "new/frames/.deepfake_nbs_frames").unlink()  # As an older build left it
    build(tmp_path / "data", tmp_path / "new/again", seed=1)
    assert (tmp_path / "new/frames/.deepfake_nbs_frames").is_file()


@pytest.mark.parametrize("name", [".set.building", ".set.old"])
def test_hidden_folders_of_ones_own_are_never_deleted(tmp_path, name):
    draw_challenge(tmp_path / "data/challenge")
    write(tmp_path / name / "thesis.tex", "mine")
    with pytest.raises(FileExistsError, match=rf"{re.escape(name)}: holds something else \(thesis.tex\)"):
        build(tmp_path / "data", tmp_path / "set")
    assert (tmp_path / name / "thesis.tex").read_text() == "mine"


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
