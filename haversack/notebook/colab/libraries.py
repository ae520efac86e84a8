"""Libraries that do something else on Colab, kept from what cannot work or must not happen outside it.

A job's kernel has Colab's marks (`marks`), so a library that asks for them hears yes. Most then call `google.colab`,
which is there. Others write JavaScript for Colab's page into the output, or open a public tunnel to the app that the
notebook starts. For those, one table names the module that asks and the change made right after it is executed. By the
same table Kaggle's packages call the named hub. The library's files are not changed, nor is anything outside a job. Two
libraries take the answer from an environment variable, and the user's own value of it takes precedence.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from haversack.notebook import channel
from haversack.notebook.clients import client
from haversack.notebook.import_hook import ImportHook
from haversack.notebook.kaggle import attached

# plotly: figures load plotly.js from its CDN, as on Colab, instead of embedding 4.8 MB of it.
_VARIABLES = {"PLOTLY_RENDERER": "plotly_mimetype+notebook_connected", "PANEL_COMMS": "default"}
# Functions by which gradio and trackio find out that they must open a public tunnel.
_TUNNEL_CHECKS = ("colab_check", "kaggle_check", "sagemaker_check", "is_hosted_notebook")


def install() -> None:
    """Adapt the libraries of the table when they are imported from now on. Does nothing outside a job."""
    if channel.job_folder() is None or any(getattr(finder, "changes", None) is _CHANGES for finder in sys.meta_path):
        return
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    sys.meta_path.insert(0, ImportHook(_CHANGES))


def _deny_tunnel(module: Any) -> None:
    """Let the functions that would ask for a public tunnel answer False."""
    for name in _TUNNEL_CHECKS:
        if hasattr(module, name):
            setattr(module, name, lambda: False)


def _share_only_if_asked(module: Any) -> None:
    """Give `Blocks.launch` share=False unless its caller or GRADIO_SHARE chooses, whatever gradio finds out."""
    launch = module.Blocks.launch
    signature = inspect.signature(launch)
    if "share" not in signature.parameters:
        return

    @functools.wraps(launch)
    def launch_here(*arguments: Any, **options: Any) -> Any:
        given = signature.bind(*arguments, **options)
        if given.arguments.get("share") is None:
            given.arguments["share"] = os.environ.get("GRADIO_SHARE", "").lower() == "true"
        return launch(*given.args, **given.kwargs)

    module.Blocks.launch = launch_here


def _use_jupyter_context(module: Any) -> None:
    """Let TensorBoard show its frame as in Jupyter; its frame for Colab is empty elsewhere."""
    get_context = module._get_context

    @functools.wraps(get_context)
    def get_context_here() -> Any:
        context = get_context()
        return module._CONTEXT_IPYTHON if context == module._CONTEXT_COLAB else context

    module._get_context = get_context_here


def _call_named_hub(module: Any) -> None:
    """Let Kaggle's own packages call the hub that is named, with its token, whatever key `kaggle.json` holds.

    kaggle and kagglehub take server and token from this module. Without a named hub they find them as usual.
    """
    get_environment, get_endpoint, get_token = module.get_env, module.get_endpoint, module.get_access_token_from_env

    @functools.cache
    def named_hub() -> Any:
        return client.call("kaggle_hub") if channel.is_trusted() else None

    def get_environment_here() -> Any:
        # The environment decides the path below the endpoint, which the hub serves as Kaggle's local one.
        return module.KaggleEnv.LOCAL if named_hub() else get_environment()

    def get_endpoint_here(environment: Any) -> Any:
        return named_hub()["url"] if named_hub() else get_endpoint(environment)

    def get_token_here() -> Any:
        return (named_hub()["token"], "the hub's sign-in") if named_hub() else get_token()

    module.get_env = get_environment_here
    module.get_endpoint = get_endpoint_here
    module.get_access_token_from_env = get_token_here


def _is_not_colab(name: str) -> Callable[[Any], None]:
    """Return a change that sets the module's variable `name`, whether this is Colab, to False."""
    return lambda module: setattr(module, name, False)


def _silence_colab_warning(module: Any) -> None:
    """Leave out panel's advice to install jupyter_bokeh, which only Colab's page needs."""
    warnings.filterwarnings("ignore", message="Using Panel interactively in Colab")


_CHANGES: dict[str, Callable[[Any], None]] = {
    "gradio.utils": _deny_tunnel,
    "gradio.blocks": _share_only_if_asked,
    "trackio.launch_utils": _deny_tunnel,
    "tensorboard.notebook": _use_jupyter_context,
    "pydeck.io.html": _is_not_colab("in_google_colab"),
    "pydeck.bindings.deck": _is_not_colab("in_google_colab"),
    "panel.config": _silence_colab_warning,
    "kagglesdk.kaggle_env": _call_named_hub,
    "kagglehub": lambda module: attached.add_resolvers(module.registry),
    # JAX's debugger for Colab draws its controls in Colab's page; the one for terminals remains.
    "jax._src.debugger.colab_lib": _is_not_colab("IS_COLAB_ENABLED"),
}
