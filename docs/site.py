"""What the site takes from outside of ``docs/``: the README is its home page, and so on.

MkDocs calls these hooks; each file has one source, and links between the two places are mended.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
TAKEN = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand elsewhere."""
    for source, page in TAKEN.items():
        text = _inward((ROOT / source).read_text(encoding="utf-8"), Path(source).parent)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Mend links that lead out of ``docs/``."""
    for source, page in TAKEN.items():
        markdown = markdown.replace(f"](../{source}", f"]({page}")
    return markdown


def _inward(text: str, folder: Path) -> str:
    """Return a page with links as they are inside of ``docs/``."""
    up = "../" * len(folder.parts)
    text = text.replace(f"]({up}docs/", "](").replace("](benchmarks/)", "](benchmarks.md)")
    for source, page in TAKEN.items():
        text = text.replace(f"]({up}{source})", f"]({page})")
    return text
