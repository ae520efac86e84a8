"""A file's JSON in Drive v3, both ways: what the hub answers, and what a body may say.

The hub fills the fields that it keeps. Fields that Drive keeps for display only are accepted and forgotten; read-only
ones are refused as Drive refuses them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from haversack.hub import documents, fields, names
from haversack.hub import query as queries
from haversack.hub.documents import SHORTCUT, SUFFIXES
from haversack.hub.fields import Mask
from haversack.hub.index import FOLDER, HubFile
from haversack.hub.refusal import Refusal, invalid, unsupported
from haversack.hub.signin import SignIn
from haversack.hub.tree import Tree

# Every field that Drive v3's discovery document gives a file.
FIELDS = frozenset({
    "appProperties", "capabilities", "clientEncryptionDetails", "contentHints", "contentRestrictions",
    "copyRequiresWriterPermission", "createdTime", "description", "downloadRestrictions", "driveId",
    "explicitlyTrashed", "exportLinks", "fileExtension", "folderColorRgb", "fullFileExtension",
    "hasAugmentedPermissions", "hasThumbnail", "headRevisionId", "iconLink", "id", "imageMediaMetadata",
    "inheritedPermissionsDisabled", "isAppAuthorized", "kind", "labelInfo", "lastModifyingUser",
    "linkShareMetadata", "md5Checksum", "mimeType", "modifiedByMe", "modifiedByMeTime", "modifiedTime", "name",
    "originalFilename", "ownedByMe", "owners", "parents", "permissionIds", "permissions", "properties",
    "quotaBytesUsed", "resourceKey", "sha1Checksum", "sha256Checksum", "shared", "sharedWithMeTime", "sharingUser",
    "shortcutDetails", "size", "spaces", "starred", "teamDriveId", "thumbnailLink", "thumbnailVersion", "trashed",
    "trashedTime", "trashingUser", "version", "videoMediaMetadata", "viewedByMe", "viewedByMeTime",
    "viewersCanCopyContent", "webContentLink", "webViewLink", "writersCanShare",
})  # fmt: skip
USER = {
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
_LONGEST_PROPERTY = 124  # bytes of key and value together, Drive's limit


@dataclass(frozen=True)
class Source:
    """What answers are made from: the files, and how the one who asks reaches the hub."""

    tree: Tree
    signin: SignIn
    origin: str


def resource(file: HubFile, mask: Mask, source: Source) -> dict[str, Any]:
    """A file's JSON, cut to what `mask` names; what it does not name is not even looked up."""
    everything = not mask or "*" in mask
    sha = everything or "sha1Checksum" in mask or "sha256Checksum" in mask
    if _has_bytes(file) and (sha or "md5Checksum" in mask):
        # A file put there by hand has no hash yet, and to compute it the whole of it has to be read.
        file = source.tree.hashed(file, sha=sha)
    answer = {}
    for name in _MAKERS if everything else mask:
        value = _MAKERS[name](file, source) if name in _MAKERS else None
        if value is not None:
            below = None if everything else mask[name]
            answer[name] = fields.cut(value, below) if below else value
    return answer


def described(body: Any, *, creating: bool) -> dict[str, Any]:
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
        elif key in _CREATABLE and creating:
            name, check = _CREATABLE[key]
            about[name] = check(key, value)
        elif key == "parents":
            raise Refusal(
                403, "fieldNotWritable",
                "The parents field is not directly writable in update requests."
                " Use the addParents and removeParents parameters instead.",
            )  # fmt: skip
        elif key not in _IGNORED:
            raise Refusal(403, "fieldNotWritable", f"The resource body includes {key}, which cannot be written.")
    mime = about.get("mime", "")
    if mime.startswith("application/vnd.google-apps.") and mime != FOLDER and mime not in SUFFIXES:
        raise unsupported(f"{mime}; it keeps files, folders, shortcuts, documents, sheets and slides")
    if mime == SHORTCUT and creating and "target" not in about:
        raise invalid("A shortcut needs shortcutDetails.targetId.", "shortcutDetails.targetId")
    if "target" in about and mime != SHORTCUT:
        raise invalid("Only a shortcut has shortcutDetails.", "shortcutDetails")
    return about


def time_text(nanoseconds: int) -> str:
    """RFC 3339 in UTC with milliseconds, as Drive writes times."""
    return f"{_second_text(nanoseconds // 10**9)}.{nanoseconds // 10**6 % 1000:03}Z"


@lru_cache(maxsize=4096)
def _second_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def _has_bytes(file: HubFile) -> bool:
    return not file.folder and file.mime not in SUFFIXES


def _of_bytes(make: Callable[[HubFile], str | None]) -> _Maker:
    """A field that only files with content of their own have."""
    return lambda file, source: make(file) if _has_bytes(file) else None


def _suffix(file: HubFile) -> str:
    return os.path.splitext(file.name)[1].removeprefix(".")


def _full_suffix(file: HubFile) -> str:
    """With what stands before it, where that is part of a type's name: `tar.gz`."""
    stem, last = os.path.splitext(file.name)
    before = os.path.splitext(stem)[1]
    return (before + last if before == ".tar" else last).removeprefix(".")


def _export_links(file: HubFile, source: Source) -> dict[str, str] | None:
    start = f"{source.origin}/drive/v3/files/{file.id}/export?mimeType="
    return {mime: start + quote(mime, safe="") for mime in documents.exports(file.mime)} or None


def _content_link(file: HubFile, source: Source) -> str | None:
    """A signed link that needs no header and expires."""
    path = f"/links/{file.id}"
    return f"{source.origin}{path}?{source.signin.sign(path)}" if _has_bytes(file) else None


def _shortcut(file: HubFile, source: Source) -> dict[str, str] | None:
    if file.target is None:
        return None
    target = source.tree.index.stored(file.target)
    return {"targetId": file.target, **({"targetMimeType": target.mime} if target else {})}


def _capabilities(file: HubFile, source: Source) -> dict[str, bool]:
    is_root = file.id == source.tree.root
    return {
        "canAddChildren": file.folder,
        "canCopy": not file.folder,
        "canDelete": not is_root,
        "canDownload": _has_bytes(file),
        "canEdit": True,
        "canListChildren": file.folder,
        "canModifyContent": _has_bytes(file),
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


def _target(key: str, value: Any) -> str:
    target = value.get("targetId") if isinstance(value, dict) else None
    if not isinstance(target, str) or not _IDS.fullmatch(target):
        raise invalid("shortcutDetails.targetId is not a file's id.", "shortcutDetails.targetId")
    return target


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
_CREATABLE: dict[str, tuple[str, _Check]] = {
    "id": ("id", _id),
    "createdTime": ("created", _moment),
    "parents": ("parents", _parents),
    "shortcutDetails": ("target", _target),
}

_Maker = Callable[[HubFile, Source], Any]
_MAKERS: dict[str, _Maker] = {
    "kind": lambda file, source: "drive#file",
    "id": lambda file, source: file.id,
    "name": lambda file, source: file.name,
    "mimeType": lambda file, source: file.mime,
    "parents": lambda file, source: [file.parent] if file.parent is not None else None,
    "size": _of_bytes(lambda file: str(file.size)),
    "md5Checksum": _of_bytes(lambda file: file.md5),
    "sha1Checksum": _of_bytes(lambda file: file.sha1),
    "sha256Checksum": _of_bytes(lambda file: file.sha256),
    "headRevisionId": _of_bytes(lambda file: f"{file.id[:24]}r{file.revision}"),
    "version": lambda file, source: str(file.version),
    "createdTime": lambda file, source: time_text(file.created),
    "modifiedTime": lambda file, source: time_text(file.modified),
    "modifiedByMeTime": lambda file, source: time_text(file.modified),
    "modifiedByMe": lambda file, source: True,
    "starred": lambda file, source: file.starred,
    "trashed": lambda file, source: file.trashed,
    "explicitlyTrashed": lambda file, source: file.binned,
    "trashedTime": lambda file, source: time_text(file.trashed_at) if file.trashed_at is not None else None,
    "description": lambda file, source: file.description,
    "appProperties": lambda file, source: file.app_properties or None,
    "properties": lambda file, source: file.properties or None,
    "originalFilename": _of_bytes(lambda file: file.name),
    "fileExtension": _of_bytes(_suffix),
    "fullFileExtension": _of_bytes(_full_suffix),
    "webContentLink": _content_link,
    "exportLinks": _export_links,
    "shortcutDetails": _shortcut,
    "quotaBytesUsed": lambda file, source: str(file.size) if _has_bytes(file) else "0",
    "spaces": lambda file, source: ["drive"],
    "owners": lambda file, source: [USER],
    "lastModifyingUser": lambda file, source: USER,
    "ownedByMe": lambda file, source: True,
    "shared": lambda file, source: False,
    "isAppAuthorized": lambda file, source: True,
    "capabilities": _capabilities,
}
