"Reading images: every state they arrive in, and one error for those that cannot be read."

import io
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from deepfake_nbs import images
from deepfake_nbs.images import ImageError, read_header, read_image, to_rgb, upright_rgb

RED = (255, 0, 0)


def save(path, image, **options):
    image.save(path, **options)
    return path


def chunk(kind, data, check=0):
    "A chunk of a PNG; `check` spoils its check sum."
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ check)


def png_header(width, height):
    "A PNG that claims a size and holds next to nothing."
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_good_images_come_out_right(tmp_path):
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
        decoded = read_image(save(tmp_path / name, image, **options))
        assert decoded.mode == "RGB" and decoded.size == size, name
        assert np.abs(np.array(decoded.getpixel((0, 0))) - colour).max() <= 3, (name, decoded.getpixel((0, 0)))


def test_sixteen_bits_keep_their_gradient(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    decoded = np.asarray(read_image(save(tmp_path / "ramp.png", Image.fromarray(ramp))))[0, :, 0].astype(int)
    assert decoded[0] == 0 and decoded[-1] == 255 and np.abs(decoded - np.arange(256)).max() <= 1


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


# --- Metadata that are broken -------------------------------------------------------------------------------------------

NOISE = np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8)
UPRIGHT = Image.fromarray(NOISE).transpose(Image.Transpose.ROTATE_270)
RAW_PROFILE = b"Raw profile type exif\0\nexif\n      20\nthis is not hexadecimal\n"


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def orientation(value):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = value, "a description"
    return exif


def with_chunks(data, before=b"", after=b""):
    "A PNG with more chunks in front of its pixels, and behind them."
    return data[:33] + before + data[33:-12] + after + data[-12:]


BROKEN_CHUNKS = {
    "gAMA cut": chunk(b"gAMA", b"\0"),
    "pHYs cut": chunk(b"pHYs", b"\0"),
    "cHRM cut": chunk(b"cHRM", bytes(5)),
    "sRGB empty": chunk(b"sRGB", b""),
    "acTL cut": chunk(b"acTL", b"\0"),
    "iCCP of method 9": chunk(b"iCCP", b"profile\0\x09" + zlib.compress(bytes(100))),
    "iCCP of 3 MB": chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000_000))),
    "iCCP without a name": chunk(b"iCCP", b""),
    "tEXt, wrong sum": chunk(b"tEXt", b"Title\0hello", check=1),
    "tEXt raw EXIF of nonsense": chunk(b"tEXt", RAW_PROFILE),
    "zTXt of 3 MB": chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(3_000_000))),
    "zTXt of method 9": chunk(b"zTXt", b"Title\0\x09" + zlib.compress(b"hello")),
    "iTXt of 3 MB": chunk(b"iTXt", b"Title\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
    "eXIf of nonsense": chunk(b"eXIf", b"\xff" * 40),
    "eXIf cut": chunk(b"eXIf", b"MM"),
    "fcTL cut": chunk(b"fcTL", b"\0"),
    "tRNS, wrong sum": chunk(b"tRNS", bytes(6), check=1),
}


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
def test_broken_chunks_of_a_png_are_dropped(tmp_path, name):
    path, whole = tmp_path / "a.png", saved(Image.fromarray(NOISE), "PNG")
    for data in (with_chunks(whole, before=BROKEN_CHUNKS[name]), with_chunks(whole, after=BROKEN_CHUNKS[name])):
        path.write_bytes(data)
        assert np.array_equal(read_image(path), NOISE)
        assert (read_header(path).format, read_header(path).n_bytes) == ("PNG", len(data))


def test_a_sound_orientation_stays_where_other_metadata_are_broken(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(with_chunks(saved(Image.fromarray(NOISE), "PNG", exif=orientation(6)), before=chunk(b"gAMA", b"\0")))
    assert np.array_equal(read_image(path), UPRIGHT)
    jpeg = saved(Image.fromarray(NOISE), "JPEG", quality=100, subsampling=0, exif=orientation(6))
    path.write_bytes(jpeg[:2] + b"\xff\xee\0\x07Adobe" + jpeg[2:])
    turned = Image.open(io.BytesIO(jpeg)).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(read_image(path), turned)
    webp = saved(Image.fromarray(NOISE), "WEBP", lossless=True, exif=orientation(6), xmp=bytes(200))
    path.write_bytes(webp[:-50])  # The end of XMP is missing
    assert np.array_equal(read_image(path), UPRIGHT)


def test_nonsense_in_exif_turns_nothing(tmp_path):
    path = tmp_path / "a"
    webp = saved(Image.fromarray(NOISE), "WEBP", lossless=True, exif=b"\xff" * 200)
    avif = saved(Image.fromarray(NOISE), "AVIF", quality=100, exif=orientation(1))
    place = avif.index(b"a description")
    start = max(avif.rfind(b"II*\0", 0, place), avif.rfind(b"MM\0*", 0, place))
    jpeg = saved(Image.fromarray(NOISE), "JPEG", exif=orientation(6)).replace(b"MM\0*", b"\xff" * 4)
    pixels = {kind: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for kind, data in (("AVIF", avif), ("JPEG", jpeg))}
    for kind, data in (
        ("PNG", with_chunks(saved(Image.fromarray(NOISE), "PNG"), before=chunk(b"eXIf", b"\xff" * 40))),
        ("WEBP", webp),
        ("WEBP", webp[:-50]),
        ("AVIF", avif[:start] + b"\xff" * 8 + avif[start + 8 :]),
        ("JPEG", jpeg),
    ):
        path.write_bytes(data)
        image = read_image(path)
        assert image.format == kind and np.array_equal(image, pixels.get(kind, NOISE)), kind


def test_broken_metadata_print_nothing(tmp_path):
    jpeg = saved(Image.fromarray(NOISE), "JPEG", exif=orientation(6))
    place = jpeg.index(b"MM\0*") + 8
    (tmp_path / "a.jpg").write_bytes(jpeg[:place] + b"\xff\xff" + jpeg[place + 2 :])  # 65,535 entries where there are two
    program = "import sys; from deepfake_nbs.images import read_image; print(read_image(sys.argv[1]).size)"
    told = subprocess.run([sys.executable, "-c", program, tmp_path / "a.jpg"], capture_output=True, text=True, check=True)
    assert (told.stdout, told.stderr) == ("(30, 40)\n", "")


def test_images_in_memory_are_turned_alike():
    good = Image.open(io.BytesIO(saved(Image.fromarray(NOISE), "PNG", exif=orientation(6))))
    broken = Image.open(io.BytesIO(with_chunks(saved(Image.fromarray(NOISE), "PNG"), before=chunk(b"tEXt", RAW_PROFILE))))
    assert np.array_equal(upright_rgb(good), UPRIGHT) and np.array_equal(upright_rgb(broken), NOISE)


def test_a_cut_adobe_segment_does_not_change_the_colours(tmp_path):
    path, cut = tmp_path / "a.jpg", b"\xff\xee\0\x07Adobe"
    for options in ({}, {"keep_rgb": True}):  # Three channels that are YCbCr; that are RGB, which a whole Adobe segment says
        whole = saved(Image.fromarray(NOISE), "JPEG", quality=95, **options)
        path.write_bytes(whole[:2] + cut + whole[2:])
        assert np.array_equal(read_image(path), Image.open(io.BytesIO(whole)))
    four = saved(Image.fromarray(NOISE).convert("CMYK"), "JPEG", quality=95)
    path.write_bytes(four[:2] + cut + four[2:])
    assert np.array_equal(read_image(path), Image.open(io.BytesIO(four)).convert("RGB"))


def test_any_damage_of_metadata_leaves_the_pixels(tmp_path):
    rng, options = np.random.default_rng(11), dict(exif=orientation(1), icc_profile=bytes(range(256)))
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "hello " * 20)
    text.add_text("Comment", "hello " * 20, zip=True)
    for kind, more in (("PNG", dict(pnginfo=text)), ("JPEG", {}), ("WEBP", dict(lossless=True, xmp=b"<x/>" * 20))):
        whole = saved(Image.fromarray(NOISE), kind, **options, **more)
        expected = np.asarray(Image.open(io.BytesIO(whole)).convert("RGB"))
        first = {"PNG": 33, "JPEG": 24, "WEBP": whole.find(b"EXIF") + 8}[kind]
        last = {"PNG": whole.find(b"IDAT") - 4, "JPEG": whole.find(b"\xff\xdb"), "WEBP": len(whole)}[kind]
        names = (b"\xff\xe1", b"\xff\xe2") if kind == "JPEG" else (b"iCCP", b"tEXt", b"zTXt", b"eXIf", b"XMP ")
        keep = {place for name in names for place in range(whole.find(name) - 4, whole.find(name) + 8)}
        for trial in range(40):  # Lengths stay: where they are wrong, nobody can tell what are pixels
            damaged = bytearray(whole)
            for place in rng.integers(first, last, 6):
                if place not in keep:
                    damaged[place] = rng.integers(256)
            path = tmp_path / f"{trial}.{kind.lower()}"
            path.write_bytes(damaged)
            image = read_image(path)
            assert image.size != (40, 30) or np.array_equal(image, expected), (kind, trial)


def test_no_setting_of_pillow_is_changed():
    assert not ImageFile.LOAD_TRUNCATED_IMAGES and PngImagePlugin.MAX_TEXT_CHUNK == ImageFile.SAFEBLOCK == 1 << 20


def test_broken_pixels_stay_an_error(tmp_path):
    path, whole = tmp_path / "a.png", saved(Image.fromarray(NOISE), "PNG")
    place, gamma = whole.index(b"IDAT") + 4, chunk(b"gAMA", b"\0")
    for data in (whole[: place + 500], whole[:place] + bytes(50) + whole[place + 50 :], whole[:33] + gamma + whole[33 : place + 500]):
        path.write_bytes(data)
        with pytest.raises(ImageError, match="a.png: "):
            read_image(path)


# --- Images that end early ------------------------------------------------------------------------------------------------


def taller(jpeg, rows):
    "The same JPEG, whose header promises more rows."
    height = re.search(rb"\xff[\xc0\xc2]..\x08", jpeg, re.DOTALL).end()
    return jpeg[:height] + struct.pack(">H", int.from_bytes(jpeg[height : height + 2], "big") + rows) + jpeg[height + 2 :]


WAYS = ({}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 3}, {"optimize": True, "quality": 100})


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", WAYS, ids=repr)
def test_jpeg_without_its_last_rows_is_refused_and_a_grey_edge_is_not(tmp_path, progressive, mode, options):
    path = tmp_path / "a.jpg"
    for size in ((64, 64), (50, 41), (300, 9)):
        width, height = size
        noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
        grey = noise.copy()
        grey[height // 3 :] = 128
        for pixels in (noise, grey, np.full_like(noise, 128)):
            whole = saved(Image.fromarray(pixels).convert(mode), "JPEG", progressive=progressive, **options)
            path.write_bytes(whole)
            assert np.array_equal(read_image(path), Image.open(io.BytesIO(whole)).convert("RGB"))
        for rows in (16, 50, 3000):
            path.write_bytes(taller(saved(Image.fromarray(noise).convert(mode), "JPEG", progressive=progressive, **options), rows))
            with pytest.raises(ImageError, match="a.jpg: incomplete: the header promises more rows"):
                read_image(path)


def test_jpeg_that_was_cut_and_closed_again_is_refused(tmp_path):
    path, whole = tmp_path / "a.jpg", saved(Image.fromarray(NOISE).resize((200, 200)), "JPEG", quality=95)
    path.write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    with pytest.raises(ImageError, match="incomplete"):
        read_image(path)


def test_a_thumbnail_in_exif_is_no_scan(tmp_path):
    path, grey = tmp_path / "a.jpg", Image.new("RGB", (40, 30), (128, 128, 128))
    whole = saved(grey, "JPEG")
    thumbnail = b"Exif\0\0" + saved(grey.resize((8, 8)), "JPEG")
    path.write_bytes(whole[:20] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + whole[20:])
    assert np.array_equal(read_image(path), grey)


def tall_png(pixels, rows, depth=8, colour=0, interlaced=False):
    "A grey PNG, or one of another colour type, that promises more rows than it holds."
    steps = images._ADAM7 if interlaced else ((0, 0, 1, 1),)
    parts = [b"\0" + np.ascontiguousarray(row).tobytes() for x, y, dx, dy in steps for row in pixels[y::dy, x::dx] if row.size]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0] + rows, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(parts))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("depth", "colour", "channels"), [(8, 0, 1), (16, 0, 1), (8, 2, 3), (8, 4, 2), (8, 6, 4)])
def test_png_without_its_last_rows_is_refused_and_a_black_edge_is_not(tmp_path, interlaced, depth, colour, channels):
    path = tmp_path / "a.png"
    for height, width in ((30, 40), (9, 13), (2, 3), (1, 1)):
        pixels = np.random.default_rng(2).integers(0, 256, (height, width, channels * depth // 8), np.uint8)
        if channels in (2, 4):
            pixels[..., -1] = 255
        for whole in (pixels, pixels * np.uint8(0)):
            path.write_bytes(tall_png(whole, 0, depth, colour, interlaced))
            shown = np.full_like(whole, 255) if channels in (2, 4) and not whole.any() else whole
            shown = shown[..., :1] if channels < 3 else shown[..., :3]
            assert np.array_equal(read_image(path), np.broadcast_to(shown, (height, width, 3)))
        path.write_bytes(tall_png(pixels, 20, depth, colour, interlaced))
        with pytest.raises(ImageError, match="incomplete" if not interlaced else "incomplete|decoded"):
            read_image(path)


# --- The depth of grey, and orientation without compression ---------------------------------------------------------------


def tiff(pixels, bits=16, orientation=1, sample_format=1, photometric=1, data=None):
    "A grey TIFF without compression."
    data = pixels.tobytes() if data is None else data
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 14 + 12 * 11, 274: orientation, 277: 1, 278: height,
            279: len(data), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (256, 257, 273, 278, 279) else 3, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + data


def test_grey_tiff_without_compression_is_turned(tmp_path):
    path, pixels = tmp_path / "a.tif", np.arange(32, dtype=np.uint8).reshape(4, 8)
    for value, shown in {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T, 6: np.rot90(pixels, 3),
                         7: pixels[::-1, ::-1].T, 8: np.rot90(pixels)}.items():
        path.write_bytes(tiff(pixels, 8, value))
        assert np.array_equal(np.asarray(read_image(path))[..., 0], shown), value
        assert np.array_equal(np.asarray(upright_rgb(Image.open(path)))[..., 0], shown), value
        path.write_bytes(tiff(pixels.astype(np.uint16) << 8, 16, value))
        assert np.array_equal(np.asarray(read_image(path))[..., 0], shown), value


def test_grey_keeps_the_scale_of_its_file(tmp_path):
    path, full = tmp_path / "a", np.array([[0, 200, 255, 256, 40_000, 65_535]], np.uint16)
    high = [0, 0, 0, 1, 156, 255]
    for data, shown in (
        (b"P5 6 1 65535\n" + full.byteswap().tobytes(), high),
        (b"P5 3 1 65535\n" + full[:, :3].byteswap().tobytes(), high[:3]),
        (b"P5 2 1 1000\n" + np.array([0, 500], ">u2").tobytes(), [0, 128]),
        (b"P2 3 1 65535\n0 200 65535\n", [0, 0, 255]),
        (saved(Image.fromarray(full[:, :3]), "PNG"), high[:3]),
        (saved(Image.fromarray(full[:, :3]), "TIFF"), high[:3]),
        (saved(Image.fromarray(full), "TIFF", compression="tiff_lzw"), high),
        (tiff(np.array([[0, 200, 32_767]], np.int16), sample_format=2), [0, 0, 127]),
        (tiff(full, photometric=0), [255, 255, 255, 254, 99, 0]),  # The lowest value is white
        (tiff(np.zeros((1, 2)), 12, data=bytes.fromhex("fff080")), [255, 8]),  # 4095 and 128 of 12 bits
        (tiff(np.array([[0, 9, 255]], np.int32), 32, sample_format=2), [0, 9, 255]),  # Nothing says how deep: the values do
        (tiff(np.array([[0, 256, 65_535]], np.int32), 32, sample_format=2), [0, 1, 255]),
    ):
        path.write_bytes(data)
        assert np.asarray(read_image(path))[0, :, 0].tolist() == shown, data[:20]
    for outside in (-5, 70_000):
        path.write_bytes(tiff(np.array([[0, outside]], np.int32), 32, sample_format=2))
        with pytest.raises(ImageError, match=f"{outside}.*expected 8 or 16 bits"):
            read_image(path)


def test_transparent_grey_of_sixteen_bits_is_white(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(saved(Image.fromarray(np.array([[0, 1000, 40_000]], np.uint16)), "PNG", transparency=1000))
    assert np.asarray(read_image(path))[0, :, 0].tolist() == [0, 255, 156]


def test_bands_change_nothing():
    rng = np.random.default_rng(1)
    glass = Image.fromarray(rng.integers(0, 256, (900, 3000, 4), np.uint8))
    assert len(list(images._bands(glass.size))) == 2
    assert np.array_equal(to_rgb(glass), Image.alpha_composite(Image.new("RGBA", glass.size, "white"), glass).convert("RGB"))
    deep = rng.integers(0, 65536, (900, 3000), np.uint16)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(deep)))[..., 0], deep >> 8)


# --- Files that are not opened, and limits ----------------------------------------------------------------------------------


def test_only_ordinary_files_are_opened(tmp_path, monkeypatch):
    pipe, gone, folder, photo = tmp_path / "pipe.jpg", tmp_path / "gone.jpg", tmp_path / "folder.jpg", tmp_path / "photo.png"
    os.mkfifo(pipe)
    gone.symlink_to("nowhere.jpg")
    folder.mkdir()
    save(photo, Image.fromarray(NOISE))
    loop = tmp_path / "loop.jpg"
    loop.symlink_to("loop.jpg")
    link = tmp_path / "link.png"
    link.symlink_to("photo.png")
    special = "a device, a pipe or a socket; expected an image file"
    for path, reason in (
        (pipe, special),
        (Path("/dev/null"), special),
        (folder, "a folder; expected an image file"),
        (gone, "a link to a file that is not there"),
        (loop, "cannot be read (Too many levels of symbolic links)"),
        (tmp_path / "none.jpg", "no such file"),
        (photo / "inside.jpg", "no such file"),
    ):
        for read in (read_image, read_header):
            with pytest.raises(ImageError) as error:
                read(path)
            assert error.value.reason == reason
    assert np.array_equal(read_image(link), NOISE)
    about = photo.stat()
    monkeypatch.setattr(Path, "stat", lambda self, **_: about)  # It was a file a moment ago
    with pytest.raises(ImageError, match="pipe.jpg: a device, a pipe or a socket"):
        read_image(pipe)


@pytest.mark.parametrize(("kind", "limit"), [("WEBP", 192), ("AVIF", 192), ("PNG", 400), ("JPEG", 400), ("TIFF", 400), ("GIF", 400)])
def test_huge_files_are_refused_before_they_are_read(tmp_path, kind, limit):
    path = tmp_path / f"huge.{kind.lower()}"
    path.write_bytes(saved(Image.fromarray(NOISE), kind))
    os.truncate(path, 3_000_000_000)  # Sparse: nothing is written
    tracemalloc.start()
    for read in (read_image, read_header):
        with pytest.raises(ImageError, match=f"the file has 3,000 MB; at most {limit} MB are read"):
            read(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_long_metadata_are_not_held(tmp_path):
    path, whole = tmp_path / "a.png", saved(Image.fromarray(NOISE), "PNG")
    with open(path, "wb") as file:
        file.write(whole[:33] + struct.pack(">I", 100_000_000) + b"tEXt")
        file.seek(100_000_004, os.SEEK_CUR)
        file.write(whole[33:])
    tracemalloc.start()
    assert np.array_equal(read_image(path), NOISE)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_sixteen_megapixels_take_ten_bytes_a_pixel_at_most(tmp_path):
    size = (4000, 4000)
    for name, image, options in (
        ("a.jpg", Image.new("RGB", size, RED), {}),
        ("turned.jpg", Image.new("RGB", size, RED), {"exif": orientation(6)}),
        ("glass.png", Image.new("RGBA", size, (255, 0, 0, 90)), {"compress_level": 1}),
        ("deep.png", Image.fromarray(np.full(size[::-1], 40_000, np.uint16)), {"compress_level": 1}),
        ("print.jpg", Image.new("CMYK", size), {}),
    ):
        save(tmp_path / name, image, **options)
        program = ("import resource, sys; from deepfake_nbs.images import read_image; "
                   "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024; "
                   "before = most(); read_image(sys.argv[1]); print(most() - before)")
        peak = int(subprocess.run([sys.executable, "-c", program, tmp_path / name], capture_output=True, text=True, check=True).stdout)
        assert peak < 10 * 16_000_000, (name, peak)


# --- What a file says without its pixels --------------------------------------------------------------------------------------


def portrait(path):
    "A JPEG that holds two images, as telephones save them."
    Image.fromarray(NOISE).save(path, "MPO", save_all=True, append_images=[Image.fromarray(NOISE)])
    return path


def test_the_format_of_every_image_is_known(tmp_path):
    from deepfake_nbs.baselines.controls import FileProperties
    from deepfake_nbs.datasets import _look
    from deepfake_nbs.files import image_suffixes, looks_like_image

    broken = tmp_path / "no ending"
    broken.write_bytes(with_chunks(saved(Image.fromarray(NOISE), "PNG"), before=chunk(b"gAMA", b"\0")))
    for path, kind in ((portrait(tmp_path / "a.mpo"), "MPO"), (portrait(tmp_path / "a.jpg"), "MPO"), (broken, "PNG"),
                       *((save(tmp_path / f"b.{kind.lower()}", Image.fromarray(NOISE)), kind) for kind in images.IMAGE_FORMATS)):
        header = read_header(path)
        assert (header.width, header.height, header.format, header.n_bytes) == (40, 30, kind, path.stat().st_size)
        assert read_image(path).format == kind and looks_like_image(path)
        note = _look(path)
        assert (note["width"], note["height"], note["format"]) == (40, 30, kind)
        facts = FileProperties().describe(path)
        assert facts[:3].tolist() == [40, 30, 40 / 30] and facts[4:-128].tolist() == [name == kind for name in images.KNOWN_FORMATS]
        assert bool(facts[-128:].any()) == (kind in ("JPEG", "MPO"))
    assert {".mpo", ".jpg", ".png"} <= image_suffixes()


# --- The collection of awkward inputs -----------------------------------------------------------------------------------------

CASES = Path(__file__).resolve().parents[3] / "shared/cases/images"
RED_CASE = (200, 30, 30)
READ = {  # Size, mean colour
    "actl_cut.png": ((40, 30), RED_CASE), "chrm_cut.png": ((40, 30), RED_CASE), "gama_cut.png": ((40, 30), RED_CASE),
    "phys_cut.png": ((40, 30), RED_CASE), "srgb_empty.png": ((40, 30), RED_CASE), "iccp_method9.png": ((40, 30), RED_CASE),
    "text_crc.png": ((40, 30), RED_CASE), "exif_garbage.png": ((40, 30), RED_CASE), "exif_garbage.webp": ((40, 30), RED_CASE),
    "exif_raw_odd.png": ((40, 30), RED_CASE), "exif_short.png": ((40, 30), RED_CASE),
    "adobe_cut.jpg": ((256, 256), (121.6, 109.6, 92.0)), "dark16.pgm": ((40, 30), (0, 0, 0)),
    "jpg-mpo.jpg": ((256, 192), (112.6, 101.2, 84.0)), "png-long-icc.png": ((256, 192), (112.6, 101.2, 84.0)),
    "png-long-text.png": ((256, 192), (112.6, 101.2, 84.0)), "png-rawprofile-broken.png": ((256, 192), (112.6, 101.2, 84.0)),
    "orient6_grey_uncompressed.tif": ((4, 8), (15.5, 15.5, 15.5)),
}


@pytest.mark.skipif(not CASES.is_dir(), reason="the collection of awkward inputs is not here")
def test_collection_of_awkward_inputs():
    for name, (size, colour) in READ.items():
        image = read_image(CASES / name)
        assert image.size == size and np.abs(np.asarray(image).mean((0, 1)) - colour).max() < 1, name
    turned = np.asarray(read_image(CASES / "orient6_grey_uncompressed.tif"))[..., 0]
    assert np.array_equal(turned, np.rot90(np.arange(32).reshape(4, 8), 3))
    for name in ("sof_taller.jpg", "sof_7000.jpg"):
        with pytest.raises(ImageError, match=f"{name}: incomplete"):
            read_image(CASES / name)
    assert {path.name for path in CASES.iterdir()} >= {*READ, "sof_taller.jpg", "sof_7000.jpg"}
