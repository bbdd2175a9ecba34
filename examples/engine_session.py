"""Two questions about one document: the second resumes from a state that was kept inside the first prompt.

    python examples/engine_session.py [MODEL]

MODEL is a folder or a hub id. Without one, it is the small trained hybrid that comes with the
package, and you will see

    Who signs it?        0 of 1,114 prompt tokens reused
    When does it end?    1,024 of 1,113 prompt tokens reused
    the same as without a cache: True
"""

import sys

from milepost import Engine
from milepost.embedded import resolve_model

DOCUMENT = " ".join(f"Clause {number}: the parties agree on item {number}." for number in range(1, 67))


def main() -> None:
    """Ask, ask again, and ask an engine that has seen nothing."""
    model = resolve_model(sys.argv[1] if len(sys.argv) > 1 else "embedded")
    engine = Engine.open(model, capacity="64MiB")

    for question in ("Who signs it?", "When does it end?"):
        answer = engine.generate(f"{DOCUMENT}\n\n{question}", max_new_tokens=8)
        report = answer.report
        print(f"{question:20} {report.reused:,} of {report.num_tokens:,} prompt tokens reused")

    # The control: the same prompt where nothing can be reused. In strict numerics even the logits are equal.
    cold = engine.sibling(capacity="64MiB", policy="none").generate(
        f"{DOCUMENT}\n\nWhen does it end?", max_new_tokens=8
    )
    same = (answer.tokens, answer.prompt_logits_digest) == (cold.tokens, cold.prompt_logits_digest)
    print(f"the same as without a cache: {same}")


if __name__ == "__main__":
    main()
