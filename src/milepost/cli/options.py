"""Options that several commands share."""

from typing import Annotated

import typer

__all__ = ["POLICIES_HELP", "Json", "ModelArgument"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Folder or hub id of a causal LM, or 'embedded' for a small one built on the spot.",
    ),
]
POLICIES_HELP = "Placement policy, once for each to compare; the first is the reference. "
