"""docs/structure.md against the tree, and the size of folders."""

import re
import subprocess
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
STRUCTURE = ROOT / "docs" / "structure.md"
PACKAGES = ("lth_core", "tracking", "sweeps")
MOST_FILES = 14
"""In a source folder beside its sub-folders; a folder of more files is not seen at a glance."""
QUOTED = re.compile(r"`([^`\n]+)`")
DEFINED = re.compile(r"`(\w+)` in `([^`]+\.py)`")


def tracked() -> list[PurePosixPath]:
    """The repository's files, relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a checkout")
    return [PurePosixPath(line) for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def source_folders() -> set[str]:
    return {str(file.parent) for file in tracked() if file.parts[0] in PACKAGES}


def structure() -> str:
    return STRUCTURE.read_text()


def test_the_table_of_folders_names_every_source_folder_and_no_other() -> None:
    table = structure().partition("## Folders")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([^`]+)/` \|", table, flags=re.MULTILINE)
    assert Counter(named) == Counter(source_folders())


def test_every_path_that_the_structure_names_exists() -> None:
    paths = [name for name in QUOTED.findall(structure()) if "/" in name or name.endswith(".md")]
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_step_of_the_data_flow_is_a_module_or_a_folder() -> None:
    diagram = structure().partition("```mermaid")[2].partition("```")[0]
    steps = re.findall(r"\[+\(?([a-z_]+(?:/[a-z_]+)+)", diagram)
    places = {
        str(PurePosixPath(*file.parts[first:]).with_suffix(""))
        for file in tracked() if file.parts[0] in PACKAGES for first in (0, 1)
    } | source_folders()  # fmt: skip
    assert len(steps) >= 7
    assert [step for step in steps if step not in places] == []


def test_every_name_that_the_structure_finds_in_a_file_is_defined_there() -> None:
    found = DEFINED.findall(structure())
    assert len(found) >= 8
    missing = [
        (name, path) for name, path in found
        if not re.search(rf"^(def|class) {name}\b|^{name}\b.*=", (ROOT / path).read_text(), re.M)
    ]  # fmt: skip
    assert missing == []


def test_no_source_folder_has_more_files_than_are_seen_at_a_glance() -> None:
    files = [file for file in tracked() if file.parts[0] in PACKAGES]
    presets = {file for file in files if file.match("sweeps/studies/*.yaml")}
    assert presets
    counts = Counter(str(file.parent) for file in files if file not in presets)
    assert {folder: n for folder, n in counts.items() if n > MOST_FILES} == {}


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in STRUCTURE.parent.glob("*.md"))],
)
def test_every_link_and_module_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []
    modules = [
        n
        for n in QUOTED.findall(text)
        if n.startswith((*PACKAGES, "tests/")) and n.endswith((".py", "/"))
    ]
    assert [name for name in modules if not (ROOT / name).exists()] == []


def test_every_row_that_contributing_quotes_is_in_its_file() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| to add |")[2]
    quoted = re.findall(r"\| `([^`]+)`[^|`]* in [^|`]*`([^`]+\.py)`", table)
    assert len(quoted) >= 7
    missing = [
        (row, path) for row, path in quoted
        if f"\n{row}" not in (ROOT / path).read_text().replace("\n    ", "\n")
    ]  # fmt: skip
    assert missing == []
