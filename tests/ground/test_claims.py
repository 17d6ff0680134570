"Figures, tables and measured values under the ids of the original report."
import pandas as pd
import pytest
from PIL import Image
from deepfake_nbs import claims


def test_every_published_id_is_listed_from_the_start(tmp_path, root):
    claims.save_table(pd.DataFrame({"a": [1]}), "table-datasets", tmp_path, "01_datasets")
    claims.save_claims([], tmp_path)
    for name in ("artifacts.csv", "claims.csv"):
        published = pd.read_csv(root / "papers" / "original" / name)
        mine = pd.read_csv(tmp_path / name).set_index("id")
        assert set(published["id"]) <= set(mine.index)
        assert set(mine.status[mine.index.isin(published["id"])]) == {"not yet"}
    assert pd.read_csv(tmp_path / "artifacts.csv").set_index("id").path["table-datasets"] == "tables/table-datasets.csv"


def test_figures_and_claims_add_up(tmp_path):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    ax.plot([0, 1])
    claims.save_figure(figure, "fig-1", tmp_path, "01_datasets")
    plt.close(figure)
    first, second, undefined = "table2-1-test_accuracy", "table2-1-precision_0", "table2-8-test_accuracy"
    claims.save_claims([{"id": first, "measured": 0.5, "low": 0.4, "high": 0.6, "n": 10, "protocol": "group"}], tmp_path)
    claims.save_claims([{"id": undefined, "measured": float("nan")}, {"id": second, "measured": 0.7}], tmp_path)
    kept = pd.read_csv(tmp_path / "claims.csv").set_index("id")
    assert kept.status[[first, second, undefined]].tolist() == ["measured", "measured", "not yet"]
    assert kept.measured["table2-1-test_accuracy"] == 0.5 and float(kept.published[first]) == 0.85
    claims.save_claims([{"id": first, "measured": None}], tmp_path)  # what a later run could not define must not stay
    assert pd.read_csv(tmp_path / "claims.csv").set_index("id").loc[first, ["measured", "low", "n"]].isna().all()
    artifacts = pd.read_csv(tmp_path / "artifacts.csv").set_index("id")
    assert artifacts.status["fig-1"] == "measured" and Image.open(tmp_path / artifacts.path["fig-1"]).size[0] > 100
    with pytest.raises(ValueError, match="unknown id 'table2-10-test_accuracy'"):
        claims.save_claims([{"id": "table2-10-test_accuracy", "measured": 0.5}], tmp_path)


def test_a_number_that_was_never_published_is_kept_when_its_row_says_so(tmp_path):
    path = claims.save_claims([{"id": "baselines-group-constant-accuracy", "published": "", "measured": 0.5, "n": 10}], tmp_path)
    claims.save_claims([{"id": "baselines-svm-accuracy", "published": "", "measured": 0.6}], tmp_path)
    rows = claims._read_rows(path)
    assert rows["baselines-group-constant-accuracy"]["measured"] == "0.5" and rows["baselines-group-constant-accuracy"]["published"] == ""
    assert rows["baselines-svm-accuracy"]["published"] == ".6756"  # what was published stays


def test_a_count_that_is_not_there_is_kept_as_not_yet(tmp_path):
    claims.save_claims([{"id": "datasets-heads-films", "measured": None, "n": pd.NA, "protocol": "count"}], tmp_path)
    assert claims._read_rows(tmp_path / "claims.csv")["datasets-heads-films"]["status"] == "not yet"
