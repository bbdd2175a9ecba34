"""Where a request resumes at best that follows a prompt of which nothing is held.

Prompts that share a beginning form a tree, and a request may follow any of its branches, not only the latest
one. Where nothing is held of the branch that it takes, it can resume no deeper than where that left the
latest, as one that diverges there. So it counts as a use of that branch point; and of the prompt that it
follows or the branch point where it diverges from that, which would have served it had they kept a state.
"""

from milepost.policies.generations import is_overlap
from milepost.store import BranchPoint, InsertResult

__all__ = ["older_branch_point"]


def older_branch_point(inserted: InsertResult) -> BranchPoint | None:
    """Return the deepest branch point where a request took an older branch than the latest prompt there.

    None where a state is held of that branch that it can resume from, where no later prompt has left its
    path, and where all that it shares with those is the template that every prompt begins with.

    Complexity: O(nodes on the path and checkpoints on it).
    """
    depth = inserted.overlap_depth
    # The last token is computed in any case.
    usable = min(depth, inserted.prompt.num_tokens - 1)
    # Owners along a path get older with the depth, each of one stretch. Where one ends, a later prompt than
    # all that go on has left.
    owners_end = set(inserted.passed.values())
    found: BranchPoint | None = None
    for node in inserted.path:
        if any(each.position <= usable and not each.is_kv_only for each in node.checkpoints):
            found = None
        point = node.branch_point
        if point is not None and point.position in owners_end and point.position < depth:
            found = point
    return found if found is not None and is_overlap(found.position) else None
