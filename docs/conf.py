"""How Sphinx builds the documentation: `python3 dev.py docs`."""

from __future__ import annotations

from pathlib import Path

import perdure
from perdure.hints import HINTS

project = "Perdure"
author = "Perdure maintainers"
copyright = author  # noqa: A001 — Sphinx's name
version = release = perdure.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "_generated"]
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# The README and the decisions link files of the repository that are no pages here.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"Perdure {release}"
html_show_sourcelink = False
html_copy_source = False


def _write_hints() -> None:
    """The table of error codes, from the code."""
    rows = [f"`{code}`\n: {hint}\n" for code, hint in sorted(HINTS.items())]
    folder = Path(__file__).parent / "_generated"
    folder.mkdir(exist_ok=True)
    text = "\n".join(rows)
    path = folder / "codes.md"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


_write_hints()
myst_enable_extensions.append("deflist")
