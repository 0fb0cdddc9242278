"""One module a page: its handlers, and `routes(site)` that names their addresses."""
