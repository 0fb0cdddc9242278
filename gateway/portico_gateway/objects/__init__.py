"""Where checkpoints lie: an *object store* keeps write-once *objects* under *keys* like `l0…f/packs/<blake3>`.

Agents move the bytes themselves, by *grants*: requests that are signed here, bound to one object, and good for
minutes. `open_store` picks the store that the settings name.
"""
