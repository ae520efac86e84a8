"""Drive v3's calls that carry JSON: files, changes, about.

The protocol is Google's discovery document (`drive v3`, as google-api-python-client ships it); responses validate
against its schemas. A hub has one user, who owns everything; calls about sharing and shared drives are refused.

The calls are synchronous and run in threads. `media` handles the calls that carry file content.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haversack.hub import content, documents, fields
from haversack.hub import query as queries
from haversack.hub.documents import DOCUMENTS, SHORTCUT, SUFFIXES
from haversack.hub.fields import Mask
from haversack.hub.index import FOLDER, HubChange, HubFile, guess_mime, new_id
from haversack.hub.query import Query
from haversack.hub.refusal import Refusal, invalid, unsupported
from haversack.hub.resource import FIELDS, USER, ResourceContext, file_resource, format_time, parse_metadata
from haversack.hub.signin import SignIn
from haversack.hub.tree import Tree

_SORTS = {
    "name": "folded",
    "name_natural": "folded",
    "modifiedTime": "modified",
    "modifiedByMeTime": "modified",
    "recency": "modified",
    "createdTime": "created",
    "quotaBytesUsed": "size",
    "starred": "starred",
    # Folders come first.
    "folder": "-folder",
}
_LIST_FIELDS = frozenset({"kind", "incompleteSearch", "nextPageToken", "files"})
_CHANGES_FIELDS = frozenset({"kind", "nextPageToken", "newStartPageToken", "changes"})


@dataclass(frozen=True)
class DriveRequest:
    """One call to Drive v3, sent on its own or as a part of a batch.

    Attributes:
        method: the HTTP method.
        path: the path below `/drive/v3/`.
        origin: the scheme and host that the client used, for links in the response.
        parameters: the query parameters.
        body: the parsed JSON body; None without one.
    """

    method: str
    path: str
    origin: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


class DriveService:
    """Drive v3's methods over `tree`, without HTTP. Thread-safe.

    `incoming` is the folder for temporary files of new content; `signin` signs the links in responses.
    """

    def __init__(self, tree: Tree, incoming: Path, signin: SignIn) -> None:
        self.tree = tree
        self.incoming = incoming
        self.signin = signin

    def answer(self, call: DriveRequest) -> dict[str, Any] | None:
        """Carry out a call and return its response as JSON, or None for an empty response (204).

        Raises `Refusal` with the status and reason of Drive: 400 for an invalid parameter or body, 403 for a change
        that is not allowed or exceeds the quota, 404 for a file that does not exist, 409 for an id in use; 501 for a
        method or type that the hub does not support.
        """
        match (call.method, *call.path.strip("/").split("/")):
            case ("GET", "about"):
                return self._about(call)
            case ("GET", "files"):
                return self._list(call)
            case ("POST", "files"):
                return self._create(call)
            case ("GET", "files", "generateIds"):
                return self._generate_ids(call)
            case ("DELETE", "files", "trash"):
                self.tree.empty_trash()
                return None
            case ("GET", "files", file_id):
                return self.file_json(self.tree.get(file_id), call.parameters, call.origin)
            case ("PATCH", "files", file_id):
                return self._update(file_id, call)
            case ("DELETE", "files", file_id):
                self.tree.delete(file_id)
                return None
            case ("POST", "files", file_id, "copy"):
                return self._copy(file_id, call)
            case ("GET", "changes", "startPageToken"):
                answer = {"kind": "drive#startPageToken", "startPageToken": str(self.tree.next_change())}
                return fields.apply(answer, _mask(call.parameters, "kind,startPageToken"))
            case ("GET", "changes"):
                return self._changes(call)
            case ("GET", "drives"):
                # A hub has no shared drives.
                return fields.apply({"kind": "drive#driveList", "drives": []}, _mask(call.parameters, "kind,drives"))
        raise unsupported(f"{call.method} {call.path[:100]} of Drive v3")

    def file_json(self, file: HubFile, parameters: Mapping[str, str], origin: str) -> dict[str, Any]:
        """Return a file's JSON with the fields that the query parameter `fields` selects.

        The default is Drive's: kind, id, name, mimeType. `origin` is the scheme and host for links. Raises `Refusal`
        (400) for an unknown field or a malformed `fields`.
        """
        mask = _mask(parameters, "kind,id,name,mimeType")
        fields.check(mask, FIELDS)
        return file_resource(file, mask, self._resource_context(origin))

    def _resource_context(self, origin: str) -> ResourceContext:
        return ResourceContext(self.tree, self.signin, origin)

    def create(self, metadata: dict[str, Any], staged: content.Staged | None, mime: str | None) -> HubFile:
        """Create a file, folder, shortcut or document, and return it.

        Args:
            metadata: what `resource.parse_metadata` returned for the request's body; it is modified. Defaults: the name
                `Untitled`, the folder My Drive.
            staged: the content; None creates a folder, a shortcut or an empty file.
            mime: the content's type if the metadata has none; if both have none, it is guessed from the name.

        Raises `Refusal`: 400 for a folder or shortcut with content, 404 if the parent does not exist, 403 if it is not
        a folder or nested too deep, or the quota is exceeded, 409 for an id in use.
        """
        name = metadata.pop("name", "Untitled")
        parents = metadata.pop("parents", ["root"])
        mime = metadata.pop("mime", None) or mime or guess_mime(name)
        trashed = metadata.pop("trashed", False)
        if mime in (FOLDER, SHORTCUT) and staged is not None:
            raise invalid("Neither a folder nor a shortcut has content.", "mimeType")
        if mime != FOLDER and staged is None:
            with content.temporary_path(self.incoming) as path:
                path.write_bytes(documents.shortcut_content(metadata["target"]) if mime == SHORTCUT else b"")
                file = self.tree.add(parents[0], name, mime, content.stage_file(path), metadata)
        else:
            file = self.tree.add(parents[0], name, mime, staged, metadata)
        return self.tree.revise(file.id, {"trashed": True}) if trashed else file

    def validate_new(self, metadata: Mapping[str, Any]) -> None:
        """Check the parent and the id of a new file before its content is received.

        `metadata` is what `resource.parse_metadata` returned. Raises `Refusal`: 404 if the parent does not exist, 403
        if it is not a folder, 409 if the id is or was in use.
        """
        parent = self.tree.get(metadata.get("parents", ["root"])[0])
        if not parent.folder:
            raise Refusal(403, "parentNotAFolder", "The specified parent is not a folder.", where="parents")
        if "id" in metadata:
            self.tree.check_unused(metadata["id"])

    def update(self, file_id: str, metadata: dict[str, Any], parameters: Mapping[str, str]) -> HubFile:
        """Change a file's metadata and folder, and return it.

        Args:
            file_id: the file.
            metadata: what `resource.parse_metadata` returned for the request's body.
            parameters: the query parameters; `addParents` names the folder to move to, `removeParents` may name the
                current one.

        Raises `Refusal`: 404 if the file or folder does not exist, 400 if a file would become a folder, shortcut or
        document (or the reverse), 403 for several parents or none, a parent that is not a folder or is nested too deep,
        a move of a folder into itself, or a change of My Drive itself.
        """
        file = self.tree.get(file_id)
        parent = _new_parent(file, parameters)
        mime = metadata.get("mime", file.mime)
        if mime != file.mime and {mime, file.mime} & {FOLDER, *SUFFIXES}:
            raise invalid("A file cannot become a folder, shortcut or document, or the reverse.", "mimeType")
        if parent is not None:
            parent = self.tree.get(parent).id
        return self.tree.revise(file.id, metadata, parent)

    def _about(self, call: DriveRequest) -> dict[str, Any]:
        if not call.parameters.get("fields"):
            raise Refusal(
                400, "required", "The 'fields' parameter is required for this method.", where="fields"
            )  # fmt: skip
        used, in_trash = self.tree.usage()
        limit = self.tree.quota
        if limit is None:
            disk = os.statvfs(self.tree.folder)
            limit = used + disk.f_bavail * disk.f_frsize
        answer = {
            "kind": "drive#about",
            "user": USER,
            "storageQuota": {
                "limit": str(limit),
                "usage": str(used),
                "usageInDrive": str(used - in_trash),
                "usageInDriveTrash": str(in_trash),
            },
            "maxUploadSize": str(5 * 2**40),
            "importFormats": {},
            "exportFormats": {mime: documents.export_types(mime) for mime in sorted(DOCUMENTS)},
            "maxImportSizes": {},
            "appInstalled": True,
            "canCreateDrives": False,
            "canCreateTeamDrives": False,
            "driveThemes": [],
            "teamDriveThemes": [],
            "folderColorPalette": [],
        }
        return fields.apply(answer, _mask(call.parameters, "*"))

    def _list(self, call: DriveRequest) -> dict[str, Any]:
        mask = _mask(call.parameters, "kind,incompleteSearch,nextPageToken,files(kind,id,name,mimeType)")
        fields.check(mask, _LIST_FIELDS)
        fields.check(mask.get("files", {}), FIELDS)
        _require_my_drive(call.parameters)
        query = queries.parse(call.parameters.get("q", ""), self.tree.root)
        order = _SortOrder(call.parameters.get("orderBy", ""), query)
        size = _number(call.parameters, "pageSize", 100, 1000)
        after, values = order.condition_after(call.parameters.get("pageToken"))
        files, last = self.tree.search(query, order.sql, after, values, size)
        answer: dict[str, Any] = {"kind": "drive#fileList", "incompleteSearch": False}
        if last is not None:
            answer["nextPageToken"] = order.token(last)
        if fields.includes(mask, "files"):
            context, below = self._resource_context(call.origin), mask.get("files", {})
            answer["files"] = [file_resource(file, below, context) for file in files]
        return fields.select(answer, mask)

    def _generate_ids(self, call: DriveRequest) -> dict[str, Any]:
        count = _number(call.parameters, "count", 10, 1000)
        answer = {"kind": "drive#generatedIds", "space": "drive", "ids": [new_id() for _ in range(count)]}
        return fields.apply(answer, _mask(call.parameters, "*"))

    def _create(self, call: DriveRequest) -> dict[str, Any]:
        metadata = parse_metadata(call.body, creating=True)
        return self.file_json(self.create(metadata, None, None), call.parameters, call.origin)

    def _update(self, file_id: str, call: DriveRequest) -> dict[str, Any]:
        metadata = parse_metadata(call.body, creating=False)
        return self.file_json(self.update(file_id, metadata, call.parameters), call.parameters, call.origin)

    def _copy(self, file_id: str, call: DriveRequest) -> dict[str, Any]:
        file, path = self.tree.locate(file_id)
        if file.folder:
            raise Refusal(403, "cannotCopyFile", "This file cannot be copied by the user.")
        metadata = parse_metadata(call.body, creating=True)
        metadata.setdefault("name", f"Copy of {file.name}")
        metadata.setdefault("parents", [file.parent])
        for key in ("app_properties", "properties"):
            metadata[key] = {**getattr(file, key), **metadata.get(key, {})}
        metadata.setdefault("description", file.description)
        metadata.setdefault("mime", file.mime)
        if file.mime == SHORTCUT:
            return self.file_json(
                self.create({**metadata, "target": file.target}, None, None), call.parameters, call.origin
            )
        self.tree.check_quota(file.size)
        with content.temporary_path(self.incoming) as temporary:
            copied = self.create(metadata, content.stage_copy(path, temporary), file.mime)
        return self.file_json(copied, call.parameters, call.origin)

    def _changes(self, call: DriveRequest) -> dict[str, Any]:
        mask = _mask(
            call.parameters,
            "kind,nextPageToken,newStartPageToken,"
            "changes(kind,type,changeType,time,removed,fileId,file(kind,id,name,mimeType))",
        )
        fields.check(mask, _CHANGES_FIELDS)
        below = mask.get("changes", {}).get("file", {})
        fields.check(below, FIELDS)
        _require_my_drive(call.parameters)
        token = call.parameters.get("pageToken", "")
        if not token.isascii() or not token.isdigit() or len(token) > 18:
            raise Refusal(400, "invalid", "The page token was not issued by this hub.", where="pageToken")
        size = _number(call.parameters, "pageSize", 100, 1000)
        following = self.tree.next_change()
        changes = self.tree.changes(int(token), size + 1)
        answer: dict[str, Any] = {"kind": "drive#changeList"}
        if len(changes) > size:
            answer["nextPageToken"] = str(changes[size].number)
            changes = changes[:size]
        else:
            answer["newStartPageToken"] = str(max(changes[-1].number + 1 if changes else 0, following))
        if call.parameters.get("includeRemoved", "true") == "false":
            changes = [change for change in changes if change.file is not None]
        context = self._resource_context(call.origin)
        answer["changes"] = [_change(change, below, context) for change in changes]
        return fields.apply(answer, mask)

    def export(self, file_id: str, parameters: Mapping[str, str]) -> tuple[bytes, str]:
        """Return a document's content converted to the MIME type in the `mimeType` parameter, and that type.

        Raises `Refusal`: 400 if the parameter is missing or the conversion is not supported, 403 if the file is not a
        document or too large, 404 if it does not exist.
        """
        mime = parameters.get("mimeType")
        if not mime:
            raise Refusal(400, "required", "Required parameter: mimeType", where="mimeType")
        file, path = self.tree.locate(file_id)
        return documents.export(path, file.mime, mime), mime

    def locate_content(self, file_id: str) -> tuple[HubFile, Path]:
        """Return a file that has binary content, and its path.

        Raises `Refusal`: 404 if it does not exist, 403 if it is a folder, shortcut or document.
        """
        file, path = self.tree.locate(file_id)
        if file.folder or file.mime in SUFFIXES:
            message = "Only files with binary content can be downloaded."
            if file.mime in DOCUMENTS:
                message += " Use Export with Docs Editors files."
            raise Refusal(403, "fileNotDownloadable", message, where="alt")
        return file, path


def _change(change: HubChange, mask: Mask, context: ResourceContext) -> dict[str, Any]:
    answer = {
        "kind": "drive#change",
        "type": "file",
        "changeType": "file",
        "time": format_time(change.at),
        "fileId": change.file_id,
        "removed": change.file is None,
    }
    if change.file is not None:
        answer["file"] = file_resource(change.file, mask, context)
    return answer


class _SortOrder:
    """The `orderBy` parameter of a search, parsed: `sql` is an ORDER BY list, and page tokens are made and read for it.

    A page token holds the sort keys of the last file of a page, so that no page repeats or skips a file.
    """

    def __init__(self, text: str, query: Query) -> None:
        self.keys: list[tuple[str, str]] = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, direction = part.partition(" ")
            if name not in _SORTS or direction.strip() not in ("", "desc"):
                raise invalid(f"The hub does not sort by {part[:100]!r}.", "orderBy")
            self.keys.append((_SORTS[name], "DESC" if direction else "ASC"))
        if not self.keys and query.parents is not None and len(query.parents) > 1:
            # The index is ordered by folder, so no page has to sort the rest of the result.
            self.keys.append(("parent", "ASC"))
        self.keys.append(("seq", "ASC"))
        self.sql = ", ".join(f"{column} {direction}" for column, direction in self.keys)

    def token(self, file: HubFile) -> str:
        """Return the page token for continuing after `file`, the last one of a page."""
        values = {
            "folded": file.name.casefold(), "modified": file.modified, "created": file.created, "size": file.size,
            "starred": int(file.starred), "-folder": -int(file.folder), "parent": file.parent, "seq": file.seq,
        }  # fmt: skip
        text = json.dumps([values[column] for column, _ in self.keys])
        return base64.urlsafe_b64encode(text.encode()).decode()

    def condition_after(self, token: str | None) -> tuple[str, tuple[Any, ...]]:
        """Return an SQL condition, with its values, for the files that follow the page that ended with `token`.

        Without a token the condition holds for every file. Raises `Refusal` (400) if the token does not fit this sort
        order.
        """
        if not token:
            return "1", ()
        try:
            last = json.loads(base64.urlsafe_b64decode(token.encode()))
        except (binascii.Error, ValueError):
            last = None
        if not isinstance(last, list) or [type(value) for value in last] != [
            str if column in ("folded", "parent") else int for column, _ in self.keys
        ]:
            raise Refusal(400, "invalid", "The page token does not belong to this search.", where="pageToken")
        choices, values = [], []
        for index, (column, direction) in enumerate(self.keys):
            same = [f"{before} = ?" for before, _ in self.keys[:index]]
            choices.append("(" + " AND ".join([*same, f"{column} {'>' if direction == 'ASC' else '<'} ?"]) + ")")
            values += last[: index + 1]
        return "(" + " OR ".join(choices) + ")", tuple(values)


def _mask(parameters: Mapping[str, str], default: str) -> Mask:
    return fields.parse(parameters.get("fields") or default)


def _number(parameters: Mapping[str, str], name: str, default: int, largest: int) -> int:
    text = parameters.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:10]) <= largest or len(text) > 10:
        raise invalid(f"Invalid value for {name}: it must be between 1 and {largest}.", name)
    return int(text)


def _require_my_drive(parameters: Mapping[str, str]) -> None:
    if parameters.get("driveId") or parameters.get("teamDriveId") or parameters.get("corpora") in ("drive", "domain"):
        raise unsupported("shared drives")
    if set(parameters.get("spaces", "drive").split(",")) != {"drive"}:
        raise unsupported("the space appDataFolder")


def _new_parent(file: HubFile, parameters: Mapping[str, str]) -> str | None:
    """Return the folder that `addParents` moves the file to; None if the file stays.

    Raises `Refusal` (403) if the file would have several parents or none.
    """
    added = [parent for parent in parameters.get("addParents", "").split(",") if parent]
    removed = [parent for parent in parameters.get("removeParents", "").split(",") if parent]
    if len(added) > 1:
        raise Refusal(403, "cannotAddParent", "A file is in exactly one folder.", where="addParents")
    if removed and not added and file.parent in removed:
        raise Refusal(403, "cannotRemoveParent", "A file is in exactly one folder.", where="removeParents")
    return added[0] if added else None
