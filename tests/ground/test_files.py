"Folders as people have them, and tables that come back as they were."

import json
import os
import stat
import subprocess
import sys

import pandas as pd
import pytest
from PIL import Image

from deepfake_nbs.core import printable, whole_file, write_json, write_text
from deepfake_nbs.files import find_files, read_table, write_table


def draw(path, form="JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path, form)
    return path


def test_every_ending_that_pillow_reads_is_taken_and_the_rest_is_counted(tmp_path):
    forms = {
        "a.jpg": "JPEG",
        "b.jfif": "JPEG",
        "c.jpe": "JPEG",
        "d.JPEG": "JPEG",
        "e": "JPEG",
        "f.jpg_large": "JPEG",
        "g.apng": "PNG",
        "h.png?width=600": "PNG",
    }
    for name, form in forms.items():
        draw(tmp_path / name, form)
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "notes.txt").write_text("hello")
    found = find_files(tmp_path)
    assert [path.name for path in found.images] == sorted(forms)
    assert found.passed_over() == "2 files that are no images (1 .heic, 1 .txt)" and not found.unreadable


def test_hidden_files_are_left_out_and_links_are_followed_once(tmp_path):
    for name in (
        "a.jpg",
        "._a.jpg",
        "__MACOSX/a.jpg",
        "__MACOSX/._a.jpg",
        ".ipynb_checkpoints/a-checkpoint.jpg",
        ".thumbnails/a.jpg",
    ):
        draw(tmp_path / "album" / name)
    draw(tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "album" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "album" / "circle").symlink_to(tmp_path / "album")
    found = find_files(tmp_path / "album")
    assert [path.relative_to(tmp_path / "album").as_posix() for path in found.images] == [
        "a.jpg",
        "linked/b.jpg",
    ]
    assert not found.unreadable and not found.passed_over()


def test_special_files_are_named_and_never_opened(tmp_path):
    draw(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "film.MP4").write_bytes(b"x")
    found = find_files(tmp_path)
    assert [path.name for path in found.images] == ["a.jpg"] and [path.name for path in found.videos] == [
        "film.MP4"
    ]
    reasons = {path.name: reason for path, reason in found.unreadable.items()}
    assert reasons == dict.fromkeys(
        ("pipe", "pipe.jpg"), "a device, a pipe or a socket; expected an ordinary file"
    ) | {"gone.jpg": "a link to a file that is not there"}


def test_a_folder_that_may_not_be_entered_is_named_and_the_walk_continues(tmp_path, monkeypatch):
    draw(tmp_path / "a.jpg")
    draw(tmp_path / "locked" / "b.jpg")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_files(tmp_path)
    assert [path.name for path in found.images] == ["a.jpg"]
    assert found.unreadable == {tmp_path / "locked": "cannot be read (Permission denied)"}


@pytest.mark.parametrize(
    "word",
    [
        "NA",
        "None",
        "null",
        "nan",
        "NaN",
        "N/A",
        "",
        "007",
        "1e5",
        " a ",
        "a,b",
        'say "x"',
        "a\rb",
        "a\nb",
        "a\r\nb",
        "\x1b[2J",
        "\u2028",
        os.fsdecode(b"caf\xe9"),
    ],
)
def test_a_text_comes_back_as_it_was(tmp_path, word):
    frame = pd.DataFrame({"name": [word, "plain"], "value": [0.5, float("nan")]})
    back = read_table(write_table(frame, tmp_path / "table.csv"), numbers=("value",))
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "not a table"),
        ("a,b\n1,2\n", "lacks the columns value"),
        ("name,value\nx,much\n", "line 2, column value: 'much'; expected a number"),
    ],
)
def test_a_bad_table_is_named(tmp_path, text, words):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        read_table(tmp_path / "table.csv", numbers=("value",), required=("value",))
    assert "table.csv" in str(error.value)


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_is_as_readable_as_the_user_wants_it(tmp_path, umask, mode):
    code = f"import os; os.umask({umask}); from deepfake_nbs.core import write_text; write_text('x.txt', 'x')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert stat.S_IMODE((tmp_path / "x.txt").stat().st_mode) == mode


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path):
    kept = write_text(tmp_path / "x.txt", "old")
    with pytest.raises(OSError, match=r"No space left on device: .*x\.txt"), whole_file(kept) as file:
        file.write(b"half")
        raise OSError(28, "No space left on device")
    assert kept.read_text() == "old" and os.listdir(tmp_path) == ["x.txt"]


def test_json_holds_no_nan(tmp_path):
    text = write_json(
        tmp_path / "a.json",
        {"loss": [1.0, float("nan")], "best": float("inf"), "more": (float("-inf"), "NaN")},
    ).read_text()

    def refuse(word):
        raise AssertionError(word)

    assert json.loads(text, parse_constant=refuse) == {
        "loss": [1.0, None],
        "best": None,
        "more": [None, "NaN"],
    }


@pytest.mark.parametrize(
    "raw, shown",
    [
        ("ümläut 写真.jpg", "ümläut 写真.jpg"),
        ("a\x1b]0;x\x07.jpg", r"a\x1b]0;x\x07.jpg"),
        ("a\rb", r"a\rb"),
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        ("a\u2028b", r"a\u2028b"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
    ],
)
def test_names_reach_the_terminal_spelled_out(raw, shown):
    assert printable(raw) == shown
    printable(raw).encode("utf-8")
