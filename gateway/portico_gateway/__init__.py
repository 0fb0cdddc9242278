"""Portico's gateway: edge workers that proxy, and one control application that decides."""

__version__ = "0.1.0"
