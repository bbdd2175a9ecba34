"""Text that grows token by token shows only what is settled."""

from itertools import groupby

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from milepost.engines.text import TextStream
from milepost.errors import InvalidRequestError


class Bytes:
    """UTF-8 bytes as tokens: the hardest case, characters of up to four tokens."""

    def decode(self, token_ids):
        return bytes(token_ids).decode(errors="replace")


class Pieces:
    """Tokens of several characters, as real vocabularies have."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces

    def decode(self, token_ids):
        return "".join(self.pieces[token] for token in token_ids)


class LeadingSpaces(Pieces):
    """Drops the space before the first word, as SentencePiece does: text depends on the tokens before."""

    def decode(self, token_ids):
        return super().decode(token_ids).removeprefix(" ")


def run(tokenizer, tokens, stop=()) -> tuple[list[str], bool]:
    stream = TextStream(tokenizer, stop)
    texts = []
    for token in tokens:
        texts.append(stream.push(token))
        if stream.stopped:
            break
    return [*texts, stream.finish()], stream.stopped


@given(st.text(max_size=40))
@example("é" * 30)
@example("👩‍👩‍👧 a 👩‍👩‍👧 b 👩‍👩‍👧")
def test_characters_split_across_tokens_appear_whole_and_only_once(text):
    texts, _ = run(Bytes(), text.encode())
    assert "".join(texts) == text
    assert "�" not in "".join(texts)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_text_end_as_one_decoding_would_have_it(data):
    assert "".join(run(Bytes(), data)[0]) == data.decode(errors="replace")


@pytest.mark.parametrize("junk", [b"\x80", b"\xf0", b"\xe2\x82", b"\xf0\x9f"])
def test_text_that_never_becomes_characters_is_given_out_all_the_same_at_a_bounded_cost(junk, monkeypatch):
    data = junk * 100 + "é€".encode()
    seen = []
    plain = Bytes.decode
    monkeypatch.setattr(Bytes, "decode", lambda self, ids: seen.append(len(ids)) or plain(self, ids))
    texts, _ = run(Bytes(), data)
    silence = max(len(list(group)) for empty, group in groupby(texts, key=lambda text: not text) if empty)
    assert silence <= 8
    assert max(seen) <= 20
    assert len(seen) <= 8 * len(data)
    assert "".join(texts) == data.decode(errors="replace")


def test_a_decoder_whose_text_never_settles_is_taken_at_its_word():
    class Counter:
        def decode(self, token_ids):
            return f"{len(token_ids)}�"

    texts, _ = run(Counter(), range(30))
    assert any(texts[:-1])


def test_a_character_is_held_back_until_its_last_byte():
    assert run(Bytes(), "aé€".encode())[0] == ["a", "", "é", "", "", "€", ""]


def test_spaces_that_depend_on_the_token_before_are_kept():
    pieces = LeadingSpaces(" the", " quick", " fox")
    assert run(pieces, [0, 1, 2, 0] * 6)[0][:4] == ["the", " quick", " fox", " the"]
    assert "".join(run(pieces, [0, 1, 2, 0] * 6)[0]) == pieces.decode([0, 1, 2, 0] * 6)


def test_what_might_become_a_stop_string_is_held_back_until_it_cannot():
    assert run(Bytes(), b"ab-x--y", ["--"])[0] == ["a", "b", "", "-x", "", "", ""]
    assert run(Bytes(), b"ab-", ["--"])[0] == ["a", "b", "", "-"]


def test_a_stop_string_across_token_borders_ends_the_text_before_it():
    texts, stopped = run(
        Pieces("an answer", ". Ques", "tion: mo", "re"), [0, 1, 2, 3], ["\nEnd", "Question:"]
    )
    assert (texts, stopped) == (["an answer", ". ", "", ""], True)


def test_of_two_stop_strings_the_earlier_place_wins():
    assert run(Pieces("abcd"), [0], ["cd", "bcd"]) == (["a", ""], True)


def test_a_stop_string_beside_a_broken_character_is_found_at_the_end():
    texts, stopped = run(Pieces("hello ", "STOP�"), [0, 1], ["STOP"])
    assert (texts, stopped) == (["hello ", "", ""], True)


@given(
    st.text(alphabet="ab-", max_size=30),
    st.lists(st.text(alphabet="ab-", min_size=1, max_size=4), max_size=3),
)
def test_the_text_ends_where_searching_the_whole_would_end_it(text, stop):
    texts, stopped = run(Bytes(), text.encode(), stop)
    # The stream stops at the first token that completes a stop string, so it searches growing prefixes.
    for end in range(len(text) + 1):
        found = [at for s in stop if (at := text[:end].find(s)) >= 0]
        if found:
            assert stopped
            assert "".join(texts) == text[: min(found)]
            return
    assert not stopped
    assert "".join(texts) == text


@pytest.mark.parametrize(("stop", "says"), [([""], "empty"), (["a", ""], "empty"), ([5], "strings")])
def test_a_stop_string_that_is_none_is_refused(stop, says):
    with pytest.raises(InvalidRequestError, match=says):
        TextStream(Bytes(), stop)
