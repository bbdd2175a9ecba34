"""``python -m milepost.lm_eval``: the harness's command line, which knows the model ``milepost`` too."""

import sys

from milepost.errors import MilepostError, MissingExtraError

__all__ = ["main"]


def main() -> None:
    """Run the harness on ``sys.argv``, and say on standard error what was saved."""
    try:
        from milepost.lm_eval.model import MilepostLM
        from milepost.lm_eval.registration import register
    except MissingExtraError as error:
        sys.exit(f"Error: {type(error).__name__}: {error}")
    from lm_eval.__main__ import cli_evaluate

    opened: list[MilepostLM] = []
    register(on_open=opened.append)
    try:
        cli_evaluate()
    except MilepostError as error:
        sys.exit(f"Error: {type(error).__name__}: {error}")
    for model in opened:
        print(model.savings.text, file=sys.stderr)


if __name__ == "__main__":
    main()
