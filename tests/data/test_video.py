"Frames of videos: exact numbers, what is refused, and extraction in parallel with resume."

import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.data_sets import bad_videos, draw_video, video_rows

from deepfake_nbs.data import video
from deepfake_nbs.data.containers import VideoError
from deepfake_nbs.data.video import extract_frames, read_frames, save_frames


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
    monkeypatch.setattr(video, "_promised", lambda path, capture: promised)
    for n, numbers in {1: [10], 4: [2, 7, 12, 17], 21: list(range(20))}.items():
        frames = read_frames(tmp_path / "a.mp4", n)
        assert list(frames) == numbers and all(
            abs(frame.mean() - 10 * number - 9.5) < 4 for number, frame in frames.items()
        )
        assert save_frames(tmp_path / "a.mp4", tmp_path / "frames", n) == numbers
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

    opened = video._open_video
    monkeypatch.setattr(video, "_open_video", lambda path: Silent(opened(path)))
    assert list(read_frames(tmp_path / "a.mp4", 99)) == list(range(7)) and list(
        read_frames(tmp_path / "a.mp4", 1)
    ) == [3]


def test_extraction_resumes_where_it_stopped(tmp_path):
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
    frames, _ = extract_frames(
        video_rows(tmp_path, ["a.mp4", "b.mp4"]), tmp_path, tmp_path / "frames", [1, 3], progress=False
    )
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
    code = (
        "import sys; from pathlib import Path; from deepfake_nbs.data.manifest import as_manifest\n"
        "from deepfake_nbs.data.video import extract_frames\n"
        "root = Path(sys.argv[1])\n"
        "rows = as_manifest([dict(path=p.name, label=0) for p in sorted(root.glob('*.mp4'))])\n"
        "extract_frames(rows, root, root / 'frames', 600, workers=2, progress=False)"
    )
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


def test_videos_take_turns_at_the_places_of_another(tmp_path):
    names = [f"v{i}.mp4" for i in range(3)]
    for name in names:
        draw_video(tmp_path / name, n=20)
    rows, out = video_rows(tmp_path, names), tmp_path / "frames"
    frames, _ = extract_frames(rows, tmp_path, out, [4, 2, 2], progress=False, turns=[(1, 0), (2, 0), (2, 1)])
    found = frames.groupby("video")["frame"].agg(list)
    assert found.tolist() == [[2, 7, 12, 17], [2, 12], [7, 17]]
    again, _ = extract_frames(rows, tmp_path, out, [4, 2, 2], progress=False, turns=[(1, 0), (2, 1), (1, 0)])
    assert again.groupby("video")["frame"].agg(list).tolist() == [[2, 7, 12, 17], [7, 17], [5, 15]]
    assert sorted(path.name for path in (out / "v1.mp4").glob("*.png")) == ["000007.png", "000017.png"]
