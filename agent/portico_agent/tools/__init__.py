"""The programs people see. A *tool* says how it is prepared, started and recognised as ready; a *site* is where it is
to do so (port, home, working folder), in the eyes of the tool's root."""
