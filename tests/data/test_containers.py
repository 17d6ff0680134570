"Videos as they come: headers that promise another number, files that were cut, mirrored films, odd names."

import json
import os
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from deepfake_nbs.data import video
from deepfake_nbs.data.containers import VideoError, _mp4_boxes, find_mirror
from deepfake_nbs.data.manifest import as_manifest
from deepfake_nbs.data.video import extract_frames, read_frames, save_frames, spread


CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "video"


CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "MJPG", ".webm": "VP80", ".wmv": "WMV2"}


def draw(path, n=20, size=(48, 32)):
    "A clip whose frame number can be read off its brightness; the four corners differ."
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*CODECS[path.suffix]), 25, size)
    assert writer.isOpened()
    corners = np.zeros((size[1], size[0], 3))
    corners[: size[1] // 2, : size[0] // 2] = 40  # Above, on the left
    for number in range(n):
        writer.write((corners + 10 * (number % 20)).astype(np.uint8))
    writer.release()
    return path


def numbers_seen(frames):
    "The numbers that were drawn, read off the dark part of each frame."
    return [
        round(frame[frame.shape[0] // 2 + 4 :, frame.shape[1] // 2 + 4 :].mean() / 10)
        for frame in frames.values()
    ]


def patch(path, find, offset, value):
    "Overwrite bytes behind the first place where `find` stands."
    data = bytearray(path.read_bytes())
    at = data.index(find) + offset
    data[at : at + len(value)] = value
    path.write_bytes(data)


def index_first(path):
    "An mp4 as it is served: the index before the media, so that its first part opens."
    data, at, boxes = path.read_bytes(), 0, {}
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        boxes[data[at + 4 : at + 8]] = data[at : at + size]
        at += size
    moov = bytearray(boxes[b"moov"])
    place = moov.index(b"stco")
    for i in range(int.from_bytes(moov[place + 8 : place + 12], "big")):
        at = place + 12 + 4 * i
        moov[at : at + 4] = (int.from_bytes(moov[at : at + 4], "big") + len(moov)).to_bytes(4, "big")
    path.write_bytes(
        boxes[b"ftyp"] + moov + b"".join(boxes[name] for name in boxes if name not in (b"ftyp", b"moov"))
    )


def promises(path):
    with video._opened(path) as capture:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT))


def more_in_the_header(path):
    "The same clip, with a header that promises more."
    if path.suffix == ".avi":
        patch(path, b"avih", 8 + 16, struct.pack("<I", 90))
        patch(path, b"strh", 8 + 32, struct.pack("<I", 90))
    elif path.suffix in (".mkv", ".webm"):  # Duration, a float of 8 bytes
        patch(path, b"\x44\x89\x88", 3, struct.pack(">d", 9000.0))
    else:  # The last sample of an mp4 holds nothing
        data = path.read_bytes()
        at = data.index(b"stsz") + 16
        sizes = struct.unpack(f">{(n := int.from_bytes(data[at - 4 : at], 'big'))}I", data[at : at + 4 * n])
        end = data.index(b"stco") + 12
        first = int.from_bytes(data[end : end + 4], "big")
        path.write_bytes(data[: first + sum(sizes[:-1])] + bytes(sizes[-1]) + data[first + sum(sizes) :])


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".webm"])
def test_a_header_that_promises_more_changes_nothing(tmp_path, suffix):
    whole, other = draw(tmp_path / f"whole{suffix}"), draw(tmp_path / f"other{suffix}")
    more_in_the_header(other)
    assert promises(whole) == 20 and promises(other) > 60
    for n, numbers in {
        1: [10],
        3: [3, 10, 16],
        8: [1, 3, 6, 8, 11, 13, 16, 18],
        20: list(range(20)),
        99: list(range(20)),
    }.items():
        for path in (whole, other):
            frames = read_frames(path, n)
            assert list(frames) == numbers == numbers_seen(frames)


@pytest.mark.parametrize("n_drawn", [2, 5, 20])
def test_a_last_frame_that_does_not_decode_is_not_counted(tmp_path, n_drawn):
    path = draw(tmp_path / "a.mp4", n_drawn)
    more_in_the_header(path)
    assert promises(path) == n_drawn
    for n in (1, 2, 4, 5, 8, 19, 20, 21, 1000):
        assert list(read_frames(path, n)) == spread(n_drawn - 1, n)
        assert save_frames(path, tmp_path / "frames", n) == spread(n_drawn - 1, n)


def test_what_an_edit_list_cuts_away_is_not_sampled(tmp_path):
    "As `ffmpeg -c copy -ss` leaves it: all samples are stored, the first 12 are not shown."
    path = draw(tmp_path / "a.mp4")
    data = path.read_bytes()
    at = data.index(b"elst") + 12
    duration, _ = struct.unpack(">Ii", data[at : at + 8])
    scale = data.index(b"mdhd") + 16
    ticks = int.from_bytes(data[scale : scale + 4], "big")
    path.write_bytes(data[:at] + struct.pack(">Ii", duration * 8 // 20, ticks * 12 // 25) + data[at + 8 :])
    assert promises(path) == 20
    for n, numbers in {1: [4], 4: [1, 3, 5, 7], 30: list(range(8))}.items():
        frames = read_frames(path, n)
        assert list(frames) == numbers and numbers_seen(frames) == [12 + number for number in numbers]


@pytest.mark.parametrize("start, end", [(50, 51), (50, 150)])
def test_damage_in_the_middle_does_not_end_a_video(tmp_path, start, end):
    path = draw(tmp_path / "a.mp4", n=200)
    data = path.read_bytes()
    at = data.index(b"stsz") + 16
    sizes = struct.unpack(">200I", data[at : at + 800])
    first = data.index(b"mdat") + 4
    hole, rest = first + sum(sizes[:start]), first + sum(sizes[:end])
    path.write_bytes(data[:hole] + bytes(rest - hole) + data[rest:])
    n = 200 - (end - start)
    assert list(read_frames(path, 1000)) == list(range(n))
    assert list(read_frames(path, 2)) == spread(n, 2)


def test_one_frame_is_a_video(tmp_path):
    for suffix in CODECS:
        assert list(read_frames(draw(tmp_path / f"a{suffix}", n=1))) == [0]


def test_the_cases(tmp_path):
    if not CASES.is_dir():
        pytest.skip("../shared/cases is not on this machine")
    decode = {
        "slow.webm": 120,
        "slow.mkv": 120,
        "still.webm": 120,
        "avi8.avi": 8,
        "n5-last-broken.mp4": 4,
        "n20-last-broken.mp4": 19,
        "hflip.mp4": 120,
        "vflip.mp4": 120,
        "rot90.mp4": 120,
        "scene:1.mp4": 120,
    }
    for name, n_frames in decode.items():
        for n in (1, 4, 8, 30, 1000):
            assert list(read_frames(CASES / name, n)) == spread(n_frames, n)
    straight = read_frames(CASES / "scene:1.mp4", 3)
    for name, turn in {"hflip.mp4": np.fliplr, "vflip.mp4": np.flipud, "rot90.mp4": np.rot90}.items():
        for number, frame in read_frames(CASES / name, 3).items():
            np.testing.assert_array_equal(frame, turn(straight[number]))


def test_fewer_than_one_frame_is_refused(tmp_path):
    with pytest.raises(ValueError, match="n_frames is 0; expected at least 1"):
        read_frames(draw(tmp_path / "a.mp4"), 0)


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("part", [0.5, 0.9, 0.999])
def test_a_container_that_ends_early_is_refused_whatever_is_asked(tmp_path, suffix, part):
    path = draw(tmp_path / f"a{suffix}", size=(160, 96))
    if suffix == ".mp4":
        index_first(path)
    data = path.read_bytes()
    for n in (1, 20):
        assert list(read_frames(path, n)) == spread(20, n)
    path.write_bytes(data[: int(len(data) * part)])
    for n in (1, 2, 20, 1000):
        with pytest.raises(
            VideoError,
            match=rf"a\{suffix}: truncated: {int(len(data) * part)} bytes of {len(data)} are there",
        ):
            read_frames(path, n)


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_a_stream_of_unknown_length(tmp_path, suffix):
    "A recording of a browser: no length for the whole; the last element tells."
    path = draw(tmp_path / f"a{suffix}", size=(160, 96))
    patch(path, bytes.fromhex("18538067"), 4, b"\x01" + b"\xff" * 7)
    assert list(read_frames(path, 4)) == [2, 7, 12, 17]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(VideoError, match="truncated"):
        read_frames(path, 4)


def test_an_avi_whose_length_was_never_written(tmp_path):
    path = draw(tmp_path / "a.avi")
    patch(path, b"RIFF", 4, bytes(4))
    assert list(read_frames(path, 4)) == [2, 7, 12, 17]


def test_media_may_go_on_to_the_end_of_the_file(tmp_path):
    path = draw(tmp_path / "a.mp4")
    index_first(path)
    patch(path, b"mdat", -4, bytes(4))
    assert list(read_frames(path, 4)) == [2, 7, 12, 17]


@pytest.mark.parametrize("suffix", CODECS)
def test_space_that_was_set_aside_and_never_filled(tmp_path, suffix):
    path = draw(tmp_path / f"a{suffix}", size=(160, 96))
    if suffix == ".mp4":
        index_first(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10].ljust(len(data), b"\0"))
    for n in (1, 8, 99):
        with pytest.raises(VideoError, match=r"truncated: the file ends in zeros, \d+ frames decode of 20"):
            read_frames(path, n)


def test_a_frame_larger_than_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MAX_PIXELS", 1000)
    with pytest.raises(VideoError, match=r"frames of 0 megapixels; at most 0 are read"):
        read_frames(draw(tmp_path / "a.mp4"))


TURNS = {  # a, b, c, d of the matrix, and what a player shows
    (1, 0, 0, 1): lambda x: x,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda x: x.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda x: np.rot90(np.fliplr(x), -1),
}


def set_matrix(path, box, matrix):
    "Of the track (tkhd) or of the whole film (mvhd)."
    a, b, c, d = (65536 * value for value in matrix)
    patch(path, box, {b"tkhd": 44, b"mvhd": 40}[box], struct.pack(">5i", a, b, 0, c, d))


@pytest.mark.parametrize("matrix", TURNS)
@pytest.mark.parametrize("box", [b"tkhd", b"mvhd"])
def test_films_are_shown_as_a_player_shows_them(tmp_path, matrix, box):
    path = draw(tmp_path / "a.mp4")
    straight = read_frames(path, 3)
    set_matrix(path, box, matrix)
    for number, frame in read_frames(path, 3).items():
        np.testing.assert_array_equal(frame, TURNS[matrix](straight[number]))


def test_track_and_film_may_both_turn(tmp_path):
    path = draw(tmp_path / "a.mp4")
    straight = read_frames(path, 1)[10]
    set_matrix(path, b"tkhd", (-1, 0, 0, 1))
    set_matrix(path, b"mvhd", (0, 1, -1, 0))  # Mirrored first, then a quarter turn
    np.testing.assert_array_equal(read_frames(path, 1)[10], np.rot90(np.fliplr(straight), -1))
    set_matrix(path, b"mvhd", (-1, 0, 0, 1))  # Mirrored twice
    np.testing.assert_array_equal(read_frames(path, 1)[10], straight)


def test_saved_frames_are_mirrored_alike(tmp_path):
    path = draw(tmp_path / "a.mp4")
    set_matrix(path, b"tkhd", (-1, 0, 0, 1))
    (number,) = save_frames(path, tmp_path / "frames", 1)
    saved = cv2.imread(str(tmp_path / "frames" / f"{number:06d}.png"))[..., ::-1]
    np.testing.assert_array_equal(saved, read_frames(path, 1)[number])
    assert saved[:16, 24:].mean() > saved[:16, :24].mean() + 20  # The bright corner stands on the right


def test_a_mirrored_matroska_is_refused_by_name(tmp_path):
    yaw = bytes.fromhex("7673") + b"\x84" + struct.pack(">f", 180.0)
    turned = bytes.fromhex("7670") + bytes([0x80 | len(yaw)]) + yaw
    video = b"\xe0" + bytes([0x80 | len(turned)]) + turned
    track = b"\xae" + bytes([0x80 | len(video)]) + video
    tracks = bytes.fromhex("1654ae6b") + bytes([0x80 | len(track)]) + track
    data = bytes.fromhex("1a45dfa380") + bytes.fromhex("18538067") + bytes([0x80 | len(tracks)]) + tracks
    (tmp_path / "a.mkv").write_bytes(data)
    with pytest.raises(VideoError, match=r"a\.mkv: mirrored by its ProjectionPoseYaw"):
        find_mirror(tmp_path / "a.mkv")
    (tmp_path / "a.mkv").write_bytes(data.replace(struct.pack(">f", 180.0), struct.pack(">f", 0.0)))
    assert find_mirror(tmp_path / "a.mkv") is None


_ODD = [
    "scene:1.mp4",
    "./scene:1.mp4",
    "http:a.mp4",
    "concat:a.mp4",
    "-i.mp4",
    "a%03d.mp4",
    "file:a.mp4",
    "é 人.mp4",
]


@pytest.mark.parametrize("name", [*_ODD, os.fsdecode(b"na\xefve.mp4"), "a\x1b[31m\u202e\n.mp4"])
def test_a_file_that_is_there_is_no_address(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copy(draw(tmp_path / "drawn.mp4"), name)
    assert list(read_frames(name, 4)) == [2, 7, 12, 17]
    assert list(read_frames(tmp_path / name, 4)) == [2, 7, 12, 17]


def test_names_are_printed_as_the_rest_of_the_project_prints_them(tmp_path):
    with pytest.raises(VideoError) as error:
        read_frames(tmp_path / "a\x1b[31m\u202e\r.mp4")
    assert (
        str(error.value).endswith(r"a\x1b[31m\u202e\r.mp4: no such file") and str(error.value).isprintable()
    )


def test_only_ordinary_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "text").write_text("a text")
    said = {
        "pipe.mp4": "a folder, a pipe or a device; expected a video file",
        "link.mp4": "a link to a file that is not there",
        "loop.mp4": r"cannot be read \(Too many levels",
        "text/a.mp4": "no such file",
        "a\0.mp4": r"cannot be read \(embedded null",
        "a" * 300 + ".mp4": r"cannot be read \(File name too long",
    }
    for name, reason in said.items():
        with pytest.raises(VideoError, match=reason):
            read_frames(tmp_path / name)
    rows = as_manifest([dict(path=name, label=0) for name in ("pipe.mp4", "link.mp4")])
    _, rejected = extract_frames(rows, tmp_path, tmp_path / "frames", 2, progress=False)
    assert rejected["reason"].tolist() == [said["pipe.mp4"], said["link.mp4"]]


def test_a_video_that_may_not_be_read(tmp_path, monkeypatch):
    path = draw(tmp_path / "a.mp4")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(video, "told_end", refuse)
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be read \(Permission denied\)"):
        read_frames(path)


@pytest.mark.parametrize("rule", [None, "as the header promises"])
def test_frames_of_an_earlier_rule_are_taken_again(tmp_path, rule):
    path, folder = draw(tmp_path / "a.mp4"), tmp_path / "frames"
    assert save_frames(path, folder, 2) == [5, 15]
    note = json.loads((folder / "frames.json").read_text())
    note = {key: value for key, value in note.items() if key != "rule"} | ({"rule": rule} if rule else {})
    (folder / "frames.json").write_text(json.dumps(note | {"numbers": [5]}))
    assert save_frames(path, folder, 2) == [5, 15]


def test_a_full_disk_names_the_frame(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    path = draw(tmp_path / "a.mp4")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*frames/000005\.png'"):
        save_frames(path, tmp_path / "frames", 2)
    assert list((tmp_path / "frames").iterdir()) == []


def test_long_mp4_boxes(tmp_path):
    long_box = (1).to_bytes(4, "big") + b"mdat" + (24).to_bytes(8, "big") + b"12345678"
    (tmp_path / "a.mp4").write_bytes(
        (8).to_bytes(4, "big") + b"ftyp" + long_box + (8).to_bytes(4, "big") + b"moov"
    )
    with open(tmp_path / "a.mp4", "rb") as file:  # Name, where the content begins, where the box ends
        assert list(_mp4_boxes(file, 0, 40)) == [("ftyp", 8, 8), ("mdat", 24, 32), ("moov", 40, 40)]
