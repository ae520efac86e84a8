"""Every exception that haversack raises on purpose.

    HaversackError
    ├── InputError (ValueError)               an argument, option or file that cannot be used; exit code 2
    │   ├── NotebookInvalid                   not a notebook of version 4
    │   ├── MountpointInvalid                 not a folder that a drive can be mounted on
    │   └── ParameterUnknown                  a parameter that the notebook does not assign
    ├── SignInError (PermissionError)         nobody is signed in, or the server refused the token
    ├── ConnectionFailed (ConnectionError)    the server did not answer
    ├── RemoteError (OSError)                 the server answered with an error: `.status`, `.reason`
    │   ├── NotFound (FileNotFoundError)
    │   ├── AlreadyExists (FileExistsError)
    │   ├── Forbidden (PermissionError)       private, or not permitted to this account
    │   │   └── RulesNotAccepted              rules must be accepted on the competition's or data set's page
    │   ├── QuotaExceeded                     the drive is full; errno is EDQUOT
    │   └── RateLimited                       refused for the rate of calls, after every retry
    ├── IsAFolder (IsADirectoryError)         a folder of the drive where a file is needed
    ├── NotAFolder (NotADirectoryError)       a file of the drive where a folder is needed
    ├── FolderNotEmpty (OSError)              a folder of the drive that is not empty; errno is ENOTEMPTY
    ├── DiskFull (OSError)                    the local disk is full; errno is ENOSPC
    ├── IntegrityError                        bytes with another hash, size or CRC than promised
    ├── ArchiveInvalid                        a zip archive that cannot be read
    ├── ImageInvalid                          a file that is not an image, or is damaged
    ├── InstallFailed                         packages that cannot be resolved or installed
    ├── MountError                            a drive that cannot be mounted or unmounted as asked
    ├── JobError                              a notebook that was not executed to its end
    │   ├── CellFailed                        a cell raised
    │   ├── Interrupted                       Ctrl-C or SIGTERM ended it; exit code 130
    │   └── KernelDied                        the kernel's process died
    ├── TrainingError                         a training that cannot run as asked
    │   ├── RunTaken                          the run is owned by another session
    │   └── RunLost                           the run was taken over by another session
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
    "InstallFailed",
    "IntegrityError",
    "Interrupted",
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
    """The root of the tree.

    Attributes:
        what: one sentence that says what happened.
        next_step: one sentence that says what to do; "" for none.
        exit_code: the exit status of the command line: 2 for an `InputError`, 130 for `Interrupted`, else 1.
    """

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
    """A haversack error that is an `OSError` too. A program on a mount sees its errno if it ends a system call."""

    code = errno.EIO

    def __init__(self, what: str, next_step: str = "") -> None:
        super().__init__(what, next_step)
        # OSError takes its first argument for errno; ours is a sentence.
        self.errno = self.code
        self.strerror = what


class SignInError(_SystemError, PermissionError):
    code = errno.EACCES


class ConnectionFailed(_SystemError, ConnectionError):
    code = errno.ECONNREFUSED


class RemoteError(_SystemError):
    """A server answered with an error.

    Attributes:
        status: the HTTP status; 0 if no status describes the error.
        reason: the service's own code for the error, such as "rateLimitExceeded"; "" if it gave none.
    """

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


class InstallFailed(HaversackError):
    pass


class MountError(HaversackError):
    pass


class JobError(HaversackError):
    pass


class CellFailed(JobError):
    pass


class Interrupted(JobError):
    exit_code = 130


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
