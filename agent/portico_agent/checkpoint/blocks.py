"""The blocks a capture knows: those of earlier checkpoints, found again by hash, and those it makes itself."""

from dataclasses import dataclass, field

import msgspec

from portico_shared.checkpoint.block import BlockRef
from portico_shared.checkpoint.entries import HOLE
from portico_shared.checkpoint.limits import PACK_TARGET

THIN = 0.4
"""A pack of whose content less than this share is still in use is not used any more: what is left is packed anew."""
SMALL = PACK_TARGET // 4
MANY_SMALL = 48
"""Small packs after which they are packed anew: one a checkpoint, so every four hours at the default interval."""


@dataclass(slots=True, eq=False)
class PackInfo:
    """A pack. `name` and `size` are known once it is sealed."""

    name: bytes = b""
    size: int = 0
    raw: int = 0
    live: int = 0
    """Raw bytes of it that the checkpoint in the making uses."""


@dataclass(slots=True, eq=False)
class Block:
    pack: PackInfo
    offset: int
    stored: int
    raw: int
    codec: int
    hash: bytes

    def ref(self) -> BlockRef:
        return BlockRef(self.pack.name, self.offset, self.stored, self.raw, self.codec, self.hash)


class PackRow(msgspec.Struct, array_like=True):
    name: bytes
    size: int
    raw: int


class BlockRow(msgspec.Struct, array_like=True):
    """A block as the index keeps it: its number, and its pack's place in the list of packs."""

    id: int
    pack: int
    offset: int
    stored: int
    raw: int
    codec: int
    hash: bytes


@dataclass(slots=True)
class BlockTable:
    """Blocks by number and by hash. A number may turn out to stand for another one (the same content), or a hole."""

    blocks: dict[int, Block] = field(default_factory=dict)
    by_hash: dict[bytes, int] = field(default_factory=dict)
    aliases: dict[int, int] = field(default_factory=dict)
    packs: list[PackInfo] = field(default_factory=list)
    next_id: int = 0

    def reserve(self) -> int:
        """A number for a block that is still in the making."""
        self.next_id += 1
        return self.next_id - 1

    def put(self, number: int, block: Block) -> None:
        self.blocks[number] = block
        self.by_hash[block.hash] = number

    def resolve(self, number: int) -> int:
        return self.aliases.get(number, number)

    def usable(self, number: int) -> bool:
        """Whether an extent of an earlier capture may still refer to it."""
        number = self.resolve(number)
        return number == HOLE or number in self.blocks

    def use(self, number: int, length: int) -> None:
        if number != HOLE:
            self.blocks[number].pack.live += length

    def used_packs(self) -> list[PackInfo]:
        return sorted((pack for pack in self.packs if pack.live), key=lambda pack: pack.name)

    def rows(self) -> tuple[list[PackRow], list[BlockRow], bool]:
        """What the next capture is to know: blocks of packs in use that are worth using again. True when others are
        in use as well."""
        used = self.used_packs()
        packs = _worth_keeping(used)
        place = {id(pack): number for number, pack in enumerate(packs)}
        rows = [
            BlockRow(number, place[id(block.pack)], block.offset, block.stored, block.raw, block.codec, block.hash)
            for number, block in self.blocks.items()
            if id(block.pack) in place
        ]
        return [PackRow(pack.name, pack.size, pack.raw) for pack in packs], rows, len(packs) < len(used)

    @classmethod
    def from_rows(
        cls, packs: list[PackRow], blocks: list[BlockRow], aliases: dict[int, int], next_id: int
    ) -> "BlockTable":
        """Raises IndexError for rows that do not fit together."""
        table = cls(packs=[PackInfo(row.name, row.size, row.raw) for row in packs], aliases=aliases, next_id=next_id)
        for row in blocks:
            table.put(row.id, Block(table.packs[row.pack], row.offset, row.stored, row.raw, row.codec, row.hash))
        return table


def _worth_keeping(packs: list[PackInfo]) -> list[PackInfo]:
    dense = [pack for pack in packs if pack.live >= THIN * pack.raw]
    small = [pack for pack in dense if pack.size < SMALL]
    return [pack for pack in dense if pack.size >= SMALL] if len(small) > MANY_SMALL else dense
