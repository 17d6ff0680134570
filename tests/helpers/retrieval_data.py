"""Small images, vectors and manifests for the tests of retrieval."""

import numpy as np
import pandas as pd
from PIL import Image

from deepfake_nbs.retrieval.features import Feature, list_pool, make_feature

THUMBNAIL = make_feature("thumbnail")
TOY = Feature("toy", 1, "L", 32, np.asarray)


def draw(path, seed, size=(48, 40)):
    low = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    Image.fromarray(low).resize(size, Image.Resampling.BICUBIC).save(path)


def cloud(n, seed=0, d=32):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(60, d))
    return (centres[rng.integers(60, size=n)] + 0.4 * rng.normal(size=(n, d))).astype(np.float32)


def names(n):
    return pd.DataFrame(dict(path=[f"{i}.png" for i in range(n)], sha256=[f"{i:064x}" for i in range(n)]))


def half_fake(pool, n=12):
    labels = dict(label=[0] * (n - 6) + [1] * 6, method=["none"] * (n - 6) + ["edit"] * 6)
    return list_pool(pool).assign(group=[f"g{i % 6}" for i in range(n)], video="", **labels)
