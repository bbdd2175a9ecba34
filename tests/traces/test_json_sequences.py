"""JSON text sequences (RFC 7464) are read as what they are: values with a record separator before each."""

import io
import json
import sys
from types import SimpleNamespace

import pytest

from milepost.errors import TraceFormatError
from milepost.traces import open_trace

LINES = [{"prompt_token_ids": [1, 2, number], "note": "a\x1eb"} for number in range(3)]
VALUES = [json.dumps(line) for line in LINES]
SEQUENCES = {
    "as the standard has it": "".join(f"\x1e{value}\n" for value in VALUES),
    "without line ends": "".join(f"\x1e{value}" for value in VALUES),
    "with separators on lines of their own": "".join(f"\x1e\n{value}\n" for value in VALUES),
    "with separators at the ends": "".join(f"{value}\x1e\n" for value in VALUES),
    "with empty records": "".join(f"\x1e\x1e{value}\r\n" for value in VALUES),
    "over many lines each": "".join(f"\x1e{json.dumps(line, indent=1)}\n" for line in LINES),
    "behind a byte order mark": "\ufeff" + "".join(f"\x1e{value}\n" for value in VALUES),
    "plain lines, the control": "".join(f"{value}\n" for value in VALUES),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_is_read_as_its_values(tmp_path, name):
    path = tmp_path / "log.json-seq"
    path.write_text(SEQUENCES[name], encoding="utf-8")
    assert [request.keys.tolist() for request in open_trace(path)] == [[1, 2, 0], [1, 2, 1], [1, 2, 2]]


def test_a_record_cut_off_is_named_by_its_place(tmp_path):
    path = tmp_path / "log.json-seq"
    path.write_text(f"\x1e{VALUES[0]}\x1e{VALUES[1][:9]}\n")
    with pytest.raises(TraceFormatError, match="line 1, record 2: not JSON"):
        list(open_trace(path))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "standard input is empty"),
        (b"{", "standard input, line 1: "),
        (b"BZh91AY", "standard input is compressed with bzip2.*bzip2 -dc - "),
        (b"time,tokens\n1,2\n", "standard input, line 1: .*table"),
    ],
)
def test_standard_input_is_called_so(monkeypatch, data, says):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    with pytest.raises(TraceFormatError, match=says):
        list(open_trace("-"))
