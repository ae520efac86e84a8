"""Names of the drive as a file system shows them."""

from __future__ import annotations

import pytest

from haversack.drive.index import names
from haversack.drive.remote.calls import FOLDER, File

DOCUMENT = "application/vnd.google-apps.document"


def file(name: str, mime_type: str = "text/plain") -> File:
    return File("id", name, "parent", mime_type, 0, "", 0.0, 1)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a.txt", "a.txt"),
        ("a/b", "a／b"),
        ("..", "．．"),
        (".", "．"),
        ("a\0b", "a␀b"),
        ("", "␣"),
        (".bashrc", ".bashrc"),
    ],
)
def test_every_name_is_shown_as_one_name(name: str, shown: str) -> None:
    assert names.shown_name(file(name)) == shown


@pytest.mark.parametrize("name", ["a.txt", "a/b", "..", ".", "x/y/z"])
def test_a_shown_name_leads_back_to_the_name_on_the_drive(name: str) -> None:
    assert name in names.meant(names.shown_name(file(name)))


def test_a_google_document_has_an_ending() -> None:
    assert names.shown_name(file("Report", DOCUMENT)) == "Report.gdoc"
    assert names.shown_name(file("Thing", "application/vnd.google-apps.new-kind")) == "Thing.glink"
    assert "Report" in names.meant("Report.gdoc")
    assert names.drive_name(file("Report", DOCUMENT), "Final.gdoc") == "Final"
    assert names.shown_name(file("Folder", FOLDER)) == "Folder"


@pytest.mark.parametrize(("name", "second"), [("a.txt", "a (1).txt"), ("a", "a (1)"), ("a.tar.gz", "a.tar (1).gz")])
def test_a_number_stands_before_the_ending(name: str, second: str) -> None:
    assert names.numbered(name, 1) == second
    assert names.unnumbered(second) == name


@pytest.mark.parametrize("name", ["a.txt", "(1)", "a (0).txt", "a (x).txt", "a(1).txt", "a (1).x.txt"])
def test_what_has_no_number_is_not_taken_for_one(name: str) -> None:
    assert names.unnumbered(name) is None
