"""Recommenders on MovieLens-100K, split by user and at one moment, beside what most users chose.

The data come from the wheel of recbole, which carries them; their licence forbids passing them on,
so they are fetched into a folder of the user's cache.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from recsys.catalogue import Catalogue, Item, ItemSchema
from recsys.evaluation import Evaluation, compare, per_user_split, time_split
from recsys.interactions import Interactions
from recsys.settings import TrainSettings

WHEEL = "recbole==1.2.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "evenhand"
FOLDER = "recbole/dataset_example/ml-100k/ml-100k"
LEAST_RATING = 4.0
DRAWS = 1000

SETTINGS = {
    "default": TrainSettings(),
    "EASE, λ = 100, plain": TrainSettings(kind="ease", ease_lambda=100.0, recency=0.0, trend=0.0),
    "EASE, plain": TrainSettings(kind="ease", recency=0.0, trend=0.0),
    "EASE, recent choices": TrainSettings(kind="ease", trend=0.0),
    "ALS": TrainSettings(kind="als"),
    "ALS, plain": TrainSettings(kind="als", recency=0.0, trend=0.0),
    "item-kNN": TrainSettings(kind="item_knn"),
    "popular lately": TrainSettings(kind="popularity"),
}
"""None was chosen by these figures: λ and α follow sizes, the rest was set on validation splits."""

COLUMNS = ("ndcg", "recall", "map", "hit_rate", "novelty", "diversity", "miscalibration")


def wheel() -> Path:
    """The wheel that carries the data, fetched once."""
    folder = CACHE / WHEEL
    if not list(folder.glob("*.whl")):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL]
        subprocess.run([*command, "--dest", str(folder)], check=True)
    return next(folder.glob("*.whl"))


def table(archive: zipfile.ZipFile, name: str) -> list[dict[str, str]]:
    """A file of the data; its header says "name:type"."""
    with archive.open(f"{FOLDER}.{name}") as file:
        reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8"), delimiter="\t")
        header = [field.partition(":")[0] for field in next(reader)]
        return [dict(zip(header, row, strict=True)) for row in reader]


def padded(number: str) -> str:
    """An id whose order as text is that of its number: ties in time are broken by it."""
    return number.zfill(5)


def movielens() -> tuple[Catalogue, Interactions]:
    """The films with their genres, and ratings of 4 and 5."""
    with zipfile.ZipFile(wheel()) as archive:
        films, ratings = table(archive, "item"), table(archive, "inter")
    schema = ItemSchema({"genres": "strings", "year": "string"})
    items = [
        Item(padded(f["item_id"]), {"genres": f["class"].split(), "year": f["release_year"]})
        for f in films
    ]
    interactions = Interactions.of(
        [padded(r["user_id"]) for r in ratings],
        [padded(r["item_id"]) for r in ratings],
        [int(r["timestamp"]) * 1_000_000 for r in ratings],
        values=[float(r["rating"]) for r in ratings],
    )
    catalogue = Catalogue.empty(schema).upsert(items, now=0)
    return catalogue, interactions.counted({}, LEAST_RATING)


def show(evaluations: list[Evaluation]) -> None:
    """A table of one split."""
    first = evaluations[0]
    print(f"split {first.split}: {first.users} users, lists of {first.k}")
    print(f"  {'':24}{'ndcg':>8}{'95 % interval':>18}{'coverage':>10}", end="")
    print("".join(f"{name:>16}" for name in COLUMNS[1:]))
    for each in evaluations:
        figure = each["ndcg"]
        interval = f"{figure.low:.4f} – {figure.high:.4f}"
        print(f"  {each.name:24}{figure.value:8.4f}{interval:>18}", end="")
        print(f"{each['coverage'].value:10.3f}", end="")
        print("".join(f"{each[name].value:16.4f}" for name in COLUMNS[1:]))


def main() -> None:
    """Print both tables and the processor time of making each."""
    catalogue, interactions = movielens()
    for split in (per_user_split(interactions), time_split(interactions)):
        start = time.process_time()
        show(compare(catalogue, split, SETTINGS, category="genres", draws=DRAWS))
        print(f"  {time.process_time() - start:.1f} CPU seconds, bootstraps included")


if __name__ == "__main__":
    main()
