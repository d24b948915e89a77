"""The fault harness: one long-lived stack, seeded scripts of requests and faults, and an independent checker.

``make faults`` runs 200 seeds; see ``README.md`` in this folder for how to add an act, a fault, a check or a plant.
"""
