"The table of `check` at a terminal and in a pipe, and the sentences of the pages."

import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from deepfake_nbs.application.evidence import Evidence, HeadPrediction, Match, Thresholds
from deepfake_nbs.application.examples import Pair
from deepfake_nbs.application.models import untrained_run
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.application.report import (
    ColourTable,
    PlainTable,
    counts_sentence,
    describe_networks,
    example_sentence,
    frame_text,
    own_photographs_text,
    pairs_sentence,
    photo_row,
    verdicts_sentence,
    video_label,
    video_row,
    video_table,
    videos_sentence,
)
from deepfake_nbs.application.video import VideoEvidence
from deepfake_nbs.files import FoundFiles

COMMAND = Path(sys.executable).with_name("deepfake-nbs")
LIMITS = Thresholds(0.2, 0.7, "an example")
HEADS = tuple(
    HeadPrediction((10 * i, 0, 10 * i + 9, 9), 0.9, p, word)
    for i, p, word in ((0, 0.1, "real"), (1, 0.8, "fake"))
)
TWO = Evidence(
    "two [bold]people.jpg",
    (60, 60),
    "head",
    0.1,
    "real",
    "",
    HEADS,
    0,
    ("head 2 is",),
    LIMITS,
    {},
    {},
    {},
    (Match("twin.jpg", 0.98, "real"),),
)
FILM = VideoEvidence(
    "b.mp4", (0, 1), (None, None), (0.6, None), 0.6, (0.6, 0.6, 0.6), "unsure", "", (), LIMITS, {}, {}, {}
)
PAIR = Pair("FaceSwap", "train", Path("a.png"), Path("b.png"), "faceforensics/a.mp4", "faceforensics/b.mp4")


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture
def album(tmp_path):
    untrained_run(tmp_path / "run", head_threshold=None, crop=False)
    Image.new("RGB", (40, 30), "tan").save(tmp_path / "a.png")
    return [COMMAND, "check", tmp_path / "a.png", "--run", tmp_path / "run"]


def at_a_terminal(words, **changes):
    "What a command prints where standard output is a terminal."
    ours, theirs = pty.openpty()
    environment = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")
    }
    environment |= {"TERM": "xterm-256color", "COLUMNS": "200"} | changes
    done = subprocess.Popen(words, stdout=theirs, env=environment)
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 10_000):
            parts.append(part)
    except OSError:  # The other end is closed
        pass
    os.close(ours)
    assert done.wait() == 0
    return b"".join(parts).decode().replace("\r\n", "\n")


def test_colours_stand_at_a_terminal_alone_and_the_facts_are_the_same(album):
    piped = subprocess.run(album, capture_output=True, text=True, check=True).stdout
    shown, without = at_a_terminal(album), at_a_terminal(album, NO_COLOR="1")
    assert "\x1b" not in piped and "\x1b[" in shown
    assert not re.search(r"\x1b\[[0-9;]*(3[0-8]|9[0-7])[;m]", without), "bold may stay, colours may not"
    for text in (shown, without):
        assert plain(text).split() == piped.split()


def test_names_are_no_markup_and_long_ones_are_whole():
    long = replace(TWO, photo=f"{'x' * 300}[red].jpg")
    for table in (PlainTable(), ColourTable()):
        assert "two [bold]people.jpg" in plain(table.row(photo_row(TWO)))
        assert "".join(plain(table.row(photo_row(long))).split()).count("x" * 300 + "[red].jpg") == 1
        words = plain(table.row(photo_row(TWO)))
        for fact in (
            "0.100",
            "real",
            "head 2 at 10, 0, 19, 9: 0.800 fake",
            "like twin.jpg (real, similarity 0.980)",
            "head 2 is",
        ):
            assert fact in words


def test_what_was_not_classified_has_no_number():
    nothing = replace(
        TWO,
        probability=None,
        verdict=None,
        heads=(),
        main_head=None,
        matches=(),
        notes=(),
        reason="no head was found",
    )
    for table in (PlainTable(), ColourTable()):
        assert plain(table.row(photo_row(nothing))).split() == [
            "-",
            "-",
            "0",
            *TWO.photo.split(),
            "no",
            "head",
            "was",
            "found",
        ]
    assert "(video, mean of 2 frames)" in PlainTable().row(video_row(FILM))


def test_the_head_of_the_table_names_the_network(tmp_path):
    facts = describe_networks(Pipeline.load(untrained_run(tmp_path, crop=False, head_threshold=None, row=8)))
    assert facts["model"] == "light, run 8 of Table 1, trained on nothing"
    assert facts["input"] == "whole image (heads are shown, not scored); this run has no head detector"
    assert facts["verdicts"].startswith("real up to 0.500, fake from 0.500, otherwise unsure (")


def test_tables_are_plain_in_a_pipe():
    frame = pd.DataFrame(dict(split=["train"], real=[10]))
    assert frame_text(frame, index=False) == frame.to_string(index=False)


@pytest.mark.parametrize(
    "name, verdict, one_person, expected",
    [
        ("fake: FFHQ", "real", True, "This fake is missed, and the detector adds one false box."),
        (
            "fake: FFHQ",
            "real",
            False,
            "This fake is missed; the detector found 2 heads, and the verdict is that of the largest.",
        ),
        ("fake: FFHQ", "fake", True, "This verdict is right, and the detector adds one false box."),
        ("real: FFHQ", "real", True, "This verdict is right, and the detector adds one false box."),
        ("real: FFHQ", "fake", True, "This is a false alarm, and the detector adds one false box."),
        ("real: FFHQ", "unsure", True, "The question stays open, and the detector adds one false box."),
    ],
)
def test_an_example_says_whether_it_is_right(name, verdict, one_person, expected):
    said = example_sentence(name, replace(TWO, verdict=verdict), one_person)
    assert said == f"{name}: P(fake) 0.100, *{verdict}*. {expected}"
    assert "keeps no example" in example_sentence("", None)


def test_the_sentences_of_the_page_on_own_faces(tmp_path):
    assert pairs_sentence([PAIR], "data/mine", True) == "1 pairs of original and fake."
    assert "`data/mine` holds no fake video together with its original" in pairs_sentence(
        [], "data/mine", True
    )
    assert "no trained classifier yet" in pairs_sentence([], "data/mine", False)
    verdicts, truths = ["real", "unsure", "fake", "real"], ["real", "fake", "real", "real"]
    table = pd.DataFrame(dict(verdict=verdicts, truth=truths, video=["a", "a_b", "b", "a"]))
    said = counts_sentence(table, [PAIR])
    assert said.startswith(
        "Of 3 images, 1 are classified as real, 1 as fake and 1 are unsure: 1 are classified rightly, 1 wrongly. "
        "**1 of the 1 pairs"
    ), "the original of two pairs counts once"
    assert "No pair is in the training split." in counts_sentence(table, [replace(PAIR, split="test")])
    assert videos_sentence({}, {}, {"x/a.mp4": "no such file"}) == "Not classified: `x/a.mp4` (no such file)."
    assert videos_sentence({"x/b.mp4": FILM}, {"x/b.mp4": "unsure"}, {}).endswith("single frame above: none.")
    assert video_table({"x/b.mp4": FILM}).loc[0, ["frames", "classified", "mean"]].tolist() == [2, 1, 0.6]
    assert own_photographs_text("mine", tmp_path, FoundFiles(), {}, True) == "`mine` holds no photograph."
    assert (
        own_photographs_text("mine", tmp_path / "gone", FoundFiles(), {}, True) == "`mine`: no such folder."
    )
    assert "nothing is classified" in own_photographs_text("mine", tmp_path, FoundFiles(), {}, False)


def test_how_often_a_verdict_was_right_is_said_with_its_interval(tmp_path):
    pipeline = Pipeline.load(untrained_run(tmp_path, row=8))
    nan = float("nan")
    accuracy = pd.DataFrame(
        [
            dict(word="real", n=12, value=0.875, low=0.8, high=0.93, why=""),
            dict(word="fake", n=0, value=nan, low=nan, high=nan, why=""),
        ]
    )
    said = verdicts_sentence(pipeline, accuracy, 20)
    assert "light, run 8 of Table 1, trained on nothing. Input: cropped heads." in said
    assert (
        "12 images get *real*, 0.875 [0.800, 0.930] of them correctly; 0 images get *fake*; the other 8 of 20 are unsure."
        in said
    )


def test_a_precision_below_its_target_is_named(tmp_path):
    pipeline = Pipeline.load(untrained_run(tmp_path, row=8))
    origin = "chosen for 90% precision on 464 validation images, reached with 90% confidence"
    pipeline.thresholds = replace(pipeline.thresholds, origin=origin)
    lines = [("real", 0.964, 0.925, 0.983), ("fake", 0.851, 0.754, 0.914)]
    table = pd.DataFrame([dict(word=w, n=20, value=v, low=a, high=b, why="") for w, v, a, b in lines])
    said = verdicts_sentence(pipeline, table, 50)
    assert "0.964 [0.925, 0.983] of them correctly;" in said
    assert "correctly (below the target of 0.90, which the interval includes);" in said
    assert "90% confidence means: a one-sided bound" in said
    table.loc[1, "high"] = 0.88
    assert "which the interval excludes" in verdicts_sentence(pipeline, table, 50)
    assert "below the target of 0.90);" in verdicts_sentence(
        pipeline, table.assign(low=float("nan"), high=float("nan"), why="4 groups"), 50
    )


def test_videos_have_short_names_their_truth_and_a_tally():
    folder = "faceforensics/manipulated_sequences/Deepfakes/c23/videos"
    original = "faceforensics/original_sequences/youtube/c23/videos/012.mp4"
    assert video_label(f"{folder}/012_013.mp4") == "012_013, Deepfakes"
    assert video_label(original) == "012, original" and video_label("b.mp4") == "b"
    films = {original: replace(FILM, verdict="real"), f"{folder}/012_013.mp4": FILM}
    truths = dict(zip(films, ("real", "fake"), strict=True))
    table = video_table(films, truths)
    assert table["truth"].tolist() == ["real", "fake"] and len(table.columns) == 8
    said = videos_sentence(films, dict.fromkeys(films, "fake"), {}, truths)
    assert "Of 2 videos, single frames give 1 right, 1 wrong, 0 unsure" in said
    assert "means over frames 1 right, 0 wrong, 1 unsure. In 2 of 2 videos the verdict differs" in said


def test_the_heading_of_a_figure_is_read_as_a_verdict():
    from deepfake_nbs.application.drawing import _heading

    assert _heading(TWO, "") == "verdict: real (head)"
    assert _heading(TWO, "real") == "original - verdict: real (right)"
    assert _heading(TWO, "fake") == "fake - verdict: real (wrong)"
    assert _heading(replace(TWO, verdict="unsure"), "fake") == "fake - verdict: unsure"
    assert _heading(replace(TWO, verdict=None), "fake") == "no verdict"


def test_the_video_whose_frames_differ_most_is_chosen():
    from deepfake_nbs.application.video import most_varied

    films = {"a": FILM, "b": replace(FILM, quartiles=(0.1, 0.2, 0.9)), "c": replace(FILM, quartiles=None)}
    assert most_varied(films) == "b" and most_varied({"c": films["c"]}) == "" and most_varied({}) == ""
