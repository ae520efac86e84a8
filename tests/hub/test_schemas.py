"""Answers validate against the schemas of Google's discovery document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from haversack.hub.calls import DRIVE_METHODS
from haversack.hub.documents import SHORTCUT
from haversack.hub.resource import FIELDS
from tests.conftest import RunningHub

from .conftest import discovery_document, send
from .test_drive import put


def as_schema(value: Any) -> Any:
    """A schema of the discovery document as JSON Schema: references by address, and no field that is not in it."""
    if isinstance(value, list):
        return [as_schema(element) for element in value]
    if not isinstance(value, dict):
        return value
    changed = {key: as_schema(below) for key, below in value.items() if key not in ("id", "required", "default")}
    if isinstance(value.get("$ref"), str):
        changed["$ref"] = f"urn:drive:{value['$ref']}"
    if value.get("type") == "object" and "properties" in value:
        changed["additionalProperties"] = False
    return changed


@pytest.fixture(scope="module")
def schemas() -> Registry:
    resources = []
    for name, schema in discovery_document()["schemas"].items():
        properties = {key: as_schema(below) for key, below in schema.get("properties", {}).items()}
        document = {"type": "object", "properties": properties, "additionalProperties": False}
        resources.append((f"urn:drive:{name}", Resource(document, DRAFT202012)))
    return Registry().with_resources(resources)


def check(schemas: Registry, name: str, answer: Any) -> None:
    jsonschema.Draft202012Validator({"$ref": f"urn:drive:{name}"}, registry=schemas).validate(answer)


@pytest.fixture
def everything(drive: Any, folder: str, place: Path) -> dict[str, str]:
    """One of each kind of file in a folder: their ids by kind."""
    (place / "notes.gdoc").write_text("text")
    (place / "by hand.txt").write_text("text")
    target = put(drive, folder, "a.tar.gz", appProperties={"k": "v"}, properties={"p": "v"}, description="d")["id"]
    trashed = put(drive, folder, "trashed.txt")["id"]
    drive.files().update(fileId=trashed, body={"trashed": True}).execute()
    shortcut = {"name": "short", "mimeType": SHORTCUT, "parents": [folder], "shortcutDetails": {"targetId": target}}
    made = drive.files().create(body=shortcut).execute()["id"]
    return {"file": target, "trashed": trashed, "shortcut": made, "folder": folder}


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("FileList", "/drive/v3/files?fields=*"),
        ("FileList", "/drive/v3/files"),
        ("File", "/drive/v3/files/root?fields=*"),
        ("File", "/drive/v3/files/{file}?fields=*"),
        ("File", "/drive/v3/files/{shortcut}?fields=*"),
        ("File", "/drive/v3/files/{trashed}?fields=*"),
        ("About", "/drive/v3/about?fields=*"),
        ("ChangeList", "/drive/v3/changes?pageToken=1&fields=*"),
        ("ChangeList", "/drive/v3/changes?pageToken=1"),
        ("StartPageToken", "/drive/v3/changes/startPageToken"),
        ("GeneratedIds", "/drive/v3/files/generateIds"),
        ("DriveList", "/drive/v3/drives"),
    ],
)
def test_answers_follow_the_schema(
    hub: RunningHub, everything: dict[str, str], schemas: Registry, name: str, target: str
) -> None:
    reply = send(hub, "GET", target.format(**everything))
    assert reply.status == 200
    check(schemas, name, reply.json())


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/drive/v3/files", {"name": "new"}),
        ("POST", "/drive/v3/files/{file}/copy", {"name": "copy"}),
        ("PATCH", "/drive/v3/files/{file}", {"name": "renamed", "starred": True}),
        ("PATCH", "/drive/v3/files/{trashed}", {"trashed": False}),
        ("POST", "/upload/drive/v3/files?uploadType=media", {"any": "bytes"}),
        ("PATCH", "/upload/drive/v3/files/{file}?uploadType=media", {"other": "bytes"}),
    ],
)
def test_what_changes_a_file_answers_with_a_file(
    hub: RunningHub, everything: dict[str, str], schemas: Registry, method: str, target: str, body: dict[str, Any]
) -> None:
    for fields in ("", "*"):
        address = target.format(**everything)
        address += f"{'&' if '?' in address else '?'}fields={fields}" if fields else ""
        reply = send(hub, method, address, json.dumps(body), {"Content-Type": "application/json"})
        assert reply.status == 200
        check(schemas, "File", reply.json())


def test_every_call_that_the_hub_names_is_googles(hub: RunningHub) -> None:
    resources = discovery_document()["resources"]
    named = set(DRIVE_METHODS.values())
    google = {f"{name}.{method}" for name, resource in resources.items() for method in resource["methods"]}
    assert named <= google


def test_a_field_that_google_does_not_have_would_be_noticed(schemas: Registry) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(schemas, "File", {"id": "x", "nmae": "y"})


def test_the_known_fields_are_googles() -> None:
    assert set(discovery_document()["schemas"]["File"]["properties"]) == FIELDS


def test_an_error_looks_like_googles(hub: RunningHub) -> None:
    error = send(hub, "GET", "/drive/v3/files/nowhere-to-be-found").json()
    message = "File not found: nowhere-to-be-found."
    detail = {"domain": "global", "reason": "notFound", "message": message}
    detail |= {"location": "fileId", "locationType": "parameter"}
    assert json.loads(json.dumps(error)) == {"error": {"code": 404, "message": message, "errors": [detail]}}
