"Hyperparameter search: storage, resuming, pruning, several processes, another search, and that no trial reads a test image."

import builtins
import json
import os
import time
from dataclasses import replace

import optuna
import pandas as pd
import pytest
from noise_run import TINY, draw_dataset, one_thread  # noqa: F401 - a fixture
from typer.testing import CliRunner

from deepfake_nbs.application.cli import app
from deepfake_nbs.classifiers import search as searching
from deepfake_nbs.classifiers.search import (
    base_values,
    count_trials,
    default_storage,
    open_storage,
    open_study,
    run_trials,
    search,
    search_space,
    train_trial,
    trial_config,
    winner_name,
    work_on,
)
from deepfake_nbs.classifiers.search_report import (
    find_studies,
    read_study,
    search_gain,
    search_sentence,
    study_base,
    trials_frame,
    trials_view,
)
from deepfake_nbs.metrics import paired_metrics
from deepfake_nbs.runs import TrainingError, read_predictions

BASE = replace(
    TINY, row=11, epochs=2, augment="flip", optimiser="adamw", weight_decay=0.05, learning_rate=0.001
)
STATES = optuna.trial.TrialState


def auc(trial, config, folder):
    value = 0.9 - abs(config.learning_rate - 0.003) * 20
    for epoch in (1, 2):
        trial.report(value, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


def opened(place, base=BASE, manifest="0" * 64, storage=""):
    return open_study(open_storage(storage or place / "study.log"), "s", base, manifest)


def go_on(place, trials, objective=auc, **how):
    study = opened(place, **how)
    run_trials(study, study_base(study), place / "s", trials, objective)
    return study


def states(study):
    return [trial.state.name for trial in study.trials]


# The space


def test_a_trial_differs_in_what_it_tried_and_in_nothing_else():
    assert trial_config(BASE, base_values(BASE)) == BASE
    changed = trial_config(BASE, base_values(BASE) | dict(optimiser="adam", width=0.05))
    assert changed == replace(BASE, row=0, optimiser="adam", width=0.05, weight_decay=0.0)
    from_adam = replace(BASE, optimiser="adam", weight_decay=0.0)
    assert trial_config(from_adam, base_values(BASE)).weight_decay == 0.05


def test_a_window_excludes_training_without_augmentation():
    assert "none" in search_space(BASE)["augment"]
    assert "none" not in search_space(replace(BASE, window=0.75))["augment"]
    assert search_space(replace(BASE, learning_rate=0.1))["learning_rate"] == [1e-4, 0.1]


# Storage and resuming


@pytest.mark.parametrize("storage", ["", "sqlite:///{}/study.db"])
def test_a_study_resumes_with_its_finished_trials(tmp_path, storage, capfd):
    storage = storage.format(tmp_path)
    first = go_on(tmp_path, 3, storage=storage)
    before = [(trial.number, trial.value, trial.params) for trial in first.trials]
    assert first.trials[0].params == base_values(BASE), "the configuration itself comes first"
    second = go_on(tmp_path, 5, storage=storage)
    assert [(trial.number, trial.value, trial.params) for trial in second.trials][:3] == before
    assert count_trials(second) == len(second.trials) == 5
    assert len({str(trial.params) for trial in second.trials}) == 5, "a session draws with a seed of its own"
    said = capfd.readouterr().err
    assert "trial 0: validation AUC 0.860 (best 0.860, trial 0); learning rate 0.001, adamw" in said
    assert "5 of 5 done" in said


def test_one_process_finds_the_same_study_again(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    one, other = (go_on(tmp_path / name, 9) for name in "ab")
    assert [trial.params for trial in one.trials] == [trial.params for trial in other.trials]


def test_an_interrupted_trial_is_marked_and_replaced(tmp_path):
    def interrupted(trial, config, folder):
        if trial.number == 1:
            raise KeyboardInterrupt
        return auc(trial, config, folder)

    with pytest.raises(KeyboardInterrupt):
        go_on(tmp_path, 3, interrupted)
    study = go_on(tmp_path, 3)
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_a_training_that_cannot_continue_is_a_failed_trial_and_nothing_else_is(tmp_path, capfd):
    def diverged(trial, config, folder):
        raise TrainingError("loss is not finite at epoch 1")

    study = go_on(tmp_path, 3, diverged)
    assert states(study) == ["FAIL"] * 3, "it ends, though no trial succeeds"
    assert "trial 2: failed: loss is not finite at epoch 1" in capfd.readouterr().err
    assert "none completed (3 failed)" in search_sentence(study)

    def broken(trial, config, folder):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        go_on(tmp_path, 3, broken)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked")
def test_a_trial_whose_process_was_killed_is_marked_when_the_search_resumes(tmp_path, capfd):
    if not (child := os.fork()):
        go_on(tmp_path, 2, lambda trial, config, folder: os._exit(9))
    os.waitpid(child, 0)
    assert states(opened(tmp_path)) == ["RUNNING"]
    study = go_on(tmp_path, 2)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert "trial 0: its process died; marked as failed" in capfd.readouterr().err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_processes_share_a_study_and_never_make_more_trials_than_asked_for(tmp_path):
    def slow(trial, config, folder):
        time.sleep(0.05)
        return 0.5 + trial.number / 100

    opened(tmp_path)
    children = []
    for _ in range(3):
        if not (child := os.fork()):
            go_on(tmp_path, 7, slow)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    study = opened(tmp_path)
    assert states(study) == ["COMPLETE"] * 7
    assert len({str(trial.params) for trial in study.trials}) == 7


# Pruning


def test_a_trial_below_the_median_is_pruned_and_counts(tmp_path):
    def falling(trial, config, folder):
        value = 0.9 - trial.number / 10
        trial.report(value, 1)
        if trial.should_prune():
            raise optuna.TrialPruned
        return value

    study = go_on(tmp_path, 6, falling)
    assert states(study) == ["COMPLETE"] * 4 + ["PRUNED"] * 2
    assert study.best_trial.number == 0 and winner_name(study, BASE) == "11"
    assert "found nothing better than run 11" in search_sentence(study)
    view = trials_view(trials_frame(study), 5)
    assert view["trial"].tolist() == [0, 1, 2, 3, 4] and view["outcome"].tolist()[-1] == "pruned"


# Another search, other files


def test_another_search_under_the_same_name_is_refused(tmp_path):
    go_on(tmp_path, 1)
    for base, manifest, said in [
        (replace(BASE, image_size=64), "0" * 64, r"base.image_size \(48, not 64\)"),
        (BASE, "1" * 64, "base.manifest_sha256"),
        (replace(BASE, width=0.2), "0" * 64, r"space.width \(\[0.05, 0.1"),
    ]:
        with pytest.raises(
            ValueError, match=f"study 's': another search has this name, which differs in .*{said}"
        ):
            opened(tmp_path, base, manifest)
    optuna.create_study(storage=open_storage(tmp_path / "other.log"), study_name="s").enqueue_trial({"x": 1})
    with pytest.raises(ValueError, match="study 's': made by another program"):
        opened(tmp_path, storage=tmp_path / "other.log")


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b'{"a": 1}\n[2]\n', b"\x89PNG\r\n\x1a\n\xff\n"])
def test_a_file_that_is_no_study_is_refused(tmp_path, content):
    (tmp_path / "study.log").write_bytes(content)
    with pytest.raises(ValueError, match="study.log: not a journal of Optuna; expected a new file"):
        opened(tmp_path)


def test_a_password_is_never_said(tmp_path):
    for address in ("nosql://me:secret@host/x", f"sqlite:///{tmp_path}/no/such/secret.db"):
        with pytest.raises(ValueError, match="--storage .*cannot be opened") as caught:
            open_storage(address)
        assert "secret" not in str(caught.value)


def test_optuna_that_is_not_installed_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def lacking(name, *args, **kwargs):
        if name == "optuna":
            raise ImportError("No module named 'optuna'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(ValueError, match="pip install optuna"):
        open_storage(tmp_path / "study.log")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run-number", "99"], "run number is 99"),
        (["--run-number", "13"], "an SVM is fitted"),
        (["epoch=3"], "'epoch=3': expected key=value"),
        (["--study", "a/b"], "name is 'a/b'"),
    ],
)
def test_bad_calls_get_a_sentence(words, said):
    result = CliRunner().invoke(app, ["search", *words])
    assert result.exit_code == 2 and said in " ".join(result.output.split())


# Trainings


@pytest.fixture(scope="module")
def searched(tmp_path_factory, one_thread):  # noqa: F811
    "A run folder with a study of two tiny trainings, made while no test image could be read."
    run = tmp_path_factory.mktemp("search") / "smoke-noise"
    dataset = draw_dataset(run / "cvcs_dfd")
    dataset = run / "cvcs_dfd"
    kept = {path: path.read_bytes() for path in (dataset / "test").glob("*.png")}
    for path in kept:
        path.write_bytes(b"no image")
    work_on(run, BASE, "tiny", default_storage(run, "tiny"), 2)
    for path, content in kept.items():
        path.write_bytes(content)
    return run


def test_no_trial_reads_a_test_image(searched):
    study = read_study(searched)
    assert states(study) == ["COMPLETE"] * 2
    for number in "01":
        folder = searched / "search" / "tiny" / number
        record = json.loads((folder / "run.json").read_text())
        history = pd.read_csv(folder / "history.csv")
        assert record["validation_auc"] == history["validation_auc"].max() == study.trials[int(number)].value
        assert {path.name for path in folder.iterdir()} == {"run.json", "history.csv"}, (
            "no weights, no predictions"
        )


def test_the_winner_is_trained_by_name_and_finds_its_validation_auc_again(searched):
    study, winner = search(searched, BASE, "tiny", trials=2)
    assert len(study.trials) == 2 and find_studies(searched) == ["tiny"]
    assert {path.name for path in (searched / "training").iterdir() if path.is_dir()} == {"11", winner}
    history = pd.read_csv(searched / "training" / winner / "history.csv")
    assert history["validation_auc"].max() == study.best_value
    gain = search_gain(searched, study)
    if winner == "11":
        assert gain is None and "found nothing better than run 11" in search_sentence(study, gain)
    else:
        pair = [read_predictions(searched / "training" / name) for name in (winner, "11")]
        assert gain["difference"] == paired_metrics(*pair).loc["auc", "difference"]
        assert f"Trained as run {winner}, its test AUC is" in search_sentence(study, gain)


def test_a_training_behind_the_median_stops_after_its_first_epoch(searched, tmp_path):
    study = opened(tmp_path)
    for _ in range(5):  # Others that were perfect
        trial = study.ask(searching.distributions(search_space(BASE)))
        trial.report(1.0, 1)
        study.tell(trial, 1.0)
    trial = study.ask(searching.distributions(search_space(BASE)))
    config = replace(BASE, learning_rate=1e-4, epochs=3)
    with pytest.raises(optuna.TrialPruned):
        train_trial(trial, config, tmp_path / "5", searched / "cvcs_dfd", "cpu")
    assert len(pd.read_csv(tmp_path / "5" / "history.csv")) == 1
    assert json.loads((tmp_path / "5" / "run.json").read_text())["pruned"] is True


def test_a_validation_split_of_one_class_is_refused(tmp_path):
    run = tmp_path / "smoke-noise"
    draw_dataset(run / "cvcs_dfd")
    path = run / "cvcs_dfd" / "manifest.csv"
    manifest = pd.read_csv(path, dtype=str, keep_default_na=False)
    manifest.loc[manifest["split"].eq("validation"), ["label", "method"]] = ["1", "smooth"]
    manifest.to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"manifest.csv: the split 'validation' holds label \[1\] only"):
        search(run, BASE, "tiny", trials=1)
    assert not (run / "search").exists()
