"`check --explain`: no heatmap without its two numbers, and what stands in its way is said in one sentence."

import shutil
import sys

import pytest
from torch import nn
from typer.testing import CliRunner

from deepfake_nbs.application import explain
from deepfake_nbs.application.cli import app
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.application.shipped import shipped_folder
from deepfake_nbs.core import write_json, write_text


def check(run, *words):
    return CliRunner().invoke(app, ["check", "--run", str(run), "--whole", "--explain", *map(str, words)])


def write_table(run, weights, network=0.75, randomised=0.4, n=48):
    lines = [
        f"{weights},pointing game,network,{network},{n}",
        f"{weights},pointing game,randomised copy,{randomised},{n}",
    ]
    write_text(run / explain.TABLE, "\n".join(["weights,measure,heatmap,value,n", *lines, ""]))


@pytest.fixture
def run(heads_run, tmp_path):
    return shutil.copytree(heads_run, tmp_path / "some-run")


@pytest.fixture
def weights(run):
    return Pipeline.load(run).classifier["weights"]


def test_a_heatmap_stands_beside_the_evidence_with_both_numbers(run, weights, photos, tmp_path):
    write_table(run, weights)
    done = check(run, photos / "00.png", photos / "01.png", "--save", tmp_path / "out")
    assert done.exit_code == 0, done.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name for name in names if name.endswith("-heatmap.png")] == [
        "0000-00-heatmap.png",
        "0001-01-heatmap.png",
    ]
    assert len(names) == 6
    both = "0.75 with the weights of this network, 0.40 with random weights (48 fakes, some-run)"
    assert done.stderr.count(both) == 1


def test_without_numbers_no_heatmap_is_shown_and_the_rest_is_done(run, weights, photos, tmp_path):
    for other in ("", "f" * 12):
        if other:
            write_table(run, other)
        done = check(run, photos / "00.png", "--save", tmp_path / f"out{other}", "--json")
        assert done.exit_code == 0 and "no heatmap is shown: it was not measured" in done.stderr
        assert weights in done.stderr and "09e_heatmaps.ipynb" in done.stderr
        assert len(list((tmp_path / f"out{other}").iterdir())) == 2


def test_explain_needs_a_folder(run, photos):
    done = check(run, photos / "00.png")
    assert done.exit_code == 2 and "expected a folder, --save FOLDER" in done.stderr


def test_a_broken_table_is_named(run, weights, photos, tmp_path):
    write_table(run, weights, network="high")
    done = check(run, photos / "00.png", "--save", tmp_path / "out")
    assert done.exit_code == 2 and "table-heatmaps.csv: value or n is no number" in done.stderr
    write_table(run, weights, n=0)
    done = check(run, photos / "00.png", "--save", tmp_path / "out")
    assert done.exit_code == 2 and "n 0; expected fractions from 0 to 1, of at least 1 fake" in done.stderr
    write_text(run / explain.TABLE, "heatmap,value\n")
    done = check(run, photos / "00.png", "--save", tmp_path / "out")
    assert done.exit_code == 2 and "table-heatmaps.csv: lacks the columns" in done.stderr


def test_captum_that_is_not_installed_is_named(run, weights, photos, tmp_path, monkeypatch):
    write_table(run, weights)
    monkeypatch.setitem(sys.modules, "captum", None)
    done = check(run, photos / "00.png", "--save", tmp_path / "out")
    assert done.exit_code == 2 and "pip install 'deepfake_nbs[explain]'" in done.stderr


def test_an_onnx_model_is_refused(run, tmp_path):
    networks = Pipeline.load(run)
    networks.model = nn.Identity()
    with pytest.raises(ValueError, match="gives logits alone, as an ONNX model does"):
        explain.open_explainer(networks, run, save=tmp_path)


def test_a_video_gets_no_heatmap(run, weights, video, tmp_path):
    write_table(run, weights)
    done = check(run, video, "--save", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert not list((tmp_path / "out").glob("*-heatmap.png"))


def test_numbers_of_shipped_networks_are_those_of_their_weights(tmp_path):
    rows = [
        dict(measure="pointing game", heatmap=name, value=0.5, n=9) for name in ("network", "randomised copy")
    ]
    write_json(tmp_path / explain.NUMBERS, dict(weights="a" * 12, data="test pairs", rows=rows))
    found, _ = explain.read_numbers(tmp_path, "a" * 12)
    assert found == explain.HeatmapNumbers(0.5, 0.5, 9, "test pairs")
    assert explain.read_numbers(tmp_path, "b" * 12)[0] is None
    assert explain.read_numbers(tmp_path, "")[0] is None


def test_this_copy_ships_numbers_of_its_own_network():
    place = shipped_folder()
    if not (place / explain.NUMBERS).is_file():
        pytest.skip("this copy of the package ships no numbers of heatmaps")
    found, reason = explain.read_numbers(place, Pipeline.load(place).classifier["weights"])
    assert reason == "" and found.n >= 100
