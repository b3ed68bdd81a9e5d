"""Samples that leave the process, for a float model that runs elsewhere: their form, and the ways out."""
