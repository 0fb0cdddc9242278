"""The root that the tool lives in.

The *image root* is what the sandbox started with and nobody changes. The *volume* holds the studio's own changes
(`current/upper`, or `current/home` and `current/workspace` in folders mode). The *tool's root* is both together,
mounted in a mount namespace of its own. `root` and `syscalls` need the standard library alone, for portico-init builds
roots.
"""
