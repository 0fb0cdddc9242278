"""How large things may be. Readers refuse what is larger; writers stay below the first figure of each pair."""

BLOCK_TARGET = 1024 * 1024
MAX_BLOCK = 4 * 1024 * 1024
"""Raw bytes of a block. A whole one is held in memory by every worker, so it bounds what a hostile pack can cost."""

PACK_TARGET = 16 * 1024 * 1024
MAX_PACK = 72 * 1024 * 1024
"""Stored bytes. With four in flight a capture holds 64 MiB; larger packs gain nothing on S3 but fewer requests."""

SEGMENT_TARGET = 256 * 1024
MAX_SEGMENT = 4 * 1024 * 1024
"""Raw bytes of a segment; it is a block. Small ones make a small change cheap, large ones make fewer of them."""

MAX_HEAD = 16 * 1024 * 1024
MAX_PACKS = 100_000
MAX_SEGMENTS = 200_000
MAX_LAYERS = 16
MAX_ENTRIES = 20_000_000
MAX_GROUP = 16_384
"""Entries of one group; a larger folder has several."""

MAX_NAME = 255
MAX_PATH = 64 * 1024
"""Bytes of a path inside a layer: sixteen times what one system call takes, for deep trees walked step by step."""
MAX_TARGET = 4095
MAX_XATTRS = 256
MAX_XATTR_VALUE = 65_536
MAX_EXTENTS = 8192
"""Extents of one entry; a larger file goes on in entries of kind MORE."""
MAX_FILE = 1 << 60

ZSTD_WINDOW = 8 * 1024 * 1024
"""The largest zstd window a reader grants: memory a stream can claim before its first byte is out."""
