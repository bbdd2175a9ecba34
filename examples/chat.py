"""A conversation whose turns resume from one another, with every token accounted for.

    python examples/chat.py [MODEL]

MODEL is a folder or a hub id of a model with a chat template. Without one, it is the small trained hybrid
that comes with the package; it can only quote documents, and here there is nothing to quote. You will see

    turn 1: 0 of 563 prompt tokens reused (563 unseen, 0 after the last cut, 0 not placed)
    turn 2: 512 of ... prompt tokens reused ...
    turn 3: 512 of ... prompt tokens reused ...
    ... states are kept
"""

import sys
from collections.abc import Mapping

from milepost import Engine
from milepost.embedded import resolve_model

SYSTEM = " ".join(f"Rule {number}: answer in one short sentence." for number in range(1, 31))
QUESTIONS = (
    "What is the prefix of a prompt, and why would anybody want to keep it?",
    "And what is a recurrent state, and where does it have to be kept?",
    "Which of the two takes more memory, for a prompt as long as this one?",
)


def main() -> None:
    """Say three things, each after all that was said before."""
    model = resolve_model(sys.argv[1] if len(sys.argv) > 1 else "embedded")
    engine = Engine.open(model, capacity="64MiB")

    messages: list[Mapping[str, object]] = [{"role": "system", "content": SYSTEM}]
    for turn, question in enumerate(QUESTIONS, start=1):
        messages.append({"role": "user", "content": question})
        # Messages go through the model's own template; where they end, the policy knows.
        answer = engine.generate(messages, max_new_tokens=64)
        messages.append({"role": "assistant", "content": answer.text})
        told = answer.report
        print(
            f"turn {turn}: {told.reused:,} of {told.num_tokens:,} prompt tokens reused "
            f"({told.unseen:,} unseen, {told.alignment} after the last cut, {told.placement} not placed)"
        )
    print(engine.cache.statistics().num_checkpoints, "states are kept")


if __name__ == "__main__":
    main()
