"""`!pip install` of 18 packages in a cell: served by uv, and by pip itself. Both caches are empty.

    python bench/pip.py [PACKAGE …]

Two environments are made with pip in them; in the first one, pip is served as in a job. Each installs the same packages
from the configured index, with a download cache of its own that is empty, and then once more, in a new environment,
with the cache as the first installation left it. Printed are seconds of wall clock, one measurement each: run it on a
quiet machine, and more than once, since the index's speed varies.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uv

from haversack.packages import pip_hook

ROOT = Path(__file__).parents[1]
UV = uv.find_uv_bin()
# What cells install most often, without packages that need a GPU.
PACKAGES = (
    "pandas scikit-learn seaborn matplotlib plotly tqdm requests beautifulsoup4 lxml openpyxl nltk gensim networkx "
    "sympy statsmodels xgboost Pillow ipywidgets"
)


def environment(folder: Path, served: bool) -> Path:
    """Make an environment with pip in `folder`, served by uv or not, and return its Python."""
    python = folder / "bin" / "python"
    subprocess.run([UV, "venv", "-q", "--relocatable", "--python", sys.executable, folder], check=True)
    subprocess.run([UV, "pip", "install", "-q", "--compile-bytecode", "--python", python, "pip"], check=True)
    if served:
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "haversack.pth").write_text(f"{ROOT}\n")
        pip_hook.write(site)
    return python


def seconds(python: Path, cache: Path, packages: list[str]) -> float:
    """Install `packages` as a cell would, and return the seconds that it took."""
    caches = {"UV_CACHE_DIR": str(cache / "uv"), "PIP_CACHE_DIR": str(cache / "pip")}
    start = time.perf_counter()
    command = [python, "-m", "pip", "install", "-q", *packages]
    subprocess.run(command, env={**os.environ, **caches, "HAVERSACK_UV": UV}, check=True)
    return time.perf_counter() - start


def main() -> None:
    packages = sys.argv[1:] or PACKAGES.split()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        taken = {}
        for name, served in (("uv", True), ("pip", False)):
            for state in ("cold", "warm"):
                python = environment(folder / f"{name}-{state}", served)
                taken[name, state] = seconds(python, folder / f"{name}-cache", packages)
    print(f"pip install of {len(packages)} packages, seconds")
    for state in ("cold", "warm"):
        ours, pips = taken["uv", state], taken["pip", state]
        print(f"  cache {state}: by uv {ours:6.1f}   by pip {pips:6.1f}   1/{pips / ours:.1f}")


if __name__ == "__main__":
    main()
