"""One answer for a fleet: what the samples of all hosts say together, judged in one place.

Workers write what they have evaluated into one SQLite file, as sketches by service, host and model. One of them, who
holds the lease, gives them to the streams, and reports where in the fleet something has changed. See docs/fleet.md.
"""
