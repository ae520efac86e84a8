"""What the job of somebody else's notebook does not get: variables with secrets, the user's folders, packages that run.

Runs in the process of `haversack run`. A notebook that was fetched from an address is somebody else's program. Unless
the user says `--trust`, its kernels run in a sandbox (`place.sandbox`), and this module decides the rest:

    variables    all that look like a secret are left out, by their name or by their value
    folders      data and cache are the job's own, so nothing of it is read by another job, nor by the user's programs
    packages     are locked and installed outside the sandbox, so only wheels are: building a package runs its code
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as PackageRequirement

from haversack import settings
from haversack.errors import InputError
from haversack.notebook.place import sandbox
from haversack.notebook.secrets.masking import Secrets
from haversack.packages.requirements import Requirements

# Parts of a variable's name that say that it holds a secret, or leads to what does. Wider than `variables.is_secret`,
# which decides what is masked: a variable too many that is left out costs less than an output that is masked in vain.
_NAME = re.compile(
    r"TOKEN|SECRET|KEY|PASS(?:W|P|$|_)|_PWD|PWD_|CREDENTIAL|AUTH|COOKIE|SIGNATURE|NETRC|(?:^|_)(?:PAT|CERT|DSN)(?:_|$)"
    r"|^(?:MYSQL|REDIS|MONGO|DATABASE|VAULT|CONSUL|DOCKER|HELM|SSH|GPG|DBUS|GIT|GH|GITHUB|GITLAB|CI|NPM|AWS|AZURE|ARM"
    r"|GOOGLE|GCP|GCLOUD|CLOUDSDK|KAGGLE|HF|HUGGING_?FACE|WANDB|OPENAI|ANTHROPIC|SLACK|RCLONE|TWINE|HAVERSACK)_"
    r"|^(?:PG[A-Z]|KUBE|GNUPG|PIP_CONFIG|UV_CONFIG)",
    re.IGNORECASE,
)
# Variables that lead to folders which a sandbox does not show, and to the user's screen.
_PLACES = (
    *("TMPDIR", "TMP", "TEMP", "MPLCONFIGDIR", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONPYCACHEPREFIX", "PWD", "OLDPWD"),
    *("DISPLAY", "WAYLAND_DISPLAY"),
)
_USER_IN_URL = re.compile(r"://[^/\s@]*@")
_TRUST = "Read the notebook, and if you trust it, run it with --trust."


def notice(address: str) -> str:
    """Return the sentence about the notebook from `address` that is printed when its job starts."""
    return (
        f"{address} is somebody else's program: it runs isolated, without your sign-ins, secrets, drive and files "
        "(--trust runs it like your own)."
    )


def settings_of(chosen: settings.Settings, folder: Path) -> settings.Settings:
    """Return the user's settings with data and cache folders of the job in `folder`, and no hub."""
    return replace(
        chosen, data=folder / sandbox.DATA, cache=folder / sandbox.CACHE, hub=None, google=None, root=None, kaggle=None
    )


def harmless(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those of the user's environment variables that neither look like a secret nor lead to the user's files."""
    masker = Secrets()
    return {
        name: value
        for name, value in variables.items()
        if not _NAME.search(name)
        and name not in _PLACES
        and not _USER_IN_URL.search(value)
        and masker.mask(value, cached=False) == value
    }


def check_packages(needed: Requirements) -> None:
    """Raise `InputError` if what a notebook needs names anything but packages of an index and wheels of the web."""
    for one in needed.requirements:
        try:
            url = PackageRequirement(one.text).url
        except InvalidRequirement:
            url = "file:"
        if "\n" in one.text or (url is not None and not re.match(r"https?://", url)):
            raise InputError(
                f"The notebook is somebody else's, and asks for a package from elsewhere than an index: {one.text!r}.",
                _TRUST,
            )
    if needed.options:
        raise InputError(
            f"The notebook is somebody else's, and it chooses how packages are found: {needed.options[0]!r}.", _TRUST
        )
