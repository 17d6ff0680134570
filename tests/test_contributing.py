"The worked examples of CONTRIBUTING.md run as they stand, and stay short."

import re
from pathlib import Path

import pytest
from noise_run import draw_dataset
from PIL import Image

from deepfake_nbs.classifiers.recipes import TrainingConfig
from deepfake_nbs.classifiers.xception import VARIANTS, create_model
from deepfake_nbs.data.manifest import check_manifest, read_manifest
from deepfake_nbs.data.readers import READERS, read_sources

TEXT = (Path(__file__).resolve().parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^### Add a (\w+)$.*?^```python\n(.*?)^```$", TEXT, flags=re.M | re.S))


def run(name, **space):
    exec(compile(EXAMPLES[name], f"CONTRIBUTING.md, {name}", "exec"), space)
    return space


def test_there_are_four_of_at_most_fifteen_lines():
    assert list(EXAMPLES) == ["network", "reader", "baseline", "metric"]
    for name, code in EXAMPLES.items():
        written = [
            line for line in code.splitlines() if line.strip() and not line.startswith(("import ", "from "))
        ]
        assert len(written) <= 15 and len(code.splitlines()) <= 20, f"{name}: {len(written)} lines"


def test_a_network_of_timm_is_trained_and_listed(tmp_path):
    draw_dataset(tmp_path / "smoke-noise" / "cvcs_dfd")
    record = run("network", run=tmp_path / "smoke-noise")["record"]
    assert record["config"]["net"] == "timm:test_efficientnet" and record["weights_origin"] == "none"
    assert "-p net timm:resnet18 -p weights imagenet" in TEXT


def test_a_variant_is_a_row_of_the_table(monkeypatch):
    assert 'VARIANTS["shallow"] = dict(n_middle=2)' in TEXT
    monkeypatch.setitem(VARIANTS, "shallow", dict(n_middle=2))
    assert create_model("shallow", width=0.25).n_blocks == 2 + 4
    assert TrainingConfig(net="shallow").net == "shallow"


def test_a_reader_reads_the_folder_of_its_name(tmp_path, monkeypatch):
    for person in ("anna", "ben"):
        (tmp_path / "data" / "stills" / person).mkdir(parents=True)
        for name in ("real_1", "fake_1"):
            Image.new("RGB", (8, 8), "teal").save(tmp_path / "data" / "stills" / person / f"{name}.png")
    with pytest.raises(ValueError, match="no known layout"):
        read_sources(tmp_path / "data")
    before = dict(READERS)
    try:
        run("reader")
        images = read_sources(tmp_path / "data").images
    finally:
        READERS.clear()
        READERS.update(before)
    assert images["path"].tolist()[0] == "stills/anna/fake_1.png" and images["label"].tolist() == [1, 0, 1, 0]
    assert images["group"].nunique() == 2 and images["source"].eq("stills").all()


def test_a_baseline_and_a_metric_have_values_and_intervals(tmp_path, capsys):
    folder = draw_dataset(tmp_path / "cvcs_dfd", n=150)
    found = run("baseline", manifest=check_manifest(read_manifest(folder)), folder=folder)
    predictions = found["predictions"]
    assert (
        predictions["classifier"].unique().tolist() == ["mean colour"]
        and "mean colour" in capsys.readouterr().out
    )
    metric = run("metric", predictions=predictions)
    value = metric["score"](predictions)
    assert -1 <= metric["low"] <= value <= metric["high"] <= 1 and metric["why"] == ""
