"""``milepost policies``."""

import json

from milepost.cli.options import Json

__all__ = ["policies"]


def policies(as_json: Json = False) -> None:
    """List the placement policies and how they are written.

    Try: `milepost policies`, then `milepost simulate synthetic:chat --policy balanced:4 --policy learned ...`
    """
    from milepost.policies import describe_policies

    described = describe_policies()
    if as_json:
        print(json.dumps(dict(described)))
        return
    width = max(len(notation) for notation, _ in described)
    for notation, summary in described:
        print(f"{notation:{width}}  {summary}")
