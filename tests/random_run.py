"A run folder whose networks have learned nothing, for tests."

from pathlib import Path

import torch

from deepfake_nbs.application import CLASSIFIER
from deepfake_nbs.core import write_json
from deepfake_nbs.head_detection import DETECTOR, EfficientDet, save_weights
from deepfake_nbs.classifiers.xception import create_model
from deepfake_nbs.head_detection import MEAN, STD

CONFIG = {
    "net": "light",
    "width": 0.1,
    "n_classes": 2,
    "dropout": 0.5,
    "image_size": 64,
    "mean": MEAN,
    "std": STD,
    "crop": True,
    "trained_on": "nothing",
    "row": 8,
    "threshold": 0.5,
    "version": "0.1.0",
}


def make_run(folder: Path, heads: float | None = 1e-6, **changes) -> Path:
    "`heads` is the detector's threshold: near 0 anything is a head, 1 finds none, None leaves the detector out."
    torch.manual_seed(0)
    save_weights(create_model("light", width=0.1), folder / CLASSIFIER / "model.safetensors")
    write_json(folder / CLASSIFIER / "config.json", CONFIG | changes)
    if heads is not None:
        save_weights(EfficientDet(), folder / DETECTOR / "model.safetensors")
        write_json(
            folder / DETECTOR / "config.json", dict(phi=0, image_size=128, threshold=heads, trained_on="nothing", weights="none", version=1)
        )
    return folder
