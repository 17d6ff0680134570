"What belongs together: linked names, the same bytes, nearly the same look."

import cv2
import faiss
import numpy as np
import pandas as pd
import pytest
from helpers.data_sets import photograph
from PIL import Image

from deepfake_nbs.data.groups import (
    FLAT,
    _merge_alike,
    crossing_near_duplicates,
    fill_phash,
    hash_numbers,
    image_phash,
    join_same_images,
)
from deepfake_nbs.data.inspection import inspect_image, inspect_rows
from deepfake_nbs.data.manifest import SPLITS
from deepfake_nbs.data.readers import read_sources
from deepfake_nbs.images import ImageError


def test_hashes_see_through_resizing_but_not_everything(tmp_path):
    for seed in range(5):
        cv2.imwrite(str(tmp_path / "a.png"), photograph(seed))
        cv2.imwrite(
            str(tmp_path / "small.jpg"),
            cv2.resize(photograph(seed), (96, 96)),
            [cv2.IMWRITE_JPEG_QUALITY, 75],
        )
        cv2.imwrite(str(tmp_path / "b.png"), photograph(seed + 100))
        a, small, b = (int(image_phash(tmp_path / name), 16) for name in ("a.png", "small.jpg", "b.png"))
        assert (a ^ small).bit_count() <= 4 < 12 < (a ^ b).bit_count()
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((64, 64, 3), 99, np.uint8))
    assert image_phash(tmp_path / "flat.png") == FLAT


def test_near_duplicates_in_blocks_equal_the_plain_loop():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 300, dtype=np.uint64)
    hashes[:40] = hashes[200:240] ^ np.uint64(5)
    split = rng.choice(SPLITS, 300)
    pairs = list(zip(hashes.tolist(), split, strict=True))
    plain = [any(s != t and (a ^ b).bit_count() <= 4 for b, t in pairs) for a, s in pairs]
    found = crossing_near_duplicates(hashes, split, 4)
    index = faiss.IndexBinaryFlat(64)
    index.add(hashes.view(np.uint8).reshape(-1, 8))
    limits, _, others = index.range_search(hashes.view(np.uint8).reshape(-1, 8), 5)  # Below 5
    rows = np.repeat(np.arange(300), np.diff(limits.astype(int)))
    assert np.flatnonzero(found).tolist() == sorted(set(rows[split[rows] != split[others]]))
    assert found.tolist() == plain and 10 < found.sum() < 80


def test_images_without_contrast_or_of_other_colours_are_not_joined(tmp_path):
    rows, rng = [], np.random.default_rng(0)
    base = cv2.GaussianBlur(photograph(1), (0, 0), 2)
    images = [np.full((64, 64, 3), value, np.uint8) for value in (0, 128, 255)]
    images += [
        (128 + rng.normal(0, 1, (64, 64, 3)) + np.linspace(-4, 4, 64)[:, None, None]).astype(np.uint8)
        for _ in range(4)
    ]
    images += [base, np.roll(base, 1, axis=2), base[:, ::-1]]
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
        rows.append(inspect_image(tmp_path / f"{i}.png") | dict(group=f"g{i}"))
    assert [(row["phash"], row["tiny_copy"]) == (FLAT, "") for row in rows] == [True] * 3 + [False] * 7
    done, notes = join_same_images(pd.DataFrame(rows))
    assert done["group"].tolist() == [f"g{i}" for i in range(10)] and notes == []
    flat, notes = join_same_images(pd.DataFrame(rows[:2]))
    assert flat["group"].tolist() == ["g0", "g1"] and notes == []


def test_chains_of_alike_images_are_one_group_and_pairs_are_all_found():
    rng = np.random.default_rng(0)
    looks = [rng.bytes(312) for _ in range(400)]
    for i in range(0, 60, 3):  # Three alike in each group of three, two bits apart
        one = int.from_bytes(looks[i][:8], "big")
        looks[i + 1] = (one ^ 3).to_bytes(8, "big") + looks[i][8:]
        looks[i + 2] = (one ^ 0xF00000).to_bytes(8, "big") + looks[i][8:]
    names = [f"g{i:03d}" for i in range(400)]
    seen = [dict(phash=look[:8].hex(), tiny_copy=look[8:].hex()) for look in looks]
    done = _merge_alike(pd.DataFrame(seen).assign(group=names))
    assert done["group"].tolist() == [names[i - i % 3] if i < 60 else names[i] for i in range(400)]


def test_no_real_photographs_of_different_groups_are_joined(real, tmp_path):
    images = read_sources(real).images
    images = images[
        images["path"].str.startswith(("challenge/", "dfdc_faces/"))
    ]  # Sets that are known to hold no photograph twice
    rows = images.groupby("source", group_keys=False).head(150)
    rows = rows.assign(file=[str(real / path) for path in rows["path"]], origin=rows["path"])
    rows, _ = inspect_rows(rows, tmp_path / "notes.jsonl", 2, False)
    done, notes = join_same_images(rows)
    assert notes == [] and done["group"].equals(rows["group"])


def test_hashes_are_text_in_a_manifest_and_numbers_where_they_are_compared(tmp_path):
    phash = pd.Series(["00000000000000ff", FLAT, "", None, "8000000000000000"], index=[4, 2, 0, 1, 3])
    numbers, known = hash_numbers(phash)
    assert (
        numbers.dtype == np.uint64
        and numbers.tolist() == [255, 1 << 63]
        and known.tolist() == [True, False, False, False, True]
    )
    assert [len(part) for part in hash_numbers(phash[:0])] == [0, 0]
    assert image_phash(Image.fromarray(photograph(3))) == inspect_image(save(tmp_path / "a.png", 3))["phash"]


def save(path, seed):
    Image.fromarray(photograph(seed)).save(path)
    return path


def test_hashes_that_a_manifest_lacks_are_computed(tmp_path):
    names = [save(tmp_path / f"{seed}.png", seed).name for seed in range(3)]
    manifest = pd.DataFrame(dict(path=names, phash=["", FLAT, ""]), index=[5, 6, 7])
    filled = fill_phash(manifest, tmp_path)
    assert filled["phash"].tolist() == [
        image_phash(tmp_path / names[0]),
        FLAT,
        image_phash(tmp_path / names[2]),
    ]
    assert manifest["phash"].tolist() == ["", FLAT, ""] and filled.index.tolist() == [5, 6, 7]
    older = fill_phash(manifest.drop(columns="phash"), tmp_path, workers=1)
    assert older["phash"].tolist() == [image_phash(tmp_path / name) for name in names]
    with pytest.raises(ImageError, match="gone.png: no such file"):
        fill_phash(pd.DataFrame(dict(path=["gone.png"])), tmp_path)
