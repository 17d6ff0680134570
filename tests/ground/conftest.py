"A small project with one page, for the tests of what executes and publishes it."

import nbformat
import pytest


@pytest.fixture
def chapter(tmp_path, root, monkeypatch):
    "A project of one chapter in a folder of its own."
    (tmp_path / "settings.ini").write_text((root / "settings.ini").read_text())
    (tmp_path / "nbs").mkdir()
    parameters = nbformat.v4.new_code_cell(
        'row: int = 8  # Row\ndata: str = "a"', metadata={"tags": ["parameters"]}
    )
    cells = [parameters, nbformat.v4.new_code_cell("assert row != 13\nrow * 2")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "nbs" / "x.ipynb")
    monkeypatch.chdir(tmp_path)
    return tmp_path
