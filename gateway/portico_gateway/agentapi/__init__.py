"""The calls agents make: who they are, what they are to do, permission for objects, and their logs.

A *run token* is given to a run once; with it the first public key becomes the run's. A *short token* is minted for that
key, again and again, for as long as the store says the run lives.
"""
