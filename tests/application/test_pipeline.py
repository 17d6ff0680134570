"The pipeline: heads, crops, probabilities, many photographs at a time."

import threading

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from deepfake_nbs.application import pipeline as stages
from deepfake_nbs.application.cli import app
from deepfake_nbs.application.evidence import Thresholds
from deepfake_nbs.application.gallery import Gallery
from deepfake_nbs.application.models import CLASSIFIER, untrained_run
from deepfake_nbs.application.pipeline import Pipeline, classify_images
from deepfake_nbs.core import write_json
from deepfake_nbs.checkpoints import save_weights
from deepfake_nbs.heads.detector import HeadBox
from deepfake_nbs.heads.cropping import crop_head
from deepfake_nbs.images import ImageError
from deepfake_nbs.classifiers.xception import create_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "Whole images, no detector."
    return untrained_run(tmp_path_factory.mktemp("a run"), head_threshold=None, crop=False)


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def give_heads(pipeline, *boxes):
    "A detector that finds these boxes in every photograph."
    found = [HeadBox(box, 0.9 - i / 1000) for i, box in enumerate(boxes)]
    pipeline.detector.find_in_squares = lambda squares, sizes, threshold=None: [list(found) for _ in squares]
    return pipeline


def test_probability_is_that_of_the_network(run, photos):
    pipeline = Pipeline.load(run)
    for answer in pipeline.check_many(sorted(photos.iterdir())[:3]):
        image = Image.open(answer.photo).resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=3.0)
        x = torch.from_numpy(np.asarray(image).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = pipeline.model.eval()(x).softmax(1)[0, 1].item()
        assert answer.probability == pytest.approx(expected, abs=1e-5)


def test_order_and_batches_do_not_matter(run, photos):
    paths, pipeline = sorted(photos.iterdir()), Pipeline.load(run)
    together = [answer.probability for answer in pipeline.check_many(paths, batch_size=7)]
    alone = [pipeline.check(path).probability for path in paths]
    assert together == pytest.approx(alone, abs=1e-5) and len(set(together)) > 1


def threads_of_a_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_many_are_judged_side_by_side_by_threads_of_one_core(run, photos, monkeypatch, three_threads):
    seen, check_batch = set(), stages.check_batch

    def watched(networks, batch, whole, n_crops):
        seen.add((torch.get_num_threads(), len(batch), n_crops))
        return check_batch(networks, batch, whole, n_crops)

    monkeypatch.setattr(stages, "check_batch", watched)
    pipeline, paths = Pipeline.load(run), sorted(photos.iterdir())
    for n, size, cores, crops in ((1, 1, 3, 6), (3, 1, 1, 2), (len(paths), 2, 1, 2)):
        seen.clear()
        assert [answer.photo for answer in pipeline.check_many(paths[:n])] == [
            str(path) for path in paths[:n]
        ]
        assert {(one[0], one[1] <= size, one[2]) for one in seen} == {(cores, True, crops)}
    seen.clear()
    assert len(list(pipeline.check_many(paths[:7], batch_size=7))) == 7 and seen == {(3, 7, 6)}, (
        "one batch has all cores"
    )
    assert list(pipeline.check_many([])) == []


def test_judging_leaves_the_cores_to_everybody_else(run, photos, three_threads):
    pipeline, paths = Pipeline.load(run), sorted(photos.iterdir())
    first, second = pipeline.check_many(paths), pipeline.check_many(paths)
    next(first), next(second)
    assert torch.get_num_threads() == threads_of_a_new_thread() == 3, "while both are under way"
    first.close()
    assert len(list(second)) == len(paths) - 1 and torch.get_num_threads() == threads_of_a_new_thread() == 3


def test_a_picture_in_memory_is_read_as_its_file_is(run, photos, tmp_path):
    pipeline, path = Pipeline.load(run), tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn by a quarter to see it upright
    Image.open(sorted(photos.iterdir())[0]).convert("RGB").resize((40, 20)).save(path, exif=exif, quality=95)
    of_file, of_memory = pipeline.check(path), pipeline.check(Image.open(path))
    assert of_file.size == of_memory.size == (20, 40) and of_file.probability == of_memory.probability
    (tmp_path / "half.jpg").write_bytes(path.read_bytes()[:-100])
    answers = list(pipeline.check_many([Image.open(tmp_path / "half.jpg"), path]))
    assert (
        isinstance(answers[0], ImageError)
        and "cannot be decoded" in str(answers[0])
        and answers[1].size == (20, 40)
    )


def test_a_photograph_that_is_gone_before_the_gallery_is_asked_stops_nothing(run, photos):
    class Broken:
        note = ""

        def find(self, photo):
            if photo.name.endswith("00.png"):
                raise FileNotFoundError(2, "No such file or directory", photo.name)
            return ()

    first, *others = Pipeline.load(run).check_many(sorted(photos.iterdir())[:3], gallery=Broken())
    assert isinstance(first, ImageError) and "00.png: cannot be looked for in the gallery" in str(first)
    assert [answer.matches for answer in others] == [(), ()]


def test_no_verdict_from_weights_that_give_no_number(tmp_path, photos):
    run = untrained_run(tmp_path / "run", head_threshold=None, crop=False)
    model = create_model("light", width=0.1)
    torch.nn.init.constant_(next(model.parameters()), float("nan"))
    save_weights(model, run / CLASSIFIER / "model.safetensors")
    for words in ((), ("--json",)):
        result = invoke("check", photos, "--run", run, *words)
        assert (
            result.exit_code == 2 and str(run / CLASSIFIER) in result.stderr and "no number" in result.stderr
        )
        assert "nan" not in result.stdout.lower()
    with pytest.raises(ValueError, match="no number"):
        Pipeline.load(run).predict(sorted(photos.iterdir())[:1])


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK", "LA"])
def test_a_picture_in_memory_is_judged_like_its_file_whatever_its_mode(run, known, photos, tmp_path, mode):
    image = Image.open(sorted(photos.iterdir())[0]).convert(mode)
    image.save(path := tmp_path / f"a.{'tiff' if mode == 'CMYK' else 'png'}")
    pipeline = Pipeline.load(run)
    gallery = Gallery.open(known, run)
    in_memory, file = pipeline.check(image, gallery), pipeline.check(path, gallery)
    assert (
        in_memory.probability == pytest.approx(file.probability, abs=1e-6)
        and in_memory.matches == file.matches
    )


def test_each_head_is_judged_on_its_crop_with_the_margin_of_training(tmp_path, photos):
    run = untrained_run(tmp_path)
    write_json(run / "cvcs_cropped_dfd" / "dataset.json", {"plan": {"margin": 0.35}})
    boxes = (5.0, 5.0, 25.0, 30.0), (30.0, 2.0, 70.0, 45.0)
    pipeline = give_heads(Pipeline.load(run), *boxes)
    photo = sorted(photos.iterdir())[0]
    answer = pipeline.check(photo)
    crops = [crop_head(Image.open(photo), box, 0.35) for box in boxes]
    assert [head.probability for head in answer.heads] == pytest.approx(
        classify_images(pipeline, crops), abs=1e-6
    )
    assert answer.main_head == 1 and answer.probability == answer.heads[1].probability, (
        "the largest head speaks for the photograph"
    )
    assert (
        answer.region == "head"
        and answer.classifier["margin"] == 0.35
        and set(answer.seconds) == {"read", "heads", "classify"}
    )


@pytest.mark.parametrize(
    "numbers, verdicts, noted",
    [((0.9, 0.1), ["fake", "unsure"], True), ((0.1, 0.9), ["unsure", "fake"], False)],
)
def test_another_head_that_is_fake_is_told(heads_run, photos, monkeypatch, numbers, verdicts, noted):
    pipeline = give_heads(Pipeline.load(heads_run), (0.0, 0.0, 20.0, 20.0), (30.0, 0.0, 80.0, 50.0))
    pipeline.thresholds = Thresholds(None, 0.8, "by hand")
    monkeypatch.setattr(stages, "score_images", lambda *_: (list(numbers), [None, None]))
    answer = pipeline.check(sorted(photos.iterdir())[0])
    told = [note for note in answer.notes if note == "the main head is not classified as fake, but head 1 is"]
    assert bool(told) == noted and [head.verdict for head in answer.heads] == verdicts


def test_a_network_of_whole_pictures_never_sees_a_crop(tmp_path, photos):
    photo = sorted(photos.iterdir())[0]
    pipeline = give_heads(Pipeline.load(untrained_run(tmp_path, crop=False)), (5.0, 5.0, 25.0, 30.0))
    answer = pipeline.check(photo)
    assert answer.region == "whole image" and answer.heads[0].probability is answer.heads[0].verdict is None
    assert answer.probability == pytest.approx(classify_images(pipeline, [Image.open(photo)])[0], abs=1e-6)
    assert any("not scored" in note for note in answer.notes)


@pytest.mark.parametrize("crop", [True, False])
def test_no_head_gives_no_verdict_unless_asked(tmp_path, photos, crop):
    pipeline, photo = (
        Pipeline.load(untrained_run(tmp_path, head_threshold=1.0, crop=crop)),
        sorted(photos.iterdir())[0],
    )
    answer = pipeline.check(photo)
    assert (
        answer.verdict is answer.probability is None
        and "no head was found" in answer.reason
        and answer.region == "nothing"
    )
    asked = pipeline.check(photo, whole=True)
    assert (
        asked.verdict
        and asked.region == "whole image"
        and any("out of distribution" in note for note in asked.notes) == crop
    )


def test_predictions_are_those_of_check_and_say_what_is_missing(heads_run, photos, tmp_path):
    (tmp_path / "no.jpg").touch()
    paths = [*sorted(photos.iterdir())[:3], tmp_path / "no.jpg"]
    pipeline = give_heads(Pipeline.load(heads_run), (5.0, 5.0, 25.0, 30.0))
    with pytest.warns(UserWarning, match="no.jpg: the file is empty"):
        found = pipeline.predict(paths)
    assert np.isnan(found[3]) and found[:3] == pytest.approx(
        [pipeline.check(path).probability for path in paths[:3]], abs=1e-5
    )


def test_two_hundred_heads_and_a_head_that_fills_the_frame(heads_run, photos):
    photo, pipeline = sorted(photos.iterdir())[0], Pipeline.load(heads_run)
    crowd = [(float(x), float(y), x + 4.0, y + 4.0) for x in range(0, 76, 4) for y in range(0, 46, 4)][:200]
    answer = give_heads(pipeline, *crowd).check(photo)
    assert (
        len(answer.heads) == 200
        and all(head.verdict for head in answer.heads)
        and any("there may be more" in note for note in answer.notes)
    )
    assert answer.plot(Image.open(photo)).axes
    whole = give_heads(pipeline, (0.0, 0.0, 80.0, 50.0)).check(photo)
    assert whole.probability == pytest.approx(classify_images(pipeline, [Image.open(photo)])[0], abs=1e-6)


def test_real_photograph_is_judged(run, real):
    photo = next((real / "challenge" / "0-FFHQ").iterdir())
    answer = Pipeline.load(run).check(photo)
    assert 0 <= answer.probability <= 1 and answer.photo == str(photo)


# --- Decoded once -----------------------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch):
    "Every file that is decoded, as often as it is."
    from deepfake_nbs import images
    from deepfake_nbs.application import drawing, reading
    from deepfake_nbs.retrieval import features

    read, seen = images.read_image, []
    for module in (reading, drawing, features):
        monkeypatch.setattr(
            module, "read_image", lambda path, *more: seen.append(str(path)) or read(path, *more)
        )
    return seen


def test_a_photograph_is_decoded_once_with_gallery_and_figure(heads_run, known, photos, decoded, tmp_path):
    some = [str(path) for path in sorted(photos.iterdir())[7:11]]
    gallery = Gallery.open(known, heads_run, k=1)
    decoded.clear()
    for photo in stages.check_stream(Pipeline.load(heads_run), some, gallery=gallery, keep_pixels=True):
        assert photo.answer().matches and photo.plot().axes
    assert sorted(path for path in decoded if path in some) == some


def test_check_with_gallery_and_save_decodes_each_photograph_once(
    heads_run, known, photos, decoded, tmp_path
):
    some = [str(path) for path in sorted(photos.iterdir())[7:10]]
    Gallery.open(known, heads_run)
    decoded.clear()
    result = invoke("check", *some, "--run", heads_run, "--gallery", known, "--save", tmp_path / "saved")
    assert result.exit_code == 0 and len(list((tmp_path / "saved").iterdir())) == 6
    assert sorted(path for path in decoded if path in some) == some


def test_a_match_from_decoded_pixels_is_that_of_the_file(heads_run, known, photos):
    gallery, pipeline = Gallery.open(known, heads_run), Pipeline.load(heads_run)
    for path in sorted(photos.iterdir())[:4]:
        assert pipeline.check(path, gallery).matches == gallery.find(path)
    inside = known / "train" / "1.png"
    assert str(inside) not in {match.path for match in pipeline.check(inside, gallery).matches}, (
        "never its own bytes"
    )


def test_each_photograph_gets_its_own_probabilities_back(heads_run, photos):
    pipeline, paths = Pipeline.load(heads_run), sorted(photos.iterdir())[:3]
    boxes = {0: 3, 1: 0, 2: 1}  # Heads a photograph
    found = [
        [HeadBox((2.0 + i, 2.0, 30.0 + i, 40.0), 0.9 - i / 10) for i in range(n)] for n in boxes.values()
    ]
    pipeline.detector.find_in_squares = lambda squares, sizes: found
    together = stages.check_batch(pipeline, [stages.read_photo(path, 128) for path in paths])
    assert [len(photo.probabilities) for photo in together] == list(boxes.values())
    for heads, photo in zip(found, together, strict=True):
        pipeline.detector.find_in_squares = lambda squares, sizes, heads=heads: [heads]
        (alone,) = stages.check_batch(pipeline, [stages.read_photo(photo.source, 128)])
        assert alone.probabilities == pytest.approx(photo.probabilities, abs=1e-5)
