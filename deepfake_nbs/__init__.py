"""Deepfake detection, reproduced and examined: the names that most people need, each loaded when it is asked for."""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Pipeline": "application.pipeline",  # Pipeline.load(run).check(photo)
    "build_cvcs_dfd": "data.build",
    "read_manifest": "data.manifest",
    "audit_split": "data.splits",
    "HeadDetector": "heads.detector",
    "create_model": "classifiers.xception",
    "train_run": "classifiers.training",
    "classification_metrics": "metrics",
    "paired_metrics": "metrics",
    "read_settings": "settings",
}


def __getattr__(name: str) -> Any:
    "Load a public name from its module: `import deepfake_nbs` alone loads neither torch nor pandas."
    if name == "__version__":
        return import_module("importlib.metadata").version("deepfake_nbs")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'deepfake_nbs' has no attribute {name!r}")
    return getattr(import_module(f"deepfake_nbs.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, "__version__"})
