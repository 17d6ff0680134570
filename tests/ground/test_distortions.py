"Distortions: what each does to known pixels, against OpenCV where it does the same, and what is refused."

import cv2
import numpy as np
import pytest
from PIL import Image

from deepfake_nbs.distortions import LADDER, Step, check_step, distort, ladder_steps


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return cv2.resize(coarse, (96, 64), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("step", ladder_steps(), ids=lambda step: step.words)
def test_a_step_is_pure_repeats_itself_and_keeps_kind_and_size(pixels, step):
    before = pixels.copy()
    first, again = distort(pixels, *step, seed=1), distort(Image.fromarray(pixels), *step, seed=1)
    assert (pixels == before).all() and first.dtype == np.uint8 and (first == np.asarray(again)).all()
    assert LADDER[step.distortion].local == (first.shape == pixels.shape)
    assert first.shape != pixels.shape or (first != pixels).any()


@pytest.mark.parametrize("name", sorted(set(LADDER) - {"crop"}))
def test_a_stronger_step_changes_more(pixels, name):
    strengths = LADDER[name].strengths
    changed = [np.abs(distort(pixels, name, one).astype(float) - pixels).mean() for one in strengths]
    for side in (changed[::2], changed[1::2]) if name == "gamma" else (changed,):
        assert side == sorted(side), dict(zip(strengths, changed, strict=True))


def test_only_noise_depends_on_the_seed(pixels):
    differ = {
        step.distortion
        for step in ladder_steps(1)
        if (distort(pixels, *step, seed=0) != distort(pixels, *step, seed=1)).any()
    }
    assert differ == {"noise"}


def test_values_by_hand():
    row = np.zeros((1, 8, 3), np.uint8)
    row[:, 4:] = 200
    assert distort(row, "crop", 0.5).tolist() == row[:, 2:6].tolist()
    assert distort(row, "gamma", 2)[0, -1].tolist() == [157, 157, 157]  # 255 (200 / 255) ** 2 = 156.9
    grey = np.full((200, 200, 3), 128, np.uint8)
    noise = distort(grey, "noise", 4).astype(float) - 128
    assert abs(noise.std() - 4) < 0.05 and abs(noise.mean()) < 0.05
    assert (distort(grey, "blur", 3) == 128).all() and (distort(grey, "resize", 0.25) == 128).all()


def test_jpeg_and_blur_agree_with_opencv(pixels):
    coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 45])[1]
    theirs = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(distort(pixels, "jpeg", 45).astype(int) - theirs).mean() < 0.5
    theirs = cv2.GaussianBlur(pixels, (0, 0), 2, borderType=cv2.BORDER_REPLICATE)
    assert np.abs(distort(pixels, "blur", 2).astype(int) - theirs).mean() < 1.5


@pytest.mark.parametrize("n, expected", [(1, 8), (2, 16), (100, None)])
def test_a_few_steps_of_each_ladder_keep_the_strongest(n, expected):
    steps = ladder_steps(n)
    assert len(steps) == (expected or len(ladder_steps())) == len(set(steps))
    assert {Step(name, row.strengths[-1]) for name, row in LADDER.items()} <= set(steps)


@pytest.mark.parametrize(
    "name, strength, message",
    [
        ("jpg", 30, "distortion 'jpg': unknown; did you mean 'jpeg'?"),
        ("", 1, "distortion '': unknown; known: blur, crop"),
        ("jpeg", 101, "strength is 101; expected a whole number from 1 to 100"),
        ("webp", 30.5, "strength is 30.5; expected a whole number"),
        ("resize", 0, "strength is 0; expected a number from 0.01 to 1"),
        ("noise", -1, "strength is -1; expected a number from 0 to 255"),
        ("blur", float("nan"), "strength is nan"),
        ("crop", "half", "strength is 'half'"),
        ("gamma", True, "strength is True"),
    ],
)
def test_an_unknown_name_or_strength_is_refused(pixels, name, strength, message):
    with pytest.raises(ValueError, match="expected|unknown") as error:
        distort(pixels, name, strength)
    assert message in str(error.value)
    with pytest.raises(ValueError):
        check_step(Step(name, strength))


@pytest.mark.parametrize(
    "image, found",
    [
        (Image.new("L", (4, 4)), "mode L"),
        (Image.new("RGB", (0, 4)), "0 x 4"),
        (np.zeros((4, 4), np.uint8), "shape (4, 4)"),
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((0, 4, 3), np.uint8), "shape (0, 4, 3)"),
    ],
)
def test_what_is_no_image_is_refused(image, found):
    with pytest.raises(ValueError) as error:
        distort(image, "blur", 1)
    assert found in str(error.value) and "expected" in str(error.value)


def test_what_webp_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="at most 16383 a side"):
        distort(np.zeros((1, 16384, 3), np.uint8), "webp", 30)


def test_no_ladder_of_nothing():
    with pytest.raises(ValueError, match="expected at least 1"):
        ladder_steps(0)
