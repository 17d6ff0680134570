"Judging photographs: the pipeline and the command line."
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from deepfake_nbs import application
from deepfake_nbs.application import CLASSIFIER, Pipeline, app, find_run
from deepfake_nbs.core import ImageError, write_json
from deepfake_nbs.xception import MEAN, STD, create_model

CONFIG = {"net": "light", "width": 0.1, "n_classes": 2, "dropout": 0.5, "image_size": 64, "mean": MEAN, "std": STD, "crop": False,
          "trained_on": "nothing", "row": 8, "threshold": 0.5, "version": "0"}


def make_run(folder, **changes):
    place = folder / CLASSIFIER
    place.mkdir(parents=True)
    torch.manual_seed(0)
    save_file(create_model("light", width=0.1).state_dict(), place / "model.safetensors")
    write_json(place / "config.json", CONFIG | changes)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("a run"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 255, (50, 80, 3), np.uint8)).save(folder / f"{i:02d}.png")
    return folder


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_probability_is_that_of_the_network(run, photos):
    pipeline = Pipeline.load(run)
    for answer in pipeline.check(sorted(photos.iterdir())[:3]):
        image = Image.open(answer.photo).resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=3.0)
        x = torch.from_numpy(np.asarray(image).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = pipeline.model.eval()(x).softmax(1)[0, 1].item()
        assert answer.probability == pytest.approx(expected, abs=1e-5)


def test_order_and_batches_do_not_matter(run, photos):
    paths, pipeline = sorted(photos.iterdir()), Pipeline.load(run)
    together = [answer.probability for answer in pipeline.check(paths, batch_size=7)]
    alone = [next(pipeline.check([path])).probability for path in paths]
    assert together == pytest.approx(alone, abs=1e-5) and len(set(together)) > 1


def test_threshold_of_the_model_decides(tmp_path, photos):
    first = sorted(photos.iterdir())[0]
    for threshold, verdict in ((0.0, "fake"), (1.01, "real")):
        answer = next(Pipeline.load(make_run(tmp_path / verdict, threshold=threshold)).check([first]))
        assert answer.verdict == verdict and answer.threshold == threshold and answer.region == "whole image"


def test_unreadable_photographs_stop_nothing(run, photos, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    paths = [tmp_path / "text.jpg", sorted(photos.iterdir())[0], tmp_path / "missing.png"]
    answers = list(Pipeline.load(run).check(paths))
    assert [isinstance(answer, ImageError) for answer in answers] == [True, False, True]
    result = invoke("check", *paths, "--run", run)
    assert result.exit_code == 1 and "text.jpg: not an image" in result.stderr and "missing.png: no such file" in result.stderr
    assert "00.png" in result.stdout and "text.jpg" not in result.stdout


def test_a_folder_and_json(run, photos):
    result = invoke("check", photos, "--run", run, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and len(lines) == 20
    assert all(0 <= line["probability"] <= 1 and line["net"] == "light" and line["trained_on"] == "nothing" for line in lines)


def test_wrong_usage(run, tmp_path, photos, monkeypatch, root):
    assert invoke("check").exit_code == 2
    assert invoke("check", photos, "--rum", run).exit_code == 2
    (tmp_path / "empty").mkdir()
    result = invoke("check", tmp_path / "empty", "--run", run)
    assert result.exit_code == 2 and "no image in this folder" in result.stderr
    result = invoke("check", photos, "--run", tmp_path / "nowhere")
    assert result.exit_code == 2 and "make report" in result.stderr and "Traceback" not in result.output


def test_broken_models_are_named(tmp_path, photos):
    cut = make_run(tmp_path / "cut")
    weights = cut / CLASSIFIER / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    other = make_run(tmp_path / "other", net="midway")
    bare = make_run(tmp_path / "bare")
    (bare / CLASSIFIER / "model.safetensors").unlink()
    for run in (cut, other, bare):
        result = invoke("check", photos, "--run", run)
        assert result.exit_code == 2 and "model.safetensors" in result.stderr, (run.name, result.output)


def test_the_newest_run_is_taken(tmp_path, monkeypatch, root):
    import os

    (tmp_path / "settings.ini").write_text((root / "settings.ini").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="make report"):
        find_run()
    for age, name in ((100, "smoke-new"), (5000, "smoke-old")):
        made = make_run(tmp_path / "data" / "runs" / name) / CLASSIFIER / "config.json"
        os.utime(made, (made.stat().st_mtime - age,) * 2)
    assert find_run().name == "smoke-new"


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
    assert refused.exit_code == 2 and "mine" in refused.stderr and (tmp_path / "mine" / "thesis.txt").is_file()
    assert invoke("build", tmp_path / "data", tmp_path / "o", "--fractions", "1,2").exit_code == 2


def test_starting_the_application_imports_nothing_heavy():
    heavy = {"fastai", "sklearn", "matplotlib", "pandas", "papermill"}
    code = f"import sys, deepfake_nbs.application; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_real_photograph_is_judged(run, real):
    photo = next((real / "challenge" / "0-FFHQ").iterdir())
    answer = next(Pipeline.load(run).check([photo]))
    assert 0 <= answer.probability <= 1 and answer.photo == str(photo)


def test_folder_search_ignores_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    Image.new("RGB", (4, 4)).save(tmp_path / "A.JPG")
    assert application._photographs([tmp_path]) == [tmp_path / "A.JPG"]


def test_json_stays_clean_beside_unreadable_files(run, photos, tmp_path):
    (tmp_path / "broken.jpg").write_text("no image")
    (tmp_path / "folder.jpg").mkdir()  # a folder named like a photograph is not one
    Image.new("RGB", (9, 9)).save(tmp_path / "two\nlines.png")
    result = invoke("check", tmp_path, "--run", run, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 1 and [line["photo"] for line in lines] == [str(tmp_path / "two\nlines.png")]
    assert "broken.jpg" in result.stderr and "folder.jpg" not in result.stderr
    table = invoke("check", tmp_path, "--run", run).stdout.splitlines()
    assert sum("lines.png" in line for line in table) == 1 and not any(line.startswith("lines.png") for line in table)


def test_run_folder_counts_from_where_one_stands(tmp_path, photos, monkeypatch):
    make_run(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert find_run("mine") == tmp_path / "mine"
    with pytest.raises(FileNotFoundError, match="yours"):
        find_run("yours")


@pytest.mark.parametrize("change", [{"width": "a"}, {"threshold": "0.5"}, {"image_size": True}, {"net": None}, {"mean": 0.5}])
def test_a_broken_configuration_names_its_key(tmp_path, photos, change):
    result = invoke("check", photos, "--run", make_run(tmp_path / "run", **change))
    key = next(iter(change))
    assert result.exit_code == 2 and f"{key} is" in result.stderr and "config.json" in result.stderr
