"Videos: one head is followed through the frames."

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from deepfake_nbs.application.evidence import Match
from deepfake_nbs.application.models import untrained_run
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.heads.detector import HeadBox


def give_heads(pipeline, *boxes):
    "A detector that finds these boxes in every photograph."
    found = [HeadBox(box, 0.9 - i / 1000) for i, box in enumerate(boxes)]
    pipeline.detector.find_in_squares = lambda squares, sizes, threshold=None: [list(found) for _ in squares]
    return pipeline


def test_a_video_gives_a_distribution_and_its_mean(heads_run, video):
    answer = give_heads(Pipeline.load(heads_run), (5.0, 5.0, 45.0, 50.0)).check_video(video, n_frames=6)
    assert len(answer.frames) == len(answer.probabilities) == 6 and answer.mean == pytest.approx(
        np.mean(answer.probabilities)
    )
    assert (
        answer.quartiles[0] <= answer.quartiles[1] <= answer.quartiles[2]
        and answer.verdict
        and answer.plot().axes
    )
    assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()


def test_a_video_without_heads_gets_no_verdict(tmp_path, video):
    answer = Pipeline.load(untrained_run(tmp_path, head_threshold=1.0)).check_video(video, n_frames=4)
    assert (
        answer.verdict is answer.mean is answer.quartiles is None
        and "no head" in answer.reason
        and answer.plot().axes
    )


def test_frames_that_a_network_of_heads_judged_whole_are_told(tmp_path, video):
    pipeline = Pipeline.load(untrained_run(tmp_path, head_threshold=1.0))
    answer = pipeline.check_video(video, n_frames=4, whole=True)
    assert answer.verdict and any(
        "4 frames without a head" in note and "out of distribution" in note for note in answer.notes
    )
    assert not any("out of distribution" in note for note in pipeline.check_video(video, n_frames=4).notes)


def test_a_broken_video_is_named(heads_run, tmp_path):
    from deepfake_nbs.data.containers import VideoError

    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(VideoError, match="a.mp4"):
        Pipeline.load(heads_run).check_video(tmp_path / "a.mp4")


def test_a_video_of_one_frame_is_judged(heads_run, tmp_path):
    import cv2

    writer = cv2.VideoWriter(str(tmp_path / "one.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (96, 64))
    writer.write(np.full((64, 96, 3), 90, np.uint8))
    writer.release()
    answer = give_heads(Pipeline.load(heads_run), (5.0, 5.0, 45.0, 50.0)).check_video(tmp_path / "one.mp4")
    assert (
        answer.frames == (0,)
        and answer.mean == answer.probabilities[0]
        and answer.quartiles == (answer.mean,) * 3
    )
    assert answer.verdict and answer._repr_png_()


def test_every_bad_video_is_one_error_that_names_it(heads_run, tmp_path, video):
    from deepfake_nbs.data.containers import VideoError

    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:-100])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to("gone.mp4")
    pipeline = Pipeline.load(heads_run)
    odd = ("a\x1b[31m.mp4", "a\0.mp4", f"{'a' * 300}.mp4")
    for name in ("cut.mp4", "empty.mp4", "folder.mp4", "pipe.mp4", "link.mp4", "missing.mp4", *odd):
        with pytest.raises(VideoError) as error:
            pipeline.check_video(tmp_path / name)
        assert (
            str(error.value).isprintable() and error.value.path == str(tmp_path / name) and error.value.reason
        )
    with pytest.raises(ValueError, match="n_frames is 0; expected at least 1"):
        pipeline.check_video(video, n_frames=0)


@pytest.mark.parametrize("name", ["scene:1.mp4", "a\x1b[31m\u202e\n$x$.mp4", os.fsdecode(b"na\xefve.mp4")])
def test_a_video_of_any_name_is_judged_and_drawn(heads_run, tmp_path, video, monkeypatch, name):
    shutil.copy(video, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    answer = Pipeline.load(heads_run).check_video(name, n_frames=2, whole=True)
    assert answer.video == name and answer.frames == (7, 22) and answer._repr_png_()
    assert (
        answer.plot().axes[0].get_title().isprintable()
        and json.loads(json.dumps(answer.to_dict()))["video"] == name
    )


def test_names_are_drawn_as_they_are(heads_run, photos, video):
    match = Match(str(sorted(photos.iterdir())[1]), 0.5, "real", r"a $\frac$ b")
    answer = replace(Pipeline.load(heads_run).check(sorted(photos.iterdir())[0]), matches=(match,))
    assert answer._repr_png_()[:4] == b"\x89PNG"
    film = Pipeline.load(heads_run).check_video(video, n_frames=2)
    assert replace(film, video=r"$\frac$.mp4")._repr_png_()[:4] == b"\x89PNG"
