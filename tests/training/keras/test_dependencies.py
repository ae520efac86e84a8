"""What a run depends on: a change is put in force and said, or refused by name."""

from __future__ import annotations

import pytest

from tests.training.conftest import Conversations

REFUSED = [
    ("closure", "began with other code: other code in layers[1] Lambda.function."),
    ("global", "began with other code: other code in layers[2] Lambda.function."),
    ("lambda", "began with other code: other code in layers[3] Lambda.function."),
    ("layer", "began with other code: other code in layers[4] Own.call."),
    ("regularizer", "began with other code: layers[5] Dense.kernel_regularizer.config.l2 0.1, now 0.2."),
    ("own loss", "began with another compilation: other code in loss."),
    ("loss", "began with another compilation: loss own_loss.<locals>.error, now mean_absolute_error."),
    ("named loss", "began with another compilation: loss mean_squared_error, now mean_absolute_error."),
    ("metric", "began with another compilation: metrics [MeanAbsoluteError], now [MeanAbsoluteError, mape]."),
    ("renamed", "began with another compilation: metrics[0].name error, now mistake."),
]


@pytest.mark.parametrize(("what", "words"), REFUSED)
def test_another_code_or_compilation_is_refused_by_name(changed: Conversations, what: str, words: str) -> None:
    assert changed["code"][what].startswith("TrainingError: The run ")
    assert words in changed["code"][what]


@pytest.mark.parametrize("what", ["same", "same loss"])
def test_the_same_code_on_another_line_is_the_same(changed: Conversations, what: str) -> None:
    assert ": resumed at epoch 2, step 0;" in changed["code"][what]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("float", "haversack: rate: learning rate 0.01 → 0.0001, as the code says now\n"),
        ("schedule", "haversack: decay: learning rate: decay_steps 100 → 200, as the code says now\n"),
        ("to schedule", "haversack: to decay: learning rate 0.01 → CosineDecay, as the code says now\n"),
        ("from schedule", "haversack: to decay: learning rate CosineDecay → 0.02, as the code says now\n"),
        ("setting", "haversack: beta: beta_1 0.9 → 0.8, as the code says now\n"),
        ("scaled", "haversack: scaled: learning rate 0.01 → 0.02, as the code says now\n"),
        ("nothing left", "haversack: rate: learning rate 0.0001 → 0.5, to no effect: no epoch is left to train\n"),
    ],
)
def test_a_setting_of_the_optimizer_is_put_in_force_and_said(changed: Conversations, what: str, words: str) -> None:
    assert words in changed["learning_rates"][what]


def test_the_learning_rate_of_the_code_is_in_force(changed: Conversations) -> None:
    assert changed["learning_rates"]["in force"] == pytest.approx(1e-4)


def test_a_change_is_said_once(changed: Conversations) -> None:
    assert "learning rate" not in changed["learning_rates"]["unchanged"]


def test_a_setting_that_needs_other_variables_is_refused(changed: Conversations) -> None:
    assert "optimizer SGD with other settings (momentum 0.0, now 0.9)" in changed["learning_rates"]["variables"]


def test_a_learning_rate_that_a_callback_moved_stays(changed: Conversations) -> None:
    assert "learning rate" not in changed["moved_rates"]["kept"]
    assert changed["moved_rates"]["rate"] == pytest.approx(0.02)


def test_a_learning_rate_that_a_callback_moved_in_this_process_is_not_the_users(changed: Conversations) -> None:
    assert "learning rate" not in changed["moved_rates"]["same process"]
    assert changed["moved_rates"]["same process, rate"] == pytest.approx(0.01)


def test_a_learning_rate_set_by_hand_after_a_training_is_the_users(changed: Conversations) -> None:
    assert "learning rate 0.08 → 0.5, as the code says now" in changed["moved_rates"]["set by hand"]


def test_other_rows_than_the_sampled_ones_are_compared(changed: Conversations) -> None:
    assert "arrays[0] float32[4000, 4] with other values between rows 1000 and 1062." in changed["data"]["rows"]


def test_other_validation_data_is_used_and_said(changed: Conversations) -> None:
    words = "validated: validation data[0] float32[40, 4] with other values between rows"
    assert words not in changed["data"]["validation"]
    assert (
        "validated: validation data[0] float32[40, 4] with other values, as the code says now"
        in (changed["data"]["validation"])
    )


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("class weight", "class_weight[1] [1, 2.0], now [1, 3.0]"),
        ("sample weight", "arrays[2] float64[40] with other values"),
    ],
)
def test_other_weights_are_refused(changed: Conversations, what: str, words: str) -> None:
    assert changed["data"][what].startswith("TrainingError: The run ")
    assert words in changed["data"][what]


def test_a_checkpoint_of_an_older_version_resumes(changed: Conversations) -> None:
    old = changed["checkpoint_of_an_older_version"]
    assert old["said"].startswith("haversack: old: resumed at epoch 2, step 0;")
    assert (old["rate"], old["epochs"]) == (pytest.approx(0.01), [0, 1])
