"""Where runs are placed: one promise, several machines behind it."""
