"""Studios: what one is (values), how its status may change (transitions), what can be done with it (lifecycle), and
the catalogue of its checkpoints."""
