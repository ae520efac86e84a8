"""Python processes that cells start, made to know what the kernel knows: by a `.pth` file in the job's environment.

Runs in the kernel. Python executes a line of a `.pth` file that begins with `import` when it starts
(https://docs.python.org/3/library/site.html).
"""

from __future__ import annotations

import sysconfig
from pathlib import Path


def install_finder(module: str, job: Path) -> None:
    """Let Python processes of the job in the folder `job` call `install` of our `module`, an import finder's.

    Only an environment in the job's folder is written. Raises `OSError`.
    """
    packages = Path(sysconfig.get_paths()["purelib"])
    if packages.resolve().is_relative_to(job.resolve()):
        line = f"u.find_spec('haversack') and __import__({module!r}, fromlist=['install']).install()"
        name = module.replace(".finder", "").rpartition(".")[2]
        (packages / f"haversack_{name}.pth").write_text(f"import importlib.util as u; {line}\n")
