"""What is only cosmetic on Colab: `output`, `widgets`, `data_table`, `html` and others, without a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from haversack.notebook.colab import ai, data_table, errors, html, output, sheets, snippets, widgets


class Frame:
    """Shows itself as a pandas data frame does."""

    def _repr_html_(self) -> str:
        return "<table></table>"

    def __repr__(self) -> str:
        return "   a\n0  1"


@pytest.mark.parametrize(
    "context",
    [
        output.temporary,
        output.to_default_area,
        output.to_footer_area,
        output.to_header_area,
        lambda: output.redirect_to_element("#id"),
        lambda: output.use_tags("tag"),
        lambda: widgets.TabBar(["one", "two"], "start").output_to("two", select=False),
        lambda: widgets.Grid(2, 3, header_row=True).output_to(1, 2),
    ],
)
def test_output_in_a_block_is_shown(context: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    with context():
        print("inside")
    assert capsys.readouterr().out == "inside\n"


def test_what_has_no_effect_without_a_page_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.clear(output_tags="tag")
    output.clear(wait=True, output_tags=("a", "b"))
    output.enable_custom_widget_manager()
    output.disable_custom_widget_manager()
    output.no_vertical_scroll()
    output.register_callback("f", print)
    assert output.eval_js("new Audio('x').play()", ignore_result=True) is None
    data_table.enable_dataframe_formatter()
    data_table.disable_dataframe_formatter()
    data_table.load_ipython_extension(None)
    data_table.unload_ipython_extension(None)
    snippets.register("https://colab.research.google.com/x.ipynb")
    tabs, grid = widgets.TabBar(["one"]), widgets.Grid(1, 1)
    tabs.clear_tab()
    tabs.remove()
    grid.clear_cell(0, 0)
    grid.remove()
    html.Element("a").add_event_listener("click", print)
    assert capsys.readouterr().out == ""


def test_the_address_of_a_port_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    output.serve_kernel_port_as_iframe(8050, width="100%", height=600)
    output.serve_kernel_port_as_window(8051, path="/a", anchor_text="open")
    said = capsys.readouterr().out.splitlines()
    assert [line.rpartition(" ")[2] for line in said] == ["http://localhost:8050/", "http://localhost:8051/a"]


@pytest.mark.parametrize(
    "script", ["google.colab.kernel.proxyPort(80)", "google.colab.kernel.proxyPort(80, {'cache': true});"]
)
def test_the_address_of_a_port_can_be_asked_for(script: str) -> None:
    assert output.eval_js(script) == "http://localhost:80/"


@pytest.mark.parametrize(
    "call",
    [
        lambda: output.eval_js("1 + 1"),
        lambda: ai.generate_text("Hello"),
        lambda: ai.list_models(),
        lambda: sheets.InteractiveSheet(title="Budget"),
        lambda: html.Element("video").call("play"),
        lambda: html.create_resource(content="x"),
    ],
)
def test_what_needs_colab_says_what_to_do_instead(call: Callable[[], Any]) -> None:
    with pytest.raises(errors.Error, match=r"Colab.*\. [A-Z].*\.$"):
        call()


def test_a_table_is_shown_as_pandas_shows_it() -> None:
    table = data_table.DataTable(Frame(), include_index=False, num_rows_per_page=10)
    assert (table._repr_html_(), repr(table)) == ("<table></table>", "   a\n0  1")
    assert data_table.DataTable.formatter(Frame()) is None


@pytest.mark.parametrize(("tab", "error"), [("three", ValueError), ("one", ValueError), (3, IndexError)])
def test_a_tab_that_is_not_there_is_an_error(tab: Any, error: type[Exception]) -> None:
    with pytest.raises(error), widgets.TabBar(["one", "two", "one"]).output_to(tab):
        pass


def test_a_place_outside_a_grid_is_an_error() -> None:
    with pytest.raises(errors.WidgetException, match="outside of boundaries of 2x2 grid"):
        with widgets.Grid(2, 2).output_to(0, 2):
            pass


def test_tabs_and_grids_are_iterated() -> None:
    assert list(widgets.TabBar(["one", "two"])) == [0, 1]
    assert list(widgets.Grid(1, 2)) == [(0, 0), (0, 1)]


def test_a_grid_of_data_is_rendered_row_by_row() -> None:
    pairs: list[tuple[int, int]] = []
    headers: list[int] = []
    grid = widgets.create_grid([1, 2], [3, 4], lambda row, column: pairs.append((row, column)), headers.append)
    assert pairs == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert headers == [3, 4, 1, 2]
    assert (grid.rows, grid.columns) == (3, 3)


def test_an_element_is_shown_as_html() -> None:
    parent = html.Element("div", attributes={"class": "a"}, src={"script": "x.js"})
    child = html.Element("b")
    child.append_child("bold")
    parent.append_child(child)
    parent.set_attribute("title", 'a "b"')
    assert parent._repr_html_() == (
        '<script src="x.js"></script><div class="a" title="a &quot;b&quot;"><b>bold</b></div>'
    )
    child.remove()
    assert parent._repr_html_().endswith('</script><div class="a" title="a &quot;b&quot;"></div>')
