from __future__ import annotations

from tests.training.conftest import Results


def test_a_batch_that_no_core_shares_is_remarked(trained: dict[int, Results]) -> None:
    [remark] = trained[8]["words"]["indivisible"]
    assert "Use a batch_size that is a multiple of 8." in remark


def test_one_core_has_nothing_to_remark(trained: dict[int, Results]) -> None:
    assert trained[1]["words"]["indivisible"] == []


def test_what_is_no_model_is_refused(trained: dict[int, Results]) -> None:
    assert trained[8]["words"]["no model"].startswith("InputError: haversack.fit trains a Keras model, and got ndarray")


def test_an_argument_that_keras_lacks_is_refused(trained: dict[int, Results]) -> None:
    assert trained[8]["words"]["unknown argument"].startswith("TypeError")


def test_a_model_that_was_not_compiled_is_refused(trained: dict[int, Results]) -> None:
    assert "compile()" in trained[8]["words"]["not compiled"]


def test_a_model_built_early_goes_on_where_it_was(trained: dict[int, Results]) -> None:
    early = trained[8]["built_before_the_cores_were_found"]
    assert early["then"][0] < early["first"][0]
