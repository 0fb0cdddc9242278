"""Portico's agent: beside the tool inside a studio. It restores, launches, dials out, watches, checkpoints, leaves."""

__version__ = "0.1.0"
