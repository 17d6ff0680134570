"""Training and judging beside timm's legacy_xception: speed, agreement, and what row 11 reaches beside a plain loop and published rows.

python bench/bench_training.py speed
python bench/bench_training.py compare --data ../shared/real --epochs 8 --image-size 128 --rows 1
python bench/bench_training.py compare --data ../shared/real --epochs 16 --image-size 192 --images 0 --width 0.25 --no-peer

The second is small, for timm's network has the full width only; the third was run with --precision bfloat16.

`compare` trains networks on one group split of whole pictures for the same number of epochs: row 11; each recipe of the report's table 1
(network, optimiser, learning rate, batch size, schedule), on pictures as large as row 11's windows; and row 11's recipe (augmentation,
windows, schedule, batch norms measured on whole pictures) in a plain loop with the peer. timm's network has one width; with another
--width the peer is our own class, and the numbers say so. Finished trainings are kept, so it can be stopped and started again.
"""

import argparse
import copy
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from PIL import Image
from timing import best, report
from torchvision.transforms.functional import to_tensor
from torch.optim.swa_utils import update_bn

from deepfake_nbs.classifiers import xception
from deepfake_nbs.claims import CLAIM_COLUMNS
from deepfake_nbs.core import run_record, set_seed, write_json, write_text
from deepfake_nbs.files import read_table, write_table
from deepfake_nbs.metrics import classification_metrics, paired_metrics
from deepfake_nbs.runs import read_predictions
from deepfake_nbs.data.build import build_cvcs_dfd
from deepfake_nbs.data.manifest import MANIFEST_COLUMNS, read_manifest
from deepfake_nbs.checkpoints import best_epoch
from deepfake_nbs.classifiers.data import ManifestImages, SeededLoader, read_splits
from deepfake_nbs.classifiers.recipes import TrainingConfig, read_table1, table_config
from deepfake_nbs.classifiers.training import (
    RecalibrateBatchNorm,
    classifier_training,
    make_loss,
    predict,
    train,
    validation_rank,
    validation_scores,
)
from deepfake_nbs.engine import PRECISIONS, SCHEDULES, choose_precision, train_epoch
from deepfake_nbs.classifiers.saved import load_classifier
from deepfake_nbs.classifiers.xception import create_model, images_per_second, summarise_variants


def make_peer(width: float = 1.0) -> torch.nn.Module:
    "timm's network; at another width, which it does not have, our own class."
    if width != 1:
        return create_model("xception", width=width)
    import timm

    return timm.create_model("legacy_xception", num_classes=2, drop_rate=0.5)


def write_pictures(folder: Path, n: int, side: int = 480) -> pd.DataFrame:
    "JPEG photographs of nothing, as manifest rows."
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 255, (15, 15, 3), dtype=np.uint8))
        small.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg", quality=90)
        rows.append(
            {column: "" for column in MANIFEST_COLUMNS} | dict(path=f"{i:04d}.jpg", label=i % 2, group=str(i))
        )
    return pd.DataFrame(rows)


def agreement() -> float:
    "Largest difference of the logits on the same weights."
    torch.manual_seed(0)
    theirs, ours = make_peer().eval(), create_model("xception").eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, 299, 299) * 2 - 1
    with torch.inference_mode():
        return (ours(x) - theirs(x)).abs().max().item()


def training_speed(frame: pd.DataFrame, folder: Path) -> tuple[float, float, float]:
    "Seconds of an epoch of ours and of a plain loop with the peer, and the share of ours that waits for pictures."
    config = TrainingConfig(
        row=0, image_size=128, batch_size=8, epochs=1, schedule="constant", precision="float32", augment="all"
    )
    images, augmented = (ManifestImages(frame, folder, 128, augment_seed=seed) for seed in (None, 0))
    peer, loss = make_peer().train(), make_loss(images.labels)
    optimiser = torch.optim.Adam(peer.parameters(), lr=0.001)

    def plain():
        for x, y in torch.utils.data.DataLoader(images, batch_size=8, shuffle=True):
            value = loss(peer(x.permute(0, 3, 1, 2).float().sub(127.5).div(127.5)), y)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()

    ours, few = classifier_training(replace(config, augment="none"), images, images), []
    peer_times = []
    for _ in range(3):
        train_epoch(ours, 0)
        few.append(ours.learner.epoch_recorder.train_seconds)
        peer_times.append(best(plain, 1))
    loader, start = SeededLoader(augmented, 8, train=True), time.perf_counter()
    for _ in loader:
        pass
    return min(few), min(peer_times), (time.perf_counter() - start) / min(few)


def gpu_speed(frame: pd.DataFrame, folder: Path, image_size: int = 299) -> tuple[float, float]:
    "Images a second of an epoch of ours, and of a plain loop with the peer that finds its batches on the GPU."
    config = TrainingConfig(row=0, image_size=image_size, epochs=1, schedule="constant", workers=8)
    frame = pd.concat([frame] * -(-512 // len(frame)), ignore_index=True)[:512]
    images, few = (ManifestImages(part, folder, image_size, workers=8) for part in (frame, frame[:16]))
    ours = classifier_training(config, images, few, "cuda")
    times = []
    for _ in range(4):  # The first records the step
        train_epoch(ours, 0)
        times.append(ours.learner.epoch_recorder.train_seconds)

    peer = make_peer().train().to("cuda", memory_format=torch.channels_last)
    optimiser, loss = torch.optim.Adam(peer.parameters(), lr=0.001), torch.nn.CrossEntropyLoss()
    batches = list(SeededLoader(images, 16, train=True, device="cuda"))

    def plain():
        for x, y in batches:
            with torch.autocast("cuda", torch.bfloat16):
                value = loss(peer(x), y)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
        torch.cuda.synchronize()

    plain()
    return len(images) / min(times[1:]), len(images) / best(plain)


def report_gpu(report, frame: pd.DataFrame, folder: Path) -> None:
    "Print how fast a GPU trains, beside the plain loop."
    name = "training on a GPU, 299 px, batches of 16 / plain loop with timm"
    if not torch.cuda.is_available():
        print(f"{name}: not measured, there is no GPU", flush=True)
        return
    ours, theirs = gpu_speed(frame, folder)
    print(
        f"{torch.cuda.get_device_name()}: {ours:.0f} images a second, the plain loop {theirs:.0f}", flush=True
    )
    report(name, ours / theirs, ">= 2.5", ours / theirs >= 2.5)


@torch.inference_mode()
def judging_speed(frame: pd.DataFrame, folder: Path) -> float:
    "Seconds of a plain chain over those of ours: decode, resize, normalise, network, 299 pixels."
    ours, theirs = create_model("xception").eval().to(memory_format=torch.channels_last), make_peer().eval()

    def plain():
        for paths in np.array_split(frame["path"], len(frame) // 8):
            pictures = [
                Image.open(folder / path).convert("RGB").resize((299, 299), Image.Resampling.BILINEAR)
                for path in paths
            ]
            theirs(torch.stack([to_tensor(picture) for picture in pictures]).sub(0.5).div(0.5)).softmax(1)

    def own():
        predict(ours, ManifestImages(frame, folder, 299, workers=2), 8)

    own(), plain()
    times = [(best(plain, 1), best(own, 1)) for _ in range(3)]
    return min(time for time, _ in times) / min(time for _, time in times)


def parts_speed(image_size: int = 299, batch_size: int = 16) -> float:
    "Seconds of a batch that goes through the entry flow whole over those of one that goes in parts, float32."
    model = create_model("xception")

    def rate(entry_parts=xception.entry_parts):
        with mock.patch.object(xception, "entry_parts", entry_parts):
            return images_per_second(model, image_size, batch_size)

    rates = [(rate(), rate(lambda x, width: 1)) for _ in range(2)]
    return max(parts for parts, _ in rates) / max(whole for _, whole in rates)


def half_precision(run: Path) -> tuple[float, int, int]:
    "Largest change of a probability by half precision, verdicts changed away from the threshold, pictures: held-out ones first."
    model, config = load_classifier(run / "model")
    threshold, folder = config["threshold"], run / json.loads((run / "run.json").read_text())["dataset"]
    frame = (
        read_manifest(folder)
        .sample(frac=1, random_state=0)
        .sort_values("split", key=lambda split: split == "train", kind="stable")
    )
    images = ManifestImages(frame.head(1000), folder, config["image_size"], workers=2)
    model = model.to(memory_format=torch.channels_last)
    exact, half = (predict(model, images, 16, precision=precision) for precision in ("float32", "bfloat16"))
    away = np.abs(exact - threshold) > 0.02
    return (
        float(np.abs(exact - half).max()),
        int(((exact >= threshold) != (half >= threshold))[away].sum()),
        len(images),
    )


def report_training(report, run: Path | None = None) -> None:
    "Print the comparisons; `report(name, measured, wanted, reached)` as in timing.py. Half precision is tried on a run, the newest."
    error = agreement()
    report("logits, ours - timm's, same weights, times 10,000", error * 1e4, "<= 1", error <= 1e-4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frame = write_pictures(folder, 96)
        ours, theirs, waiting = training_speed(frame, folder)
        report(
            "training, 128 px: images per second / plain loop with timm",
            theirs / ours,
            ">= 0.95",
            theirs / ours >= 0.95,
        )
        report("reading and augmenting / an epoch after the first", waiting, "< 0.1", waiting < 0.1)
        has_half = choose_precision("auto", "cpu") == "bfloat16"
        wanted, ratio = 2.0 if has_half else 1.2, judging_speed(frame.head(48), folder)
        report(
            f"judging files, 299 px ({choose_precision('auto', 'cpu')}) / timm eager float32",
            ratio,
            f">= {wanted}",
            ratio >= wanted,
        )
        report_gpu(report, frame, folder)
    parts = parts_speed()
    report("judging, 299 px: entry flow in parts / whole batches of 16", parts, "> 1", parts > 1)
    nets = {net: create_model(net) for net in ("xception", "light")}
    for image_size, batch_size in [(299, 8), (299, 1), (96, 1)]:
        counted = summarise_variants(image_size)["multiply_adds"]
        speed = {
            net: max(images_per_second(model, image_size, batch_size) for _ in range(3))
            for net, model in nets.items()
        }
        ratio, name = (
            speed["light"] / speed["xception"],
            f"Light / Xception, {image_size} px, batches of {batch_size}",
        )
        report(f"{name} (arithmetic: {counted.xception / counted.light:.3f})", ratio, ">= 1.4", ratio >= 1.4)
    run = (
        run
        or max(
            Path("data/runs").glob("*/training/*/run.json"),
            key=lambda path: path.stat().st_mtime,
            default=Path(),
        ).parent
    )
    if not (run / "run.json").is_file():
        print("half precision on a trained network: not measured, no finished run in data/runs")
        return
    change, verdicts, n = half_precision(run)
    report(
        f"half precision on {n} pictures: largest change of a probability", change, "<= 0.01", change <= 0.01
    )
    report(f"half precision on {n} pictures: verdicts changed", verdicts, "= 0", verdicts == 0)


def measure_norms(model: torch.nn.Module, whole: RecalibrateBatchNorm) -> None:
    "Batch norms of the peer on the same whole pictures, as `RecalibrateBatchNorm.after_train` does it for ours."
    with torch.autocast(whole.device, whole.dtype, enabled=whole.dtype != torch.float32):
        update_bn(whole.loader, model)


def validate(
    model: torch.nn.Module, images: ManifestImages, loss: torch.nn.Module, config: TrainingConfig, device: str
) -> dict:
    "Loss, accuracy and AUC on the validation split."
    probability = torch.from_numpy(predict(model, images, device=device, precision=config.precision)).clamp(
        1e-6, 1 - 1e-6
    )
    return validation_scores(
        torch.stack([1 - probability, probability], 1).log(), torch.tensor(images.labels), loss.cpu()
    )


def train_peer(config: TrainingConfig, dataset: Path) -> tuple[pd.DataFrame, dict]:
    "A plain loop with the peer and all of our recipe; predictions of the best epoch by validation on the test split, and a record."
    device, begin = "cuda" if torch.cuda.is_available() else "cpu", time.perf_counter()
    config = replace(config, precision=choose_precision(config.precision, device))
    splits = read_splits(dataset, config)
    changed = dict(augment_seed=config.seed, window=config.window, augment=config.augment)
    images = {
        name: ManifestImages(
            splits[name], dataset, config.image_size, 2, **(changed if name == "train" else {})
        )
        for name in splits
    }
    set_seed(config.seed)
    model, loss = make_peer(config.width).to(device), make_loss(images["train"].labels)
    whole, dtype = RecalibrateBatchNorm(images["train"], config, device), getattr(torch, config.precision)
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    history, kept = [], None
    for epoch in range(config.epochs):
        loader = SeededLoader(
            images["train"],
            config.batch_size,
            train=True,
            seed=config.seed,
            workers=config.workers,
            device=device,
        )
        start, loader.epoch = time.perf_counter(), epoch
        model.train()
        loss.to(device)
        for i, (x, y) in enumerate(loader):
            optimiser.param_groups[0]["lr"] = SCHEDULES[config.schedule](
                config.learning_rate, epoch + i / len(loader), config.epochs
            )
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                value = loss(model(x), y)
            optimiser.zero_grad()
            scaler.scale(value).backward()
            scaler.step(optimiser)
            scaler.update()
        measure_norms(model, whole)
        history.append(dict(epoch=epoch + 1, **validate(model, images["validation"], loss, config, device)))
        print(
            f"peer epoch {epoch + 1}/{config.epochs} {history[-1]} {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        if best_epoch(history, validation_rank) == epoch + 1:
            kept = copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    said = predict(model, images["test"], device=device, precision=config.precision)
    facts = dict(
        network=peer_name(config),
        best_epoch=best_epoch(history, validation_rank),
        history=history,
        wall_seconds=time.perf_counter() - begin,
    )
    record = run_record(config, config.seed, device, manifest=dataset / "manifest.csv", n=len(said), **facts)
    return splits["test"][["path", "label", "group"]].assign(probability=said), record


def peer_name(config: TrainingConfig) -> str:
    return (
        "timm's legacy_xception, plain loop"
        if config.width == 1
        else "our own Xception (timm's has no width), plain loop"
    )


def distinct_rows() -> list[int]:
    "Rows of table 1 whose recipes differ once all take whole pictures and as many epochs: the first of each kind."
    kinds = {}
    for row in read_table1().index:
        kinds.setdefault(replace(table_config(row), row=0, epochs=1, crop=False), row)
    return list(kinds.values())


def train_all(args: argparse.Namespace) -> tuple[dict[str, pd.DataFrame], dict[str, dict]]:
    "Predictions on the test split and run records of ours, of each published row, and of the peer."
    out = Path(args.out)
    dataset, name = (
        out / f"cvcs_dfd-{args.images}",
        f"{args.image_size}-{args.epochs}-{args.images}-{args.width:g}",
    )
    build_cvcs_dfd(args.data, dataset, image_limit=args.images)
    same = dict(row=0, epochs=args.epochs, width=args.width, crop=False, precision=args.precision)
    config = replace(table_config(11), image_size=args.image_size, **same)
    windows = round(args.image_size * config.window)
    published = {
        f"row{row}": replace(table_config(row), image_size=windows, **same)
        for row in args.rows or distinct_rows()
    }
    configs = dict(ours=config) | published
    places = {key: out / f"{key}-{name}" for key in configs}
    records = {key: train(each, dataset, places[key]) for key, each in configs.items()}
    records = {
        key: record | dict(history=pd.read_csv(places[key] / "history.csv").to_dict("records"))
        for key, record in records.items()
    }
    frames = {key: read_predictions(place) for key, place in places.items()}
    if args.no_peer:
        return frames, records
    table, about = out / f"peer-whole-{name}.csv", out / f"peer-whole-{name}.json"
    if (
        not about.is_file()
        or json.loads(about.read_text())["manifest_sha256"] != records["ours"]["manifest_sha256"]
    ):
        frame, record = train_peer(config, dataset)
        write_table(frame, table)
        write_json(about, record)
    return frames | dict(peer=read_table(table, numbers=("label", "probability"))), records | dict(
        peer=json.loads(about.read_text())
    )


def compare(args: argparse.Namespace) -> None:
    "Row 11, the published recipes and the peer, on the same test pictures."
    frames, records = train_all(args)
    areas = {key: classification_metrics(frame, 1000).loc["auc"] for key, frame in frames.items()}
    rows = [
        dict(id=f"training-compare-{key}-auc", measured=area["value"], low=area["low"], high=area["high"])
        for key, area in areas.items()
    ]
    for key in (key for key in frames if key != "ours"):
        pair = paired_metrics(frames["ours"], frames[key]).loc["auc"]
        rows.append(
            dict(
                id=f"training-compare-ours-minus-{key}-auc",
                measured=pair["difference"],
                low=pair["low"],
                high=pair["high"],
            )
        )
        reached, wanted = (
            (pair["high"] >= 0, "interval reaches 0")
            if key == "peer"
            else (pair["low"] > 0, "interval above 0")
        )
        what = records[key]["network"] if key == "peer" else f"the recipe of {key.replace('row', 'row ')}"
        report(f"AUC, row 11 - {what}", pair["difference"], wanted, reached)
    protocol = f"group, {args.epochs} epochs, {args.image_size} px, width {args.width:g}, {records['ours']['config']['precision']}"
    protocol += "" if args.no_peer else f"; peer: {records['peer']['network']}"
    table = pd.DataFrame(rows).assign(
        published="", status="measured", n=len(frames["ours"]), protocol=protocol, data=Path(args.data).name
    )
    table = table.reindex(columns=CLAIM_COLUMNS).round(4)
    print(table[["id", "measured", "low", "high", "n"]].to_string(index=False))
    if args.keep:
        write_text(args.keep, table.to_csv(index=False, lineterminator="\n"))
        write_json(Path(args.keep).with_suffix(".json"), dict(training=records))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("speed", help="speed and agreement, as ratios")
    speed.add_argument(
        "--run", type=Path, help="trained run on whose pictures half precision is tried; left out, the newest"
    )
    both = commands.add_parser(
        "compare", help="row 11, the published recipes and timm's network, trained on one group split"
    )
    both.add_argument("--data", required=True, help="data root, as of make report")
    both.add_argument("--epochs", type=int, default=8)
    both.add_argument("--image-size", type=int, default=128, help="pixels of one side")
    both.add_argument("--images", type=int, default=1500, help="most pictures of the dataset, 0 = all")
    both.add_argument(
        "--width",
        type=float,
        default=1.0,
        help="multiplier of all channels; the peer is timm's network at 1 only",
    )
    both.add_argument("--precision", default="auto", choices=PRECISIONS, help="of all networks")
    both.add_argument(
        "--rows", type=int, nargs="*", help="rows of table 1 to train; left out, one of each recipe"
    )
    both.add_argument("--no-peer", action="store_true", help="leave the plain loop out")
    both.add_argument("--out", default="data/runs/bench-training")
    both.add_argument("--keep", help="CSV for the numbers; the records of the runs go beside it, as .json")
    args = parser.parse_args()
    compare(args) if args.command == "compare" else report_training(report, args.run)


if __name__ == "__main__":
    main()
