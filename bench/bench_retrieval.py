"""Retrieval: opening, exact and approximate search, reading beside computing, bytes and seconds of shards.

    python bench/bench_retrieval.py [--vectors 1000000]

`make bench` runs it. Vectors are drawn around centres, as embeddings of images lie: in pure noise no approximate index finds
anything, and no pool looks like it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from timing import report

from deepfake_nbs.retrieval.features import Feature, extract, make_feature
from deepfake_nbs.retrieval.index import make_index
from deepfake_nbs.retrieval.store import open_index, open_shards, save_index

DIMENSION = 512
FEATURE = Feature("bench", 1, "L", DIMENSION, np.asarray)


def draw_vectors(n: int, seed: int = 0) -> np.ndarray:
    "Unit vectors around n / 100 centres, in 32 directions that matter and a little of all others."
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((32, DIMENSION), dtype=np.float32)
    x = np.empty((n, DIMENSION), np.float32)
    centres = rng.standard_normal((max(1, n // 100), 32), dtype=np.float32)
    for start in range(0, n, 50_000):
        part = x[start : start + 50_000]
        low = centres[rng.integers(len(centres), size=len(part))] + 0.5 * rng.standard_normal(
            (len(part), 32), dtype=np.float32
        )
        part[:] = low @ basis + 0.3 * rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return x


def name_rows(n: int) -> pd.DataFrame:
    return pd.DataFrame(
        dict(path=[f"{i // 1000:05d}/{i:09d}.jpg" for i in range(n)], sha256=[f"{i:064x}" for i in range(n)])
    )


def timed(action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turn(first, second, n: int) -> tuple[float, float]:
    "Median seconds of each, taken in turn, so that a busy machine slows both alike."
    return tuple(np.median([(timed(first), timed(second)) for _ in range(n)][1:], axis=0))


def exact_search(report, folder: Path, n: int = 100_000) -> None:
    x = draw_vectors(n)
    save_index(make_index(x, name_rows(n), FEATURE), folder / "flat")
    seconds = min(timed(lambda: open_index(folder / "flat", FEATURE).rows) for _ in range(3))
    report("opening 100,000 vectors of 512, with their rows, seconds", seconds, "< 0.5", seconds < 0.5)
    index, query = open_index(folder / "flat", FEATURE), x[7:8] + 0.01
    ours, product = in_turn(lambda: index.search(query, 10), lambda: x @ query[0], 41)
    report(
        "one numpy matrix product / one exact query, 100,000 x 512",
        product / ours,
        ">= 1",
        product / ours >= 1,
    )
    np.testing.assert_array_equal(
        index.search(query, 10)[1][0], np.argsort(-(x @ query[0]), kind="stable")[:10]
    )


def approximate_search(report, folder: Path, n: int = 1_000_000, kind: str = "ivfpq") -> None:
    x = draw_vectors(n)
    rng = np.random.default_rng(1)
    queries = x[rng.permutation(n)[:200]] + 0.01 * rng.standard_normal((200, DIMENSION), dtype=np.float32)
    rows = name_rows(n)
    exact = make_index(x, rows, FEATURE)
    made = {}
    seconds = timed(lambda: made.update(index=make_index(x, rows, FEATURE, kind=kind)))
    index = made["index"]
    print(f"{kind}: {index.config['recipe']} over {n} vectors, built in {seconds:.0f} s")
    found, truth = index.search(queries, 10)[1], exact.search(queries, 10)[1]
    recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, truth, strict=True)])
    report(f"{kind} over {n:,} vectors, recall@10 against exact", recall, ">= 0.95", recall >= 0.95)
    for name, part in (("one at a time", 1), ("200 at once", 200)):
        ask = [queries[i : i + part] for i in range(0, 200 if part > 1 else 10, part)]
        slow, fast = in_turn(
            lambda a=ask: [exact.search(q, 10) for q in a], lambda a=ask: [index.search(q, 10) for q in a], 3
        )
        report(f"queries a second, {kind} / exact, {name}", slow / fast, ">= 10", slow / fast >= 10)


def extraction(report, folder: Path, n: int = 128) -> None:
    "Reading and computing together, beside the network alone on tensors that are ready."
    rng = np.random.default_rng(0)
    for i in range(n):
        low = Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).resize(
            (256, 256), Image.Resampling.BICUBIC
        )
        low.save(folder / f"{i:04d}.jpg", quality=90)
    feature, files = make_feature("resnet18-random"), sorted(folder.glob("*.jpg"))
    ready = np.stack([feature.read(file) for file in files])
    batches = [ready[i : i + 32] for i in range(0, n, 32)]
    bare, ours = in_turn(
        lambda: [feature.compute(batch) for batch in batches],
        lambda: extract(feature, files, progress=False),
        6,
    )
    report(
        "images a second, from files / bare network, resnet18 at 224",
        bare / ours,
        ">= 0.9",
        bare / ours >= 0.9,
    )


def shards(folder: Path, n: int = 200_000, n_shards: int = 4) -> None:
    "What a pool that is larger than one machine needs, as measured on a part of it."
    x, rows = draw_vectors(n), name_rows(n)
    parts = [folder / f"part{i}" for i in range(n_shards)]
    made = [(part, x[i::n_shards], rows[i::n_shards]) for i, part in enumerate(parts)]
    build = timed(
        lambda: [save_index(make_index(vectors, names, FEATURE), part) for part, vectors, names in made]
    )
    size = sum(path.stat().st_size for part in parts for path in part.iterdir())
    joined = open_shards(parts, FEATURE)
    search = min(timed(lambda: joined.search(x[:32], 10)) for _ in range(3)) / 32
    print(
        f"{n_shards} shards, flat, 512 numbers: {size / n:.0f} bytes a vector with its row; {build / n * 1e6:.0f} s to index and write "
        f"a million vectors; {search / n * 1e9:.0f} ms a query and million vectors, 32 at once"
    )


def report_retrieval(report, n: int = 1_000_000) -> None:
    with tempfile.TemporaryDirectory() as name:
        extraction(report, Path(name))
    with tempfile.TemporaryDirectory() as name:
        exact_search(report, Path(name))
    with tempfile.TemporaryDirectory() as name:
        shards(Path(name))
    with tempfile.TemporaryDirectory() as name:
        approximate_search(report, Path(name), n)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--vectors", type=int, default=1_000_000, help="size of the pool that is searched approximately"
    )
    print(f"{torch.get_num_threads()} threads")
    report_retrieval(report, parser.parse_args().vectors)
