"""The formats of well-known services' tokens: what in a text is a secret, though nobody has said so.

A table, written for outputs of notebooks rather than for source code in a repository. There, hashes, identifiers and
base64 are everywhere, so a format counts only if it has a prefix or a name beside it that means a secret, and never for
its entropy alone. docs/design.md says why this is no library.

Each format has an anchor, a literal that occurs in all its tokens. Anchors are found by `str.find`, and the pattern is
tried there only. A pattern takes time proportional to what it reads: repetitions without a bound are possessive, and
where something must follow such a repetition, the format starts only where the repeated characters start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

Span = tuple[int, int]
"""Where a secret starts and ends in a text, in characters."""


@dataclass(frozen=True)
class TokenFormat:
    """One format.

    Attributes:
        anchor: what all its tokens contain, and where its pattern is tried; in lower case if case does not matter.
        pattern: matches at the anchor. The secret is the group that took part, else the whole match.
    """

    anchor: str
    pattern: re.Pattern[str]


def spans(text: str) -> Iterator[Span]:
    """Yield the spans of all tokens in `text`, in no order; they may overlap."""
    for one in _PREFIXED:
        yield from _spans_of(one, text, text)
    lowered = _lower(text)
    for one in _NAMED:
        yield from _spans_of(one, text, lowered)


def _spans_of(one: TokenFormat, text: str, searched: str) -> Iterator[Span]:
    at = searched.find(one.anchor)
    while at >= 0:
        found = one.pattern.match(text, at)
        if found is not None:
            yield found.span(found.lastindex or 0)
        at = searched.find(one.anchor, at + 1 if found is None else found.end())


def _lower(text: str) -> str:
    """`text` in lower case, with each character in its place."""
    # The only character whose lower case is longer than one.
    return text.replace("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "I").lower()


def _start(inside: str) -> str:
    """Return a pattern for where a token may start: not behind one of the characters `inside`.

    What such characters are part of may also be an escape or a colour that ends there: `\\n`, `\\u003d`, `%3D`, or
    what the terminal gets for a colour, as in tracebacks.
    """
    colors = [rf"(?<=\x1b\[[\d;]{{{length}}}m)" for length in range(9)]
    escapes = [r"(?<=\\[nrt])", r"(?<=\\x[0-9A-Fa-f]{2})", r"(?<=\\u[0-9A-Fa-f]{4})", r"(?<=%[0-9A-Fa-f]{2})"]
    return "(?:" + "|".join([f"(?<![{inside}])", *escapes, *colors]) + ")"


_WORD, _KEBAB, _BASE64 = _start(r"\w"), _start(r"\w-"), _start(r"\w+/-")
_HAS_UPPER, _HAS_DIGIT = r"(?=[a-z0-9_-]{0,60}[A-Z])", r"(?=[A-Za-z_-]{0,60}\d)"
_KEY_HEADER = r"(?:[A-Z0-9]{2,12} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
_KEY_BODY = (
    r"[A-Za-z0-9+/=\s\\:;,.&#\"'|>]"  # base64, headers, and what stands at the ends of lines in JSON, HTML and sources
)

# Formats with a prefix of their own, as anchor → pattern. Characters that base64 does not have, such as "_" and "-",
# keep these apart from base64; the others start only where base64 does.
_PREFIXES: dict[str, str] = {
    # Google: refresh tokens, authorization codes, access tokens, API keys, OAuth clients' secrets
    "1//0": rf"{_BASE64}1//0[\w-]{{30,}}+(?![+/])",
    "4/0A": rf"{_BASE64}4/0A[\w-]{{50,}}+(?![+/])",
    "ya29.": r"ya29\.(?=[\w.-]{20})[\w-]++(?:\.[\w-]++)*+",
    "AIza": rf"{_BASE64}AIza[\w-]{{35}}(?![\w+/=-])",
    "GOCSPX-": r"GOCSPX-[\w-]{20,}+",
    # Amazon: ids of access keys, long-lived (AKIA), of a session (ASIA), bearer and context-specific
    **{name: rf"{_WORD}{name}[A-Z2-7]{{16}}(?![A-Za-z0-9])" for name in ("AKIA", "ASIA", "ABIA", "ACCA")},
    # GitHub: personal, OAuth, user-to-server, server-to-server, refresh; fine-grained
    **{f"gh{kind}_": rf"gh{kind}_\w{{30,}}+(?:\.[\w-]{{16,}}+){{0,2}}" for kind in "pousr"},
    "github_pat_": r"github_pat_\w{22,}+",
    # GitLab: personal, deploy, runner, trigger, agent, mail, feed, OAuth, job, SCIM, feature flag, workspace
    **{
        f"gl{kind}-": rf"{_WORD}gl{kind}-{_HAS_UPPER}[\w-]{{20,}}+(?:\.[0-9a-z]{{2,}}+){{0,2}}"
        for kind in ("pat", "dt", "rt", "ptt", "agent", "imt", "ft", "oas", "cbt", "soat", "ffct", "wt")
    },
    # Packages: npm, PyPI
    "npm_": r"npm_[A-Za-z0-9]{36,}+",
    "pypi-AgE": r"pypi-AgE[\w-]{40,}+",
    # Stripe: secret and restricted keys, secrets of webhooks
    "sk_live_": rf"{_WORD}sk_live_[A-Za-z0-9]{{16,}}+",
    "sk_test_": rf"{_WORD}sk_test_[A-Za-z0-9]{{16,}}+",
    "rk_live_": rf"{_WORD}rk_live_[A-Za-z0-9]{{16,}}+",
    "rk_test_": rf"{_WORD}rk_test_[A-Za-z0-9]{{16,}}+",
    "whsec_": r"whsec_[A-Za-z0-9+/]{32,}+",
    # Slack: bots, users and others; apps; webhooks
    "xox": rf"xox[abeprs](?:\.xox[bp])?-{_HAS_DIGIT}[\w-]{{10,}}+",
    "xapp-": r"xapp-\d-[A-Z0-9]{5,20}-\d{5,20}-[0-9a-f]{32,}+",
    "hooks.slack.com/": r"hooks\.slack\.com/(?:services|workflows|triggers)/([\w/]{20,}+)",
    # Clouds and mail: Databricks, DigitalOcean, SendGrid, Mapbox
    "dapi": r"dapi[0-9a-f]{32}(?:-\d)?(?![0-9a-f])",
    **{f"do{kind}_v1_": rf"do{kind}_v1_[0-9a-f]{{64}}" for kind in "opr"},
    "SG.": rf"{_KEBAB}SG\.[\w-]{{22}}\.[\w-]{{43}}(?![\w-])",
    "sk.eyJ": rf"{_KEBAB}sk\.eyJ[\w-]{{20,}}+\.[\w-]{{20,}}+",
    # Data and models: Kaggle, Hugging Face, Weights & Biases, Replicate, LangSmith, Pinecone
    "KGAT_": r"KGAT_[A-Za-z0-9]{20,}+",
    "hf_": r"hf_(?:oauth_[\w.-]{30,}+|[A-Za-z0-9]{30,}+)",
    "wandb_v1_": r"wandb_v1_\w{40,}+",
    "r8_": rf"{_WORD}r8_[A-Za-z0-9]{{37,}}+",
    "lsv2_": r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}",
    "pcsk_": rf"{_WORD}pcsk_{_HAS_DIGIT}\w{{50,}}+",
    # Language models: OpenAI, Anthropic, OpenRouter and others with "sk-"; Groq, NVIDIA, xAI, Perplexity, Tavily. No
    # word is as long as these without a hyphen, so kebab-case names stay.
    "sk-": (
        rf"{_KEBAB}sk-(?:(?:proj|svcacct|admin)-{_HAS_UPPER}{_HAS_DIGIT}[\w-]{{40,}}+"
        rf"|ant-[a-z]{{2,8}}\d\d-[\w-]{{40,}}+|(?:or-v1-)?[A-Za-z0-9]{{32,}}+"
        rf"|(?=[a-z0-9_]{{0,60}}[A-Z])(?=[A-Z0-9_]{{0,60}}[a-z])(?=[A-Za-z_]{{0,60}}\d)\w{{20,}}+)"
    ),
    "gsk_": rf"{_WORD}gsk_[A-Za-z0-9]{{40,}}+",
    "nvapi-": rf"nvapi-{_HAS_DIGIT}[\w-]{{50,}}+",
    "xai-": rf"{_WORD}xai-[A-Za-z0-9]{{70,}}+",
    "pplx-": rf"{_WORD}pplx-[A-Za-z0-9]{{40,}}+",
    "tvly-": rf"{_WORD}tvly-(?:dev-|prod-)?[A-Za-z0-9]{{28,}}+",
    # JSON Web Tokens: signed (RFC 7515), and encrypted (RFC 7516), whose second part is no JSON
    "eyJ": (
        rf"{_KEBAB}eyJ[\w-]{{10,}}+\.(?:eyJ[\w-]{{6,}}+\.[\w-]{{10,}}+"
        rf"|[\w-]*+\.[\w-]{{10,}}+\.[\w-]{{10,}}+\.[\w-]{{10,}}+)"
    ),
    # Passwords and tokens in URLs, but neither the placeholders of a program's source nor an image's digest
    "://": (r"://(?:([\w-]{30,256}+)@|[^\s/:@\"'<>\\]{0,128}+:(?![{$<*\[]|%[s(])([^\s/@\"'<>\\]{1,256}+)@(?!sha256:))"),
    ":\\/\\/": r":\\/\\/[^\s/:@\"'<>\\]{0,128}+:(?![{$<*\[]|%[s(])([^\s/@\"'<>\\]{1,256}+)@",
    # Private keys (RFC 7468, OpenSSH, PGP): up to their end, or as much as is there
    "-----BEGIN ": (
        rf"-----BEGIN {_KEY_HEADER}(?:{_KEY_BODY}*+(?:-(?!----){_KEY_BODY}*+)*+-----END {_KEY_HEADER}"
        rf"|(?:(?:\s|\\[nr]){{0,4}}[A-Za-z-]{{3,20}}: [\w., -]{{1,100}}){{0,4}}[A-Za-z0-9+/=\s\\]{{40,}}+)"
    ),
}

# A quotation mark as text, JSON (also in strings of JSON) and HTML write it; what stands between a name and its value.
_QUOTE = r"""(?:\\{0,7}["'`]|&(?:amp;)?(?:quot|apos|\#0?3[49]|\#x2[27]);)"""
_IS = rf"{_QUOTE}?\]?\s{{0,4}}(?:=>|[:=,])\s{{0,4}}{_QUOTE}?"
_SPACE = r"(?:\s|\\[nrt]){1,20}"
_NEXT = rf"{_QUOTE}?(?:\s|\\n){{0,8}},(?:\s|\\n){{0,8}}{_QUOTE}?"
_HEX32 = r"([0-9a-f]{32})(?![0-9a-f])"
_AWS_SECRET = r"((?:[a-z0-9+]|\\{0,3}/){40})(?![a-z0-9+/=])"
_OPAQUE = r"(?=[a-z_.~+/=-]{0,200}\d)([\w.~+/=-]{20,}+)"
_NETRC = rf"login{_SPACE}[^\s\\]{{1,255}}+{_SPACE}(?:account{_SPACE}[^\s\\]{{1,255}}+{_SPACE})?password{_SPACE}"

# Values that are secrets for the name before them, as anchor → pattern; upper and lower case are the same.
_NAMES: dict[str, str] = {
    # kaggle.json in both orders, and its key elsewhere; a hash behind another "key" stays
    "username": rf"username{_IS}[\w.-]{{1,64}}{_NEXT}key{_IS}{_HEX32}",
    "key": rf"(?<![a-z])key{_IS}{_HEX32}{_NEXT}username{_QUOTE}",
    "kaggle_key": rf"kaggle_key{_IS}{_HEX32}",
    **{
        name: rf"(?<![a-z]){name}{_IS}(?=[a-z]{{0,99}}\d)([a-z0-9]{{32,}}+)"
        for name in ("api_key", "api-key", "apikey")
    },
    "wandb.login(": r"wandb\.login\(\s{0,8}(?:key\s{0,4}=\s{0,4})?\\{0,3}[\"']([0-9a-f]{40})(?![0-9a-f])",
    "wandb login ": r"wandb login (?:--relogin )?([0-9a-f]{40})(?![0-9a-f])",
    # Amazon's secret keys: behind their name, or behind the id that they belong to
    **{
        name: rf"{name}{_IS}{_AWS_SECRET}"
        for name in ("secret_access_key", "secretaccesskey", "aws_secret", "secret_key", "secretkey")
    },
    **{
        name: rf"{name}[A-Z2-7]{{16}}[^\w+/]{{1,12}}(?:(?:aws_)?secret\w{{0,20}}[^\w+/]{{1,12}})?{_AWS_SECRET}"
        for name in ("akia", "asia")
    },
    **{name: rf"{name}{_IS}([a-z0-9+/=%]{{100,}}+)" for name in ("session_token", "sessiontoken")},
    # HTTP and OAuth
    "authorization": (
        rf"authorization{_IS}(?:basic\s{{1,4}}(?=.(?-i:[a-z]){{0,200}}(?-i:[A-Z0-9+/=]))([a-z0-9+/=_-]{{6,}}+)"
        rf"|(?:bearer|token|apikey)\s{{1,4}}([\w.~+/=-]{{20,}}+))"
    ),
    "bearer": rf"(?<![a-z])bearer\s{{1,4}}{_OPAQUE}",
    **{name: rf"{name}{_IS}{_OPAQUE}" for name in ("access_token", "refresh_token", "client_secret")},
    # netrc, npm's and Azure's settings
    "machine": rf"machine{_SPACE}[^\s\\]{{1,255}}+{_SPACE}{_NETRC}([^\s\\\"'<]{{1,255}}+)",
    "default": rf"default{_SPACE}{_NETRC}([^\s\\\"'<]{{1,255}}+)",
    "_authtoken": r"_authtoken\s{0,4}=\s{0,4}(?!\$)([\w./+=-]{16,}+)",
    "accountkey=": r"accountkey=([a-z0-9+/]{43,86}={1,2})",
    "sharedaccesskey=": r"sharedaccesskey=([a-z0-9+/]{43,86}={1,2})",
}

_PREFIXED = [TokenFormat(anchor, re.compile(pattern)) for anchor, pattern in _PREFIXES.items()]
_NAMED = [TokenFormat(anchor, re.compile(pattern, re.IGNORECASE)) for anchor, pattern in _NAMES.items()]
