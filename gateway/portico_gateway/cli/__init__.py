"""The command line: `up` and `doctor` for who runs Portico, the rest for who uses it (all through the API)."""
