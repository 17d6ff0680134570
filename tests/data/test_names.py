"Names that other programs read as missing keep what they say."

import numpy as np
import pandas as pd
import pytest
from helpers.data_sets import build, draw_image, write

from deepfake_nbs.baselines import study as baselines_study
from deepfake_nbs.runs import read_predictions
from deepfake_nbs.data.manifest import read_manifest
from deepfake_nbs.files import read_table, write_table
from deepfake_nbs.metrics import classification_metrics


NAMES = ("NA", "None", "null", "nan", "NaN", "n/a", "", "-nan", "<NA>", "inf", "1e3", "007")


def test_a_person_called_na_keeps_the_name_everywhere(tmp_path):
    lines = ["path,label,source,method,group,shade"]
    for i, name in enumerate(NAMES):
        for label, source in (("real", "null"), ("fake", "NA")):
            draw_image(
                tmp_path / f"data/mine/{name.replace('/', '')}{i}{label}.png", 2 * i + (label == "real")
            )
            lines.append(
                f"{name.replace('/', '')}{i}{label}.png,{label},{source},{'none' if label == 'real' else 'None'},{name},"
            )
    write(tmp_path / "data/mine/labels.csv", "\n".join(lines) + "\n")
    manifest = build(tmp_path / "data", tmp_path / "set")
    wanted = {name for name in NAMES if name}
    assert (
        wanted <= set(manifest["group"]) and manifest["group"].nunique() == len(wanted) + 2
    )  # A row without a group is its own
    assert (
        set(manifest["source"]) == {"null", "NA"}
        and set(manifest["method"]) == {"none", "None"}
        and manifest["shade"].eq("").all()
    )
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "set"), manifest)
    answers = manifest[["path", "label"]].assign(
        probability=np.linspace(0, 1, len(manifest)), group=manifest["group"]
    )
    answers = answers.assign(split="test", checkpoint="best")
    write_table(answers, tmp_path / "predictions.csv")
    back = read_predictions(tmp_path)
    pd.testing.assert_frame_equal(back, answers, check_dtype=False)
    assert back["label"].dtype == np.int64 and back["probability"].dtype == float
    assert classification_metrics(back, 50)["n"].max() == len(manifest)
    assert back["group"].nunique() == manifest["group"].nunique()


def test_the_baselines_tables_keep_names_and_kinds(tmp_path):
    answers = pd.DataFrame(
        dict(
            row="NA",
            path=["null", "a.png"],
            label=[0, 1],
            probability=np.nan,
            group=["None", "NA"],
            split="test",
        )
    )
    pd.testing.assert_frame_equal(
        baselines_study._kept(tmp_path / "p.csv", lambda: answers), answers, check_dtype=False
    )
    search = pd.DataFrame(
        dict(
            kernel=["rbf", "nan"],
            C=[0.1, 10.0],
            accuracy=[0.5, 1.0],
            balanced_accuracy=np.nan,
            ended=[True, False],
        )
    )
    back = baselines_study._kept(tmp_path / "s.csv", lambda: search)
    pd.testing.assert_frame_equal(back, search, check_dtype=False)
    assert (
        back["ended"].dtype == bool and back["C"].dtype == float and back["balanced_accuracy"].dtype == float
    )


def test_a_column_of_numbers_that_are_all_undefined(tmp_path):
    write_table(
        pd.DataFrame(dict(group=["NA", "nan"], auc=[np.nan, np.nan], note=["", "None"])), tmp_path / "t.csv"
    )
    table = read_table(tmp_path / "t.csv", numbers=("auc",))
    assert (
        table["group"].tolist() == ["NA", "nan"] and table["auc"].isna().all() and table["auc"].dtype == float
    )
    assert table["note"].tolist() == ["", "None"]


def test_a_line_with_more_cells_than_columns_is_no_table(tmp_path):
    for text in ("path,label\na.png,real,x\n", "path,label\na.png,real\nb.png,real,x\n"):
        write(tmp_path / "t.csv", text)
        with pytest.raises(ValueError, match="t.csv: not a table"):
            read_table(tmp_path / "t.csv")
