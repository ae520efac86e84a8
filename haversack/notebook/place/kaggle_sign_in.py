"""Which Kaggle sign-in a job uses: that of the notebook's `kaggle.json`, else the user's own, by environment variables.

Runs in the kernel and in the command `kaggle`. The parent passes the user's own sign-in in variables, because the files
with it are not in the job's HOME.
"""

from __future__ import annotations

import os
from pathlib import Path

# Set by the parent if the Kaggle variables of the environment hold the user's own sign-in.
USER_SIGN_IN_VARIABLE = "HAVERSACK_KAGGLE_HANDED_ON"


def prefer_key_file() -> None:
    """Remove the user's own sign-in from `os.environ` if the notebook has written a `kaggle.json`.

    Kaggle's clients prefer the environment to the file, but on Colab the notebook's file is all there is.
    """
    if os.environ.get(USER_SIGN_IN_VARIABLE) and key_file().exists():
        for name in (USER_SIGN_IN_VARIABLE, "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
            os.environ.pop(name, None)


def key_file() -> Path:
    """Return the path of the notebook's `kaggle.json`, which may not exist."""
    return Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle") / "kaggle.json"
