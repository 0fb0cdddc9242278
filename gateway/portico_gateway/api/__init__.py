"""The REST API: one table of routes, from which dispatch, checks and the OpenAPI document are all made."""
