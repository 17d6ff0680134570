"Settings, the door for images, whole files, records, metrics and the chapter runner."
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deepfake_nbs import core
from deepfake_nbs.core import read_settings

# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["smoke", "mini", "full"])
def test_every_profile_reads(profile):
    settings = read_settings(profile)
    assert settings.name == profile and sum(settings.fractions) == pytest.approx(1) and settings.rows


def test_runs_are_rows_and_pairs_on_both_splits():
    settings = replace(read_settings("mini"), rows=(1, 3), protocol_rows=(1, 3), protocol_seeds=(2, 42), schedule_rows=(3,))
    assert settings.runs == ["1", "3", "1-published", "3-published", "1-seed2", "1-seed2-published", "3-cosine"]
    assert replace(settings, protocol_rows=(), schedule_rows=()).runs == ["1", "3"]


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("image_limit = 600", "image_limt = 600", ["image_limt", "did you mean 'image_limit'"]),
        ("image_limit = 600", "image_limit = 4.5", ["image_limit = '4.5'", "expected int"]),
        ("\nrows = 1 2", "\nrows = one two", ["rows = 'one two", "expected"]),
        ("protocol_rows = 8", "protocol_rows = 12", ["protocol_rows is (12,)", "expected some of rows"]),
        ("schedule_rows = 8", "schedule_rows = 12", ["schedule_rows is (12,)", "expected some of rows"]),
        ("balance = false", "balance = perhaps", ["balance = 'perhaps'", "expected bool"]),
        ("train_fraction = 0.70", "train_fraction = 0.90", ["fractions", "add up to 1"]),
        ("train_fraction = 0.70", "train_fraction = nan", ["fractions", "add up to 1"]),
        ("split_protocol = group", "split_protocol = frames", ["split_protocol", "'group' or 'published'"]),
        ("seed = 42", "", ["'seed' is missing"]),
        ("width = 0.25", "width = 0", ["width is 0", "above 0"]),
        ("epoch_limit = 3", "epoch_limit = -1", ["epoch_limit is -1", "0 or more"]),
    ],
)
def test_bad_settings_name_the_key(tmp_path, root, old, new, words):
    text = (root / "settings.ini").read_text()
    assert old in text
    (tmp_path / "settings.ini").write_text(text.replace(old, new, 1) if "seed" not in old else text.replace(old, new))
    with pytest.raises(ValueError) as error:
        read_settings("smoke", tmp_path / "settings.ini")
    assert all(word in str(error.value) for word in words) and "settings.ini" in str(error.value)


def test_unknown_profile_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'mini'"):
        read_settings("minni")
    with pytest.raises(FileNotFoundError, match="nothing.ini"):
        read_settings("smoke", tmp_path / "nothing.ini")


def test_root_is_found_from_below_and_from_elsewhere(root, monkeypatch, tmp_path):
    for place in (root / "nbs", root, tmp_path):
        monkeypatch.chdir(place)
        assert core.project_root() == root
    assert core.resolve("../x") == root.parent / "x" and core.resolve(tmp_path) == tmp_path


def test_seed_gives_the_same_numbers():
    import random

    import torch

    def draw():
        core.set_seed(7)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()


# --- Files and records ------------------------------------------------------------------------------------------------


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = core.write_text(tmp_path / "a" / "x.txt", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(core.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        core.write_text(path, "new")
    assert path.read_text() == "old" and [entry.name for entry in path.parent.iterdir()] == ["x.txt"]


def test_run_record_is_whole(tmp_path):
    manifest = core.write_text(tmp_path / "manifest.csv", "path\n")
    record = core.run_record({"row": 8}, seed=3, manifest=manifest, wall_seconds=1.5)
    assert record["manifest_sha256"] == core.file_sha256(manifest) and record["weights_sha256"] is None
    assert record["wall_seconds"] == 1.5 and record["versions"]["torch"] and isinstance(record["dirty"], bool)
    json.loads(core.write_json(tmp_path / "run.json", record).read_text())
    assert core.caption_line(record).startswith("run 8, commit ")
    line = core.caption_line(record)
    assert core.caption_line(record | {"note": ""}) == line
    assert core.caption_line(record | {"note": "no ImageNet weights"}) == f"{line}; no ImageNet weights"


def test_every_published_id_is_listed_from_the_start(tmp_path, root):
    core.save_table(pd.DataFrame({"a": [1]}), "table-datasets", tmp_path, "01_datasets")
    core.save_claims([], tmp_path)
    for name in ("artifacts.csv", "claims.csv"):
        published = pd.read_csv(root / "papers" / "original" / name)
        mine = pd.read_csv(tmp_path / name).set_index("id")
        assert set(published["id"]) <= set(mine.index)
        assert set(mine.status[mine.index.isin(published["id"])]) == {"not yet"}
    assert pd.read_csv(tmp_path / "artifacts.csv").set_index("id").path["table-datasets"] == "tables/table-datasets.csv"


def test_figures_and_claims_add_up(tmp_path):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    ax.plot([0, 1])
    core.save_figure(figure, "fig-1", tmp_path, "01_datasets")
    plt.close(figure)
    first, second, undefined = "table2-1-test_accuracy", "table2-1-precision_0", "table2-8-test_accuracy"
    core.save_claims([{"id": first, "measured": 0.5, "low": 0.4, "high": 0.6, "n": 10, "protocol": "group"}], tmp_path)
    core.save_claims([{"id": undefined, "measured": float("nan")}, {"id": second, "measured": 0.7}], tmp_path)
    claims = pd.read_csv(tmp_path / "claims.csv").set_index("id")
    assert claims.status[[first, second, undefined]].tolist() == ["measured", "measured", "not yet"]
    assert claims.measured["table2-1-test_accuracy"] == 0.5 and float(claims.published[first]) == 0.85
    core.save_claims([{"id": first, "measured": None}], tmp_path)  # what a later run could not define must not stay
    assert pd.read_csv(tmp_path / "claims.csv").set_index("id").loc[first, ["measured", "low", "n"]].isna().all()
    artifacts = pd.read_csv(tmp_path / "artifacts.csv").set_index("id")
    assert artifacts.status["fig-1"] == "measured" and Image.open(tmp_path / artifacts.path["fig-1"]).size[0] > 100
    with pytest.raises(ValueError, match="unknown id 'table2-10-test_accuracy'"):
        core.save_claims([{"id": "table2-10-test_accuracy", "measured": 0.5}], tmp_path)


def test_a_number_that_was_never_published_is_kept_when_its_row_says_so(tmp_path):
    path = core.save_claims([{"id": "baselines-group-constant-accuracy", "published": "", "measured": 0.5, "n": 10}], tmp_path)
    core.save_claims([{"id": "baselines-svm-accuracy", "published": "", "measured": 0.6}], tmp_path)
    rows = core._read_rows(path)
    assert rows["baselines-group-constant-accuracy"]["measured"] == "0.5" and rows["baselines-group-constant-accuracy"]["published"] == ""
    assert rows["baselines-svm-accuracy"]["published"] == ".6756"  # what was published stays


def test_inputs_are_rewritten_only_when_they_change(tmp_path, monkeypatch, root):
    (tmp_path / "settings.ini").write_text((root / "settings.ini").read_text())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"1")
    run = core.freeze_inputs("smoke", "photos")
    assert run == tmp_path / "data" / "runs" / "smoke-photos"
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    core.freeze_inputs("smoke", "photos")
    assert before == {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    (tmp_path / "photos" / "b.jpg").write_bytes(b"22")
    (tmp_path / "photos" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"3")  # A name from a disk with another encoding
    core.freeze_inputs("smoke", "photos")
    after = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    assert after["inputs.csv"] != before["inputs.csv"] and after["settings.json"] == before["settings.json"]


# --- The chapter runner -----------------------------------------------------------------------------------------------


@pytest.fixture
def chapter(tmp_path, root, monkeypatch):
    "A project of one chapter in a folder of its own."
    (tmp_path / "settings.ini").write_text((root / "settings.ini").read_text())
    (tmp_path / "nbs").mkdir()
    parameters = nbformat.v4.new_code_cell('row: int = 8  # Row\ndata: str = "a"', metadata={"tags": ["parameters"]})
    cells = [parameters, nbformat.v4.new_code_cell("assert row != 13\nrow * 2")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "nbs" / "x.ipynb")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_chapter_runs_and_is_promoted(chapter, capfd):
    done = core.run_chapter("nbs/x.ipynb", "out/x.ipynb", {"row": "4"})
    assert "$ papermill nbs/x.ipynb out/x.ipynb --cwd nbs -k python3 -p row 4" in capfd.readouterr().out
    assert nbformat.read(done, 4).cells[-1].outputs[0]["data"]["text/plain"] == "8"
    core.promote(done, chapter / "nbs" / "x.ipynb")
    source = nbformat.read(chapter / "nbs" / "x.ipynb", 4)
    assert len(source.cells) == 2 and source.cells[-1].outputs and source.cells[0].metadata.tags == ["parameters"]
    source.cells[-1].source = "row * 3"
    nbformat.write(source, chapter / "nbs" / "x.ipynb")
    with pytest.raises(ValueError, match="another version"):
        core.promote(done, chapter / "nbs" / "x.ipynb")


def test_what_a_hidden_cell_printed_is_not_promoted(chapter):
    nb = nbformat.read(chapter / "nbs" / "x.ipynb", 4)
    nb.cells[-1].source = "#| output: false\nfrom ipywidgets import IntSlider\nprint('40 of 80')\ndisplay(IntSlider())\nrow * 2"
    nb.cells.append(nbformat.v4.new_code_cell("print('seen')"))
    nbformat.write(nb, chapter / "nbs" / "x.ipynb")
    core.promote(core.run_chapter("nbs/x.ipynb", "out/x.ipynb", {}), chapter / "nbs" / "x.ipynb")
    hidden, shown = nbformat.read(chapter / "nbs" / "x.ipynb", 4).cells[-2:]
    assert [one.output_type for one in hidden.outputs] == ["execute_result"] and shown.outputs[0].text == "seen\n"


def test_the_record_of_what_is_published_was_made_before_the_pages_changed(chapter, root, monkeypatch):
    shutil.copytree(root / "papers" / "original", chapter / "papers" / "original")
    run, order = core.run_folder("smoke", "data/miniature"), []
    core.run_chapter("nbs/x.ipynb", run / "nbs" / "x.ipynb", {})
    monkeypatch.setattr(core, "keep_results", lambda *args: order.append("kept") or [])
    monkeypatch.setattr(core, "promote", lambda *args: order.append("promoted"))
    core.publish("smoke", "data/miniature")
    assert order == ["kept", "promoted"]


def test_a_text_that_looks_like_a_number_stays_a_text(chapter, capfd):
    nb = nbformat.read(chapter / "nbs" / "x.ipynb", 4)
    nb.cells[-1].source = "data + '-' + str(row * 2)"
    nbformat.write(nb, chapter / "nbs" / "x.ipynb")
    done = core.run_chapter("nbs/x.ipynb", "out/x.ipynb", {"data": "2024", "row": "4"})
    assert nbformat.read(done, 4).cells[-1].outputs[0]["data"]["text/plain"] == "'2024-8'"
    assert "-r data 2024 -p row 4" in capfd.readouterr().out


def test_a_page_outside_the_project_is_shown_by_its_whole_path(chapter, tmp_path_factory, capfd):
    place = tmp_path_factory.mktemp("elsewhere")
    core.run_chapter("nbs/x.ipynb", place / "x.ipynb", {"row": "4"})
    assert f"$ papermill nbs/x.ipynb {place}/x.ipynb --cwd nbs" in capfd.readouterr().out


def test_unknown_parameters_and_failures_promote_nothing(chapter):
    with pytest.raises(ValueError, match="unknown parameter 'rwo'; did you mean 'row'"):
        core.run_chapter("nbs/x.ipynb", "out/x.ipynb", {"rwo": "4"})
    with pytest.raises(FileNotFoundError, match="y.ipynb"):
        core.run_chapter("nbs/y.ipynb", "out/y.ipynb", {})
    command = [sys.executable, "-c", "from deepfake_nbs.core import run_chapter_command as run; run()"]
    done = subprocess.run([*command, "nbs/x.ipynb", "out/x.ipynb", "-p", "row", "13"], cwd=chapter, capture_output=True, text=True)
    assert done.returncode == 1 and "x.ipynb: a cell failed" in done.stderr
    assert not (chapter / "out" / "x.ipynb").exists() and (chapter / "out" / "x.partial.ipynb").exists()


def test_the_command_says_what_was_wrong(chapter, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["deepfake-nbs-chapter", "nbs/x.ipynb", "out/x.ipynb", "-p", "rwo", "4"])
    with pytest.raises(SystemExit, match="unknown parameter 'rwo'"):
        core.run_chapter_command()
    command = [Path(sys.executable).with_name("deepfake-nbs-chapter"), *sys.argv[1:]]
    done = subprocess.run(command, cwd=chapter, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "deepfake-nbs-chapter: x.ipynb: unknown parameter 'rwo'; did you mean 'row'?\n"
    monkeypatch.setattr(sys, "argv", ["deepfake-nbs-chapter", "nbs/x.ipynb", "out/x.ipynb", "-p", "row", "4"])
    core.run_chapter_command()
    assert (chapter / "out" / "x.ipynb").is_file() and not (chapter / "out" / "x.partial.ipynb").exists()


# --- A page asks which run it shows, and the runner stops as a whole ---------------------------------------------------


@pytest.fixture
def page(chapter):
    "A project of one results page."
    sources = ["from deepfake_nbs.core import choose_profile, run_folder",
               'profile: str = "mini"\ndata: str = "data/miniature"\nn: int = 1',
               "profile = choose_profile(profile, data)", "run_folder(profile, data).name"]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), chapter / "nbs" / "x.ipynb")
    return chapter


def shown(page, *flags):
    "What plain papermill shows of the page: its last value and what it printed, or what it stopped at."
    command = [sys.executable, "-m", "papermill", "nbs/x.ipynb", "out.ipynb", "--cwd", "nbs", "-k", "python3", *flags]
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(command, cwd=page, capture_output=True, text=True, env=os.environ | {"PATH": path}, check=False)
    outputs = [output for cell in nbformat.read(page / "out.ipynb", 4).cells for output in cell.get("outputs", [])]
    assert done.returncode == any(output.output_type == "error" for output in outputs)
    return ["\n".join(output.get("traceback", [])) or output.get("text") or output.data["text/plain"]
            for output in outputs if "papermill-error-cell" not in str(output.get("data", ""))]


def test_a_page_shows_the_newest_run_or_says_how_to_make_one(page):
    assert shown(page) == ["There is no run of any profile on data/miniature yet. `make report` makes one."]
    asked = shown(page, "-p", "profile", "mini")
    assert asked == ["There is no run of profile 'mini' on data/miniature yet. `make report PROFILE=mini` makes one."]
    assert shown(page, "-p", "nn", "2") == ["unknown parameter 'nn'; did you mean 'n'?"]
    assert not (page / "data").exists(), "looking makes nothing"
    for profile, time in (("full", 1e9), ("smoke", 2e9)):
        made = core.write_text(page / "data" / "runs" / f"{profile}-miniature" / "claims.csv", "")
        os.utime(made, (time, time))
    for name in ("settings.json", "inputs.csv", "nbs/library/00a_core.ipynb"):  # A report of the site's profile that was stopped early
        core.write_text(page / "data" / "runs" / "mini-miniature" / name, "")
    said, name = shown(page, "-p", "n", "2")
    assert said == "Profile 'mini' has not run on data/miniature; this page shows the newest run, of profile 'smoke'.\n"
    assert name == "'smoke-miniature'"
    assert shown(page, "-p", "profile", "full") == ["'full-miniature'"]
    assert "settings.ini: unknown profile 'smok'; did you mean 'smoke'?" in shown(page, "-p", "profile", "smok")[0]
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
    command = [sys.executable, "-c", "from deepfake_nbs.core import run_chapter_command as run; run()", "nbs/x.ipynb", "out/x.ipynb"]
    process = subprocess.Popen(command, cwd=chapter, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    family = next(line for line in process.stdout if line.startswith("running")).split()[1:]
    os.killpg(process.pid, number)
    said = process.communicate()[1]
    assert process.returncode == code and said == "x.ipynb: stopped, nothing was promoted; the same command starts it again.\n"
    for pid in family:
        state = Path("/proc", pid, "stat")
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z", "a process was left"
    assert (chapter / "nbs" / "put-away").exists(), "the cell could put away what it was writing"
    assert os.listdir(chapter / "out") == ["x.partial.ipynb"]


def test_what_a_chapter_says_in_a_terminal_is_short(chapter, capfd):
    nb = nbformat.read(chapter / "nbs" / "x.ipynb", 4)
    nb.cells.insert(1, nbformat.v4.new_code_cell("print('epoch 1')"))
    nbformat.write(nb, chapter / "nbs" / "x.ipynb")
    core.run_chapter("nbs/x.ipynb", "out/x.ipynb", {})
    out, err = capfd.readouterr()
    assert err == "" and out == "$ papermill nbs/x.ipynb out/x.ipynb --cwd nbs -k python3\nepoch 1\n"
    with pytest.raises(RuntimeError, match="a cell failed; see out/x.partial.ipynb"):
        core.run_chapter("nbs/x.ipynb", "out/x.ipynb", {"row": "13"})
    said = capfd.readouterr().err
    assert "AssertionError" in said and "papermill" not in said and "\x1b" not in said  # The cell's own words, once
    assert said.count("assert row != 13") == 1


def test_what_stops_papermill_itself_is_shown(chapter, capfd, monkeypatch):
    with pytest.raises(RuntimeError, match="a cell failed"):
        core.run_chapter("nbs/x.ipynb", "out/x.ipynb", {"row": "13"})
    capfd.readouterr()
    (chapter / "nbs" / "x.ipynb").write_text('{"cells": [], "nbformat": 9, "nbformat_minor": 0, "metadata": {}}')
    with pytest.raises(RuntimeError):
        core.run_chapter("nbs/x.ipynb", "out/x.ipynb", {})
    said = capfd.readouterr().err
    assert "nbformat" in said and "assert row" not in said, "not the error of an earlier try"


def test_time_left_comes_from_earlier_runs(tmp_path):
    def plan_of(run, names, **seconds):
        plan = [tmp_path / run / "nbs" / f"{name}.ipynb" for name in names]
        for path in plan:
            if path.stem in seconds:
                core.write_json(path, {"metadata": {"papermill": {"duration": seconds[path.stem]}}})
        return plan

    names = ["00a_core", "02_head_detection", "06_training_run-1", "06_training_run-8"]
    slow = plan_of("smoke-slow", names, **{"00a_core": core.SMOKE_SECONDS["00a_core"] * 3.0})
    guesses = [core.SMOKE_SECONDS[name.partition("-")[0]] for name in names]
    assert core.estimate_seconds(slow, 0) == guesses[0] * 3 + sum(guesses[1:])  # Nothing has run in this report
    assert core.estimate_seconds(slow, 1) == 3 * sum(guesses[1:])  # This machine takes three times as long
    assert core.say_progress(slow[1], slow) == f"Chapter 2 of 4: 02_head_detection, about {sum(guesses[1:]) / 20:.0f} minutes left"
    full = plan_of("full-own", names, **{"06_training_run-1": 36000.0})
    assert core.estimate_seconds(full, 0) is None and core.say_progress(full[0], full) == "Chapter 1 of 4: 00a_core"
    assert core.say_progress(full[3], full) == "Chapter 4 of 4: 06_training_run-8, about 10.0 hours left"
    assert core.say_progress(tmp_path / "mine.ipynb", full) == ""
    full[1].write_text("cut off {")
    assert core.estimate_seconds(full, 1) is None


def test_every_chapter_has_a_guess(root):
    assert {path.stem for path in (root / "nbs").rglob("*.ipynb")} <= set(core.SMOKE_SECONDS)


def test_publishing_copies_outputs_and_measured_claims(chapter, root):
    shutil.copytree(root / "papers" / "original", chapter / "papers" / "original")
    with pytest.raises(FileNotFoundError, match="x.ipynb: this chapter has not run"):
        core.publish("smoke", "data/miniature")
    run = core.run_folder("smoke", "data/miniature")
    core.run_chapter("nbs/x.ipynb", run / "nbs" / "x-8.ipynb", {})  # as a chapter that runs once a row
    core.save_claims([{"id": "table2-8-test_accuracy", "measured": 0.5}], run)
    changed = core.publish("smoke", "data/miniature")
    assert [path.name for path in changed] == ["x.ipynb", "smoke-miniature.csv", "smoke-miniature.json"]
    assert nbformat.read(chapter / "nbs" / "x.ipynb", 4).cells[-1].outputs[0]["data"]["text/plain"] == "16"
    assert pd.read_csv(changed[-2])["id"].tolist() == ["table2-8-test_accuracy"]


def test_a_chapter_with_an_error_is_not_promoted(chapter):
    done = core.run_chapter("nbs/x.ipynb", "out/x.ipynb", {})
    broken = nbformat.read(done, 4)
    broken.cells[-1].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])]
    nbformat.write(broken, done)
    with pytest.raises(ValueError, match="a cell failed"):
        core.promote(done, chapter / "nbs" / "x.ipynb")
    assert nbformat.read(chapter / "nbs" / "x.ipynb", 4).cells[-1].outputs == []


def test_core_starts_fast():
    "Judging a photograph must not wait for libraries that it does not use."
    heavy = {"torch", "pandas", "matplotlib", "sklearn", "fastai", "papermill"}
    code = f"import sys, deepfake_nbs.core; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_count_that_is_not_there_is_kept_as_not_yet(tmp_path):
    core.save_claims([{"id": "datasets-heads-films", "measured": None, "n": pd.NA, "protocol": "count"}], tmp_path)
    assert core._read_rows(tmp_path / "claims.csv")["datasets-heads-films"]["status"] == "not yet"


def test_keeping_what_has_not_run_says_how_to_make_it(chapter):
    with pytest.raises(FileNotFoundError, match="smoke-toy/claims.csv: no such file; `make report PROFILE=smoke`"):
        core.keep_results("smoke", "data/toy")
    assert not (chapter / "papers" / "results").exists()
