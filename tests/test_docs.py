"""What README and docs tell people to type, typed: a page's `sh` and `python` blocks run in order in one folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest

from tests.conftest import RunningHub

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# They install the checkout or run this very suite.
ABOUT_THE_CHECKOUT = ("make ", "scripts/", "git clone", "cd haversack")


def script(page: Path) -> str:
    """The page's blocks as one shell script; a Python block becomes a program of its own."""
    lines = ["set -eu"]
    for language, block in BLOCK.findall(page.read_text()):
        if language == "python":
            lines.append(f"{sys.executable} - <<'END_OF_PYTHON'\n{block}END_OF_PYTHON")
        else:
            lines += [line for line in block.splitlines() if not line.startswith(ABOUT_THE_CHECKOUT)]
    return "\n".join(lines)


def notebook(folder: Path) -> None:
    cells = [nbformat.v4.new_code_cell("epochs = 3"), nbformat.v4.new_code_cell("print('epochs', epochs)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "train.ipynb")


@pytest.mark.parametrize("page", [page for page in PAGES if len(script(page)) > 10], ids=lambda page: page.name)
def test_what_a_page_says_works(page: Path, hub: RunningHub, tmp_path: Path) -> None:
    notebook(tmp_path)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with open(tmp_path / "output", "w+") as output:
        # A file, not a pipe, which what a page leaves running would keep open.
        process = subprocess.Popen(
            ["bash", "-c", script(page)],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=200)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        assert status == 0, output.read()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_house_in_the_design_has_every_module() -> None:
    house = (ROOT / "docs" / "design.md").read_text().split("```")[1]
    for path in (ROOT / "haversack").rglob("*.py"):
        # The design lists these as a whole: the commands, and the modules of google.colab.
        as_a_whole = path.parent.name == "cli" or path.is_relative_to(ROOT / "haversack" / "notebook" / "colab")
        if not as_a_whole and not path.stem.startswith("__"):
            assert re.search(rf"\b{path.stem}\b", house), path


def test_the_chinese_readme_has_the_same_commands_tables_and_links() -> None:
    english, chinese = (path.read_text() for path in PAGES[:2])
    assert _code(chinese) == _code(english)
    for pattern in (r"^#+ ", r"^\|", r"^!\["):
        assert len(re.findall(pattern, chinese, re.MULTILINE)) == len(re.findall(pattern, english, re.MULTILINE)), (
            pattern
        )
    targets = [
        set(re.findall(r"\]\(([^)]+)\)", text)) - {"README.md", "README.zh-CN.md"} for text in (english, chinese)
    ]
    assert targets[0] == targets[1]


def _code(text: str) -> list[str]:
    """The blocks of code, without comments, which are translated."""
    blocks = re.findall(r"^```\w*\n.*?^```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(r" *#.*", "", block) for block in blocks]
