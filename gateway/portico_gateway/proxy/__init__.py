"""One request and its response, or one WebSocket, between a client and an upstream connection.

An *upstream* is a source of byte connections (a studio's tunnel, control's Unix socket); an *exchange* owns one such
connection until the response has ended exactly, then gives it back.
"""
