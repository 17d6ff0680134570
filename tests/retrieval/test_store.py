"""The index on disk: what breaks it, what is killed, shards."""

import fcntl
import gc
import json
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from helpers.retrieval_data import THUMBNAIL, TOY, cloud, draw, half_fake, names

from deepfake_nbs.files import folder_lock
from deepfake_nbs.retrieval import store
from deepfake_nbs.retrieval.evaluation import evaluate, original_task
from deepfake_nbs.retrieval.features import Feature, extract, list_pool, make_feature
from deepfake_nbs.retrieval.index import SKETCH_FROM, make_index
from deepfake_nbs.retrieval.search import append_index, build_index, find_gone, find_similar
from deepfake_nbs.retrieval.store import index_command, open_index, open_shards, remake_command, save_index

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind, n", [("flat", 300), ("hnsw", 300), ("ivfpq", 3000), ("flat", SKETCH_FROM)])
@pytest.mark.parametrize("mmap", [True, False])
def test_an_opened_index_answers_as_the_saved_one(kind, n, mmap, tmp_path):
    x = cloud(n)
    index = make_index(x, names(n), TOY, kind=kind)
    save_index(index, tmp_path / "index")
    opened = open_index(tmp_path / "index", TOY, mmap)
    for part in (x[:1], x[:40]):
        for one, two in zip(index.search(part, 7), opened.search(part, 7), strict=True):
            np.testing.assert_array_equal(one, two)
    assert opened.rows.equals(index.rows) and bool(opened.sketch) == (n == SKETCH_FROM)


def test_an_index_that_is_saved_elsewhere_still_finds_its_images(built, pool, tmp_path):
    moved = save_index(built, tmp_path / "a" / "deeper" / "place")
    assert moved.root == built.root == pool and len(find_similar(moved, THUMBNAIL, [pool / "00.png"], 3)) == 3


def test_a_reader_outlives_an_append(pool, tmp_path):
    rows = list_pool(pool)
    build_index(THUMBNAIL, pool, tmp_path / "index", rows[:5], progress=False)
    opened = open_index(tmp_path / "index")
    append_index(tmp_path / "index", THUMBNAIL, pool, progress=False)
    assert opened.rows.path.tolist() == rows.path[:5].tolist()
    vectors, _ = extract(THUMBNAIL, [pool / "02.png"], progress=False)
    assert opened.search(vectors, 1)[1].tolist() == [[2]]


HARMS = dict(
    cut=lambda folder: spoil(folder, "*.faiss", lambda data: data[:-50]),
    flip=lambda folder: spoil(folder, "rows-*", lambda data: data.replace(b"07.png", b"70.png")),
    not_text=lambda folder: spoil(folder, "rows-*", lambda data: data.replace(b"07.png", b"07\xffpng")),
    gone=lambda folder: next(folder.glob("*.faiss")).unlink(),
    config=lambda folder: spoil(folder, "config.json", lambda _: b"{"),
    version=lambda folder: spoil(
        folder, "config.json", lambda data: data.replace(b'"version": 2\n', b'"version": 1\n')
    ),
    word=lambda folder: spoil(folder, "config.json", lambda data: data.replace(b'"rows"', b'"rovs"')),
    metric=lambda folder: spoil(
        folder, "config.json", lambda data: data.replace(b': "cosine"', b': "euclidean"')
    ),
    dimension=lambda folder: spoil(
        folder, "config.json", lambda data: data.replace(b'"dimension": 768', b'"dimension": 767', 1)
    ),
)


def spoil(folder, pattern, harm):
    path = next(folder.glob(pattern))
    data = path.read_bytes()
    assert harm(data) != data
    path.unlink()  # The open index keeps its own
    path.write_bytes(harm(data))


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_index_is_refused_and_can_be_built_again(harm, built, pool):
    HARMS[harm](built.folder)
    with pytest.raises(
        (ValueError, FileNotFoundError), match="[Bb]uild (it|the index) again|No such file"
    ) as caught:
        open_index(built.folder)
    assert str(built.folder) in str(caught.value)
    with warnings.catch_warnings(action="ignore"):
        again = build_index(THUMBNAIL, pool, built.folder, progress=False)
    assert again.rows.equals(built.rows) and open_index(built.folder, THUMBNAIL, verify=True).rows.equals(
        built.rows
    )


def test_building_over_damage_says_so(built, pool):
    HARMS["config"](built.folder)
    with pytest.warns(UserWarning, match="config.json: not the config of an index.*It is built anew"):
        build_index(THUMBNAIL, pool, built.folder, progress=False)


def test_one_wrong_byte_of_a_vector_is_found_when_one_looks(built, pool):
    spoil(built.folder, "*.faiss", lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    open_index(built.folder)  # Size and kind are right
    with pytest.raises(ValueError, match="index-000001.faiss: other bytes than config.json says; damaged"):
        open_index(built.folder, verify=True)
    with pytest.raises(ValueError, match="other bytes than config.json says"):
        append_index(built.folder, THUMBNAIL, pool, progress=False)


@pytest.mark.parametrize(
    "harm, said",
    [
        (lambda data: data[:-50], "damaged, build the index again"),
        (lambda data: b"", "0 bytes, config.json says"),
        (lambda data: b"x" * len(data), "not an index that faiss can read"),
    ],
)
def test_a_corrupt_index_file_is_named(built, harm, said):
    path = next(built.folder.glob("*.faiss"))
    data = path.read_bytes()
    path.unlink()  # The open index keeps its own
    path.write_bytes(harm(data))
    with pytest.raises(ValueError, match=said) as caught:
        open_index(built.folder)
    assert path.name in str(caught.value)


def test_broken_rows_and_config_are_named(built):
    rows = next(built.folder.glob("rows-*.csv"))
    text = rows.read_text()
    rows.write_text(text.replace('"path","sha256"', '"path","sha255"'))
    with pytest.raises(ValueError, match=r"rows-000001.csv: 12 rows of path, sha255"):
        open_index(built.folder).rows  # noqa: B018
    rows.write_text(text)
    config = built.folder / "config.json"
    good = json.loads(config.read_text())
    for bad, said in (
        ("{", "not the config of an index"),
        ("[]", "missing"),
        (json.dumps(good | dict(version=99)), "version 99"),
    ):
        config.write_text(bad)
        with pytest.raises(ValueError, match=said):
            open_index(built.folder)


def test_an_index_of_another_feature_or_version_is_refused(built, pool):
    with pytest.raises(ValueError, match="made with name 'thumbnail'.*has name 'phash'"):
        open_index(built.folder, make_feature("phash"))
    newer = Feature("thumbnail", 16, "RGB", 768, THUMBNAIL.compute, version=2)
    for action in (
        lambda: open_index(built.folder, newer),
        lambda: append_index(built.folder, newer, pool),
        lambda: find_similar(built, newer, [pool / "00.png"]),
    ):
        with pytest.raises(ValueError, match="made with version 1; the feature asked for has version 2"):
            action()


def test_a_half_written_index_is_never_opened(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "write_json", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_index(THUMBNAIL, pool, tmp_path / "index", progress=False)
    monkeypatch.undo()
    assert list((tmp_path / "index").glob("*.faiss"))
    with pytest.raises(FileNotFoundError, match="config.json: no such file; build_index makes an index"):
        open_index(tmp_path / "index")
    assert len(build_index(THUMBNAIL, pool, tmp_path / "index", progress=False)) == 12


def test_an_append_that_dies_leaves_the_old_index(pool, tmp_path, monkeypatch):
    rows = list_pool(pool)
    build_index(THUMBNAIL, pool, tmp_path / "index", rows[:5], progress=False)
    monkeypatch.setattr(store, "write_json", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        append_index(tmp_path / "index", THUMBNAIL, pool, progress=False)
    monkeypatch.undo()
    assert len(open_index(tmp_path / "index")) == 5
    assert len(append_index(tmp_path / "index", THUMBNAIL, pool, progress=False)) == 12
    assert len(list((tmp_path / "index").glob("*.faiss"))) == 1


def test_a_foreign_folder_is_not_overwritten(built, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="letters: holds something else"):
        save_index(built, tmp_path / "letters")
    (tmp_path / "letters" / "config.json").write_text("{}")  # Of a model, perhaps
    for action in (
        lambda: save_index(built, tmp_path / "letters"),
        lambda: build_index(THUMBNAIL, built.root, tmp_path / "letters"),
    ):
        with pytest.raises(FileExistsError, match="letters: holds something else"):
            action()


def test_a_lock_is_a_file_that_is_open_for_writing(tmp_path):
    with folder_lock(tmp_path / "new"):
        with open(tmp_path / "new" / ".lock", "r+b") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(tmp_path / "new" / ".lock", "r+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_somebody_else_keeps_is_never_deleted(own, built, tmp_path):
    folder = tmp_path / "letters"
    folder.mkdir()
    for name in ("rows-2024.csv", "index-old.faiss", "letter.txt"):
        (folder / name).write_text("mine")
    with pytest.raises(FileExistsError, match="letters: holds something else"):
        build_index(THUMBNAIL, own, folder, progress=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="file: a file; expected a new folder"):
        build_index(THUMBNAIL, own, tmp_path / "file", progress=False)
    scratch = built.folder.with_name(".index.vectors")
    scratch.mkdir()
    kept = [built.folder / "rows-2024.csv", built.folder / "sketch-of-a-face.faiss", scratch / "mine.npy"]
    for path in kept:
        path.write_text("mine")
    draw(own / "new.png", 40)
    build_index(THUMBNAIL, own, built.folder, progress=False)
    assert all(path.read_text() == "mine" for path in [*kept, *folder.iterdir()])
    assert sorted(path.name for path in built.folder.glob("*.faiss")) == [
        "index-000002.faiss",
        "sketch-of-a-face.faiss",
    ]


def test_files_of_an_index_are_readable_by_the_next_user(pool, tmp_path):
    before = os.umask(0o022)
    try:
        build_index(THUMBNAIL, pool, tmp_path / "index", cache=tmp_path / "cache", progress=False)
        task = original_task(half_fake(pool), pool, 0)
        evaluate(task, THUMBNAIL, tmp_path / "scratch", ["blur"])
    finally:
        os.umask(before)
    files = [
        path
        for place in ("index", "cache", "scratch")
        for path in (tmp_path / place).rglob("*")
        if path.is_file()
    ]
    modes = {path.name: path.stat().st_mode & 0o777 for path in files}
    assert len(modes) > 10 and set(modes.values()) == {0o644}


@pytest.mark.parametrize("limit, name", [(9_000, ".npy"), (38_000, "index-000001.faiss")])
def test_a_disk_that_takes_no_more_is_told_by_file_and_cause(limit, name, pool, tmp_path):
    code = """
        import resource, sys
        import deepfake_nbs.retrieval.features as features, deepfake_nbs.retrieval.search as search, faiss, joblib, pandas
        rows = features.list_pool(sys.argv[1])
        feature = features.make_feature("thumbnail")
        if int(sys.argv[3]) > 20_000:  # Of the vectors only the index is too large
            read = features.extract
            features._extract_chunk = lambda feature, files, key, cache, workers: read(feature, files, progress=False)
            rows = pandas.concat([rows, rows.assign(path="./" + rows.path)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
        try:
            search.build_index(feature, sys.argv[1], sys.argv[2], rows, progress=False)
        except OSError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), pool, tmp_path / "index", str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "File too large" in done.stdout and name in done.stdout and "Traceback" not in done.stderr
    assert not (tmp_path / "index" / "config.json").exists()
    assert len(build_index(THUMBNAIL, pool, tmp_path / "index", progress=False)) == 12


def test_an_index_of_an_earlier_version_names_the_command_that_makes_it_again(pool, tmp_path):
    index = build_index(
        THUMBNAIL, pool, tmp_path / "an index", similarity="euclidean", kind="hnsw", progress=False
    )
    HARMS["version"](index.folder)
    command = f"`deepfake-nbs index {pool} '{index.folder}' --similarity euclidean --kind hnsw`"
    with pytest.raises(ValueError, match="version 1; expected an index of version 2") as caught:
        open_index(index.folder)
    assert command in str(caught.value)


def test_an_index_that_was_moved_says_so(own, tmp_path):
    build_index(THUMBNAIL, own, tmp_path / "index", progress=False)
    (tmp_path / "far").mkdir()
    shutil.move(tmp_path / "index", tmp_path / "far" / "index")
    with pytest.warns(
        UserWarning,
        match="its images were in .*far/pool, which is not there: .*`deepfake-nbs index FOLDER .*far/index`",
    ):
        index = open_index(tmp_path / "far" / "index")
    with pytest.warns(UserWarning, match="11 images were found that are no longer on disk"):
        found = find_similar(index, THUMBNAIL, [own / "00.png"], 12)
    assert found.empty and list(found) == ["query", "rank", "path", "score"] and len(find_gone(index)) == 12


@pytest.mark.parametrize("similarity", ["cosine", "euclidean", "whitened"])
def test_shards_answer_as_one_index(similarity, tmp_path):
    x, rows = cloud(900), names(900)
    first = make_index(x[:300], rows[:300], TOY, similarity)
    parts = [first, *(make_index(x[i : i + 300], rows[i : i + 300], TOY, like=first) for i in (300, 600))]
    folders = [save_index(part, tmp_path / f"{i}").folder for i, part in enumerate(parts)]
    joined, whole = open_shards(folders, TOY), make_index(x, rows, TOY, similarity, like=first)
    for one, two in zip(joined.search(x[:50], 6), whole.search(x[:50], 6), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4)
    assert [Path(path).name for path in joined.rows.path] == rows.path.tolist()


def test_shards_that_do_not_fit_are_refused(tmp_path):
    x = cloud(600)
    folders = [
        save_index(make_index(x[i : i + 300], names(300), TOY, how), tmp_path / f"{i}{how}").folder
        for i, how in ((0, "cosine"), (0, "euclidean"), (0, "whitened"), (300, "whitened"))
    ]
    with pytest.raises(ValueError, match="its similarity differ"):
        open_shards(folders[:2])
    with pytest.raises(ValueError, match="axes of whitening"):
        open_shards(folders[2:])
    with pytest.raises(ValueError, match="no shards"):
        open_shards([])


def test_faiss_is_the_one_that_the_index_names(built):
    assert built.config["faiss"] == faiss.__version__


def test_the_command_for_an_index_in_memory_names_a_new_folder(tmp_path):
    config = dict(feature=dict(name="phash"), similarity="cosine", kind="flat")
    assert index_command(None, config) == "`deepfake-nbs index FOLDER NEW_INDEX --feature phash`"
    named = index_command(None, config | dict(root=str(tmp_path)))
    assert f"deepfake-nbs index {tmp_path} NEW_INDEX" in named
    index = make_index(cloud(20), names(20), TOY)
    assert remake_command(index) == index_command(None, index.config)


def test_a_copy_of_joined_shards_keeps_them_alive(tmp_path):
    x, rows = cloud(60), names(60)
    for i in range(2):
        save_index(make_index(x[i::2], rows[i::2], TOY), tmp_path / str(i))
    joined = replace(open_shards([tmp_path / "0", tmp_path / "1"], TOY))
    gc.collect()
    assert [len(part) for part in joined.parts] == [30, 30]
    scores, numbers = joined.search(x[:5], 1)
    found = joined.rows["path"].iloc[numbers[:, 0]]
    assert [Path(path).name for path in found] == rows["path"][:5].tolist()
    np.testing.assert_allclose(scores, 1, atol=1e-5)
