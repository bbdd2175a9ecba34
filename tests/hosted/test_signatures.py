"""A method that is not as it was is named, before anything is overridden."""

import json

from milepost.hosted.signatures import changed_signature


class Engine:
    def serve(self, request, *, most=1):
        """Serve."""

    limit = 5


def test_first_arguments_are_what_counts():
    assert changed_signature([(Engine, "serve", ("self", "request"))]) is None
    assert changed_signature([(Engine, "serve", ("self", "request", "most"))]) is None


def test_what_is_missing_or_renamed_is_named():
    assert changed_signature([(Engine, "serve", ("self", "prompt"))]) == (
        "serve(self, request, most) in Engine, where (self, prompt) is needed"
    )
    assert changed_signature([(Engine, "stop", ("self",))]) == "no stop in Engine, where (self) is needed"
    assert changed_signature([(Engine, "limit", ("self",))]) == "no limit in Engine, where (self) is needed"
    assert changed_signature([(json, "parse", ("text",))]) == "no parse in json, where (text) is needed"
