"""The habits of this code base, kept by a test instead of by memory.

Every rule reads the files as text or as a syntax tree; nothing is imported or run.
"""

import ast
import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("erasure", "placement", "nodes", "s3gw")
PROGRAMS = (*PACKAGES, "compose", "bench")
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 600


def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file. What the collector of garbage calls meanwhile makes CPython 3.11
    miscount how deep it is: "AST constructor recursion depth mismatch"."""
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


# One library, one home: the modules that may import it, as dotted prefixes.
HOMES = {
    "zstandard": ("s3gw.objects.content.compression",),
    "starlette": ("s3gw.server", "s3gw.admin", "nodes.server"),
    "hypercorn": ("nodes.http_guard",),
    "aiohttp": ("nodes.client",),
    "httpx": (
        "s3gw.admin",
        "s3gw.events",
        "s3gw.cli",
        "s3gw.identities.web_identity",
        "s3gw.objects.keyring.transit",
    ),
    "pyarrow": ("s3gw.workers.inventory_encoder",),
    "pyeclib": ("erasure.codec",),
    "xmltodict": ("s3gw.wire.xml",),
    "multipart": ("s3gw.wire.forms",),
    "aetcd": ("s3gw.kv.etcd",),
    "grpc": ("s3gw.kv.etcd",),
    "sqlite3": ("s3gw.kv.sqlite",),
    "cryptography": (
        "s3gw.objects.content.sealing",
        "s3gw.pki",
        "s3gw.identities.sealing",
        "s3gw.identities.web_identity",
    ),
    "jwt": ("s3gw.identities.web_identity",),
}

# Written in pieces, so that this file does not break its own rules.
MARKERS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
MACHINE_PATHS = re.compile("|".join(("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/[a-z]")))
SKIPS = re.compile("py" + r"test\.(skip|importorskip|xfail|mark\.(skip|skipif|xfail))\b")
SLEEPS = re.compile("time" + r"\.sleep\(")

# Polling for the readiness of a real process is what may sleep; tests themselves never do.
POLLING_MODULES = {"tests/kv/etcd_server.py"}

TEXT_SUFFIXES = {".py", ".toml", ".md", ".lock", ".yml", ".yaml", ".sh", ".html", ".js", ".css", ""}
SKIPPED_FOLDERS = {".git", ".venv", "__pycache__", "data", "cluster-data", "build", "dist"}


def files_under(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            hidden_tool_folder = path.name.startswith(".") and path.name != ".ci"
            if not hidden_tool_folder and path.name not in SKIPPED_FOLDERS:
                yield from files_under(path)
        elif path.suffix in TEXT_SUFFIXES:
            yield path


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


ALL_FILES = list(files_under(REPOSITORY))
PYTHON_FILES = [path for path in ALL_FILES if path.suffix == ".py"]


def python_files_in(folders: tuple[str, ...]) -> list[Path]:
    return [path for path in PYTHON_FILES if relative(path).split("/")[0] in folders]


def lines_matching(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    return [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]


def test_every_function_fits_on_a_screen() -> None:
    too_long = [
        f"{relative(path)}:{node.lineno} {node.name}"
        for path in PYTHON_FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert too_long == []


def test_every_module_can_be_read_in_a_sitting() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in PYTHON_FILES}
    assert {name: length for name, length in lengths.items() if length > MODULE_LINES_MAX} == {}


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    drawers = re.compile(r"(^|/)_?(utils?|common|helpers?|misc)(\.py|/)")
    assert [relative(path) for path in PYTHON_FILES if drawers.search(relative(path))] == []


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


@pytest.mark.parametrize("library", HOMES)
def test_every_library_is_imported_in_its_home_only(library: str) -> None:
    strangers = []
    for path in python_files_in(PACKAGES):
        module = relative(path).removesuffix(".py").replace("/", ".")
        at_home = module.startswith(HOMES[library])
        if not at_home and any(name.split(".")[0] == library for name in imported_modules(path)):
            strangers.append(module)
    assert strangers == []


def test_nothing_is_left_for_later() -> None:
    assert lines_matching(MARKERS, ALL_FILES) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert lines_matching(MACHINE_PATHS, ALL_FILES) == []


def test_no_test_is_skipped() -> None:
    assert lines_matching(SKIPS, python_files_in(("tests",))) == []


def test_no_test_sleeps() -> None:
    tests = [path for path in python_files_in(("tests",)) if relative(path) not in POLLING_MODULES]
    assert lines_matching(SLEEPS, tests) == []


@pytest.mark.parametrize(
    "name", ["requirements.lock", "requirements-dev.lock", "requirements-clients.lock"]
)
def test_lock_files_pin_versions_and_hashes_and_name_no_address(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    requirements = re.findall(r"^[A-Za-z].*$", text, re.MULTILINE)
    assert requirements
    assert [line for line in requirements if "==" not in line] == []
    assert text.count("--hash=sha256:") >= len(requirements)
    assert re.findall(r"[a-z]+://|--index|--find-links|file:", text) == []


def test_the_development_lock_agrees_with_the_runtime_lock() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[A-Za-z]\S*==\S+", (REPOSITORY / name).read_text(), re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-dev.lock")
