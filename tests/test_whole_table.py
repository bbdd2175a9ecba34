"""A table on a narrow terminal is printed another way, and whole."""

import io
import re

import pytest
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from milepost.whole_table import print_whole

VALUES = ("offsets:start=512+1024,end=64", "41.6%", "1,234,567", "12.5 [MB]")


def printed(width: int) -> str:
    table = Table(title="requests.jsonl", caption="a checkpoint\ncosts 96", box=SIMPLE_HEAD)
    table.add_column("")
    table.add_column("policy", overflow="fold")
    for heading in ("stored/\nrequest", "tokens\nrecomputed", "state\nbytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("*", Text(VALUES[0]), "[green]41.6%[/]", VALUES[2], Text(VALUES[3]))
    stream = io.StringIO()
    print_whole(table, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [12, 30, 50, 80, 200])
def test_every_value_is_whole_at_every_width(width):
    shown = printed(width)
    everything = re.sub(r"\s", "", shown)
    assert "…" not in shown
    # A folded notation lies over several lines of a table, among other columns.
    for value in VALUES[1:] if "─" in shown else (*VALUES, "requests.jsonl", "acheckpointcosts96", "*"):
        assert value.replace(" ", "") in everything
    assert max(map(len, shown.splitlines())) <= width


def test_where_there_is_room_it_is_a_table():
    assert "─" in printed(200)
    assert "─" not in printed(30)


def test_a_row_names_its_values_after_its_mark():
    assert "-*policyoffsets:start=512+1024,end=64,stored/request41.6%," in re.sub(r"\s", "", printed(30))
