"""Images and other parts that are no text are counted and said, and can count as tokens."""

import pytest

from milepost.errors import ConfigurationError

TEXT = {"type": "text", "text": "what is it"}
IMAGES = {
    "OpenAI": lambda data: {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
    "an address": lambda data: {"type": "image_url", "image_url": {"url": f"http://x/{data}.png"}},
    "Responses": lambda data: {"type": "input_image", "image_url": f"data:image/png;base64,{data}"},
    "Anthropic": lambda data: {"type": "image", "source": {"type": "base64", "data": data}},
}


def asking(*parts):
    return {"messages": [{"role": "user", "content": [*parts, TEXT]}]}


@pytest.mark.parametrize("dialect", IMAGES)
def test_images_are_counted_and_said(log, dialect):
    image = IMAGES[dialect]
    trace = log(asking(image("a"), image("b")), asking(TEXT), asking(image("a")))
    list(trace)
    assert (dict(trace.facts.media), trace.facts.num_requests_with_media) == ({"image": 3}, 2)
    (note,) = trace.facts.notes()
    assert note.startswith("2 requests with 3 images: their tokens are not counted")
    assert "--image-tokens" in note


@pytest.mark.parametrize("dialect", IMAGES)
def test_an_image_can_count_as_tokens_the_same_for_the_same_image_and_for_no_other(log, dialect):
    image = IMAGES[dialect]
    lines = [asking(image("a")), asking(image("a")), asking(image("b")), asking(TEXT)]
    first, same, other, without = log(*lines, image_tokens=100)
    assert first.keys.tolist() == same.keys.tolist()
    ours, theirs = first.keys.tolist(), other.keys.tolist()
    shared = next(index for index, (one, two) in enumerate(zip(ours, theirs, strict=True)) if one != two)
    # Nothing of another image is the same, and all around it is.
    assert not set(ours[shared : shared + 100]) & set(theirs[shared : shared + 100])
    assert ours[:shared] + ours[shared + 100 :] == theirs[:shared] + theirs[shared + 100 :]
    assert without.num_tokens - len(TEXT["text"]) == first.num_tokens - 100
    assert min(ours[shared : shared + 100]) > 2**32


def test_breakpoints_move_with_the_tokens_of_images(log):
    messages = [
        {"role": "user", "content": [IMAGES["OpenAI"]("a"), TEXT]},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "why"},
    ]
    (short,) = log({"messages": messages}, image_tokens=1)
    (long,) = log({"messages": messages}, image_tokens=500)
    assert [position + 499 for position in short.breakpoints] == list(long.breakpoints)
    assert len(long.breakpoints) == 3


def test_the_summary_says_what_an_image_counts_as(log):
    trace = log(asking(IMAGES["OpenAI"]("a")), image_tokens=64)
    list(trace)
    assert trace.facts.notes() == [
        "1 request with 1 image: an image counts as 64 tokens, anything else as a short placeholder"
    ]


def test_sound_files_and_images_of_other_clients_are_counted_too(log):
    lines = [
        asking({"type": "input_audio", "input_audio": {"data": "a"}}),
        asking({"type": "video_url", "video_url": {"url": "u"}}),
        asking({"type": "file", "file": {"file_data": "d"}}, {"type": "document", "source": {"data": "d"}}),
        {"messages": [{"role": "user", "content": "what", "images": ["aGk=", "eW8="]}]},
        {"contents": [{"parts": [{"inlineData": {"data": "a"}}, {"text": "what"}]}]},
        asking({"type": "surprise"}),
    ]
    trace = log(*lines)
    list(trace)
    assert dict(trace.facts.media) == {"audio": 1, "video": 1, "file": 3, "image": 2, "other": 1}
    assert trace.facts.num_requests_with_media == 6


@pytest.mark.parametrize("image_tokens", [0, -5])
def test_an_image_counts_as_at_least_one_token(log, image_tokens):
    with pytest.raises(ConfigurationError, match=f"image_tokens={image_tokens}"):
        log(asking(TEXT), image_tokens=image_tokens)
