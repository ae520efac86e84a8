"""Notebooks for PyTorch where neither TensorFlow nor JAX is installed: Keras runs on PyTorch."""

from __future__ import annotations

from tests.frameworks.conftest import Run


def test_a_training_loop(run: Run) -> None:
    assert run("torch_loop").last_line(2) == "5 True"


def test_keras_trains_on_a_loader(run: Run) -> None:
    executed = run("keras_loader")
    assert executed.last_line(1) == "torch"
    assert executed.last_line(2) == "3 18 Tensor"
    assert "haversack: not durable: Keras runs on the PyTorch backend" in executed.text(2)


def test_what_holds_for_the_session_is_said_once(run: Run) -> None:
    executed = run("keras_loader")
    assert executed.text(3).strip() == "1"


def test_its_devices_are_listed(listed: dict[str, dict[str, object]]) -> None:
    import torch

    assert listed["PyTorch"]["version"] == torch.__version__
    assert listed["PyTorch"]["cores"] == max(1, torch.cuda.device_count())
