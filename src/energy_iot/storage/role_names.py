"""The roles of a database on a server; apart from what makes them, so that naming one loads nothing."""

from typing import Final

LOADER: Final = "energy_loader"
TRANSFORMER: Final = "energy_transformer"
READER: Final = "energy_reader"
