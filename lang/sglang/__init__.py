"""SGLang's frontend on top of programs: its names and calls, so that its scripts run with another import line.

Nothing here executes anything itself. A function is a Program, its state is a Run, an engine is a backend.
"""
