"""The documents list what the code has: settings, keys, records, tests."""

import re
from pathlib import Path

import msgspec
import pytest

from s3gw.config import Config
from s3gw.metadata import (
    identity_records,
    inventory_records,
    key_records,
    keys,
    lifecycle_records,
    records,
)

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *sorted((REPOSITORY / "docs").glob("*.md")),
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "CHANGELOG.md",
]


def document(name: str) -> str:
    return (REPOSITORY / "docs" / name).read_text()


def first_cells(text: str, heading: str) -> list[list[str]]:
    """The rows of the table below a heading, as lists of cells."""
    section = text.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1:]]


def shown(default: object) -> str:
    return f"`{default}`" if default not in ("", ()) else "none"


def test_every_setting_is_listed_with_its_default() -> None:
    table = document("operations.md").split("<!-- settings:begin -->")[1]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", table.split("<!-- settings:end -->")[0], re.M)
    settings = {f.name: shown(f.default) for f in msgspec.structs.fields(Config)}
    assert dict(rows) == settings


def test_the_keys_listed_are_those_that_are_spelled() -> None:
    listed = {
        row[0].strip("`").split("/")[0] for row in first_cells(document("format.md"), "## Keys")
    }
    source = Path(keys.__file__).read_text()
    spelled = set(re.findall(r'b"([a-z]+)/', source)) | {
        "store",
        "generation",
        "draft",
        "tunables",
        "scrub",
        "restored",
    }
    assert listed == spelled


def test_the_records_listed_have_these_fields_in_this_order() -> None:
    rows = first_cells(document("format.md"), "## Records")
    listed = {row[0]: [field.split()[0] for field in split_fields(row[1])] for row in rows}
    kinds = [
        kind
        for module in (
            records,
            identity_records,
            inventory_records,
            key_records,
            lifecycle_records,
        )
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind is not msgspec.Struct
    ]
    assert listed == {
        kind.__name__: [field.name for field in msgspec.structs.fields(kind)] for kind in kinds
    }


def split_fields(text: str) -> list[str]:
    """Field names between commas, remarks in parentheses and behind semicolons left out."""
    plain = re.sub(r"\([^)]*\)", "", text.split(";")[0])
    return [part.strip() for part in plain.split(",")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_links_to_or_names_exists(path: Path) -> None:
    text = path.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
    named = re.findall(r"`([a-z0-9_]+(?:/[a-z0-9_]+)+\.py)`", text)
    # Modules of the gateway and areas of the tests go by their short names, too.
    roots = (REPOSITORY, REPOSITORY / "s3gw", REPOSITORY / "tests")
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


def test_the_test_files_named_for_faults_and_attacks_exist() -> None:
    text = document("testing.md")
    named = set(re.findall(r"`(?:[a-z_]+/)?(test_\w+\.py)`", text))
    assert named
    assert named <= {path.name for path in (REPOSITORY / "tests").rglob("test_*.py")}
