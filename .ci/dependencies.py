"""What each notebook depends on, as rules for make: the modules that its code imports, and those that they import.

Standard library alone: make runs it before there is an environment."""

import ast
import json
import re
import sys
from pathlib import Path

PACKAGE = "deepfake_nbs"


def statements(tree: ast.AST):
    "Every statement, wherever it stands. `ast.walk` would visit each expression too, which takes much longer."
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        for part in ("body", "orelse", "handlers", "finalbody", "cases"):
            found = getattr(node, part, None)
            if isinstance(found, list):
                waiting += found
        yield node


def imported(code: str, package: str = "") -> set[str]:
    """Dotted names of this package's modules that `code` imports, wherever the import stands; `package` is where
    a relative import starts. `from a import b` may mean a.b."""
    names = set()
    for node in statements(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.split(".")[0] == PACKAGE}


def module_file(name: str) -> str:
    return name.replace(".", "/") + ".py"


def code_of(notebook: Path) -> str:
    "All code of a notebook, without IPython's magic lines."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.M)


def closure(code: str, root: Path, known: dict[str, set[str]]) -> set[str]:
    "Files of the package that `code` needs, directly or not."
    found, waiting = set(), {module_file(name) for name in imported(code)}
    while waiting:
        file = waiting.pop()
        if file in found or not (root / file).is_file():
            continue
        found.add(file)
        if file not in known:
            package = ".".join(Path(file).parent.parts)
            text = (root / file).read_text(encoding="utf-8")
            known[file] = {module_file(name) for name in imported(text, package)}
        waiting |= known[file]
    return found


def rules(root: Path) -> list[str]:
    "One line a notebook: `$(DONE)/library/30a_network.ipynb: deepfake_nbs/core.py ...`."
    known: dict[str, set[str]] = {}
    lines, library = [], []
    for notebook in sorted((root / "nbs").rglob("*.ipynb")):
        if notebook.name.startswith(".") or ".ipynb_checkpoints" in notebook.parts:
            continue
        place, code = notebook.relative_to(root / "nbs"), code_of(notebook)
        exports = re.search(r"^#\|\s*default_exp:\s*([\w.]+)", code, flags=re.M)
        own = {module_file(f"{PACKAGE}.{exports[1]}")} if exports else set()
        files = " ".join(sorted(closure(code, root, known) | own))
        if place.stem == "06_training_run":  # One notebook, run once a configuration: a pattern rule of make
            lines.append(f"TRAINING := {files}")
        else:
            lines.append(f"$(DONE)/{place}: {files}")
        library += [f"$(DONE)/{place}"] * bool(exports)
    return [*lines, f"LIBRARY := {' '.join(library)}"]


if __name__ == "__main__":
    print(*rules(Path(sys.argv[1] if len(sys.argv) > 1 else ".")), sep="\n")
