"""Batches that are assembled on the GPU are those of a processor; the processor stands for the GPU here."""

import pytest
import torch

from deepfake_nbs.classifiers.data import ManifestImages, SeededLoader, draw_noise
from deepfake_nbs.classifiers.gpu_loader import GpuLoader, choose_pixels, only_chooses_pixels
from deepfake_nbs.classifiers.recipes import AUGMENTS
from deepfake_nbs.data.manifest import read_manifest


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return draw_noise(tmp_path_factory.mktemp("gpu") / "noise")


def images(noise, seed=3, **options):
    frame = read_manifest(noise).query("split == 'train'")
    return ManifestImages(frame, noise, 32, augment_seed=seed, **options)


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
@pytest.mark.parametrize("window", [1.0, 0.6])
@pytest.mark.parametrize("augment", AUGMENTS)
def test_batches_are_the_same_bit_by_bit(noise, augment, window, sampling):
    both = []
    for kind in (SeededLoader, GpuLoader):
        loader = kind(images(noise, augment=augment, window=window), 4, train=True, sampling=sampling,
                      seed=1, device="cpu")  # fmt: skip
        loader.epoch = 2
        both.append(list(loader))
    assert len(both[0]) == len(both[1]) == 5 - (18 % 4 == 1)
    for (x, y), (x2, y2) in zip(*both, strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2)


def test_another_epoch_gives_other_windows(noise):
    split = images(noise, augment="flip", window=0.6)
    first = choose_pixels(split, [0, 1, 2])
    split.epoch = 1
    assert any((a != b).any() for a, b in zip(first, choose_pixels(split, [0, 1, 2]), strict=True))


def test_images_that_are_not_augmented_are_taken_whole(noise):
    split = images(noise, seed=None, augment="strong")
    assert only_chooses_pixels(split)
    rows, columns = choose_pixels(split, [0, 1])
    assert rows.tolist() == columns.tolist() == [list(range(32))] * 2
    loader = GpuLoader(split, 7, device="cpu")
    assert sum(len(y) for _, y in loader) == len(split) and loader.get_idxs() == list(range(18))


def test_what_opencv_changes_is_not_a_choice_of_pixels(noise):
    assert [only_chooses_pixels(images(noise, augment=name)) for name in ("none", "flip", "all", "strong")] == [
        True, True, False, False,
    ]  # fmt: skip


def test_images_that_are_not_in_memory_are_refused(noise):
    with pytest.raises(AssertionError, match="read from disk"):
        GpuLoader(images(noise, cache_bytes=0), 4, device="cpu")
