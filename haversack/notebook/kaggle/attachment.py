"""An input of a job as it is recorded with the job: what opens it again, and the names under which cells see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AttachedInput:
    """An input as it is recorded with its job.

    Attributes:
        name: the folder's name below `/kaggle/input`.
        source: the source that opens it again, as `haversack.dataset` takes it, with the version where there is one; or
            the path of a single file.
        content: 16 hex digits that change with the files; see `Dataset.content`.
        attached: when it was attached, in seconds since 1970: the modification time that its files show.
    """

    name: str
    source: str
    content: str
    attached: float

    @property
    def newer_path(self) -> tuple[str, ...]:
        """The names of Kaggle's newer path below `/kaggle/input`; () if it is not of Kaggle or a hub."""
        if not self.source.startswith("kaggle:"):
            return ()
        owner = self.source.removeprefix("kaggle:").partition("/")[0]
        return ("competitions", self.name) if owner == "c" else ("datasets", owner, self.name)
