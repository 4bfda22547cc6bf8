"""A Karabo device between a detector and whatever follows: it feeds phasewatch and publishes.

`device` is the Karabo side; `frames`, `results` and `alarms` are what it decides with, `chain` is
how it reaches the chain. It knows the protocol, and neither torch nor pyFAI.
"""

__version__ = "0.1.0"
