"""The page for people in a real browser: headless Chromium, where this machine has one."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import RunningHub

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=15_000)  # a machine that has other work too
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, hub: RunningHub) -> Iterator[Page]:
    """A window of a browser that was never here. Whatever a page logs as an error of its own fails the test."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(15_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def inside(page: Page, hub: RunningHub, folder: str) -> Page:
    """The page, signed in, in this test's own folder."""
    page.goto(f"{hub.url}/#/folder/{folder}")
    sign_in(page, hub.token)
    loaded(page)
    return page


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("The hub's token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def row(page: Page, name: str) -> Any:
    return page.get_by_role("row").filter(has=page.locator(".name").get_by_text(name, exact=True))


def names(page: Page) -> list[str]:
    return page.locator(".file .name").all_text_contents()


def to_trash(page: Page, name: str) -> None:
    """Go there and look for one file: the suite's hub has much in it."""
    expect(row(page, name)).to_be_hidden()
    page.get_by_role("link", name="Trash").click()
    page.get_by_label("Filter by name").fill(name)


def tool(page: Page, name: str) -> Any:
    return page.get_by_role("toolbar").get_by_role("button", name=name)


def reload(page: Page) -> None:
    page.reload()
    loaded(page)


def loaded(page: Page) -> None:
    expect(page.locator("#status")).to_have_text(re.compile(r"items?$|empty"))


def test_the_token_signs_in_and_a_wrong_one_does_not(page: Page, hub: RunningHub) -> None:
    page.goto(hub.url)
    sign_in(page, "wrong")
    expect(page.get_by_role("alert")).to_have_text("This is not the hub's token.")
    sign_in(page, hub.token)
    expect(page.get_by_role("link", name="My Drive").first).to_be_visible()
    assert hub.token not in page.url + str(page.evaluate("JSON.stringify(localStorage) + document.cookie"))


def test_who_signs_out_sees_nothing_any_more(inside: Page, place: Path) -> None:
    (place / "a.txt").write_text("a")
    reload(inside)
    expect(row(inside, "a.txt")).to_be_visible()
    inside.get_by_role("button", name="Sign out").click()
    expect(inside.get_by_label("The hub's token")).to_be_visible()
    assert names(inside) == []
    inside.reload()
    expect(inside.get_by_label("The hub's token")).to_be_visible()


def test_when_the_cookie_ends_the_token_is_asked_for(inside: Page) -> None:
    inside.context.clear_cookies()
    inside.get_by_role("link", name="Trash").click()
    expect(inside.get_by_label("The hub's token")).to_be_visible()


def test_folders_are_walked_down_and_up(inside: Page, place: Path) -> None:
    (place / "one" / "two").mkdir(parents=True)
    (place / "one" / "two" / "deep.txt").write_text("deep")
    reload(inside)
    row(inside, "one").locator(".open").click()
    row(inside, "two").locator(".open").click()
    expect(row(inside, "deep.txt")).to_be_visible()
    inside.locator("#path").get_by_role("link", name="one").click()
    expect(row(inside, "two")).to_be_visible()
    inside.keyboard.press("Backspace")
    expect(row(inside, "one")).to_be_visible()


def test_a_crowded_folder_is_sorted_filtered_and_scrolled(inside: Page, place: Path) -> None:
    for number in range(3000):
        (place / f"file {number}.txt").write_bytes(b"x" * (number % 7))
    reload(inside)
    expect(inside.locator("#status")).to_have_text("3,000 items")
    assert len(names(inside)) < 60
    assert names(inside)[:3] == ["file 0.txt", "file 1.txt", "file 2.txt"]
    inside.locator(".file").first.focus()
    inside.keyboard.press("End")
    expect(row(inside, "file 2999.txt")).to_be_focused()
    inside.get_by_label("Filter by name").fill("E 29")
    expect(inside.locator("#status")).to_have_text("111 of 3,000 items")
    inside.get_by_role("columnheader", name="Size").get_by_role("button").click()
    assert row(inside, names(inside)[0]).locator(".size").text_content() == "6 B"


def test_files_are_uploaded(inside: Page, place: Path, tmp_path: Path) -> None:
    sources = [tmp_path / "small.txt", tmp_path / "empty", tmp_path / "large.bin"]
    for source, size in zip(sources, (5, 0, 20_000_000), strict=True):
        source.write_bytes(b"x" * size)
    inside.locator("#files").set_input_files(sources)
    expect(inside.get_by_text("3 files uploaded.")).to_be_visible()
    expect(row(inside, "large.bin")).to_be_visible()
    assert {path.name: path.stat().st_size for path in place.iterdir()} == {
        "small.txt": 5,
        "empty": 0,
        "large.bin": 20_000_000,
    }


def test_an_upload_goes_on_after_a_broken_connection(inside: Page, place: Path, tmp_path: Path) -> None:
    sent: list[str] = []

    def once_broken(route: Any) -> None:
        sent.append(route.request.headers["content-range"])
        route.abort() if len(sent) == 2 else route.continue_()

    inside.route(re.compile("upload_id="), once_broken)
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 80_000)
    inside.locator("#files").set_input_files(tmp_path / "a.bin")
    expect(inside.get_by_text("1 file uploaded.")).to_be_visible()
    assert (place / "a.bin").read_bytes() == (tmp_path / "a.bin").read_bytes()
    piece, total = 8 << 20, 256 * 80_000
    assert sent[1:4] == [
        f"bytes {piece}-{2 * piece - 1}/{total}",
        f"bytes */{total}",
        f"bytes {piece}-{2 * piece - 1}/{total}",
    ]


def test_an_upload_of_a_name_that_is_there_is_asked_about(inside: Page, place: Path, tmp_path: Path) -> None:
    (place / "a.txt").write_text("before")
    (tmp_path / "a.txt").write_text("after")
    inside.locator("#files").set_input_files(tmp_path / "a.txt")
    inside.get_by_role("button", name="Skip").click()
    inside.locator("#files").set_input_files(tmp_path / "a.txt")
    inside.get_by_role("button", name="Replace").click()
    expect(inside.get_by_text("1 file uploaded.")).to_be_visible()
    assert [path.read_text() for path in place.iterdir()] == ["after"]


def test_a_file_is_downloaded(inside: Page, place: Path) -> None:
    (place / "data set.bin").write_bytes(b"\0\1\2")
    reload(inside)
    with inside.expect_download() as waiting:
        row(inside, "data set.bin").locator(".open").click()
    assert waiting.value.suggested_filename == "data set.bin"
    assert Path(waiting.value.path()).read_bytes() == b"\0\1\2"


def test_pictures_are_shown_small_and_large(inside: Page, place: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (900, 600), "olive").save(place / name)
    reload(inside)
    expect(row(inside, "a.png").locator(".face img")).to_be_visible()
    row(inside, "a.png").locator(".open").click()
    shown = inside.get_by_role("img", name="a.png")
    expect(shown).to_be_visible()
    assert shown.evaluate("image => image.naturalWidth") == 900
    inside.keyboard.press("ArrowRight")
    expect(inside.get_by_role("img", name="b.png")).to_be_visible()
    inside.keyboard.press("Escape")
    expect(inside.get_by_role("img", name="b.png")).to_be_hidden()


def test_a_text_is_shown_as_text(inside: Page, place: Path) -> None:
    (place / "a.html").write_text("<script>document.title = 'run'</script>")
    reload(inside)
    row(inside, "a.html").locator(".open").click()
    expect(inside.locator("pre")).to_have_text("<script>document.title = 'run'</script>")
    assert inside.title() != "run"


def test_a_shortcut_to_a_document_shows_its_text(inside: Page, drive: Any, folder: str, place: Path) -> None:
    (place / "plan.gdoc").write_text("Start early.")
    document = drive.files().list(q=f"'{folder}' in parents").execute()["files"][0]["id"]
    body = {"name": "to it", "mimeType": "application/vnd.google-apps.shortcut", "parents": [folder]}
    drive.files().create(body={**body, "shortcutDetails": {"targetId": document}}).execute()
    reload(inside)
    row(inside, "to it").locator(".open").click()
    expect(inside.locator("pre")).to_have_text("Start early.")


def test_a_name_with_markup_is_text(inside: Page, drive: Any, folder: str, hub: RunningHub) -> None:
    name = "<img src=x onerror=\"document.title='run'\">'\"&amp;"
    body = {"name": name, "parents": [folder], "mimeType": "application/vnd.google-apps.folder"}
    drive.files().create(body=body).execute()
    reload(inside)
    expect(row(inside, name)).to_be_visible()
    row(inside, name).locator(".open").click()
    expect(inside.locator("#path a").last).to_have_text(name)
    assert inside.locator("#list img").count() == 0
    assert inside.title() != "run"


def test_a_folder_is_made_and_renamed(inside: Page, place: Path) -> None:
    tool(inside, "New folder").click()
    inside.get_by_label("Name", exact=True).fill("made")
    inside.keyboard.press("Enter")
    expect(row(inside, "made")).to_be_visible()
    row(inside, "made").get_by_role("checkbox").check()
    tool(inside, "Rename").click()
    inside.get_by_label("Name", exact=True).fill("renamed")
    inside.keyboard.press("Enter")
    expect(row(inside, "renamed")).to_be_visible()
    assert [path.name for path in place.iterdir()] == ["renamed"]


def test_a_trashed_file_is_brought_back(inside: Page, place: Path) -> None:
    name = f"{uuid.uuid4().hex}.txt"
    (place / name).write_text("kept")
    reload(inside)
    row(inside, name).get_by_role("checkbox").check()
    tool(inside, "Move to trash").click()
    expect(row(inside, name)).to_be_hidden()
    assert not (place / name).exists()
    to_trash(inside, name)
    row(inside, name).get_by_role("checkbox").check()
    tool(inside, "Restore").click()
    expect(row(inside, name)).to_be_hidden()
    assert (place / name).read_text() == "kept"


def test_a_file_is_deleted_for_good_only_after_a_question(inside: Page, place: Path, hub: RunningHub) -> None:
    name = f"{uuid.uuid4().hex}.txt"
    (place / name).write_text(name)
    reload(inside)
    row(inside, name).get_by_role("checkbox").check()
    tool(inside, "Move to trash").click()
    to_trash(inside, name)
    row(inside, name).get_by_role("checkbox").check()
    tool(inside, "Delete for good").click()
    inside.get_by_role("button", name="Cancel").click()
    expect(row(inside, name)).to_be_visible()
    tool(inside, "Delete for good").click()
    inside.get_by_role("button", name="Delete", exact=True).click()
    expect(row(inside, name)).to_be_hidden()
    assert not [path for path in hub.root.rglob("*") if path.is_file() and path.read_bytes() == name.encode()]
