"""The network beside its peer, anchors, loss, decoding, weights."""

import subprocess
import sys

import pytest
import torch
from torchvision.models import get_model

from deepfake_nbs.heads import network
from deepfake_nbs.heads.network import (
    CODER,
    COMPOUND,
    Backbone,
    BiFPNLayer,
    EfficientDet,
    Node,
    assign_anchors,
    build_backbone,
    compound,
    count_parameters,
    decode,
    detection_loss,
    drop_nested,
    load_backbone_weights,
    make_anchors,
)
from deepfake_nbs.heads.training import DetectionConfig
from deepfake_nbs.images import IMAGENET_MEAN, IMAGENET_STD
from deepfake_nbs.pretrained import import_timm


def test_parameters_are_those_of_the_peer():
    total = count_parameters(EfficientDet())["total"]
    assert abs(total / 3_828_002 - 1) < 0.01  # effdet 0.4.1, tf_efficientdet_d0 with one class


def test_shapes_are_those_of_the_peer():
    effdet = pytest.importorskip(
        "effdet", reason="effdet, the peer, is not installed; extra `bench` brings it"
    )
    peer = effdet.create_model(
        "tf_efficientdet_d0", num_classes=1, pretrained=False, pretrained_backbone=False, bench_task=""
    ).eval()
    model = EfficientDet().eval()
    assert abs(count_parameters(model)["total"] / sum(p.numel() for p in peer.parameters()) - 1) < 0.01
    image = torch.zeros(1, 3, 512, 512)
    with torch.inference_mode():
        theirs, ours = peer.backbone(image), model.backbone(image)
        assert [x.shape for x in ours] == [x.shape for x in theirs]
        assert [x.shape for x in model.pyramid(ours)] == [x.shape for x in peer.fpn(theirs)]
        classes, boxes = peer(image)
        logits, offsets = model(image.byte())
    assert logits.shape[1] == sum(x.numel() for x in classes) and offsets.numel() == sum(
        x.numel() for x in boxes
    )


def test_phi_sets_width_depth_backbone_and_size():
    with torch.device("meta"):
        models = [EfficientDet(phi) for phi in range(4)]
    totals = [count_parameters(model)["total"] for model in models]
    assert totals == sorted(totals) and totals[3] > 2 * totals[0]
    assert [len(model.pyramid.layers) for model in models] == [3, 4, 5, 6]
    assert [len(model.class_head.convs) for model in models] == [3, 3, 3, 4]
    assert [COMPOUND[phi].image_size for phi in range(4)] == [512, 640, 768, 896]
    assert [DetectionConfig(phi=phi).image_size for phi in range(4)] == [512, 640, 768, 896]
    assert DetectionConfig(phi=2, image_size=128).image_size == 128
    with pytest.raises(ValueError, match="phi is 4; expected one of 0, 1, 2, 3, lite0"):
        EfficientDet(4)


@pytest.mark.parametrize("phi", [True, 1.0, "0", "lite1", None, ["lite0"]])
def test_another_phi_is_refused(phi):
    with pytest.raises(ValueError, match="expected one of 0, 1, 2, 3, lite0"):
        compound(phi)


def test_the_lite_network_has_the_width_of_d0_and_its_own_backbone_and_colours():
    lite, d0 = EfficientDet("lite0"), EfficientDet(0)
    assert lite.backbone.channels == d0.backbone.channels == [40, 112, 320]
    parts = [count_parameters(model) for model in (lite, d0)]
    assert {**parts[0], "backbone": 0, "total": 0} == {**parts[1], "backbone": 0, "total": 0}
    assert parts[0]["backbone"] < parts[1]["backbone"]
    assert lite.mean.unique().tolist() == lite.std.unique().tolist() == [127.5]
    assert torch.allclose(d0.mean.flatten() / 255, torch.tensor(IMAGENET_MEAN))
    assert torch.allclose(d0.std.flatten() / 255, torch.tensor(IMAGENET_STD))
    assert "mean" not in lite.state_dict()


def test_black_and_white_reach_the_lite_backbone_as_minus_one_and_one():
    lite, seen = EfficientDet("lite0").eval(), []
    lite.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for value in (0, 255):
        lite(torch.full((1, 3, 64, 64), value, dtype=torch.uint8))
    assert [x.unique().tolist() for x in seen] == [[-1.0], [1.0]]


def test_maps_of_the_lite_backbone_are_those_of_the_whole_network():
    whole = import_timm().create_model("tf_efficientnet_lite0").eval()
    backbone = build_backbone(COMPOUND["lite0"].backbone).eval()
    state = {f"features.{key}": value for key, value in whole.state_dict().items()}
    own = backbone.state_dict()
    backbone.load_state_dict({key: value for key, value in state.items() if key in own})
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        last = backbone(image)[-1]
        assert torch.allclose(whole.forward_features(image), whole.bn2(whole.conv_head(last)), atol=1e-5)


def test_a_network_is_built_without_weights_of_imagenet(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(network, "imagenet_network", fail)
    monkeypatch.setattr(network, "fetch", fail)
    for phi in (0, "lite0"):
        assert EfficientDet(phi).phi == phi


def test_imagenet_weights_of_the_lite_backbone_come_from_pretrained(monkeypatch):
    asked = []

    def give(net, n_classes):
        asked.append(net)
        return import_timm().create_model("tf_efficientnet_lite0"), "timm"

    monkeypatch.setattr(network, "imagenet_network", give)
    name = COMPOUND["lite0"].backbone
    backbone = build_backbone(name)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    assert load_backbone_weights(backbone, name, "none") == "none" and not asked
    assert load_backbone_weights(backbone, name, "imagenet") == "imagenet" and asked == [name]
    after = backbone.state_dict()
    assert not torch.equal(before["features.conv_stem.weight"], after["features.conv_stem.weight"])


def test_lite_weights_that_cannot_be_had_are_an_error_or_a_note(monkeypatch, capsys):
    def fail(net, n_classes):
        raise ConnectionError(f"weights='imagenet' for {net}: timm's hub cannot be reached")

    monkeypatch.setattr(network, "imagenet_network", fail)
    name = COMPOUND["lite0"].backbone
    with pytest.raises(ConnectionError, match="cannot be reached"):
        load_backbone_weights(build_backbone(name), name, "imagenet")
    assert load_backbone_weights(build_backbone(name), name, "auto") == "none"
    assert "cannot be reached; the backbone starts at random" in capsys.readouterr().out


def test_weights_of_another_network_are_refused(monkeypatch):
    other = import_timm().create_model("tf_efficientnet_lite1")
    monkeypatch.setattr(network, "imagenet_network", lambda net, n_classes: (other, "timm"))
    name = COMPOUND["lite0"].backbone
    with pytest.raises(ValueError, match="ImageNet weights of timm:tf_efficientnet_lite0"):
        load_backbone_weights(build_backbone("timm:tf_efficientnet_lite2"), name, "imagenet")


ONE, INSIDE, ASIDE = [0.0, 0, 100, 120], [20.0, 30, 80, 110], [60.0, 20, 120, 90]


@pytest.mark.parametrize(
    "boxes, kept",
    [
        ([ONE, INSIDE], [True, False]),  # A face in its head
        ([INSIDE, ONE], [True, False]),  # The better box stays, however small
        ([ONE, ASIDE], [True, True]),  # Two people: two thirds of the second are free
        ([ONE, ONE], [True, False]),
        ([ONE, [200.0, 0, 300, 120]], [True, True]),
        ([ONE, INSIDE, [30.0, 40, 70, 100], ASIDE], [True, False, False, True]),
        (
            [INSIDE, [0.0, 0, 400, 400], [300.0, 300, 390, 390]],
            [True, False, True],
        ),  # A dropped box drops none
        ([ONE], [True]),
    ],
)
def test_one_head_keeps_one_box(boxes, kept):
    assert drop_nested(torch.tensor(boxes)).tolist() == kept


def test_no_boxes_stay_none():
    assert drop_nested(torch.zeros(0, 4)).tolist() == []


def test_the_fraction_decides_what_is_one_head():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5.0, 0, 15, 10]])  # Half of either lies in the other
    assert drop_nested(boxes, 0.49).tolist() == [True, False]
    assert drop_nested(boxes, 0.51).tolist() == [True, True]
    assert drop_nested(torch.tensor([ONE, ONE]), 1.0).tolist() == [True, True]


def test_decode_drops_nested_boxes_in_each_image_alone():
    anchors = torch.tensor([ONE, INSIDE, ASIDE])
    logits = torch.tensor([[2.0, 3.0, 1.0], [-9.0, 3.0, 1.0]])
    (first, _), (second, scores) = decode(logits, torch.zeros(2, 3, 4), anchors, overlap=0.9)
    assert first.tolist() == [INSIDE, ASIDE] and second.tolist() == [INSIDE, ASIDE]
    assert len(decode(logits, torch.zeros(2, 3, 4), anchors, overlap=0.9, nested=1.0)[0][0]) == 3
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)


def test_a_second_graph_is_another_list():
    down_only = (Node(6, (3, 4)), Node(5, (2, 5)), Node(4, (1, 6)), Node(3, (0, 7)), Node(7, (4,)))
    layer = BiFPNLayer([8] * 5, 8, down_only).eval()
    maps = [torch.zeros(1, 8, side, side) for side in (16, 8, 4, 2, 1)]
    lit = [x.clone() for x in maps]
    lit[0][..., 0, 0] = 1
    with torch.inference_mode():
        changed = [not torch.equal(a, b) for a, b in zip(layer(lit), layer(maps), strict=True)]
    assert changed == [True, False, False, False, False]  # P3 does not flow upwards in this one


@pytest.mark.parametrize("size", [64, 96, 160, 192, 256])
def test_every_anchor_has_an_answer(size):
    with torch.inference_mode():
        logits, offsets = EfficientDet().eval()(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    anchors = make_anchors((size, size))
    assert logits.shape[1] == offsets.shape[1] == len(anchors)


def test_anchors_sit_where_their_cells_are():
    "A network that copies its input to one cell answers at that cell's anchors."
    anchors = make_anchors((128, 128))
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    cell = (3 * 16 + 5) * 9  # P3, line 3, column 5
    assert torch.allclose(
        middle[cell : cell + 9], torch.tensor([5 * 8 + 4.0, 3 * 8 + 4.0]).expand(9, 2), atol=0.6
    )


def test_imagenet_weights_fit_or_are_refused(monkeypatch, capsys):
    full = get_model("efficientnet_b0", weights=None)
    monkeypatch.setattr(network, "fetch", lambda url, name, advice: full.state_dict())
    backbone = Backbone()
    assert load_backbone_weights(backbone, "efficientnet_b0", "imagenet") == "imagenet"
    assert torch.equal(backbone.features[0][0].weight, full.features[0][0].weight)

    def fail(url, **_):
        raise OSError("no network")

    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(ConnectionError, match="choose weights='none'"):
        load_backbone_weights(backbone, "efficientnet_b0", "imagenet")
    assert load_backbone_weights(backbone, "efficientnet_b0", "auto") == "none"
    assert "starts at random" in capsys.readouterr().out


def test_decode_finds_what_the_loss_wants():
    "Offsets that bring the loss to nothing decode to the very boxes."
    torch.manual_seed(0)
    anchors = make_anchors((128, 128))
    boxes = torch.tensor([[10.0, 12, 40, 50], [70, 60, 118, 120]])
    which = assign_anchors(boxes, anchors)
    offsets = torch.zeros(1, len(anchors), 4)
    held = which >= 0
    offsets[0, held] = CODER.encode_single(boxes[which[held]], anchors[held])
    logits = torch.where(held, 8.0, -8.0)[None]
    assert sum(detection_loss(logits, offsets, anchors, [boxes])) < 1e-3
    found, scores = decode(logits, offsets, anchors)[0]
    assert len(found) == 2 and torch.allclose(found[found[:, 0].argsort()], boxes, atol=1e-3)
    assert (scores > 0.99).all()


def test_a_batch_is_decoded_image_by_image():
    torch.manual_seed(0)
    anchors = make_anchors((128, 128))
    logits, offsets = torch.randn(3, len(anchors)) - 2, 0.1 * torch.randn(3, len(anchors), 4)
    together = decode(logits, offsets, anchors)
    for i, (boxes, scores) in enumerate(together):
        alone, its_scores = decode(logits[i : i + 1], offsets[i : i + 1], anchors)[0]
        assert torch.equal(boxes, alone) and torch.equal(scores, its_scores)
        assert (scores.diff() <= 0).all()


def test_frames_without_heads_count_in_the_loss():
    anchors = make_anchors((64, 64))
    nothing = torch.zeros(0, 4)
    quiet, loud = (
        sum(
            detection_loss(
                torch.full((1, len(anchors)), value), torch.zeros(1, len(anchors), 4), anchors, [nothing]
            )
        )
        for value in (-8.0, 8.0)
    )
    assert torch.isfinite(quiet) and quiet < 1e-3 < loud


@pytest.mark.parametrize("threshold, n", [(0.0, 1), (1.0, 0)])
def test_the_ends_of_the_threshold_keep_all_or_nothing(threshold, n):
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    boxes, scores = decode(torch.full((1, 1), 30.0), torch.zeros(1, 1, 4), anchors, threshold)[0]
    assert len(boxes) == len(scores) == n


def test_importing_is_light():
    heavy = ("fastai", "sklearn", "matplotlib", "pandas", "torchmetrics", "timm")
    code = f"import sys, deepfake_nbs.heads.close_ups, deepfake_nbs.heads.cropping; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()
        == "[]"
    )
