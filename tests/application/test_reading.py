"Reading photographs ahead, with bounded memory."

import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from PIL import Image

from deepfake_nbs.application.reading import Photo, batches_by_pixels, count_pixels, held_pixels
from deepfake_nbs.images import MAX_PIXELS, ImageError
from deepfake_nbs.parallel import parallel_map


def work_ahead(pool, work, items, n, pixels=None):
    "As the pipeline reads ahead."
    return parallel_map(work, items, pool=pool, read_ahead=n, weigh=pixels, most=MAX_PIXELS)


def test_nothing_is_worked_on_that_nobody_waits_for():
    done = []
    with ThreadPoolExecutor(1) as pool:
        results = work_ahead(pool, lambda i: time.sleep(0.05) or done.append(i), range(20), 8)
        next(results)
        results.close()
    assert len(done) <= 3

    def fail(i):
        raise ValueError(f"number {i}")

    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="number 0"):
        list(work_ahead(pool, fail, range(20), 8))


def test_memory_holds_a_few_photographs_whatever_the_folder(heads_run):
    alive, most = set(), [0]

    class Item:
        def __init__(self, i):
            self.i = i
            alive.add(i)
            most[0] = max(most[0], len(alive))

    reads = work_ahead(ThreadPoolExecutor(2), Item, range(200), 4)
    for photo in reads:
        alive.discard(photo.i)
    assert most[0] <= 8
    large = Photo("x", Image.new("L", (6000, 4000)))
    assert [len(batch) for batch in batches_by_pixels([large] * 5, 8)] == [2, 2, 1]


def test_large_photographs_are_not_decoded_ahead(tmp_path):
    started = []

    class Pool:
        def submit(self, call, work, items):
            started.append(*items)
            future = Future()
            future.set_result(call(work, items))
            return future

    for megapixels, ahead in (
        (1, 5),
        (20, 3),
        (40, 1),
        (64, 1),
        (300, 1),
    ):  # 64 are held at most, or one photograph
        started.clear()
        results = work_ahead(Pool(), int, range(20), 4, lambda i, n=megapixels: n * 1_000_000)
        assert next(results) == 0 and len(started) == ahead, megapixels
        assert list(results) == list(range(1, 20))
    Image.new("RGB", (300, 200)).save(tmp_path / "a.jpg")
    photo, broken = Photo("x", Image.new("L", (60, 40))), Photo("x", error=ImageError("x", "y"))
    assert [count_pixels(one) for one in (tmp_path / "a.jpg", tmp_path / "gone.jpg", photo.image)] == [
        60_000,
        0,
        2400,
    ]
    assert held_pixels([photo, broken, photo]) == 4800
