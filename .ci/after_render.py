"""After `quarto render`: pages load no script from elsewhere, and a redirect has a link for readers without scripts.

Quarto adds require.js and jQuery from a server to every page that shows HTML, for widgets; no page here has one.
Standard library alone: Quarto runs it with the Python that is there."""

import json
import os
import re
import sys
from pathlib import Path

FETCHED = re.compile(
    r"<script[^>]*\ssrc=\"https?://[^\"]*(?:require|jquery)[^\"]*\"[^>]*></script>\n?"
    r"|<script[^>]*>\s*define\('jquery'.*?</script>\n?",
    flags=re.S,
)
REDIRECTS = re.compile(r"var redirects = (\{.*?\});", flags=re.S)


def without_fetched(html: str) -> str:
    "A page without what it would fetch for widgets."
    return FETCHED.sub("", html)


def with_link(html: str) -> str:
    "A redirect with a link to where it leads; another page as it is."
    found = REDIRECTS.search(html)
    if not found or "<noscript>" in html:
        return html
    target = json.loads(found[1]).get("", "")
    link = f'<noscript><a href="{target}">This page has moved: {target}</a></noscript>'
    end = "</body>" if "</body>" in html else "</html>"
    return html.replace(end, f"{link}\n{end}", 1) if end in html else html + link


def main(folder: Path) -> int:
    "Change the pages of a rendered site in place; how many were changed."
    changed = 0
    for page in sorted(folder.rglob("*.html")):
        html = page.read_text(encoding="utf-8")
        new = with_link(without_fetched(html))
        if new != html:
            page.write_text(new, encoding="utf-8")
            changed += 1
    return changed


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("QUARTO_PROJECT_OUTPUT_DIR", "_site"))
    print(f"{main(out)} pages changed after rendering")
