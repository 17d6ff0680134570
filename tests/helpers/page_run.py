"Run a page's code cells in this process, on a small run folder."

from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat

from deepfake_nbs.settings import Settings, read_settings


def run_page(root: Path, name: str, replaced: dict[str, Any], /, **parameters: Any) -> dict[str, Any]:
    "Run a page's code cells in order, with some names replaced after the imports; returns its names."
    notebook, names = nbformat.read(root / "nbs" / f"{name}.ipynb", as_version=4), {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            names.update(
                parameters if "parameters" in cell.metadata.get("tags", []) else {},
                **{k: v for k, v in replaced.items() if k in names},
            )
    return names


def page_settings(profile: str) -> Settings:
    "Settings for networks that train in seconds."
    return replace(read_settings("smoke"), image_size=48, width=0.1, epoch_limit=2, n_resamples=20)
