"""What Python ships is split by name, once and for all."""

from milepost.embedded.library_text import is_held_out, library_sources, library_topics


def test_no_text_is_both_read_and_held_out():
    for texts in (library_sources, library_topics):
        read, kept = ({text.name for text in texts(held_out=held_out)} for held_out in (False, True))
        assert read
        assert kept
        assert not read & kept


def test_the_name_alone_decides_so_every_python_holds_out_the_same():
    assert [name for name in ("pathlib.py", "contextlib.py", "json/decoder.py") if is_held_out(name)] == [
        "pathlib.py",
        "contextlib.py",
    ]


def test_texts_are_prose_and_code_that_one_reads():
    sources = library_sources(held_out=True)
    assert all(len(source.text) >= 2_000 for source in sources)
    assert not [source.name for source in sources if "test" in source.name.split("/")]
    assert [source.name for source in sources] == sorted(source.name for source in sources)
