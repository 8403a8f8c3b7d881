"""A file's language, by its name."""

from __future__ import annotations

_EXTENSIONS = {
    "Assembly": "asm s",
    "C": "c h",
    "C#": "cs",
    "C++": "cc cpp cxx hh hpp hxx",
    "CSS": "css less sass scss",
    "CSV": "csv tsv",
    "Dart": "dart",
    "Elixir": "ex exs",
    "Erlang": "erl hrl",
    "Go": "go",
    "Haskell": "hs",
    "HTML": "htm html",
    "Images": "gif ico jpeg jpg png svg webp",
    "INI": "cfg ini",
    "Java": "java",
    "JavaScript": "cjs js jsx mjs",
    "JSON": "json jsonl",
    "Julia": "jl",
    "Kotlin": "kt kts",
    "Lua": "lua",
    "Markdown": "markdown md",
    "Nix": "nix",
    "OCaml": "ml mli",
    "Perl": "pl pm",
    "PHP": "php",
    "Python": "py pyi",
    "R": "r",
    "reStructuredText": "rst",
    "Ruby": "rb",
    "Rust": "rs",
    "Scala": "scala",
    "Shell": "bash fish sh zsh",
    "SQL": "sql",
    "Swift": "swift",
    "TeX": "bib cls sty tex",
    "Text": "txt",
    "TOML": "toml",
    "TypeScript": "cts mts ts tsx",
    "XML": "xml xsd",
    "YAML": "yaml yml",
    "Zig": "zig",
}
_NAMES = {"dockerfile": "Docker", "makefile": "Make", "cmakelists.txt": "CMake", "license": "Text"}
_LANGUAGES = {
    extension: language for language, extensions in _EXTENSIONS.items() for extension in extensions.split()
}


def language_of(path: str) -> str:
    """The language of a path as git prints it, quoted or not; ``Other`` for one that nobody knows."""
    name = path.strip('"').rsplit("/", 1)[-1].lower()
    return _NAMES.get(name) or _LANGUAGES.get(name.rpartition(".")[2] if "." in name else "", "Other")
