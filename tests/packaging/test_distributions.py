"""The wheel and the sdist: built, installed outside the clone, run, and type-checked against."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
from dataclasses import dataclass

import perdure


@dataclass
class Order:
    item: str
    count: int


checkout = perdure.op("checkout", input=Order, output=int)


@checkout.state
def cents(order: Order) -> int:
    return order.count * 450


@checkout.state
async def total(order: Order, goods: int = cents.result) -> int:
    return goods + 500


async def main() -> None:
    async with perdure.open("runs.db", app=checkout) as client:
        run = await client.start(checkout, Order("tea", 3), key="order-7")
        reveal_type(await run.result())


with perdure.open("runs.db", app=checkout) as blocking:
    reveal_type(blocking.start(checkout, Order("tea", 3)).result())
    blocking.start(checkout, "tea")
reveal_type(cents(Order("tea", 3)))
reveal_type(cents.result)
wrong: str = cents.result
"""


def run(command: Sequence[str | Path], folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command in ``folder``, without what this suite's environment would add."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PERDURE"))}
    return subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=kept | environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build: list[str | Path] = [sys.executable, "-m", "hatchling", "build", "-d", folder]
    done = run([*build, "-t", "sdist"], ROOT)
    assert done.returncode == 0, done.stderr
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    done = run([*build, "-t", "wheel"], unpacked)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel. What it depends on is lent by the environment of this suite."""
    folder = tmp_path_factory.mktemp("venv")
    (wheel,) = built.glob("*.whl")
    assert run([sys.executable, "-m", "venv", "--without-pip", folder], folder).returncode == 0
    install: list[str | Path] = ["install", "--no-deps", "--no-index", "--no-compile", wheel]
    done = run([sys.executable, "-m", "pip", "--python", folder / "bin" / "python", *install], folder)
    assert done.returncode == 0, done.stderr
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_what_is_in_them(built: Path) -> None:
    """All of the package, with types, migrations and licence; nothing that only developers need."""
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".pyo")
    }
    assert sources == {name for name in names if not name.startswith("perdure-")}
    assert {"perdure/py.typed", "perdure/__init__.pyi"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    entries = next(name for name in names if name.endswith("entry_points.txt"))
    text = zipfile.ZipFile(wheel).read(entries).decode()
    assert "perdure = perdure.cli:main" in text
    assert "[perdure.transports]" in text
    with tarfile.open(sdist) as archive:
        kept = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "CHANGELOG.md", "LICENSE", "dev.py", "tools/commands.py", "pyproject.toml"} <= kept


def test_the_demo_runs(installed: Path, tmp_path: Path) -> None:
    """Killed half-way, resumed, replayed; without the clone."""
    where = run([installed / "bin" / "python", "-c", "import perdure; print(perdure.__file__)"], tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(installed)
    done = run([installed / "bin" / "perdure", "demo"], tmp_path, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert "asked in all: shop.catalogue 1x, shop.warehouse 1x, shop.couriers 1x" in done.stdout
    assert 'receipt: "3 x tea: 13.50, brought by Ada"' in done.stdout
    assert "all 4 states come out as recorded" in done.stdout


def test_the_http_transport_is_found(installed: Path, tmp_path: Path) -> None:
    """By its entry point."""
    program = (
        "from perdure.sdk.app import installed_transport\n"
        "print(installed_transport('http.get').namespace_group, installed_transport('nothing'))"
    )
    done = run([installed / "bin" / "python", "-c", program], tmp_path)
    assert done.stdout == "http None\n", done.stderr


def test_a_user_s_program_is_typed(installed: Path, tmp_path: Path) -> None:
    """Inputs, results and what one state takes from another are checked by mypy --strict."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (readme,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert readme.count("\n") <= 25
    (tmp_path / "readme.py").write_text(readme)
    mypy: list[str | Path] = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary"]
    interpreter = installed / "bin" / "python"
    done = run(
        [*mypy, "--python-executable", interpreter, "--cache-dir", "cache", "program.py", "readme.py"],
        tmp_path,
    )
    assert "readme.py" not in done.stdout
    told = re.findall(r"^program\.py:\d+: (error|note: .*)", done.stdout, re.MULTILINE)
    is_int = 'note: Revealed type is "int"'
    assert told == [is_int, is_int, "error", is_int, is_int, "error"], done.stdout


PLUGIN = """
import perdure
from perdure import Stores

greet = perdure.op("greet", input=str, output=str)


@greet.state
async def greeting(name: str, io: perdure.IoProvider) -> str:
    answer = await io.call(perdure.IoCall("words.hello", {}, fact_key="hello"))
    return f"{answer.response} {name}"


@perdure.transport("words")
def words(call, env):
    return "hello"


app = perdure.App([greet])


def transport():
    return words


def store(rest, failpoints):
    print("opened", rest)
    return Stores.open("memory:")
"""
ENTRIES = """
[perdure.ops]
plugin = plugin:app
[perdure.transports]
words = plugin:transport
[perdure.stores]
plugged = plugin:store
"""


def test_installed_packages_add_to_it(installed: Path, tmp_path: Path) -> None:
    """Operations, transports and stores, by their entry points."""
    site = next(installed.glob("lib/python*/site-packages"))
    metadata = site / "plugin-1.dist-info"
    metadata.mkdir()
    (site / "plugin.py").write_text(PLUGIN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRIES)
    perdure = installed / "bin" / "perdure"
    assert "greet" in run([perdure, "op", "list", "--store", "memory:"], tmp_path).stdout
    words: list[str | Path] = [
        perdure,
        "run",
        "start",
        "greet",
        "--input",
        '"you"',
        "--store",
        "plugged:here",
    ]
    done = run(words, tmp_path)
    assert "opened here" in done.stdout, done.stderr
    assert 'greeting: "hello you"' in done.stdout
