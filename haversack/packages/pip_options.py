"""Which of pip's options uv has, by which word: the tables of the translation in `pip`.

The key "" stands for the options that all commands have. An option that is in no table and that `pip` does not handle
by itself leaves the call to pip.
"""

from __future__ import annotations

# Options of each command without a value → uv's words for them; () where uv does it anyway or has nothing of the kind.
FLAGS: dict[str, dict[str, tuple[str, ...]]] = {
    "": {
        "--no-input": (),
        "--require-virtualenv": (),
        "--disable-pip-version-check": (),
        "--no-python-version-warning": (),
        "--no-color": (),
        "--no-cache-dir": ("--no-cache",),
        "--no-cache": ("--no-cache",),
    },
    "install": {
        "--no-deps": ("--no-deps",),
        "--no-dependencies": ("--no-deps",),
        "--pre": ("--prerelease", "allow"),
        "--dry-run": ("--dry-run",),
        "--require-hashes": ("--require-hashes",),
        "--no-build-isolation": ("--no-build-isolation",),
        "--force-reinstall": ("--reinstall",),
        "--ignore-installed": ("--reinstall",),
        "--no-index": ("--no-index",),
        "--user": (),
        "--use-pep517": (),
        "--prefer-binary": (),
        "--compile": (),
        "--no-compile": (),
        "--no-clean": (),
        "--break-system-packages": (),
        "--check-build-dependencies": (),
        "--no-warn-script-location": (),
        "--no-warn-conflicts": (),
    },
    "uninstall": {"--yes": (), "--break-system-packages": ()},
    "list": {
        "--outdated": ("--outdated",),
        "--editable": ("--editable",),
        "--exclude-editable": ("--exclude-editable",),
        "--local": (),
    },
    "freeze": {"--exclude-editable": ("--exclude-editable",), "--local": (), "--all": ()},
}
# Options with a value → uv's option; "" where the value has no meaning for uv.
VALUES: dict[str, dict[str, str]] = {
    "": {"--progress-bar": "", "--exists-action": "", "--cache-dir": "", "--resume-retries": ""},
    "install": {
        "--target": "--target",
        "--prefix": "--prefix",
        "--constraint": "--constraints",
        "--build-constraint": "--build-constraints",
        "--config-settings": "--config-setting",
        "--config-setting": "--config-setting",
        "--group": "--group",
        "--uploaded-prior-to": "--exclude-newer",
        "--root-user-action": "",
    },
    "uninstall": {"--root-user-action": "", "--requirement": "--requirements"},
    "list": {"--format": "--format", "--exclude": "--exclude"},
    "freeze": {"--exclude": "--exclude"},
}
SHORT: dict[str, dict[str, str]] = {
    "": {"-q": "--quiet", "-v": "--verbose"},
    "install": {
        "-U": "--upgrade",
        "-r": "--requirement",
        "-c": "--constraint",
        "-e": "--editable",
        "-t": "--target",
        "-I": "--ignore-installed",
        "-i": "--index-url",
        "-f": "--find-links",
        "-C": "--config-settings",
    },
    "uninstall": {"-y": "--yes", "-r": "--requirement"},
    "list": {"-o": "--outdated", "-e": "--editable", "-l": "--local"},
    "freeze": {"-l": "--local"},
}
COMMANDS = tuple(command for command in SHORT if command)
OTHER_COMMANDS = {"show": "uv's `show` has fewer fields", "check": "uv's `check` has other words"}
# Options in requirements files: those that uv reads or may pass over, and those that it passes over although they
# matter, or that pip ranks higher than its configuration; the latter are handed to it.
FILE_KEPT = {
    "-r", "--requirement", "-c", "--constraint", "-e", "--editable", "--extra-index-url", "--no-index", "--no-binary",
    "--only-binary", "--require-hashes", "--prefer-binary", "--use-feature",
}  # fmt: skip
FILE_TAKEN = {"--pre", "--trusted-host", "-i", "--index-url", "-f", "--find-links"}
