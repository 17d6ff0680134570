"One name for one thing: the words that the project does not use, what to say instead, and the spelling of the rest."

import io
import json
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "settings.ini", "data/README.md")]
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)

NOUN = r"(?:a|an|the|its|each|this|whose|class|test|train|largest|smallest)"
WORDS = {  # What is not said (a regular expression, in any case): what is said instead
    r"pictures?|pictured": "image; photograph for one from a camera",
    r"(?<!-p )rows? (?:of table \d|\d+)": "run 8, configuration 8 of Table 1",
    r"judg(?:e|es|ed|ing|ement)": "classify, predict, score",
    r"holds? (?:it |them )?for (?:real|fake)": "classify, predict",
    r"how probable it is that": "predicted probability of fake, P(fake)",
    r"coins?": "chance level",
    r"honest (?:rows?|estimators?)|keeps? (?:a|the) table honest|blind rows?": "sanity-check baselines",
    r"drawings|drawn by code": "embedded data, synthetic portraits",
    r"drawn (?:pictures?|images?|portraits?|faces?|fakes?|data|heads?|people|frames?)": "synthetic",
    r"leaks? (?:is|was|are) worth|what crosses the split": "leakage, leakage audit",
    r"disturb\w*": "distortion, robustness",
    r"(?:is|are|was|were) shown to be (?:above|below|better|worse)": "paired difference, Holm-adjusted p",
    rf"{NOUN} share|shares? of": "fraction, proportion",
    r"right (?:is|are) the": "hit, relevant image",
    r"cut(?:s|ting)? (?:\w+ ){0,3}out": "crop, cropped head",
    r"(?:go|goes|went|going|gone) on": "resume, continue",
    r"whose run (?:it|this) is": "lock, run identity",
    r"(?:had|has|have) no say|the say": "was not used for this choice",
    r"rumours?|witness(?:es)?|in company": "the plain word for what is meant",
}
PROSE = {r"(?<!/)miniature(?!/)": "embedded data"}  # In code it names a module, a folder and some settings
EXCEPTIONS = {  # Text in which such a word is the right one, with the reason
    "row 1, column label": "a line of a manifest, in an error",
    "row 2: label or probability": "a line of predictions.csv, in an error",
}


def compiled(words):
    return [
        (re.compile(rf"(?<![\w-])(?:{each})(?![\w-])", re.IGNORECASE), say) for each, say in words.items()
    ]


IN_CODE, IN_PROSE = compiled(WORDS), compiled(WORDS | PROSE)


def without_code(text):
    "Names of files, columns and parameters keep their words: what stands between backticks is not read."
    return re.sub(r"`[^`\n]*`", "``", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def strings_and_comments(code):
    lines = [
        "pass" if line.lstrip().startswith(("%", "!")) else line for line in code.splitlines(keepends=True)
    ]
    for token in tokenize.generate_tokens(io.StringIO("".join(lines)).readline):
        name = tokenize.tok_name[token.type]
        if name in ("STRING", "COMMENT") or name.startswith("FSTRING"):
            yield token.string


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def texts(path):
    "Where a text stands in a file, the text, and what it may not hold."
    if path.suffix != ".ipynb":
        yield (
            "",
            without_code(path.read_text(encoding="utf-8")),
            IN_PROSE if path.suffix == ".md" else IN_CODE,
        )
        return
    for cell in cells(path):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield cell["id"], without_code(source), IN_PROSE
        elif cell["cell_type"] == "code":
            yield from ((cell["id"], without_code(text), IN_CODE) for text in strings_and_comments(source))


def find_words(text, forbidden=IN_PROSE):
    "Every forbidden word of a text: it, what to say, and the text around it."
    for pattern, say in forbidden:
        for found in pattern.finditer(text):
            around = text[max(0, found.start() - 40) : found.end() + 40].replace("\n", " ")
            if not any(allowed in around for allowed in EXCEPTIONS):
                yield found[0], say, around


@pytest.mark.parametrize("path", [*TEXTS, *NOTEBOOKS], ids=lambda path: path.name)
def test_one_thing_has_one_name(path):
    place = path.relative_to(ROOT).as_posix()
    wrong = [
        f"{place}{f', cell {cell}' if cell else ''}: {word!r}; say: {say} (... {around} ...)"
        for cell, text, forbidden in texts(path)
        for word, say, around in find_words(text, forbidden)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    "text, words",
    [
        ("# A picture of row 8 of table 1", ["picture", "row 8"]),
        ("Which share of the pictures is real?", ["pictures", "share of"]),
        ("The run goes on where it stopped", ["goes on"]),
        ("run 8, `picture`, -p row 8, shared, images that share a group, head-on", []),
        ("labels.csv, row 1, column label", []),
    ],
)
def test_words_are_found_and_names_are_not(text, words):
    assert [word for word, _, _ in find_words(without_code(text))] == words


def test_strings_and_comments_of_code_are_read_and_names_are_not():
    code = '%time\ndef picture(row):  # a picture\n    "of row 8"\n    return f"{picture} coin"\n'
    assert [word for text in strings_and_comments(code) for word, _, _ in find_words(text)][:2] == [
        "picture",
        "row 8",
    ]


def test_every_exception_is_still_needed():
    everything = "\n".join(text for path in [*TEXTS, *NOTEBOOKS] for _, text, _ in texts(path))
    assert not [text for text in EXCEPTIONS if text not in everything]


def test_nothing_is_misspelt(tmp_path):
    pytest.importorskip("codespell_lib", reason="codespell is not installed; `make setup` installs it")
    files = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    files += sorted((ROOT / "deepfake_nbs").rglob("*.py"))
    for path in NOTEBOOKS:
        for cell in cells(path):
            if cell["cell_type"] == "markdown":
                place = tmp_path / path.name / f"cell {cell['id']}"
                place.parent.mkdir(exist_ok=True)
                place.write_text("".join(cell["source"]), encoding="utf-8")
                files.append(place)
    command = [sys.executable, "-m", "codespell_lib", "--toml", ROOT / "pyproject.toml", *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert len(files) > 500 and done.returncode == 0, done.stdout + done.stderr
