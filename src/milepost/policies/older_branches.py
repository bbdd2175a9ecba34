"""Where a request resumes that follows a prompt whose states are gone.

Prompts that share a beginning form a tree, and a request may follow any of its branches, not only the latest
one. Where nothing is held of the branch that it takes, it resumes from where that branch left the latest, as
one does that diverges there. So it counts as a use of that place.
"""

from milepost.policies.generations import is_overlap
from milepost.store import BranchPoint, InsertResult

__all__ = ["older_branch_point"]


def older_branch_point(inserted: InsertResult) -> BranchPoint | None:
    """Return the deepest branch point where a request took an older branch than the latest prompt there.

    None where a state is held of that branch, where the request followed the latest prompt all the way, and
    where all that it shares with that is the template that every prompt begins with.

    Complexity: O(nodes on the path and checkpoints on it).
    """
    depth = inserted.overlap_depth
    # Whoever came last owns the beginning of the path, so its owner changes where an older branch was taken.
    changes = set(inserted.passed.values())
    found: BranchPoint | None = None
    for node in inserted.path:
        if any(each.position <= depth and not each.is_kv_only for each in node.checkpoints):
            found = None
        point = node.branch_point
        if point is not None and point.position in changes and point.position < depth:
            found = point
    return found if found is not None and is_overlap(found.position) else None
