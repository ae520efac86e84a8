"""Eight devices train as one does, whatever the number of samples: every printed number and every weight."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.conftest import Results

AGREEING = [
    "built_before_the_cores_were_found",
    "tails_of_every_size",
    "plain_fit_with_validation_and_dropout",
    "weighted_samples_and_classes",
    "evaluate_and_predict",
    "two_inputs_several_steps_per_execution",
    "a_data_set_of_batches",
    "augmentation_outside_the_compiled_step",
]


@pytest.mark.parametrize("scenario", AGREEING)
def test_eight_devices_agree_with_one(trained: dict[int, Results], scenario: str) -> None:
    one, eight = trained[1][scenario], trained[8][scenario]
    measured = [name for name, value in one.items() if isinstance(value, list)]
    assert measured
    for name in measured:
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_every_sample_is_counted(trained: dict[int, Results]) -> None:
    assert len(trained[8]["evaluate_and_predict"]["predict"]) == 77 * 3


def test_fewer_samples_than_devices_are_predicted(trained: dict[int, Results]) -> None:
    assert len(trained[8]["evaluate_and_predict"]["predict three"]) == 3 * 3


def test_dropout_and_validation_have_a_history(trained: dict[int, Results]) -> None:
    assert len(trained[8]["plain_fit_with_validation_and_dropout"]["val_loss"]) == 3


def test_augmentation_really_ran_outside_the_compiled_step(trained: dict[int, Results]) -> None:
    assert trained[8]["augmentation_outside_the_compiled_step"]["compiled"] is False


def test_keras_alone_still_refuses_a_tail(trained: dict[int, Results]) -> None:
    # Once this fails, Keras takes such batches by itself, and ExactDataParallel can go.
    assert "should evenly divide" in trained[8]["another_distribution"]["tail"]


def test_another_distribution_is_kept(trained: dict[int, Results]) -> None:
    assert trained[8]["another_distribution"]["kept"] is True
