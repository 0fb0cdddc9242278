"""What people see in a browser: pages rendered here, live by server-sent events, whole without scripts.

page        a document of the management host, rendered for one visitor
fragment    the part of a page that changes; asked for again when an event says so, and morphed into place
studio page what Portico says on a studio's own host while its tool does not answer (starting, stopped, failed)
door        a promise this package needs from another one, stated narrowly in `doors`
"""
