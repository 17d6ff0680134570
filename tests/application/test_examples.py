"Examples for the pages: pairs of original and fake."

from pathlib import Path

from deepfake_nbs.application.examples import example_photographs, find_pairs
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.core import write_text


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
        "faceforensics/manipulated_sequences/Deepfakes/c23/videos/000_001.mp4,train",
        "faceforensics/manipulated_sequences/FaceSwap/c23/videos/001_000.mp4,test",
    ]
    write_text(tmp_path / "run" / "cvcs_dfd" / "manifest.csv", "\n".join(["video,split", *lines]) + "\n")
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
