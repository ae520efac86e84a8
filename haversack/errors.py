"""Every exception that haversack raises on purpose.

    HaversackError
    ├── InputError (ValueError)               what was given cannot be used; exit code 2
    │   ├── NotebookInvalid                   not a notebook of version 4
    │   ├── MountpointInvalid                 not a folder that a drive can be mounted on
    │   └── ParameterUnknown                  a name that the notebook does not set
    ├── SignInError (PermissionError)         nobody is signed in, or the server refused the token
    ├── ConnectionFailed (ConnectionError)    the server did not answer
    ├── RemoteError (OSError)                 the server answered with an error; `.status` and `.reason` say which
    │   ├── NotFound (FileNotFoundError)
    │   ├── AlreadyExists (FileExistsError)
    │   ├── Forbidden (PermissionError)       private, or not for who is signed in
    │   │   └── RulesNotAccepted              a competition's or data set's, on its page
    │   ├── QuotaExceeded                     the drive is full; errno is EDQUOT
    │   └── RateLimited                       still refused after every retry
    ├── IsAFolder (IsADirectoryError)         a folder of the drive where a file is needed
    ├── NotAFolder (NotADirectoryError)       a file of the drive where a folder is needed
    ├── FolderNotEmpty (OSError)              a folder of the drive that has something in it; errno is ENOTEMPTY
    ├── DiskFull (OSError)                    the local disk is full; errno is ENOSPC
    ├── IntegrityError                        bytes that are not the ones promised: hash, size or CRC differ
    ├── ArchiveInvalid                        a zip archive that cannot be read
    ├── ImageInvalid                          a file that is no image, or a damaged one
    ├── MountError                            FUSE refused, or a mount does not answer
    ├── JobError                              a notebook could not be executed to its end
    │   ├── CellFailed                        a cell raised
    │   └── KernelDied                        its process is gone
    ├── TrainingError                         a training that cannot run as asked
    │   ├── RunTaken                          another session owns the run
    │   └── RunLost                           another session has taken the run over
    └── ExtraMissing (ImportError)            an optional part of haversack is not installed

`str(error)` is one plain sentence that says what happened, then one that says what to do next. The command line prints
exactly that; `--debug` adds the traceback.
"""

from __future__ import annotations

import errno

__all__ = [
    "AlreadyExists",
    "ArchiveInvalid",
    "CellFailed",
    "ConnectionFailed",
    "DiskFull",
    "ExtraMissing",
    "FolderNotEmpty",
    "Forbidden",
    "HaversackError",
    "ImageInvalid",
    "InputError",
    "IntegrityError",
    "IsAFolder",
    "JobError",
    "KernelDied",
    "MountError",
    "MountpointInvalid",
    "NotAFolder",
    "NotFound",
    "NotebookInvalid",
    "ParameterUnknown",
    "QuotaExceeded",
    "RateLimited",
    "RemoteError",
    "RulesNotAccepted",
    "RunLost",
    "RunTaken",
    "SignInError",
    "TrainingError",
]


class HaversackError(Exception):
    """The root of the tree. `what` is a sentence about what happened, `next_step` one about what to do."""

    exit_code = 1

    def __init__(self, what: str, next_step: str = "") -> None:
        super().__init__(what, next_step)
        self.what = what
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.what} {self.next_step}".strip()


class InputError(HaversackError, ValueError):
    exit_code = 2


class NotebookInvalid(InputError):
    pass


class MountpointInvalid(InputError):
    pass


class ParameterUnknown(InputError):
    pass


class _SystemError(HaversackError, OSError):
    """Also an `OSError`, with the errno a program at the other end of a system call should see."""

    code = errno.EIO

    def __init__(self, what: str, next_step: str = "") -> None:
        super().__init__(what, next_step)
        # OSError fills errno from two arguments; ours are two sentences.
        self.errno = self.code
        self.strerror = what


class SignInError(_SystemError, PermissionError):
    code = errno.EACCES


class ConnectionFailed(_SystemError, ConnectionError):
    code = errno.ECONNREFUSED


class RemoteError(_SystemError):
    """An answer that is an error: `status` is HTTP's, `reason` the service's own word for it."""

    def __init__(self, what: str, next_step: str = "", *, status: int = 0, reason: str = "") -> None:
        super().__init__(what, next_step)
        self.status = status
        self.reason = reason


class NotFound(RemoteError, FileNotFoundError):
    code = errno.ENOENT


class AlreadyExists(RemoteError, FileExistsError):
    code = errno.EEXIST


class Forbidden(RemoteError, PermissionError):
    code = errno.EACCES


class RulesNotAccepted(Forbidden):
    pass


class QuotaExceeded(RemoteError):
    code = errno.EDQUOT


class RateLimited(RemoteError):
    code = errno.EAGAIN


class IsAFolder(_SystemError, IsADirectoryError):
    code = errno.EISDIR


class NotAFolder(_SystemError, NotADirectoryError):
    code = errno.ENOTDIR


class FolderNotEmpty(_SystemError):
    code = errno.ENOTEMPTY


class DiskFull(_SystemError):
    code = errno.ENOSPC


class IntegrityError(HaversackError):
    pass


class ArchiveInvalid(HaversackError):
    pass


class ImageInvalid(HaversackError):
    pass


class MountError(HaversackError):
    pass


class JobError(HaversackError):
    pass


class CellFailed(JobError):
    pass


class KernelDied(JobError):
    pass


class TrainingError(HaversackError):
    pass


class RunTaken(TrainingError):
    pass


class RunLost(TrainingError):
    pass


class ExtraMissing(HaversackError, ImportError):
    pass
