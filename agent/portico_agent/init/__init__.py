"""portico-init: the first process of a studio. Standard library only, no network, nothing that can be slow for long.

It *reaps* whatever is orphaned, owns the *tool* (its output, its exit code, its mount namespace), starts the *agent*
and starts it again when it dies, and keeps the run's *secrets* (key seed, run token) in memory for each agent.
An agent talks to it over the *channel*, JSON lines on a Unix socket; it may die at any moment and its successor finds
the tool running.
"""
