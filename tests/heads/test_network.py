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
    count_parameters,
    decode,
    detection_loss,
    load_backbone_weights,
    make_anchors,
)
from deepfake_nbs.heads.training import DetectionConfig


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
        models = [EfficientDet(phi) for phi in COMPOUND]
    totals = [count_parameters(model)["total"] for model in models]
    assert totals == sorted(totals) and totals[3] > 2 * totals[0]
    assert [len(model.pyramid.layers) for model in models] == [3, 4, 5, 6]
    assert [len(model.class_head.convs) for model in models] == [3, 3, 3, 4]
    assert [COMPOUND[phi].image_size for phi in range(4)] == [512, 640, 768, 896]
    assert [DetectionConfig(phi=phi).image_size for phi in range(4)] == [512, 640, 768, 896]
    assert DetectionConfig(phi=2, image_size=128).image_size == 128
    with pytest.raises(ValueError, match="phi is 4; expected one of 0, 1, 2, 3"):
        EfficientDet(4)


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
    heavy = ("fastai", "sklearn", "matplotlib", "pandas", "torchmetrics")
    code = f"import sys, deepfake_nbs.heads.cropping, deepfake_nbs.heads.detector; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()
        == "[]"
    )
