"Examples for the pages: pairs of original and fake."

import json
from pathlib import Path

import pytest

from deepfake_nbs.application.examples import example_photographs, find_pairs
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.core import write_text
from deepfake_nbs.miniature.sets import item_rng, split_items
from deepfake_nbs.settings import read_settings


def test_pairs_of_the_test_split_come_first_and_frames_match(tmp_path, video):
    root = tmp_path / "data" / "faceforensics"
    for name in (
        "original_sequences/youtube/c23/videos/000",
        "original_sequences/youtube/c23/videos/001",
        "manipulated_sequences/Deepfakes/c23/videos/000_001",
        "manipulated_sequences/FaceSwap/c23/videos/001_000",
        "manipulated_sequences/FaceSwap/c23/videos/009_000",
    ):
        path = (root / name).with_suffix(".mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video.read_bytes())
    lines = [
        "faceforensics/manipulated_sequences/Deepfakes/c23/videos/000_001.mp4,train,,",
        "faceforensics/manipulated_sequences/FaceSwap/c23/videos/001_000.mp4,test,,",
    ]
    write_text(
        tmp_path / "run" / "cvcs_dfd" / "manifest.csv", "\n".join(["video,split,frame,path", *lines]) + "\n"
    )
    pairs = find_pairs(tmp_path / "run", tmp_path / "data", 5, 3)
    assert [(pair.method, pair.split) for pair in pairs] == [("FaceSwap", "test"), ("Deepfakes", "train")], (
        "009 has no original"
    )
    assert all(
        pair.original.is_file() and pair.fake.is_file() and pair.original.name == pair.fake.name
        for pair in pairs
    )
    assert find_pairs(tmp_path / "run", tmp_path) == [] and example_photographs(tmp_path) == {}


def test_evidence_for_each_pair_of_real_videos(heads_run, real, tmp_path):
    pairs = find_pairs(tmp_path, real, 4, 2)
    assert {(Path(pair.original_video).stem, Path(pair.fake_video).stem) for pair in pairs} == {
        ("519", "519_515"),
        ("634", "634_660"),
    }
    for pair in pairs:
        answers = [Pipeline.load(heads_run).check(path) for path in (pair.original, pair.fake)]
        assert all(answer.verdict and answer.heads for answer in answers)


def test_each_original_is_shown_once_while_there_are_others(tmp_path, video):
    names, root = ["000", "001", "002", "003"], tmp_path / "data" / "faceforensics"
    methods = ["Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"]
    fakes = [
        f"manipulated_sequences/{m}/c23/videos/{a}_{names[i ^ 1]}.mp4"
        for m in methods
        for i, a in enumerate(names)
    ]
    for name in (*(f"original_sequences/youtube/c23/videos/{name}.mp4" for name in names), *fakes):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(video.read_bytes())
    lines = [f"faceforensics/{name},test,," for name in fakes]
    write_text(
        tmp_path / "run" / "cvcs_dfd" / "manifest.csv", "\n".join(["video,split,frame,path", *lines]) + "\n"
    )
    pairs = find_pairs(tmp_path / "run", tmp_path / "data", 4, 1)
    assert len({pair.original_video for pair in pairs}) == len({pair.method for pair in pairs}) == 4


def test_the_frame_that_the_dataset_holds_of_both_videos_is_shown(tmp_path, video):
    original, fake = (
        f"{place}/c23/videos/{name}.mp4"
        for place, name in (
            ("original_sequences/youtube", "000"),
            ("manipulated_sequences/Deepfakes", "000_001"),
        )
    )
    for name in (original, fake):
        path = tmp_path / "data" / "faceforensics" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video.read_bytes())
    rows = [(original, 1, "a"), (original, 4, "b"), (fake, 4, "c"), (fake, 6, "d")]
    lines = [f"faceforensics/{name},test,{number},test/{file}.png" for name, number, file in rows]
    write_text(tmp_path / "run/cvcs_dfd/manifest.csv", "\n".join(["video,split,frame,path", *lines]) + "\n")
    (pair,) = find_pairs(tmp_path / "run", tmp_path / "data", 3, 1)
    place = tmp_path / "run" / "cvcs_dfd" / "test"
    assert (pair.original, pair.fake) == (place / "b.png", place / "c.png")


@pytest.mark.parametrize("profile", ["smoke", "mini"])
def test_the_page_shows_pairs_of_unseen_originals_alone(root, profile):
    "The embedded clips leave as many originals for the test split as page 07 shows pairs."
    cells = json.loads((root / "nbs" / "07_our_faces.ipynb").read_text())["cells"]
    given: dict = {}
    exec(next("".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])), given)
    settings = read_settings(profile)
    pairs = list(range(settings.miniature_videos // 2))
    held_out = split_items(pairs, item_rng(settings.seed, "splits"))["test"]
    assert 2 * len(held_out) >= given["n_pairs"]
