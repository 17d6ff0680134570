"Fakes of synthetic portraits: where they differ from what they were made of."

from pathlib import Path
import cv2
import numpy as np
import pytest
from deepfake_nbs.miniature import manipulations
from deepfake_nbs.miniature import people
from deepfake_nbs.miniature import sets


METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")


def read_clip(path: Path) -> np.ndarray:
    video, frames = cv2.VideoCapture(str(path)), []
    while True:
        ok, frame = video.read()
        if not ok:
            return np.array(frames)
        frames.append(frame)


@pytest.mark.parametrize("method", METHODS)
def test_a_fake_differs_inside_the_face_and_hardly_outside(pair, method):
    target, donor = pair
    fake = manipulations.FACE_METHODS[method](target, donor, np.random.default_rng(0))
    h, w = target.image.shape[:2]
    face = manipulations.soft_mask(target.oval(0, 0.25, 0.72, 0.85), h, w, 1.0) > 0.3
    change = np.abs(fake - target.image).mean(-1)
    assert change[face].mean() > 0.002
    assert change[~face].max() < 0.1 and change[~face].mean() < change[face].mean() / 50
    assert fake.min() >= 0 and fake.max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_a_fake_clip_differs_from_its_original_mostly_inside_the_face(drawn, method):
    root, clip = drawn / "faceforensics", sets.make_clip(42, 0)
    real = read_clip(root / "original_sequences/youtube/c23/videos/000.mp4").astype(float)
    fake = read_clip(root / f"manipulated_sequences/{method}/c23/videos/000_001.mp4").astype(float)
    ratio = []
    for i in range(0, sets.N_FRAMES, 8):
        frame = sets.clip_frame(clip, i)
        inside = manipulations.soft_mask(frame.inner_face, sets.VIDEO_SIZE, sets.VIDEO_SIZE, 1.0) > 0.5
        grade = np.median(
            real[i][~inside] / np.maximum(fake[i][~inside], 1), axis=0
        )  # each clip has its own grade
        change = np.abs(cv2.GaussianBlur(real[i] - fake[i] * grade, (0, 0), 1.5)).mean(-1)
        ratio.append(change[inside].mean() / change[~inside].mean())
    assert np.mean(ratio) > 1.5


@pytest.mark.parametrize("method", sorted(manipulations.GENERATORS))
def test_a_generator_pass_takes_fine_detail_away(pair, method):
    image = pair[0].image
    real, fake = (
        manipulations.radial_spectrum(a)
        for a in (image, manipulations.generator_pass(image, method, np.random.default_rng(0)))
    )
    assert fake[30:40].mean() < real[30:40].mean()
    assert np.abs(image - manipulations.generator_pass(image, method, np.random.default_rng(0))).mean() < 0.05


@pytest.mark.parametrize("method", ["ATTGAN", "GDWCT", "StarGAN"])
def test_an_edit_changes_attributes_and_nothing_of_the_geometry(method):
    who = people.random_identity(np.random.default_rng(4))
    other = manipulations.edited(who, method, np.random.default_rng(1))
    assert other != who
    assert (other.width, other.eye_gap, other.nose_width, other.texture) == (
        who.width,
        who.eye_gap,
        who.nose_width,
        who.texture,
    )
