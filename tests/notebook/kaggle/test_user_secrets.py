"""`kaggle_secrets` and its kin: the names, values and errors of Kaggle's own modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from haversack.notebook.kaggle import finder


@pytest.fixture(autouse=True)
def importable() -> Iterator[None]:
    finder.install()
    yield
    sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, finder.KaggleFinder)]
    for name in ("kaggle_secrets", "kaggle_datasets", "kaggle_web_client"):
        sys.modules.pop(name, None)


def test_a_secret_is_found_by_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    from kaggle_secrets import UserSecretsClient  # type: ignore[import-not-found]

    monkeypatch.setenv("HAVERSACK_SECRET_TOKEN", "a value")
    assert UserSecretsClient().get_secret("TOKEN") == "a value"


def test_a_label_that_nobody_knows_is_a_backend_error() -> None:
    import kaggle_secrets

    with pytest.raises(
        kaggle_secrets.BackendError, match=r"label NOTHING\. Store it with `haversack secrets set NOTHING`"
    ) as raised:
        kaggle_secrets.UserSecretsClient().get_secret("NOTHING")
    assert len(raised.value._render_traceback_()) == 1


@pytest.mark.parametrize("label", ["", None])
def test_an_empty_label_is_a_validation_error(label: str | None) -> None:
    import kaggle_secrets

    with pytest.raises(kaggle_secrets.ValidationError):
        kaggle_secrets.UserSecretsClient().get_secret(label)


def test_a_file_that_others_may_read_is_a_credential_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kaggle_secrets

    file = tmp_path / "secrets.toml"
    file.write_text('A = "1"\n')
    file.chmod(0o644)
    monkeypatch.setenv("HAVERSACK_SECRETS", str(file))
    with pytest.raises(kaggle_secrets.CredentialError, match="chmod 600"):
        kaggle_secrets.UserSecretsClient().get_secret("A")


def test_a_notebook_of_somebody_else_is_a_credential_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import kaggle_secrets

    monkeypatch.setenv("HAVERSACK_UNTRUSTED", "1")
    with pytest.raises(kaggle_secrets.CredentialError, match="run it with --trust"):
        kaggle_secrets.UserSecretsClient().get_secret("TOKEN")


@pytest.mark.parametrize("method", ["get_bigquery_access_token", "get_gcloud_credential", "set_gcloud_credentials"])
def test_tokens_for_google_say_what_to_do_instead(method: str) -> None:
    import kaggle_secrets

    with pytest.raises(kaggle_secrets.CredentialError, match="haversack login google"):
        getattr(kaggle_secrets.UserSecretsClient(), method)()


def test_a_path_in_google_cloud_storage_is_refused_with_the_local_one() -> None:
    import kaggle_web_client  # type: ignore[import-not-found]
    from kaggle_datasets import KaggleDatasets  # type: ignore[import-not-found]

    with pytest.raises(kaggle_web_client.BackendError, match="Read it from /kaggle/input/cats instead"):
        KaggleDatasets().get_gcs_path("cats")


def test_other_modules_are_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        import kaggle_nothing  # type: ignore[import-not-found]  # noqa: F401
