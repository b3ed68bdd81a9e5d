"""The runtimes, a folder for each: where it is patched, and how its inputs, outputs and metadata are read.

`registry` lists them. Only these modules know a runtime, and none imports one before the application has.
"""
