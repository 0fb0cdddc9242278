"""The checkpoint format, as pure encoding and decoding: bytes in, values out. Prose: `shared/CHECKPOINT.md`.

A *head* names everything one checkpoint needs. Its *layers* are trees; a layer's *segments* hold its *entries* in
*groups*, one group for (a part of) a folder. Contents lie in *blocks*, about 1 MiB raw each, compressed alone; segments
are blocks, too. Blocks lie in *packs*, the objects of the store, named by the hash of their bytes as heads are.

Everything decoded here is hostile input: each function bounds what it takes and raises `Damaged` for the rest.
"""
