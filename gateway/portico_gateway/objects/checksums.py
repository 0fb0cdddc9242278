"""CRC-32C as S3's `x-amz-checksum-crc32c` spells it: base64 of the four bytes, big-endian."""

import base64

from crc32c import crc32c


def crc32c_base64(data: bytes) -> str:
    return spelt(crc32c(data))


def spelt(value: int) -> str:
    return base64.b64encode(value.to_bytes(4, "big")).decode()
