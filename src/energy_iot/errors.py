"""The error tree: what is wrong, what to do next, and the exit code it becomes.

Exit codes of the command line: 0 done, 1 anything else, 2 usage, 3 input, 4 data quality, 5 storage, 6 model.
"""


class EnergyIoTError(Exception):
    """Base class; `problem` and `fix` are for a person to read."""

    exit_code = 1

    def __init__(self, problem: str, *, fix: str) -> None:
        self.problem, self.fix = problem, fix
        super().__init__(f"{problem}\n  fix: {fix}")


class UsageError(EnergyIoTError):
    """The command or a setting does not make sense."""

    exit_code = 2


class InputFileError(EnergyIoTError):
    """A file, or its description, cannot be used; nothing of it was loaded."""

    exit_code = 3


class UnknownFormatError(InputFileError):
    """No source mapping fits the file's header."""


class DataQualityError(EnergyIoTError):
    """Great Expectations found a critical fault in the data; later steps did not run."""

    exit_code = 4


class StorageError(EnergyIoTError):
    """PostgreSQL or ClickHouse cannot be started, reached, or disagree; state is as before the step."""

    exit_code = 5


class StoreUnavailableError(StorageError):
    """A store cannot be reached, refuses connections, or went away: trying again may help."""


class HomeInUseError(StorageError):
    """Another command is writing to the same database; nothing was done."""


class ModelError(EnergyIoTError):
    """A model file is missing, altered, or does not fit the features."""

    exit_code = 6


class TransformationError(EnergyIoTError):
    """A dbt command failed."""

    exit_code = 1
