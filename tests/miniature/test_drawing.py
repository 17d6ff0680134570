"Drawing the embedded data: the same bytes for the same seed, whole or not at all."

import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
import pytest
from deepfake_nbs.miniature import drawing


SIZES = dict(n_people=5, n_videos=2, n_head_frames=24)


def hashes(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_one_process_draws_the_bytes_that_two_drew(drawn, tmp_path):
    drawing.draw_miniature(tmp_path / "again", **SIZES, workers=1, progress=False)
    assert hashes(tmp_path / "again") == hashes(drawn)


def test_another_seed_draws_other_people(drawn, tmp_path):
    drawing.draw_miniature(tmp_path / "other", 1, 0, 0, seed=43, workers=1, progress=False)
    name = "challenge/0-CelebA/00000_0.jpg"
    assert hashes(tmp_path / "other")[name] != hashes(drawn)[name]


def test_every_file_has_one_modification_time(drawn):
    assert len({p.stat().st_mtime_ns for p in drawn.rglob("*") if p.is_file()}) == 1


def test_the_same_arguments_return_at_once(drawn):
    before = drawn.stat().st_ino, hashes(drawn)
    counts = drawing.draw_miniature(drawn, **SIZES, workers=1, progress=False)
    assert counts == json.loads((drawn / "miniature.json").read_text())["counts"]
    assert (drawn.stat().st_ino, hashes(drawn)) == before


def test_other_arguments_replace_a_drawn_folder_and_leave_nothing_beside_it(tmp_path):
    out = tmp_path / "m"
    drawing.draw_miniature(out, 1, 0, 0, workers=1, progress=False)
    counts = drawing.draw_miniature(out, 0, 0, 3, workers=1, progress=False)
    assert counts["heads/JPEGImages"] == 3 and not (out / "challenge").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_damaged_record_is_drawn_again(tmp_path):
    out = tmp_path / "m"
    drawing.draw_miniature(out, 0, 0, 3, workers=1, progress=False)
    before = hashes(out)
    (out / "miniature.json").write_text("{")
    drawing.draw_miniature(out, 0, 0, 3, workers=1, progress=False)
    assert hashes(out) == before


@pytest.mark.parametrize("make", ["file inside", "is a file"])
def test_a_foreign_folder_is_refused_by_name_and_left_alone(tmp_path, make):
    out = tmp_path / "photos"
    if make == "file inside":
        out.mkdir()
        (out / "holiday.jpg").write_text("mine")
    else:
        out.write_text("mine")
    with pytest.raises(FileExistsError, match="photos"):
        drawing.draw_miniature(out, 1, 0, 0, workers=1, progress=False)
    assert (out / "holiday.jpg" if out.is_dir() else out).read_text() == "mine"


def test_a_kill_leaves_no_folder_and_the_next_call_cleans_up(tmp_path):
    out = tmp_path / "m"
    code = f"from deepfake_nbs.miniature.drawing import draw_miniature; draw_miniature({str(out)!r}, 40, 0, 0, workers=1, progress=False)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(Path(drawing.__file__).parents[2])}
    )
    staging, deadline = tmp_path / ".m.building", time.monotonic() + 60
    while not list(staging.rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(staging.rglob("*.jpg")) and not out.exists()
    drawing.draw_miniature(out, 1, 0, 0, workers=1, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert len(list((out / "challenge").glob("*/*.jpg"))) == 8


@pytest.mark.parametrize(
    "sizes, message",
    [
        (dict(n_people=1, n_videos=3, n_head_frames=1), "n_videos=3"),
        (dict(n_people=-1, n_videos=2, n_head_frames=1), "n_people=-1"),
        (dict(n_people=1, n_videos=2, n_head_frames=1.5), "n_head_frames=1.5"),
        (dict(n_people=0, n_videos=0, n_head_frames=0), "nothing to draw"),
        (dict(n_people=1, n_videos=2, n_head_frames=1, workers=0), "workers=0"),
    ],
)
def test_sizes_that_make_no_sense_are_named(tmp_path, sizes, message):
    with pytest.raises(ValueError, match=message):
        drawing.draw_miniature(tmp_path / "m", **sizes, progress=False)
    assert not (tmp_path / "m").exists()
