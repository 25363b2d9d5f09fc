"""The README says what the code says."""

import re
from pathlib import Path

from s3gw.server.compatibility import table

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()
BEGIN, END = "<!-- compatibility:begin -->\n", "<!-- compatibility:end -->"


def test_compatibility_table_is_what_the_route_table_generates() -> None:
    start = README.index(BEGIN) + len(BEGIN)
    assert README[start : README.index(END)] == table(), (
        "bring it up to date: python -m s3gw.server.compatibility"
    )


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README)
    files = [link for link in links if "://" not in link]
    assert files
    assert [link for link in files if not (REPOSITORY / link).exists()] == []
