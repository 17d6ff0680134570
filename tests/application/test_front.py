"The front page and the README say what the kept numbers say."

import re

import pytest

from deepfake_nbs.application import front
from deepfake_nbs.application.shipped import shipped_folder
from deepfake_nbs.classifiers.key_findings import Finding


@pytest.fixture(scope="module")
def kept():
    return front.read_front(kept=True)


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text(encoding="utf-8")


def test_the_blocks_of_the_readme_are_those_of_the_kept_numbers(kept, readme):
    assert front.fill_readme(readme, kept) == readme, "run `make readme`"


def test_the_figure_of_the_readme_shows_the_kept_numbers(kept, root):
    assert front.drawn_fingerprint(root / front.FIGURE) == front.systems_fingerprint(kept), (
        "run `make readme`"
    )


def test_another_number_is_another_fingerprint(kept):
    other = front.FrontPage(
        kept.findings,
        kept.systems.assign(value=kept.systems["value"] + 0.001),
        kept.levels,
        kept.verdicts,
        kept.shipped,
    )
    assert front.systems_fingerprint(other) != front.systems_fingerprint(kept)


def numbers(text):
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


@pytest.mark.skipif(not (shipped_folder() / "files.csv").is_file(), reason="no shipped networks here")
def test_the_check_of_the_readme_is_what_the_command_prints(readme, root):
    shown, printed = readme.partition("<!-- check -->\n")[2], front.check_block(root)
    shown = shown.partition("\n<!-- end of check -->")[0]
    assert re.sub(r"\d+\.\d+", "_", shown) == re.sub(r"\d+\.\d+", "_", printed), "run `make readme`"
    # Processors round differently; the distance has a scale of its own
    assert numbers(shown) == pytest.approx(numbers(printed), abs=0.02, rel=0.02)


def test_a_reader_reaches_the_table_of_folders_within_450_words(readme):
    text = readme.partition("## Where things are")[0]
    text = re.sub(r"^```.*?^```", "", re.sub(r"<!--.*?-->", "", text), flags=re.M | re.S)
    assert len(text.split()) <= 450


@pytest.mark.parametrize(
    "text", ["", "<!-- x -->\n", "<!-- end of x --><!-- x -->", "<!-- x --><!-- x --><!-- end of x -->"]
)
def test_a_file_without_its_block_is_refused(text):
    with pytest.raises(ValueError, match="README.md: expected one block"):
        front.replace_block(text, "x", "new")


def test_a_box_keeps_its_link_and_text():
    text = front.findings_boxes([Finding("Title", "A sentence with 0.5.", "04_baselines")])
    assert "**Title**\n\nA sentence with 0.5. [Evidence](04_baselines.ipynb)" in text


def test_the_front_page_has_six_findings_with_pages_that_exist(kept, root):
    assert len(kept.findings) == 6 and len(kept.verdicts) <= 15
    assert all((root / "nbs" / f"{finding.page}.ipynb").is_file() for finding in kept.findings)


def test_every_box_of_the_diagram_leads_to_a_page(root):
    links = re.findall(r'<a href="([^"]+)"', front.pipeline_svg())
    assert len(links) == len(front.STEPS) and all((root / "nbs" / link).is_file() for link in links)
