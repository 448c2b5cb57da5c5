"""Models on disk and their versions in the database.

A model is three things that must agree: `isolation_forest_vN.joblib`, its card `isolation_forest_vN.json`, and its row
in ml.model_versions. Loading a joblib file runs code in it, so nothing is loaded before file, card and row agree.
"""

import hashlib
import io
import json
import os
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import joblib
import sklearn
from psycopg.types.json import Jsonb
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import InconsistentVersionWarning

from energy_iot import __version__
from energy_iot.errors import ModelError
from energy_iot.ml.features import Feature, features_of_card
from energy_iot.ml.versions import Card
from energy_iot.storage.postgres import Postgres

TRAIN_AGAIN: Final = "run `energy-iot train` for a new model, then `energy-iot run --rescore all` to put it into force"


@dataclass(frozen=True)
class Model:
    """A forest that may be used, and what is known about it."""

    forest: IsolationForest
    card: Card
    features: tuple[Feature, ...]
    warnings: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """Its number, rising with each training."""
        return int(self.card["model_version"])


def library_versions() -> dict[str, str]:
    """What a model was made with: a saved forest can be relied on only with the same scikit-learn."""
    return {
        "python": platform.python_version(),
        "energy-iot-pipeline": __version__,
        **{name: version(name) for name in ("scikit-learn", "numpy", "joblib")},
    }


def save_model(
    postgres: Postgres, models_dir: Path, forest: IsolationForest, make_card: Callable[[int, str, str], Card]
) -> Card:
    """Write a model under the next free version: file, card, then the row that makes it count.

    A crash in between leaves files that no row names; the next training takes a higher number.

    Args:
        postgres: Where the versions are.
        models_dir: Where the files go; made if it is not there.
        forest: The fitted forest.
        make_card: Gives the card for (model_version, model_file, sha256).

    Returns:
        The card as saved.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    joblib.dump(forest, buffer)
    content = buffer.getvalue()
    with postgres.connect() as connection:
        connection.execute("lock table ml.model_versions in exclusive mode")  # one trainer at a time; reading goes on
        row = connection.execute("select coalesce(max(model_version), 0) from ml.model_versions").fetchone()
        assert row is not None
        number = 1 + max([row[0], *_versions_on_disk(models_dir)])
        path = model_path(models_dir, number)
        card = make_card(number, path.name, hashlib.sha256(content).hexdigest())
        _write_whole(path, content)
        _write_whole(path.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())
        connection.execute(
            "insert into ml.model_versions "
            "(model_version, file_name, sha256, trained_at, training_rows, score_threshold, card) "
            "values (%s, %s, %s, %s, %s, %s, %s)",
            (
                number,
                path.name,
                card["sha256"],
                card["trained_at"],
                card["training"]["rows"],
                card["score_threshold"],
                Jsonb(card),
            ),
        )
    return card


def load_model(models_dir: Path, card: Card) -> Model:
    """Load the model that `card` (from the database) describes, having checked that it is the very same.

    Another scikit-learn release line is an error: a forest may load there and score otherwise without any sign, and
    whether new scores may replace old ones is for a person to say. Another bugfix of the same line is a warning.

    Raises:
        ModelError: File or card is missing or altered, was made with another scikit-learn, or holds other features.
    """
    path = model_path(models_dir, int(card["model_version"]))
    content = _read(path)
    _check_same_card(path.with_suffix(".json"), card)
    digest = hashlib.sha256(content).hexdigest()
    if digest != card["sha256"]:
        raise ModelError(
            f"{path} was altered: its SHA-256 is {digest}, and its card says {card['sha256']}; it was not loaded",
            fix=f"put the original file back, or {TRAIN_AGAIN}",
        )
    told = _check_library(card)
    features = features_of_card(card["features"])
    forest = _unpickle(path, content)
    if forest.n_features_in_ != len(features):
        raise ModelError(
            f"{path} takes {forest.n_features_in_} features, and its card names {len(features)}: "
            f"{', '.join(feature.name for feature in features)}",
            fix=TRAIN_AGAIN,
        )
    return Model(forest, card, features, told)


def model_path(models_dir: Path, number: int) -> Path:
    """Where version `number` is; its card is beside it with the ending .json."""
    return models_dir / f"isolation_forest_v{number}.joblib"


def _versions_on_disk(models_dir: Path) -> list[int]:
    digits = (path.stem.removeprefix("isolation_forest_v") for path in models_dir.glob("isolation_forest_v*.joblib"))
    return [int(text) for text in digits if text.isdecimal()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}), and ml.model_versions names it",
            fix=f"put the file back (it may be on the machine that trained it), or {TRAIN_AGAIN}",
        ) from error


def _check_same_card(path: Path, card: Card) -> None:
    try:
        on_disk = json.loads(_read(path))
    except ValueError:
        on_disk = None
    if on_disk != card:
        differing = sorted(
            key
            for key in {*card, *(on_disk if isinstance(on_disk, dict) else ())}
            if not isinstance(on_disk, dict) or on_disk.get(key) != card.get(key)
        )
        raise ModelError(
            f"{path} differs from ml.model_versions in {', '.join(differing)}; the model was not loaded",
            fix=f"put the original card back, or {TRAIN_AGAIN}",
        )


def _check_library(card: Card) -> tuple[str, ...]:
    made_with, here = str(card["libraries"]["scikit-learn"]), sklearn.__version__
    if made_with == here:
        return ()
    told = f"model v{card['model_version']} was made with scikit-learn {made_with}, and this is {here}"
    if made_with.split(".")[:2] != here.split(".")[:2]:
        raise ModelError(f"{told}: it might score otherwise", fix=f"{TRAIN_AGAIN}, or install scikit-learn {made_with}")
    return (f"{told}: `energy-iot train` makes a new one",)


def _unpickle(path: Path, content: bytes) -> IsolationForest:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InconsistentVersionWarning)  # told by _check_library
            forest = joblib.load(io.BytesIO(content))
    except Exception as error:  # unpickling raises whatever the missing or changed class leads to
        raise ModelError(f"{path} does not load: {type(error).__name__}: {error}", fix=TRAIN_AGAIN) from error
    if not isinstance(forest, IsolationForest):
        raise ModelError(f"{path} holds a {type(forest).__name__}, not an IsolationForest", fix=TRAIN_AGAIN)
    return forest


def _write_whole(path: Path, content: bytes) -> None:
    """Write so that the file is there whole or not at all, power cut included."""
    unfinished = path.with_name(f".{path.name}.new")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
