"""The command `kaggle`, first on a job's PATH: it runs Kaggle's official command, with the job's hub as its server.

Runs in a child process of the kernel, in haversack's own Python. The official command cannot be given a server's
address. With `KAGGLE_API_ENVIRONMENT=LOCALHOST` it speaks plain HTTP and honours `http_proxy`, so the hub acts
as its proxy. The variables are set for this one process, not for the kernel, where they would also affect pip. A named
hub gets its own token, whatever key the notebook's `kaggle.json` holds. Without one the command calls Kaggle as usual
or, if that file has the embedded hub's key, that hub.
The official command is the next `kaggle` on the PATH, so a cell with `!pip install -U kaggle` decides which version
runs.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from haversack import credentials, embedded, settings
from haversack.errors import HaversackError
from haversack.notebook.place import kaggle_sign_in


def main() -> None:
    """Replace this process by the official command with the same arguments (exec). Runs only in a job.

    Exits with a message and status 1 if the official command is not installed or the hub cannot be used.
    """
    program = _find_official(Path(os.environ["HAVERSACK_JOB"]) / "bin", os.environ["PATH"])
    if program is None:
        sys.exit("kaggle: command not found. Install it in an earlier cell: !pip install -q kaggle")
    kaggle_sign_in.prefer_key_file()
    try:
        environment = {**os.environ, **_hub_variables()}
    except HaversackError as error:
        sys.exit(f"kaggle: {error}")
    os.execve(program, [program, *sys.argv[1:]], environment)


def _find_official(own: Path, path: str) -> str | None:
    """Return the first `kaggle` on `path` outside the folder `own`; None if there is none."""
    rest = [folder for folder in path.split(os.pathsep) if folder and Path(folder) != own]
    return shutil.which("kaggle", path=os.pathsep.join(rest))


def _hub_variables() -> Mapping[str, str]:
    """Return the environment variables that make the command call the job's hub; {} if it should call Kaggle.

    Without a named hub, it calls the embedded hub if the notebook's `kaggle.json` has that hub's key. Raises
    `HaversackError` if the hub cannot be used.
    """
    is_named = credentials.names_hub()
    if not (is_named or settings.load().hub == "google" or _has_embedded_key()):
        return {}
    server = credentials.kaggle()
    if server.url == credentials.KAGGLE:
        return {}
    variables = {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": server.url, "no_proxy": ""}
    if (is_named or not kaggle_sign_in.key_file().exists()) and server.authorization:
        variables["KAGGLE_API_TOKEN"] = server.authorization.removeprefix("Bearer ")
    return variables


def _has_embedded_key() -> bool:
    """Whether the notebook's `kaggle.json` has the key that the embedded hub gave out."""
    known = embedded.known_kaggle_key(settings.load().data)
    try:
        return known is not None and known in kaggle_sign_in.key_file().read_text()
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
