"""A file's JSON in Drive v3, both ways: what the hub answers, and what a body may say.

The hub fills the fields that it keeps. Fields that Drive keeps for display only are accepted and forgotten; read-only
ones are refused as Drive refuses them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from haversack.hub import fields, names
from haversack.hub import query as queries
from haversack.hub.fields import Mask
from haversack.hub.refusal import Refusal, invalid, unsupported
from haversack.hub.tree import FOLDER, File, Tree

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


def resource(file: File, mask: Mask, tree: Tree) -> dict[str, Any]:
    """A file's JSON, cut to what `mask` names."""
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
        "createdTime": time_text(file.created),
        "modifiedTime": time_text(file.modified),
        "modifiedByMeTime": time_text(file.modified),
        "modifiedByMe": True,
        "owners": [USER],
        "lastModifyingUser": USER,
        "ownedByMe": True,
        "shared": False,
        "isAppAuthorized": True,
        "quotaBytesUsed": str(file.size),
        "capabilities": _capabilities(file, file.id == tree.root),
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
        answer["trashedTime"] = time_text(file.trashed_at)
    if not file.folder:
        answer |= _of_content(file, mask, tree)
    return fields.cut(answer, mask)


def _of_content(file: File, mask: Mask, tree: Tree) -> dict[str, Any]:
    suffix = os.path.splitext(file.name)[1].removeprefix(".")
    answer = {
        "size": str(file.size),
        "originalFilename": file.name,
        "fileExtension": suffix,
        "fullFileExtension": suffix,
        "headRevisionId": f"{file.modified:x}-{file.size:x}",
    }
    # A file put there by hand has no hash yet, and to compute it the whole of it has to be read.
    if fields.wants(mask, "md5Checksum") and (md5 := tree.md5(file)):
        answer["md5Checksum"] = md5
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


def time_text(nanoseconds: int) -> str:
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
