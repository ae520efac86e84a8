"""Weights that become NaN or infinite: said, and left behind with another setting of the optimizer."""

from __future__ import annotations

from tests.training.conftest import Conversations


def test_weights_that_are_no_numbers_are_said(changed: Conversations) -> None:
    assert ": weights or loss are NaN or infinite by epoch " in changed["diverged"]["first"]
    assert "call fit again with a smaller learning rate" in changed["diverged"]["first"]


def test_the_last_good_checkpoint_is_kept(changed: Conversations) -> None:
    assert changed["diverged"]["kept"][-1] is True
    assert False in changed["diverged"]["kept"]


def test_with_nothing_changed_it_would_diverge_again(changed: Conversations) -> None:
    assert "and with nothing changed they would be so again" in changed["diverged"]["again"]
    assert ": finished before" in changed["diverged"]["again"]


def test_with_a_smaller_learning_rate_it_goes_on_from_the_last_good_checkpoint(changed: Conversations) -> None:
    epoch, step = divmod(changed["diverged"]["good"], 5)
    words = f"with learning rate 1000 → 0.001 it is trained from epoch {epoch + 1}, step {step}"
    assert words in changed["diverged"]["smaller"]
    assert f"resumed at epoch {epoch + 1}, step {step};" in changed["diverged"]["smaller"]


def test_a_mended_run_ends_with_numbers(changed: Conversations) -> None:
    losses = changed["diverged"]["losses"]
    assert len(losses) == 8
    assert max(losses) < 1e6
    assert ": finished before" in changed["diverged"]["later"]
    assert "NaN" not in changed["diverged"]["later"]
