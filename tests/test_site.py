"""The site: _quarto.yml against the notebooks, links, labels, ids; rendered too where Quarto is installed."""

import ast
import csv
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from fastcore.nbio import nb_frontmatter, read_nb

ROOT = Path(__file__).resolve().parents[1]
CONFIG = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
LIBRARY = sorted((ROOT / "nbs" / "library").glob("*.ipynb"))
LAST = [
    "conclusions",
    "all_numbers",
    "ethics",
    "model_card",
    "reproduce_one_number",
    "glossary",
    "path",
    "using",
]  # Pages without a number in their name, in reading order
PAGES = sorted(
    (ROOT / "nbs").glob("*.ipynb"),
    key=lambda path: (path.stem != "index", path.stem in LAST and LAST.index(path.stem) + 1, path.stem),
)
NOTEBOOKS = [*PAGES, *LIBRARY]
NAMES = [path.relative_to(ROOT).as_posix() for path in NOTEBOOKS]
REFERENCE_PAGES = "reference/*.qmd"
LARGEST = 1_000_000  # bytes of a committed notebook
REFERENCE = r"(?:fig|tbl|sec|eq|lst)-"


def cells(path):
    loaded = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in loaded]


def code(path):
    return [cell for cell in cells(path) if cell["cell_type"] == "code"]


def is_chapter_with_module(path):
    return any(re.match(r"#\|\s*default_exp", cell["source"]) for cell in code(path))


def without_code(text):
    "Markdown without its fenced blocks and its code spans."
    return re.sub(r"`[^`\n]+`", "`", re.sub(r"^(```|~~~).*?^\1[ ]*$", "", text, flags=re.M | re.S))


def outputs(path, *kinds):
    "Texts that the page shows as output, by MIME type."
    texts = []
    for cell in code(path):
        for output in cell.get("outputs", []):
            data = output.get("data", {}) | ({"stream": output["text"]} if "text" in output else {})
            texts += [
                "".join(text)
                for kind, text in data.items()
                if kind in kinds and isinstance(text, (str, list))
            ]
    return texts


def prose(path):
    written = [cell["source"] for cell in cells(path) if cell["cell_type"] == "markdown"]
    return "\n\n".join(without_code(text) for text in [*written, *outputs(path, "text/markdown")])


def directives(source):
    "The `#|` lines that open a cell, as a dict."
    found = re.findall(r"^#\|\s*([\w-]+):\s*(.*)$", source, flags=re.M)
    return {name: value.strip().strip("\"'") for name, value in found}


def labels(path):
    of_cells = [
        directives(cell["source"])["label"] for cell in code(path) if "label" in directives(cell["source"])
    ]
    return of_cells + re.findall(rf"\{{[^}}\n]*#({REFERENCE}[\w-]+)", prose(path))


def anchors(path):
    "Ids that Pandoc gives to the headings of a page."
    found = set(labels(path))
    written = "\n\n".join(cell["source"] for cell in cells(path) if cell["cell_type"] == "markdown")
    for heading in re.findall(
        r"^#{1,6}\s+(.*)$", re.sub(r"^(```|~~~).*?^\1[ ]*$", "", written, flags=re.M | re.S), flags=re.M
    ):
        explicit = re.search(r"\{[^}]*#([\w-]+)", heading)
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)|\{.*?\}|[`*]", r"\1", heading).strip().lower()
        found.add(
            explicit[1]
            if explicit
            else re.sub(r"\s+", "-", re.sub(r"[^\w\s.-]", "", re.sub(r"^[^a-z]+", "", text)))
        )
    return found


def bibliography_keys():
    return set(
        re.findall(
            r"^@\w+\{([^,\s]+),", (ROOT / CONFIG["bibliography"]).read_text(encoding="utf-8"), flags=re.M
        )
    )


def sidebar_pages(contents):
    for entry in contents:
        if isinstance(entry, str):
            yield entry
        else:
            yield from sidebar_pages(entry["contents"])


# Addresses of the site before the library stood apart
MOVED = dict(
    [
        ("00_core", "nbs/library/00a_core.ipynb"),
        ("00b_images", "nbs/library/00b_images.ipynb"),
        ("00c_files", "nbs/library/00c_files.ipynb"),
        ("00d_parallel", "nbs/library/00d_parallel.ipynb"),
        ("00e_metrics", "nbs/library/00e_metrics.ipynb"),
        ("00l_commands", "nbs/library/00l_commands.ipynb"),
        ("01a_miniature", "nbs/library/20a_people.ipynb"),
        ("01b_dataset_results", "nbs/01_datasets.ipynb"),
        ("02a_head_detection_results", "nbs/02_head_detection.ipynb"),
        ("03_retrieval", "nbs/library/40a_features.ipynb"),
        ("03a_retrieval_results", "nbs/03_image_retrieval.ipynb"),
        ("04a_baseline_results", "nbs/04_baselines.ipynb"),
        ("05_xception", "nbs/library/60a_xception.ipynb"),
        ("06_training", "nbs/library/60e_training.ipynb"),
        ("06a_training_run", "nbs/06_training_run.ipynb"),
        ("06b_training_results", "nbs/06a_classifiers.ipynb"),
        ("06c_comparison", "nbs/library/60g_comparison.ipynb"),
        ("06d_photographs", "nbs/06b_photographs.ipynb"),
        ("07_application", "nbs/library/70e_pipeline.ipynb"),
        ("07a_our_faces", "nbs/07_our_faces.ipynb"),
        ("09_ethics", "nbs/ethics.ipynb"),
    ]
)

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
results_chapters = pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if code(p) and not is_chapter_with_module(p)], ids=lambda path: path.stem
)


# _quarto.yml


def test_every_notebook_is_a_page_and_every_page_a_notebook_in_reading_order():
    assert CONFIG["project"]["render"] == [*NAMES, REFERENCE_PAGES]
    assert (
        CONFIG["project"]["pre-render"] == "python3 .ci/reference.py"
        and (ROOT / ".ci" / "reference.py").is_file()
    )


def test_the_sidebar_has_two_parts_and_holds_every_page_in_the_same_order():
    front, report, library = CONFIG["website"]["sidebar"]["contents"]
    assert (front, report["section"], library["section"]) == (
        "nbs/index.ipynb",
        "The report",
        "How it is built",
    )
    assert ["nbs/index.ipynb", *sidebar_pages(report["contents"])] == [
        path.relative_to(ROOT).as_posix() for path in PAGES
    ]
    assert list(sidebar_pages(library["contents"])) == [
        *(path.relative_to(ROOT).as_posix() for path in LIBRARY),
        REFERENCE_PAGES,
    ]


@pytest.mark.parametrize("old, new", MOVED.items())
def test_an_old_address_leads_to_the_page_that_took_its_place(old, new):
    front = yaml.safe_load(cells(ROOT / new)[0]["source"].strip("- \n"))
    assert f"/nbs/{old}.html" in front["aliases"]


def test_nothing_is_executed_and_the_site_goes_to_an_ignored_folder():
    assert CONFIG["execute"]["enabled"] is False
    assert f"{CONFIG['project']['output-dir']}/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert CONFIG["website"]["search"] is True


def test_code_is_shown_where_it_is_explained_and_folded_on_pages_of_results():
    assert CONFIG["format"]["html"]["code-fold"] is True
    library = yaml.safe_load((ROOT / "nbs" / "library" / "_metadata.yml").read_text(encoding="utf-8"))
    assert library["format"]["html"]["code-fold"] is False


def test_files_that_the_configuration_names_exist():
    for pattern in [CONFIG["bibliography"], CONFIG["format"]["html"]["css"], *CONFIG["project"]["resources"]]:
        assert list(ROOT.glob(pattern)), pattern


def test_the_front_page_lists_every_page_in_reading_order():
    text = "\n".join(
        cell["source"]
        for cell in cells(ROOT / "nbs/index.ipynb")
        if re.search(r"^\| (page|room) \|", cell["source"], re.M)
    )
    assert [
        "nbs/index.ipynb",
        *(f"nbs/{name}" for name in re.findall(r"\]\(([\w/]+\.ipynb)\)", text)),
    ] == NAMES


def test_links_and_pictures_of_the_readme_are_there():
    text = without_code((ROOT / "README.md").read_text(encoding="utf-8"))
    found = re.findall(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", text)
    for picture, words, target in found:
        if not re.match(r"[a-z]+:", target):
            assert (ROOT / target.partition("#")[0]).exists(), f"README.md: {target} is not there"
        assert words, f"README.md: {target} has no {'alt ' if picture else ''}text"
    pictures = [ROOT / target for picture, _, target in found if picture]
    assert pictures and all(path.stat().st_size < 150_000 for path in pictures)


# Each notebook


@every_notebook
def test_it_is_small(path):
    assert path.stat().st_size <= LARGEST, (
        f"{path.name}: {path.stat().st_size} bytes; expected at most {LARGEST}"
    )


@every_notebook
def test_it_has_one_title_with_a_subtitle(path):
    markdown = [
        cell["source"]
        for cell in cells(path)
        if cell["cell_type"] == "markdown" and not cell["source"].startswith("---")
    ]
    assert re.match(r"# \S.*\n+> \S", markdown[0]), (
        f"{path.name}: expected '# Title' and '> subtitle' in the first markdown cell"
    )
    assert len(re.findall(r"^# ", "\n".join(without_code(text) for text in markdown), flags=re.M)) == 1


@every_notebook
def test_its_directives_are_in_colon_form(path):
    for cell in code(path):
        for line in re.findall(r"^#\|.*$", cell["source"], flags=re.M):
            assert re.fullmatch(r"#\| [\w-]+:( \S.*)?|#\|\s+- \S.*|#\|   +\S.*", line), (
                f"{path.name}: {line!r}; Quarto would print it"
            )


@every_notebook
def test_its_labels_are_lower_case_and_their_captions_are_there(path):
    for cell in code(path):
        found = directives(cell["source"])
        if "label" not in found:
            continue
        label = found["label"]
        assert re.fullmatch(rf"{REFERENCE}[a-z0-9-]+", label), (
            f"{path.name}: label {label!r}; expected fig-... or tbl-..., lower case"
        )
        if label.startswith("fig-"):
            assert found.get("fig-cap") and found.get("fig-alt"), (
                f"{path.name}: {label} needs fig-cap and fig-alt"
            )
        if label.startswith("tbl-"):
            assert found.get("tbl-cap"), f"{path.name}: {label} needs tbl-cap"


def test_labels_are_unique_over_all_pages():
    every = [(label, path.name) for path in NOTEBOOKS for label in labels(path)]
    seen = {}
    for label, name in every:
        assert label not in seen, f"{label}: in {seen[label]} and in {name}"
        seen[label] = name


@every_notebook
def test_its_references_and_citations_resolve(path):
    keys, here = bibliography_keys(), set(labels(path))
    for key in re.findall(
        r"(?<![\w.@\\])@([A-Za-z](?:[\w:-]*\w)?)", re.sub(r"\]\([^)]*\)|<[^>]*>", "]", prose(path))
    ):
        if re.match(REFERENCE, key):
            assert key in here, f"{path.name}: @{key} is no label of this page"
        else:
            assert key in keys, f"{path.name}: @{key} is not in {CONFIG['bibliography']}"


@pytest.mark.parametrize(
    "stem",
    [  # Not the demo: as a page of Voila it would show the reference as it is written
        "all_numbers",
        "01_datasets",
        "02_head_detection",
        "03_image_retrieval",
        "04_baselines",
        "06a_classifiers",
        "06b_photographs",
        "06d_comparisons",
        "06e_report_reading",
        "07_our_faces",
        "ethics",
    ],
)
def test_its_prose_refers_to_its_figures_and_tables(stem):
    path = ROOT / "nbs" / f"{stem}.ipynb"
    written = "\n".join(
        without_code(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown"
    )
    named = set(re.findall(r"(?:@|\]\(#)((?:fig|tbl)-[a-z0-9-]*[a-z0-9])", written))
    assert named & set(labels(path)), f"{path.name}: its text refers to no figure or table"


@every_notebook
def test_its_internal_links_resolve(path):
    for target in re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", prose(path)):
        if re.match(r"[a-z]+:", target) or target.startswith("data:"):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{path.name}: link to {target}, which is not there"
        assert found.is_relative_to(ROOT), f"{path.name}: link to {target} leaves the project"
        if found.suffix in {".ipynb", ".md", ".qmd"}:
            page = found.relative_to(ROOT).as_posix()
            assert page in CONFIG["project"]["render"], (
                f"{path.name}: link to {target}, which is no page of the site"
            )
        if anchor and found.suffix == ".ipynb":
            assert anchor in anchors(found), (
                f"{path.name}: link to {target}; {found.name} has no such heading"
            )


@every_notebook
def test_its_divs_are_balanced(path):
    depth = 0
    for line in re.findall(r"^\s*:{3,}(.*)$", prose(path), flags=re.M):
        depth += 1 if line.strip(" :") else -1
        assert depth >= 0, f"{path.name}: ':::' closes what was not opened"
    assert depth == 0, f"{path.name}: ':::' is not closed"


@every_notebook
def test_it_names_no_path_of_a_machine(path):
    shown = [cell["source"] for cell in cells(path)] + outputs(
        path, "stream", "text/plain", "text/html", "text/markdown"
    )
    for text in shown:
        found = re.search(
            r"(?<![\w.:/])/(?:home|root|Users|work|tmp|mnt|opt|usr|var)/[\w.-]+|\b[A-Z]:\\\w|file://|site-packages",
            text,
        )
        assert not found, f"{path.name}: {text[max(found.start() - 40, 0) : found.end() + 40]!r}"


@every_notebook
def test_it_stores_no_error(path):
    for cell in code(path):
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error", f"{path.name}: {output['ename']}: {output['evalue']}"
    assert not any(
        "Traceback (most recent call last)" in text for text in outputs(path, "stream", "text/plain")
    )


@every_notebook
def test_its_cells_keep_only_tags_and_have_unique_ids(path):
    found = cells(path)
    assert all(set(cell["metadata"]) <= {"tags"} for cell in found)
    assert len({cell["id"] for cell in found}) == len(found)


# Results chapters


@results_chapters
def test_a_results_chapter_starts_with_its_parameters(path):
    tagged = [cell["source"] for cell in code(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1, f"{path.name}: {len(tagged)} cells tagged 'parameters'; expected one"
    lines = ast.parse(tagged[0]).body
    assert all(isinstance(line, ast.AnnAssign) for line in lines), (
        f"{path.name}: expected 'name: type = value' lines only"
    )
    assert [line.target.id for line in lines[:2]] == ["profile", "data"]
    assert [ast.literal_eval(line.value) for line in lines[:2]] == ["mini", "data/miniature"]
    for line in lines:
        text = tagged[0].splitlines()[line.end_lineno - 1]
        assert re.search(r"\s# \S", text), f"{path.name}: {line.target.id} has no comment"


@results_chapters
def test_a_results_chapter_is_left_alone_by_nbdev_test_and_does_not_say_so_on_the_page(path):
    assert nb_frontmatter(read_nb(path)).get("skip_exec") is True
    assert "skip_exec" not in prose(path).replace("---\nskip_exec: true", ""), (
        f"{path.name}: '- skip_exec: true' under the title is printed by Quarto; put it into a cell of its own, "
        "'---', 'skip_exec: true', '---', or into the notebook's metadata as nbdev: {skip_exec: true}"
    )


@results_chapters
def test_code_lines_of_a_page_fit_a_page(path):
    for cell in code(path):
        long = [line for line in cell["source"].splitlines() if len(line) > 110 and not line.startswith("#|")]
        assert not long, f"{path.name}: {len(long[0])} characters: {long[0]}"


@results_chapters
def test_a_results_chapter_defines_nothing(path):
    for cell in code(path):
        source = "\n".join(line for line in cell["source"].splitlines() if not line.startswith(("%", "!")))
        defined = [
            node.name
            for node in ast.walk(ast.parse(source))
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        ]
        assert not defined, f"{path.name}: defines {defined}"


# The page of all numbers


def read_rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def kept_results(name):
    return read_rows(ROOT / "papers" / "results" / name)


def run_page(path, **parameters):
    "Values of a page's cells, run in this process with other parameters."
    space, values = {}, []
    for cell in code(path):
        lines = ast.parse(cell["source"]).body
        value = [ast.Expression(lines.pop().value)] if isinstance(lines[-1], ast.Expr) else []
        exec(compile(ast.Module(lines, []), path.name, "exec"), space)
        values += [eval(compile(last, path.name, "eval"), space) for last in value]
        if "parameters" in cell["metadata"].get("tags", []):
            space |= parameters
    return space, values


@pytest.fixture
def all_numbers(tmp_path, monkeypatch):
    "The page of all numbers in a project whose one run is what papers/results keeps of mini; `kept` are the results that stay."

    def run(kept=("mini-real.csv", "smoke-real.csv"), **parameters):
        shutil.copy(ROOT / "settings.ini", tmp_path)
        shutil.copytree(ROOT / "papers" / "original", tmp_path / "papers" / "original")
        (tmp_path / "papers" / "results").mkdir()
        for name in kept:
            shutil.copy(ROOT / "papers" / "results" / name, tmp_path / "papers" / "results")
        folder = tmp_path / "data" / "runs" / "mini-miniature"
        folder.mkdir(parents=True)
        ours, published = (
            kept_results("mini-miniature.csv"),
            read_rows(ROOT / "papers" / "original" / "claims.csv"),
        )
        columns = ["id", "published", "measured", "low", "high", "n", "protocol", "data", "status"]
        with open(folder / "claims.csv", "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            table.writeheader()
            table.writerows(
                row | dict(status="not yet") | ours.get(name, {}) for name, row in published.items()
            )
        monkeypatch.chdir(tmp_path)
        space, values = run_page(ROOT / "nbs/all_numbers.ipynb", **parameters)
        return space, [value.data for value in values if hasattr(value, "data")]

    return run


def test_the_sentence_above_the_table_of_all_numbers_is_what_the_table_counts(all_numbers):
    space, shown = all_numbers()
    sentence = next(text for text in shown if "published results" in text)
    measured, published = (
        int(word) for word in re.search(r"(\d+) of (\d+) published results", sentence).groups()
    )
    assert (measured, published) == (
        space["progress"]["measured"].sum(),
        space["progress"]["published"].sum(),
    )
    gaps = {row["id"] for _, row in space["claims"].iterrows() if row["status"] != "measured"}
    untrained = re.search(r"(?:does not train|lack) runs? (\d[\d, ]*\d|\d)|trains every", sentence)[1] or ""
    assert untrained == ", ".join(str(row) for row in range(1, 10) if f"table2-{row}-test_accuracy" in gaps)


def test_the_page_puts_numbers_of_photographs_beside_those_of_the_embedded_data(all_numbers):
    claims = all_numbers()[0]["claims"].set_index("id").to_dict("index")
    kept = kept_results("mini-real.csv")
    for name, row in claims.items():
        profile = (
            "mini" if name in kept else ""
        )  # The smallest profile is not shown: its networks hardly train
        expected = kept[name] if profile else dict.fromkeys(["measured", "low", "high", "n"], "")
        assert row["real profile"] == profile and all(
            row[f"real {key}"] == expected[key] for key in ("measured", "low", "high", "n")
        )
    assert claims["baselines-svm-accuracy"]["real measured"] not in (
        "",
        claims["baselines-svm-accuracy"]["measured"],
    )
    assert list(claims) == list(read_rows(ROOT / "papers/original/claims.csv"))


def test_every_result_on_the_page_has_a_verdict(all_numbers):
    space, shown = all_numbers()
    results = space["results"]
    assert len(results) == 75 and results["verdict"].ne("").all() and results["real verdict"].ne("").all()
    assert any(text.count("75 of 75 published results have a verdict") == 2 for text in shown)
    kept = read_rows(space["run"] / "claims.csv")
    assert all(kept[row["id"]]["verdict"] == row["verdict"] for _, row in results.iterrows())


def test_the_page_does_without_them_and_without_a_run(all_numbers):
    space, shown = all_numbers(kept=(), profile="smoke", data="data/elsewhere")
    assert space["claims"]["real measured"].eq("").all() and any("Not yet run" in text for text in shown)


# Pages of the report


REPORT = [path for path in PAGES if path.stem not in ("index", "08_demo", "using", "path", "glossary")]
report_pages = pytest.mark.parametrize("path", REPORT, ids=lambda path: path.stem)
LEAKS = (  # What a program says to itself, and a page should not say to a reader
    r"<urlopen error|\[Errno|PosixPath\(|WindowsPath\(|\bnp\.(?:float|int|bool|str)\w*\(| object at 0x[0-9a-f]+"
    r"|In JupyterLab, (?:where|any|set)|set `?profile`? to"
)
NUMBER = r"(?<![\w./:-])(?:0?\.\d{2,}|\d+(?:\.\d+)? ?%)(?![\w-])"
SETTINGS = {
    "95 %": "level of every interval",
    ".05": "level of a test",
}  # Typed numbers that nothing measured
MOST_TABLES, MOST_WORDS, MOST_COLUMNS = 5, 2000, 8
LONGER = {  # Pages above a limit: tables, words, and the reason
    "03_image_retrieval": (7, MOST_WORDS, "two tasks, each without and with distortions"),
}


def rendered(text):
    "Text of a cell that a reader sees: without code, links' targets, comments and settings' names."
    return re.sub(r"\]\([^)]*\)|<!--.*?-->|^\|.*\|$", "]", without_code(text), flags=re.M | re.S)


def typed_numbers(text, published):
    "Measured numbers that are typed in prose: fractions of two digits or more, and percentages."
    allowed = published | {known.lstrip("0") for known in SETTINGS}
    return [found for found in re.findall(NUMBER, rendered(text)) if found.lstrip("0") not in allowed]


def published_numbers():
    rows = [*read_rows(ROOT / "papers/original/claims.csv").values()]
    return {row["published"].lstrip("0") for row in rows}


def captions_of(path):
    return [
        cell["source"] for cell in code(path) if re.search(r"^#\| (?:fig|tbl)-cap:", cell["source"], re.M)
    ]


@pytest.mark.parametrize(
    "text, found",
    [
        ("The AUC is 0.873 on photographs.", ["0.873"]),
        ("It is right for 83 % of the images, and for 7.5% of the others.", ["83 %", "7.5%"]),
        ("With a 95 % interval; the report states .6756, decay 0.05 [DOI](10.12/0.777).", []),
        ("Chance level is 0.5, and `0.123` is code; section 5.2, version 0.2.0.", []),
    ],
)
def test_a_typed_number_is_found(text, found):
    assert typed_numbers(text, {".6756", ".05"}) == found


@report_pages
def test_no_measured_number_is_typed_in_prose(path):
    "A published value is no measurement of ours; it may be repeated as it is printed."
    texts = [cell["source"] for cell in cells(path) if cell["cell_type"] == "markdown"]
    texts += [re.sub(r"^(?!#\|).*$", "", source, flags=re.M) for source in captions_of(path)]
    for text in texts:
        typed = typed_numbers(text, published_numbers())
        assert not typed, (
            f"{path.name}: {typed} typed in prose; expected a sentence that a tested function makes from files: "
            f"{text[:80]!r}"
        )


@report_pages
def test_figures_of_the_original_report_are_called_original(path):
    texts = [rendered(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown"]
    for text in [*texts, *captions_of(path)]:
        found = re.search(r"(?<!riginal )\b[Ff]igures? \d|^#\| tbl-cap: \"Table \d|^#+ Table \d", text, re.M)
        assert not found, f"{path.name}: {found[0]!r}; expected 'original figure 3', 'original table 2'"


@pytest.mark.parametrize(
    "path", PAGES, ids=lambda path: path.stem
)  # A chapter may show what a value looks like
def test_it_shows_nothing_that_a_program_says_to_itself(path):
    shown = [cell["source"] for cell in cells(path) if cell["cell_type"] == "markdown"]
    for text in [*shown, *outputs(path, "stream", "text/html", "text/markdown")]:
        found = re.search(LEAKS, text)
        assert not found, f"{path.name}: {text[max(found.start() - 60, 0) : found.end() + 40]!r}"


def tables_of(path):
    "Label and HTML of every table that the page shows."
    for cell in code(path):
        label = directives(cell["source"]).get("label", "")
        for output in cell.get("outputs", []):
            html = "".join(output.get("data", {}).get("text/html", ""))
            if "<table" in html:
                yield label, html


@report_pages
def test_its_tables_have_a_label_and_fit_a_page(path):
    for label, html in tables_of(path):
        assert label.startswith("tbl-"), f"{path.name}: a table without a label: {html[:80]!r}"
        line = re.search(r"<tbody>.*?</tr>", html, flags=re.S)
        columns = len(re.findall(r"<t[dh]\b", line[0])) if line else 0
        if path.stem != "all_numbers":  # One long table that one can search
            assert columns <= MOST_COLUMNS, f"{path.name}: {label} has {columns} columns"


@report_pages
def test_every_image_that_it_shows_has_alt_text(path):
    for cell in code(path):
        kinds = [kind for output in cell.get("outputs", []) for kind in output.get("data", {})]
        if any(kind.startswith("image/") for kind in kinds):
            assert directives(cell["source"]).get("fig-alt"), f"{path.name}: cell {cell['id']}"


@report_pages
def test_a_page_is_short(path):
    n_tables = sum(label.startswith("tbl-") for label in labels(path))
    n_words = len(re.findall(r"\w+", prose(path)))
    most_tables, most_words, _ = LONGER.get(path.stem, (MOST_TABLES, MOST_WORDS, ""))
    assert n_tables <= most_tables, f"{path.name}: {n_tables} tables; expected at most {most_tables}"
    assert n_words <= most_words, f"{path.name}: {n_words} words; expected at most {most_words}"


def test_only_what_makes_a_figure_or_a_table_is_folded_on_a_page():
    for path in REPORT:
        for cell in code(path):
            if "parameters" in cell["metadata"].get("tags", []):
                continue
            found = directives(cell["source"])
            assert {"label", "echo", "include"} & set(found), (
                f"{path.name}: cell {cell['id']} only glues; expected '#| echo: false'"
            )


UNDER = {"fig": "made_by", "tbl": "download"}  # The line under a figure, under a table


@pytest.mark.parametrize("path", REPORT, ids=lambda path: path.stem)
def test_a_line_under_each_figure_says_how_to_make_it_and_under_each_table_where_to_download_it(path):
    found = cells(path)
    for cell, after in zip(found, [*found[1:], {}], strict=True):
        label = directives(cell["source"]).get("label", "") if cell["cell_type"] == "code" else ""
        if not label:
            continue
        name, line = UNDER[label[:3]], after.get("source", "").strip().splitlines()
        assert line and line[0] == "#| echo: false" and line[-1].startswith(f"Markdown({name}("), (
            f"{path.name}: {label}; expected a cell under it with '#| echo: false' and 'Markdown({name}(...))'"
        )


def test_tables_of_runs_are_part_of_the_site():
    "The line under a table links to them; a page stands in nbs/."
    kept = sorted((ROOT / "papers" / "results").glob("*/*.csv"))
    shipped = {path for pattern in CONFIG["project"]["resources"] for path in ROOT.glob(pattern)}
    assert kept and set(kept) <= shipped
    for path in kept:
        assert path.stat().st_size <= 200_000, f"{path.name}: {path.stat().st_size} bytes"
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.:/])/(?:home|root|Users|work|tmp|mnt|opt|usr|var)/", text), path.name


# Identity of the site


def test_the_site_has_an_identity_and_its_pages_need_no_network():
    website = CONFIG["website"]
    assert website["open-graph"] and (ROOT / website["favicon"]).is_file()
    footer = json.dumps(website["page-footer"])
    version = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)[
        1
    ]
    assert "Apache" in footer and f"version {version}" in footer
    for path in NOTEBOOKS:
        for text in outputs(path, "text/html"):
            assert not re.search(r"<(?:script|link)[^>]+https?://", text), (
                f"{path.name}: loads a file from elsewhere"
            )


def test_addresses_of_site_and_repository_come_from_one_place():
    "Where the site stands is not known here: the workflow writes both addresses into a profile that is not committed."
    text = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    assert "site-url" not in CONFIG["website"] and "repo-url" not in CONFIG["website"]
    workflow = (ROOT / ".github/workflows/site.yml").read_text(encoding="utf-8")
    assert "_quarto-published.yml" in workflow and "site-url: " in workflow and "repo-url: " in workflow
    assert "_quarto-published.yml" in text


def after_render():
    spec = importlib.util.spec_from_file_location("after_render", ROOT / ".ci" / "after_render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scripts_that_pages_would_fetch_from_elsewhere_are_taken_out(tmp_path):
    fetch = "https://cdnjs.cloudflare.com/ajax/libs/"
    kept = '<script src="site_libs/quarto.js"></script>'
    page = tmp_path / "nbs" / "page.html"
    page.parent.mkdir()
    page.write_text(
        f'<head>{kept}<script src="{fetch}require.js/2.3.6/require.min.js" integrity="sha512-a" crossorigin="anonymous"></script>\n'
        f'<script src="{fetch}jquery/3.5.1/jquery.min.js" data-relocate-top="true"></script>\n'
        "<script type=\"application/javascript\">define('jquery', [],function() {return window.jQuery;})</script></head>"
    )
    after_render().main(tmp_path)
    assert page.read_text().replace("\n", "") == f"<head>{kept}</head>"


def test_a_redirect_works_without_scripts(tmp_path):
    page = tmp_path / "index.html"
    page.write_text(
        '<html><head><script>var redirects = {"":"nbs/index.html"};window.location.replace(redirects[""]);</script></head>'
        "<body></body></html>"
    )
    after_render().main(tmp_path)
    assert '<noscript><a href="nbs/index.html">' in page.read_text()
    after_render().main(tmp_path)
    assert page.read_text().count("<noscript>") == 1
    assert CONFIG["project"]["post-render"] == "python3 .ci/after_render.py"


def test_quarto_is_pinned():
    workflow = (ROOT / ".github/workflows/site.yml").read_text(encoding="utf-8")
    assert re.search(
        r"quarto-dev/quarto-actions/setup@v\d+\n\s+with:\n\s+version: [\"']?\d+\.\d+\.\d+", workflow
    )


# The workflows


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name
)
def test_workflows_hold_no_secret_and_ask_for_little(path):
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert "secrets." not in text and "pull_request_target" not in text
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert set(job.get("permissions", {})) <= {"pages", "id-token"}
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert re.fullmatch(r"(actions|quarto-dev)/[\w/-]+@v\d+", step.get("uses", "actions/x@v1")), step


# Rendered


def test_it_renders_without_a_warning(tmp_path):
    if shutil.which("quarto") is None:
        pytest.skip("quarto is not on PATH: rendering was not tried; the checks above read the sources only")
    site = tmp_path / "project"
    for name in ("nbs", "papers", ".ci", "deepfake_nbs"):
        shutil.copytree(ROOT / name, site / name, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    for name in ("_quarto.yml", "README.md", "LICENSE", "CITATION.cff", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, site / name)
    (site / "data").mkdir()
    shutil.copy(ROOT / "data" / "README.md", site / "data")
    done = subprocess.run(["quarto", "render"], cwd=site, capture_output=True, text=True, check=False)
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    assert not re.search(r"WARN|ERROR|Unable to resolve", log), log
    for page in CONFIG["project"]["render"]:
        rendered = site / CONFIG["project"]["output-dir"] / Path(page).with_suffix(".html")
        assert rendered.is_file(), f"{page}: no page was made"
        html = rendered.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(<p>)?:::", html, flags=re.M), f"{page}: a literal ':::'"
        assert not re.search(r"<script[^>]+src=\"https?://", html), f"{page}: loads a script from elsewhere"
        assert "?@fig-" not in html and "?@tbl-" not in html, f"{page}: an unresolved cross-reference"
    assert (site / CONFIG["project"]["output-dir"] / "index.html").is_file(), "the site has no front page"
