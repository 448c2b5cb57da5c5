"""Random numbers: a stream of its own for each process, so that one never shifts another."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Independent random streams; a new process takes a new number and leaves the others as they were."""

    WEATHER = 0
    LOAD_SHEDDING = 1
    CUSTOMERS = 2
    LOADS = 3
    VOLTAGE = 4
    ARRIVALS = 5
    ANOMALIES = 6
    FEEDER_FAULTS = 7
    DISTRICT = 8
    TRANSFORMERS = 9
    TRANSFORMER_FAULTS = 10
    CIRCUMSTANCES = 11
    GAINS = 12
    CLOCKS = 13
    DEATHS = 14
    REGISTRY = 15
    THEFT = 16
    THIEVES = 17
    TAPS = 18
    TAP_LOADS = 19
    TRANSFORMER_METERS = 20
    FEEDER_METERS = 21


def random(seed: int, *stream: int) -> np.random.Generator:
    """Generator of one stream: a child of the seed's sequence, the same whatever else is drawn."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))
