"""`python -m energy_iot` is `energy-iot`."""

from energy_iot.cli import main

main()
