"""Fetch the two public data sets: to a .part file, renamed when it is complete."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from energy_iot.errors import InputFileError, UsageError
from energy_iot.reporting.progress import Progress

BLOCK_BYTES: Final = 2**20
TIMEOUT_SECONDS: Final = 60


@dataclass(frozen=True)
class Dataset:
    """A public data set: where it is, as which file it is kept, and how a person fetches it by hand."""

    url: str
    file_name: str
    page: str
    needs_account: bool = False

    def by_hand(self, folder: Path) -> str:
        """The steps without this program."""
        account = ", sign in" if self.needs_account else ""
        return f"by hand: open {self.page}{account}, download the archive and save it as {folder / self.file_name}"


DATASETS: Final[Mapping[str, Dataset]] = {
    "uci": Dataset(
        url="https://archive.ics.uci.edu/static/public/235/individual+household+electric+power+consumption.zip",
        file_name="household_power_consumption.zip",
        page="https://archive.ics.uci.edu/dataset/235/individual+household+electric+power+consumption",
    ),
    "kaggle": Dataset(
        url="https://www.kaggle.com/api/v1/datasets/download/ziya07/smart-meter-electricity-consumption-dataset",
        file_name="smart_meter_data.zip",
        page="https://www.kaggle.com/datasets/ziya07/smart-meter-electricity-consumption-dataset",
        needs_account=True,
    ),
}


def download(
    name: str,
    destination: Path,
    url: str | None = None,
    progress: Progress | None = None,
    *,
    kaggle_username: str | None = None,
    kaggle_key: str | None = None,
) -> Path:
    """Download a data set into a folder; a file that is there already is kept.

    Args:
        name: `uci` or `kaggle`.
        destination: Folder to put it in; made when it does not exist.
        url: Another address than the published one, such as a mirror.
        progress: Told the bytes as they come.
        kaggle_username: Account for Kaggle's API.
        kaggle_key: API token of that account.

    Returns:
        The file.

    Raises:
        UsageError: There is no such data set.
        InputFileError: No account given, the server refuses or cannot be reached, or sends less than it announced; the
            fix says how to do it by hand. No half file is left behind.
    """
    if name not in DATASETS:
        raise UsageError(f"no data set '{name}'", fix=f"choose one of: {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    target = destination / dataset.file_name
    if target.exists():
        return target
    if dataset.needs_account and not (kaggle_username and kaggle_key):
        raise InputFileError(
            "Kaggle gives its files to accounts only, and no account is set",
            fix="set ENERGY_IOT_KAGGLE_USERNAME and ENERGY_IOT_KAGGLE_KEY (kaggle.com, Settings, API, Create New "
            "Token); or " + dataset.by_hand(destination),
        )
    account = (kaggle_username, kaggle_key) if kaggle_username and kaggle_key and dataset.needs_account else None
    part = target.with_name(target.name + ".part")
    try:
        destination.mkdir(parents=True, exist_ok=True)
        _fetch(url or dataset.url, part, account, progress or Progress())
        part.rename(target)
    except httpx.HTTPStatusError as error:
        reason = f"{error.request.url.host} answered {error.response.status_code} {error.response.reason_phrase}"
        raise _failed(name, reason, dataset, destination) from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise _failed(name, str(error) or type(error).__name__, dataset, destination) from error
    finally:
        with suppress(OSError):  # there is none when the folder could not be made
            part.unlink(missing_ok=True)
    return target


def _fetch(url: str, part: Path, account: tuple[str, str] | None, progress: Progress) -> None:
    with (
        httpx.stream("GET", url, auth=account, follow_redirects=True, timeout=TIMEOUT_SECONDS) as response,
        part.open("wb") as file,
    ):
        response.raise_for_status()
        announced = response.headers.get("content-length")
        total = int(announced) if announced and announced.isdigit() else None
        with progress.task(f"downloading {response.url.host}", total, unit="bytes") as advance:
            for block in response.iter_raw(BLOCK_BYTES):  # as announced: not decoded
                file.write(block)
                advance(len(block))
        if total is not None and file.tell() != total:
            raise httpx.RemoteProtocolError(f"{file.tell():,} of {total:,} bytes came")


def _failed(name: str, reason: str, dataset: Dataset, destination: Path) -> InputFileError:
    return InputFileError(
        f"the data set '{name}' could not be downloaded: {reason}",
        fix="try again later; or " + dataset.by_hand(destination),
    )
