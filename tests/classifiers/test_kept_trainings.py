"""Numbers of trainings that are kept without their networks."""

import json

import pandas as pd
import pytest

from deepfake_nbs.classifiers.kept_trainings import (
    keep_trainings,
    training_claims,
    trainings_sentence,
    trainings_view,
)
from deepfake_nbs.core import project_root, write_json
from deepfake_nbs.metrics import classification_metrics, paired_metrics
from deepfake_nbs.runs import TrainingError, read_predictions, write_predictions

RIGHT = [0.1 + 0.01 * i if i % 2 == 0 else 0.5 + 0.01 * i for i in range(40)]
WORSE = [p if i % 3 else 1 - p for i, p in enumerate(RIGHT)]


def training(folder, path, probability, row=12, crop=True):
    rows = [
        dict(
            path=path.format(i),
            label=i % 2,
            probability=p,
            group=f"g{i // 2}",
            split="test",
            checkpoint="best",
        )
        for i, p in enumerate(probability)
    ]
    write_predictions(pd.DataFrame(rows), folder)
    config = dict(row=row, net="timm:small", image_size=80, window=0.75)
    record = dict(config=config, crop=crop, epochs=3, wall_seconds=90, data="ours", seed=7, device="cuda")
    write_json(folder / "run.json", record | dict(manifest_sha256="a"))
    return folder


@pytest.fixture
def folders(tmp_path):
    return {
        "12": training(tmp_path / "12", "test/{}.png", RIGHT),
        "6-8epochs": training(tmp_path / "6", "test/{}.jpg", WORSE, row=0, crop=False),
        "1-8epochs": training(tmp_path / "1", "test/{}.jpg", RIGHT[::-1], row=0, crop=False),
    }


def test_numbers_are_those_of_the_shared_functions(folders):
    claims = training_claims(folders, "12", "ours").set_index("id")
    first, second = (read_predictions(folders[name]) for name in ("12", "6-8epochs"))
    alone, pair = classification_metrics(second).loc["auc"], paired_metrics(first, second).loc["auc"]
    assert claims.loc["trained-6-8epochs-auc", ["measured", "low", "high"]].tolist() == pytest.approx(
        alone[["value", "low", "high"]].tolist(), nan_ok=True
    )
    assert claims.loc[
        "trained-12-minus-6-8epochs-auc", ["measured", "low", "high"]
    ].tolist() == pytest.approx(pair[["difference", "low", "high"]].tolist(), nan_ok=True)


def test_the_best_of_the_others_and_what_failed_are_named(folders, tmp_path):
    table, about = keep_trainings(folders, "12", tmp_path / "kept.csv", {"8-8epochs": "loss is not finite"})
    claims, record = pd.read_csv(table).set_index("id"), json.loads(about.read_text())
    said = trainings_sentence(claims, record)
    assert "run 12 minus run 6, the best of the 2 others" in said and "on cuda" in said
    assert said.endswith("Not finished: run 8 (loss is not finite).")
    view = trainings_view(claims, record["training"], "12")
    assert view["run"].tolist() == [12, "6", "1"] and view["network"].eq("small").all()
    assert view["pixels in training, test"].eq("60, 80").all() and view.iloc[0, 6] == ""
    assert view["images"].tolist() == ["heads", "whole", "whole"]


def test_a_folder_without_a_record_is_named(folders, tmp_path):
    (folders["12"] / "run.json").write_text("[]")
    with pytest.raises(TrainingError, match="12/run.json"):
        keep_trainings(folders, "12", tmp_path / "kept.csv")


def test_kept_numbers_name_a_training_each():
    place = project_root() / "papers" / "results" / "photographs-real-trainings.csv"
    record = json.loads(place.with_suffix(".json").read_text())
    ids = set(pd.read_csv(place)["id"])
    first = record["config"]["first"]
    others = set(record["training"]) - {first}
    assert ids == {f"trained-{name}-auc" for name in record["training"]} | {
        f"trained-{first}-minus-{name}-auc" for name in others
    }
    assert not others & set(record["failed"])
