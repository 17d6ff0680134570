"The command line: what is read, printed, saved, refused."

import json
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deepfake_nbs.application.cli import app, find_photographs
from deepfake_nbs.application.models import untrained_run
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.images import ImageError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "Whole images, no detector."
    return untrained_run(tmp_path_factory.mktemp("a run"), head_threshold=None, crop=False)


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_unreadable_photographs_stop_nothing(run, photos, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    paths = [tmp_path / "text.jpg", sorted(photos.iterdir())[0], tmp_path / "missing.png"]
    answers = list(Pipeline.load(run).check_many(paths))
    assert [isinstance(answer, ImageError) for answer in answers] == [True, False, True]
    result = invoke("check", *paths, "--run", run)
    assert (
        result.exit_code == 1
        and "text.jpg: not an image" in result.stderr
        and "missing.png: no such file" in result.stderr
    )
    assert "00.png" in result.stdout and "text.jpg" not in result.stdout


def test_a_folder_and_json(run, photos):
    result = invoke("check", photos, "--run", run, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and len(lines) == 20
    assert all(
        0 <= line["probability"] <= 1 and line["classifier"]["net"] == "light" and line["versions"]["torch"]
        for line in lines
    )


def test_wrong_usage(run, tmp_path, photos, monkeypatch, root):
    assert invoke("check").exit_code == 2
    assert invoke("check", photos, "--rum", run).exit_code == 2
    (tmp_path / "empty").mkdir()
    result = invoke("check", tmp_path / "empty", "--run", run)
    assert result.exit_code == 2 and "no image in this folder" in result.stderr
    result = invoke("check", photos, "--run", tmp_path / "nowhere")
    assert result.exit_code == 2 and "make report" in result.stderr and "Traceback" not in result.output


def test_build_and_audit_commands(tmp_path):
    rng = np.random.default_rng(0)
    for label, source in ((0, "CelebA"), (1, "StarGAN")):
        folder = tmp_path / "data" / "challenge" / f"{label}-{source}"
        folder.mkdir(parents=True)
        for i in range(12):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
    result = invoke("build", tmp_path / "data", tmp_path / "out", "--fractions", "0.5,0.25,0.25")
    assert result.exit_code == 0, result.output
    assert "real" in result.stdout and (tmp_path / "out" / "manifest.csv").is_file()
    audited = invoke("audit", tmp_path / "out")
    assert audited.exit_code == 0 and "groups" in audited.stdout
    assert invoke("audit", tmp_path / "nowhere").exit_code == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    refused = invoke("build", tmp_path / "data", tmp_path / "mine")
    assert (
        refused.exit_code == 2 and "mine" in refused.stderr and (tmp_path / "mine" / "thesis.txt").is_file()
    )
    assert invoke("build", tmp_path / "data", tmp_path / "o", "--fractions", "1,2").exit_code == 2


def test_folder_search_ignores_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    Image.new("RGB", (4, 4)).save(tmp_path / "A.JPG")
    found = find_photographs([tmp_path])
    assert (found.images, found.unreadable) == ([tmp_path / "A.JPG"], {})


def test_json_stays_clean_beside_unreadable_files(run, photos, tmp_path):
    (tmp_path / "broken.jpg").write_text("no image")
    (tmp_path / "folder.jpg").mkdir()  # a folder named like a photograph is not one
    Image.new("RGB", (9, 9)).save(tmp_path / "two\nlines.png")
    result = invoke("check", tmp_path, "--run", run, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1 and [line["photo"] for line in lines if "photo" in line] == [
        str(tmp_path / "two\nlines.png")
    ]
    assert [line["file"] for line in lines if "error" in line] == [str(tmp_path / "broken.jpg")]
    assert "broken.jpg" in result.stderr and "folder.jpg" not in result.stderr
    table = invoke("check", tmp_path, "--run", run).stdout.splitlines()
    assert sum("lines.png" in line for line in table) == 1 and not any(
        line.startswith("lines.png") for line in table
    )


def test_saved_evidence(heads_run, photos, tmp_path):
    result = invoke(
        "check", *sorted(photos.iterdir())[:2], "--run", heads_run, "--save", tmp_path / "evidence"
    )
    assert result.exit_code == 0
    names = sorted(path.name for path in (tmp_path / "evidence").iterdir())
    assert names == ["0000-00.json", "0000-00.png", "0001-01.json", "0001-01.png"]
    assert json.loads((tmp_path / "evidence" / "0000-00.json").read_text())["region"] == "head"


def test_evidence_that_cannot_be_saved_stops_nothing(heads_run, photos, tmp_path):
    some = tmp_path / "some"
    some.mkdir()
    for name in ("a" * 245, "\u00e4" * 120, "b $\\frac$", "z"):
        (some / f"{name}.png").write_bytes(sorted(photos.iterdir())[0].read_bytes())
    result = invoke("check", some, "--run", heads_run, "--save", tmp_path / "saved")
    assert result.exit_code == 0, result.output
    assert (
        len(list((tmp_path / "saved").glob("*.json"))) == len(list((tmp_path / "saved").glob("*.png"))) == 4
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "0001-b $\\frac$.png").mkdir()  # Something stands where one figure shall be
    result = invoke("check", some, "--run", heads_run, "--save", tmp_path / "full")
    assert (
        result.exit_code == 1
        and "not saved: " in result.stderr
        and "frac" in result.stderr
        and "Traceback" not in result.output
    )
    assert (tmp_path / "full" / "0002-z.png").is_file(), "the next ones are checked and saved all the same"


def test_row_is_the_old_name_of_run_number(run, photos):
    photo = sorted(photos.iterdir())[0]
    old, new = (invoke("check", photo, "--run", run, option, 3) for option in ("--row", "--run-number"))
    assert (old.exit_code, new.exit_code) == (2, 2) and "--row is now called --run-number" in old.stderr
    assert old.stderr.splitlines()[1:] == new.stderr.splitlines() and "training/3" in new.stderr
    both = invoke("train", "--row", 3, "--run-number", 3)
    assert both.exit_code == 2 and "--row and --run-number both name a run" in both.stderr
    assert "--row" not in invoke("check", "--help").stdout and "--row" not in invoke("train", "--help").stdout


def test_the_version_is_that_of_the_package():
    done = invoke("--version")
    assert (done.exit_code, done.stdout) == (0, f"deepfake-nbs {version('deepfake_nbs')}\n")
    assert "--version" in invoke("--help").stdout and "--version" not in invoke("check", "--help").stdout


def test_a_word_that_is_no_command_is_one_sentence():
    done = invoke("chek")
    assert done.exit_code == 2 and "chek" in done.stderr


def test_fractions_are_three_numbers(tmp_path):
    for text in ("half", "1,2", "0.5,0.2,0.2,0.1"):
        done = invoke("build", tmp_path, tmp_path / "out", "--fractions", text)
        assert done.exit_code == 2 and f"--fractions '{text}': expected three fractions" in done.stderr


def test_all_commands_stand_below_one():
    listed = invoke("--help").stdout
    for name in ("check", "export", "index", "retrieve", "build", "audit", "crop", "train", "run"):
        assert f"\n  {name} " in listed and invoke(name, "--help").exit_code == 0


@pytest.mark.parametrize(
    "words, said",
    [
        (["a.ipynb"], "1 files are named; expected two"),
        (["a", "b", "-p", "row"], "-p takes two words"),
        (["a", "b", "--parametre", "row", "8"], "no such option: --parametre"),
    ],
)
def test_words_of_a_page_that_make_no_sense(words, said):
    done = invoke("run", *words)
    assert done.exit_code == 2 and said in done.output


def test_a_page_gets_its_parameters(monkeypatch):
    got = []
    monkeypatch.setattr("deepfake_nbs.application.cli.run_notebook", lambda *words: got.append(words))
    assert (
        invoke(
            "run", "-p", "row", 8, "nbs/a.ipynb", "--parameter", "learning_rate", "-1", "out.ipynb"
        ).exit_code
        == 0
    )
    assert got == [("nbs/a.ipynb", "out.ipynb", {"row": "8", "learning_rate": "-1"})]
