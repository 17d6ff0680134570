"""The API reference as pages of the site, one a room, read from the source: docstrings, and parameters with their comments.

Standard library alone: `quarto render` starts it where no environment is set up. Nothing is imported, so nothing runs."""

import ast
import re
import shutil
import sys
from pathlib import Path

ROOMS = {
    "ground": "What every room uses: settings, images, files, parallel maps, metrics, runs and checkpoints, figures, publishing",
    "data": "Reading sets, frames of videos, splits and their audit, building a dataset",
    "miniature": "The embedded data: synthetic portraits and fakes of them",
    "heads": "The head detector: network, data, training, evaluation, cropping",
    "retrieval": "Image retrieval: features, indexes, evaluation",
    "baselines": "SIFT baselines and sanity-check baselines",
    "classifiers": "Networks, training runs, tables 1 and 2, comparisons",
    "application": "Checking photographs and videos, galleries, the demo, the command line",
    "audit": "Audits beyond the original report",
}


def comments(source: str) -> dict[int, str]:
    "Comment at the end of each line, by line number."
    found = {number: re.search(r"#\s*(.*)$", line) for number, line in enumerate(source.split("\n"), 1)}
    return {number: match[1].strip() for number, match in found.items() if match}


def parameters(node: ast.FunctionDef, said: dict[int, str]) -> list[tuple[str, str, str, str]]:
    "Name, type, default and comment of every parameter."
    args = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(args) - len(node.args.defaults)) + [*node.args.defaults]
    pairs = [
        *zip(args, defaults, strict=True),
        *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
    ]
    pairs += [(arg, None) for arg in (node.args.vararg, node.args.kwarg) if arg]
    rows = []
    for arg, default in pairs:
        if arg.arg in ("self", "cls"):
            continue
        kind = ast.unparse(arg.annotation).strip("'") if arg.annotation else ""
        given = ast.unparse(default) if default is not None else ""
        line = default.end_lineno if default is not None else arg.end_lineno
        rows.append((arg.arg, kind, given, said.get(line, "") if line != node.lineno else ""))
    return rows


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def code(text: str) -> str:
    return f"`{cell(text)}`" if text else ""


def table(rows: list[tuple[str, str, str, str]], returns: tuple[str, str] | None) -> list[str]:
    lines = ["", "| | type | default | |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {code(kind)} | {code(default)} | {cell(text)} |" for name, kind, default, text in rows
    ]
    if returns and returns[0] not in ("", "None"):
        lines.append(f"| returns | {code(returns[0])} | | {cell(returns[1])} |")
    return lines if len(lines) > 3 else []


def function(node: ast.FunctionDef, said: dict[int, str], name: str, depth: int) -> list[str]:
    lines = ["", f"{'#' * depth} {name} {{.unnumbered}}", "", ast.get_docstring(node) or ""]
    returns = (
        (ast.unparse(node.returns).strip("'"), said.get(node.returns.end_lineno, ""))
        if node.returns
        else None
    )
    return lines + table(parameters(node, said), returns)


def fields(node: ast.ClassDef, said: dict[int, str]) -> list[tuple[str, str, str, str]]:
    "Annotated attributes of a class: the fields of a dataclass or a named tuple."
    found = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    public = [one for one in found if not one.target.id.startswith("_")]
    kinds = [ast.unparse(one.annotation).strip("'") for one in public]
    defaults = [ast.unparse(one.value) if one.value else "" for one in public]
    return [
        (one.target.id, *rest, said.get(one.end_lineno, ""))
        for one, *rest in zip(public, kinds, defaults, strict=True)
    ]


def class_(node: ast.ClassDef, said: dict[int, str]) -> list[str]:
    lines = [
        "",
        f"### {node.name} {{.unnumbered}}",
        "",
        ast.get_docstring(node) or "",
        *table(fields(node, said), None),
    ]
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and (
            not one.name.startswith("_") or one.name == "__init__" and len(one.args.args) > 1
        ):
            lines += function(one, said, f"{node.name}{'' if one.name == '__init__' else '.' + one.name}", 4)
    return lines


def module(path: Path, name: str) -> list[str]:
    "The section of one module; none where nothing in it is public."
    source = path.read_text(encoding="utf-8")
    tree, said = ast.parse(source), comments(source)
    notebook = re.search(r"File to edit: \S*?(nbs/\S+\.ipynb)", source)
    lines = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            lines += (
                class_(node, said) if isinstance(node, ast.ClassDef) else function(node, said, node.name, 3)
            )
    where = f"Explained in [{Path(notebook[1]).stem}](../{notebook[1]})." if notebook else ""
    return (
        ["", f"## deepfake_nbs.{name}", "", ast.get_docstring(tree) or "", "", where, *lines] if lines else []
    )


def pages(root: Path) -> dict[str, str]:
    "Text of every page by room, in the order of the rooms."
    package, made = root / "deepfake_nbs", {}
    for room, purpose in ROOMS.items():
        files = sorted((package if room == "ground" else package / room).glob("*.py"))
        prefix = "" if room == "ground" else f"{room}."
        sections = [
            line
            for path in files
            if not path.stem.startswith("_")
            for line in module(path, prefix + path.stem)
        ]
        if sections:
            made[room] = "\n".join(
                [f"---\ntitle: 'Reference: {room}'\n---", "", f"{purpose}.", *sections, ""]
            )
    return made


def main(root: Path, out: Path) -> None:
    made = pages(root)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for room, text in made.items():
        (out / f"{room}.qmd").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    here = Path(__file__).resolve().parent.parent
    main(here, Path(sys.argv[1]) if len(sys.argv) > 1 else here / "reference")
