"Judging photographs: the pipeline, its evidence, and the command line."

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_run import make_run
from typer.testing import CliRunner

from deepfake_nbs import application
from deepfake_nbs.application import (
    CLASSIFIER,
    THRESHOLDS,
    Gallery,
    JudgedHead,
    Pipeline,
    Thresholds,
    app,
    choose_thresholds,
    example_photographs,
    find_pairs,
    find_run,
)
from deepfake_nbs.core import file_sha256, write_json, write_text
from deepfake_nbs.images import ImageError
from deepfake_nbs.head_detection import DETECTOR, EfficientDet, Head, crop_head, save_weights
from deepfake_nbs.classifiers.xception import create_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "Whole pictures, no detector."
    return make_run(tmp_path_factory.mktemp("a run"), heads=None, crop=False)


@pytest.fixture(scope="module")
def heads_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("heads"))


def give_heads(pipeline, *boxes):
    "A detector that finds these boxes in every photograph."
    found = [Head(box, 0.9 - i / 1000) for i, box in enumerate(boxes)]
    pipeline.detector.find_in_squares = lambda squares, sizes, threshold=None: [list(found) for _ in squares]
    return pipeline


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
    for answer in pipeline.check_many(sorted(photos.iterdir())[:3]):
        image = Image.open(answer.photo).resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=3.0)
        x = torch.from_numpy(np.asarray(image).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = pipeline.model.eval()(x).softmax(1)[0, 1].item()
        assert answer.probability == pytest.approx(expected, abs=1e-5)


def test_order_and_batches_do_not_matter(run, photos):
    paths, pipeline = sorted(photos.iterdir()), Pipeline.load(run)
    together = [answer.probability for answer in pipeline.check_many(paths, batch_size=7)]
    alone = [pipeline.check(path).probability for path in paths]
    assert together == pytest.approx(alone, abs=1e-5) and len(set(together)) > 1


def threads_of_a_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_many_are_judged_side_by_side_by_threads_of_one_core(run, photos, monkeypatch, three_threads):
    seen, judge = set(), Pipeline._judge

    def watched(self, batch, whole, n_crops=None):
        seen.add((torch.get_num_threads(), len(batch), n_crops))
        return judge(self, batch, whole, n_crops)

    monkeypatch.setattr(Pipeline, "_judge", watched)
    pipeline, paths = Pipeline.load(run), sorted(photos.iterdir())
    for n, size, cores, crops in ((1, 1, 3, 6), (3, 1, 1, 2), (len(paths), 2, 1, 2)):
        seen.clear()
        assert [answer.photo for answer in pipeline.check_many(paths[:n])] == [str(path) for path in paths[:n]]
        assert {(one[0], one[1] <= size, one[2]) for one in seen} == {(cores, True, crops)}
    seen.clear()
    assert len(list(pipeline.check_many(paths[:7], batch_size=7))) == 7 and seen == {(3, 7, 6)}, "one batch has all cores"
    assert list(pipeline.check_many([])) == []


def test_judging_leaves_the_cores_to_everybody_else(run, photos, three_threads):
    pipeline, paths = Pipeline.load(run), sorted(photos.iterdir())
    first, second = pipeline.check_many(paths), pipeline.check_many(paths)
    next(first), next(second)
    assert torch.get_num_threads() == threads_of_a_new_thread() == 3, "while both are under way"
    first.close()
    assert len(list(second)) == len(paths) - 1 and torch.get_num_threads() == threads_of_a_new_thread() == 3


def test_nothing_is_worked_on_that_nobody_waits_for():
    done = []
    with application.ThreadPoolExecutor(1) as pool:
        results = application._work_ahead(pool, lambda i: time.sleep(0.05) or done.append(i), range(20), 8)
        next(results)
        results.close()
    assert len(done) <= 3

    def fail(i):
        raise ValueError(f"number {i}")

    with application.ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="number 0"):
        list(application._work_ahead(pool, fail, range(20), 8))


def test_a_picture_in_memory_is_read_as_its_file_is(run, photos, tmp_path):
    pipeline, path = Pipeline.load(run), tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn by a quarter to see it upright
    Image.open(sorted(photos.iterdir())[0]).convert("RGB").resize((40, 20)).save(path, exif=exif, quality=95)
    of_file, of_memory = pipeline.check(path), pipeline.check(Image.open(path))
    assert of_file.size == of_memory.size == (20, 40) and of_file.probability == of_memory.probability
    (tmp_path / "half.jpg").write_bytes(path.read_bytes()[:-100])
    answers = list(pipeline.check_many([Image.open(tmp_path / "half.jpg"), path]))
    assert isinstance(answers[0], ImageError) and "cannot be decoded" in str(answers[0]) and answers[1].size == (20, 40)


def test_a_photograph_that_is_gone_before_the_gallery_is_asked_stops_nothing(run, photos):
    class Broken:
        note = ""

        def find(self, photo):
            if str(photo).endswith("00.png"):
                raise FileNotFoundError(2, "No such file or directory", str(photo))
            return ()

    first, *others = Pipeline.load(run).check_many(sorted(photos.iterdir())[:3], gallery=Broken())
    assert isinstance(first, ImageError) and "00.png: cannot be looked for in the gallery" in str(first)
    assert [answer.matches for answer in others] == [(), ()]


def test_rows_of_ours_are_not_called_the_reports(heads_run, photos):
    assert application.name_row(9) == "row 9 of table 1" and application.name_row(10) == "row 10, which is ours"
    assert "of table 1, trained on" in invoke("check", sorted(photos.iterdir())[0], "--run", heads_run).stdout


def test_threshold_of_the_model_decides(tmp_path, photos):
    first = sorted(photos.iterdir())[0]
    for threshold, verdict in ((0.0, "fake"), (1.01, "real")):
        answer = Pipeline.load(make_run(tmp_path / verdict, heads=None, crop=False, threshold=threshold)).check(first)
        assert answer.verdict == verdict and answer.thresholds.fake_from == threshold and answer.region == "whole picture"
        assert "heads were not looked for" in answer.notes[0]


def test_unreadable_photographs_stop_nothing(run, photos, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    paths = [tmp_path / "text.jpg", sorted(photos.iterdir())[0], tmp_path / "missing.png"]
    answers = list(Pipeline.load(run).check_many(paths))
    assert [isinstance(answer, ImageError) for answer in answers] == [True, False, True]
    result = invoke("check", *paths, "--run", run)
    assert result.exit_code == 1 and "text.jpg: not an image" in result.stderr and "missing.png: no such file" in result.stderr
    assert "00.png" in result.stdout and "text.jpg" not in result.stdout


def test_a_folder_and_json(run, photos):
    result = invoke("check", photos, "--run", run, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0 and len(lines) == 20
    assert all(0 <= line["probability"] <= 1 and line["classifier"]["net"] == "light" and line["versions"]["torch"] for line in lines)


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
    heavy = {"fastai", "sklearn", "matplotlib", "pandas", "papermill", "faiss", "ipywidgets", "cv2"}
    code = f"import sys, deepfake_nbs.application; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_real_photograph_is_judged(run, real):
    photo = next((real / "challenge" / "0-FFHQ").iterdir())
    answer = Pipeline.load(run).check(photo)
    assert 0 <= answer.probability <= 1 and answer.photo == str(photo)


def test_folder_search_ignores_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    Image.new("RGB", (4, 4)).save(tmp_path / "A.JPG")
    assert application._photographs([tmp_path]) == ([tmp_path / "A.JPG"], {})


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


@pytest.mark.parametrize(
    "change",
    [{"image_size": 0}, {"mean": [0.5, 0.5]}, {"mean": [0.5, "x", 0.5]}, {"std": [0.5, 0.0, 0.5]}, {"n_classes": 3}, {"threshold": np.nan}],
)
def test_numbers_that_no_network_could_work_with_name_their_key(tmp_path, photos, change):
    run, key = make_run(tmp_path / "run", **change), next(iter(change))
    if key == "n_classes":
        save_weights(create_model("light", width=0.1, n_classes=3), run / CLASSIFIER / "model.safetensors")
    result = invoke("check", photos, "--run", run)
    assert result.exit_code == 2 and f"config.json: {key} is" in result.stderr and "Traceback" not in result.output


def test_no_verdict_from_weights_that_give_no_number(tmp_path, photos):
    run = make_run(tmp_path / "run", heads=None, crop=False)
    model = create_model("light", width=0.1)
    torch.nn.init.constant_(next(model.parameters()), float("nan"))
    save_weights(model, run / CLASSIFIER / "model.safetensors")
    for words in ((), ("--json",)):
        result = invoke("check", photos, "--run", run, *words)
        assert result.exit_code == 2 and str(run / CLASSIFIER) in result.stderr and "no number" in result.stderr
        assert "nan" not in result.stdout.lower()
    with pytest.raises(ValueError, match="no number"):
        Pipeline.load(run).predict(sorted(photos.iterdir())[:1])


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK", "LA"])
def test_a_picture_in_memory_is_judged_like_its_file_whatever_its_mode(run, known, photos, tmp_path, mode):
    image = Image.open(sorted(photos.iterdir())[0]).convert(mode)
    image.save(path := tmp_path / f"a.{'tiff' if mode == 'CMYK' else 'png'}")
    pipeline = Pipeline.load(run)
    gallery = Gallery.open(known, run)
    in_memory, file = pipeline.check(image, gallery), pipeline.check(path, gallery)
    assert in_memory.probability == pytest.approx(file.probability, abs=1e-6) and in_memory.matches == file.matches


# --- Thresholds -------------------------------------------------------------------------------------------------------


def test_thresholds_by_hand():
    label = [0] * 20 + [1] * 20
    probability = [0.1] * 10 + [0.5] * 8 + [0.6, 0.65] + [0.6] * 10 + [0.9] * 10
    chosen = choose_thresholds(label, probability)  # From 0.6: 20 of 22 right; from 0.5: 20 of 30. Up to 0.5: 18 of 18; up to 0.6: 19 of 29
    assert (chosen.real_to, chosen.fake_from) == (0.5, 0.6)
    assert (choose_thresholds(label, probability, least=21).real_to, choose_thresholds(label, probability, least=23).fake_from) == (
        None,
        None,
    )


def test_both_classes_weigh_the_same():
    label, probability = [1] * 90 + [0] * 10, [0.8] * 90 + [0.8] * 5 + [0.1] * 5
    assert choose_thresholds(label, probability).fake_from is None  # 90 of 95 in numbers, but every second real picture is called fake


def test_a_gap_that_nobody_needs_is_closed():
    chosen = choose_thresholds([0] * 20 + [1] * 20, np.concatenate([np.linspace(0.1, 0.45, 20), np.linspace(0.55, 0.9, 20)]))
    assert chosen.real_to == chosen.fake_from and chosen.verdict(0.46) in ("real", "fake")


@pytest.mark.parametrize("label", [[0] * 30, [1] * 30])
def test_one_class_sets_no_threshold(label):
    chosen = choose_thresholds(label, np.linspace(0, 1, 30))
    assert chosen.real_to is chosen.fake_from is None and {chosen.verdict(p) for p in (0, 0.5, 1)} == {"unsure"}


def write_training(run, weights, n=20):
    rows = ["path,label,probability,group,split,checkpoint"]
    rows += [f"{i}.png,{label},{p},g,validation,best" for i in range(n) for label, p in ((0, 0.2), (1, 0.7))]
    rows += ["x.png,0,0.99,g,test,best", "x.png,0,0.99,g,validation,last"] * 50  # Neither may matter
    write_json(run / "training" / "8" / "run.json", {"weights_sha256": weights})
    write_text(run / "training" / "8" / "predictions.csv", "\n".join(rows) + "\n")


def test_thresholds_come_from_validation_and_are_kept_under_the_weights(tmp_path):
    run = make_run(tmp_path)
    weights = file_sha256(run / CLASSIFIER / "model.safetensors")
    write_training(run, weights)
    expected = choose_thresholds([0, 1] * 20, [0.2, 0.7] * 20)
    assert Pipeline.load(run).thresholds == expected
    (run / "training" / "8" / "predictions.csv").unlink()
    assert Pipeline.load(run).thresholds == expected and weights in json.loads((run / THRESHOLDS).read_text())
    write_training(run, "another network")
    (run / THRESHOLDS).unlink()
    assert "none was set on validation" in Pipeline.load(run).thresholds.origin


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda text: text.replace(",split,", ",part,"), "lacks the columns ['split']"),
        (lambda text: text.replace(",0.2,", ",,"), "row 2: label or probability is no number"),
        (lambda text: text.replace(",0.2,", ",nan,"), "row 2: label 0, probability nan"),
        (lambda text: text.replace(",1,0.7,", ",2,0.7,"), "row 3: label 2"),
        (lambda text: text.replace("g,validation", "g\0\xff,validation").encode("latin-1"), "not a table in UTF-8"),
    ],
)
def test_damaged_predictions_are_named(tmp_path, photos, damage, words):
    run = make_run(tmp_path)
    write_training(run, file_sha256(run / CLASSIFIER / "model.safetensors"))
    path = run / "training" / "8" / "predictions.csv"
    spoilt = damage(path.read_text())
    path.write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt.encode())
    result = invoke("check", photos, "--run", run)
    assert result.exit_code == 2 and "predictions.csv" in result.stderr and words in result.stderr


def test_a_run_that_may_only_be_read_still_judges(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    write_training(run, file_sha256(run / CLASSIFIER / "model.safetensors"))

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(application, "write_json", refuse)
    assert Pipeline.load(run).thresholds.fake_from is not None and not (run / THRESHOLDS).exists()


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("cvcs_cropped_dfd/dataset.json", {"plan": "x"}, "plan is 'x'; expected an object"),
        *(("cvcs_cropped_dfd/dataset.json", {"plan": {"margin": bad}}, f"margin is {bad!r}") for bad in (None, "wide", -3)),
        ("preprocessing.json", {"margin": [0.2]}, "margin is [0.2]"),
    ],
)
def test_a_broken_margin_is_named(tmp_path, photos, name, content, words):
    run = make_run(tmp_path)
    write_json(run / name, content)
    result = invoke("check", photos, "--run", run)
    assert result.exit_code == 2 and f"{name}: {words}" in result.stderr and "Traceback" not in result.output


# --- Heads ------------------------------------------------------------------------------------------------------------


def test_each_head_is_judged_on_its_crop_with_the_margin_of_training(tmp_path, photos):
    run = make_run(tmp_path)
    write_json(run / "cvcs_cropped_dfd" / "dataset.json", {"plan": {"margin": 0.35}})
    boxes = (5.0, 5.0, 25.0, 30.0), (30.0, 2.0, 70.0, 45.0)
    pipeline = give_heads(Pipeline.load(run), *boxes)
    photo = sorted(photos.iterdir())[0]
    answer = pipeline.check(photo)
    crops = [crop_head(Image.open(photo), box, 0.35) for box in boxes]
    assert [head.probability for head in answer.heads] == pytest.approx(pipeline._probabilities(crops), abs=1e-6)
    assert answer.strongest == 1 and answer.probability == answer.heads[1].probability, "the largest head speaks for the photograph"
    assert answer.region == "head" and answer.classifier["margin"] == 0.35 and set(answer.seconds) == {"read", "heads", "classify"}


def test_another_head_that_is_fake_is_told(heads_run, photos):
    pipeline = give_heads(Pipeline.load(heads_run), (0.0, 0.0, 20.0, 20.0), (30.0, 0.0, 80.0, 50.0))
    first, second = (head.probability for head in pipeline.check(sorted(photos.iterdir())[0]).heads)
    pipeline.thresholds = Thresholds(None, first, "by hand") if first > second else Thresholds(None, second, "by hand")
    answer = pipeline.check(sorted(photos.iterdir())[0])
    told = [note for note in answer.notes if "is not judged fake" in note]
    assert bool(told) == (first > second) and {head.verdict for head in answer.heads} == {"fake", "unsure"}


def test_a_network_of_whole_pictures_never_sees_a_crop(tmp_path, photos):
    photo = sorted(photos.iterdir())[0]
    pipeline = give_heads(Pipeline.load(make_run(tmp_path, crop=False)), (5.0, 5.0, 25.0, 30.0))
    answer = pipeline.check(photo)
    assert answer.region == "whole picture" and answer.heads[0].probability is answer.heads[0].verdict is None
    assert answer.probability == pytest.approx(pipeline._probabilities([Image.open(photo)])[0], abs=1e-6)
    assert any("not judged one by one" in note for note in answer.notes)


@pytest.mark.parametrize("crop", [True, False])
def test_no_head_gives_no_verdict_unless_asked(tmp_path, photos, crop):
    pipeline, photo = Pipeline.load(make_run(tmp_path, heads=1.0, crop=crop)), sorted(photos.iterdir())[0]
    answer = pipeline.check(photo)
    assert answer.verdict is answer.probability is None and "no head was found" in answer.reason and answer.region == "nothing"
    asked = pipeline.check(photo, whole=True)
    assert asked.verdict and asked.region == "whole picture" and any("never seen" in note for note in asked.notes) == crop


def test_predictions_are_those_of_check_and_say_what_is_missing(heads_run, photos, tmp_path):
    (tmp_path / "no.jpg").touch()
    paths = [*sorted(photos.iterdir())[:3], tmp_path / "no.jpg"]
    pipeline = give_heads(Pipeline.load(heads_run), (5.0, 5.0, 25.0, 30.0))
    with pytest.warns(UserWarning, match="no.jpg: the file is empty"):
        found = pipeline.predict(paths)
    assert np.isnan(found[3]) and found[:3] == pytest.approx([pipeline.check(path).probability for path in paths[:3]], abs=1e-5)


def test_two_hundred_heads_and_a_head_that_fills_the_frame(heads_run, photos):
    photo, pipeline = sorted(photos.iterdir())[0], Pipeline.load(heads_run)
    crowd = [(float(x), float(y), x + 4.0, y + 4.0) for x in range(0, 76, 4) for y in range(0, 46, 4)][:200]
    answer = give_heads(pipeline, *crowd).check(photo)
    assert (
        len(answer.heads) == 200
        and all(head.verdict for head in answer.heads)
        and any("there may be more" in note for note in answer.notes)
    )
    assert answer.plot(Image.open(photo)).axes
    whole = give_heads(pipeline, (0.0, 0.0, 80.0, 50.0)).check(photo)
    assert whole.probability == pytest.approx(pipeline._probabilities([Image.open(photo)])[0], abs=1e-6)


# --- Evidence ---------------------------------------------------------------------------------------------------------


def test_evidence_is_plain_data_and_thresholds_change_words_only(heads_run, photos):
    answer = give_heads(Pipeline.load(heads_run), (5.0, 5.0, 25.0, 30.0)).check(sorted(photos.iterdir())[0])
    assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict() and answer.to_dict()["heads"][0]["box"] == [5.0, 5.0, 25.0, 30.0]
    said = answer.with_thresholds(0.0, 0.0)
    assert said.verdict == said.heads[0].verdict == "fake" and said.probability == answer.probability
    assert replace(answer, probability=None, heads=()).with_thresholds(0.0, 0.0).verdict is None
    assert answer._repr_png_()[:4] == b"\x89PNG" and replace(answer, photo="gone.png")._repr_png_() is None


def test_other_thresholds_renew_what_is_said_about_other_heads(heads_run, photos):
    answer = give_heads(Pipeline.load(heads_run), (5.0, 5.0, 25.0, 30.0)).check(sorted(photos.iterdir())[0])
    heads = tuple(JudgedHead((0, 0, 9, 9), 0.9, p, "unsure") for p in (0.3, 0.6, 0.8))
    plain = replace(answer, heads=heads, strongest=0, probability=0.3, notes=("another note",))
    said = "the strongest head is not judged fake, but head {} is".format
    one, two = plain.with_thresholds(0.1, 0.7), plain.with_thresholds(0.1, 0.5)
    assert one.notes == ("another note", said("3")) and two.notes == one.with_thresholds(0.1, 0.5).notes == ("another note", said("2, 3"))
    assert one.with_thresholds(0.1, 0.2).notes == one.with_thresholds(0.1, 0.9).notes == ("another note",)


def test_memory_holds_a_few_photographs_whatever_the_folder(heads_run):
    alive, most = set(), [0]

    class Photo:
        def __init__(self, i):
            self.i = i
            alive.add(i)
            most[0] = max(most[0], len(alive))

    reads = application._work_ahead(application.ThreadPoolExecutor(2), lambda i: Photo(i), range(200), 4)
    for photo in reads:
        alive.discard(photo.i)
    assert most[0] <= 8
    large = application._Read("x", Image.new("L", (6000, 4000)), None, 0.0)
    assert [len(batch) for batch in application._in_batches([large] * 5, 8)] == [2, 2, 1]


def test_large_photographs_are_not_decoded_ahead(tmp_path):
    started = []

    class Pool:
        def submit(self, work, item):
            started.append(item)
            future = application.Future()
            future.set_result(work(item))
            return future

    for megapixels, ahead in ((1, 5), (20, 3), (40, 1), (64, 1), (300, 1)):  # 64 are held at most, or one photograph
        started.clear()
        results = application._work_ahead(Pool(), int, range(20), 4, lambda i, n=megapixels: n * 1_000_000)
        assert next(results) == 0 and len(started) == ahead, megapixels
        assert list(results) == list(range(1, 20))
    Image.new("RGB", (300, 200)).save(tmp_path / "a.jpg")
    read = application._Read("x", Image.new("L", (60, 40)), None, 0.0)
    batch = [read, ImageError("x", "y"), read]
    assert [application._pixels(one) for one in (tmp_path / "a.jpg", tmp_path / "gone.jpg", read.image, batch)] == [60_000, 0, 2400, 4800]


# --- Video ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    import cv2

    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (96, 64))
    for i in range(30):
        writer.write(np.full((64, 96, 3), 8 * i, np.uint8))
    writer.release()
    return path


def test_a_video_gives_a_distribution_and_its_mean(heads_run, video):
    answer = give_heads(Pipeline.load(heads_run), (5.0, 5.0, 45.0, 50.0)).check_video(video, n_frames=6)
    assert len(answer.frames) == len(answer.probabilities) == 6 and answer.mean == pytest.approx(np.mean(answer.probabilities))
    assert answer.quartiles[0] <= answer.quartiles[1] <= answer.quartiles[2] and answer.verdict and answer.plot().axes
    assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()


def test_a_video_without_heads_gets_no_verdict(tmp_path, video):
    answer = Pipeline.load(make_run(tmp_path, heads=1.0)).check_video(video, n_frames=4)
    assert answer.verdict is answer.mean is answer.quartiles is None and "no head" in answer.reason and answer.plot().axes


def test_frames_that_a_network_of_heads_judged_whole_are_told(tmp_path, video):
    pipeline = Pipeline.load(make_run(tmp_path, heads=1.0))
    answer = pipeline.check_video(video, n_frames=4, whole=True)
    assert answer.verdict and any("4 frames without a head" in note and "never seen" in note for note in answer.notes)
    assert not any("never seen" in note for note in pipeline.check_video(video, n_frames=4).notes)


def test_a_broken_video_is_named(heads_run, tmp_path):
    from deepfake_nbs.datasets import VideoError

    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(VideoError, match="a.mp4"):
        Pipeline.load(heads_run).check_video(tmp_path / "a.mp4")


def test_a_video_of_one_frame_is_judged(heads_run, tmp_path):
    import cv2

    writer = cv2.VideoWriter(str(tmp_path / "one.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (96, 64))
    writer.write(np.full((64, 96, 3), 90, np.uint8))
    writer.release()
    answer = give_heads(Pipeline.load(heads_run), (5.0, 5.0, 45.0, 50.0)).check_video(tmp_path / "one.mp4")
    assert answer.frames == (0,) and answer.mean == answer.probabilities[0] and answer.quartiles == (answer.mean,) * 3
    assert answer.verdict and answer._repr_png_()


def test_every_bad_video_is_one_error_that_names_it(heads_run, tmp_path, video):
    from deepfake_nbs.datasets import VideoError

    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:-100])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to("gone.mp4")
    pipeline = Pipeline.load(heads_run)
    odd = ("a\x1b[31m.mp4", "a\0.mp4", f"{'a' * 300}.mp4")
    for name in ("cut.mp4", "empty.mp4", "folder.mp4", "pipe.mp4", "link.mp4", "missing.mp4", *odd):
        with pytest.raises(VideoError) as error:
            pipeline.check_video(tmp_path / name)
        assert str(error.value).isprintable() and error.value.path == str(tmp_path / name) and error.value.reason
    with pytest.raises(ValueError, match="n_frames is 0; expected at least 1"):
        pipeline.check_video(video, n_frames=0)


@pytest.mark.parametrize("name", ["scene:1.mp4", "a\x1b[31m\u202e\n$x$.mp4", os.fsdecode(b"na\xefve.mp4")])
def test_a_video_of_any_name_is_judged_and_drawn(heads_run, tmp_path, video, monkeypatch, name):
    shutil.copy(video, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    answer = Pipeline.load(heads_run).check_video(name, n_frames=2, whole=True)
    assert answer.video == name and answer.frames == (7, 22) and answer._repr_png_()
    assert answer.plot().axes[0].get_title().isprintable() and json.loads(json.dumps(answer.to_dict()))["video"] == name


# --- The gallery ------------------------------------------------------------------------------------------------------


@pytest.fixture
def known(tmp_path, photos):
    folder = tmp_path / "known"
    (folder / "train").mkdir(parents=True)
    for i, path in enumerate(sorted(photos.iterdir())[:6]):
        Image.open(path).resize((60, 40)).save(folder / "train" / f"{i}.png")
    (folder / "train" / "broken.png").write_text("no picture")
    write_text(folder / "manifest.csv", "path,label,source\n" + "".join(f"train/{i}.png,{i % 2},S{i}\n" for i in range(6)))
    return folder


def test_matches_carry_labels_and_unreadable_files_are_told(heads_run, known, photos):
    for folder in (known, known / "train"):
        gallery = Gallery.open(folder, heads_run, k=3)
        found = gallery.find(sorted(photos.iterdir())[2])
        assert Path(found[0].path).name == "2.png" and (found[0].label, found[0].source) == ("real", "S2") and len(found) == 3
        assert "cannot be read" in gallery.note
    result = invoke("check", sorted(photos.iterdir())[3], "--run", heads_run, "--gallery", known, "--whole")
    assert result.exit_code == 0 and "cannot be read" in result.stdout and "3.png (fake" in result.stdout


def test_evidence_and_retrieve_say_what_the_gallery_could_not_read(heads_run, known, photos, tmp_path):
    photo = sorted(photos.iterdir())[3]
    result = invoke("check", photo, "--run", heads_run, "--gallery", known, "--json", "--whole")
    assert any("broken.png" in note and note.startswith("gallery:") for note in json.loads(result.stdout)["notes"])
    result = invoke("check", photo, photo, "--run", heads_run, "--gallery", known, "--whole")
    assert result.stdout.count("cannot be read") == 1, "said once, above the table"
    assert invoke("index", known, tmp_path / "index", "--run", heads_run).exit_code == 1, "one file could not be read"
    for gallery in (known, tmp_path / "index"):
        result = invoke("retrieve", photo, "--gallery", gallery, "--run", heads_run)
        assert result.exit_code == 0 and "cannot be read" in result.stderr and "cannot be read" not in result.stdout


@pytest.mark.parametrize(
    "content, words",
    [
        (b"file,label\nx.png,1\n", "labels.csv: lacks the columns ['path']"),
        (b"", "labels.csv: lacks the columns ['path']; found none"),
        ("path,label,source\n0.png,1,Z\u00fcrich\n".encode("latin-1"), "labels.csv: not a table in UTF-8"),
        (b"path,label\n" + b"x" * 200_000 + b",1\n", "labels.csv: not a table in UTF-8"),
    ],
)
def test_a_broken_table_of_a_gallery_is_named(heads_run, known, photos, content, words):
    (known / "manifest.csv").unlink()
    (known / "labels.csv").write_bytes(content)
    for command in (("check", sorted(photos.iterdir())[0]), ("retrieve", sorted(photos.iterdir())[0])):
        result = invoke(*command, "--run", heads_run, "--gallery", known)
        assert result.exit_code == 2 and words in result.stderr and "Traceback" not in result.output


def test_a_table_that_a_spreadsheet_saved_is_read(heads_run, known, photos):
    text = (known / "manifest.csv").read_text()
    (known / "manifest.csv").write_text(text + "train/9.png\n", encoding="utf-8-sig")
    found = Gallery.open(known, heads_run, k=1).find(sorted(photos.iterdir())[2])
    assert (found[0].label, found[0].source) == ("real", "S2")


def test_a_picture_in_memory_finds_the_same_and_its_own_bytes_never(heads_run, known, photos):
    gallery, photo = Gallery.open(known, heads_run), sorted(photos.iterdir())[1]
    assert [m.path for m in gallery.find(photo)] == [m.path for m in gallery.find(Image.open(photo).convert("RGB"))]
    assert "1.png" not in {Path(match.path).name for match in gallery.find(known / "train" / "1.png")}


@pytest.mark.parametrize("similarity, measure, order", [("cosine", "similarity", -1), ("euclidean", "distance", 1)])
def test_a_match_says_whether_its_number_is_a_similarity_or_a_distance(heads_run, known, photos, tmp_path, similarity, measure, order):
    assert invoke("index", known, tmp_path / "index", "--run", heads_run, "--similarity", similarity).exit_code == 1, "broken.png"
    found = Gallery.open(tmp_path / "index", heads_run).find(sorted(photos.iterdir())[0])
    assert {match.measure for match in found} == {measure}
    assert [match.similarity for match in found] == sorted((match.similarity for match in found), key=lambda number: order * number)


def test_a_bad_gallery_is_named(heads_run, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "nowhere", tmp_path / "empty"):
        result = invoke("check", photos, "--run", heads_run, "--gallery", place)
        assert result.exit_code == 2 and place.name in result.stderr and "Traceback" not in result.output


def test_index_and_retrieve_commands(heads_run, known, photos, tmp_path):
    made = invoke("index", known, tmp_path / "index", "--run", heads_run)
    assert made.exit_code == 1 and "6 pictures" in made.stdout and "broken.png" in made.stderr
    photo = sorted(photos.iterdir())[4]
    result = invoke("retrieve", photo, "--gallery", tmp_path / "index", "-k", 2, "--json", "--run", heads_run)
    assert result.exit_code == 0 and Path(json.loads(result.stdout)["matches"][0]["path"]).name == "4.png"
    (tmp_path / "bad.jpg").touch()
    assert invoke("retrieve", tmp_path / "bad.jpg", photo, "--gallery", tmp_path / "index", "--run", heads_run).exit_code == 1
    assert invoke("index", known, tmp_path / "other", "--feature", "nose").exit_code == 2


# --- Runs that are not whole ------------------------------------------------------------------------------------------


def test_a_missing_or_cut_detector_is_named(tmp_path, photos):
    for name, spoil in (("gone", Path.unlink), ("cut", lambda path: path.write_bytes(path.read_bytes()[:500]))):
        run = make_run(tmp_path / name)
        spoil(run / DETECTOR / "model.safetensors")
        result = invoke("check", photos, "--run", run)
        assert result.exit_code == 2 and "head_detector" in result.stderr and "Traceback" not in result.output
    result = invoke("check", photos, "--run", make_run(tmp_path / "none", heads=None))
    assert result.exit_code == 2 and "head_detector" in result.stderr, "a network of heads needs a detector"


def test_a_run_of_another_version_is_named(tmp_path, photos):
    result = invoke("check", photos, "--run", make_run(tmp_path, version="7.2.0"))
    assert result.exit_code == 2 and "version 7.2.0" in result.stderr and "make report" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"WEIGHTS": {"fake": 1}}',
        '{"WEIGHTS": ["real_to", "fake_from"]}',
        '{"WEIGHTS": {"real_to": "low", "fake_from": 0.7, "origin": "x"}}',
        '{"WEIGHTS": {"real_to": 0.2, "fake_from": [0.7], "origin": "x"}}',
        '{"WEIGHTS": {"real_to": 0.2, "fake_from": NaN, "origin": "x"}}',
        '{"WEIGHTS": {"real_to": 0.9, "fake_from": 0.1, "origin": "x"}}',
        '{"WEIGHTS": {"real_to": 0.2, "fake_from": 0.7, "origin": null}}',
    ],
)
def test_broken_thresholds_are_named(tmp_path, photos, text):
    run = make_run(tmp_path)
    write_text(run / THRESHOLDS, text.replace("WEIGHTS", file_sha256(run / CLASSIFIER / "model.safetensors")))
    result = invoke("check", photos, "--run", run)
    assert result.exit_code == 2 and "thresholds.json" in result.stderr and "Traceback" not in result.output


def test_a_row_that_was_not_trained_is_named(heads_run, photos):
    result = invoke("check", photos, "--run", heads_run, "--row", 3)
    assert result.exit_code == 2 and "training/3" in result.stderr


def test_saved_evidence(heads_run, photos, tmp_path):
    result = invoke("check", *sorted(photos.iterdir())[:2], "--run", heads_run, "--save", tmp_path / "evidence")
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
    assert len(list((tmp_path / "saved").glob("*.json"))) == len(list((tmp_path / "saved").glob("*.png"))) == 4
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "0001-b $\\frac$.png").mkdir()  # Something stands where one picture shall be
    result = invoke("check", some, "--run", heads_run, "--save", tmp_path / "full")
    assert result.exit_code == 1 and "not saved: " in result.stderr and "frac" in result.stderr and "Traceback" not in result.output
    assert (tmp_path / "full" / "0002-z.png").is_file(), "the next ones are judged and saved all the same"


def test_names_are_drawn_as_they_are(heads_run, photos, video):
    match = application.Match(str(sorted(photos.iterdir())[1]), 0.5, "real", r"a $\frac$ b")
    answer = replace(Pipeline.load(heads_run).check(sorted(photos.iterdir())[0]), matches=(match,))
    assert answer._repr_png_()[:4] == b"\x89PNG"
    film = Pipeline.load(heads_run).check_video(video, n_frames=2)
    assert replace(film, video=r"$\frac$.mp4")._repr_png_()[:4] == b"\x89PNG"


# --- Pages ------------------------------------------------------------------------------------------------------------


def test_pairs_of_the_test_split_come_first_and_frames_match(tmp_path, video):
    root = tmp_path / "data" / "faceforensics"
    for name in (
        "original_sequences/youtube/c23/videos/000",
        "original_sequences/youtube/c23/videos/001",
        "manipulated_sequences/Deepfakes/c23/videos/000_001",
        "manipulated_sequences/FaceSwap/c23/videos/001_000",
        "manipulated_sequences/FaceSwap/c23/videos/009_000",
    ):
        path = (root / name).with_suffix(".mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video.read_bytes())
    lines = [
        "faceforensics/manipulated_sequences/Deepfakes/c23/videos/000_001.mp4,train",
        "faceforensics/manipulated_sequences/FaceSwap/c23/videos/001_000.mp4,test",
    ]
    write_text(tmp_path / "run" / "cvcs_dfd" / "manifest.csv", "\n".join(["video,split", *lines]) + "\n")
    pairs = find_pairs(tmp_path / "run", tmp_path / "data", 5, 3)
    assert [(pair.method, pair.split) for pair in pairs] == [("FaceSwap", "test"), ("Deepfakes", "train")], "009 has no original"
    assert all(pair.original.is_file() and pair.fake.is_file() and pair.original.name == pair.fake.name for pair in pairs)
    assert find_pairs(tmp_path / "run", tmp_path) == [] and example_photographs(tmp_path) == {}


def test_evidence_for_each_pair_of_real_videos(heads_run, real, tmp_path):
    pairs = find_pairs(tmp_path, real, 4, 2)
    assert {(Path(pair.original_video).stem, Path(pair.fake_video).stem) for pair in pairs} == {("519", "519_515"), ("634", "634_660")}
    for pair in pairs:
        answers = [Pipeline.load(heads_run).check(path) for path in (pair.original, pair.fake)]
        assert all(answer.verdict and answer.heads for answer in answers)


@pytest.mark.parametrize("name", ["xception", "midway", "light", "detector"])
def test_folding_norms_changes_nothing(name):
    torch.manual_seed(1)
    model = EfficientDet() if name == "detector" else create_model(name, width=0.1)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
        torch.nn.init.uniform_(norm.weight, 0.8, 1.2)
        torch.nn.init.normal_(norm.bias, 0, 0.1)
    x = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8) if name == "detector" else torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        before = model.eval()(x)
        after = application._fold_norms(model)(x)
    for old, new in zip(before, after, strict=True):
        assert (old - new).abs().max() <= 1e-3 * max(1, old.abs().max())
    left = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert left == 0 if name != "detector" else left < len(norms) / 2
