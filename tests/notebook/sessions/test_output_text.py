"""A stream's text: the same as nbclient makes of it, cut at the limit, and never a part of a secret beside the cut."""

from __future__ import annotations

import random

import pytest
from nbclient.client import _RGX_CARRIAGERETURN

from haversack.notebook.secrets.masking import Secrets
from haversack.notebook.sessions.output_text import CutText, StreamText

LIMIT = 100_000
SECRET = "correct-horse-battery-staple"


def unmasked(text: str) -> str:
    return text


def collected(pieces: list[str], limit: int = LIMIT) -> str:
    text = StreamText(limit)
    for piece in pieces:
        text.append(piece)
    return text.text(unmasked)[0]


def test_carriage_returns_do_what_they_do_in_nbclient() -> None:
    draw = random.Random(1)
    for _ in range(20_000):
        pieces = ["".join(draw.choices("ab\r\n", k=draw.randrange(5))) for _ in range(draw.randrange(6))]
        assert collected(pieces) == _RGX_CARRIAGERETURN.sub("", "".join(pieces)), pieces


def test_a_progress_bar_is_not_cut_however_long_it_runs() -> None:
    bar = [f"{step:6} {'#' * 90}\r" for step in range(10 * LIMIT // 100)]
    assert collected(["start\n", *bar, "done\n"]) == "start\ndone\n"


def test_text_up_to_the_limit_is_kept() -> None:
    lines = [f"{number:08}\n" for number in range(LIMIT // 9)]
    assert collected(lines) == "".join(lines)


@pytest.mark.parametrize("line", [f"{'x' * 99}\n", "x" * 99, "x" * 10 * LIMIT], ids=["lines", "one line", "one piece"])
def test_a_longer_text_keeps_both_ends_and_says_what_is_missing(line: str) -> None:
    text = StreamText(LIMIT)
    written = ["first\n", *[line] * (10 * LIMIT // len(line)), "\nlast\n"]
    for piece in written:
        text.append(piece)
    shown, sentence = text.text(unmasked)
    assert shown.startswith("first\nxxx")
    assert shown.endswith("\nlast\n")
    assert LIMIT <= len(shown) < LIMIT + 200
    assert f"\n[haversack: {sentence}]\n" in shown
    assert sentence == "0.9 MB of this output were left out; to keep them, run the notebook with HAVERSACK_OUTPUT=2."


def test_no_part_of_a_secret_is_kept_beside_the_cut() -> None:
    secrets = Secrets()
    secrets.add(SECRET)
    filled = f"{SECRET:100}"
    for shift in range(0, len(filled), 5):
        text = CutText(LIMIT)
        text.append(" " * shift + filled * (3 * LIMIT // len(filled)))
        shown, sentence = text.text(secrets.mask)
        beginning, end = shown.split(f"[haversack: {sentence}]")
        assert set(beginning) == set(end) == set("* \n")
        assert "***" in beginning
        assert "***" in end


def test_a_private_key_across_the_cut_is_left_out() -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkq\n" * 200 + "-----END PRIVATE KEY-----\n"
    for position in range(0, 3_400, 300):
        text = CutText(LIMIT)
        # The end that is kept begins inside of the key.
        text.append("x" * 10 * LIMIT + key)
        text.append("y" * (LIMIT // 2 + 10_000 - position))
        shown, sentence = text.text(Secrets().mask)
        assert sentence
        assert "MIIEvQIB" not in shown
