"""The float model beside the quantized one: run on what was sampled, in a process of its own and at low priority.

A reference costs more than the model that it is compared with. In the application's process it would take the
interpreter's lock and the cores at the application's own priority; a process can be made to yield to it.
"""
