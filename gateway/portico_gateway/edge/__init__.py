"""The edge: every client connection, decided request by request from its own head.

A *head* is a parsed request line and its fields; a *target* is what its Host names; the *gate* says who may; an
*exchange* (see `portico_gateway.proxy`) carries one request and its response.
"""
