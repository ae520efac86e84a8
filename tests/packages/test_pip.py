"""Calls of pip as notebooks write them, and the calls of `uv pip` that do the same."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from haversack.packages.pip import LeftToPip, UvCall, translated

# (a call, uv's command and arguments)
BY_UV = [
    ("install pandas", "install pandas"),
    ("install -q pandas", "install pandas"),
    ("-q install pandas", "install pandas"),
    ("install pandas -qqq", "install pandas"),
    ("install --quiet pandas seaborn==0.13.2", "install pandas seaborn==0.13.2"),
    ("install 'pandas>=1.5,<2' \"torch>=2\"", "install 'pandas>=1.5,<2' 'torch>=2'"),
    ("install transformers[torch,sentencepiece]", "install 'transformers[torch,sentencepiece]'"),
    ("install numpy==1.*", "install 'numpy==1.*'"),
    ("install \"x; python_version<'3.9'\"", "install \"x; python_version<'3.9'\""),
    ("install -U kaggle", "install --upgrade-package kaggle kaggle"),
    ("install -U -q kaggle", "install --upgrade-package kaggle kaggle"),
    ("install -qU kaggle", "install --upgrade-package kaggle kaggle"),
    ("install -Uqq kaggle", "install --upgrade-package kaggle kaggle"),
    ("install --upgrade pip", "install --upgrade-package pip pip"),
    ("install kaggle --upgrade --quiet", "install --upgrade-package kaggle kaggle"),
    ("install -U Flask_SQLAlchemy>=3 six", "install --upgrade-package flask-sqlalchemy --upgrade-package six "
     "'Flask_SQLAlchemy>=3' six"),
    ("install -U datasets[audio]", "install --upgrade-package datasets 'datasets[audio]'"),
    ("install -U --upgrade-strategy only-if-needed a", "install --upgrade-package a a"),
    ("install -U --upgrade-strategy=eager a", "install --upgrade a"),
    ("install --upgrade-strategy eager a", "install a"),
    ("install -U .", "install ."),
    ("install -U git+https://github.com/huggingface/peft", "install --upgrade-package peft "
     "git+https://github.com/huggingface/peft"),
    ("install git+https://github.com/huggingface/transformers.git@main", "install "
     "git+https://github.com/huggingface/transformers.git@main"),
    ("install git+https://x.org/a/b#egg=b", "install 'git+https://x.org/a/b#egg=b'"),
    ("install 'clip @ git+https://github.com/openai/CLIP.git'", "install 'clip @ git+https://github.com/openai/CLIP.git'"),
    ("install git+ssh://git@github.com/o/r.git", "install git+ssh://git@github.com/o/r.git"),
    ("install https://x.org/a-1.0-py3-none-any.whl", "install https://x.org/a-1.0-py3-none-any.whl"),
    ("install https://github.com/o/r/archive/master.zip", "install https://github.com/o/r/archive/master.zip"),
    ("install ./wheels/a-1.0-py3-none-any.whl", "install ./wheels/a-1.0-py3-none-any.whl"),
    ("install '.[dev]'", "install '.[dev]'"),
    ("install -e .", "install --editable ."),
    ("install -q -e .[all]", "install --editable '.[all]'"),
    ("install --editable=./lib", "install --editable ./lib"),
    ("install -e ./a -e ./b", "install --editable ./a --editable ./b"),
    ("install -r missing.txt", "install --requirements missing.txt"),
    ("install -rmissing.txt", "install --requirements missing.txt"),
    ("install -qr missing.txt", "install --requirements missing.txt"),
    ("install --requirement=missing.txt", "install --requirements missing.txt"),
    ("install -r https://x.org/requirements.txt", "install --requirements https://x.org/requirements.txt"),
    ("install -c limits.txt a", "install --constraints limits.txt a"),
    ("install --constraint 'My Drive/limits.txt' a", "install --constraints 'My Drive/limits.txt' a"),
    ("install --no-deps a", "install --no-deps a"),
    ("install a --no-dependencies", "install --no-deps a"),
    ("install --pre a", "install --prerelease allow a"),
    ("install --pre -U a", "install --prerelease allow --upgrade-package a a"),
    ("install --force-reinstall a", "install --reinstall a"),
    ("install --upgrade --force-reinstall a", "install --reinstall --upgrade-package a a"),
    ("install -I a", "install --reinstall a"),
    ("install --ignore-installed a", "install --reinstall a"),
    ("install --no-cache-dir a", "install --no-cache a"),
    ("--no-cache-dir install a", "install --no-cache a"),
    ("install --no-cache a", "install --no-cache a"),
    ("install --user a", "install a"),
    ("install --no-build-isolation flash-attn", "install --no-build-isolation flash-attn"),
    ("install --use-pep517 a", "install a"),
    ("install --prefer-binary a", "install a"),
    ("install --only-binary=:all: a", "install --only-binary :all: a"),
    ("install --only-binary a,b a b", "install --only-binary a --only-binary b a b"),
    ("install --no-binary :all: a", "install --no-binary :all: a"),
    ("install --no-binary=a a", "install --no-binary a a"),
    ("install --require-hashes -r missing.txt", "install --require-hashes --requirements missing.txt"),
    ("install -t /content/lib a", "install --target /content/lib a"),
    ("install --target=/content/drive/MyDrive/lib a", "install --target /content/drive/MyDrive/lib a"),
    ("install --prefix /opt/a a", "install --prefix /opt/a a"),
    ("install --dry-run a", "install --dry-run a"),
    ("install --no-index a", "install --no-index a"),
    ("install -i https://mirror.org/simple a", "install a"),
    ("install a -i https://mirror.org/simple --trusted-host mirror.org", "install a"),
    ("install torch --index-url https://download.pytorch.org/whl/cpu", "install torch"),
    ("install torch==2.0.1+cu118 --extra-index-url https://x.org/whl/cu118", "install torch==2.0.1+cu118"),
    ("install 'jax[cuda12]' -f https://x.org/jax_releases.html", "install 'jax[cuda12]'"),
    ("install torch-scatter -fhttps://x.org/whl/torch-2.0.0+cpu.html", "install torch-scatter"),
    ("--trusted-host pypi.org install a", "install a"),
    ("install --timeout 100 a", "install a"),
    ("install --default-timeout=1000 a", "install a"),
    ("install --retries 10 a", "install a"),
    ("--proxy http://proxy:3128 install a", "install a"),
    ("install --cert /etc/ca.pem a", "install a"),
    ("install --progress-bar off a", "install a"),
    ("install --progress-bar=off a", "install a"),
    ("install --root-user-action=ignore a", "install a"),
    ("install --no-input a", "install a"),
    ("install --no-warn-script-location a", "install a"),
    ("install --no-warn-conflicts a", "install a"),
    ("install --disable-pip-version-check a", "install a"),
    ("install --break-system-packages a", "install a"),
    ("install --no-compile a", "install a"),
    ("install --exists-action w a", "install a"),
    ("install --cache-dir /tmp/pip a", "install a"),
    ("install --use-feature=2020-resolver a", "install a"),
    ("install --use-feature fast-deps a", "install a"),
    ("install -C setup-args=-Dx=1 a", "install --config-setting setup-args=-Dx=1 a"),
    ("install --config-settings=x=y a", "install --config-setting x=y a"),
    ("install --group dev", "install --group dev"),
    ("install --keyring-provider subprocess a", "install --keyring-provider subprocess a"),
    ("install --uploaded-prior-to 2026-07-01 a", "install --exclude-newer 2026-07-01 a"),
    ("install -v a", "install a"),
    ("install -- a", "install a"),
    ("uninstall -y a b", "uninstall a b"),
    ("uninstall a --yes", "uninstall a"),
    ("uninstall a", "uninstall a"),
    ("uninstall -q -y -r old.txt", "uninstall --requirements old.txt"),
    ("list", "list"),
    ("list --format=freeze", "list --format freeze"),
    ("list -o", "list --outdated"),
    ("list --outdated --format json", "list --outdated --format json"),
    ("list -l", "list"),
    ("freeze", "freeze"),
    ("freeze --local", "freeze"),
    ("freeze --exclude pip", "freeze --exclude pip"),
]  # fmt: skip
# (a call, what its reason names)
BY_PIP = [
    ("", "no command"),
    ("--version", "no command"),
    ("-V", "no command"),
    ("--help", "no command"),
    ("help install", "uv has no `help`"),
    ("download a", "uv has no `download`"),
    ("download -d wheels a", "uv has no `download`"),
    ("wheel .", "uv has no `wheel`"),
    ("config set global.index-url https://mirror.org/simple", "uv has no `config`"),
    ("cache purge", "uv has no `cache`"),
    ("index versions a", "uv has no `index`"),
    ("debug", "uv has no `debug`"),
    ("inspect", "uv has no `inspect`"),
    ("hash a.whl", "uv has no `hash`"),
    ("search a", "uv has no `search`"),
    ("instal a", "uv has no `instal`"),
    ("show a", "fewer fields"),
    ("check", "other words"),
    ("install", "names nothing"),
    ("install -q", "names nothing"),
    ("install --help", "`--help`"),
    ("install -h", "`-h`"),
    ("install --nonsense a", "`--nonsense`"),
    ("install -Z a", "`-Z`"),
    ("install a -r", "`--requirement` has no value"),
    ("install --upgrade=yes a", "`--upgrade` takes no value"),
    ("install --root /tmp/root a", "`--root`"),
    ("install --src src a", "`--src`"),
    ("install --report - a", "`--report`"),
    ("install --global-option=--cpp_ext a", "`--global-option`"),
    ("install --no-use-pep517 a", "`--no-use-pep517`"),
    ("install --ignore-requires-python a", "`--ignore-requires-python`"),
    ("install --platform linux_x86_64 -t lib a", "`--platform`"),
    ("install --use-deprecated=legacy-resolver a", "`--use-deprecated`"),
    ("install --use-feature=no-binary-enable-wheel-cache a", "no-binary-enable-wheel-cache"),
    ("install --upgrade-strategy to-satisfy-only a", "to-satisfy-only"),
    ("install --timeout soon a", "not a number"),
    ("install --keyring-provider import a", "import"),
    ("install --extra-index-url 'https://a.org https://b.org' a", "separates values"),
    ("install --process-dependency-links a", "`--process-dependency-links`"),
    ("install --isolated a", "`--isolated`"),
    ("install --python other a", "`--python`"),
    ("install -e git+https://github.com/o/r.git#egg=r", "no repository as editable"),
    ("install hg+https://x.org/r", "version control"),
    ("install 'r @ svn+https://x.org/r'", "version control"),
    ("uninstall", "names nothing"),
    ("list --user", "`--user`"),
    ("list -v", "more columns"),
    ("freeze -r requirements.txt", "`-r`"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "by_uv"), BY_UV)
def test_what_uv_does(call: str, by_uv: str) -> None:
    done = translated(shlex.split(call))
    assert isinstance(done, UvCall), done
    assert [done.command, *done.arguments] == shlex.split(by_uv)


@pytest.mark.parametrize(("call", "reason"), BY_PIP)
def test_what_pip_does(call: str, reason: str) -> None:
    done = translated(shlex.split(call))
    assert isinstance(done, LeftToPip)
    assert reason in done.reason


def variables(call: str, **configured: str) -> dict[str, str]:
    done = translated(shlex.split(call))
    assert isinstance(done, UvCall)
    return done.variables(configured)


def test_an_index_replaces_the_configured_one() -> None:
    found = variables("install a -i https://a.org/simple", UV_DEFAULT_INDEX="https://b.org/simple")
    assert found["UV_DEFAULT_INDEX"] == "https://a.org/simple"


def test_more_indexes_add_to_the_configured_ones() -> None:
    call = "install a --extra-index-url https://a.org --extra-index-url https://b.org"
    assert variables(call, UV_INDEX="https://c.org")["UV_INDEX"] == "https://a.org https://b.org https://c.org"


def test_links_and_trusted_hosts_add_to_the_configured_ones() -> None:
    call = "install a -f https://a.org/w --trusted-host a.org"
    found = variables(call, UV_FIND_LINKS="/w", UV_INSECURE_HOST="b.org")
    assert found["UV_FIND_LINKS"] == "https://a.org/w,/w"
    assert found["UV_INSECURE_HOST"] == "a.org b.org"


def test_without_options_the_configuration_stands() -> None:
    assert variables("install a", UV_INDEX="https://c.org") == {
        "UV_INDEX": "https://c.org",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_links_that_are_not_there_are_pips_to_pass_over(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("--find-links ./nowhere\na")
    for words in (["-f", "./nowhere", "a"], ["-r", str(tmp_path / "requirements.txt")]):
        done = translated(["install", *words])
        assert isinstance(done, LeftToPip)
        assert done.reason == "there is no ./nowhere"


def test_options_in_a_file_count_as_pip_counts_them(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    lines = [
        "--index-url https://a.org/simple", "--trusted-host a.org", "--pre", "-cmore.txt", "--only-binary=:all:",
        "--prefer-binary", "six==1.17.0 --hash=sha256:00", "-e ./lib", f"-f {tmp_path}", "--no-binary six",
    ]  # fmt: skip
    file.write_text("\n".join(lines))
    done = translated(["install", "-r", str(file)])
    assert isinstance(done, UvCall), done
    assert done.arguments == ("--prerelease", "allow", "--requirements", str(file))
    found = done.variables({"UV_DEFAULT_INDEX": "https://b.org/simple"})
    assert (found["UV_DEFAULT_INDEX"], found["UV_INSECURE_HOST"]) == ("https://a.org/simple", "a.org")


def test_how_the_index_is_reached_travels_as_variables() -> None:
    found = variables("--proxy proxy:3128 --timeout 2.6 install a --retries 7 --cert ca.pem --client-cert me.pem")
    assert found["HTTPS_PROXY"] == found["HTTP_PROXY"] == "http://proxy:3128"
    assert (found["UV_HTTP_TIMEOUT"], found["UV_HTTP_RETRIES"]) == ("3", "7")
    assert (found["SSL_CERT_FILE"], found["SSL_CLIENT_CERT"]) == ("ca.pem", "me.pem")


def test_no_address_is_on_the_command_line() -> None:
    done = translated(["install", "a", "-i", "https://me:secret@a.org", "--extra-index-url", "https://me:secret@b.org"])
    assert isinstance(done, UvCall)
    assert "secret" not in " ".join(done.arguments)


def test_how_quiet_and_verbose_a_call_is() -> None:
    quiet, loud = translated(["-q", "install", "-q", "a"]), translated(["download", "-v", "a"])
    assert isinstance(quiet, UvCall)
    assert isinstance(loud, LeftToPip)
    assert (quiet.quiet, quiet.verbose, loud.verbose) == (2, False, True)


def test_an_upgrade_by_a_file_upgrades_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("six  # a comment\n")
    file = tmp_path / "requirements.txt"
    file.write_text("Pandas>=1 \\\n  ,<3\n-r more.txt\n--extra-index-url https://a.org\n-e ./lib\n")
    done = translated(["install", "-U", "-r", str(file)])
    assert isinstance(done, UvCall)
    assert done.arguments == ("--requirements", str(file), "--upgrade-package", "pandas", "--upgrade-package", "six")


@pytest.mark.parametrize(
    "line",
    [
        "-e git+https://x.org/r#egg=r",
        "--editable hg+https://x.org/r",
        "a --global-option=x",
        'a --config-settings="x=y"',
        "hg+https://x.org/r",
        "--process-dependency-links",
        "-U a",
    ],
)
def test_a_file_with_a_line_that_uv_refuses_is_left_to_pip(tmp_path: Path, line: str) -> None:
    (tmp_path / "inner.txt").write_text(f"six\n{line}\n")
    file = tmp_path / "requirements.txt"
    file.write_text("-r inner.txt\n-r requirements.txt\n")
    done = translated(["install", "-r", str(file)])
    assert isinstance(done, LeftToPip)
    assert line in done.reason
