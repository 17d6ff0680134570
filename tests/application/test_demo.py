"The demo as a page: Voila serves it, a headless Chromium uses it. Skips where there is no browser or no selenium, and says so."

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepfake_nbs.application import demo as page_module
from deepfake_nbs.application.demo import Demo, page_head, read_upload
from deepfake_nbs.application.explain import HeatmapNumbers
from deepfake_nbs.application.models import CLASSIFIER, untrained_run
from deepfake_nbs.application.risk import ClassScores, RiskThresholds, write_scores
from deepfake_nbs.core import file_sha256, write_text


ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds that a step of the page may take on a busy machine


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "Networks that learned nothing: the detector takes anything for a head, the classifier calls everything fake."
    return untrained_run(tmp_path_factory.mktemp("demo") / "run", threshold=0.0, head_threshold=1e-6)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    "With EXIF data that must not survive."
    path = tmp_path_factory.mktemp("photo") / "mine & <yours>.jpg"
    exif = Image.Exif()
    exif[0x010E] = "SECRET PLACE"
    pixels = np.random.default_rng(0).integers(0, 255, (120, 90, 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


# --- The widgets, without a page --------------------------------------------------------------------------------------


def upload(demo, *files):
    demo.upload.value = [
        dict(
            name=name,
            type="",
            size=len(content),
            content=memoryview(content),
            last_modified=datetime.now(UTC),
        )
        for name, content in files
    ]


def found(demo):
    "The result of the only file."
    (result,) = demo.results
    return result


def verdicts(demo):
    return re.findall(r'<b class="verdict">([^<]*)</b>', demo.answer.value)


def test_an_upload_is_judged_and_only_its_pixels_stay(run, photo):
    demo = Demo(run)
    upload(demo, (photo.name, photo.read_bytes()))
    assert found(demo).evidence.verdict == "fake" and verdicts(demo) == ["fake"]
    image = found(demo).image
    assert not image.info and not image.getexif() and demo.upload.value == ()
    assert "&amp; &lt;yours&gt;" in demo.answer.value and "<yours>" not in demo.answer.value
    assert "SECRET" not in demo.answer.value and "&lt;yours&gt;.jpg: fake." in demo.status.value


def test_several_files_have_an_answer_each_and_one_line_counts_them(run, photo, video):
    demo = Demo(run)
    files = [
        (photo.name, photo.read_bytes()),
        ("broken.jpg", b"Dear reader"),
        ("clip.mp4", video.read_bytes()),
    ]
    upload(demo, *files)
    assert [result.verdict for result in demo.results] == ["fake", "not checked", "fake"]
    assert demo.answer.value.count("<article") == 2 and "broken.jpg: not an image" in demo.answer.value
    assert "3 files: 2 fake, 1 not checked." in demo.status.value
    assert "dn-frames" in demo.answer.value and demo.results[2].film.video == "clip.mp4"
    upload(demo, ("broken.mp4", b"Dear reader"))
    assert "broken.mp4: could not be classified" in demo.answer.value and "<article" not in demo.answer.value


def test_more_files_than_fit_are_counted(run, photo, monkeypatch):
    monkeypatch.setattr(page_module, "MOST_FILES", 1)
    demo = Demo(run)
    upload(demo, *[(f"{i}.jpg", photo.read_bytes()) for i in range(3)])
    assert "2 more files were left out: 1 are checked at once." in demo.status.value


def test_pixels_of_an_upload_are_those_of_the_file(photo):
    assert np.array_equal(np.asarray(read_upload("x", photo.read_bytes())), np.asarray(Image.open(photo)))


@pytest.mark.parametrize("content", [b"", b"Dear reader", b"\xff\xd8\xff\xe0 cut"])
def test_a_broken_upload_gets_a_sentence_and_no_old_verdict(run, photo, content):
    demo = Demo(run)
    upload(demo, (photo.name, photo.read_bytes()))
    upload(demo, ("broken.jpg", content))
    assert "cannot be checked" in demo.answer.value and "broken.jpg" in demo.answer.value
    assert not verdicts(demo) and "Traceback" not in demo.answer.value and found(demo).evidence is None


def test_thresholds_change_words_and_judge_nothing_again(run, photo, monkeypatch):
    demo = Demo(run)
    upload(demo, (photo.name, photo.read_bytes()))
    monkeypatch.setattr(demo.pipeline, "check", None)
    before = found(demo).evidence
    demo.limits = (1, 1)
    assert verdicts(demo) == ["real"] and found(demo).evidence is before
    demo.real_to.value = 0
    assert verdicts(demo) == ["unsure"]
    demo.limits = (1, 0.5)
    assert "expected two numbers, the second not below the first" in demo.answer.value


def test_the_gallery_is_used_when_asked(run, photo, tmp_path):
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (9, 9, 3), np.uint8)).save(
            tmp_path / f"{i}.png"
        )
    demo = Demo(run, gallery=tmp_path)
    upload(demo, (photo.name, photo.read_bytes()))
    assert not found(demo).evidence.matches
    demo.similar.value = True
    assert len(found(demo).evidence.matches) == 3 and "Most similar images" in demo.answer.value


def test_a_heatmap_stands_with_its_two_numbers_or_not_at_all(run, photo, monkeypatch):
    pytest.importorskip("captum")
    demo = Demo(run)
    demo.heatmap.value = True
    upload(demo, (photo.name, photo.read_bytes()))
    assert "no heatmap is shown: it was not measured" in demo.answer.value
    assert "data:image/png" not in demo.answer.value
    numbers = HeatmapNumbers(0.75, 0.4, 48, "a run")
    monkeypatch.setattr(page_module, "read_numbers", lambda run, weights: (numbers, ""))
    demo.check()
    assert "data:image/png" in demo.answer.value and "0.40 with random weights" in demo.answer.value


def test_examples_are_buttons_with_a_name_and_a_thumbnail(run):
    demo = Demo(run)
    demo.loading.join()
    names = [button.description for button in demo.examples.children]
    assert names[:2] == ["synthetic portrait 1", "edited portrait 1"]
    assert (
        demo.thumbnails.value.count("data:image/jpeg") == len(names) and "http" not in demo.thumbnails.value
    )
    demo.examples.children[1].click()
    assert found(demo).name == "edited portrait 1" and verdicts(demo)


def test_a_person_may_choose_before_the_networks_are_there(run, photo, monkeypatch):
    load, may = page_module.Pipeline.load, threading.Event()
    monkeypatch.setattr(page_module.Pipeline, "load", lambda *a, **k: may.wait(30) and load(*a, **k))
    demo = Demo(run)
    assert "The networks are loading." in demo.status.value
    threading.Timer(0.2, may.set).start()
    upload(demo, (photo.name, photo.read_bytes()))
    assert verdicts(demo) == ["fake"] and "fake." in demo.status.value


def test_a_risk_stands_among_the_reasons(run, photo, monkeypatch):
    at_risk = RiskThresholds(0.2, 0.7, "conformal sets", risk=0.1)
    demo = Demo(run)
    monkeypatch.setattr(demo.pipeline, "thresholds", at_risk)
    demo.limits = (0.2, 0.7)
    upload(demo, (photo.name, photo.read_bytes()))
    assert "at most 0.1 of real images" in demo.answer.value


def test_verdicts_come_from_a_risk_where_a_person_chooses_one(run, photo, tmp_path):
    place = shutil.copytree(run, tmp_path / "run")
    demo = Demo(place)
    upload(demo, (photo.name, photo.read_bytes()))
    demo.risk.value = 0.1
    assert demo.risk.value is None and "so no risk can be kept" in demo.status.value
    assert verdicts(demo) == ["fake"]
    weights = file_sha256(place / CLASSIFIER / "model.safetensors")
    known = {name: ClassScores(100, 50, tuple(i / 1000 for i in range(100))) for name in ("real", "fake")}
    write_scores(place, known, weights, demo.pipeline.thresholds.temperature)
    demo.risk.value = 0.2
    assert demo.pipeline.thresholds.risk == 0.2 and "at most 0.2 of real images" in demo.answer.value
    assert verdicts(demo) == ["unsure"] and demo.limits != (0, 1)
    demo.risk.value = None
    assert verdicts(demo) == ["fake"] and "at most 0.2" not in demo.answer.value


def test_every_control_has_a_label_and_the_page_asks_no_other_machine(run):
    demo = Demo(run)
    demo.loading.join()
    assert all(control.description for control in (*demo.controls, *demo.examples.children))
    for part in demo.widget.children:
        assert "http" not in getattr(part, "value", "") or part is demo.card
    assert page_head().count("<h2") == 1


def test_without_a_model_the_page_says_which_command_makes_one(tmp_path, photo):
    demo = Demo(tmp_path)
    assert "make report" in demo.status.value and all(control.disabled for control in demo.controls)
    demo.take([(photo.name, lambda: Image.open(photo))])
    assert "make report" in demo.status.value and not demo.results


def test_an_answer_that_cannot_be_shown_gets_a_sentence(run, photo, monkeypatch):
    demo = Demo(run)
    upload(demo, (photo.name, photo.read_bytes()))
    monkeypatch.setattr(page_module, "photo_html", None)
    for again in (demo.check, lambda: setattr(demo, "limits", (1, 1))):
        again()
        assert "could not be shown" in demo.answer.value and not verdicts(demo)


@pytest.mark.parametrize("name", ["nowhere", "broken"])
def test_the_page_of_a_run_without_networks_says_so_and_runs_to_its_end(tmp_path, monkeypatch, name):
    import papermill

    write_text(tmp_path / "broken" / CLASSIFIER / "config.json", "{")
    monkeypatch.setenv("DEEPFAKE_NBS_RUN", str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    page = papermill.execute_notebook(
        ROOT / "nbs/08_demo.ipynb", tmp_path / "out.ipynb", cwd=ROOT / "nbs", progress_bar=False
    )
    shown = json.dumps([cell.get("outputs", []) for cell in page.cells])
    assert "keeps no example" in shown and "Traceback" not in shown
    answers = page.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    assert any(name in str(one["state"].get("value")) for one in answers), (
        "one widget holds the sentence that names the folder"
    )


@pytest.mark.parametrize("there", [True, False])
def test_make_demo_takes_the_run_that_was_named_and_makes_no_report(run, tmp_path, there):
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "settings.ini"):
        shutil.copy(ROOT / name, tmp_path)
    for name, script in (
        ("python", f'exec "{sys.executable}" "$@"'),
        ("voila", 'echo "voila $DEEPFAKE_NBS_RUN"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    named = run if there else tmp_path / "nowhere"
    command = ["make", "-o", "setup", "demo", "BIN=.", f"DEMO_RUN={named}"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (
        "make report" not in done.stdout and "Done:" not in done.stdout and (done.returncode == 0) == there
    ), done.stdout + done.stderr
    assert (
        f"voila {run}" in done.stdout
        if there
        else "nowhere: holds no" in done.stderr and "voila" not in done.stdout
    )


def test_a_signal_that_make_passes_on_reaches_the_demo_itself(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "settings.ini"):
        shutil.copy(ROOT / name, tmp_path)
    for name, script in (("python", "exit 0"), ("voila", "echo started; exec sleep 600")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    process = subprocess.Popen(
        ["make", "-s", "-o", "setup", "demo", "BIN=."],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        while "started" not in process.stdout.readline():
            assert process.poll() is None
        process.terminate()
        process.communicate(timeout=60)  # A server that is left would hold the pipe
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


# --- The page ---------------------------------------------------------------------------------------------------------


def wait(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.3)
    raise AssertionError(f"nothing after {seconds} s")


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    "Address of the demo, as `make demo` serves it."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    environment = os.environ | {
        "DEEPFAKE_NBS_RUN": str(run),
        "JUPYTER_RUNTIME_DIR": str(home),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    log = open(home / "voila.log", "w")
    command = [Path(sys.executable).with_name("voila"), "nbs/08_demo.ipynb", "--no-browser", f"--port={port}"]
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}/"

    def answers():
        assert server.poll() is None, (home / "voila.log").read_text()
        try:
            return urllib.request.urlopen(f"{address}static/", timeout=5).status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    try:
        wait(answers)
        yield address
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def text_of(browser, selector):
    return browser.execute_script(
        "let e = document.querySelector(arguments[0]); return e ? e.innerText : ''", selector
    )


def requested(browser):
    "Addresses that the browser asked; those that the page's own policy stopped were never asked."
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    of_kind = {
        kind: [one["params"] for one in messages if one["method"] == f"Network.{kind}"]
        for kind in ("requestWillBeSent", "loadingFailed")
    }
    stopped = {one["requestId"] for one in of_kind["loadingFailed"] if one.get("blockedReason") == "csp"}
    return {one["request"]["url"] for one in of_kind["requestWillBeSent"] if one["requestId"] not in stopped}


# The widget keeps its file input out of the page, where a person does not miss it and a driver cannot reach it
SHOW_FILE_INPUT = "HTMLInputElement.prototype.click = function () { this.type === 'file' && document.body.appendChild(this) }"


def choose_file(browser, path):
    browser.execute_script(SHOW_FILE_INPUT)
    wait(
        lambda: [b for b in browser.find_elements("css selector", "button") if "Choose photographs" in b.text]
    )[0].click()
    wait(lambda: browser.find_elements("css selector", "input[type=file]"))[-1].send_keys(str(path))


PHONE = dict(width=390, height=844, deviceScaleFactor=1, mobile=True)
NAMES = """return {
  role: [".dn-page", ".dn-status"].map(place => document.querySelector(place).getAttribute("role")),
  heading: [...document.querySelectorAll("h1")].filter(e => e.offsetWidth).map(e => e.innerText),
  labels: [...document.querySelectorAll(".dn-page input, .dn-page button")].map(
    e => (e.labels && e.labels.length ? e.labels[0].innerText : e.innerText).trim()),
  count: /\\(\\d+\\)/.test(document.querySelector(".dn-drop button").innerText),
}"""
DROP = """const bytes = Uint8Array.from(atob(arguments[1]), c => c.charCodeAt(0)), data = new DataTransfer();
data.items.add(new File([bytes], arguments[0]));
document.querySelector(".dn-drop").dispatchEvent(
  new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));"""


def drop_file(browser, path):
    wait(lambda: browser.find_elements("css selector", ".dn-drop button:not(:disabled)"))
    browser.execute_script(DROP, path.name, base64.b64encode(path.read_bytes()).decode())


def test_a_photograph_is_uploaded_and_classified_in_a_browser(browser, page, photo, tmp_path):
    browser.set_page_load_timeout(PATIENCE)
    browser.get(page)
    wait(lambda: "Choose a photograph" in text_of(browser, ".sentence"))
    shown = text_of(browser, "body")
    assert "import os" not in shown and "skip_exec" not in shown, "the page shows its machinery"
    drop_file(browser, photo)
    assert wait(lambda: text_of(browser, ".verdict")) == "fake"
    assert re.search(r"P\(fake\) \d\.\d{3}, of the head", text_of(browser, ".number"))
    assert "mine & <yours>.jpg" in text_of(browser, ".evidence")
    assert len(wait(lambda: browser.find_elements("css selector", ".dn-example"))) >= 2
    screenshot = browser.get_screenshot_as_png()
    assert Image.open(io.BytesIO(screenshot)).size[0] >= 1000
    if keep := os.environ.get("DEMO_SCREENSHOT"):
        Path(keep).write_bytes(screenshot)

    names = browser.execute_script(NAMES)
    assert names["role"] == ["main", "status"] and names["heading"] == ["Is this photograph real or fake?"]
    assert all(names["labels"]) and not names["count"], names
    browser.set_window_size(500, 900)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    wide = "return [...document.querySelectorAll('.dn-page, .dn-page *')].filter(e => e.getBoundingClientRect().right > 391).length"
    assert browser.execute_script(wide) == 0, "something is wider than a telephone"

    broken = tmp_path / "broken.jpg"
    broken.write_text("Dear reader")
    choose_file(browser, broken)
    wait(lambda: "broken.jpg: not an image" in text_of(browser, ".sentence:not(.dn-status *)"))
    assert not text_of(browser, ".verdict") and "Traceback" not in text_of(browser, "body")

    elsewhere = {
        url
        for url in requested(browser)
        if not url.startswith((page, page.replace("http", "ws", 1), "data:", "blob:", "chrome", "about:"))
    }
    assert not elsewhere, f"the page asked other machines for something: {elsewhere}"
