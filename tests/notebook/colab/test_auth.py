"""`auth.authenticate_user()`: Google's own libraries find the sign-in of the drive, in this session only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from haversack import google, signin
from tests.conftest import RunningHub
from tests.notebook import notebooks
from tests.notebook.conftest import Run

SIGN_IN = "from google.colab import auth\nauth.authenticate_user(project_id='mine')"
DEFAULT = (
    "import google.auth\ncredentials, project = google.auth.default()\nprint(project, type(credentials).__module__)\n"
)


def test_the_users_consent_is_googles_default_until_the_session_ends(run: Run) -> None:
    credentials = {"client_id": "one.apps", "client_secret": "the-client-secret", "refresh_token": "the-refresh-token"}
    with signin.changing() as kept:
        kept.google = {"with": "client", "client": {}, "said": "client.json", "credentials": credentials}
        kept.drive = "google"
    look = "print(credentials.client_id, len(credentials.refresh_token), credentials.refresh_token)\n"
    report = run(SIGN_IN, DEFAULT + look, f"!stat -c %a ~/{google.DEFAULT_FILE}; cat ~/{google.DEFAULT_FILE}")
    assert report.status == "done", report.error
    assert notebooks.text(report.output, 1).split() == ["mine", "google.oauth2.credentials", "one.apps", "17", "***"]
    assert notebooks.text(report.output, 2).startswith("600")
    for secret in ("the-client-secret", "the-refresh-token"):
        assert secret not in Path(report.output).read_text()
        assert not [
            path for path in Path(report.job).rglob("*") if path.is_file() and secret in path.read_text("latin1")
        ]


def test_a_service_accounts_key_is_googles_default_and_is_not_copied(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = {"type": "service_account", "client_email": "robot@mine", "private_key": private.decode(), "token_uri": "x"}
    file = tmp_path / "key.json"
    file.write_text(json.dumps(key))
    monkeypatch.setenv("HAVERSACK_GOOGLE", str(file))
    with signin.changing() as kept:
        kept.drive = "google"
    report = run(SIGN_IN, DEFAULT + "print(credentials.service_account_email)")
    assert notebooks.text(report.output, 0) == "", notebooks.text(report.output, 0)
    assert notebooks.text(report.output, 1).split() == ["mine", "google.oauth2.service_account", "robot@mine"]


def test_with_a_hub_it_is_said_what_the_sign_in_is_good_for(run: Run, own_hub: RunningHub) -> None:
    report = run(SIGN_IN)
    said = notebooks.text(report.output, 0)
    assert said == "Signed in to the hub, for drive.mount. Google's own services need: haversack login google\n"
