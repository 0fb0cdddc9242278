"""The control road's gateway end: an embedded MQTT broker and control's own client of it.

Agents reach the broker through the edge, which checks their credential first; the *door* checks it again, packet by
packet, because a broker believes a great deal of what a CONNECT says. *Policy* says who may use which topic. The
*bus* is control's client: messages up as checked structs, commands down with their answers awaited.
"""
