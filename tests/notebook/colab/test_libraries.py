"""Libraries that ask whether they run on Colab: what they ask, in packages of the same modules and names.

The packages are written for the test, because the real ones are large; each does what the real one does with the
answer, as far as its public source shows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.notebook.colab.test_colab import python

OnColab = Callable[[dict[str, str], str], str]

ON_COLAB = """
from haversack.notebook.colab import finder, libraries
finder.install()
libraries.install()
import google.colab
"""
GRADIO = {
    "gradio/__init__.py": "from gradio.blocks import Blocks",
    "gradio/utils.py": "def colab_check():\n    return True\ndef is_hosted_notebook():\n    return True",
    "gradio/blocks.py": """
import os
from gradio import utils
class Blocks:
    def launch(self, inline=None, share=None, *, quiet=False, **options):
        if share is None:
            share = utils.colab_check() or utils.is_hosted_notebook() or os.getenv("GRADIO_SHARE") == "true"
        return share
""",
}


@pytest.fixture
def on_colab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnColab:
    """`on_colab(files, code)`: what `code` prints in a job's Python that sees packages of these files."""

    def run(files: dict[str, str], code: str) -> str:
        for name, source in files.items():
            path = tmp_path / "packages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        monkeypatch.setenv("HAVERSACK_JOB", str(tmp_path))
        return python(ON_COLAB + code, tmp_path / "packages")

    return run


def test_gradio_opens_no_tunnel_unasked(on_colab: OnColab) -> None:
    assert on_colab(GRADIO, "import gradio\nprint(gradio.Blocks().launch())") == "False\n"


def test_gradio_opens_no_tunnel_when_its_checks_have_other_names(on_colab: OnColab) -> None:
    renamed = {name: source.replace("colab_check", "on_colab") for name, source in GRADIO.items()}
    assert on_colab(renamed, "import gradio\nprint(gradio.Blocks().launch(True, quiet=True, width=1))") == "False\n"


def test_gradio_opens_no_tunnel_when_its_app_is_launched_elsewhere(on_colab: OnColab) -> None:
    code = "from gradio import utils\nprint(utils.colab_check(), utils.is_hosted_notebook())"
    assert on_colab(GRADIO, code) == "False False\n"


@pytest.mark.parametrize("asked", ["share=True", "None, True"])
def test_gradio_opens_a_tunnel_when_asked(on_colab: OnColab, asked: str) -> None:
    assert on_colab(GRADIO, f"import gradio\nprint(gradio.Blocks().launch({asked}))") == "True\n"


def test_gradio_opens_a_tunnel_when_the_environment_asks(on_colab: OnColab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SHARE", "True")
    assert on_colab(GRADIO, "import gradio\nprint(gradio.Blocks().launch())") == "True\n"


def test_trackio_opens_no_tunnel_unasked(on_colab: OnColab) -> None:
    files = {"trackio/__init__.py": "", "trackio/launch_utils.py": GRADIO["gradio/utils.py"]}
    code = (
        "from trackio.launch_utils import colab_check, is_hosted_notebook\nprint(colab_check(), is_hosted_notebook())"
    )
    assert on_colab(files, code) == "False False\n"


@pytest.mark.parametrize(("found", "used"), [("_CONTEXT_COLAB", "_CONTEXT_IPYTHON"), ("_CONTEXT_NONE",) * 2])
def test_tensorboard_shows_its_frame_as_in_jupyter(on_colab: OnColab, found: str, used: str) -> None:
    source = (
        "_CONTEXT_COLAB, _CONTEXT_IPYTHON, _CONTEXT_NONE = '_CONTEXT_COLAB', '_CONTEXT_IPYTHON', '_CONTEXT_NONE'\n"
        f"def _get_context():\n    return {found}\ndef display():\n    return _get_context()"
    )
    files = {"tensorboard/__init__.py": "", "tensorboard/notebook.py": source}
    assert on_colab(files, "from tensorboard import notebook\nprint(notebook.display())") == f"{used}\n"


def test_pydeck_shows_its_map_as_in_jupyter(on_colab: OnColab) -> None:
    asks = "import sys\nin_google_colab = 'google.colab' in sys.modules"
    files = {
        "pydeck/__init__.py": "",
        "pydeck/io/__init__.py": "",
        "pydeck/io/html.py": asks,
        "pydeck/bindings/__init__.py": "",
        "pydeck/bindings/deck.py": asks,
    }
    code = "import pydeck.io.html as a, pydeck.bindings.deck as b\nprint(a.in_google_colab, b.in_google_colab)"
    assert on_colab(files, code) == "False False\n"


def test_panel_uses_jupyters_comms_and_asks_for_no_package(on_colab: OnColab) -> None:
    warns = (
        "import warnings\ndef extension():\n"
        "    warnings.warn('Using Panel interactively in Colab notebooks requires the jupyter_bokeh package')"
    )
    files = {"panel/__init__.py": "", "panel/config.py": warns}
    code = (
        "import os, warnings\nfrom panel import config\nwith warnings.catch_warnings(record=True) as shown:\n"
        "    config.extension()\nprint(os.environ['PANEL_COMMS'], len(shown))"
    )
    assert on_colab(files, code) == "default 0\n"


def test_plotly_loads_its_library_from_a_cdn(on_colab: OnColab) -> None:
    code = "import os\nprint(os.environ['PLOTLY_RENDERER'])"
    assert on_colab({}, code) == "plotly_mimetype+notebook_connected\n"


def test_the_users_own_renderer_takes_precedence(on_colab: OnColab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLOTLY_RENDERER", "svg")
    assert on_colab({}, "import os\nprint(os.environ['PLOTLY_RENDERER'])") == "svg\n"


def test_anywidget_finds_no_widget_manager(on_colab: OnColab) -> None:
    code = (
        "import sys, google.colab.output\nmodule = sys.modules['google.colab.output']\n"
        "module.enable_custom_widget_manager()\nprint(module._widgets._installed_url)"
    )
    assert on_colab({}, code) == "None\n"


def test_outside_a_job_no_library_is_changed(
    tmp_path: Path, on_colab: OnColab, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_colab(GRADIO, "")
    monkeypatch.delenv("HAVERSACK_JOB")
    code = ON_COLAB + "import gradio\nprint(gradio.Blocks().launch())"
    assert python(code, tmp_path / "packages") == "True\n"
