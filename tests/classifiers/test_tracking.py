"Export of a training's history to TensorBoard and MLflow."

import builtins
import json
import threading
import time

import pandas as pd
import pytest
from typer.testing import CliRunner

from deepfake_nbs.application.cli import app
from deepfake_nbs.core import write_text
from deepfake_nbs.classifiers.tracking import TRACKERS, new_epochs, track_run, tracked

HISTORY = pd.DataFrame(dict(epoch=[1, 2], train_loss=[0.7, 0.5], validation_auc=[0.75, None]))


def make_run(place, finished=True):
    folder = place / "training" / "8"
    folder.mkdir(parents=True)
    HISTORY.to_csv(folder / "history.csv", index=False)
    if finished:
        (folder / "run.json").write_text(
            json.dumps(dict(commit="abc", config=dict(net="xception", epochs=2)))
        )
    return folder


def test_tensorboard_has_every_number_once_however_often_it_is_exported(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = make_run(tmp_path)
    for _ in range(2):
        assert "run 8: 2 epochs" in track_run(folder)
    read = events.EventAccumulator(str(tmp_path / "trackers" / "tensorboard" / "8")).Reload()
    assert [(one.step, round(one.value, 4)) for one in read.Scalars("train_loss")] == [(1, 0.7), (2, 0.5)]
    assert [one.step for one in read.Scalars("validation_auc")] == [1], "NaN is left out"
    text = read.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "net: xception" in text and "commit: abc" in text


def test_mlflow_has_one_run_with_settings_and_metrics(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    folder = make_run(tmp_path)
    for _ in range(2):
        track_run(folder, "mlflow", tmp_path / "store")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}")
    at = client.get_experiment_by_name("deepfake_nbs").experiment_id
    (run,) = client.search_runs([at])
    assert run.data.params == dict(net="xception", epochs="2", commit="abc")
    loss = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(one.step, one.value) for one in loss] == [(1, 0.7), (2, 0.5)]


def test_a_running_training_is_followed_until_it_ends(tmp_path):
    folder = make_run(tmp_path, finished=False)

    def train():
        time.sleep(0.1)
        longer = pd.concat([HISTORY, HISTORY.tail(1).assign(epoch=3)])
        write_text(folder / "history.csv", longer.to_csv(index=False))  # In one piece, as a training does
        (folder / "run.json").write_text("{}")

    thread = threading.Thread(target=train)
    thread.start()
    assert [row["epoch"] for row in new_epochs(folder, True, 0.02)] == [1, 2, 3]
    thread.join()
    epochs = new_epochs(folder, False, 0)
    assert next(epochs)["train_loss"] == 0.7


def test_a_training_that_starts_again_is_an_error(tmp_path):
    folder = make_run(tmp_path, finished=False)
    epochs = new_epochs(folder, True, 0)
    assert [next(epochs)["epoch"], next(epochs)["epoch"]] == [1, 2]
    HISTORY.head(1).to_csv(folder / "history.csv", index=False)
    with pytest.raises(ValueError, match="started again"):
        next(epochs)


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    folder, real = make_run(tmp_path), builtins.__import__

    def lacking(name, *args, **kwargs):
        if name.partition(".")[0] in ("mlflow", "tensorboard") or name == "torch.utils.tensorboard":
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", lacking)
    for name in TRACKERS:
        with pytest.raises(ValueError, match=f"tracker '{name}' is not installed .*pip install {name}"):
            track_run(folder, name)
    assert not (tmp_path / "trackers").exists()


def test_a_training_continues_when_its_tracker_fails(tmp_path, monkeypatch, capsys):
    class Broken:
        def __init__(self, folder, name):
            raise OSError("No space left on device")

    folder = make_run(tmp_path)
    monkeypatch.setitem(TRACKERS, "mlflow", Broken)
    with tracked(folder, "mlflow", 0):
        done = True
    assert done and "tracker mlflow: No space left on device; `deepfake-nbs track" in capsys.readouterr().err
    with pytest.raises(KeyError), tracked(tmp_path / "training" / "9", "mlflow", 0):
        raise KeyError("what the training raises comes through")
    assert not (tmp_path / "trackers").exists(), "of a training without an epoch there is nothing to export"


def test_nothing_is_exported_by_default(tmp_path):
    before = threading.active_count()
    with tracked(make_run(tmp_path)):
        assert threading.active_count() == before
    assert not (tmp_path / "trackers").exists()


def test_an_unknown_tracker_is_refused_before_a_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "--tracker", "mlfow"])
    assert result.exit_code == 2 and "did you mean 'mlflow'" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "history.csv: no such file; expected the folder of a training"),
        (["training/8", "--tracker", "mlfow"], "expected one of tensorboard, mlflow; did you mean 'mlflow'"),
    ],
)
def test_bad_calls_get_a_sentence(tmp_path, monkeypatch, words, said):
    make_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["track", *words])
    assert result.exit_code == 2 and said in " ".join(result.output.split())


def test_a_history_that_is_none_is_named(tmp_path):
    folder = make_run(tmp_path)
    (folder / "history.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="lacks the columns epoch; found a, b"):
        track_run(folder)
    (folder / "history.csv").write_text("epoch,train_loss\n1,much\n")
    with pytest.raises(ValueError, match="line 2, column train_loss: 'much'; expected a number"):
        track_run(folder)
