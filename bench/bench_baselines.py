"""The baselines' speed and memory, as ratios within one run. `make bench` runs it, or: python bench/bench_baselines.py"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import cv2  # noqa: E402 - the policy is read when libraries load
import numpy as np  # noqa: E402

from deepfake_nbs.baselines import classifiers, visual_words  # noqa: E402

N_WORDS = 256


def draw(path: Path, seed: int) -> None:
    "An image of 299 pixels with about as many keypoints as a photograph."
    rng = np.random.default_rng(seed)
    image = sum(cv2.resize(rng.normal(size=(side, side, 3)), (299, 299), interpolation=cv2.INTER_CUBIC) * 25 for side in (6, 25, 60))
    cv2.imwrite(str(path), np.clip(image + 128, 0, 255).astype(np.uint8))


def fastest(*actions, n: int = 5) -> list[float]:
    "Shortest time of each, seconds; taken in turn, so that a busy machine slows all alike."
    times = []
    for _ in range(n):
        row = []
        for action in actions:
            start = time.perf_counter()
            action()
            row.append(time.perf_counter() - start)
        times.append(row)
    return np.min(times, axis=0).tolist()


def count_as_published(words: list[np.ndarray]) -> np.ndarray:
    "For each image and each word, how often the word occurs in the image."
    return np.array([[sum(1 for one in image if one == word) for word in range(N_WORDS)] for image in words])


def counting(found: list[visual_words.Keypoints], codebook: np.ndarray, report) -> None:
    "Counting alone, and with the search for the nearest word, on the same descriptors."
    lengths = [len(one.descriptors) for one in found]
    words = visual_words.assign_words(np.concatenate([one.descriptors for one in found]), codebook)
    parts = np.split(words, np.cumsum(lengths)[:-1])
    assert (count_as_published(parts) == visual_words.count_words(words, lengths, N_WORDS)).all()

    def published():
        return count_as_published([visual_words.assign_words(one.descriptors, codebook) for one in found])

    def ours():
        every = visual_words.assign_words(np.concatenate([one.descriptors for one in found]), codebook)
        return visual_words.count_words(every, lengths, N_WORDS)

    slow, fast = fastest(lambda: count_as_published(parts), lambda: visual_words.count_words(words, lengths, N_WORDS), n=3)
    report("counting words, a python count per word and image / ours", slow / fast, ">= 20", slow / fast >= 20)
    slow, fast = fastest(published, ours, n=3)
    report("histogram of descriptors, as published / ours", slow / fast, ">= 20", slow / fast >= 20)


def once(paths: list[str], folder: Path, report) -> None:
    "How often SIFT runs for an image while a pipeline is searched."
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.pipeline import make_pipeline

    calls, find = [], visual_words.find_keypoints
    visual_words.find_keypoints = lambda grey, settings: calls.append(1) or find(grey, settings)
    pipeline = make_pipeline(visual_words.SiftBagOfWords(16, cache=str(folder / "sift")), classifiers.make_svm())
    grid = {"siftbagofwords__norm": ["l1", "power"], "pipeline__svc__C": [0.1, 1.0, 10.0]}
    fold = np.where(np.arange(len(paths)) % 4, -1, 0)
    GridSearchCV(pipeline, grid, cv=PredefinedSplit(fold)).fit(paths, np.arange(len(paths)) // 2 % 2)
    visual_words.find_keypoints = find
    report("SIFT runs an image in a search of 6 settings", len(calls) / len(paths), "= 1", len(calls) == len(paths))


def cores(paths: list[str], report) -> None:
    "Two threads beside one, without a cache."
    one, two = fastest(*(lambda n=n: list(visual_words.iterate_features(paths, n_jobs=n)) for n in (1, 2)), n=4)
    report(f"SIFT at 299 px, 1 thread / 2 threads ({len(paths) / two:.0f} images/s)", one / two, ">= 1.7", one / two >= 1.7)


MEMORY = """
import sys
import numpy as np
from deepfake_nbs.baselines.visual_words import fit_codebook, reservoir_sample

def mebibytes(key):
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return int(lines[key].split()[0]) / 1024

rng = np.random.default_rng(0)
before = mebibytes("VmRSS")
blocks = (rng.integers(0, 180, (50_000, 128), dtype=np.uint8) for _ in range(int(sys.argv[1])))
fit_codebook(reservoir_sample(blocks, 100_000), 256)
print(mebibytes("VmHWM") - before)
"""


def memory(report) -> None:
    "MiB that fitting the codebook adds, for half a million descriptors and for five million."
    few, many = (float(subprocess.run([sys.executable, "-c", MEMORY, n], check=True, capture_output=True, text=True).stdout)
                 for n in ("10", "100"))
    report(f"memory of the codebook, 5 million / 0.5 million descriptors ({many:.0f} MiB)", many / few, "<= 1.2", many / few <= 1.2)


def search(report) -> None:
    "Figure 5 on 5,000 histograms whose classes overlap, on two cores, with its bars."
    rng = np.random.default_rng(0)
    data = []
    for n in (5000, 1000):
        labels = rng.integers(0, 2, n)
        rates = rng.gamma(1.0, 1.0, N_WORDS) * np.exp(0.15 * labels[:, None] * np.linspace(-1, 1, N_WORDS))
        data.append((visual_words.normalise_counts(rng.poisson(rates)), labels))
    start = time.perf_counter()
    found = classifiers.search_svm(*data, n_jobs=2, progress=True)
    middle = time.perf_counter()
    classifiers.search_forest(*data, n_jobs=2, progress=True)
    seconds = time.perf_counter() - start
    stopped, forest = (~found["ended"]).sum(), seconds - middle + start
    print(f"  SVM {middle - start:.0f} s ({stopped} of {len(found)} settings stopped), forest {forest:.0f} s")
    report("search of figure 5 on 5,000 histograms, seconds", seconds, "< 180", seconds < 180)


def report_baselines(report) -> None:
    "Print the comparisons; `report(name, measured, wanted, reached)` as in bench.py."
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{i}.png") for i in range(96)]
        for i, path in enumerate(paths):
            draw(Path(path), i)
        found = [one for part in visual_words.iterate_features(paths, n_jobs=2) for one in part]
        codebook = visual_words.fit_codebook(np.concatenate([one.descriptors for one in found]), N_WORDS)
        print(f"{len(paths)} images, {np.mean([len(one.descriptors) for one in found]):.0f} keypoints each")
        counting(found, codebook, report)
        cores(paths, report)
        once(paths, Path(folder), report)
    memory(report)
    search(report)


if __name__ == "__main__":
    report_baselines(lambda name, measured, wanted, reached: print(
        f"{name:72} {measured:8.2f}   wanted {wanted:8} {'reached' if reached else 'MISSED'}", flush=True))
