"What `check` takes from folders, how it names what it cannot take, and how much it holds at a time."

import json
import os
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deepfake_nbs.application import pipeline as stages
from deepfake_nbs.application.cli import app, find_photographs
from deepfake_nbs.application.demo import Demo
from deepfake_nbs.application.evidence import THRESHOLDS
from deepfake_nbs.application.models import CLASSIFIER, find_run, untrained_run
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.application.reading import count_pixels
from deepfake_nbs.core import file_sha256, write_json
from deepfake_nbs.images import MAX_PIXELS
from deepfake_nbs.parallel import parallel_map

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
ODD = "a\x1b[31m\r\u202e\u2028b"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "Whole images, no detector."
    return untrained_run(tmp_path_factory.mktemp("run"), head_threshold=None, crop=False)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    import cv2

    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (96, 64))
    for i in range(10):
        writer.write(np.full((64, 96, 3), 20 * i, np.uint8))
    writer.release()
    return path


def draw(path, kind="JPEG", size=(24, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "tan").save(path, kind)
    return path


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def judged(done):
    "Names of the photographs in the table."
    return [
        line.split("  ")[-1].rpartition("/")[2]
        for line in done.stdout.splitlines()[4:]
        if not line.startswith(" " * 25)
    ]


def test_every_image_of_a_folder_and_nothing_else(run, tmp_path):
    names = (
        "a.jpg",
        "b.jfif",
        "c.jpe",
        "d.JPEG",
        "e",
        "f.jpg_large",
        "h.jpg?width=600",
        "sub/g.apng",
        "sub/i.JPG",
    )
    for name in (*names, "._a.jpg", ".ipynb_checkpoints/a.jpg", "__MACOSX/a.jpg", ".thumbnails/a.jpg"):
        draw(tmp_path / "album" / name, "PNG" if name.endswith("apng") else "JPEG")
    draw(tmp_path / "elsewhere" / "linked.jpg")
    (tmp_path / "album" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "album" / "again").symlink_to(tmp_path / "album")
    for name in ("notes.txt", "more.txt", "IMG_1.HEIC"):
        (tmp_path / "album" / name).write_text("no image")
    done = invoke("check", tmp_path / "album", "--run", run)
    assert done.exit_code == 0 and sorted(judged(done)) == sorted(
        name.rpartition("/")[2] for name in (*names, "linked.jpg")
    )
    assert done.stderr == "deepfake-nbs: passed over: 3 files that are no images (2 .txt, 1 .heic)\n"


def test_the_cases_that_came_as_they_are(run):
    if not CASES.is_dir():
        pytest.skip("../shared/cases is not on this machine")
    done = invoke("check", CASES / "folder-endings", "--run", run)
    assert done.exit_code == 0 and {
        "a.jpg",
        "b.jfif",
        "c.jpe",
        "d.JPEG",
        "e",
        "f.jpg_large",
        "g.apng",
        "h.png?width=600",
        "i.mpo",
    } <= {*judged(done)}
    assert judged(invoke("check", CASES / "folder-hidden", "--run", run)) == ["a.jpg"]


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_special_files_are_named_and_never_opened(run, tmp_path, as_json):
    draw(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    for places in ([tmp_path], [tmp_path / "a.jpg", tmp_path / "pipe.jpg", tmp_path / "dangling.jpg"]):
        done = invoke("check", *places, "--run", run, *as_json)
        assert done.exit_code == 1 and done.stdout.count("a.jpg") == 1, done.output
        said = sorted(done.stderr.splitlines())
        assert len(said) == 2 and all(line.startswith("not checked: ") for line in said)
        assert "dangling.jpg: " in said[0] and "pipe.jpg: a " in said[1]
    done = invoke("check", tmp_path / "pipe.jpg", "--run", run)
    assert done.exit_code == 1 and "pipe.jpg" in done.stderr


def test_retrieve_names_what_it_does_not_take(run, tmp_path, video):
    for name in ("gallery/a.png", "gallery/b.png", "album/a.png"):
        draw(tmp_path / name, "PNG")
    os.mkfifo(tmp_path / "album" / "pipe.jpg")
    (tmp_path / "album" / "clip.mp4").write_bytes(video.read_bytes())
    unread = {tmp_path / "album" / "pipe.jpg": "a device, a pipe or a socket; expected an ordinary file"}
    found = find_photographs([tmp_path / "album"], videos=False)
    assert (found.images, found.unreadable) == ([tmp_path / "album" / "a.png"], unread)
    done = invoke("retrieve", tmp_path / "album", "--gallery", tmp_path / "gallery", "--run", run)
    assert (
        done.exit_code == 1
        and "pipe.jpg: " in done.stderr
        and "passed over: 1 video (clip.mp4)" in done.stderr
    )


def test_check_and_retrieve_give_one_reason_for_what_cannot_be_read(run, tmp_path, monkeypatch):
    for name in ("gallery/a.png", "gallery/b.png", "album/c.png"):
        draw(tmp_path / name, "PNG")
    os.symlink("nowhere", tmp_path / "album" / "gone.jpg")
    walk = os.walk

    def locked(
        folder, **more
    ):  # As os.walk reports a folder that may not be entered, which nothing hides from root
        more["onerror"](PermissionError(13, "Permission denied", os.path.join(folder, "locked")))
        return walk(folder, **more)

    monkeypatch.setattr("deepfake_nbs.files.os.walk", locked)
    for command, word in (
        (("check",), "checked"),
        (("retrieve", "--gallery", tmp_path / "index"), "searched"),
    ):
        monkeypatch.setattr("deepfake_nbs.files.os.walk", walk)
        assert invoke("index", tmp_path / "gallery", tmp_path / "index").exit_code == 0
        monkeypatch.setattr("deepfake_nbs.files.os.walk", locked)
        done = invoke(*command, tmp_path / "album", "--run", run)
        assert (done.exit_code, sorted(done.stderr.splitlines())) == (
            1,
            [
                f"not {word}: {tmp_path}/album/gone.jpg: a link to a file that is not there",
                f"not {word}: {tmp_path}/album/locked: cannot be read (Permission denied)",
            ],
        )


@pytest.mark.parametrize(
    "words",
    [
        ("check", ""),
        ("retrieve", "", "--gallery", "g"),
        ("retrieve", "a", "--gallery", ""),
        ("index", "", "o"),
        ("index", "g", ""),
        *(
            (*words, "--run", "")
            for words in (
                ("check", "a"),
                ("retrieve", "a", "--gallery", "g"),
                ("index", "g", "o"),
                ("crop", "d", "o"),
                ("export", "o"),
            )
        ),
    ],
)
def test_an_empty_name_is_never_the_folder_one_stands_in(words):
    done = invoke(*words)
    assert done.exit_code == 2 and "an empty name; expected a file or a folder" in done.stderr


def test_home_stands_for_the_folder_in_every_word_of_every_command(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("album/a.png", "album/b.png", "~$letter.png"):
        draw(tmp_path / name, "PNG")
    assert (
        invoke("index", "~/album", "~/index").exit_code == 0
        and (tmp_path / "index" / "config.json").is_file()
    )
    done = invoke("retrieve", "~/album/a.png", "~$letter.png", "--gallery", "~/index", "--run", run)
    assert (
        done.exit_code == 0
        and f"{tmp_path}/album/a.png\n" in done.stdout
        and "\n~$letter.png\n" in done.stdout
    )
    assert invoke("check", "~/album", "--save=~/evidence", "--run", run).exit_code == 0
    assert len(list((tmp_path / "evidence").iterdir())) == 4 and not (tmp_path / "~").exists()


def test_messages_of_retrieve_are_short_too(run, tmp_path):
    for name in ("gallery/a.png", "gallery/b.png"):
        draw(tmp_path / name, "PNG")
    done = invoke("retrieve", "x" * 6300, "--gallery", tmp_path / "gallery", "--run", run)
    (said,) = done.stderr.splitlines()
    assert done.exit_code == 1 and len(said) < 540 and said.endswith("File name too long)")


@pytest.mark.parametrize(("option", "value"), [("--kind", "nonsense"), ("--similarity", "nonsense")])
def test_index_refuses_an_unknown_word_before_it_reads_an_image(tmp_path, option, value):
    draw(tmp_path / "gallery" / "a.png", "PNG")
    done = invoke("index", tmp_path / "gallery", tmp_path / "out", option, value)
    known = {"--kind": "flat, hnsw, ivfpq", "--similarity": "cosine, euclidean, whitened"}[option]
    assert (done.exit_code, done.stderr) == (
        2,
        f"deepfake-nbs: {option[2:]} 'nonsense': unknown; expected one of {known}\n",
    )
    assert os.listdir(tmp_path) == ["gallery"]


def test_a_folder_without_images_says_what_it_holds(run, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("x")
    done = invoke("check", tmp_path / "letters", "--run", run)
    said = (
        f"deepfake-nbs: {tmp_path}/letters: no image in this folder, but 1 file that is no image (1 .txt)\n"
    )
    assert (done.exit_code, done.stderr) == (2, said)


@pytest.mark.parametrize(
    "words",
    [
        ("check", ""),
        ("check", "{photo}", "--run", ""),
        ("check", "{photo}", "--gallery", ""),
        ("check", "{photo}", "--save", ""),
        ("check", "{photo}", "--model", ""),
        ("export", ""),
        ("retrieve", "", "--gallery", "{photo}"),
        ("retrieve", "{photo}", "--gallery", "{photo}", "--run", ""),
        ("index", "{photo}", "out", "--run", ""),
        ("crop", "{photo}", "out", "--run", ""),
    ],
)
def test_an_empty_name_is_an_error(run, tmp_path, words, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Where an empty name would mean this folder
    photo = draw(tmp_path / "a.jpg")
    done = invoke(*(word.format(photo=photo) for word in words))
    assert done.exit_code == 2 and "an empty name" in done.stderr and list(tmp_path.iterdir()) == [photo]


def test_videos_are_judged_by_name_and_in_folders(run, tmp_path, video):
    album = tmp_path / "album"
    draw(album / "a.jpg")
    (album / "clip.mp4").write_bytes(video.read_bytes())
    (album / "broken.MOV").write_bytes(b"no film")
    done = invoke("check", album, "--run", run, "--save", tmp_path / "saved")
    lines = done.stdout.splitlines()
    assert (
        done.exit_code == 1
        and "clip.mp4 (video, mean of 10 frames)" in done.stdout
        and "broken.MOV" in done.stderr
    )
    right = Pipeline.load(run).check_video(album / "clip.mp4")
    assert (
        float(lines[-1].split()[0]) == pytest.approx(right.mean, abs=6e-4)
        and lines[-1].split()[1] == right.verdict
    )
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        "0000-a.json",
        "0000-a.png",
        "0002-clip.json",
        "0002-clip.png",
    ]
    done = invoke("check", album / "clip.mp4", "--run", run, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["mean"] == pytest.approx(right.mean)
    assert json.loads(done.stdout)["video"] == str(album / "clip.mp4")


def test_an_image_that_is_called_a_video_is_an_image(run, tmp_path):
    done = invoke("check", draw(tmp_path / "a.mp4"), "--run", run)
    assert done.exit_code == 0 and "video" not in done.stdout


def test_names_never_reach_the_terminal_raw(run, tmp_path):
    (tmp_path / f"{ODD}.jpg").write_text("no image")
    draw(tmp_path / f"{ODD}.png", "PNG")
    (tmp_path / f"{ODD}.mp4").write_text("no film")
    (tmp_path / f"{ODD}.pdf").write_text("a letter")
    for words in (
        ("check", tmp_path),
        ("check", tmp_path / f"{ODD}.gone"),
        ("check", tmp_path, "--run", tmp_path / ODD),
        ("check", tmp_path, "--model", tmp_path / ODD),
        ("check", tmp_path, "--gallery", tmp_path / ODD),
        ("retrieve", tmp_path, "--gallery", tmp_path / ODD),
        ("export", tmp_path / "out", "--run", tmp_path / ODD),
        ("check", tmp_path, "--backend", ODD),
        ("check", tmp_path, "--save", tmp_path / f"{ODD}.png"),
    ):
        done = invoke(*words, *([] if "--run" in words else ["--run", run]))
        assert done.exit_code in (1, 2) and done.stderr, words
        assert all(line.isprintable() for line in done.output.split("\n")), (words, done.output)
    assert r"a\x1b[31m\r\u202e\u2028b.jpg: " in invoke("check", tmp_path, "--run", run).stderr


def test_long_names_and_choices_stay_readable(run, tmp_path):
    photo, long = draw(tmp_path / "a.jpg"), "x/" * 3150
    for words in (
        ("check", long, photo),
        ("check", photo, "--run", long),
        ("check", photo, "--model", long),
        ("check", photo, "--gallery", long),
        ("check", photo, "--save", long * 2),
        ("check", photo, "--backend", long),
    ):
        done = invoke(*words, *([] if "--run" in words else ["--run", run]))
        assert done.exit_code in (1, 2) and done.stderr.count("\n") == 1 and len(done.stderr) < 600, (
            words[2:],
            done.stderr,
        )
    done = invoke("check", long, photo, "--run", run)
    assert (
        done.exit_code == 1 and judged(done) == ["a.jpg"] and done.stderr.endswith("(File name too long)\n")
    )


def test_a_folder_that_may_not_be_entered_is_one_line(run, tmp_path, monkeypatch):
    "Root may enter every folder, so the refusal is played."
    photo, stat = draw(tmp_path / "a.jpg"), os.stat
    draw(tmp_path / "closed" / "b.jpg")

    def refuse(path, *words, **named):
        if "closed/" in os.fsdecode(path if not isinstance(path, int) else ""):
            raise PermissionError(13, "Permission denied", os.fsdecode(path))
        return stat(path, *words, **named)

    monkeypatch.setattr(os, "stat", refuse)
    done = invoke("check", tmp_path / "closed", photo, "--run", run)
    assert done.exit_code == 1 and judged(done) == ["a.jpg"]
    assert done.stderr.count("\n") == 1 and "closed/b.jpg: cannot be read (Permission denied)" in done.stderr
    done = invoke("check", photo, "--run", tmp_path / "closed")
    said = "closed/models/classifier/config.json: cannot be read (Permission denied)\n"
    assert done.exit_code == 2 and done.stderr.endswith(said), "it may well be there"


def test_home_that_is_not_known(run, tmp_path, monkeypatch):
    photo = draw(tmp_path / "a.jpg")
    for words in (("--run", "~no_such_user/run"), ("--model", "~no_such_user/m")):
        done = invoke("check", photo, *words)
        assert done.exit_code == 2 and "the folder that ~no_such_user stands for is not known" in done.stderr
    monkeypatch.chdir(tmp_path)
    untrained_run(tmp_path / "~no_such_user")
    assert find_run("~no_such_user") == tmp_path / "~no_such_user", "a file of this name is no home"


def test_evidence_on_a_full_disk_is_whole_or_absent(run, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (200, 300, 3), np.uint8)).save(tmp_path / "a.png")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (20_000, hard)
    )  # A file that grows beyond it cannot be written, as on a full disk
    try:
        done = invoke("check", tmp_path / "a.png", "--run", run, "--save", tmp_path / "saved")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.exit_code == 1 and done.stderr.startswith(
        f"not saved: {tmp_path}/a.png: {tmp_path}/saved/0000-a.png: File too large"
    )
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["0000-a.json"]


@pytest.mark.parametrize(
    "limits", [(0.7, 0.3), (float("nan"), 1.0), (0.0, float("inf")), ("a", 1.0), (None, 0.5)]
)
def test_thresholds_of_nonsense_by_hand(run, tmp_path, limits):
    answer = Pipeline.load(run).check(draw(tmp_path / "a.jpg"))
    with pytest.raises(ValueError, match="thresholds are"):
        answer.with_thresholds(*limits)
    assert answer.with_thresholds(0.0, 1.0).verdict == "unsure"


def test_the_demo_opens_with_thresholds_outside_the_slider(tmp_path):
    place = untrained_run(tmp_path / "run", head_threshold=None, crop=False)
    kept = dict(real_below=5.0, fake_above=9.0, origin="by hand")
    write_json(place / THRESHOLDS, {file_sha256(place / CLASSIFIER / "model.safetensors"): kept})
    demo = Demo(place)
    assert demo.pipeline is not None and demo.limits == (1.0, 1.0)
    demo.take([("<b>.jpg", lambda: Image.open(draw(tmp_path / "<b>.jpg")))])
    assert "&lt;b&gt;.jpg" in demo.answer.value and "<b>.jpg" not in demo.answer.value


# --- How much is held -------------------------------------------------------------------------------------------------


def test_what_is_worked_on_ahead_is_bounded_by_weight():
    weights, alive, most, lock = [10, 60, 1, 1, 1, 40, 40, 90, 1, 1], [0], [0], threading.Lock()

    def work(weight):
        with lock:
            alive[0] += weight
            most[0] = max(most[0], alive[0])
        return weight

    with ThreadPoolExecutor(2) as pool:
        found = []
        ahead = dict(read_ahead=4, weigh=lambda weight: weight * 1_000_000, most=MAX_PIXELS)
        for weight in parallel_map(work, weights, pool=pool, **ahead):
            with lock:
                alive[0] -= weight
            found.append(weight)
    assert found == weights, "in order, and the one that is heavier than all may be is worked on alone"
    assert most[0] <= 90 + 1, "64 together, or one that is heavier"


def test_a_header_says_how_much_a_photograph_will_hold(tmp_path):
    assert count_pixels(draw(tmp_path / "a.jpg", size=(300, 200))) == 60_000
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "broken.jpg").write_text("no image")
    assert [count_pixels(tmp_path / name) for name in ("pipe.jpg", "broken.jpg", "gone.jpg", "\0", ".")] == [
        0
    ] * 5
    with open(tmp_path / "sparse.webp", "wb") as file:
        file.write(b"RIFF\xff\xff\xff\xbfWEBPVP8 ")
        file.truncate(3 * 2**30)
    assert count_pixels(tmp_path / "sparse.webp") == 0, "refused by its size, never read to find out"


def test_judged_photographs_are_let_go(run, tmp_path, monkeypatch):
    kept, finish = [], stages.finish_photo
    monkeypatch.setattr(
        stages,
        "finish_photo",
        lambda photo, *more: kept.append((photo.image, photo.square)) or finish(photo, *more),
    )
    assert len(list(Pipeline.load(run).check_many([draw(tmp_path / f"{i}.jpg") for i in range(6)]))) == 6
    assert kept == [(None, None)] * 6


def test_the_limits_are_said():
    assert "64 megapixels a photograph" in " ".join(invoke("check", "--help").stdout.split())


# --- The page on own faces --------------------------------------------------------------------------------------------


def test_07a_walks_as_check_does(root, tmp_path, video, monkeypatch, capsys):
    album = tmp_path / "album"
    for name in ("a.jfif", "._a.jfif", "sub/b"):
        draw(album / name)
    os.mkfifo(album / "pipe.jpg")
    (album / "clip.mp4").write_bytes(video.read_bytes())
    (album / "letter.txt").write_text("x")
    notebook = root / "nbs" / "07_our_faces.ipynb"
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"]}
    pipeline = Pipeline.load(untrained_run(tmp_path / "run", head_threshold=None, crop=False))
    names = dict(
        photographs=str(album), trained=True, pipeline=pipeline, gallery=None, display=lambda shown: None
    )
    exec(cells["c003"].replace("Markdown, display", "Markdown"), names)
    exec(cells["c021"].replace("Markdown(", "said = (", 1), names)
    assert [Path(photo.name).name for photo in names["own"]] == ["a.jfif", "b"] and len(
        names["classified"]
    ) == 2
    assert names["said"].split("\n") == [
        "- not classified: a device, a pipe or a socket; expected an ordinary file (`pipe.jpg`)",
        "- a video, for `deepfake-nbs check`: `clip.mp4`",
        "- passed over: 1 file that is no image (1 .txt)",
    ]
