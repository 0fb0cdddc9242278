"""Checkpoints of a studio: made from one moment of its volume, brought back exactly.

A *job* is one capture or one restore. It runs in a child process of the agent that ends when the job does
(`engine.run_capture`, `engine.run_restore` start it): whatever a big tree costs in memory goes away with it, and
killing it costs nothing but the job. The *index* remembers what the last capture saw, so that the next one reads only
what changed. The format of what is stored is `shared/CHECKPOINT.md`.
"""
