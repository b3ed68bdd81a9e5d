"""Where a runtime is patched, and how its inputs, outputs and metadata are read: one module for each runtime.

Only these modules know a runtime, and none imports one before the application has.
"""
