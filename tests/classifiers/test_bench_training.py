"The bench of the trainings gives the peer the same chances."

import importlib
from dataclasses import replace
import numpy as np
import pandas as pd
import pytest
from noise_run import TINY
from deepfake_nbs.classifiers.training import train


pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_peer_gets_the_whole_recipe(root, noise, monkeypatch):
    monkeypatch.syspath_prepend(root / "bench")
    bench, seen = importlib.import_module("bench_training"), []
    monkeypatch.setattr(
        bench, "update_bn", lambda loader, model: seen.append([tuple(x.shape) for x, _ in loader])
    )
    frame, record = bench.train_peer(
        replace(TINY, epochs=2, optimiser="adamw", augment="flip", window=0.75), noise
    )
    assert len(seen) == 2 and sum(shape[0] for shape in seen[0]) == 18, (
        "batch norms are measured after each epoch, on training images"
    )
    assert {shape[1:] for batches in seen for shape in batches} == {(3, 48, 48)}, "whole ones"
    assert (
        len(frame) == record["n"] == 6
        and record["best_epoch"] in (1, 2)
        and record["network"].startswith("our own Xception")
    )


def test_the_bench_tries_half_precision_on_held_out_images_first(root, noise, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(root / "bench")
    bench, splits = importlib.import_module("bench_training"), []
    train(replace(TINY, epochs=1), noise, tmp_path / "out", device="cpu")

    def say(model, images, batch_size, precision):
        splits.append(list(images.frame["split"]))
        return np.full(len(images), 0.4 if precision == "float32" else 0.6)

    monkeypatch.setattr(bench, "predict", say)
    change, verdicts, n = bench.half_precision(tmp_path / "out")
    assert change == pytest.approx(0.2) and verdicts == n == len(pd.read_csv(noise / "manifest.csv"))
    assert set(splits[0][splits[0].index("train") :]) == {"train"}
