"The run that a page shows, and how a page is executed."

import os
import signal
import subprocess
import sys
from pathlib import Path
import nbformat
import pytest
from deepfake_nbs import core
from deepfake_nbs import pages
from deepfake_nbs import publishing

COMMAND = [Path(sys.executable).with_name("deepfake-nbs"), "run"]
OLD_COMMAND = [Path(sys.executable).with_name("deepfake-nbs-chapter")]


def test_inputs_are_rewritten_only_when_they_change(tmp_path, monkeypatch, root):
    (tmp_path / "settings.ini").write_text((root / "settings.ini").read_text())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"1")
    run = pages.freeze_inputs("smoke", "photos")
    assert run == tmp_path / "data" / "runs" / "smoke-photos"
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    pages.freeze_inputs("smoke", "photos")
    assert before == {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    (tmp_path / "photos" / "b.jpg").write_bytes(b"22")
    (tmp_path / "photos" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(
        b"3"
    )  # A name from a disk with another encoding
    pages.freeze_inputs("smoke", "photos")
    after = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    assert after["inputs.csv"] != before["inputs.csv"] and after["settings.json"] == before["settings.json"]


def test_a_chapter_runs_and_is_promoted(chapter, capfd):
    done = pages.run_notebook("nbs/x.ipynb", "out/x.ipynb", {"row": "4"})
    assert "$ papermill nbs/x.ipynb out/x.ipynb --cwd nbs -k python3 -p row 4" in capfd.readouterr().out
    assert nbformat.read(done, 4).cells[-1].outputs[0]["data"]["text/plain"] == "8"
    publishing.promote(done, chapter / "nbs" / "x.ipynb")
    source = nbformat.read(chapter / "nbs" / "x.ipynb", 4)
    assert (
        len(source.cells) == 2
        and source.cells[-1].outputs
        and source.cells[0].metadata.tags == ["parameters"]
    )
    source.cells[-1].source = "row * 3"
    nbformat.write(source, chapter / "nbs" / "x.ipynb")
    with pytest.raises(ValueError, match="another version"):
        publishing.promote(done, chapter / "nbs" / "x.ipynb")


def test_a_text_that_looks_like_a_number_stays_a_text(chapter, capfd):
    nb = nbformat.read(chapter / "nbs" / "x.ipynb", 4)
    nb.cells[-1].source = "data + '-' + str(row * 2)"
    nbformat.write(nb, chapter / "nbs" / "x.ipynb")
    done = pages.run_notebook("nbs/x.ipynb", "out/x.ipynb", {"data": "2024", "row": "4"})
    assert nbformat.read(done, 4).cells[-1].outputs[0]["data"]["text/plain"] == "'2024-8'"
    assert "-r data 2024 -p row 4" in capfd.readouterr().out


def test_a_page_outside_the_project_is_shown_by_its_whole_path(chapter, tmp_path_factory, capfd):
    place = tmp_path_factory.mktemp("elsewhere")
    pages.run_notebook("nbs/x.ipynb", place / "x.ipynb", {"row": "4"})
    assert f"$ papermill nbs/x.ipynb {place}/x.ipynb --cwd nbs" in capfd.readouterr().out


def test_unknown_parameters_and_failures_promote_nothing(chapter):
    with pytest.raises(ValueError, match="unknown parameter 'rwo'; did you mean 'row'"):
        pages.run_notebook("nbs/x.ipynb", "out/x.ipynb", {"rwo": "4"})
    with pytest.raises(FileNotFoundError, match="y.ipynb"):
        pages.run_notebook("nbs/y.ipynb", "out/y.ipynb", {})
    done = subprocess.run(
        [*COMMAND, "nbs/x.ipynb", "out/x.ipynb", "-p", "row", "13"],
        cwd=chapter,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "x.ipynb: a cell failed" in done.stderr
    assert not (chapter / "out" / "x.ipynb").exists() and (chapter / "out" / "x.partial.ipynb").exists()


def test_the_command_says_what_was_wrong(chapter):
    words = ["nbs/x.ipynb", "out/x.ipynb", "-p"]
    for command, name in ((COMMAND, "deepfake-nbs"), (OLD_COMMAND, "deepfake-nbs-chapter")):
        done = subprocess.run([*command, *words, "rwo", "4"], cwd=chapter, capture_output=True, text=True)
        assert done.returncode == 1
        assert (
            done.stderr.splitlines()[-1] == f"{name}: x.ipynb: unknown parameter 'rwo'; did you mean 'row'?"
        )
    assert len(done.stderr.splitlines()) == 2, "the old command says its new name"
    subprocess.run([*COMMAND, *words, "row", "4"], cwd=chapter, capture_output=True, check=True)
    assert (chapter / "out" / "x.ipynb").is_file() and not (chapter / "out" / "x.partial.ipynb").exists()


@pytest.fixture
def page(chapter):
    "A project of one results page."
    sources = [
        "from deepfake_nbs.core import run_folder\nfrom deepfake_nbs.pages import choose_profile",
        'profile: str = "mini"\ndata: str = "data/miniature"\nn: int = 1',
        "profile = choose_profile(profile, data)",
        "run_folder(profile, data).name",
    ]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), chapter / "nbs" / "x.ipynb")
    return chapter


def shown(page, *flags):
    "What plain papermill shows of the page: its last value and what it printed, or what it stopped at."
    command = [
        sys.executable,
        "-m",
        "papermill",
        "nbs/x.ipynb",
        "out.ipynb",
        "--cwd",
        "nbs",
        "-k",
        "python3",
        *flags,
    ]
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=page, capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False
    )
    outputs = [
        output for cell in nbformat.read(page / "out.ipynb", 4).cells for output in cell.get("outputs", [])
    ]
    assert done.returncode == any(output.output_type == "error" for output in outputs)
    return [
        "\n".join(output.get("traceback", [])) or output.get("text") or output.data["text/plain"]
        for output in outputs
        if "papermill-error-cell" not in str(output.get("data", ""))
    ]


def test_a_page_shows_the_newest_run_or_says_how_to_make_one(page):
    assert shown(page) == ["There is no run of any profile on data/miniature yet. `make report` makes one."]
    asked = shown(page, "-p", "profile", "mini")
    assert asked == [
        "There is no run of profile 'mini' on data/miniature yet. `make report PROFILE=mini` makes one."
    ]
    assert shown(page, "-p", "nn", "2") == ["unknown parameter 'nn'; did you mean 'n'?"]
    assert not (page / "data").exists(), "looking makes nothing"
    for profile, time in (("full", 1e9), ("smoke", 2e9)):
        made = core.write_text(page / "data" / "runs" / f"{profile}-miniature" / "claims.csv", "")
        os.utime(made, (time, time))
    for name in (
        "settings.json",
        "inputs.csv",
        "nbs/library/00a_core.ipynb",
    ):  # A report of the site's profile that was stopped early
        core.write_text(page / "data" / "runs" / "mini-miniature" / name, "")
    said, name = shown(page, "-p", "n", "2")
    assert (
        said
        == "Profile 'mini' has not run on data/miniature; this page shows the newest run, of profile 'smoke'.\n"
    )
    assert name == "'smoke-miniature'"
    assert shown(page, "-p", "profile", "full") == ["'full-miniature'"]
    assert (
        "settings.ini: unknown profile 'smok'; did you mean 'smoke'?"
        in shown(page, "-p", "profile", "smok")[0]
    )
    core.write_text(page / "data" / "runs" / "mini-miniature" / "claims.csv", "")
    assert shown(page) == ["'mini-miniature'"], "the profile of the site wins where it has run"


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_stopped_chapter_leaves_one_line_and_no_process(chapter, number, code):
    nb = nbformat.read(chapter / "nbs" / "x.ipynb", 4)
    nb.cells[-1].source = """import os, subprocess, sys, time
child = "import time; time.sleep(600)"
deaf = f"import signal; signal.signal(2, signal.SIG_IGN); signal.signal(15, signal.SIG_IGN); {child}"
workers = [subprocess.Popen([sys.executable, "-c", child]), subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)]
try:
    print("running", os.getpid(), *(worker.pid for worker in workers), flush=True)
    time.sleep(600)
finally:
    open("put-away", "w").close()"""
    nbformat.write(nb, chapter / "nbs" / "x.ipynb")
    process = subprocess.Popen(
        [*COMMAND, "nbs/x.ipynb", "out/x.ipynb"],
        cwd=chapter,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    family = next(line for line in process.stdout if line.startswith("running")).split()[1:]
    os.killpg(process.pid, number)
    said = process.communicate()[1]
    assert (
        process.returncode == code
        and said == "x.ipynb: stopped, nothing was promoted; the same command starts it again.\n"
    )
    for pid in family:
        state = Path("/proc", pid, "stat")
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z", (
            "a process was left"
        )
    assert (chapter / "nbs" / "put-away").exists(), "the cell could put away what it was writing"
    assert os.listdir(chapter / "out") == ["x.partial.ipynb"]


def test_what_a_chapter_says_in_a_terminal_is_short(chapter, capfd):
    nb = nbformat.read(chapter / "nbs" / "x.ipynb", 4)
    nb.cells.insert(1, nbformat.v4.new_code_cell("print('epoch 1')"))
    nbformat.write(nb, chapter / "nbs" / "x.ipynb")
    pages.run_notebook("nbs/x.ipynb", "out/x.ipynb", {})
    out, err = capfd.readouterr()
    assert err == "" and out == "$ papermill nbs/x.ipynb out/x.ipynb --cwd nbs -k python3\nepoch 1\n"
    with pytest.raises(RuntimeError, match="a cell failed; see out/x.partial.ipynb"):
        pages.run_notebook("nbs/x.ipynb", "out/x.ipynb", {"row": "13"})
    said = capfd.readouterr().err
    assert (
        "AssertionError" in said and "papermill" not in said and "\x1b" not in said
    )  # The cell's own words, once
    assert said.count("assert row != 13") == 1


def test_what_cannot_be_fetched_is_one_sentence(chapter, capfd):
    nb = nbformat.read(chapter / "nbs" / "x.ipynb", 4)
    nb.cells.append(nbformat.v4.new_code_cell("raise ConnectionError('no hub. Three ways: a; b; c')"))
    nbformat.write(nb, chapter / "nbs" / "x.ipynb")
    with pytest.raises(RuntimeError, match="a cell failed"):
        pages.run_notebook("nbs/x.ipynb", "out/x.ipynb", {})
    said = capfd.readouterr().err  # On a busy machine the kernel's own channel may complain before
    assert said.endswith("no hub. Three ways: a; b; c\n")
    assert "ConnectionError" not in said


def test_what_stops_papermill_itself_is_shown(chapter, capfd, monkeypatch):
    with pytest.raises(RuntimeError, match="a cell failed"):
        pages.run_notebook("nbs/x.ipynb", "out/x.ipynb", {"row": "13"})
    capfd.readouterr()
    (chapter / "nbs" / "x.ipynb").write_text(
        '{"cells": [], "nbformat": 9, "nbformat_minor": 0, "metadata": {}}'
    )
    with pytest.raises(RuntimeError):
        pages.run_notebook("nbs/x.ipynb", "out/x.ipynb", {})
    said = capfd.readouterr().err
    assert "nbformat" in said and "assert row" not in said, "not the error of an earlier try"


def test_time_left_comes_from_earlier_runs(tmp_path):
    def plan_of(run, names, **seconds):
        plan = [tmp_path / run / "nbs" / f"{name}.ipynb" for name in names]
        for path in plan:
            if path.stem in seconds:
                core.write_json(path, {"metadata": {"papermill": {"duration": seconds[path.stem]}}})
        return plan

    names = ["01_datasets", "02_head_detection", "06_training_run-1", "06_training_run-8"]
    slow = plan_of("smoke-slow", names, **{"01_datasets": pages.SMOKE_SECONDS["01_datasets"] * 3.0})
    guesses = [pages.SMOKE_SECONDS[name.partition("-")[0]] for name in names]
    assert pages.estimate_seconds(slow, 0) == guesses[0] * 3 + sum(
        guesses[1:]
    )  # Nothing has run in this report
    assert pages.estimate_seconds(slow, 1) == 3 * sum(guesses[1:])  # This machine takes three times as long
    assert (
        pages.say_progress(slow[1], slow)
        == f"Page 2 of 4: 02_head_detection, about {sum(guesses[1:]) / 20:.0f} minutes left"
    )
    full = plan_of("full-own", names, **{"06_training_run-1": 36000.0})
    assert (
        pages.estimate_seconds(full, 0) is None
        and pages.say_progress(full[0], full) == "Page 1 of 4: 01_datasets"
    )
    assert pages.say_progress(full[3], full) == "Page 4 of 4: 06_training_run-8, about 10.0 hours left"
    assert pages.say_progress(tmp_path / "mine.ipynb", full) == ""
    full[1].write_text("cut off {")
    assert pages.estimate_seconds(full, 1) is None


def test_every_page_has_a_guess(root):
    with_code = {
        path.stem
        for path in (root / "nbs").glob("*.ipynb")
        if '"cell_type": "code"' in path.read_text(encoding="utf-8")
    }
    assert with_code == set(pages.SMOKE_SECONDS)
