"Contracts of runs 12 and 13: a network of timm is trained, stopped, resumed, saved, and used again."

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.pretrained_weights import SMALL
from noise_run import draw_dataset

from deepfake_nbs.classifiers import report, training, views
from deepfake_nbs.classifiers.comparison import compare_epochs
from deepfake_nbs.classifiers.data import (
    ManifestImages,
    add_noise,
    crop_and_resize,
    draw_balanced,
    read_splits,
)
from deepfake_nbs.classifiers.recipes import (
    LITE0,
    named_config,
    own_changes,
    profile_config,
    run_config,
    run_name,
    table_config,
)
from deepfake_nbs.classifiers.saved import load_classifier
from deepfake_nbs.classifiers.tables import finished_runs, plot_history, training_table
from deepfake_nbs.classifiers.training import predict, train, train_run, train_together
from deepfake_nbs.runs import TrainingError, read_predictions
from deepfake_nbs.settings import read_settings

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = dict(net=SMALL, weights="none", image_size=48, workers=1, precision="float32")
TUNED = replace(table_config(12), **TINY, batch_size=5, epochs=2)
FROZEN = replace(table_config(13), **TINY, batch_size=5)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    "A run folder with small stand-ins of runs 12 and 13."
    run = tmp_path_factory.mktemp("ours") / "smoke-noise"
    draw_dataset(run / "cvcs_dfd", n=40)
    for config in (TUNED, FROZEN):
        train_run(run, config, str(config.row))
    return run


@pytest.mark.parametrize("number", [12, 13])
def test_the_saved_model_predicts_what_the_run_predicted(both, number):
    folder = both / "training" / str(number)
    model, config = load_classifier(folder / "model")
    frame = read_splits(both / "cvcs_dfd", TUNED)["test"]
    colours = tuple(config["mean"]), tuple(config["std"])
    images = ManifestImages(frame, both / "cvcs_dfd", config["image_size"], colours=colours)
    again = predict(model, images, precision="float32")
    said = read_predictions(folder, "test")
    np.testing.assert_allclose(again, said["probability"], atol=1e-5)
    assert config["net"] == SMALL and config["head"] == ("svm" if number == 13 else "linear")
    assert config["mean"] == list(training.both_colours(TUNED)[0])


def test_records_say_what_was_trained(both):
    records = finished_runs(both)
    assert [records[n]["epochs"] for n in (12, 13)] == [2, 1] and records[13]["best_epoch"] == 1
    assert all(
        records[n]["weights_origin"] == "none" and records[n]["config"]["width"] == 1 for n in (12, 13)
    )
    history = pd.read_csv(both / "training/13/history.csv")
    assert len(history) == 1 and np.isfinite(history["validation_loss"]).all()
    assert plot_history(history, best=1).get_ylim()[1] > 0
    assert compare_epochs(both, n_resamples=10)["run"].tolist() == ["12"], "one epoch has no early one"
    with pytest.raises(TrainingError, match="epochs"):
        train(replace(FROZEN, epochs=2), both / "cvcs_dfd", both / "training/13")


def test_an_svm_leaves_the_network_as_it_was(both):
    start = training.first_network(FROZEN, 24).state_dict()
    end = load_classifier(both / "training/13/model")[0].state_dict()
    own = [key for key in start if key.startswith("network.")]
    assert own and all(torch.equal(start[key], end[key]) for key in own)
    assert end["coefficients"].abs().max() > 0


def test_a_stopped_fine_tuning_resumes_to_the_same_numbers(both, tmp_path, monkeypatch):
    epoch, calls = training.measure_epoch, []

    def stop(learner):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return epoch(learner)

    monkeypatch.setattr(training, "measure_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        train(TUNED, both / "cvcs_dfd", tmp_path / "12")
    assert not (tmp_path / "12/run.json").exists()
    monkeypatch.setattr(training, "measure_epoch", epoch)
    train(TUNED, both / "cvcs_dfd", tmp_path / "12")
    first, second = (read_predictions(place, "test") for place in (both / "training/12", tmp_path / "12"))
    np.testing.assert_allclose(first["probability"], second["probability"], atol=1e-6)


def test_imagenet_weights_that_cannot_be_had_leave_nothing_behind(both, no_hub):
    config = replace(TUNED, net="timm:resnet18", weights="imagenet")
    with pytest.raises(ConnectionError, match="Three ways"):
        train_run(both, config, "none of it")
    assert not (both / "training/none of it/run.json").exists()
    assert not list((both / "training").glob("none of it/*.safetensors"))


def test_the_command_says_in_one_sentence_what_cannot_be_had(both, no_hub, monkeypatch):
    from typer.testing import CliRunner

    from deepfake_nbs.application.cli import app

    small = replace(read_settings("smoke"), image_size=48, epoch_limit=1)
    monkeypatch.setattr("deepfake_nbs.core.run_folder", lambda profile, data: both)
    monkeypatch.setattr("deepfake_nbs.settings.read_settings", lambda profile: small)
    done = CliRunner().invoke(app, ["train", "net=timm:resnet18", "weights=imagenet"])
    assert done.exit_code == 2 and "Three ways" in done.output and "Traceback" not in done.output
    done = CliRunner().invoke(app, ["train", f"net={SMALL}", "weights=none", "batch_size=5"])
    assert done.exit_code == 0 and "best epoch 1" in done.output, done.output


# Tables and sentences


def test_tables_show_first_weights_and_what_the_profile_changed(both):
    table = training_table(both)
    shown = views.settings_view(table).set_index("run")
    assert shown.loc[12, "batch size"] == "64 → 5" and shown.loc[12, "epochs"] == "18 → 2"
    assert shown.loc[12, "learning rate"] == "0.0015" and shown.loc[8, "status"] == "not run"
    budget = views.budget_view(table).set_index("run")
    assert budget.index.tolist()[:2] == [12, 13] and len(budget.columns) <= 7
    assert budget.loc[12, ["first weights", "width"]].tolist() == ["random", 1]
    assert budget.loc[12, "schedule, augmentation"] == "cosine, strong"
    assert budget.loc[12, "best epoch"].endswith(" of 2") and budget.loc[12, "minutes"] >= 0


def test_trained_weights_are_no_comparison_of_architectures():
    def record(size, width, weights):
        return dict(config=dict(image_size=size, width=width, weights=weights))

    records = {
        8: record(96, 0.25, "none"),
        12: record(192, 1.0, "imagenet"),
        13: record(192, 1.0, "imagenet"),
    }
    sentence = report.pretrained_sentence(records)
    assert sentence.startswith("Runs 12 and 13 started from trained weights (192 pixels at width 1)")
    assert (
        "random ones (96 pixels at width 0.25)" in sentence and "no comparison of architectures" in sentence
    )
    assert report.pretrained_sentence({8: records[8]}) == report.pretrained_sentence({}) == ""
    old = {8: dict(config=dict(image_size=96, width=0.25)), 12: records[12]}
    assert report.pretrained_sentence(old).startswith("Run 12 started"), "a record without the key was random"


def test_a_network_of_timm_stands_beside_ours():
    sizes = views.summarise_timm((LITE0,), 224)
    assert sizes.loc[LITE0, "parameters"] == 3_373_570, "4.65 million with 1000 classes"
    assert 360e6 < sizes.loc[LITE0, "multiply_adds"] < 410e6, "published: 407 million, with 1000 classes"
    assert (
        views.summarise_timm((LITE0,), 112).loc[LITE0, "multiply_adds"]
        < sizes.loc[LITE0, "multiply_adds"] / 3
    )


# A profile's own changes, and runs in one process


def test_a_profile_changes_one_run_alone():
    settings = replace(
        read_settings("smoke"), run_changes=("12 augment=flip image_size=64", "13 image_size=80")
    )
    assert own_changes(12, settings) == dict(augment="flip", image_size=64) and own_changes(8, settings) == {}
    assert (profile_config(12, settings).row, profile_config(13, settings).image_size) == (12, 80)
    assert profile_config(8, settings) == profile_config(8, replace(settings, run_changes=()))
    assert run_name(profile_config(12, settings), settings) == "12"
    for line, said in [
        ("12 augment", "expected key=value"),
        ("12 epochs=x", "epochs=int"),
        ("x a=b", "invalid"),
    ]:
        with pytest.raises(ValueError, match=f"run_changes of profile smoke: .*{said}"):
            profile_config(12, replace(settings, run_changes=(line,)))


def test_a_name_of_the_report_is_a_configuration():
    settings = read_settings("smoke")
    assert named_config("8", settings) == profile_config(8, settings)
    assert named_config("8-published", settings) == run_config(8, settings, protocol="published")
    assert named_config("8-cosine", settings) == run_config(8, settings, schedule="cosine")
    assert named_config("1-seed7-published", settings) == run_config(
        1, settings, seed=7, protocol="published"
    )
    assert named_config("1-128px", settings) == run_config(1, settings, image_size=128)
    assert named_config("8-24epochs-seed1", settings) == run_config(8, settings, epochs=24, seed=1)
    for name, said in [
        ("8-x", "unknown part 'x'"),
        ("8-px", "unknown part 'px'"),
        ("99", "run number is 99"),
        ("8-seedx", "unknown part"),
    ]:
        with pytest.raises(ValueError, match=said):
            named_config(name, settings)
    assert all(named_config(name, settings) for name in settings.runs)


def test_runs_without_a_page_are_trained_in_one_process(tmp_path, monkeypatch):
    run = tmp_path / "smoke-noise"
    draw_dataset(run / "cvcs_dfd")
    small = dict(image_size=48, width=0.1, epoch_limit=1, rows=(6, 8), protocol_rows=(8,), schedule_rows=())
    settings = replace(read_settings("smoke"), **small, page_rows=(6,), run_changes=())
    assert (settings.runs, settings.paged_runs) == (["6", "8", "8-published"], ["6"])
    monkeypatch.setattr(training, "run_folder", lambda profile, data: run)
    monkeypatch.setattr(training, "read_settings", lambda profile: settings)
    folders = train_together("smoke", "noise")
    assert folders[0] == "8" and "protocolpublished" in folders[1] and not (run / "training/6").exists()
    record = (run / "training/8/run.json").read_text()
    assert (
        train_together("smoke", "noise", ["8"]) == ["8"]
        and (run / "training/8/run.json").read_text() == record
    )
    assert json.loads(record)["run"] == 8 or json.loads(record)["run"] == "8"


# Strong augmentation and balanced sampling


def test_an_epoch_balances_classes_and_sources():
    counts = {(0, "a"): 90, (0, "b"): 10, (1, "a"): 10, (1, "c"): 40}
    rows = [dict(label=label, source=source) for (label, source), n in counts.items() for _ in range(n)]
    frame = pd.DataFrame(rows)
    drawn = frame.iloc[draw_balanced(frame, np.random.default_rng(0))]
    found = drawn.groupby(["label", "source"]).size()
    assert len(drawn) == 150 and found.groupby(level=0).sum().tolist() == [75, 75]
    assert found[0]["a"] / found[0]["b"] == pytest.approx(3, rel=0.1), "square roots of 90 and 10"
    assert found[1]["c"] / found[1]["a"] == pytest.approx(2, rel=0.1)


def test_balanced_draws_repeat_no_image_before_all_were_drawn_and_follow_the_seed():
    frame = pd.DataFrame(dict(label=[0] * 8 + [1] * 2, source="a"))
    one, again, other = (draw_balanced(frame, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.tolist() == again.tolist() and one.tolist() != other.tolist()
    counts = np.bincount(one, minlength=10)
    assert counts[:8].max() == 1 and counts[:8].sum() == counts[8:].sum() == 5
    assert sorted(counts[8:]) == [2, 3]


def test_a_random_window_fills_the_square():
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (64, 1, 3))
    spans = []
    for seed in range(40):
        out = crop_and_resize(ramp, np.random.default_rng(seed))
        assert out.shape == ramp.shape and out.dtype == np.uint8
        spans.append(int(out[0, -1, 0]) - int(out[0, 0, 0]))
    assert max(spans) <= 63 and min(spans) < 45 and len(set(spans)) > 10
    assert min(spans) >= 63 * np.sqrt(0.35 * 0.8) - 2, "no narrower than its least area and ratio allow"


def test_noise_has_the_deviation_it_was_given():
    grey = np.full((64, 64, 3), 128, np.uint8)
    deviations = [add_noise(grey, np.random.default_rng(seed)).std() for seed in range(30)]
    assert max(deviations) < 8.5 and min(deviations) < 2 and max(deviations) > 5
    assert add_noise(np.zeros((8, 8, 3), np.uint8), np.random.default_rng(0)).min() == 0
    assert np.array_equal(add_noise(grey, np.random.default_rng(0), most=0.0), grey)
