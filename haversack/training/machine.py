"""What of a machine changes the last bits of what a loop computes, as JSON: a session that differs in it says so."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

from haversack.training.devices import processor_model, usable_cores


def of_machine(framework: str) -> dict[str, Any]:
    """Return processor, cores, and versions and devices of the libraries that a loop of `framework` trains with.

    `framework` is "torch", "jax" or "python". JAX is asked only if it trains, because asking starts its backend.
    """
    found: dict[str, Any] = {
        "processor": processor_model(),
        "cores": usable_cores(),
        "numpy": importlib.metadata.version("numpy"),
    }
    if (torch := sys.modules.get("torch")) is not None:
        found["torch"] = str(torch.__version__)
        found["threads of torch"] = torch.get_num_threads()
        found["deterministic algorithms"] = torch.are_deterministic_algorithms_enabled()
        if torch.cuda.is_available():
            found["GPU"] = torch.cuda.get_device_name()
    if framework == "jax":
        jax = sys.modules["jax"]
        found["jax"] = str(jax.__version__)
        found["devices of JAX"] = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    return found
