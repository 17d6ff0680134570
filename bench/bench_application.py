"""The application beside the plain chain of its peers: effdet's D0, then timm's Xception, eager, float32, one photograph after another.

python bench/bench_application.py [--photographs 48]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import best, report
from torchvision.transforms.functional import to_tensor

from deepfake_nbs.application.models import CLASSIFIER
from deepfake_nbs.application.pipeline import Pipeline
from deepfake_nbs.core import set_seed, write_json
from deepfake_nbs.checkpoints import save_weights
from deepfake_nbs.heads.detector import DETECTOR, HeadBox
from deepfake_nbs.heads.network import EfficientDet
from deepfake_nbs.classifiers.xception import create_model
from deepfake_nbs.images import HALF_MEAN, HALF_STD, read_image

SIZE = 640, 480
HEAD = (200.0, 100.0, 440.0, 400.0)  # In a photograph of this size; it grows with the photograph


def write_run(folder: Path) -> Path:
    "Networks of full size, as the profile full has them, that have learned nothing."
    set_seed(0)
    config = dict(
        net="xception",
        width=1.0,
        n_classes=2,
        dropout=0.5,
        image_size=299,
        mean=HALF_MEAN,
        std=HALF_STD,
        crop=True,
        trained_on="nothing",
        row=8,
        threshold=0.5,
        version=version("deepfake_nbs"),
    )
    save_weights(create_model("xception"), folder / CLASSIFIER / "model.safetensors")
    write_json(folder / CLASSIFIER / "config.json", config)
    save_weights(EfficientDet(), folder / DETECTOR / "model.safetensors")
    write_json(
        folder / DETECTOR / "config.json",
        dict(phi=0, image_size=512, threshold=0.5, trained_on="nothing", weights="none", version=1),
    )
    return folder


def write_photographs(folder: Path, n: int, size: tuple[int, int] = SIZE) -> list[Path]:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg", quality=90)
    return sorted(folder.glob("*.jpg"))


def with_one_head(pipeline: Pipeline) -> Pipeline:
    "The detector does all its work, then one head a photograph is handed on, as to the peer: random weights find none."
    find = pipeline.detector.find_in_squares

    def find_one(squares, sizes, threshold=None):
        find(squares, sizes, threshold)
        return [
            [
                HeadBox(
                    tuple(v * side / base for v, side, base in zip(HEAD, 2 * size, 2 * SIZE, strict=True)),
                    0.9,
                )
            ]
            for size in sizes
        ]

    pipeline.detector.find_in_squares = find_one
    return pipeline


@torch.inference_mode()
def plain_chain(photos: list[Path]) -> None:
    from bench_heads import make_peer
    from timm import create_model as timm_model

    if not hasattr(plain_chain, "parts"):
        plain_chain.parts = (
            make_peer(512, predict=True).eval(),
            timm_model("legacy_xception", num_classes=2).eval(),
        )
    detector, classifier = plain_chain.parts
    for path in photos:
        image = Image.open(path).convert("RGB")
        detector(to_tensor(image.resize((512, 512)))[None])
        crop = image.crop(tuple(map(int, HEAD))).resize((299, 299))
        classifier(to_tensor(crop)[None] * 2 - 1).softmax(1)


def peak_of(action) -> float:
    "Largest resident memory while something runs, MiB."
    seen, done = [0.0], threading.Event()

    def watch():
        while not done.wait(0.05):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            seen[0] = max(seen[0], pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    thread = threading.Thread(target=watch)
    thread.start()
    action()
    done.set()
    thread.join()
    return seen[0]


def report_application(report, n: int = 48) -> None:
    "Print the comparisons; `report(name, measured, wanted, reached)` as in bench.py."
    with tempfile.TemporaryDirectory() as name:
        run, photos = write_run(Path(name) / "run"), write_photographs(Path(name) / "photos", n)
        command = [Path(sys.executable).with_name("deepfake-nbs"), "check", photos[0], "--run", run]
        peer = best(lambda: subprocess.run([sys.executable, "-c", "import torch, torchvision"], check=True))
        cold = best(lambda: subprocess.run(command, check=True, capture_output=True))
        report(
            "check, cold, full size / import torch, torchvision", cold / peer, "<= 2.5", cold / peer <= 2.5
        )

        pipeline = with_one_head(Pipeline.load(run))
        list(pipeline.check_many(photos[:8]))
        plain_chain(photos[:2])
        turns = [
            (best(lambda: plain_chain(photos), 1), best(lambda: list(pipeline.check_many(photos)), 1))
            for _ in range(3)
        ]
        theirs, ours = np.min(turns, axis=0)  # Taken in turn, so that a busy machine disturbs both alike
        report("photographs per second / the plain chain's", theirs / ours, ">= 2", theirs / ours >= 2)

        small, large = (
            write_photographs(Path(name) / f"{w}", 1, (w, h))[0] for w, h in ((1155, 866), (5657, 4243))
        )
        decode = best(lambda: read_image(large))
        one, many = (best(lambda path=path: pipeline.check(path), 5) for path in (small, large))
        ratio = (many - decode) / one
        report("24 megapixels, without its decoding / 1 megapixel", ratio, "< 2", ratio < 2)

        work, start = time.process_time(), time.perf_counter()
        few = peak_of(lambda: [None for _ in pipeline.check_many(photos)])
        busy = (time.process_time() - work) / (time.perf_counter() - start)
        report("checking a folder: cores at work", busy, ">= 1.6", busy >= 1.6)
        many = peak_of(lambda: [None for _ in pipeline.check_many(photos * 5)])
        report(f"memory for {5 * n} photographs / for {n}", many / few, "<= 1.1", many / few <= 1.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=48)
    report_application(report, parser.parse_args().photographs)
