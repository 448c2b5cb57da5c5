"""Energy IoT Pipeline: smart-meter readings to answers."""

__version__ = "0.1.0"
