"""``milepost top``: a server's cache in a terminal."""

import http.server
import io
import json
import threading

import httpx
import pytest
from rich.console import Console
from running import MODEL, running
from typer.testing import CliRunner

from milepost.cli.program import app
from milepost.cli.top_reading import StatusReader
from milepost.cli.top_screen import screen
from milepost.errors import ConfigurationError

KEYS = {"api_keys": ("first-key-of-all",), "operator_key": "the-operators-key"}


@pytest.fixture(scope="module")
def url():
    with running(**KEYS, shows_text=True) as server:
        client = {"Authorization": "Bearer first-key-of-all"}
        for question in ("Why?", "And then?"):
            body = {"model": MODEL, "prompt": "Once upon a time. " * 40 + question, "max_tokens": 3}
            assert httpx.post(f"{server.url}/v1/completions", json=body, headers=client).status_code == 200
        httpx.post(f"{server.url}/v1/completions", json={"model": "other", "prompt": "x"}, headers=client)
        server.wait_until_idle()
        yield server.url


@pytest.fixture(scope="module")
def snapshot(url):
    return StatusReader(url, operator_key=KEYS["operator_key"]).read()


def drawn(snapshot, width):
    console = Console(width=width, file=io.StringIO())
    console.print(screen(snapshot, width=width))
    return console.file.getvalue()


def test_it_shows_what_the_server_tells(url):
    found = CliRunner().invoke(
        app, ["top", url, "--once"], env={"MILEPOST_OPERATOR_KEY": KEYS["operator_key"]}
    )
    assert found.exit_code == 0, found.output
    for word in (
        MODEL,
        "serving",
        "0 running, 0 waiting",
        "memory",
        "checkpoints",
        "reused",
        "▲",
        "refused: 404",
    ):
        assert word in found.output


def test_as_json_it_is_the_snapshot(url, snapshot):
    found = CliRunner().invoke(app, ["top", url, "--once", "--json", "--operator-key", KEYS["operator_key"]])
    told = json.loads(found.stdout)
    assert told["prefix_cache"] == snapshot["prefix_cache"]
    assert told["prefix_cache"]["hits"] > 500


@pytest.mark.parametrize("width", [24, 40, 71, 80, 200])
def test_no_line_is_longer_than_the_terminal(snapshot, width):
    text = drawn(snapshot, width)
    assert MODEL in text
    assert max(map(len, text.splitlines())) <= width


def test_what_a_prompt_says_does_not_move_the_cursor(snapshot):
    nodes = [node | {"text": "\x1b[2Jcleared\x07[bold]"} for node in snapshot["tree"]["nodes"]]
    text = drawn(snapshot | {"tree": snapshot["tree"] | {"nodes": nodes}}, 100)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]" in text


def test_before_the_first_request_it_says_what_to_do():
    with running() as server:
        assert "Nothing was asked yet" in drawn(StatusReader(server.url).read(), 80)


@pytest.mark.parametrize("key", [None, "not-the-operators"])
def test_it_says_that_a_key_is_asked_for(url, key):
    with pytest.raises(ConfigurationError, match="--operator-key"):
        StatusReader(url, operator_key=key).read()


@pytest.mark.parametrize(
    "given", ["", "http://", "ftp://host", "http://a b", "http://[", "http://h:x", "http://h:0"]
)
def test_what_is_no_url_is_refused(given):
    with pytest.raises(ConfigurationError, match="no server's URL"):
        StatusReader(given)


def test_it_says_that_no_server_is_there():
    # A port that was free a moment ago.
    with running() as server:
        gone = server.url
    with pytest.raises(ConfigurationError, match="no server answers"):
        StatusReader(gone).read()


def test_another_server_is_none_of_ours():
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[1]")

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(ConfigurationError, match="no milepost server"):
            StatusReader(f"http://127.0.0.1:{other.server_port}").read()
        other.shutdown()
