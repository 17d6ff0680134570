"""Head sets, a configuration and a detector for the tests of head detection."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageDraw

from deepfake_nbs.heads.detector import HeadBox, HeadDetector
from deepfake_nbs.heads.training import PHASES, DetectionConfig


def voc(*boxes, name="head"):
    names = ("xmin", "ymin", "xmax", "ymax")
    corners = ["".join(f"<{k}>{v}</{k}>" for k, v in zip(names, box, strict=True)) for box in boxes]
    return f"<annotation>{''.join(f'<object><name>{name}</name><bndbox>{c}</bndbox></object>' for c in corners)}</annotation>"


def draw_film(root, n=18, size=(96, 72)):
    "Ovals in the layout of HollywoodHeads: 6 films, every third frame empty."
    rng, lists = np.random.default_rng(0), {"train": [], "val": [], "test": []}
    for part in ("Annotations", "JPEGImages", "Splits"):
        (root / part).mkdir(parents=True)
    for i in range(n):
        name = f"mov_{i % 6 + 1:03d}_{i:06d}"
        image = Image.fromarray(rng.integers(60, 110, (size[1], size[0], 3)).astype(np.uint8))
        boxes = []
        if i % 3:
            x, y = int(rng.integers(0, 60)), int(rng.integers(0, 35))
            ImageDraw.Draw(image).ellipse((x, y, x + 26, y + 32), fill=(225, 180, 150))
            boxes.append((x, y, x + 26, y + 32))
        image.save(root / "JPEGImages" / f"{name}.jpeg")
        (root / "Annotations" / f"{name}.xml").write_text(voc(*boxes))
        lists["train" if i % 6 < 4 else "val" if i % 6 == 4 else "test"].append(name)
    for split, names in lists.items():
        (root / "Splits" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


TINY = DetectionConfig(
    image_size=64,
    weights="none",
    workers=0,
    phases=(
        replace(PHASES[0], batch_size=4, iterations=2, epochs=2),
        replace(PHASES[1], iterations=2, epochs=2),
    ),
)


class OnlyBright(HeadDetector):
    "A detector without a network: images that are bright in the middle have two heads, the larger with the lower score."

    def __init__(self):
        self.model, self.config = torch.nn.Identity(), dict(image_size=64, threshold=0.5)

    def find_in_squares(self, squares, sizes, threshold=None):
        bright = [square[:20, :20].mean() > 128 for square, _ in squares]
        heads = [HeadBox((0.0, 0.0, 10.0, 10.0), 0.9), HeadBox((10.0, 10.0, 40.0, 44.0), 0.6)]
        return [heads if one else [] for one in bright]


BOX = "<bndbox><xmin>20</xmin><ymin>20</ymin><xmax>60</xmax><ymax>70</ymax></bndbox>"


HEAD = f"<object><name>head</name>{BOX}</object>"


SIZE = "<size><width>160</width><height>120</height></size>"


def annotation(objects, size=SIZE, database=""):
    return f"<annotation><source><database>{database}</database></source>{size}{objects}</annotation>"


def make_set(root, n=30, name="mov_{0:03d}_{1:06d}", xml=None, lists="Splits", line="{}"):
    "Thirty frames of ten films with one head each; six films to train on, two to validate, two to test."
    (root / "JPEGImages").mkdir(parents=True)
    (root / "Annotations").mkdir()
    (root / lists).mkdir(parents=True)
    names = {"train": [], "val": [], "test": []}
    for i in range(n):
        stem = name.format(i // 3, i)
        Image.fromarray(np.full((120, 160, 3), 8 * i, np.uint8)).save(root / "JPEGImages" / f"{stem}.jpeg")
        (root / "Annotations" / f"{stem}.xml").write_text(xml or annotation(HEAD))
        names["train" if i < 18 else "val" if i < 24 else "test"].append(line.format(stem))
    for split, stems in names.items():
        (root / lists / f"{split}.txt").write_text("\n".join(stems) + "\n")
    return root
