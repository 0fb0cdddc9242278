"""Which extended attributes a checkpoint keeps: decided the same at capture and, for hostile heads, at restore.

Kept are those that programs of the studio can set (`user.*`, POSIX ACLs, file capabilities) and the one mark of
overlayfs that has a meaning by itself, an opaque folder. Overlayfs's other marks (origin, uuid, redirect, metacopy,
impure, nlink …) refer to files of one machine, or would let a head point its overlay anywhere.
"""

OPAQUE = b"trusted.overlay.opaque"
_EXACT = frozenset({b"system.posix_acl_access", b"system.posix_acl_default", b"security.capability"})


def is_kept(name: bytes, value: bytes, *, folder: bool, overlay: bool) -> bool:
    """Whether this attribute belongs into a checkpoint of such a root, on such an entry."""
    if name.startswith(b"user."):
        return True
    if name == OPAQUE:
        return overlay and folder and value == b"y"
    if name == b"security.capability":
        return not folder
    return name in _EXACT
