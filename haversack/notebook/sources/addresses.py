"""Where the notebook is that a user names: a page's address becomes that of the file that it shows. Sends nothing.

Pages that show another site's file (Colab, nbviewer, Binder and so on) are rewritten to that site's address first, and
pages of a code host then to the host's raw file. What follows `blob/` on GitHub is a branch, which may have slashes,
and a path; raw.githubusercontent.com takes both in the same form, so nobody has to tell where the branch ends.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from haversack.errors import InputError

Kind = Literal["path", "input", "url", "gist", "drive", "drive file", "kaggle", "store"]

_ACCEPTED = (
    "Give a path, the address of an .ipynb file or of its page on GitHub, Colab, Kaggle, Hugging Face or nbviewer, or "
    "drive:/My Drive/x.ipynb."
)
_MOST_REWRITES = 5
_MASK = "***"
# Names of values in a query that let anyone in who has the address.
_SECRET = re.compile(r"(?i)token|key|sig|secret|password|credential|auth|x-(amz|goog)-|^(se|sp|sv|sr)$")


@dataclass(frozen=True)
class Address:
    """Where a notebook is.

    Attributes:
        kind: what `target` is:
            "path": a path of this machine; "input": the standard input; "url": the URL of the file;
            "gist": ID or ID/REVISION of a gist; "drive": a path on the drive, as `drive://…`;
            "drive file": the id of a file on the drive; "kaggle": OWNER/NAME or OWNER/NAME/VERSION of a notebook;
            "store": another URL that fsspec opens, such as `s3://…`.
        target: see `kind`.
        name: the file's name in a gist of several, or how its page spells it; "" if unknown.
    """

    kind: Kind
    target: str
    name: str = ""


_Rewrites = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
# A page's address without its scheme → that of what it shows. Tried in this order, until none matches.
_COLAB = r"colab\.(?:research|sandbox)\.google\.com"
_NBVIEWER = r"(?:www\.)?nbviewer\.(?:org|jupyter\.org|ipython\.org)(?:/format/\w+)?"
_GITHUB_PAGES = (
    rf"{_COLAB}/github",
    rf"{_NBVIEWER}/github",
    r"(?:www\.)?(?:githubtocolab\.com|github\.dev|github1s\.com)",
    r"studiolab\.sagemaker\.aws/import/github",
    r"console\.paperspace\.com/github",
    r"vscode\.dev/github",
)
_BINDER = r"(?:(?:[\w-]+\.)*mybinder\.org|notebooks\.gesis\.org/binder)/v2"
_REWRITES: _Rewrites = (
    (rf"(?:{'|'.join(_GITHUB_PAGES)})/(?P<rest>[^/?#]+/[^/?#]+/.+)", r"github.com/\g<rest>"),
    (rf"(?:{_COLAB}|{_NBVIEWER})/gist/(?P<rest>.+)", r"gist.github.com/\g<rest>"),
    (rf"{_NBVIEWER}/(?P<id>[0-9]+|[0-9a-f]{{20,40}})(?P<rest>(?:/.*)?)", r"gist.github.com/\g<id>\g<rest>"),
    (rf"{_NBVIEWER}/urls?/(?P<rest>https?://?.+)", lambda found: re.sub(r"^(https?):/+", r"\1://", found["rest"])),
    (rf"{_NBVIEWER}/(?P<secure>urls?)/(?P<rest>.+)", lambda found: _scheme(found["secure"]) + found["rest"]),
    (rf"{_COLAB}/(?:notebook)?/?#.*?\bfileId=(?P<id>https?%3A[^&#]+|https?:[^#]+)", lambda found: unquote(found["id"])),
    (rf"{_COLAB}/(?:notebook)?/?#.*?\bfileId=(?P<id>[\w-]+).*", r"drive.google.com/file/d/\g<id>"),
    (rf"{_COLAB}/drive/(?P<id>[\w-]{{10,}}).*", r"drive.google.com/file/d/\g<id>"),
    (rf"{_BINDER}/gh/(?P<repo>[^/]+/[^/]+)/(?P<ref>[^/?]+)/?\?(?P<query>.+)", lambda found: _of_binder(found)),
    (
        rf"{_BINDER}/gist/[^/]+/(?P<id>[0-9a-f]+)/[^/?]+/?(?:\?(?P<query>.+))?",
        lambda found: f"gist.github.com/{found['id']}/{_opened(found['query'] or '')}",
    ),
    (r"[^?#]+/git-pull/?\?(?P<query>.+)", lambda found: _of_git_pull(found["query"])),
    (r"(?:www\.)?kaggle\.com/(?:notebooks|kernels|code)/welcome/?\?(?P<query>.+)", lambda f: _value(f["query"], "src")),
    (r"(?:www\.)?deepnote\.com/launch/?\?(?P<query>.+)", lambda found: _value(found["query"], "url")),
    (r"console\.cloud\.google\.com/vertex-ai/colab/import/(?P<url>[^?#]+).*", lambda found: unquote(found["url"])),
    (
        r"console\.cloud\.google\.com/(?:vertex-ai/workbench/deploy-notebook|bigquery/import)/?\?(?P<query>.+)",
        lambda found: _value(found["query"], "download_url") or _value(found["query"], "url"),
    ),
)
# The page of a file on a code host → the URL of the file. Of these, the query only says how the page looks.
_FILES = (
    (
        r"(?:www\.)?github\.com/(?P<repo>[^/]+/[^/]+)/(?:blob|raw|blame|edit|tree)/(?P<rest>[^?#]+)",
        r"https://raw.githubusercontent.com/\g<repo>/\g<rest>",
    ),
    (  # GitHub Enterprise
        r"(?P<host>github\.[^/]+)/(?P<repo>[^/]+/[^/]+)/(?:blob|raw|blame)/(?P<rest>[^?#]+)",
        r"https://\g<host>/\g<repo>/raw/\g<rest>",
    ),
    (r"(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>.+?)/(?:blob|raw|resolve)/(?P<rest>[^?#]+)",
     r"https://huggingface.co/\g<repo>/resolve/\g<rest>"),
    (r"(?P<host>[^/]+)/(?P<repo>[^?#]+?)/-/(?:blob|raw|blame)/(?P<rest>[^?#]+)",
     r"https://\g<host>/\g<repo>/-/raw/\g<rest>"),
    (r"bitbucket\.org/(?P<repo>[^/]+/[^/]+)/(?:src|raw)/(?P<rest>[^?#]+)",
     r"https://bitbucket.org/\g<repo>/raw/\g<rest>"),
    (
        r"(?P<host>[^/]+)/(?P<repo>[^/]+/[^/]+)/(?:src|raw)/(?P<kind>branch|tag|commit)/(?P<rest>[^?#]+)",
        r"https://\g<host>/\g<repo>/raw/\g<kind>/\g<rest>",
    ),
)  # fmt: skip
_GIST = re.compile(
    r"gist\.github\.com/(?:[^/?#]+/)?(?P<id>[0-9a-f]{20,40}|[0-9]+)(?P<rest>(?:/[^?#]*)?)(?:\?[^#]*)?(?:#(?P<mark>.+))?"
)
_DRIVE_FILE = re.compile(
    r"(?:drive|docs|drive\.usercontent)\.google\.com/(?:file/d/(?P<id>[\w-]+)|(?:open|uc|download)\?(?P<query>[^#]+)).*"
)
_KAGGLE = re.compile(
    r"(?:www\.)?kaggle\.com/(?:code/|kernels/)?(?P<owner>[\w-]+)/(?P<slug>[\w-]+)(?:/(?:notebook|log|data|comments|edit)"
    r"(?:/run/\d+)?)?/?(?:[?#].*)?",
)
# Hosts by which an address without its scheme is told from a path.
_KNOWN = re.compile(
    r"(?:www\.)?(?:(?:gist\.)?github\.com|(?:raw|gist)\.githubusercontent\.com|gitlab\.com|(?:colab\.research|drive)\."
    r"google\.com|kaggle\.com|huggingface\.co|hf\.co|nbviewer\.(?:jupyter\.)?org|mybinder\.org)/.+"
)
# Hosts of pages, of which only files can be fetched.
_APPLICATIONS = re.compile(
    rf"(?:(?:www|gist)\.)?(?:github\.com|kaggle\.com|huggingface\.co|deepnote\.com)(?:/|$)|{_BINDER}"
)
# First parts of addresses on Kaggle that are no user's name.
_KAGGLE_OTHERS = (
    "competitions", "c", "datasets", "models", "docs", "learn", "discussions", "discussion", "organizations", "account",
    "rankings", "search", "settings", "writeups", "benchmarks", "code", "kernels", "notebooks",
)  # fmt: skip
# Addresses that some tools have for a file of GitHub's and Hugging Face's.
_SHORT: _Rewrites = (
    (r"github://(?P<owner>[^:/@]+):(?P<repo>[^@/]+)@(?P<rest>.+)", r"https://github.com/\g<owner>/\g<repo>/blob/\g<rest>"),
    (r"gist:(?P<id>[0-9a-f]+.*)", r"https://gist.github.com/\g<id>"),
    (r"hf://(?P<repo>(?:(?:datasets|spaces)/)?[^/]+/[^/@]+)(?:@(?P<ref>[^/]+))?/(?P<rest>.+)", lambda f: _of_hf(f)),
)  # fmt: skip


def parse(source: str) -> Address:
    """Return where the notebook is that `source` names.

    Raises `InputError` for an invalid address, and for that of a page that shows no notebook file.
    """
    source = source.strip()
    if source == "-":
        return Address("input", "-", "stdin.ipynb")
    for pattern, template in _SHORT:
        if found := re.fullmatch(pattern, source):
            source = found.expand(template) if isinstance(template, str) else template(found)
    if re.match(r"drive:", source):
        return Address("drive", "drive://" + source.removeprefix("drive:").lstrip("/"))
    if re.match(r"file:", source):
        return Address("path", unquote(urlsplit(source).path))
    if _is_page_without_scheme(source):
        source = f"https://{source}"
    if re.match(r"https?://", source, re.IGNORECASE):
        return _of_page(source)
    if re.match(r"[a-z][a-z0-9+.-]+://", source):
        return Address("store", source)
    return Address("path", source)


def shown(source: str) -> str:
    """Return `source` as it is printed and kept: without a user and password, and without secrets in its query."""
    parts = urlsplit(source)
    if not parts.netloc or parts.scheme not in ("http", "https"):
        return source
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    hidden = [(name, _MASK if _SECRET.search(name) else value) for name, value in pairs]
    query = urlencode(hidden, safe="*/:%") if hidden != pairs else parts.query
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def name_of(url: str) -> str:
    """Return the name of the file that the path of a URL ends with; "" if it ends with a slash."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _of_page(url: str) -> Address:
    for _ in range(_MOST_REWRITES):
        bare = _bare(url)
        found = next(((match, to) for pattern, to in _REWRITES if (match := re.fullmatch(pattern, bare))), None)
        if found is None:
            break
        match, to = found
        target = match.expand(to) if isinstance(to, str) else to(match)
        if not target:
            raise _no_file(url)
        url = target if re.match(r"https?://", target) else f"https://{target}"
    return _of_host(url)


def _of_host(url: str) -> Address:
    bare = _bare(url)
    if gist := _GIST.fullmatch(bare):
        return _of_gist(gist)
    if file := _DRIVE_FILE.fullmatch(bare):
        file_id = file["id"] or _value(file["query"], "id")
        if not file_id:
            raise _no_file(url)
        return Address("drive file", file_id)
    for pattern, template in _FILES:
        if found := re.fullmatch(pattern, bare.partition("#")[0].partition("?")[0]):
            raw = _encoded(found.expand(template))
            return Address("url", raw, name_of(raw))
    kaggle = _KAGGLE.fullmatch(bare)
    if kaggle and kaggle["owner"] not in _KAGGLE_OTHERS:
        return Address("kaggle", f"{kaggle['owner']}/{kaggle['slug']}", f"{kaggle['slug']}.ipynb")
    is_file = name_of(url).endswith(".ipynb")  # such as a release's
    if re.match(_COLAB, bare) or (not is_file and _APPLICATIONS.match(bare)):
        raise _no_file(url)
    if re.match(r"(?:www\.)?dropbox\.com/", bare):
        url = re.sub(r"\bdl=0\b", "dl=1", url)
    plain = _encoded(url.partition("#")[0])
    return Address("url", plain, name_of(plain))


def _of_gist(found: re.Match[str]) -> Address:
    """The address of a gist: `…/ID`, `…/ID/REVISION`, `…/ID/FILE.ipynb` (Colab, nbviewer), `…/ID#file-name-ipynb`."""
    rest = [part for part in found["rest"].split("/") if part and part != "raw"]
    revision = rest.pop(0) if rest and re.fullmatch(r"[0-9a-f]{40}", rest[0]) else ""
    name = unquote(rest[-1]) if rest and "." in rest[-1] else found["mark"] or ""
    return Address("gist", f"{found['id']}/{revision}" if revision else found["id"], name)


def _bare(url: str) -> str:
    """`url` without its scheme, user, password and port 443, its host in lower case. Raises `InputError`."""
    try:
        urlsplit(url)
    except ValueError:
        # Not shown: its user and password cannot be told from its host.
        raise InputError("The address is not valid.", "Copy it again from the browser.") from None
    rest = re.sub(r"(?i)^https?://", "", url)
    authority, slash, path = re.fullmatch(r"([^/?#]*)(/?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    return authority.rpartition("@")[2].lower().removesuffix(":443") + slash + path


def _encoded(url: str) -> str:
    """`url` with spaces and other letters that a URL cannot have percent-encoded; what is encoded stays as it is."""
    return quote(url, safe="%/:?#[]@!$&'()*+,;=-._~")


def _is_page_without_scheme(source: str) -> bool:
    """Whether `source` is an address that was copied without `https://`, and no path of this machine."""
    return _KNOWN.match(source) is not None and not os.path.lexists(source)


def _scheme(kind: str) -> str:
    return "https://" if kind == "urls" else "http://"


def _value(query: str, name: str) -> str:
    """The decoded value `name` of a URL's query; "" if there is none."""
    return parse_qs(query).get(name, [""])[0]


def _of_binder(found: re.Match[str]) -> str:
    """The page of the notebook that a link to mybinder.org opens; "" if it opens none."""
    path = _opened(found["query"])
    return f"github.com/{found['repo']}/blob/{unquote(found['ref'])}/{quote(path)}" if path else ""


def _of_git_pull(query: str) -> str:
    """The page of the notebook that a link of nbgitpuller's opens, from a repository on GitHub; "" if it opens none."""
    repository = re.sub(r"\.git$|/$", "", _value(query, "repo"))
    _, _, path = _opened(query).partition("/")  # the first part is the folder of the clone
    branch = _value(query, "branch") or "HEAD"
    return f"{repository}/blob/{branch}/{quote(path)}" if repository and path else ""


def _opened(query: str) -> str:
    """The path of the notebook that a link into a JupyterLab opens; "" if it opens none."""
    path = _value(query, "labpath") or _value(query, "filepath") or _value(query, "urlpath")
    path = re.sub(r"^/?(?:lab/tree|notebooks|tree|doc/tree)/", "", path)
    return path if path.endswith(".ipynb") else ""


def _of_hf(found: re.Match[str]) -> str:
    return f"https://huggingface.co/{found['repo']}/blob/{found['ref'] or 'main'}/{found['rest']}"


def _no_file(url: str) -> InputError:
    return InputError(f"{shown(url)} is not the page of a notebook file.", _ACCEPTED)
