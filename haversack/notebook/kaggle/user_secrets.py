"""`kaggle_secrets`: the user's secrets by their labels, the same that `google.colab.userdata` has.

Runs in the kernel. Names and errors are those of Kaggle's own module. A value that was read is masked in all outputs of
the job. Tokens for Google Cloud come from Kaggle's service, which is not here: each such method says what to do.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import NoReturn

from haversack.errors import SignInError
from haversack.notebook import channel
from haversack.notebook.kaggle.web_client import BackendError, CredentialError, ShownError

__all__ = ["BackendError", "CredentialError", "GcpTarget", "NotFoundError", "UserSecretsClient", "ValidationError"]


class NotFoundError(BackendError):
    """There is no such secret: newer versions of Kaggle's module raise it."""


class ValidationError(ShownError):
    """The label is empty."""


@unique
class GcpTarget(Enum):
    """The services of Google Cloud that Kaggle has tokens for."""

    BIGQUERY = (1, "BigQuery")
    GCS = (2, "Google Cloud Storage")
    AUTOML = (3, "Cloud AutoML")

    @property
    def target(self) -> int:
        return self.value[0]

    @property
    def service(self) -> str:
        return self.value[1]


class UserSecretsClient:
    """Reads the user's secrets, as Kaggle's class of this name does."""

    def get_secret(self, label: str) -> str:
        """Return the secret with this label.

        Raises `ValidationError` for an empty label, `NotFoundError`, which is a `BackendError`, if there is none,
        `CredentialError` if the notebook is somebody else's or other users may read the secrets file, and `InputError`
        if that file is not TOML.
        """
        from haversack.notebook.secrets import file, watch

        if not label:
            raise ValidationError("Label must be non-empty.")
        try:
            channel.check_trusted(f"secret {label}")
            value = file.value(label)
        except (SignInError, PermissionError) as error:
            raise CredentialError(str(error)) from error
        if value is None:
            raise NotFoundError(
                f"No user secrets exist for kernel id and label {label}. Store it with "
                f"`haversack secrets set {label}`, or set the environment variable HAVERSACK_SECRET_{label}."
            )
        watch.report(value)
        return value

    def get_bigquery_access_token(self) -> NoReturn:
        """Raise `CredentialError`."""
        _refuse(GcpTarget.BIGQUERY)

    def get_gcloud_credential(self) -> NoReturn:
        """Raise `CredentialError`."""
        raise CredentialError(_SIGN_IN.format("gcloud"))

    def set_gcloud_credentials(self, project: str | None = None, account: str | None = None) -> NoReturn:
        """Raise `CredentialError`."""
        raise CredentialError(_SIGN_IN.format("gcloud"))

    def set_tensorflow_credential(self, credential: object) -> None:
        """Do nothing: TensorFlow finds the sign-in that `google.auth.default` finds."""

    def _get_gcs_access_token(self) -> NoReturn:
        _refuse(GcpTarget.GCS)

    def _get_automl_access_token(self) -> NoReturn:
        _refuse(GcpTarget.AUTOML)


_SIGN_IN = "Kaggle's tokens for {} exist on Kaggle only. Sign in to Google with: haversack login google"


def _refuse(target: GcpTarget) -> NoReturn:
    raise CredentialError(_SIGN_IN.format(target.service))
