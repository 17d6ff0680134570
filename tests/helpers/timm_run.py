"Run folders whose classifier is a network of timm with random weights, laid out like those that the package ships."

from importlib.metadata import version

import torch

from deepfake_nbs.application.models import CLASSIFIER, untrained_run
from deepfake_nbs.application.portable import export_portable
from deepfake_nbs.checkpoints import save_weights
from deepfake_nbs.classifiers.kernel import KernelClassifier
from deepfake_nbs.classifiers.networks import build_network, image_features, input_config
from deepfake_nbs.core import write_json

LITE = "timm:tf_efficientnet_lite0"


def random_network(net=LITE, head="linear", side=64):
    "A network whose norms do something, and whose logits differ from image to image."
    torch.manual_seed(3)
    model = build_network(net).train()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = None  # Mean and variance of all that was seen
            torch.nn.init.uniform_(norm.weight, 0.8, 1.2)
            torch.nn.init.normal_(norm.bias, 0, 0.1)
    with torch.no_grad():
        model(torch.randn(16, 3, side, side))
    model.eval()
    torch.nn.init.normal_(model.get_classifier().weight, std=0.05)
    if head == "linear":
        return model
    with torch.inference_mode():
        known = image_features(model, torch.randn(6, 3, side, side))
    model = KernelClassifier(model, known.shape[1], len(known))
    centre, scale = known.mean(0), known.std(0) + 1e-6
    kernel = torch.tensor([1 / known.shape[1], 0.1, 2.0, 0.2])
    values = dict(centre=centre, scale=scale, kernel=kernel, coefficients=torch.linspace(-1, 1, len(known)))
    model.load_state_dict(values | dict(vectors=(known - centre) / scale), strict=False)
    return model.eval()


def timm_run(folder, net=LITE, head="linear", side=64, **changes):
    "A run folder with such a classifier, and a detector that takes anything for a head."
    run, own = untrained_run(folder), input_config(net)
    config = dict(net=net, width=1.0, n_classes=2, dropout=0.2, image_size=side, mean=own.mean, std=own.std)
    config |= dict(crop=True, head=head, trained_on="nothing", row=12, threshold=0.5, name="")
    save_weights(random_network(net, head, side), run / CLASSIFIER / "model.safetensors")
    write_json(run / CLASSIFIER / "config.json", config | dict(version=version("deepfake_nbs")) | changes)
    return run


def shipped_like(folder, auc=0.8712, **changes):
    "A folder of the form that the package ships, with numbers that nobody measured."
    run = timm_run(folder.with_name(f"{folder.name}-run"), **changes)
    write_json(run / "training.json", dict(test=dict(auc=dict(value=auc))))
    (run / "README.md").write_text("# A card\n\nThat says more.\n")
    return export_portable(folder, run, half=True, onnx=False)
