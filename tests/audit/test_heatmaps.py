"The audit of heatmaps: where fakes were manipulated, three heatmaps of each, the table and its sentences."

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from deepfake_nbs.application.explain import TABLE, HeatmapNumbers, read_numbers
from deepfake_nbs.audit import heatmaps as a
from deepfake_nbs.claims import save_table
from deepfake_nbs.classifiers.networks import build_network
from deepfake_nbs.miniature import manipulations
from deepfake_nbs.miniature.manipulations import FACE_METHODS
from deepfake_nbs.miniature.sets import VIDEO_SIZE, clip_frame, item_rng, make_clip

CONFIG = dict(image_size=64, mean=[0.5] * 3, std=[0.5] * 3)


def test_the_region_of_a_synthetic_fake_is_where_its_method_pastes(monkeypatch):
    "The polygons are written down twice: here a change of either is found."
    assert {*a.POLYGONS} == {*FACE_METHODS}
    frames, patches = [clip_frame(make_clip(7, number), 20) for number in (2, 3)], []

    def make_patch(*arguments):
        patches.append(a.make_patch(*arguments))
        return patches[-1]

    monkeypatch.setattr(manipulations, "make_patch", make_patch)
    for method, fake in FACE_METHODS.items():
        fake(*frames, item_rng(7, f"{method} 002_003", 20))
        pasted = np.zeros((VIDEO_SIZE, VIDEO_SIZE), bool)
        pasted[patches[-1].box] = patches[-1].mask > 0.5
        assert (a.synthetic_region(method, "002_003", 20, seed=7) == pasted).all() and pasted.any()
    assert len(patches) == len(FACE_METHODS)


def test_a_pair_of_images_has_the_region_where_they_differ(tmp_path):
    rng = np.random.default_rng(0)
    real = rng.integers(90, 110, (150, 150, 3)).astype(np.uint8)
    fake = real.copy()
    fake[60:90, 30:60] = 200
    for name, pixels in dict(real=real, fake=fake, small=real[:75]).items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    region = a.difference_region(fake, real)
    assert region[65:85, 35:55].all() and not region[:50].any() and not region[:, 75:].any()
    table = "path,label,pair\nsmall.png,real,p\nreal.png,real,p\nfake.png,fake,p\nfake.png,fake,q\n"
    (tmp_path / "labels.csv").write_text(table)
    regions, origin = a.KnownRegions(tmp_path.parent), f"{tmp_path.name}/fake.png"
    assert (regions.find(dict(origin=origin, pair="p")) == region).all()  # The small one is no match
    assert regions.find(dict(origin=origin, pair="q")) is None and regions.find(dict(origin=origin)) is None


def test_masks_of_faceforensics_are_found_beside_their_clips(tmp_path):
    import cv2

    method = tmp_path / "faceforensics/manipulated_sequences/Deepfakes"
    place = method / "masks/videos/000_001.mp4"
    place.parent.mkdir(parents=True)
    writer = cv2.VideoWriter(str(place), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    for number in range(4):
        image = np.zeros((48, 64, 3), np.uint8)
        image[: 12 * number] = 255
        writer.write(image)
    writer.release()
    origin = "faceforensics/manipulated_sequences/Deepfakes/c23/videos/000_001.mp4"
    row = dict(origin=origin, method="Deepfakes", frame="2")
    region = a.KnownRegions(tmp_path).find(row)
    assert region.shape == (48, 64) and region.mean() == pytest.approx(0.5, abs=0.03)
    assert a.KnownRegions(tmp_path).find(row | dict(frame=9)) is None


def test_a_region_goes_through_the_crop_as_its_image_does():
    region = np.zeros((80, 120), bool)
    region[20:40, 60:90] = True
    row = dict(x0=50.04, y0=9.96, x1=100.0, y1=60.0, width=60, height=60)
    assert a.crop_region(region, row, 0.1).shape == (60, 60)
    exact = dict(x0=50, y0=10, x1=100, y1=60, width=60, height=60)
    found = a.crop_region(region, exact, 0.1)
    assert (found == region[5:65, 45:105]).all()
    assert a.crop_region(region, {}, 0.1) is region


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    "Pairs of twelve groups: eight in test and four in validation; one region fills its image, one is empty."
    root = tmp_path_factory.mktemp("data")
    folder, rows, labels = root / "pairs", [], ["path,label,pair"]
    folder.mkdir()
    for i in range(12):
        real = np.full((64, 64, 3), 20 * i, np.uint8)
        fake = real.copy()
        size = {3: 64, 4: 0}.get(i, 30)
        fake[:size, :size] ^= 128
        Image.fromarray(real).save(folder / f"r{i}.png")
        Image.fromarray(fake).save(folder / f"f{i}.png")
        labels += [f"r{i}.png,real,p{i}", f"f{i}.png,fake,p{i}"]
        about = dict(
            group=f"g{i}", pair=f"p{i}", method="swap", split="test" if i < 8 else "validation", frame=""
        )
        rows += [
            dict(about, path=f"{kind}{i}.png", label=int(kind == "f"), origin=f"pairs/{kind}{i}.png")
            for kind in "rf"
        ]
    (folder / "labels.csv").write_text("\n".join(labels) + "\n")
    return root, dict(tuple(pd.DataFrame(rows).groupby("split")))


def test_fakes_of_validation_are_added_where_test_has_too_few_groups(data):
    root, splits = data
    fakes = a.known_fakes(splits, root / "pairs", root, 0.2, a.HeatmapBudget(fakes=99, copies=1))
    assert len(fakes) == 10 and {fake.split for fake in fakes} == {"test", "validation"}
    assert not {"g3", "g4"} & {fake.group for fake in fakes}
    assert all(fake.region.shape == (64, 64) and fake.crop().size == (64, 64) for fake in fakes)
    few = a.known_fakes(splits, root / "pairs", root, 0.2, a.HeatmapBudget(fakes=4, copies=1))
    assert [fake.split for fake in few] == ["test"] * 4


def test_measures_of_a_network_that_points_where_it_should(data):
    "A network whose maps are bright where the image is: the energy is that of the bright corner."
    root, splits = data
    fakes = a.known_fakes(splits, root / "pairs", root, 0.2, a.HeatmapBudget(fakes=3, copies=1))
    model = build_network("light", width=0.1).eval()
    images = a.measure_fakes(model, CONFIG, fakes, a.HeatmapBudget(fakes=3, copies=2))
    again = a.measure_fakes(model, CONFIG, fakes, a.HeatmapBudget(fakes=3, copies=2))
    pd.testing.assert_frame_equal(images, again)
    assert images.filter(regex="hit_|energy_|area").apply(lambda column: column.between(0, 1)).all(axis=None)
    centre = a.centre_prior((64, 64))
    assert images["energy_centre"].tolist() == pytest.approx([centre[fake.region].sum() for fake in fakes])
    torch.manual_seed(3)  # Of no effect
    assert a.measure_fakes(model, CONFIG, [], a.HeatmapBudget(fakes=3, copies=1)).empty


def made_up(n_groups, network, copied, centre, run="run 12, light"):
    "Measures of two images a group, hit or missed at the given rates."
    i = np.arange(2 * n_groups)
    hits = {
        f"hit_{kind}": (i % 10 < 10 * rate) * 1.0
        for kind, rate in zip(a.HEATMAPS, (network, copied, centre), strict=True)
    }
    energies = {f"energy_{kind}": 0.1 + 0.01 * (i % 7) for kind in a.HEATMAPS}
    about = dict(
        run=run, name="12", weights="f" * 12, group=[f"g{k // 2}" for k in i], split="test", area=0.25
    )
    return pd.DataFrame(dict(about, **hits, **energies))


def test_the_table_and_its_sentence_by_hand():
    table = a.summarise_heatmaps(made_up(40, network=0.9, copied=0.3, centre=0.9))
    found = table.set_index(["measure", "heatmap"])
    value = found["value"]
    assert value["pointing game", "network"] == pytest.approx(0.9)
    assert value["pointing game", "network - randomised copy"] == pytest.approx(0.6)
    assert value["pointing game", "network - centre prior"] == 0
    assert value["energy in the region", "uniform"] == pytest.approx(0.25)
    assert (table["n"] == 80).all() and (table["groups"] == 40).all()
    assert found.loc[("pointing game", "network - randomised copy"), "low"] > 0.4
    text = a.heatmap_sentence(table, "run 12, light")
    assert "of run 12, light lies in the manipulated region in 0.900 [" in text and "of 80 fakes" in text
    assert "beats its copy with random weights (difference +0.600 [" in text
    assert "does not beat a Gaussian in the middle of the input (difference +0.000, no interval" in text
    worse = a.summarise_heatmaps(made_up(40, network=0.2, copied=0.8, centre=0.2))
    assert "is worse than its copy with random weights (difference -0.600 [" in a.heatmap_sentence(
        worse, "run 12, light"
    )


def test_few_groups_claim_nothing_and_nothing_measured_says_why(data):
    table = a.summarise_heatmaps(made_up(3, network=0.9, copied=0.3, centre=0.3))
    text = a.heatmap_sentence(table, "run 12, light")
    assert "no interval: 3 groups" in text and "on these images alone" in text
    one = a.summarise_heatmaps(made_up(1, network=0.9, copied=0.3, centre=0.3))
    assert "no interval: 1 group" in a.heatmap_sentence(one, "run 12, light")
    reason = a.why_no_fakes("run 12, light", data[0])
    assert a.heatmap_sentences(table[:0], [reason]).startswith("Run 12, light: not measured; no fake")
    assert "no run 12 and no Xception" in a.heatmap_sentences(table[:0])
    assert a.heatmaps_view(table[:0]).empty and a.heatmaps_view(table).shape == (2, 8)


def test_embedded_data_of_other_code_have_no_regions(tmp_path):
    (tmp_path / "miniature.json").write_text(json.dumps(dict(arguments=dict(seed=1), version="old")))
    assert a.embedded_seed(tmp_path) is None
    assert "other code made the embedded data" in a.why_no_fakes("run 12", tmp_path)


def test_the_application_reads_what_the_page_saves(tmp_path):
    table = a.summarise_heatmaps(made_up(40, network=0.9, copied=0.3, centre=0.5))
    assert save_table(table, TABLE.stem, tmp_path, "09e_heatmaps") == tmp_path / TABLE
    found, reason = read_numbers(tmp_path, "f" * 12)
    assert reason == "" and found == HeatmapNumbers(pytest.approx(0.9), pytest.approx(0.3), 80, tmp_path.name)
    assert a.two_numbers(table, "run 12, light") == (
        "pointing game: 0.90 with its weights, 0.30 with random weights (80 fakes)"
    )


def test_pairs_of_the_shipped_network_need_a_test_split(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "labels.csv").write_text("path,label,group,pair,split\nf.png,fake,g,p,train\n")
    with pytest.raises(ValueError, match="labels.csv: no fake of the split test; expected pairs"):
        a.paired_fakes(None, folder, a.heatmap_budget("smoke"))
