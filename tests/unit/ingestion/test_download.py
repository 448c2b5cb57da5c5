"""Downloads, from a server of our own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from energy_iot.errors import InputFileError, UsageError
from energy_iot.ingestion.download import DATASETS, download
from energy_iot.reporting.progress import Advance, Progress

CONTENT = bytes(range(256)) * 9000


class Handler(BaseHTTPRequestHandler):
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("authorization")))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("location", "/good")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        if self.path == "/absent":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unannounced":
            self.send_header("content-length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/truncated" else CONTENT)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        pass


@pytest.fixture
def asked() -> list[tuple[str, str | None]]:
    return []


@pytest.fixture
def site(asked: list[tuple[str, str | None]]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (Handler,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Counting(Progress):
    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Advance]:
        self.total = total

        def advance(amount: int) -> None:
            self.done += amount

        yield advance


@pytest.mark.parametrize("page", ["good", "unannounced", "moved"])
def test_a_good_download_is_whole_and_under_its_name(tmp_path: Path, site: str, page: str) -> None:
    progress = Counting()
    path = download("uci", tmp_path / "data", f"{site}/{page}", progress)
    assert path == tmp_path / "data" / "household_power_consumption.zip"
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert progress.done == len(CONTENT)
    assert progress.total == (None if page == "unannounced" else len(CONTENT))


def test_what_is_there_is_kept(tmp_path: Path, site: str, asked: list[tuple[str, str | None]]) -> None:
    download("uci", tmp_path, f"{site}/good")
    download("uci", tmp_path, f"{site}/absent")
    assert asked == [("/good", None)]


@pytest.mark.parametrize(
    ("page", "reason"),
    [("absent", r"127\.0\.0\.1 answered 404 Not Found"), ("truncated", "peer closed connection|bytes")],
)
def test_a_failed_download_leaves_nothing_and_says_how_to_do_it(
    tmp_path: Path, site: str, asked: list[tuple[str, str | None]], page: str, reason: str
) -> None:
    with pytest.raises(InputFileError, match=reason) as caught:
        download("uci", tmp_path, f"{site}/{page}")
    assert "archive.ics.uci.edu/dataset/235" in caught.value.fix
    assert list(tmp_path.iterdir()) == []
    assert len(asked) == 1, "it was tried again without a word"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "nonsense", "http://", "ftp://127.0.0.1/x"])
def test_an_unreachable_server_is_an_error_for_people(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputFileError, match=r"'uci' could not be downloaded: .+"):
        download("uci", tmp_path, url)


def test_a_folder_that_cannot_be_made_is_an_error_for_people(tmp_path: Path, site: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputFileError, match="could not be downloaded"):
        download("uci", tmp_path / "file", f"{site}/good")


def test_kaggle_needs_an_account_and_gets_it(tmp_path: Path, site: str, asked: list[tuple[str, str | None]]) -> None:
    with pytest.raises(InputFileError, match="no account") as caught:
        download("kaggle", tmp_path, f"{site}/good", kaggle_username="me")
    assert "ENERGY_IOT_KAGGLE_USERNAME" in caught.value.fix
    assert DATASETS["kaggle"].page in caught.value.fix
    path = download("kaggle", tmp_path, f"{site}/good", kaggle_username="me", kaggle_key="s3cret")
    assert path.name == "smart_meter_data.zip"
    assert asked == [("/good", "Basic bWU6czNjcmV0")]


def test_an_unknown_data_set_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        download("ucl", tmp_path)
    assert "uci, kaggle" in caught.value.fix
