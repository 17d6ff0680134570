"The two systems: features, bad input, and that a switch acts in the system that has it."

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from deepfake_nbs.audit import defect_systems as systems
from deepfake_nbs.audit.defect_systems import AuditBudget
from deepfake_nbs.audit.defects import check_switches, scale_pixels, system_switches
from deepfake_nbs.core import file_sha256
from deepfake_nbs.files import write_table

TINY = AuditBudget(images=120, image_size=48, centre=1, seeds=2, n_words=4, hidden=4, epochs=2, fine_epochs=1)


@pytest.fixture(scope="module")
def noise():
    return systems.noise_audit_set()


@pytest.fixture(scope="module")
def words(noise):
    return systems.WordRuns(noise)


def draw_dataset(folder, n_groups=16, labels=(0, 1, 1)):
    "Spots on noise; fakes are smoother."
    rows = []
    for group in range(n_groups):
        for place, label in enumerate(labels):
            rng = np.random.default_rng([group, place])
            pixels = rng.integers(0, 256, (48, 48, 3)).astype(np.uint8)
            pixels = cv2.GaussianBlur(pixels, (0, 0), 2.5 if label else 1.5)
            path = folder / f"{group:02d}{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX)).save(path)
            facts = dict(path=path.name, label=label, source="noise", method="smooth" if label else "none")
            rows.append(facts | dict(group=f"g{group}", split="train", sha256=file_sha256(path)))
    table = pd.DataFrame(rows).assign(video="", frame="", width=48, height=48, format="PNG")
    write_table(table, folder / "manifest.csv")
    return table


def test_residuals_of_a_ramp_are_none_and_of_a_spike_are_counted():
    ramp = np.repeat(np.linspace(0, 1, 20, dtype=np.float32)[None, :, None], 20, 0).repeat(3, 2)
    found = systems.residual_statistics(ramp)
    assert np.flatnonzero(found).tolist() == [24, 73, 101, 108, 115, 122]
    spike = np.full((5, 5, 3), 0.5, np.float32)
    spike[2, 2] += 3 * systems.STEPS[0]  # Grey: no colour difference. Second differences: 3, -6, 3 steps
    found = systems.residual_statistics(spike)[:49].reshape(7, 7) ** 2 * 10  # Rows and columns: 5 x 2 pairs
    assert (
        found[6, 0] == pytest.approx(1)
        and found[0, 6] == pytest.approx(1)
        and found[3, 3] == pytest.approx(8)
    )


def test_words_are_those_of_the_strongest_keypoints():
    rng = np.random.default_rng(0)
    pixels = cv2.GaussianBlur(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8), (0, 0), 2)
    all_of_them = systems.strongest_descriptors(pixels, 10_000)
    some = systems.strongest_descriptors(pixels, 5)
    assert len(all_of_them) > 5
    np.testing.assert_array_equal(some, all_of_them[:5])
    found = cv2.SIFT_create(0, contrastThreshold=systems.CONTRAST).detect(
        cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    )
    assert len(found) == len(all_of_them)


def test_images_of_a_run_become_features(tmp_path):
    draw_dataset(tmp_path / "cvcs_dfd")
    data = systems.read_audit_set(tmp_path, TINY)
    assert (
        len(data.rows) == len(data.words) == len(data.statistics["scale_pixels"]) == 45
    )  # 1 of 16 groups apart
    assert data.has_crop.all() and set(data.rows.groupby("group").size()) == {3}
    first = systems.centre_pixels(tmp_path / "cvcs_dfd" / data.rows["path"][0], TINY)
    np.testing.assert_array_equal(
        data.statistics["scale_pixels"][0], systems.residual_statistics(scale_pixels(first))
    )
    assert systems.NetworkRuns(data).numbers().shape == systems.WordRuns(data).numbers().shape == (2,)


def test_crops_say_which_images_have_a_head(tmp_path):
    table = draw_dataset(tmp_path / "cvcs_dfd")
    (tmp_path / "cvcs_cropped_dfd").mkdir()
    for row in table[1:].itertuples():
        (tmp_path / "cvcs_cropped_dfd" / row.path).write_bytes(
            (tmp_path / "cvcs_dfd" / row.path).read_bytes()
        )
    write_table(table[1:], tmp_path / "cvcs_cropped_dfd" / "manifest.csv")
    data = systems.read_audit_set(tmp_path, TINY)
    assert data.rows.loc[~data.has_crop, "path"].tolist() in ([], [table["path"][0]])
    assert (~data.has_crop).sum() == (table["path"][0] in set(data.rows["path"]))


def test_bad_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        systems.read_audit_set(tmp_path, TINY)
    draw_dataset(tmp_path / "one" / "cvcs_dfd", labels=(1, 1))
    with pytest.raises(ValueError, match=r"label \[1\] only; expected 0 \(real\) and 1 \(fake\)"):
        systems.read_audit_set(tmp_path / "one", TINY)
    draw_dataset(tmp_path / "few" / "cvcs_dfd", n_groups=8)
    with pytest.raises(ValueError, match="7 groups besides the codebook's; expected at least 10, of both"):
        systems.read_audit_set(tmp_path / "few", TINY)
    with pytest.raises(ValueError, match="images is 3, expected at least 40"):
        AuditBudget(images=3)


def test_a_number_is_that_of_the_chosen_row_on_the_test_images():
    margins = np.array([[-1.0, 1, 1, -1, 1], [1, 1, -1, 1, 1]])
    labels, split = np.array([0, 1, 0, 1, 1]), np.array(["validation"] * 2 + ["test"] * 3)
    crops = np.array([True, True, False, True, True])

    def read(*on):
        return systems.read_number(
            margins, labels, split, crops, frozenset(on), "last_epoch", "epoch_on_test"
        )

    assert read() == pytest.approx(
        (0 + 1 / 2) / 2
    )  # The first is right on validation: real 0 of 1, fake 1 of 2
    assert read("last_epoch") == 1 == read("epoch_on_test")
    assert read("accuracy") == pytest.approx(1 / 3)
    assert read("other_images") == pytest.approx(1 / 2)  # The real image has no crop


@pytest.mark.parametrize("name", system_switches("words"))
def test_a_switch_changes_the_numbers_of_words(words, name):
    assert (words.numbers([name]) != words.numbers()).any(), name


def test_switches_change_the_trainings_of_the_network(noise):
    runs = systems.NetworkRuns(noise)
    honest = runs.margins(frozenset())
    for name in set(system_switches("network")) - systems.AFTER_TRAINING:
        assert np.abs(runs.margins(frozenset({name})) - honest).max() > 1e-6, name
    n = runs.margins.cache_info().misses
    changed = {
        name: (runs.numbers([name]) != runs.numbers()).any()
        for name in systems.AFTER_TRAINING & set(system_switches("network"))
    }
    assert runs.margins.cache_info().misses == n and changed["other_images"]


def test_frozen_norms_keep_their_statistics_in_the_second_phase(noise):
    runs = systems.NetworkRuns(noise)
    first = noise.budget.epochs
    honest, faulty = (runs.margins(check_switches(on)) for on in ([], ["norms_moving"]))
    np.testing.assert_array_equal(honest[:, :first], faulty[:, :first])  # The first phase is the same
    assert np.abs(honest[:, first] - faulty[:, first]).max() > 1e-6


def test_networks_side_by_side_are_networks_one_by_one():
    both, x = systems.SideBySide(2, 5, 3).eval(), torch.randn(2, 7, 5)
    for i in range(2):
        alone = torch.nn.Sequential(
            torch.nn.Linear(5, 3, bias=False), torch.nn.BatchNorm1d(3), torch.nn.ReLU(), torch.nn.Linear(3, 1)
        ).eval()
        alone[0].weight.data, alone[3].weight.data = both.first[i].T, both.last[i].T
        alone[3].bias.data = both.bias[i]
        torch.testing.assert_close(both(x)[i], alone(x[i]).squeeze(1))


def test_training_learns_and_is_the_same_again(noise):
    easy = systems.noise_audit_set(n_groups=60, shift=8.0, budget=AuditBudget(seeds=2, n_words=8, epochs=20))
    numbers = systems.NetworkRuns(easy).numbers()
    assert (numbers > 0.8).all() and (systems.WordRuns(easy).numbers() > 0.75).all()
    np.testing.assert_array_equal(numbers, systems.NetworkRuns(easy).numbers())


def test_batches_hold_training_images_alone():
    places = [np.arange(10), np.arange(5, 18)]
    batches = systems.epoch_batches(places, 4, seed=1)
    assert batches.shape == (2, 2, 4)
    for i, place in enumerate(places):
        own = batches[:, i].ravel()
        assert set(own) <= set(place) and len(set(own)) == 8
    assert systems.epoch_batches([np.arange(2)], 4, 0).shape == (1, 1, 4)  # Fewer images than a batch
