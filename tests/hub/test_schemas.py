"""Answers validate against the schemas of Google's discovery document."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

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


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("FileList", "/drive/v3/files?fields=*"),
        ("FileList", "/drive/v3/files"),
        ("File", "/drive/v3/files/root?fields=*"),
        ("About", "/drive/v3/about?fields=*"),
        ("ChangeList", "/drive/v3/changes?pageToken=1&fields=*"),
        ("StartPageToken", "/drive/v3/changes/startPageToken"),
        ("GeneratedIds", "/drive/v3/files/generateIds"),
    ],
)
def test_answers_follow_the_schema(
    hub: RunningHub, drive: Any, folder: str, schemas: Registry, name: str, target: str
) -> None:
    put(drive, folder, "a.tar.gz", appProperties={"k": "v"}, properties={"p": "v"}, description="d")
    trashed = put(drive, folder, "trashed.txt")
    drive.files().update(fileId=trashed["id"], body={"trashed": True}).execute()
    check(schemas, name, send(hub, "GET", target).json())


def test_a_new_file_follows_the_schema(drive: Any, folder: str, schemas: Registry) -> None:
    check(schemas, "File", put(drive, folder, "a.txt"))


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
