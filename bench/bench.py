"Speed and memory of the house, as ratios against a peer measured in the same run. `make bench` runs it; machines differ, ratios less."

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from timing import best, report


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def import_time() -> None:
    "Starting the application beside the libraries that it needs anyway."
    peer = best(lambda: python("import torch, torchvision"), 5)
    ours = best(lambda: python("import deepfake_nbs.application"), 5)
    report("import application / import torch, torchvision", ours / peer, "<= 1.2", ours / peer <= 1.2)


def write_video(path: Path, n_frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (640, 480))
    picture = cv2.resize(
        rng.integers(0, 255, (12, 16, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC
    )
    for i in range(n_frames):
        writer.write(np.roll(picture, 3 * i, axis=1))
    writer.release()


def frame_extraction(folder: Path) -> None:
    "Two workers beside one, on the same clips."
    from deepfake_nbs.data.faceforensics import read_faceforensics
    from deepfake_nbs.data.video import extract_frames

    for i in range(16):
        write_video(folder / "faceforensics/original_sequences/youtube/c23/videos" / f"{i:03}.mp4", 250, i)
    videos = read_faceforensics(folder / "faceforensics")
    runs = iter(range(100))

    def extract(workers):
        extract_frames(
            videos,
            folder / "faceforensics",
            folder / f"frames-{next(runs)}",
            n_frames=10,
            workers=workers,
            progress=False,
        )

    one, two = best(lambda: extract(1), 2), best(lambda: extract(2), 2)
    report("frame extraction, 1 worker / 2 workers", one / two, ">= 1.7", one / two >= 1.7)


BUILD = """
import resource, sys, time
from deepfake_nbs.data.build import build_cvcs_dfd
start = time.perf_counter()
build_cvcs_dfd(sys.argv[1], sys.argv[2], workers=2)
kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(time.perf_counter() - start, kib / 1024)
"""


def build_scale(folder: Path) -> None:
    "A dataset of many small files: memory, and whether time grows with their number only."
    times = {}
    for n in (12_500, 50_000):
        root = folder / f"data-{n}"
        rng = np.random.default_rng(0)
        for i in range(n):
            place = root / "challenge" / ("0-CelebA" if i % 2 else "1-StarGAN")
            place.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / f"{i:06}.png"), rng.integers(0, 255, (16, 16, 3), np.uint8))
        command = [sys.executable, "-c", BUILD, str(root), str(folder / f"out-{n}")]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        times[n], mebibytes = float(printed[-2]), float(printed[-1])
    report("building from 50,000 small files, largest process, MiB", mebibytes, "< 600", mebibytes < 600)
    growth = times[50_000] / times[12_500]
    report("time of 50,000 files / time of 12,500 files", growth, "<= 5", growth <= 5)


def main() -> None:
    print(
        f"python {sys.version.split()[0]}, {resource.getpagesize()} byte pages; every line is a ratio or a size, not a speed"
    )
    import_time()
    with tempfile.TemporaryDirectory() as folder:
        frame_extraction(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        build_scale(Path(folder))

    # Not before: they load torch, and the memory of a process counts in those that it starts
    from bench_application import report_application, report_shipped
    from bench_heads import report_heads
    from bench_retrieval import report_retrieval
    from bench_training import report_training

    report_heads(report)
    report_retrieval(report)
    report_training(report)
    report_application(report, 100)
    report_shipped(report)


if __name__ == "__main__":
    main()
