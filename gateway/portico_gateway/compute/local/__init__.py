"""Runs on this machine. `open_local` finds out what the machine allows and returns the environment.

A *launcher* boots a run and is gone; *confinement* says how runs are kept apart; a *link* is a run's wire to the
internet; the *mask* is what hides this machine's secrets; a *volume* holds a studio's own changes between runs.
"""
