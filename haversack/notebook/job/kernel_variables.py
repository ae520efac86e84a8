"""The environment variables of a job's kernels that the parent decides before the first session."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from haversack import credentials, settings
from haversack.errors import SignInError
from haversack.notebook import channel, plainfit
from haversack.notebook.clients import interpreter
from haversack.notebook.job import untrusted
from haversack.notebook.place import kaggle_sign_in
from haversack.notebook.record.store import Options
from haversack.notebook.secrets import file
from haversack.notebook.sessions import kernel
from haversack.packages import keras_backend, on_demand
from haversack.packages.imports import code_cells
from haversack.training import devices


def of_job(chosen: settings.Settings, folder: Path, options: Options) -> dict[str, str]:
    """Return the environment variables that all kernels of the job share; each session adds some of its own.

    `chosen` are the job's settings. Without `options.trusted` there is no secret and no sign-in among the variables.
    """
    hub, cores = options.hub if options.trusted else None, options.cores
    inherited = os.environ if options.trusted else untrusted.harmless(os.environ)
    variables = kernel.variables(inherited, folder / "home")
    variables |= {
        "HAVERSACK_JOB": str(folder),
        "HAVERSACK_DATA": str(chosen.data),
        "HAVERSACK_CACHE": str(chosen.cache),
        "HAVERSACK_PYTHON": sys.executable,
        # Without trust, files that are not there.
        "HAVERSACK_SECRETS": str(file.path() if options.trusted else chosen.data / "secrets.toml"),
        "HAVERSACK_SETTINGS": str(settings.path() if options.trusted else chosen.data / "settings.toml"),
        # Matplotlib takes seconds to build its font cache, so all jobs share one.
        "MPLCONFIGDIR": variables.get("MPLCONFIGDIR", str(chosen.cache / "matplotlib")),
    }
    # Of a job that runs this one as a cell of its own.
    for name in (plainfit.PLAIN_VARIABLE, interpreter.VARIABLE, on_demand.AS_OF):
        variables.pop(name, None)
    if options.plain:
        variables[plainfit.PLAIN_VARIABLE] = "1"
    if options.as_of:
        variables[on_demand.AS_OF] = options.as_of
    if hub:
        variables["HAVERSACK_HUB"] = hub
    variables |= _kaggle_variables(hub) if options.trusted else {channel.UNTRUSTED: "1"}
    if cores is not None:
        variables |= devices.simulated(cores, variables)
    return variables


def of_keras(notebook: Any, cores: int | None, available: set[str]) -> dict[str, str]:
    """Return `KERAS_BACKEND` for the kernel, or {} where Keras's own choice or the user's is right.

    `available` are the frameworks that the kernel can import. Simulated `cores` are JAX's, so whoever asks for them has
    chosen it.
    """
    if cores is not None and "jax" in available:
        return {keras_backend.VARIABLE: "jax"}
    configured = keras_backend.configured_backend(os.environ, Path.home())
    chosen = keras_backend.keras_backend(code_cells(notebook), os.environ, available, configured)
    return {keras_backend.VARIABLE: chosen.variable} if chosen.variable else {}


def _kaggle_variables(hub: str | None) -> dict[str, str]:
    """Return the user's own Kaggle sign-in as variables, because the files with it are not in the job's HOME.

    {} with a named hub, which must not get it, if the environment has a sign-in already, or if there is none.
    """
    in_environment = os.environ.get("KAGGLE_KEY") or os.environ.get("KAGGLE_API_TOKEN")
    if (hub and hub not in ("embedded", "google")) or in_environment:
        return {}
    server = user_kaggle()
    if server is None:
        return {}
    if server.kaggle_login is None:
        return {"KAGGLE_API_TOKEN": server.secrets[0], kaggle_sign_in.USER_SIGN_IN_VARIABLE: "1"}
    user, key = server.kaggle_login
    return {"KAGGLE_USERNAME": user, "KAGGLE_KEY": key, kaggle_sign_in.USER_SIGN_IN_VARIABLE: "1"}


def user_kaggle() -> credentials.Server | None:
    """Return Kaggle's service with the user's sign-in; None if there is none or it is unusable."""
    try:
        return credentials.own_kaggle()
    except SignInError:
        return None  # many notebooks never use Kaggle; in those that do, the `kaggle` command reports the problem
