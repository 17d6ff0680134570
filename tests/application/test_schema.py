"The schema of `check --json`: what the command really prints is valid, and says what it promises."

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from deepfake_nbs.application.cli import app
from deepfake_nbs.application.schema import SCHEMA, SCHEMA_VERSION, error_line, line_kind, validate_line
from deepfake_nbs.images import ImageError


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def lines(*words):
    done = invoke("check", *words, "--json")
    assert done.exit_code < 2, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def portrait(tmp_path):
    Image.effect_noise((120, 90), 60).convert("RGB").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_photograph_a_video_and_a_broken_file_are_valid_lines(heads_run, portrait, video, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_text("Dear reader")
    found = lines(portrait, video, broken, "--run", heads_run)
    assert sorted(map(validate_line, found)) == ["error", "photo", "video"]
    assert all(line["schema_version"] == SCHEMA_VERSION for line in found)
    (error,) = [line for line in found if line_kind(line) == "error"]
    assert (error["file"], "not an image" in error["error"]) == (str(broken), True)


def test_the_optional_blocks_are_valid(heads_run, portrait, known):
    (line,) = lines(portrait, "--run", heads_run, "--stress", "--gallery", known / "train")
    assert validate_line(line) == "photo" and line["matches"] and line["heads"]
    assert len(line["stress"]["bands"]) == len(line["heads"])
    plain = {key: value for key, value in line.items() if key != "stress"}
    assert validate_line(plain) == "photo", "stress is the one key that may be left out"
    for key in plain:
        with pytest.raises(ValueError):
            validate_line({name: value for name, value in plain.items() if name != key})


def test_a_photograph_in_which_nothing_is_classified_is_valid(tmp_path, portrait):
    from deepfake_nbs.application.models import untrained_run

    run = untrained_run(tmp_path / "run", head_threshold=1.0)
    (line,) = lines(portrait, "--run", run)
    assert line["probability"] is None and line["verdict"] is None and validate_line(line) == "photo"
    (line,) = lines(portrait, "--run", run, "--whole")
    assert line["region"] == "whole image" and validate_line(line) == "photo"


def test_saved_evidence_is_a_valid_line(heads_run, portrait, tmp_path):
    assert invoke("check", portrait, "--run", heads_run, "--save", tmp_path / "saved").exit_code == 0
    (saved,) = (tmp_path / "saved").glob("*.json")
    assert validate_line(json.loads(saved.read_text())) == "photo"


def test_thresholds_at_a_risk_are_valid(heads_run, portrait):
    (line,) = lines(portrait, "--run", heads_run)
    line["thresholds"] |= dict(risk=0.1, both=True)
    assert validate_line(line) == "photo"
    line["thresholds"]["risk"] = 2
    with pytest.raises(ValueError, match=r"photo.thresholds.risk: 2 is greater than the maximum of 1"):
        validate_line(line)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(schema_version=None), "schema_version is None; this is version 1"),
        (dict(error=3), "error.error: 3 is not of type 'string'"),
        (dict(more=1), "'more' was unexpected"),
        (dict(photo="a.png"), "expected one of photo, video and error"),
    ],
)
def test_a_wrong_line_is_refused_with_its_key(change, message):
    with pytest.raises(ValueError, match=message):
        validate_line(error_line(ImageError("a.jpg", "not an image")) | change)


def test_the_command_prints_the_schema_and_the_schema_is_one():
    from jsonschema import Draft202012Validator

    printed = json.loads(invoke("schema").stdout)
    assert printed == SCHEMA
    Draft202012Validator.check_schema(printed)
    used = {word for word in json.dumps(SCHEMA).split('"') if word.startswith("#/$defs/")}
    assert used == {f"#/$defs/{name}" for name in SCHEMA["$defs"]}, (
        "a part that nothing uses, or that is missing"
    )


COMMAND = Path(sys.executable).with_name("deepfake-nbs")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_tab_key_completes_commands(shell):
    typed = {"COMP_WORDS": "deepfake-nbs ch", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "deepfake-nbs ch"}
    asked = typed | {"_DEEPFAKE_NBS_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run([COMMAND], env=os.environ | asked, capture_output=True, text=True, check=False)
    assert "check" in done.stdout and "card" not in done.stdout and "Traceback" not in done.stderr, done
    script = subprocess.run(
        [COMMAND],
        env=os.environ | {"_DEEPFAKE_NBS_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "deepfake-nbs" in script.stdout and "Traceback" not in script.stderr
