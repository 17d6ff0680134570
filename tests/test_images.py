"Reading images: every state they arrive in, and one error for those that cannot be read."

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deepfake_nbs import images
from deepfake_nbs.images import ImageError, read_image

RED = (255, 0, 0)


def save(path, image, **options):
    image.save(path, **options)
    return path


def png_header(width, height):
    "A PNG that claims a size and holds next to nothing."
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_good_pictures_come_out_right(tmp_path):
    red = Image.new("RGB", (20, 10), RED)
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.full((10, 20), 40_000, np.uint16))
    palette = red.convert("P")
    glass = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    marked = Image.new("P", (20, 10), 0)
    marked.putpalette([0, 0, 0, 255, 0, 0])
    cases = {
        "plain.png": (red, {}, (20, 10), RED),
        "a name with spaces, ümläut 写真.png": (red, {}, (20, 10), RED),
        "one pixel.png": (Image.new("RGB", (1, 1), RED), {}, (1, 1), RED),
        "grey.png": (Image.new("L", (20, 10), 77), {}, (20, 10), (77, 77, 77)),
        "sixteen bits.png": (deep, {}, (20, 10), (156, 156, 156)),
        "palette.png": (palette, {}, (20, 10), RED),
        "palette with alpha.png": (marked, {"transparency": 0}, (20, 10), (255, 255, 255)),
        "glass.png": (glass, {}, (20, 10), (255, 255, 255)),
        "grey with alpha.png": (Image.new("LA", (20, 10), (9, 0)), {}, (20, 10), (255, 255, 255)),
        "one bit.png": (Image.new("1", (20, 10), 1), {}, (20, 10), (255, 255, 255)),
        "print.jpg": (red.convert("CMYK"), {"quality": 95}, (20, 10), RED),
        "print.tif": (red.convert("CMYK"), {}, (20, 10), RED),
        "turned.jpg": (red, {"exif": exif, "quality": 95}, (10, 20), RED),
        "moving.gif": (red, {"save_all": True, "append_images": [Image.new("RGB", (20, 10), (0, 0, 255))]}, (20, 10), RED),
    }
    for name, (image, options, size, colour) in cases.items():
        picture = read_image(save(tmp_path / name, image, **options))
        assert picture.mode == "RGB" and picture.size == size, name
        assert np.abs(np.array(picture.getpixel((0, 0))) - colour).max() <= 3, (name, picture.getpixel((0, 0)))


def test_sixteen_bits_keep_their_gradient(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    picture = np.asarray(read_image(save(tmp_path / "ramp.png", Image.fromarray(ramp))))[0, :, 0].astype(int)
    assert picture[0] == 0 and picture[-1] == 255 and np.abs(picture - np.arange(256)).max() <= 1


def whole_jpeg(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    return save(tmp_path / "whole.jpg", Image.fromarray(noise), quality=90).read_bytes()


def bad_files(tmp_path):
    "Name, maker and the word that the message must hold."
    data = whole_jpeg(tmp_path)
    yield "missing.jpg", lambda path: None, "no such file"
    yield "folder.jpg", lambda path: path.mkdir(), "folder"
    yield "empty.jpg", lambda path: path.write_bytes(b""), "empty"
    yield "text.jpg", lambda path: path.write_text("<html>404</html>"), "not an image"
    yield "cut.jpg", lambda path: path.write_bytes(data[: len(data) // 2]), "decoded"
    yield "header only.jpg", lambda path: path.write_bytes(data[:40]), "decoded"
    yield "cut.png", lambda path: path.write_bytes(png_header(30, 30)), "decoded"
    yield "70 megapixels.png", lambda path: path.write_bytes(png_header(10_000, 7_000)), "70 megapixels"
    yield "bomb.png", lambda path: path.write_bytes(png_header(100_000, 100_000)), "megapixels"
    yield "float.tif", lambda path: Image.fromarray(np.ones((4, 4), np.float32)).save(path), "floating-point"
    yield "script.eps", lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not an image"


def test_bad_files_give_one_error_that_names_them(tmp_path):
    for name, make, word in bad_files(tmp_path):
        make(tmp_path / name)
        with pytest.raises(ImageError) as error:
            read_image(tmp_path / name)
        assert name in str(error.value) and word in str(error.value), (name, str(error.value))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file_for_a_user(tmp_path):
    path = save(tmp_path / "locked.png", Image.new("RGB", (4, 4)))
    path.chmod(0)
    with pytest.raises(ImageError, match="locked.png"):
        read_image(path)


def test_unreadable_file_whoever_runs_this(tmp_path, monkeypatch):
    path = save(tmp_path / "locked.png", Image.new("RGB", (4, 4)))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images.Image, "open", refuse)
    with pytest.raises(ImageError, match="locked.png: cannot be decoded .PermissionError"):
        read_image(path)


def test_random_damage_never_shows_a_library_error(tmp_path):
    rng, data = np.random.default_rng(3), whole_jpeg(tmp_path)
    for kind in ("jpg", "png", "webp", "gif", "tif", "bmp"):
        whole = save(tmp_path / f"a.{kind}", Image.open(tmp_path / "whole.jpg").resize((40, 40))).read_bytes() if kind != "jpg" else data
        for trial in range(30):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(damaged), 8):
                damaged[place] = rng.integers(256)
            path = tmp_path / f"damaged-{trial}.{kind}"
            path.write_bytes(damaged[: rng.integers(1, len(damaged) + 1)])
            try:
                assert read_image(path).mode == "RGB"
            except ImageError as error:
                assert path.name in str(error)


def test_image_error_survives_a_worker_process():
    import pickle

    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "why")))
    assert (error.path, error.reason, str(error)) == ("a.jpg", "why", "a.jpg: why")


