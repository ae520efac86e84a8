"""Drive v3's calls that carry JSON: files, changes, about.

The protocol is Google's discovery document (`drive v3`, as google-api-python-client ships it); answers validate against
its schemas. A hub has one user, who owns everything; what follows from sharing is refused. Fields that Drive only keeps
for display are accepted and forgotten; read-only fields are refused as Drive refuses them.

Calls are plain functions from `Call` to a dict, run in threads; bytes go through `media`.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from haversack.hub import content, fields, names
from haversack.hub import query as queries
from haversack.hub.fields import Mask
from haversack.hub.refusal import Refusal, invalid, unsupported
from haversack.hub.tree import FOLDER, Change, File, Tree, mime_of, new_id

_USER = {
    "kind": "drive#user",
    "displayName": "haversack",
    "me": True,
    "permissionId": "haversack",
    "emailAddress": "haversack@localhost",
}
_IDS = re.compile(r"[A-Za-z0-9_-]{10,100}")
_IGNORED = {
    "contentHints", "copyRequiresWriterPermission", "folderColorRgb", "keepRevisionForever", "kind",
    "originalFilename", "viewedByMeTime", "viewersCanCopyContent", "writersCanShare",
}  # fmt: skip
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
_LONGEST_PROPERTY = 124  # bytes of key and value together, Drive's limit


@dataclass(frozen=True)
class Call:
    """One call: `path` below `/drive/v3/`, its query parameters, its JSON body."""

    method: str
    path: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


class Drive:
    """Answers calls about `tree`; files on their way in lie in `incoming`."""

    def __init__(self, tree: Tree, incoming: Path) -> None:
        self.tree = tree
        self.incoming = incoming

    def answer(self, call: Call) -> dict[str, Any] | None:
        """The answer's JSON; None where Drive answers nothing. Raises `Refusal`."""
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
                return self.resource(self.tree.get(file_id), call.parameters)
            case ("PATCH", "files", file_id):
                return self._update(file_id, call)
            case ("DELETE", "files", file_id):
                self.tree.delete(self.tree.get(file_id).id)
                return None
            case ("POST", "files", file_id, "copy"):
                return self._copy(file_id, call)
            case ("GET", "changes", "startPageToken"):
                answer = {"kind": "drive#startPageToken", "startPageToken": str(self.tree.next_change())}
                return fields.cut(answer, _mask(call.parameters, "kind,startPageToken"))
            case ("GET", "changes"):
                return self._changes(call)
        raise unsupported(f"{call.method} {call.path[:100]} of Drive v3")

    def resource(self, file: File, parameters: Mapping[str, str]) -> dict[str, Any]:
        """A file's JSON, cut to what `fields` asks for."""
        return self._resource(file, _mask(parameters, "kind,id,name,mimeType"))

    def described(self, body: Any, parameters: Mapping[str, str], *, creating: bool) -> dict[str, Any]:
        """What a body says of a file, in the words of `Tree`. Raises `Refusal` for what cannot be written."""
        if body is not None and not isinstance(body, dict):
            raise invalid("The body is not a JSON object.")
        about: dict[str, Any] = {}
        for key, value in (body or {}).items():
            if value is None and key not in ("appProperties", "properties"):
                continue
            if key in _WRITABLE:
                name, check = _WRITABLE[key]
                about[name] = check(key, value)
            elif key in ("id", "createdTime", "parents") and creating:
                about[key] = _CREATABLE[key](key, value)
            elif key == "parents":
                raise Refusal(
                    403, "fieldNotWritable",
                    "The parents field is not directly writable in update requests."
                    " Use the addParents and removeParents parameters instead.",
                )  # fmt: skip
            elif key not in _IGNORED:
                raise Refusal(403, "fieldNotWritable", f"The resource body includes {key}, which cannot be written.")
        if "createdTime" in about:
            about["created"] = about.pop("createdTime")
        if about.get("mime", "").startswith("application/vnd.google-apps.") and about["mime"] != FOLDER:
            raise unsupported(f"{about['mime']}; it keeps files and folders")
        return about

    def create(self, about: dict[str, Any], staged: content.Staged | None, mime: str | None) -> File:
        """A new file or folder of what `described` returned."""
        name = about.pop("name", "Untitled")
        parents = about.pop("parents", ["root"])
        mime = about.pop("mime", None) or mime or mime_of(name)
        trashed = about.pop("trashed", False)
        if mime == FOLDER and staged is not None:
            raise invalid("A folder has no content.", "mimeType")
        if mime != FOLDER and staged is None:
            with content.aside(self.incoming) as path:
                path.touch()
                file = self.tree.add(parents[0], name, mime, content.staged(path), about)
        else:
            file = self.tree.add(parents[0], name, mime, staged, about)
        return self.tree.revise(file.id, {"trashed": True}) if trashed else file

    def check_new(self, about: Mapping[str, Any]) -> None:
        """Refuse what `create` would refuse, before any byte is sent."""
        parent = self.tree.get(about.get("parents", ["root"])[0])
        if not parent.folder:
            raise Refusal(403, "parentNotAFolder", "The specified parent is not a folder.", where="parents")

    def update(self, file_id: str, about: dict[str, Any], parameters: Mapping[str, str]) -> File:
        """Change what is said of a file, and the folder it lies in."""
        file = self.tree.get(file_id)
        parent = _one_parent(file, parameters)
        if (file.folder and about.get("mime", FOLDER) != FOLDER) or (not file.folder and about.get("mime") == FOLDER):
            raise invalid("A file cannot become a folder, nor a folder a file.", "mimeType")
        if parent is not None:
            parent = self.tree.get(parent).id
        return self.tree.revise(file.id, about, parent)

    def _about(self, call: Call) -> dict[str, Any]:
        if not call.parameters.get("fields"):
            raise Refusal(
                400, "required", "The 'fields' parameter is required for this method.", where="fields"
            )  # fmt: skip
        disk = os.statvfs(self.tree.folder)
        used, in_trash = self.tree.used()
        answer = {
            "kind": "drive#about",
            "user": _USER,
            "storageQuota": {
                "limit": str(used + disk.f_bavail * disk.f_frsize),
                "usage": str(used),
                "usageInDrive": str(used - in_trash),
                "usageInDriveTrash": str(in_trash),
            },
            "maxUploadSize": str(5 * 2**40),
            "importFormats": {},
            "exportFormats": {},
            "maxImportSizes": {},
            "appInstalled": True,
            "canCreateDrives": False,
            "canCreateTeamDrives": False,
            "driveThemes": [],
            "teamDriveThemes": [],
            "folderColorPalette": [],
        }
        return fields.cut(answer, _mask(call.parameters, "*"))

    def _list(self, call: Call) -> dict[str, Any]:
        mask = _mask(call.parameters, "kind,incompleteSearch,nextPageToken,files(kind,id,name,mimeType)")
        _only_my_drive(call.parameters)
        query = queries.parse(call.parameters.get("q", ""), self.tree.root)
        order = _Order(call.parameters.get("orderBy", ""))
        size = _number(call.parameters, "pageSize", 100, 1000)
        after, values = order.after(call.parameters.get("pageToken"))
        files = self.tree.search(query, order.sql, after, values, size + 1)
        answer: dict[str, Any] = {"kind": "drive#fileList", "incompleteSearch": False}
        if len(files) > size:
            files = files[:size]
            answer["nextPageToken"] = order.token(files[-1])
        answer["files"] = [self._resource(file, mask.get("files", {})) for file in files]
        return fields.cut(answer, mask)

    def _generate_ids(self, call: Call) -> dict[str, Any]:
        count = _number(call.parameters, "count", 10, 1000)
        answer = {"kind": "drive#generatedIds", "space": "drive", "ids": [new_id() for _ in range(count)]}
        return fields.cut(answer, _mask(call.parameters, "*"))

    def _create(self, call: Call) -> dict[str, Any]:
        about = self.described(call.body, call.parameters, creating=True)
        return self.resource(self.create(about, None, None), call.parameters)

    def _update(self, file_id: str, call: Call) -> dict[str, Any]:
        about = self.described(call.body, call.parameters, creating=False)
        return self.resource(self.update(file_id, about, call.parameters), call.parameters)

    def _copy(self, file_id: str, call: Call) -> dict[str, Any]:
        file, path = self.tree.locate(file_id)
        if file.folder:
            raise Refusal(403, "cannotCopyFile", "This file cannot be copied by the user.")
        about = self.described(call.body, call.parameters, creating=True)
        about.setdefault("name", f"Copy of {file.name}")
        about.setdefault("parents", [file.parent])
        for key in ("app_properties", "properties"):
            about[key] = {**getattr(file, key), **about.get(key, {})}
        about.setdefault("description", file.description)
        with content.aside(self.incoming) as aside:
            copied = self.create(about, content.copied(path, aside), file.mime)
        return self.resource(copied, call.parameters)

    def _changes(self, call: Call) -> dict[str, Any]:
        mask = _mask(
            call.parameters,
            "kind,nextPageToken,newStartPageToken,"
            "changes(kind,type,changeType,time,removed,fileId,file(kind,id,name,mimeType))",
        )
        _only_my_drive(call.parameters)
        token = call.parameters.get("pageToken", "")
        if not token.isascii() or not token.isdigit() or len(token) > 18:
            raise Refusal(400, "invalid", "The page token is none that the hub gave.", where="pageToken")
        size = _number(call.parameters, "pageSize", 100, 1000)
        following = self.tree.next_change()
        changes = self.tree.changes(int(token), size + 1)
        answer: dict[str, Any] = {"kind": "drive#changeList"}
        if len(changes) > size:
            answer["nextPageToken"] = str(changes[size].seq)
            changes = changes[:size]
        else:
            answer["newStartPageToken"] = str(max(changes[-1].seq + 1 if changes else 0, following))
        if call.parameters.get("includeRemoved", "true") == "false":
            changes = [change for change in changes if change.file is not None]
        below = mask.get("changes", {}).get("file", {})
        answer["changes"] = [self._change(change, below) for change in changes]
        return fields.cut(answer, mask)

    def _change(self, change: Change, mask: Mask) -> dict[str, Any]:
        answer = {
            "kind": "drive#change",
            "type": "file",
            "changeType": "file",
            "time": _time(change.at),
            "fileId": change.file_id,
            "removed": change.file is None,
        }
        if change.file is not None:
            answer["file"] = self._resource(change.file, mask)
        return answer

    def _resource(self, file: File, mask: Mask) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "kind": "drive#file",
            "id": file.id,
            "name": file.name,
            "mimeType": file.mime,
            "starred": file.starred,
            "trashed": file.trashed,
            "explicitlyTrashed": file.binned,
            "spaces": ["drive"],
            "version": str(file.version),
            "createdTime": _time(file.created),
            "modifiedTime": _time(file.modified),
            "modifiedByMeTime": _time(file.modified),
            "modifiedByMe": True,
            "owners": [_USER],
            "lastModifyingUser": _USER,
            "ownedByMe": True,
            "shared": False,
            "isAppAuthorized": True,
            "quotaBytesUsed": str(file.size),
            "capabilities": _capabilities(file, file.id == self.tree.root),
        }
        if file.parent is not None:
            answer["parents"] = [file.parent]
        if file.description is not None:
            answer["description"] = file.description
        if file.app_properties:
            answer["appProperties"] = file.app_properties
        if file.properties:
            answer["properties"] = file.properties
        if file.trashed_at is not None:
            answer["trashedTime"] = _time(file.trashed_at)
        if not file.folder:
            answer |= self._of_content(file, mask)
        return fields.cut(answer, mask)

    def _of_content(self, file: File, mask: Mask) -> dict[str, Any]:
        suffix = os.path.splitext(file.name)[1].removeprefix(".")
        answer = {
            "size": str(file.size),
            "originalFilename": file.name,
            "fileExtension": suffix,
            "fullFileExtension": suffix,
            "headRevisionId": f"{file.modified:x}-{file.size:x}",
        }
        # A file put there by hand has no hash yet, and to compute it the whole of it has to be read.
        if fields.wants(mask, "md5Checksum") and (md5 := self.tree.md5(file)):
            answer["md5Checksum"] = md5
        return answer


class _Order:
    """`orderBy` as SQL, and page tokens: the sort keys of the last file seen, so that no page repeats or skips one."""

    def __init__(self, text: str) -> None:
        self.keys: list[tuple[str, str]] = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, direction = part.partition(" ")
            if name not in _SORTS or direction.strip() not in ("", "desc"):
                raise invalid(f"The hub does not sort by {part[:100]!r}.", "orderBy")
            self.keys.append((_SORTS[name], "DESC" if direction else "ASC"))
        self.keys.append(("seq", "ASC"))
        self.sql = ", ".join(f"{column} {direction}" for column, direction in self.keys)

    def token(self, file: File) -> str:
        values = {
            "folded": file.name.casefold(), "modified": file.modified, "created": file.created, "size": file.size,
            "starred": int(file.starred), "-folder": -int(file.folder), "seq": file.seq,
        }  # fmt: skip
        text = json.dumps([values[column] for column, _ in self.keys])
        return base64.urlsafe_b64encode(text.encode()).decode()

    def after(self, token: str | None) -> tuple[str, tuple[Any, ...]]:
        """A condition that holds for the files behind the one that `token` says."""
        if not token:
            return "1", ()
        try:
            last = json.loads(base64.urlsafe_b64decode(token.encode()))
        except (binascii.Error, ValueError):
            last = None
        if not isinstance(last, list) or [type(value) for value in last] != [
            str if column == "folded" else int for column, _ in self.keys
        ]:
            raise Refusal(400, "invalid", "The page token is not one of this search.", where="pageToken")
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
        raise invalid(f"Invalid value for {name}: it is between 1 and {largest}.", name)
    return int(text)


def _only_my_drive(parameters: Mapping[str, str]) -> None:
    if parameters.get("driveId") or parameters.get("teamDriveId") or parameters.get("corpora") in ("drive", "domain"):
        raise unsupported("shared drives")
    if set(parameters.get("spaces", "drive").split(",")) != {"drive"}:
        raise unsupported("the space appDataFolder")


def _one_parent(file: File, parameters: Mapping[str, str]) -> str | None:
    """The folder a file is moved to; None when it stays. A file always has exactly one."""
    added = [parent for parent in parameters.get("addParents", "").split(",") if parent]
    removed = [parent for parent in parameters.get("removeParents", "").split(",") if parent]
    if len(added) > 1:
        raise Refusal(403, "cannotAddParent", "A file lies in exactly one folder.", where="addParents")
    if removed and not added and file.parent in removed:
        raise Refusal(403, "cannotRemoveParent", "A file lies in exactly one folder.", where="removeParents")
    return added[0] if added else None


def _time(nanoseconds: int) -> str:
    """RFC 3339 in UTC with milliseconds, as Drive writes times."""
    when = datetime.fromtimestamp(nanoseconds // 10**9, UTC)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{nanoseconds // 10**6 % 1000:03}Z"


def _capabilities(file: File, is_root: bool) -> dict[str, bool]:
    return {
        "canAddChildren": file.folder,
        "canCopy": not file.folder,
        "canDelete": not is_root,
        "canDownload": not file.folder,
        "canEdit": True,
        "canListChildren": file.folder,
        "canModifyContent": not file.folder,
        "canRename": not is_root,
        "canShare": False,
        "canTrash": not is_root,
        "canUntrash": file.binned,
    }


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(f"{key} is not a text.", key)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid(f"{key} is not Unicode text: it has a lone surrogate.", key) from None
    return value


def _name(key: str, value: Any) -> str:
    return names.checked(_text(key, value))


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise invalid(f"{key} is not true or false.", key)
    return value


def _moment(key: str, value: Any) -> int:
    try:
        when = queries.moment(_text(key, value))
    except (ValueError, OverflowError):
        raise invalid(f"{key} is not a time like 2024-05-31T12:00:00.000Z.", key) from None
    if not 0 <= when < 2**62:
        raise invalid(f"{key} lies outside the years that a disk can hold.", key)
    return when


def _properties(key: str, value: Any) -> dict[str, str | None]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > 100:
        raise invalid(f"{key} is not an object of at most 100 texts.", key)
    for name, text in value.items():
        if text is not None and len((_text(key, name) + _text(key, text)).encode()) > _LONGEST_PROPERTY:
            raise invalid(f"A key and value of {key} have at most {_LONGEST_PROPERTY} bytes together.", key)
    return value


def _id(key: str, value: Any) -> str:
    if not _IDS.fullmatch(_text(key, value)):
        raise Refusal(400, "invalid", "The provided file ID is not usable.", where="id")
    return str(value)


def _parents(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > 1 or not all(isinstance(parent, str) for parent in value):
        raise invalid("A file lies in exactly one folder: parents is a list of one id.", "parents")
    return value or ["root"]


_Check = Callable[[str, Any], Any]
_WRITABLE: dict[str, tuple[str, _Check]] = {
    "name": ("name", _name),
    "mimeType": ("mime", _text),
    "description": ("description", _text),
    "starred": ("starred", _flag),
    "trashed": ("trashed", _flag),
    "modifiedTime": ("modified", _moment),
    "appProperties": ("app_properties", _properties),
    "properties": ("properties", _properties),
}
_CREATABLE: dict[str, _Check] = {"id": _id, "createdTime": _moment, "parents": _parents}
