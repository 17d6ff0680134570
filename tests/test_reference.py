"The API reference: every public function with its parameters and what their comments say, made without importing anything."

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("reference", ROOT / ".ci" / "reference.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)
PAGES = reference.pages(ROOT)


def public_names(path):
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, kinds) and not node.name.startswith("_")
    ]


MODULES = [path for path in sorted((ROOT / "deepfake_nbs").rglob("*.py")) if not path.stem.startswith("_")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT / "deepfake_nbs").as_posix())
def test_every_public_name_stands_in_the_reference_of_its_room(path):
    room = path.parent.name if path.parent.name != "deepfake_nbs" else "ground"
    headings = set(re.findall(r"^### (\w+) ", PAGES[room], re.M))
    assert set(public_names(path)) <= headings, f"the room {room!r} is missing from ROOMS, or names are"


def test_parameters_come_with_type_default_and_comment(tmp_path):
    (tmp_path / "deepfake_nbs").mkdir()
    (tmp_path / "deepfake_nbs" / "heads").mkdir()
    (tmp_path / "deepfake_nbs" / "heads" / "crop.py").write_text(
        '"Cropping."\n# File to edit: ../../nbs/library/30f_cropping.ipynb.\n\ndef crop(\n    image: "Image",  # RGB | upright\n'
        '    margin: float = 0.2,  # Fraction of the box\n) -> "Image":  # The head\n    "Cut one head out."\n\ndef _hidden(): pass\n'
    )
    text = reference.pages(tmp_path)["heads"]
    assert (
        "| `image` | `Image` |  | RGB \\| upright |" in text
        and "| `margin` | `float` | `0.2` | Fraction of the box |" in text
    )
    assert (
        "| returns | `Image` | | The head |" in text and "Cut one head out." in text and "_hidden" not in text
    )
    assert "[30f_cropping](../nbs/library/30f_cropping.ipynb)" in text


def test_the_pages_are_written_anew(tmp_path):
    out = tmp_path / "reference"
    out.mkdir()
    (out / "gone.qmd").write_text("an old room")
    reference.main(ROOT, out)
    assert sorted(path.stem for path in out.iterdir()) == sorted(PAGES)
