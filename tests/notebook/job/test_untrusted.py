"""What a job does not hand on to somebody else's notebook, and which packages it may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.errors import InputError
from haversack.notebook.job import untrusted
from haversack.packages.requirements import requirements_of

BLOCK = "# /// script\n# dependencies = [{}]\n# ///"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GITHUB_TOKEN", "a"),
        ("MY_API_KEY", "a"),
        ("DB_PASSWORD", "a"),
        ("PGPASS", "a"),
        ("AWS_PROFILE", "a"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/a.json"),
        ("KAGGLE_USERNAME", "me"),
        ("HF_HOME", "/a"),
        ("WANDB_DIR", "/a"),
        ("SSH_AUTH_SOCK", "/tmp/agent"),
        ("HAVERSACK_TOKEN", "a"),
        ("HAVERSACK_HUB", "http://127.0.0.1:1"),
        ("PIP_CONFIG_FILE", "/a"),
        ("PIP_INDEX_URL", "https://me:pw@example.org/simple"),
        ("https_proxy", "http://me@example.org:3128"),
        ("DATABASE_URL", "postgres://localhost/x"),
        ("DB_PASSPHRASE", "a"),
        ("AWS_SECRET_FILE", "/a"),
        ("LESS_USUAL", "hf_" + "aBcD" * 9),
        ("DOCKER_HOST", "unix:///run/docker.sock"),
        ("TMPDIR", "/a"),
    ],
)
def test_a_variable_that_looks_like_a_secret_is_left_out(name: str, value: str) -> None:
    assert untrusted.harmless({name: value}) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin"),
        ("LANG", "C.UTF-8"),
        ("EPOCHS", "3"),
        ("PIP_INDEX_URL", "https://example.org/simple"),
        ("https_proxy", "http://example.org:3128"),
        ("CUDA_VISIBLE_DEVICES", "0"),
        ("KERAS_BACKEND", "jax"),
        ("TF_CPP_MIN_LOG_LEVEL", "3"),
        ("OMP_NUM_THREADS", "1"),
    ],
)
def test_other_variables_are_handed_on(name: str, value: str) -> None:
    assert untrusted.harmless({name: value}) == {name: value}


@pytest.mark.parametrize(
    "dependency",
    [
        "x @ file:///home/me/x",
        "./x",
        "-r /etc/passwd",
        "-e .",
        "x\\n-e /home/me/x",
        "x @ git+https://example.org/x",
        "x @ git+ssh://a/x",
    ],
)
def test_a_package_from_this_machine_is_refused(dependency: str, tmp_path: Path) -> None:
    needed = requirements_of([BLOCK.format(f'"{dependency}"')], {}, tmp_path)
    with pytest.raises(InputError, match="from elsewhere than an index") as raised:
        untrusted.check_packages(needed)
    assert "--trust" in raised.value.next_step


def test_packages_of_an_index_and_wheels_are_allowed(tmp_path: Path) -> None:
    listed = '"pandas>=2", "x @ https://example.org/x-1-py3-none-any.whl", "y[z]==1; python_version > \'3\'"'
    untrusted.check_packages(requirements_of([BLOCK.format(listed)], {}, tmp_path))
