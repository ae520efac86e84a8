"""Where a run's checkpoints are kept when nobody says: on this machine, or on the drive where this machine is not kept.

A notebook that names its training and nothing else has to find it again in the next session. Where the data folder
outlives the session that is the place. Where it goes with the machine (Colab, Kaggle, a container's own layer), the run
goes to the drive of the hub that is named; without one it is trained all the same, and the user is told once what that
means. The embedded hub is not asked: it lies in the same data folder.
"""

from __future__ import annotations

from pathlib import Path

from haversack import place, settings

STORE = "drive://haversack/runs"

_told: set[str] = set()


def of(name: str, where: str | Path | None = None) -> tuple[str | Path | None, str]:
    """Where the run `name` is kept, as `Checkpoints` takes it, and what to tell the user about it, "" for nothing.

    What was told once in this process is not told again.
    """
    chosen = settings.load()
    if where is not None or chosen.hub == "embedded" or place.disk_outlives_session(chosen.data):
        return where, ""
    if chosen.hub:
        return STORE, _once(
            f"{name}: saved to {STORE} on {chosen.hub}, since this machine's disk goes with its session"
        )
    return None, _once(
        f"{name}: saved in {chosen.data / 'runs'}, which goes with this machine's session; to go on in the next one, "
        "name a hub in HAVERSACK_HUB, or a folder or URL that stays with where="
    )


def _once(text: str) -> str:
    subject = text.partition(": ")[2]
    if subject in _told:
        return ""
    _told.add(subject)
    return text
