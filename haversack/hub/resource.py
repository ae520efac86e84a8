"""A file's JSON in Drive v3, in both directions: what the hub returns, and what a request's body may set.

The hub returns the fields that it stores. It accepts and ignores fields that are for display only, and refuses
read-only ones with Drive's errors.
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
_ID = re.compile(r"[A-Za-z0-9_-]{10,100}")
_IGNORED = {
    "contentHints", "copyRequiresWriterPermission", "folderColorRgb", "keepRevisionForever", "kind",
    "originalFilename", "viewedByMeTime", "viewersCanCopyContent", "writersCanShare",
}  # fmt: skip
_MAX_PROPERTY = 124  # bytes of key and value together, Drive's limit


@dataclass(frozen=True)
class ResourceContext:
    """What a file's JSON is built from beside the file.

    Attributes:
        tree: the drive's files, for hashes and the targets of shortcuts.
        signin: signs links to content.
        origin: the scheme and host that the client used, for links.
    """

    tree: Tree
    signin: SignIn
    origin: str


def file_resource(file: HubFile, mask: Mask, context: ResourceContext) -> dict[str, Any]:
    """Return a file's JSON with the fields that `mask` selects; fields that the hub does not store are left out.

    Selecting a checksum, or everything, reads and hashes a file whose hash is not known yet; no other field reads it.
    """
    everything = not mask or "*" in mask
    sha = everything or "sha1Checksum" in mask or "sha256Checksum" in mask
    if _has_content(file) and (sha or "md5Checksum" in mask):
        # A file that was put there by hand has no hash yet, and hashing it reads all of it.
        file = context.tree.with_digests(file, sha=sha)
    answer = {}
    for name in _FIELD_BUILDERS if everything else mask:
        value = _FIELD_BUILDERS[name](file, context) if name in _FIELD_BUILDERS else None
        if value is not None:
            below = None if everything else mask[name]
            answer[name] = fields.apply_to_value(value, below) if below else value
    return answer


def parse_metadata(body: Any, *, creating: bool) -> dict[str, Any]:
    """Parse the JSON body of a request that creates or changes a file.

    Returns a dict with the names that `Tree` uses: `name`, `mime`, `description`, `starred`, `trashed`, `modified` (ns
    since 1970), `app_properties`, `properties`; with `creating` also `id`, `created` (ns since 1970), `parents` (a list
    of one id), `target` (a shortcut's). Null fields and fields for display only are ignored; inside `properties` and
    `app_properties` a value of None is kept, and means that the property is to be removed. Raises `Refusal`: 400 for an
    invalid value, 403 for a read-only field, 501 for a type that the hub does not support.
    """
    if body is not None and not isinstance(body, dict):
        raise invalid("The body is not a JSON object.")
    metadata: dict[str, Any] = {}
    for key, value in (body or {}).items():
        if value is None and key not in ("appProperties", "properties"):
            continue
        if key in _WRITABLE:
            name, check = _WRITABLE[key]
            metadata[name] = check(key, value)
        elif key in _CREATABLE and creating:
            name, check = _CREATABLE[key]
            metadata[name] = check(key, value)
        elif key == "parents":
            raise Refusal(
                403, "fieldNotWritable",
                "The parents field is not directly writable in update requests."
                " Use the addParents and removeParents parameters instead.",
            )  # fmt: skip
        elif key not in _IGNORED:
            raise Refusal(403, "fieldNotWritable", f"The resource body includes {key}, which cannot be written.")
    mime = metadata.get("mime", "")
    if mime.startswith("application/vnd.google-apps.") and mime != FOLDER and mime not in SUFFIXES:
        raise unsupported(f"{mime}; it stores files, folders, shortcuts, documents, sheets and slides")
    if mime == SHORTCUT and creating and "target" not in metadata:
        raise invalid("A shortcut needs shortcutDetails.targetId.", "shortcutDetails.targetId")
    if "target" in metadata and mime != SHORTCUT:
        raise invalid("Only a shortcut has shortcutDetails.", "shortcutDetails")
    return metadata


def format_time(nanoseconds: int) -> str:
    """Format nanoseconds since 1970 as Drive does: RFC 3339 in UTC with milliseconds."""
    return f"{_format_second(nanoseconds // 10**9)}.{nanoseconds // 10**6 % 1000:03}Z"


@lru_cache(maxsize=4096)
def _format_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def _has_content(file: HubFile) -> bool:
    return not file.folder and file.mime not in SUFFIXES


def _content_field(build: Callable[[HubFile], str | None]) -> _FieldBuilder:
    """Return a builder of a field that only files with binary content have."""
    return lambda file, context: build(file) if _has_content(file) else None


def _suffix(file: HubFile) -> str:
    return os.path.splitext(file.name)[1].removeprefix(".")


def _full_suffix(file: HubFile) -> str:
    """Return the suffix without its dot; `tar.gz` for a compressed tar file."""
    stem, last = os.path.splitext(file.name)
    before = os.path.splitext(stem)[1]
    return (before + last if before == ".tar" else last).removeprefix(".")


def _export_links(file: HubFile, context: ResourceContext) -> dict[str, str] | None:
    start = f"{context.origin}/drive/v3/files/{file.id}/export?mimeType="
    return {mime: start + quote(mime, safe="") for mime in documents.export_types(file.mime)} or None


def _content_link(file: HubFile, context: ResourceContext) -> str | None:
    """Return a signed link to the content, which needs no header and expires."""
    path = f"/links/{file.id}"
    return f"{context.origin}{path}?{context.signin.sign(path)}" if _has_content(file) else None


def _shortcut(file: HubFile, context: ResourceContext) -> dict[str, str] | None:
    if file.target is None:
        return None
    target = context.tree.index.find(file.target)
    return {"targetId": file.target, **({"targetMimeType": target.mime} if target else {})}


def _capabilities(file: HubFile, context: ResourceContext) -> dict[str, bool]:
    is_root = file.id == context.tree.root
    return {
        "canAddChildren": file.folder,
        "canCopy": not file.folder,
        "canDelete": not is_root,
        "canDownload": _has_content(file),
        "canEdit": True,
        "canListChildren": file.folder,
        "canModifyContent": _has_content(file),
        "canRename": not is_root,
        "canShare": False,
        "canTrash": not is_root,
        "canUntrash": file.binned,
    }


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(f"{key} is not a string.", key)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid(f"{key} is not valid Unicode: it has a lone surrogate.", key) from None
    return value


def _name(key: str, value: Any) -> str:
    return names.validate(_text(key, value))


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise invalid(f"{key} is not true or false.", key)
    return value


def _time(key: str, value: Any) -> int:
    try:
        when = queries.parse_time(_text(key, value))
    except (ValueError, OverflowError):
        raise invalid(f"{key} is not a time like 2024-05-31T12:00:00.000Z.", key) from None
    if not 0 <= when < 2**62:
        raise invalid(f"{key} is outside of the times that a file system can store.", key)
    return when


def _properties(key: str, value: Any) -> dict[str, str | None]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > 100:
        raise invalid(f"{key} is not an object of at most 100 strings.", key)
    for name, text in value.items():
        if text is not None and len((_text(key, name) + _text(key, text)).encode()) > _MAX_PROPERTY:
            raise invalid(f"A key and value of {key} can have at most {_MAX_PROPERTY} bytes together.", key)
    return value


def _id(key: str, value: Any) -> str:
    if not _ID.fullmatch(_text(key, value)):
        raise Refusal(400, "invalid", "The provided file ID is not usable.", where="id")
    return str(value)


def _target(key: str, value: Any) -> str:
    target = value.get("targetId") if isinstance(value, dict) else None
    if not isinstance(target, str) or not _ID.fullmatch(target):
        raise invalid("shortcutDetails.targetId is not a file id.", "shortcutDetails.targetId")
    return target


def _parents(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > 1 or not all(isinstance(parent, str) for parent in value):
        raise invalid("A file is in exactly one folder: parents must be a list of one id.", "parents")
    return value or ["root"]


_Validator = Callable[[str, Any], Any]
_WRITABLE: dict[str, tuple[str, _Validator]] = {
    "name": ("name", _name),
    "mimeType": ("mime", _text),
    "description": ("description", _text),
    "starred": ("starred", _flag),
    "trashed": ("trashed", _flag),
    "modifiedTime": ("modified", _time),
    "appProperties": ("app_properties", _properties),
    "properties": ("properties", _properties),
}
_CREATABLE: dict[str, tuple[str, _Validator]] = {
    "id": ("id", _id),
    "createdTime": ("created", _time),
    "parents": ("parents", _parents),
    "shortcutDetails": ("target", _target),
}

_FieldBuilder = Callable[[HubFile, ResourceContext], Any]
_FIELD_BUILDERS: dict[str, _FieldBuilder] = {
    "kind": lambda file, context: "drive#file",
    "id": lambda file, context: file.id,
    "name": lambda file, context: file.name,
    "mimeType": lambda file, context: file.mime,
    "parents": lambda file, context: [file.parent] if file.parent is not None else None,
    "size": _content_field(lambda file: str(file.size)),
    "md5Checksum": _content_field(lambda file: file.md5),
    "sha1Checksum": _content_field(lambda file: file.sha1),
    "sha256Checksum": _content_field(lambda file: file.sha256),
    "headRevisionId": _content_field(lambda file: f"{file.id[:24]}r{file.revision}"),
    "version": lambda file, context: str(file.version),
    "createdTime": lambda file, context: format_time(file.created),
    "modifiedTime": lambda file, context: format_time(file.modified),
    "modifiedByMeTime": lambda file, context: format_time(file.modified),
    "modifiedByMe": lambda file, context: True,
    "starred": lambda file, context: file.starred,
    "trashed": lambda file, context: file.trashed,
    "explicitlyTrashed": lambda file, context: file.binned,
    "trashedTime": lambda file, context: format_time(file.trashed_at) if file.trashed_at is not None else None,
    "description": lambda file, context: file.description,
    "appProperties": lambda file, context: file.app_properties or None,
    "properties": lambda file, context: file.properties or None,
    "originalFilename": _content_field(lambda file: file.name),
    "fileExtension": _content_field(_suffix),
    "fullFileExtension": _content_field(_full_suffix),
    "webContentLink": _content_link,
    "exportLinks": _export_links,
    "shortcutDetails": _shortcut,
    "quotaBytesUsed": lambda file, context: str(file.size) if _has_content(file) else "0",
    "spaces": lambda file, context: ["drive"],
    "owners": lambda file, context: [USER],
    "lastModifyingUser": lambda file, context: USER,
    "ownedByMe": lambda file, context: True,
    "shared": lambda file, context: False,
    "isAppAuthorized": lambda file, context: True,
    "capabilities": _capabilities,
}
