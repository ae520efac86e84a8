"""Start ipykernel without its debugger: nobody attaches one to a job's kernel, and importing it takes 0.2 s.

    python .../kernel_launcher.py -f CONNECTION_FILE    # the arguments of `python -m ipykernel_launcher`

It is run by its path: `python -m` would take modules of the notebook's folder for Python's own. Cells may import
debugpy.
"""

import os
import sys


def main() -> None:
    if os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(__file__)):
        del sys.path[0]  # the folder of this file, whose modules would hide others of the same names
    import runpy

    sys.modules["debugpy"] = None  # type: ignore[assignment] # its import fails, and ipykernel does without
    import ipykernel.debugger  # noqa: F401 - it looks for debugpy when it is imported

    del sys.modules["debugpy"]
    runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
