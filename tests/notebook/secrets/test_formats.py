"""Tokens of known services: both kinds of error over a corpus, and time that grows with the text only."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import pytest

from haversack.notebook.secrets import formats
from haversack.notebook.secrets.formats import TokenFormat
from haversack.notebook.secrets.masking import Secrets
from tests.notebook.secrets import corpus
from tests.notebook.secrets.steps import Engine


def test_no_harmless_text_is_changed_and_no_secret_is_shown() -> None:
    harmless, fakes = corpus.harmless(), corpus.fakes()
    spoiled = [one for one in harmless if Secrets().mask(one.text) != one.text]
    shown = [one for one in fakes if one.secret in Secrets().mask(one.text)]
    print(f"\n{'kind':<28} {'texts':>6} {'wrong':>6}")
    for texts, wrong, what in ((harmless, spoiled, "harmless, changed"), (fakes, shown, "secret, shown")):
        print(f"{what:<28} {len(texts):>6} {len(wrong):>6}")
        failed = Counter(one.kind for one in wrong)
        for kind, count in Counter(one.kind for one in texts).items():
            print(f"  {kind:<26} {count:>6} {failed[kind]:>6}")
    assert (len(harmless), len(fakes)) == (200, 60)
    assert spoiled == []
    assert shown == []


@pytest.mark.parametrize("fake", corpus.fakes(), ids=lambda fake: fake.kind)
def test_only_the_secret_is_replaced(fake: corpus.Fake) -> None:
    before, _, after = fake.text.partition(fake.secret)
    masked = Secrets().mask(fake.text)
    if before.endswith("\n\n"):  # a private key that is cut off: all of it
        before, after = "", ""
    elif "-----BEGIN" in before:
        before, after = before.partition("-----BEGIN")[0], after.rpartition("-----")[2]
    assert masked == f"{before}***{after}" or masked == f"{before.replace(before[:20], '***')}***{after}"


@pytest.mark.parametrize("format_", [*formats._PREFIXED, *formats._NAMED], ids=lambda format_: format_.anchor)
def test_every_anchor_is_in_what_its_pattern_matches(format_: TokenFormat) -> None:
    """`re` could not tell a typo in an anchor: the format would never be found."""
    texts = [fake.text for fake in corpus.fakes()] + list(MORE.values())
    assert any(
        list(formats._spans_of(format_, text, text.lower() if format_ in formats._NAMED else text)) for text in texts
    )


_H, _A, _U = "0123456789abcdef" * 8, "aB3dE6gH9jK2" * 20, "ABCDEFGH234567AB"
# Formats that the corpus does not have, as anchor → a text.
MORE = {
    **{name: f"id {name}{_U} " for name in ("AKIA", "ASIA", "ABIA", "ACCA")},
    **{
        f"gl{kind}-": f"gl{kind}-{_A[:20]}"
        for kind in ("dt", "ptt", "agent", "imt", "ft", "oas", "cbt", "soat", "ffct", "wt")
    },
    "sk_test_": f"sk_test_{_A[:24]}",
    "rk_live_": f"rk_live_{_A[:24]}",
    "whsec_": f"whsec_{_A[:32]}",
    **{f"do{kind}_v1_": f"do{kind}_v1_{_H[:64]}" for kind in "opr"},
    "sk.eyJ": f"sk.eyJ{_A[:60]}.{_A[:22]}",
    "r8_": f"r8_{_A[:37]}",
    "lsv2_": f"lsv2_pt_{_H[:32]}_{_H[:10]}",
    "pcsk_": f"pcsk_{_A[:60]}",
    "gsk_": f"gsk_{_A[:52]}",
    "nvapi-": f"nvapi-{_A[:64]}",
    "xai-": f"xai-{_A[:80]}",
    "pplx-": f"pplx-{_A[:48]}",
    "tvly-": f"tvly-dev-{_A[:32]}",
    "key": f'{{"key":"{_H[:32]}","username":"ada"}}',
    "wandb login ": f"!wandb login {_H[:40]}",
    **{name: f"{name}={_A[:40]}" for name in ("aws_secret", "secret_key", "secretkey")},
    "asia": f"ASIA{_U} {_A[:40]}",
    "sessiontoken": f'"SessionToken": "{_A[:200]}"',
    **{name: f"X-{name}: {_H[:32]}" for name in ("api_key", "api-key", "apikey")},
    **{name: f'"{name}": "{_A[:40]}"' for name in ("access_token", "refresh_token")},
    "default": "default login ada password s3same",
    "accountkey=": f"DefaultEndpointsProtocol=https;AccountKey={_A[:86]}==;",
    "sharedaccesskey=": f"SharedAccessKey={_A[:43]}=",
}


@pytest.mark.parametrize("anchor", MORE)
def test_tokens_that_the_corpus_lacks_are_masked_too(anchor: str) -> None:
    text = MORE[anchor]
    masked = Secrets().mask(text)
    assert "***" in masked
    assert not any(part in masked for part in (_H[:32], _A[:20], _U, "s3same"))


def worst(format_: TokenFormat) -> list[str]:
    """Pieces of which a long text makes the pattern start often and read far."""
    anchor, run, kebab = format_.anchor, "a1B" * 12, "a-1B" * 9
    return [anchor, anchor + run, f"{anchor}={kebab}.", f"{anchor}: \\\\{run} \n", f"\x1b[0m{anchor}{run}"]


def distinct() -> list[TokenFormat]:
    """One of each family of formats, which differ in a letter of their prefix."""
    families = {one.pattern.pattern.replace(one.anchor, ""): one for one in [*formats._PREFIXED, *formats._NAMED]}
    return list(families.values())


def steps(format_: TokenFormat, text: str) -> int:
    """The steps that all tries of a format's pattern take in `text`."""
    engine = Engine(format_.pattern)
    searched = formats._lower(text) if format_ in formats._NAMED else text
    at, tries = searched.find(format_.anchor), 0
    while at >= 0:
        tries += 1
        end = engine.match(text, at)
        found = format_.pattern.match(text, at)
        assert end == (found and found.end()), (format_.pattern.pattern, text[at : at + 50])
        at = searched.find(format_.anchor, at + 1 if end is None else end)
    return engine.steps


@pytest.mark.parametrize("format_", distinct(), ids=lambda format_: format_.anchor)
def test_steps_grow_with_the_text_only(format_: TokenFormat) -> None:
    for piece in worst(format_):
        count = max(3, 200 // len(piece))  # longer than what a lookahead may read
        short, long = steps(format_, piece * count), steps(format_, piece * count * 4)
        assert long <= 6 * short + 200, (piece, short, long)


def test_the_engine_counts_backtracking() -> None:
    """A pattern of the kind that the formats avoid: each start reads to the end, in vain."""
    bad = TokenFormat("a", re.compile("a+b"))
    short, long = (steps(bad, "a" * count) for count in (50, 200))
    assert long > 10 * short


def test_a_spec_of_plotly_or_vega_is_kept() -> None:
    draw = random.Random(1)
    picture = corpus.png(draw)
    bundle = {
        "application/vnd.plotly.v1+json": corpus.plotly(draw),
        "application/vnd.vegalite.v5+json": corpus.vega(),
        "image/png": picture,
        "text/html": f'<img src="data:image/png;base64,{picture}"><script>{json.dumps(corpus.vega())}</script>',
        "text/plain": "alt.Chart(...)",
    }
    assert Secrets().mask_json(bundle) == bundle


def test_the_html_of_scikit_learn_is_kept() -> None:
    compose = pytest.importorskip("sklearn.compose")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = compose.make_column_transformer((StandardScaler(), ["a"]), (OneHotEncoder(), ["b"]))
    shown = make_pipeline(columns, LogisticRegression())._repr_html_()
    assert "sk-container-id-" in shown
    assert Secrets().mask(shown) == shown
