"""The application beside the plain chain of its peers: effdet's D0, then timm's Xception, eager, float32, one photograph after another.

Measured with networks of the report's full size, and with those that the package ships; where this copy ships none, with
random ones of their form, which cost the same.

python bench/bench_application.py [--photographs 48] [--only full|shipped]
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
from deepfake_nbs.application.portable import export_portable
from deepfake_nbs.application.shipped import shipped_folder
from deepfake_nbs.core import set_seed, write_json
from deepfake_nbs.checkpoints import save_weights
from deepfake_nbs.heads.detector import DETECTOR, HeadBox
from deepfake_nbs.heads.network import EfficientDet
from deepfake_nbs.classifiers.networks import build_network, input_config
from deepfake_nbs.images import read_image

SIZE = 640, 480
HEAD = (200.0, 100.0, 440.0, 400.0)  # In a photograph of this size; it grows with the photograph


def write_run(folder: Path, net: str = "xception", row: int = 8, side: int = 512) -> Path:
    "Networks of full size that have learned nothing: as the profile full has them, or as the package ships them."
    set_seed(0)
    own = input_config(net)
    config = dict(
        net=net,
        width=1.0,
        n_classes=2,
        dropout=0.5,
        image_size=own.image_size,
        mean=own.mean,
        std=own.std,
        crop=True,
        trained_on="nothing",
        row=row,
        threshold=0.5,
        version=version("deepfake_nbs"),
    )
    save_weights(build_network(net), folder / CLASSIFIER / "model.safetensors")
    write_json(folder / CLASSIFIER / "config.json", config)
    save_weights(EfficientDet(), folder / DETECTOR / "model.safetensors")
    write_json(
        folder / DETECTOR / "config.json",
        dict(phi=0, image_size=side, threshold=0.5, trained_on="nothing", weights="none", version=1),
    )
    return folder


def shipped_run(folder: Path) -> Path:
    "The shipped networks, or random ones of their form."
    if (shipped_folder() / "files.csv").is_file():
        return shipped_folder()
    print("this copy ships no networks: random ones of their form are measured", flush=True)
    run = write_run(folder / "run", "timm:tf_efficientnet_lite0", 12, 384)
    return export_portable(folder / "shipped", run, half=True, onnx=False)


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


def report_cold(report, run: Path, photo: Path, name: str) -> None:
    command = [Path(sys.executable).with_name("deepfake-nbs"), "check", photo, "--run", run]
    peer = best(lambda: subprocess.run([sys.executable, "-c", "import torch, torchvision"], check=True))
    cold = best(lambda: subprocess.run(command, check=True, capture_output=True))
    report(f"check, cold, {name} / import torch, torchvision", cold / peer, "<= 2.5", cold / peer <= 2.5)


def report_speed(report, pipeline: Pipeline, photos: list[Path], name: str, least: float) -> None:
    list(pipeline.check_many(photos[:8]))
    plain_chain(photos[:2])
    turns = [
        (best(lambda: plain_chain(photos), 1), best(lambda: list(pipeline.check_many(photos)), 1))
        for _ in range(3)
    ]
    theirs, ours = np.min(turns, axis=0)  # Taken in turn, so that a busy machine disturbs both alike
    ratio = theirs / ours
    report(f"photographs per second, {name} / the plain chain's", ratio, f">= {least:g}", ratio >= least)


def report_memory(report, pipeline: Pipeline, photos: list[Path], times: int, name: str) -> None:
    few = peak_of(lambda: [None for _ in pipeline.check_many(photos)])
    many = peak_of(lambda: [None for _ in pipeline.check_many(photos * times)])
    title = f"memory for {times * len(photos)} photographs / for {len(photos)}, {name}"
    report(title, many / few, "<= 1.1", many / few <= 1.1)


def report_shipped(report, n: int = 50) -> None:
    "The same for the shipped networks, with a folder of ten times n photographs."
    with tempfile.TemporaryDirectory() as name:
        run, photos = shipped_run(Path(name)), write_photographs(Path(name) / "photos", n)
        report_cold(report, run, photos[0], "shipped")
        pipeline = with_one_head(Pipeline.load(run))
        report_speed(report, pipeline, photos, "shipped", 3)
        report_memory(report, pipeline, photos, 10, "shipped")


def report_application(report, n: int = 48) -> None:
    "Print the comparisons; `report(name, measured, wanted, reached)` as in bench.py."
    with tempfile.TemporaryDirectory() as name:
        run, photos = write_run(Path(name) / "run"), write_photographs(Path(name) / "photos", n)
        report_cold(report, run, photos[0], "full size")
        pipeline = with_one_head(Pipeline.load(run))
        report_speed(report, pipeline, photos, "full size", 2)

        small, large = (
            write_photographs(Path(name) / f"{w}", 1, (w, h))[0] for w, h in ((1155, 866), (5657, 4243))
        )
        decode = best(lambda: read_image(large))
        one, many = (best(lambda path=path: pipeline.check(path), 5) for path in (small, large))
        ratio = (many - decode) / one
        report("24 megapixels, without its decoding / 1 megapixel", ratio, "< 2", ratio < 2)

        work, start = time.process_time(), time.perf_counter()
        for _ in pipeline.check_many(photos):
            pass
        busy = (time.process_time() - work) / (time.perf_counter() - start)
        report("checking a folder: cores at work", busy, ">= 1.6", busy >= 1.6)
        report_memory(report, pipeline, photos, 5, "full size")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, default=48)
    parser.add_argument("--only", choices=("full", "shipped"))
    words = parser.parse_args()
    if words.only != "shipped":
        report_application(report, words.photographs)
    if words.only != "full":
        report_shipped(report, words.photographs)
