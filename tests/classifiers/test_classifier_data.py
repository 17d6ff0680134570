"Contracts of the classifiers' data: augmentation, loaders, splits."

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from noise_run import TINY, draw_dataset, rewrite

from deepfake_nbs.classifiers import data as cdata
from deepfake_nbs.classifiers.data import ManifestImages, SeededLoader, choose_dataset, read_splits
from deepfake_nbs.classifiers.recipes import TrainingConfig
from deepfake_nbs.classifiers.training import train_run
from deepfake_nbs.classifiers.xception import normalise
from deepfake_nbs.images import read_image, resize_square
from deepfake_nbs.runs import TrainingError, read_run


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", cdata.AUGMENTATIONS)
def test_an_augmentation_changes_pixels_and_nothing_else(name):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    before, change = pixels.copy(), cdata.AUGMENTATIONS[name][1]
    changed = [change(pixels, np.random.default_rng(seed)) for seed in range(5)]
    assert all(each.shape == (40, 40, 3) and each.dtype == np.uint8 for each in changed)
    assert (pixels == before).all(), "the image in memory must stay as it is"
    assert all((each != pixels).any() for each in changed)


def test_flip_gives_the_image_or_its_mirror_and_nothing_else():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    seen = {
        cdata.augment_image(pixels, np.random.default_rng(seed), augment="flip").tobytes()
        for seed in range(30)
    }
    assert seen == {pixels.tobytes(), pixels[:, ::-1].tobytes()}
    with pytest.raises(ValueError, match="unknown augment 'yes', expected one of none, flip, all"):
        replace(TINY, augment="yes")


def test_augmented_batches_depend_on_seed_epoch_and_image_alone(noise):
    frame = read_splits(noise, TINY)["train"]

    def batches(epoch, seed=3, **arguments):
        loader = SeededLoader(
            ManifestImages(frame, noise, 24, augment_seed=seed, **arguments), 4, train=True, seed=3, workers=2
        )
        loader.epoch = epoch
        return torch.cat([x.clone() for x, _ in loader])

    first = batches(1)
    assert torch.equal(first, batches(1)) and torch.equal(first, batches(1, cache_bytes=1000)), (
        "processes give the same images"
    )
    assert not torch.equal(first, batches(1, seed=4))
    plain = SeededLoader(ManifestImages(frame, noise, 24), 4, train=True, seed=3)
    plain.epoch = 1
    assert not torch.equal(first, torch.cat([x for x, _ in plain]))


def test_each_process_has_two_images_to_compare(noise):
    images = ManifestImages(read_splits(noise, TINY)["train"], noise, 16)
    with pytest.raises(ValueError, match="batch_size is 2, expected at least 2 for each of 2 processes"):
        SeededLoader(images, 2, train=True, part=(0, 2))


def test_an_image_is_prepared_in_one_way(noise):
    frame = read_splits(noise, TINY)["validation"]
    images = ManifestImages(frame, noise, 32)
    x, y = next(iter(SeededLoader(images, 1)))
    expected = normalise(torch.from_numpy(resize_square(read_image(noise / frame.path[0]), 32).copy())[None])
    assert torch.equal(x, expected) and y.item() == frame.label[0]
    assert x.shape == (1, 3, 32, 32) and -1 <= x.min() < x.max() <= 1


def test_evaluation_leaves_nothing_out_and_shuffles_nothing(noise):
    images = ManifestImages(read_splits(noise, TINY)["train"], noise, 16)
    for batch_size in (4, 5, 17, 18, 100):
        labels = [label for _, y in SeededLoader(images, batch_size) for label in y.tolist()]
        assert labels == images.labels


def test_training_leaves_out_a_batch_of_one_only(noise):
    images = ManifestImages(read_splits(noise, TINY)["train"], noise, 16)
    sizes = {
        batch_size: [len(y) for _, y in SeededLoader(images, batch_size, train=True)]
        for batch_size in (17, 5)
    }
    assert sizes == {17: [17], 5: [5, 5, 5, 3]}


def test_order_depends_on_seed_and_epoch_alone(noise):
    images = ManifestImages(read_splits(noise, TINY)["train"], noise, 16)

    def order(seed, epoch, warm_up=0):
        loader = SeededLoader(images, 4, train=True, seed=seed)
        for _ in range(warm_up):
            list(loader)
        loader.epoch = epoch
        return loader.get_idxs()

    assert order(1, 2) == order(1, 2, warm_up=2)
    assert sorted(order(1, 2)) == list(range(len(images)))
    assert len({tuple(order(*which)) for which in [(1, 2), (1, 3), (2, 2)]}) == 3


def test_memory_disk_and_processes_give_the_same_batches(noise):
    frame = read_splits(noise, TINY)["train"]
    memory, disk = (
        ManifestImages(frame, noise, 24, workers=2),
        ManifestImages(frame, noise, 24, cache_bytes=1000),
    )
    assert memory.cached and not disk.cached
    loaders = [
        SeededLoader(images, 4, train=True, seed=3, workers=workers)
        for images, workers in ((memory, 0), (disk, 0), (disk, 2))
    ]
    first, *others = [[(x.clone(), y.clone()) for x, y in loader] for loader in loaders]
    for other in others:
        assert all(
            torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, other, strict=True)
        )


def test_another_protocol_splits_the_same_images_anew(tmp_path):
    folder = draw_dataset(tmp_path / "cvcs_dfd", n=40)
    rewrite(
        folder,
        lambda df: df.assign(
            group=[f"{i // 4}" for i in range(len(df))],
            split=["train"] * 24 + ["validation"] * 8 + ["test"] * 8,
        ),
    )
    built, other = read_splits(folder, TINY), read_splits(folder, replace(TINY, protocol="published"))
    assert set(pd.concat(other.values()).path) == set(pd.concat(built.values()).path)
    assert abs(len(other["train"]) - len(built["train"])) <= 1
    assert not set(built["train"].group) & set(built["test"].group)
    assert set(other["train"].group) & set(other["test"].group)


def test_the_parts_of_a_batch_make_the_batch(noise):
    images = ManifestImages(read_splits(noise, TINY)["train"], noise, 16)
    whole = [y.tolist() for _, y in SeededLoader(images, 6, train=True, seed=1)]
    parts = [
        [y.tolist() for _, y in SeededLoader(images, 6, train=True, seed=1, part=(i, 2))] for i in range(2)
    ]
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(batch) for batch in whole]
    with pytest.raises(
        ValueError, match="batch_size is 5, expected a multiple of the number of processes, 2"
    ):
        SeededLoader(images, 5, train=True, part=(0, 2))


def test_crop_takes_the_cropped_set_where_it_is(run, copy):
    assert choose_dataset(run, False) == (run / "cvcs_dfd", False, "")
    assert choose_dataset(run, True)[:2] == (run / "cvcs_dfd", False)
    shutil.copytree(copy / "cvcs_dfd", copy / "cvcs_cropped_dfd")
    assert choose_dataset(copy, True) == (copy / "cvcs_cropped_dfd", True, "")
    with pytest.raises(TrainingError, match="holds another run|changed"):
        rewrite(copy / "cvcs_cropped_dfd", lambda df: df[df.path != "train/000000.png"])
        train_run(copy, TrainingConfig(**read_run(copy / "training/8")["config"]), "8")
