"""The command `kaggle` that comes first on a job's PATH: Kaggle's own, led to the hub where the job's data is there.

The official command cannot be given a server's address, but in its environment `LOCALHOST` it speaks plain HTTP, which
a proxy may answer; so the hub is its proxy, for this one process and not for the kernel. Without a hub it runs
unchanged. It is found behind this one on the PATH, so `!pip install -U kaggle` in a cell decides which one runs.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from haversack import credentials, embedded, settings
from haversack.errors import HaversackError

HANDED_ON = "HAVERSACK_KAGGLE_HANDED_ON"


def main() -> None:
    """Become the official command, with this process's arguments."""
    program = _behind(Path(os.environ["HAVERSACK_JOB"]) / "bin", os.environ["PATH"])
    if program is None:
        sys.exit("kaggle: command not found. Install it in a cell before: !pip install -q kaggle")
    prefer_key_file()
    try:
        environment = {**os.environ, **_way_to_hub()}
    except HaversackError as error:
        sys.exit(f"kaggle: {error}")
    os.execve(program, [program, *sys.argv[1:]], environment)


def prefer_key_file() -> None:
    """Forget the user's own sign-in, handed on to the job, once the notebook has put a key file of its own in place.

    Kaggle's clients would take the environment first, whereas on Colab there is nothing but the file.
    """
    if os.environ.get(HANDED_ON) and _key_file().exists():
        for name in (HANDED_ON, "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
            os.environ.pop(name, None)


def _behind(first: Path, path: str) -> str | None:
    """The program `kaggle` on `path`, but for the one in the folder `first`."""
    rest = [folder for folder in path.split(os.pathsep) if folder and Path(folder) != first]
    return shutil.which("kaggle", path=os.pathsep.join(rest))


def _way_to_hub() -> Mapping[str, str]:
    """What has to be set so that the command's calls reach the job's hub; nothing when they are for Kaggle."""
    named = settings.load().hub
    if named in (None, "embedded") and not _has_embedded_key():
        return {}
    server = credentials.kaggle()
    if server.url == credentials.KAGGLE:
        return {}
    way = {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": server.url, "no_proxy": ""}
    if not _key_file().exists() and server.authorization:
        way["KAGGLE_API_TOKEN"] = server.authorization.removeprefix("Bearer ")
    return way


def _has_embedded_key() -> bool:
    known = embedded.known_kaggle_key(settings.load().data)
    try:
        return known is not None and known in _key_file().read_text()
    except FileNotFoundError:
        return False


def _key_file() -> Path:
    return Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle") / "kaggle.json"


if __name__ == "__main__":
    main()
