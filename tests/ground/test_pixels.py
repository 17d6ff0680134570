"Squares, crops, thumbnails and hashes of images."

import numpy as np
import pytest
from PIL import Image

from deepfake_nbs.images import (
    HALF_MEAN,
    HALF_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LETTERBOX_FILL,
    ImageError,
    crop_box,
    hash_bits,
    letterbox,
    perceptual_hash,
    resize_square,
    small_grey,
    thumbnail,
)


def smooth(seed, size=(320, 240)):
    low = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)


def test_the_two_normalisations_are_those_of_their_weights():
    assert (HALF_MEAN, HALF_STD) == ((0.5,) * 3, (0.5,) * 3)
    assert (IMAGENET_MEAN, IMAGENET_STD) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert np.abs(np.divide(LETTERBOX_FILL, 255) - IMAGENET_MEAN).max() < 1 / 255


@pytest.mark.parametrize("size", [(400, 100), (100, 400), (64, 64), (1, 1), (3, 2000), (65, 64)])
def test_a_letterbox_keeps_proportions_in_the_upper_left(size):
    square, scale = letterbox(Image.new("RGB", size, "white"), 64)
    white = (square == 255).all(2)
    width, height = (min(64, max(1, round(side * scale))) for side in size)
    assert square.shape == (64, 64, 3) and scale == 64 / max(size)
    assert white[:height, :width].all() and white.sum() == width * height
    assert (square[~white] == LETTERBOX_FILL).all()


@pytest.mark.parametrize("size, side", [((0, 5), 64), ((5, 5), 0)])
def test_a_letterbox_needs_pixels(size, side):
    with pytest.raises(ValueError, match="expected at least one pixel"):
        letterbox(Image.new("RGB", size), side)


def test_a_letterbox_converts_what_is_not_rgb():
    deep = Image.fromarray(np.full((8, 8), 200 << 8, np.uint16))
    assert letterbox(deep, 8)[0].tolist() == np.full((8, 8, 3), 200).tolist()


def test_a_square_is_antialiased():
    lines = Image.fromarray(np.tile(np.uint8([[0], [255]]), (64, 128))).convert("RGB")
    assert np.abs(resize_square(lines, 16).astype(int) - 128).max() <= 2


@pytest.mark.parametrize(
    "size, expected", [((400, 100), (160, 40)), ((100, 400), (40, 160)), ((30, 20), (30, 20))]
)
def test_a_thumbnail_never_grows_and_leaves_its_image_alone(size, expected):
    image = Image.new("RGB", size)
    assert thumbnail(image).size == expected and image.size == size


def test_a_crop_is_clipped_to_the_image():
    image = smooth(0, (300, 200))
    assert crop_box(image, (100, 50, 180, 150), margin=0.5).size == (160, 200)
    assert crop_box(image, (100, 50, 180, 150)).tobytes() == image.crop((100, 50, 180, 150)).tobytes()
    assert crop_box(image, (-20, -20, 60, 60), margin=0.2).size == (76, 76)
    assert crop_box(image, (10.2, 10.2, 10.4, 10.4)).size == (1, 1)


@pytest.mark.parametrize(
    "box, words",
    [
        ((300, 0, 320, 20), "no part of the image of 300 x 200"),
        ((20, 20, 10, 30), "no part"),
        ((float("nan"), 0, 1, 1), "not numbers; expected pixels"),
        ((0, 0, float("inf"), 1), "not numbers"),
    ],
)
def test_a_box_that_cannot_be_cropped_is_named(box, words):
    with pytest.raises(ValueError, match=words):
        crop_box(smooth(0, (300, 200)), box)


@pytest.mark.parametrize("seed", range(5))
def test_a_hash_survives_a_smaller_compressed_copy_and_tells_images_apart(tmp_path, seed):
    image = smooth(seed)
    image.resize((160, 120)).save(tmp_path / "small.jpg", quality=50)
    hashes = [
        perceptual_hash(one)
        for one in (image, tmp_path / "small.jpg", str(tmp_path / "small.jpg"), smooth(seed + 100))
    ]
    near, same, far = ((hashes[0] ^ other).bit_count() for other in hashes[1:])
    assert near == same <= 4 and far > 12
    assert hash_bits(small_grey(image)) == hashes[0].to_bytes(8, "big")


def test_what_has_no_contrast_has_no_hash(tmp_path):
    assert (
        perceptual_hash(Image.new("RGB", (40, 40), "teal")) is None
        and hash_bits(small_grey(Image.new("RGB", (9, 9)))) == b""
    )
    (tmp_path / "page.jpg").write_text("<html>")
    with pytest.raises(ImageError, match="page.jpg"):
        perceptual_hash(tmp_path / "page.jpg")
