"""Building, searching and appending: files and folders as they come."""

from pathlib import Path
import math
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from helpers.retrieval_data import THUMBNAIL, TOY, draw, half_fake, names

from deepfake_nbs.images import ImageError
from deepfake_nbs.retrieval.evaluation import evaluate, original_task, person_task
from deepfake_nbs.retrieval import features, search
from deepfake_nbs.retrieval import index as vector_index
from deepfake_nbs.retrieval.features import extract, list_pool, make_feature
from deepfake_nbs.retrieval.index import KINDS, TooFewVectors, learned_axes, make_index
from deepfake_nbs.retrieval.search import append_index, build_index, find_gone, find_similar
from deepfake_nbs.retrieval.store import open_index, save_index

ROOT = Path(__file__).resolve().parents[2]


def test_an_image_without_contrast_comes_first_for_nobody(own, tmp_path):
    Image.new("RGB", (48, 40), (90, 90, 90)).save(own / "zz.png")
    phash = make_feature("phash")
    with pytest.warns(
        UserWarning, match="1 of 13 files cannot be read and are left out .zz.png: no contrast"
    ):
        index = build_index(phash, own, tmp_path / "index", similarity="euclidean", progress=False)
    assert len(index) == 12 and "zz.png" not in set(index.rows.path)
    with pytest.warns(UserWarning, match="zz.png: no contrast.*nothing is found for it"):
        assert set(find_similar(index, phash, [own / "zz.png", own / "00.png"], k=3)["query"]) == {
            str(own / "00.png")
        }
    df = half_fake(own, 13)
    with pytest.warns(UserWarning, match="zz.png: no contrast"):
        scores = evaluate(original_task(df, own, 0), phash, tmp_path / "scratch")
    assert len(scores) == 6 * 2 * 3 and not any(
        12 in top for top in scores.top
    )  # Three similarities, two pools
    blank = scores[scores.path.eq("zz.png")]
    assert (
        blank["first_hit_rank"].eq(math.inf).all()
        and blank["ap"].eq(0).all()
        and not any(blank.top)
        and len(blank) == 6
    )


def test_a_manifest_is_checked_and_its_empty_hashes_are_filled_in(pool, built, tmp_path):
    rows = list_pool(pool)
    empty = rows.assign(sha256=[None, "", *rows.sha256[2:]])
    index = build_index(THUMBNAIL, pool, tmp_path / "filled", empty, progress=False)
    assert index.rows.equals(built.rows) and index.config["plan"] == built.config["plan"]
    for action in (build_index, lambda *place: append_index(place[2], *place[:2], place[3])):
        with pytest.raises(ValueError, match="the manifest has no column sha256; expected path and sha256"):
            action(THUMBNAIL, pool, built.folder, rows[["path"]])
        with pytest.raises(ValueError, match="03.png stands in the manifest twice"):
            action(THUMBNAIL, pool, built.folder, pd.concat([rows, rows[3:4]]))
    append_index(built.folder, THUMBNAIL, pool, empty, progress=False)
    assert open_index(built.folder).rows.equals(index.rows)


def test_a_query_is_excluded_by_its_bytes_not_by_its_name(own, tmp_path):
    shutil.copy(own / "03.png", own / "another-name.png")
    (tmp_path / "elsewhere").mkdir()
    draw(tmp_path / "elsewhere" / "03.png", 99)
    index = build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    with warnings.catch_warnings(action="ignore"):
        found = find_similar(index, THUMBNAIL, [own / "03.png"], k=50)
        other = find_similar(index, THUMBNAIL, [tmp_path / "elsewhere" / "03.png"], k=50)
    assert len(found) == 11 and not {"03.png", "another-name.png"} & set(found.path)
    assert len(other) == 13 and "03.png" in set(other.path)


def test_a_query_that_is_no_image_is_named(built, tmp_path):
    (tmp_path / "query.png").write_text("hello")
    with pytest.raises(ImageError, match="query.png: not an image"):
        find_similar(built, THUMBNAIL, [tmp_path / "query.png"])
    with pytest.raises(ImageError, match="absent.png: no such file"):
        find_similar(built, THUMBNAIL, [tmp_path / "absent.png"])


def test_appending_equals_building_at_once(pool, tmp_path):
    rows = list_pool(pool)
    for similarity in ("cosine", "euclidean"):
        whole = build_index(
            THUMBNAIL, pool, tmp_path / f"whole-{similarity}", similarity=similarity, progress=False
        )
        part = tmp_path / f"part-{similarity}"
        build_index(THUMBNAIL, pool, part, rows[:5], similarity, progress=False)
        append_index(part, THUMBNAIL, pool, rows[5:9], progress=False)
        grown = append_index(part, THUMBNAIL, pool, rows, progress=False)
        assert grown.rows.equals(whole.rows)
        names = [path.name for path in (part).glob("*.faiss")]
        assert len(names) == 1  # The earlier generations are gone
        one, two = (
            (part / names[0]).read_bytes(),
            next((tmp_path / f"whole-{similarity}").glob("*.faiss")).read_bytes(),
        )
        assert one == two


def test_an_index_that_is_there_is_not_computed_again(pool, built, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "extract", lambda *args, **kwargs: pytest.fail("computed again"))
    again = build_index(THUMBNAIL, pool, tmp_path / "index", progress=False)
    assert again.config["generation"] == built.config["generation"]


def test_an_approximate_index_keeps_its_recall(pool, tmp_path):
    index = build_index(THUMBNAIL, pool, tmp_path / "index", kind="hnsw", progress=False)
    assert index.config["recall_at_10"] == 1.0
    with pytest.raises(ValueError, match="ivfpq: 12 different vectors; expected at least 1000"):
        build_index(THUMBNAIL, pool, tmp_path / "other", kind="ivfpq", progress=False)
    assert not (tmp_path / "other" / "config.json").exists()
    rows = list_pool(pool)
    build_index(THUMBNAIL, pool, tmp_path / "grown", rows[:8], kind="hnsw", progress=False)
    grown = append_index(tmp_path / "grown", THUMBNAIL, pool, progress=False)
    assert (
        grown.config["kind"] == "hnsw" and grown.config["recall_at_10"] == 1.0
    )  # Measured again, on all twelve


def test_an_empty_pool(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no images in this folder"):
        build_index(THUMBNAIL, tmp_path / "empty", tmp_path / "index", progress=False)
    with pytest.raises(ValueError, match="the pool is empty"):
        build_index(THUMBNAIL, tmp_path, tmp_path / "index", names(0), progress=False)
    with pytest.raises(ValueError, match="0 vectors and 0 rows; expected at least one image"):
        make_index(np.empty((0, 32)), names(0), TOY)
    assert not (tmp_path / "index" / "config.json").exists()


def test_unreadable_files_are_left_out_and_named(own, tmp_path):
    (own / "03.png").write_text("no image")
    (own / "04.png").write_bytes(b"")
    with pytest.warns(
        UserWarning,
        match="2 of 12 files cannot be read and are left out .03.png: not an image.*04.png: the file is empty",
    ):
        index = build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    assert len(index) == 10 and "03.png" not in set(index.rows.path)
    assert pd.read_csv(tmp_path / "index" / "rejected.csv").path.tolist() == ["03.png", "04.png"]
    for path in own.iterdir():
        path.write_text("no image")
    with pytest.raises(ValueError, match="the pool is empty, 12 files cannot be read .00.png: not an image"):
        build_index(THUMBNAIL, own, tmp_path / "other", progress=False)


def test_what_cannot_be_read_is_told_again_by_an_index_that_is_there(own, tmp_path):
    (own / "03.png").write_text("no image")
    for _ in range(2):
        with pytest.warns(
            UserWarning, match="1 of 12 files cannot be read and are left out .03.png: not an image"
        ):
            build_index(THUMBNAIL, own, tmp_path / "index", progress=False)


def test_a_link_to_nothing_is_a_rejected_row_and_a_name_that_is_no_text_is_a_name(own, tmp_path):
    (own / "link.png").symlink_to(own / "gone")
    shutil.copy(own / "00.png", os.fsencode(own) + b"/bad\xff.png")
    with pytest.warns(UserWarning, match=r"1 of 14 files.*link.png: a link to a file that is not there"):
        index = build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    assert len(index) == 13 and index.config["n_rejected"] == 1 and "bad\udcff.png" in set(index.rows.path)
    assert pd.read_csv(tmp_path / "index" / "rejected.csv").path.tolist() == ["link.png"]


def test_an_append_keeps_what_it_could_not_read(own, tmp_path):
    folder = tmp_path / "index"
    (own / "00.png").write_text("no image")
    with pytest.warns(UserWarning, match="00.png: not an image"):
        build_index(THUMBNAIL, own, folder, list_pool(own)[:6], progress=False)
    (own / "11.png").write_text("no image")
    for added in (6, 0):  # The second time there is nothing but what cannot be read
        with pytest.warns(
            UserWarning, match=f"2 of {added + 1 if added else 2} files cannot be read.*00.png.*11.png"
        ):
            index = append_index(folder, THUMBNAIL, own, progress=False)
        assert len(index) == 10 and index.config["n_rejected"] == 2
        assert pd.read_csv(folder / "rejected.csv").path.tolist() == ["00.png", "11.png"]
    generation = index.config["generation"]
    (own / "12.png").write_text("no image")
    with pytest.warns(UserWarning, match="3 of 3 files"):
        index = append_index(folder, THUMBNAIL, own, progress=False)
    assert index.config["n_rejected"] == 3 and index.config["generation"] == generation
    draw(own / "00.png", 0)
    with pytest.warns(UserWarning, match="2 of 3 files"):
        index = append_index(folder, THUMBNAIL, own, progress=False)
    assert len(index) == 11 and pd.read_csv(folder / "rejected.csv").path.tolist() == ["11.png", "12.png"]


def test_an_append_from_another_root_is_refused(own, built, tmp_path):
    with pytest.raises(
        ValueError,
        match=f"its paths count from .*, not from {own}; expected the folder that it was built from",
    ):
        append_index(built.folder, THUMBNAIL, own, progress=False)
    (tmp_path / "link").symlink_to(built.folder)
    assert len(append_index(tmp_path / "link", THUMBNAIL, built.root, progress=False)) == 12


def test_an_index_like_another_one_is_built_again_for_a_third(tmp_path, pool):
    rows = list_pool(pool)
    first, second = (
        build_index(THUMBNAIL, pool, tmp_path / f"{i}", rows[i : i + 6], "whitened", progress=False)
        for i in (0, 6)
    )
    one = build_index(THUMBNAIL, pool, tmp_path / "part", rows[3:9], "whitened", like=first, progress=False)
    two = build_index(THUMBNAIL, pool, tmp_path / "part", rows[3:9], "whitened", like=second, progress=False)
    assert one.config["plan"]["like"] != two.config["plan"]["like"] and learned_axes(two) == learned_axes(
        second
    ) != learned_axes(first)
    same = build_index(THUMBNAIL, pool, tmp_path / "part", rows[3:9], "whitened", like=second, progress=False)
    assert same.config["generation"] == two.config["generation"]


def test_images_that_are_gone_or_changed_are_named(own, tmp_path):
    index = build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    (own / "07.png").unlink()
    with pytest.warns(UserWarning, match="1 images were found that are no longer on disk .07.png"):
        found = find_similar(index, THUMBNAIL, [own / "00.png"], k=11)
    assert (
        len(found) == 10 and "07.png" not in set(found.path) and found["rank"].tolist() == list(range(1, 11))
    )
    draw(own / "01.png", 77)
    with pytest.raises(ValueError, match="01.png is in the index with other bytes"):
        append_index(tmp_path / "index", THUMBNAIL, own, progress=False)


def test_two_processes_that_append_at_once(own, tmp_path):
    rows = list_pool(own)
    build_index(THUMBNAIL, own, tmp_path / "index", rows[:2], progress=False)
    code = """
        import sys
        from deepfake_nbs.retrieval.features import list_pool, make_feature
        from deepfake_nbs.retrieval.search import append_index
        pool, index, first, step = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
        rows = list_pool(pool)
        for i in range(first, 12, step):
            append_index(index, make_feature("thumbnail"), pool, rows[i : i + 1], progress=False)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(own), str(tmp_path / "index")]
    both = [subprocess.Popen([*command, str(first), "2"], cwd=ROOT) for first in (2, 3)]
    assert [process.wait() for process in both] == [0, 0]
    index = open_index(tmp_path / "index", THUMBNAIL)
    assert sorted(index.rows.path) == rows.path.tolist()
    vectors, _ = extract(THUMBNAIL, [own / path for path in index.rows.path], progress=False)
    np.testing.assert_array_equal(index.search(vectors, 1)[1][:, 0], np.arange(12))


def test_of_two_that_build_at_once_one_computes(pool, tmp_path, monkeypatch):
    calls, started = [], threading.Event()

    def slowly(*args, **kwargs):
        calls.append(args)
        started.set()
        time.sleep(0.5)
        return extract(*args, **kwargs)

    monkeypatch.setattr(features, "extract", slowly)
    with ThreadPoolExecutor(2) as threads:
        build = partial(build_index, THUMBNAIL, pool, tmp_path / "index", progress=False)
        first = threads.submit(build)
        started.wait()
        second = threads.submit(build)
        assert len(first.result()) == len(second.result()) == 12
    assert len(calls) == 1 and not (tmp_path / ".index.vectors").exists()


@pytest.mark.parametrize("pixel", [0, 7, 200])
def test_copies_of_one_image_have_a_whitened_similarity_of_0(pixel, tmp_path):
    (tmp_path / "pool").mkdir()
    for i in range(6):
        Image.new("RGB", (20, 20), (pixel, 90, 31)).save(tmp_path / "pool" / f"c{i}.png")
    draw(tmp_path / "other.png", 5)
    with pytest.warns(UserWarning, match="the 6 vectors do not differ, so every similarity is 0"):
        index = build_index(
            THUMBNAIL, tmp_path / "pool", tmp_path / "index", similarity="whitened", progress=False
        )
    found = find_similar(index, THUMBNAIL, [tmp_path / "other.png"], 6)
    assert found["score"].tolist() == [0] * 6


def test_the_copies_among_the_shared_cases_are_never_nan(tmp_path):
    folder = ROOT.parent / "shared" / "cases" / "whitened-copies"
    if not folder.is_dir():
        pytest.skip("../shared/cases is not on this machine")
    with pytest.warns(UserWarning, match="do not differ"):
        index = build_index(THUMBNAIL, folder, tmp_path / "index", similarity="whitened", progress=False)
    vectors, _ = extract(THUMBNAIL, sorted(folder.glob("*.png")), progress=False)
    assert (index.search(vectors, 6)[0] == 0).all()


@pytest.mark.parametrize("similarity", ["cosine", "euclidean", "whitened"])
@pytest.mark.parametrize("n", [1, 2])
def test_a_pool_of_one_or_two_images(n, similarity, tmp_path):
    (tmp_path / "pool").mkdir()
    for i in range(n):
        draw(tmp_path / "pool" / f"{i}.png", i)
    draw(tmp_path / "query.png", 9)
    build = partial(
        build_index, THUMBNAIL, tmp_path / "pool", tmp_path / "index", similarity=similarity, progress=False
    )
    if similarity == "whitened":
        with pytest.raises(TooFewVectors, match=f"whitened: {n} vectors of 768 numbers; expected at least 3"):
            build()
        return
    with pytest.warns(UserWarning, match="k is 5"):
        found = find_similar(build(), THUMBNAIL, [tmp_path / "query.png", tmp_path / "pool" / "0.png"], 5)
    assert [
        len(found[found["query"].eq(str(path))])
        for path in (tmp_path / "query.png", tmp_path / "pool" / "0.png")
    ] == [n, n - 1]
    assert np.isfinite(found["score"]).all()


def test_an_approximate_index_that_loses_too_much_is_kept_as_an_exact_one(tmp_path, monkeypatch):
    (tmp_path / "pool").mkdir()
    x, rows = (
        np.random.default_rng(0).normal(size=(1500, 32)).astype(np.float32),
        names(1500),
    )  # Neighbours in every cell
    nothing = pd.DataFrame(dict(path=[], reason=[]))
    monkeypatch.setattr(
        search, "pool_vectors", lambda feature, pool, root, **how: (x, pool[["path", "sha256"]], nothing)
    )
    monkeypatch.setattr(vector_index, "KINDS", KINDS | dict(ivfpq="IVF64,PQ4x4fs,RFlat"))
    monkeypatch.setattr(vector_index, "set_search_effort", lambda index, kind: index)  # One cell of 64
    for similarity in ("cosine", "euclidean", "whitened"):
        build = partial(
            build_index,
            TOY,
            tmp_path / "pool",
            tmp_path / similarity,
            rows,
            similarity,
            "ivfpq",
            progress=False,
        )
        said = (
            r"ivfpq finds 0.\d+ of what exact search finds.*: less than 0.9, so an exact index .flat. is kept"
        )
        with pytest.warns(UserWarning, match=said):
            index = build()
        exact = make_index(x, rows, TOY, similarity)
        refused = index.config["refused"]
        assert index.config["kind"] == "flat" and "recall_at_10" not in index.config
        assert refused["kind"] == "ivfpq" and min(refused["recall_at_10"], refused["recall_of_itself"]) < 0.9
        np.testing.assert_array_equal(index.search(x[:9], 10)[1], exact.search(x[:9], 10)[1])
        with pytest.warns(UserWarning, match="ivfpq finds 0"):  # Said again, and not built again
            assert build().config["generation"] == index.config["generation"]


ODD_NAMES = [
    b"NA",
    b"null.png",
    b"nan.png",
    b"None",
    b"007",
    b"c\rr.png",
    b"l\nf.png",
    b'q"q,q.png',
    b" blank .png",
    b"\x01.png",
    b"\x1b[2J.png",
    b"Caf\xe9.png",
    "\u202egpj.png".encode(),
    "写真.png".encode(),
]


def test_every_name_that_a_file_may_have_comes_back_from_an_index(tmp_path):
    pool, folder = os.fsencode(tmp_path / "pool"), tmp_path / os.fsdecode(b"index \xff\n")
    os.mkdir(pool)
    for i, name in enumerate(ODD_NAMES):
        with open(os.path.join(pool, name), "wb") as file:
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (9, 9, 3), np.uint8)).save(file, "PNG")
    expected = sorted(map(os.fsdecode, ODD_NAMES))
    rows = list_pool(tmp_path / "pool")
    build_index(THUMBNAIL, tmp_path / "pool", folder, rows[:9], progress=False)
    append_index(folder, THUMBNAIL, tmp_path / "pool", progress=False)
    index = open_index(folder, THUMBNAIL, verify=True)
    assert index.rows.path.tolist() == expected and rows.path.tolist() == expected
    found = find_similar(index, THUMBNAIL, [tmp_path / "pool" / expected[0]], len(ODD_NAMES) - 1)
    assert sorted(found.path) == expected[1:]
    (tmp_path / "pool" / "l\nf.png").write_text("no image")
    with pytest.warns(UserWarning, match=r"l\\nf.png: not an image"):  # Spelled out
        again = build_index(THUMBNAIL, tmp_path / "pool", folder, progress=False)
    assert again.rejected.path.tolist() == ["l\nf.png"]


def test_a_folder_is_walked_as_by_every_command(pool, tmp_path):
    folder = tmp_path / "folder"
    (folder / "__MACOSX").mkdir(parents=True)
    (folder / ".ipynb_checkpoints").mkdir()
    for name in (
        "a.png",
        "._a.png",
        "__MACOSX/a.png",
        ".ipynb_checkpoints/a.png",
        "B.MPO",
        "c.jfif",
        "d",
        "e.jpg_large",
    ):
        image = Image.open(pool / "00.png").rotate(5 * len(name))
        image.save(folder / name, "PNG" if name.endswith("png") else "JPEG")
    (folder / "linked").symlink_to(pool)
    (folder / "circle").symlink_to(folder)
    for name in ("pipe.png", "pipe"):
        os.mkfifo(folder / name)
    (folder / "dangling.jpg").symlink_to(folder / "nowhere")
    for name in ("film.mp4", "letter.txt", "photo.heic"):
        (folder / name).write_bytes(b"something else")
    with pytest.warns(UserWarning) as told:
        index = build_index(THUMBNAIL, folder, tmp_path / "index", progress=False)
    said = "\n".join(str(one.message) for one in told)
    assert index.rows.path.tolist() == [
        "B.MPO",
        "a.png",
        "c.jfif",
        "d",
        "e.jpg_large",
        *(f"linked/{i:02d}.png" for i in range(12)),
    ]
    assert (
        index.rejected.path.tolist() == ["dangling.jpg", "pipe", "pipe.png"]
        and "3 of 20 files cannot be read" in said
    )
    assert "1 video (film.mp4) and 2 files that are no images (1 .txt, 1 .heic) left out" in said


def test_a_pipe_in_a_manifest_is_never_opened(own, tmp_path):
    os.mkfifo(own / "pipe.png")
    (own / "folder").mkdir()
    manifest = pd.DataFrame(dict(path=["00.png", "folder", "pipe.png"], sha256=""))
    with pytest.warns(
        UserWarning,
        match="2 of 3 files cannot be read .*folder: a folder; pipe.png: a device, a pipe or a socket",
    ):
        index = build_index(THUMBNAIL, own, tmp_path / "index", manifest, progress=False)
    assert index.rows.path.tolist() == ["00.png"]
    person = pd.DataFrame(
        dict(path=["00.png", "01.png", "pipe.png"], sha256="", label=0, video="", group="NA", method="none")
    )
    with pytest.warns(UserWarning, match="pipe.png: a device"):
        assert person_task(person, own).pool.path.tolist() == ["00.png", "01.png"]


def test_a_folder_without_a_readable_image_is_refused_by_name(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "film.mp4").touch()
    with pytest.raises(ValueError, match="folder: no images in this folder; 1 video .film.mp4. left out"):
        build_index(THUMBNAIL, folder, tmp_path / "index", progress=False)
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(ValueError, match="the pool is empty, 1 files cannot be read .pipe.png: a device"):
        build_index(THUMBNAIL, folder, tmp_path / "index", progress=False)
    with pytest.raises(NotADirectoryError, match="nowhere: no such folder"):
        build_index(THUMBNAIL, tmp_path / "nowhere", tmp_path / "index", progress=False)
    assert not (tmp_path / "index" / "config.json").exists()


def test_an_index_that_may_not_be_written(own, tmp_path, monkeypatch):
    index = build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert len(build_index(THUMBNAIL, own, tmp_path / "index", progress=False)) == 12  # Nothing has changed
    draw(own / "new.png", 40)
    monkeypatch.setattr(features, "extract", lambda *args, **kwargs: pytest.fail("computed in vain"))
    said = "its images have changed since it was made, and .*/index may not be written; .*: `deepfake-nbs index .*/pool NEW_INDEX`"
    with pytest.raises(PermissionError, match=said):
        build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    for action in (
        lambda: append_index(index.folder, THUMBNAIL, own),
        lambda: save_index(index, tmp_path / "new"),
    ):
        with pytest.raises(PermissionError, match="may not be written; index the images into another folder"):
            action()
    assert not (tmp_path / "new").exists()


def test_an_image_that_is_gone_or_another_one_leaves_its_place_to_the_next(own, tmp_path):
    index = build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    before = find_similar(index, THUMBNAIL, [own / "00.png"], 11).path.tolist()
    (own / before[0]).unlink()
    draw(own / before[1], 77)
    with pytest.warns(UserWarning, match="2 images were found that are no longer on disk") as told:
        found = find_similar(index, THUMBNAIL, [own / "00.png"], 3)
    assert found.path.tolist() == before[2:5] and f"`deepfake-nbs index {own} {index.folder}`" in str(
        told[0].message
    )
    assert find_gone(index) == [int(before[0][:2])] and len(index.stale) == 2


def test_a_killed_build_leaves_nothing_that_is_taken_for_whole_and_is_resumed(pool, tmp_path):
    code = """
        import os, signal, sys
        import deepfake_nbs.retrieval.features as features
        from deepfake_nbs.retrieval.search import build_index
        from functools import partial
        feature, read, read_chunks = features.make_feature("thumbnail"), features.extract, features.extract_parallel
        done = []
        def extract(*args, **kwargs):
            if len(done) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            done.append(args)
            return read(*args, **kwargs)
        features.extract, features.extract_parallel = extract, partial(read_chunks, chunk_size=4)
        try:
            build_index(feature, sys.argv[1], sys.argv[2], progress=False)
        except KeyboardInterrupt:
            print(len(done))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), pool, tmp_path / "index"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() in ("2", "3") and len(list((tmp_path / ".index.vectors").glob("*.npy"))) >= 2
    with pytest.raises(FileNotFoundError, match="never finished"):
        open_index(tmp_path / "index")
    code = textwrap.dedent(code.replace("len(done) == 2", "False")) + "\nprint(len(done))"
    again = subprocess.run(
        [sys.executable, "-c", code, pool, tmp_path / "index"], capture_output=True, text=True, cwd=ROOT
    )
    assert again.stdout.strip() in ("0", "1") and len(open_index(tmp_path / "index")) == 12
    assert not (tmp_path / ".index.vectors").exists()
