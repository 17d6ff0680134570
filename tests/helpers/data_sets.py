"Small sets in the real layouts, drawn in a moment, and what tests do with them."

import hashlib
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from deepfake_nbs.core import write_json
from deepfake_nbs.data.build import build_cvcs_dfd
from deepfake_nbs.data.manifest import as_manifest


def draw_image(path, seed, size=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = cv2.resize(np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8), (size, size))
    assert cv2.imwrite(str(path), image)


def draw_video(path, seed=0, n=20, size=32):
    "A clip whose frame number can be read off its brightness."
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (size, size))
    noise = np.random.default_rng(seed).integers(0, 20, (size, size, 3))
    for number in range(n):
        writer.write((noise + 10 * number).clip(0, 255).astype(np.uint8))
    writer.release()


def draw_challenge(root, n=6):
    for i, folder in enumerate(("0-CelebA", "0-FFHQ", "1-StarGAN", "1-STYLEGAN2")):
        for number in range(n):
            draw_image(root / folder / f"{number:03d}.png", 1000 * i + number)


def draw_faceforensics(root, quality="c23", pairs=(("000", "001"), ("002", "003"), ("004", "005"))):
    for method in ("Deepfakes", "FaceSwap"):
        for a, b in pairs:
            draw_video(
                root / f"manipulated_sequences/{method}/{quality}/videos/{a}_{b}.mp4",
                int(a) + 50 * len(method),
            )
    for name in sorted({name for pair in pairs for name in pair}):
        draw_video(root / f"original_sequences/youtube/{quality}/videos/{name}.mp4", int(name))


def draw_heads(root):
    names = ["mov_001_000010", "mov_001_000020", "mov_002_000010", "mov_003_000010"]
    for i, name in enumerate(names):
        draw_image(root / f"JPEGImages/{name}.jpeg", i, size=64)
        box = "<object><name>head</name><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>30.5</xmax><ymax>40</ymax></bndbox></object>"
        write(
            root / f"Annotations/{name}.xml",
            f"<annotation>{box * (i % 3)}<object><name>head</name></object></annotation>",
        )
    write(root / "Splits/train.txt", "mov_001_000010.jpeg\nmov_001_000020\n")
    write(root / "Splits/val.txt", "mov_002_000010\n")
    write(root / "Splits/test.txt", "mov_003_000010.jpeg\n")
    write(root / "Splits/trainval.txt", "mov_002_000010\n")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def photograph(seed, size=128):
    "Noise with the spectrum of a photograph: the finer, the weaker."
    rng, total = np.random.default_rng(seed), np.zeros((size, size, 3))
    for n in (2, 4, 8, 16, 32, 64):
        total += (
            cv2.resize(rng.normal(size=(n, n, 3)), (size, size), interpolation=cv2.INTER_CUBIC) * 60 / n**0.7
        )
    return (128 + total).clip(0, 255).astype(np.uint8)


def bad_videos(folder):
    "Files that are no whole video, and what must be said about them."
    draw_video(folder / "good.mp4", n=60, size=96)
    whole = (folder / "good.mp4").read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is a text")
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "codec.mp4").write_bytes(whole.replace(b"mp4v", b"zzzz").replace(b"esds", b"free"))
    draw_video(folder / "zero.mp4", n=0)
    (folder / "folder.mp4").mkdir()
    return {
        "missing.mp4": "no such file",
        "empty.mp4": "the file is empty",
        "text.mp4": "not a video",
        "cut.mp4": "truncated",
        "codec.mp4": "no decoder",
        "zero.mp4": "it has no frames",
        "folder.mp4": "a folder",
    }


def video_rows(root, names):
    rows = [dict(path=name, label=0, source="FF++", method="none", group=name, video=name) for name in names]
    return as_manifest(rows)


def random_rows(seed):
    "Groups of very different sizes, several sources, with related images that cross labels."
    rng, rows = np.random.default_rng(seed), []
    for number in range(rng.integers(12, 80)):
        source = rng.choice(["A", "B", "C"], p=[0.6, 0.3, 0.1])
        for _ in range(rng.choice([1, 2, 5, 12])):
            label = int(rng.random() < 0.6)
            rows.append(
                dict(
                    path=f"{len(rows)}.png",
                    label=label,
                    source=source,
                    method="x" if label else "none",
                    group=f"g{number}",
                )
            )
    return as_manifest(rows).sample(frac=1, random_state=seed).reset_index(drop=True)


def good_rows(n=3):
    rows = [
        dict(
            path=f"train/{i:06d}.png",
            label=i % 2,
            source="A",
            method="x" if i % 2 else "none",
            group=f"g{i}",
            video="",
            frame=i,
            width=8,
            height=9,
            format="PNG",
            sha256=f"{i:064x}",
            split="train",
        )
        for i in range(n)
    ]
    return pd.DataFrame(rows)


def build(root, out, **more):
    return build_cvcs_dfd(root, out, **dict(n_frames=3, workers=1, progress=False) | more)


def contents(folder):
    "Every file below a folder with the hash of its bytes."
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def draw_photograph(path, seed, size=96, quality=95):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(
        str(path), cv2.resize(photograph(seed), (size, size)), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )


def stems(df):
    return df.set_index(df["path"].map(lambda path: Path(path).stem))


PAIRS = (("639", "001"), ("640", "002"), ("003", "004"), ("755", "756"))


VIDEOS = {"639": "kCGKcmu9Pho 0", "640": "kCGKcmu9Pho 1"} | {
    one: f"video-{one} 0" for one in ("001", "002", "003", "004", "755", "756")
}


def draw_official(root, videos=VIDEOS):
    draw_faceforensics(root, pairs=PAIRS)
    for name, ids in {
        "train": [["639", "001"]],
        "val": [["640", "002"], ["755", "756"]],
        "test": [["003", "004"]],
    }.items():
        write_json(root / f"splits/{name}.json", ids)
    if videos is not None:
        write_json(root / "conversion_dict.json", videos)


def draw_own(root, n=12, splits=("",)):
    for split in splits:
        for label in ("real", "fake"):
            for i in range(n):
                draw_image(
                    root / split / label / f"{label}{split}{i}.png",
                    zlib.crc32(f"{split}/{label}/{i}".encode()),
                )


def spoil(root):
    "Files that cannot be used, with a word of the reason."
    folder = root / "challenge/0-CelebA"
    whole = (folder / "000.png").read_bytes()
    (folder / "b_empty.jpg").write_bytes(b"")
    (folder / "b_cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "b_text.jpg").write_text("renamed")
    (folder / "b_notes.txt").write_text("a note")
    videos = root / "faceforensics/original_sequences/youtube/c23/videos"
    reasons = bad_videos(root.parent / "bad")
    for i, name in enumerate(("empty.mp4", "text.mp4", "cut.mp4", "zero.mp4")):
        shutil.copy(root.parent / "bad" / name, videos / f"90{i}.mp4")
    place = "faceforensics/original_sequences/youtube/c23/videos"
    images = {
        "b_empty.jpg": "empty",
        "b_cut.png": "decoded",
        "b_text.jpg": "not an image",
        "b_notes.txt": "not an image",
    }
    clips = {
        "900.mp4": "empty",
        "901.mp4": "not a video",
        "902.mp4": "truncated",
        "903.mp4": reasons["zero.mp4"],
    }
    images = {f"challenge/0-CelebA/{name}": word for name, word in images.items()}
    return images | {f"{place}/{name}": word for name, word in clips.items()}
