"""`recon-search predict`: what a finished model says of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recon_search.cli.options import FILE, FOLDER, choose_device, device_option, tell, tell_json


@click.command()
@click.argument("model", type=FOLDER)
@click.argument("images", nargs=-1, required=True)
@click.option("--out", type=FILE, default="predictions.csv", show_default=True,
              help="File to write: .csv, .jsonl or .parquet.")  # fmt: skip
@click.option("--column", default="file", show_default=True, help="Of a table: its paths.")
@click.option("--root", type=FOLDER, help="Of a table's paths [default: the table's folder].")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--probabilities", is_flag=True, help="A column for every class.")
@click.option("--skip-unreadable", is_flag=True, help="Leave out what is no image, and go on.")
@click.option("--grid", type=FILE, help="Picture of the first images with what is said of them.")
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def predict(
    model: Path,
    images: tuple[str, ...],
    out: Path,
    column: str,
    root: Path | None,
    batch_size: int,
    probabilities: bool,
    skip_unreadable: bool,
    grid: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Ask a model directory about images, and write a table.

    IMAGES are files, folders, patterns in quotes, or tables with a column of paths. They are made
    ready as in training. The table has a column `file`, one for each task, in its own units and
    class names, and behind it probabilities.

    Example: recon-search predict runs/mine/model 'photos/**/*.jpg' --out found.csv --grid found.png
    """
    from recon_search.data.gallery import Picture, find_pictures
    from recon_search.errors import DataError, ReconSearchError
    from recon_search.stages.predict import Predictor
    from recon_search.views.counting import counting
    from recon_search.views.grid import IMAGES, SIDE, lines_of, prediction_grid
    from recon_search.views.plots import save_figure
    from recon_search.views.rows import check_ending, rows_file

    check_ending(out)
    if grid is not None and grid.suffix not in (".png", ".svg"):
        raise ReconSearchError(f"--grid must end in .png or .svg, got '{grid}'. Change the ending.")
    predictor = Predictor.load(model, choose_device(device), every=probabilities)
    pictures = find_pictures(images, column=column, root=root)
    skipped: list[str] = []

    def skip(picture: Picture, error: DataError) -> None:
        skipped.append(picture.name)
        click.echo(f"skipped: {error}", err=True)

    shown: list[Any] = []
    done = 0
    with counting("predict", "images") as tell_count, rows_file(out) as write:
        batches = predictor.predict(pictures, batch_size, skip if skip_unreadable else None)
        for read, columns in batches:
            write(columns)
            done += len(read)
            tell_count(done + len(skipped), len(pictures))
            for row, picture in enumerate(read[: IMAGES - len(shown) if grid else 0]):
                lines = lines_of(columns, row, predictor.tasks)
                shown.append((_thumbnail(picture.path, SIDE), lines))
        if not done:
            raise DataError(f"IMAGES must hold one image at least, none of {len(pictures)} is one.")
    if grid is not None:
        save_figure(prediction_grid(shown), grid)
    if as_json:
        written = {"out": str(out), "images": done, "skipped": skipped, "grid": grid and str(grid)}
        tell_json(written)
        return
    tell(f"Written: {out}, {done:,} images" + f", {len(skipped):,} skipped" * bool(skipped))
    if grid is not None:
        tell(f"Written: {grid}")


def _thumbnail(path: Path, side: int) -> Any:
    from recon_search.data.pictures import read_picture

    picture = read_picture(path, str(path), 3)
    picture.thumbnail((side, side))
    return picture
