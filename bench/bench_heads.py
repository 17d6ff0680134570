"""The head detector beside effdet's D0: speed, memory, and what both reach from scratch.

    python bench/bench_heads.py speed
    python bench/bench_heads.py train --data /path/to/sets/heads --epochs 60 [--keep papers/results/heads-scratch-sets.csv]

Both networks start at random, see the same batches (order and augmentation come from the seed), the same optimiser and
schedule, all batch norms live; each keeps the loss, anchors and decoding of its own project. Finished trainings are kept,
so it can be stopped and started again.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from timing import report

from deepfake_nbs.core import run_record, set_seed, write_json
from deepfake_nbs.files import read_table, write_table
from deepfake_nbs.heads import cropping as heads_cropping
from deepfake_nbs.heads.data import HeadImages, HeadSet, build_head_set, in_order, load_batches, schedule
from deepfake_nbs.heads.detector import HeadDetector
from deepfake_nbs.heads.evaluation import match_frames
from deepfake_nbs.checkpoints import pick_device
from deepfake_nbs.heads.network import EfficientDet, decode, detection_loss, make_anchors
from deepfake_nbs.engine import recalibrate_norms
from deepfake_nbs.engine import linear_warmup_cosine
from deepfake_nbs.images import IMAGENET_MEAN, IMAGENET_STD
from deepfake_nbs.metrics import jackknife_interval


def make_peer(image_size: int, predict: bool = False):
    "effdet's D0 with one class, at random."
    from effdet import DetBenchPredict, EfficientDet, get_efficientdet_config

    config = get_efficientdet_config("tf_efficientdet_d0")
    config.num_classes, config.image_size = 1, (image_size, image_size)
    config.backbone_args = dict(drop_path_rate=0.0)  # Ours has none either
    model = EfficientDet(config, pretrained_backbone=False)
    return DetBenchPredict(model) if predict else model


def best_pair(first, second, n: int = 7) -> tuple[float, float]:
    "Shortest time of each, seconds; taken in turn, so that a busy machine disturbs both alike."
    times = []
    for _ in range(n):
        row = []
        for action in (first, second):
            start = time.perf_counter()
            action()
            row.append(time.perf_counter() - start)
        times.append(row)
    return tuple(np.min(times[1:], axis=0))


@torch.inference_mode()
def speed(batch_sizes=(1, 8), image_size: int = 512) -> dict[int, float]:
    "Images a second, ours by effdet's, forward and decode with all suppression."
    set_seed(0)
    model, peer = (
        EfficientDet().eval().to(memory_format=torch.channels_last),
        make_peer(image_size, predict=True).eval(),
    )
    anchors, ratios = make_anchors((image_size, image_size)), {}
    mean, std = model.mean, model.std
    for n in batch_sizes:
        pixels = torch.randint(0, 256, (n, 3, image_size, image_size), dtype=torch.uint8)
        ours, theirs = best_pair(
            lambda x=pixels: decode(*model(x), anchors, 0.001),
            lambda x=pixels: peer((x.float() - mean) / std),
        )
        ratios[n] = theirs / ours
    return ratios


PEAK = """
import sys, torch
sys.path.insert(0, {folder!r})
import bench_heads
from deepfake_nbs.heads.network import EfficientDet, decode, make_anchors
torch.set_num_threads(2)
pixels = torch.zeros({n}, 3, 512, 512, dtype=torch.uint8)
if {ours}:
    model, anchors = EfficientDet().eval().to(memory_format=torch.channels_last), make_anchors((512, 512))
    run = lambda: decode(*model(pixels), anchors)
else:
    model = bench_heads.make_peer(512, predict=True).eval()
    run = lambda: model(pixels.float())
def mebibytes(key):
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return int(lines[key].split()[0]) / 1024

before = mebibytes("VmRSS")
with torch.inference_mode():
    for _ in range(3): run()
print(mebibytes("VmHWM") - before)
"""


def memory(n: int = 8) -> tuple[float, float]:
    "MiB that forward and decode add to a loaded network, ours and effdet's, each in a process of its own."

    def peak(ours: bool) -> float:
        code = PEAK.format(folder=str(Path(__file__).parent), n=n, ours=ours)
        return float(
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True
            ).stdout.split()[-1]
        )

    return peak(True), peak(False)


def cropping(n: int = 1000, size: tuple[int, int] = (480, 360)) -> tuple[float, float]:
    "Seconds of work of all cores by wall seconds while a folder is cropped, and images decoded by images there."
    import tempfile

    from PIL import Image

    model = EfficientDet().eval()
    detector = HeadDetector(model, dict(image_size=256, threshold=1e-6))
    rng, decoded, prepare = np.random.default_rng(0), [], heads_cropping._read_and_letterbox
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train").mkdir()
        rows = [dict(path=f"train/{i:06d}.jpg") for i in range(n)]
        for row in rows:
            Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize(size).save(
                Path(folder) / row["path"]
            )
        heads_cropping._read_and_letterbox = lambda path, side: decoded.append(path) or prepare(path, side)
        start, work = time.perf_counter(), time.process_time()
        list(heads_cropping.crop_images(detector, rows, Path(folder), Path(folder), progress=False))
        heads_cropping._read_and_letterbox = prepare
        return (time.process_time() - work) / (time.perf_counter() - start), len(decoded) / n


def report_heads(report) -> None:
    "Print the comparisons; `report(name, measured, wanted, reached)` as in bench.py."
    for n, ratio in speed().items():
        report(f"head detector, 512 px, batch {n}: images per second / effdet's", ratio, ">= 1", ratio >= 1)
    ours, theirs = memory()
    report("head detector, 512 px, batch 8: peak memory / effdet's", ours / theirs, "<= 1", ours <= theirs)
    busy, decoded = cropping()
    report("cropping 1000 images: cores at work", busy, ">= 1.6", busy >= 1.6)
    report("cropping 1000 images: decoded / images", decoded, "= 1", decoded == 1)


# --- From scratch, side by side --------------------------------------------------------------------------------------


class Peer:
    "effdet with its own loss, anchors and decoding, asked like ours."

    def __init__(self, image_size: int, device: str):
        from effdet import DetBenchPredict, DetBenchTrain

        self.model = make_peer(image_size).to(device, memory_format=torch.channels_last)
        self.training, self.predicting, self.size = (
            DetBenchTrain(self.model).to(device),
            DetBenchPredict(self.model).to(device),
            image_size,
        )
        self.mean, self.std = (
            255 * torch.tensor(x, device=device).view(1, 3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD)
        )

    def loss(self, pixels, boxes):
        device = self.mean.device
        longest = max(1, *(len(one) for one in boxes))
        padded, classes = (
            torch.full((len(boxes), longest, 4), -1.0, device=device),
            torch.full((len(boxes), longest), -1.0, device=device),
        )
        for i, one in enumerate(boxes):
            padded[i, : len(one)], classes[i, : len(one)] = (
                one[:, [1, 0, 3, 2]],
                1.0,
            )  # effdet: y before x, classes from 1
        return self.training((pixels.float() - self.mean) / self.std, dict(bbox=padded, cls=classes))["loss"]

    def find(self, pixels):
        rows = self.predicting((pixels.float() - self.mean) / self.std)
        return [(one[one[:, 4] > 0.05, :4], one[one[:, 4] > 0.05, 4]) for one in rows]


class Ours:
    "Our network, asked like the peer."

    def __init__(self, image_size: int, device: str):
        self.model = EfficientDet().to(device, memory_format=torch.channels_last)
        self.anchors = make_anchors((image_size, image_size)).to(device)

    def loss(self, pixels, boxes):
        return sum(detection_loss(*self.model(pixels), self.anchors, boxes))

    def find(self, pixels):
        return decode(*self.model(pixels), self.anchors)


NETWORKS = dict(ours=Ours, effdet=Peer)


@torch.inference_mode()
def detect(net, heads: HeadSet, image_size: int, device: str) -> pd.DataFrame:
    "Boxes of every frame of the test split: path, x0, y0, x1, y1 (pixels of the frame), score."
    net.model.eval()
    images, rows = HeadImages(heads, "test", image_size), []
    for pixels, _, scales in load_batches(images, in_order(len(images), 8)):
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            found = net.find(pixels.to(device))
        for (boxes, scores), scale in zip(found, scales, strict=True):
            path = images.paths[len(rows)]
            table = pd.DataFrame(boxes.float().cpu().numpy() / scale, columns=["x0", "y0", "x1", "y1"])
            rows.append(table.assign(path=path, score=scores.float().cpu().numpy()))
    return pd.concat(rows, ignore_index=True)


def train_one(name: str, seed: int, heads: HeadSet, args: argparse.Namespace) -> None:
    "One network from scratch; leaves its boxes on the test split and a record of the run."
    path, device = run_path(name, seed, args), pick_device()
    set_seed(seed)
    net = NETWORKS[name](args.image_size, device)
    images = HeadImages(heads, "train", args.image_size, augment=True, seed=seed)
    per_epoch = len(images) // args.batch_size
    total, start, losses = per_epoch * args.epochs, time.perf_counter(), []
    optimiser = torch.optim.AdamW(net.model.parameters(), args.learning_rate, weight_decay=1e-4)
    batches = load_batches(images, schedule(len(images), args.batch_size, total, seed), args.workers)
    net.model.train()
    for i, (pixels, boxes, _) in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = linear_warmup_cosine(i, total, args.learning_rate)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = net.loss(pixels.to(device), [one.to(device) for one in boxes])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.model.parameters(), 10.0)
        optimiser.step()
        losses.append(loss.item())
        if (i + 1) % per_epoch == 0:
            recent, seconds = np.mean(losses[-per_epoch:]), time.perf_counter() - start
            print(
                f"{name} seed {seed} epoch {(i + 1) // per_epoch}/{args.epochs} loss {recent:.3f} {seconds:.0f} s",
                flush=True,
            )
    seen = [
        batch[0].to(device)
        for batch in load_batches(images, schedule(len(images), args.batch_size, 8, seed + 1))
    ]
    recalibrate_norms(
        net.model.train(),
        seen,
        net.find if name == "ours" else lambda pixels: net.model((pixels.float() - net.mean) / net.std),
    )
    seconds = time.perf_counter() - start
    write_table(detect(net, heads, args.image_size, device), path.with_suffix(".csv"))
    facts = dict(
        network=name, losses=losses, wall_seconds=seconds, images_per_second=total * args.batch_size / seconds
    )
    config = {key: getattr(args, key) for key in ("epochs", "image_size", "batch_size", "learning_rate")}
    write_json(path, run_record(config, seed, device, n=len(heads.split("test")), **facts))


def run_path(name: str, seed: int, args: argparse.Namespace) -> Path:
    return (
        Path(args.out)
        / f"{name}-{args.image_size}-{args.epochs}-{args.batch_size}-{args.learning_rate:g}-{seed}.json"
    )


def train_all(heads: HeadSet, args: argparse.Namespace) -> None:
    "What has not been trained yet: on a processor as many runs at once as it has cores, each on one thread, which is faster in all."
    todo = [
        (name, seed)
        for seed in range(args.seeds)
        for name in NETWORKS
        if not run_path(name, seed, args).is_file()
    ]
    if pick_device() == "cuda":
        for name, seed in todo:
            train_one(name, seed, heads, args)
        return
    with ProcessPoolExecutor(
        torch.get_num_threads(), get_context("spawn"), torch.set_num_threads, (1,)
    ) as pool:
        for done in [pool.submit(train_one, name, seed, heads, args) for name, seed in todo]:
            done.result()


def compare(args: argparse.Namespace) -> None:
    "Train both with every seed and print average precisions beside each other; intervals from leaving out one film at a time."
    heads = build_head_set(args.data, Path(args.out) / "head_set", reject_limit=0.02)
    paths = heads.split("test")
    train_all(heads, args)
    numbers = ("x0", "y0", "x1", "y1", "score")
    found = {
        name: [
            read_table(run_path(name, seed, args).with_suffix(".csv"), numbers) for seed in range(args.seeds)
        ]
        for name in NETWORKS
    }
    matches = {
        name: [match_frames(table, heads, paths) for table in tables] for name, tables in found.items()
    }
    film = pd.factorize(heads.frames.set_index("path")["group"].astype(str).loc[paths])[0]
    size = np.bincount(film, [len(heads.boxes[path]) for path in paths])
    weights = [(film != one).astype(float) for one in range(film.max() + 1)]
    rows, about = (
        [],
        dict(
            n=len(paths),
            protocol=f"{args.epochs} epochs, {args.image_size} px",
            data=Path(args.data).parent.name,
        ),
    )
    for key, overlap in dict(ap50=0.5, ap75=0.75).items():
        seeds = {name: [one.ap(overlap) for one in matches[name]] for name in NETWORKS}
        means = {
            name: np.array(
                [np.mean([one.ap(overlap, weight) for one in matches[name]]) for weight in weights]
            )
            for name in NETWORKS
        }
        for name in NETWORKS:
            rows += [
                dict(id=f"heads-scratch-{name}-{key}-seed{i}", measured=value)
                for i, value in enumerate(seeds[name])
            ]
            low, high, _ = jackknife_interval(np.mean(seeds[name]), means[name], size)
            rows.append(
                dict(id=f"heads-scratch-{name}-{key}", measured=np.mean(seeds[name]), low=low, high=high)
            )
        ours, theirs, spread = np.mean(seeds["ours"]), np.mean(seeds["effdet"]), np.ptp(seeds["effdet"])
        low, high, _ = jackknife_interval(
            ours - theirs, means["ours"] - means["effdet"], size, (-1, 1), odds=False
        )
        rows.append(dict(id=f"heads-scratch-difference-{key}", measured=ours - theirs, low=low, high=high))
        if key == "ap50":
            name = f"AP50 from scratch, {args.epochs} epochs, {args.seeds} seeds; effdet's less its spread"
            report(name, ours, f">= {theirs - spread:.3f}", ours >= theirs - spread and ours > 0)
    table = pd.DataFrame(rows).assign(published="", status="measured", **about)
    table = table.reindex(
        columns=["id", "published", "measured", "low", "high", "n", "protocol", "data", "status"]
    ).round(4)
    print(table[["id", "measured", "low", "high", "n"]].to_string(index=False))
    if args.keep:
        table.to_csv(args.keep, index=False)
        records = [
            json.loads(run_path(name, seed, args).read_text())
            for seed in range(args.seeds)
            for name in NETWORKS
        ]
        write_json(Path(args.keep).with_suffix(".json"), dict(runs=records))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("speed", help="speed, memory and cropping, as ratios")
    train = commands.add_parser("train", help="both from scratch on one set of heads")
    train.add_argument("--data", required=True, help="folder with Annotations, JPEGImages, Splits")
    train.add_argument("--epochs", type=int, default=8)
    train.add_argument("--seeds", type=int, default=3)
    train.add_argument("--image-size", type=int, default=384)
    train.add_argument("--batch-size", type=int, default=4)
    train.add_argument("--learning-rate", type=float, default=1e-3)
    train.add_argument("--workers", type=int, default=1)
    train.add_argument(
        "--out", help="folder of the runs; by default one in data/runs/bench-heads, named after the data root"
    )
    train.add_argument("--keep", help="CSV for the numbers; the records of the runs go beside it, as .json")
    args = parser.parse_args()
    if args.command == "train":
        args.out = args.out or f"data/runs/bench-heads/{Path(args.data).resolve().parent.name}"
        compare(args)
        return
    print(f"python {sys.version.split()[0]}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    report_heads(report)


if __name__ == "__main__":
    main()
