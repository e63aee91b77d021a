"""What the site takes from outside of ``docs/``: the README is its home page, and so on.

MkDocs calls these hooks; each file has one source, and links between the two places are mended.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
NOTEBOOK = "tutorial.ipynb"
TAKEN = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand elsewhere."""
    for source, page in TAKEN.items():
        text = _inward((ROOT / source).read_text(encoding="utf-8"), Path(source).parent)
        files.append(File.generated(config, page, content=text))
    notebook = json.loads((ROOT / "docs" / NOTEBOOK).read_text(encoding="utf-8"))
    text = "\n\n".join(map(_cell, notebook["cells"]))
    files.append(File.generated(config, NOTEBOOK.replace(".ipynb", ".md"), content=text))
    return files


def _cell(cell: dict[str, Any]) -> str:
    """Return a cell of a notebook as Markdown, its outputs below it."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    parts = [f"```python\n{source}\n```"]
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            encoded = "".join(data["image/png"]).replace("\n", "")
            parts.append(f"![output](data:image/png;base64,{encoded})")
        elif text := "".join(output.get("text") or data.get("text/plain", [])):
            parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Mend links that lead out of ``docs/``."""
    for source, page in TAKEN.items():
        markdown = markdown.replace(f"](../{source}", f"]({page}")
    return markdown.replace(f"]({NOTEBOOK}", f"]({NOTEBOOK.replace('.ipynb', '.md')}")


def _inward(text: str, folder: Path) -> str:
    """Return a page with links as they are inside of ``docs/``."""
    up = "../" * len(folder.parts)
    text = text.replace(f"]({up}docs/", "](").replace("](benchmarks/)", "](benchmarks.md)")
    for source, page in TAKEN.items():
        text = text.replace(f"]({up}{source})", f"]({page})")
    return text
