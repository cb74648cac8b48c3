"""`recon-search predict`: what a finished model says of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recon_search.cli.options import (
    FILE,
    FOLDER,
    check_picture,
    choose_device,
    device_option,
    tell,
    tell_json,
)

if TYPE_CHECKING:
    from recon_search.stages.predict import MapSize, Predictor


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
@click.option("--maps", type=FOLDER, help="Folder for what is said of every pixel: PNG of classes, "
              "NPY of numbers [default: --out without its ending].")  # fmt: skip
@click.option("--map-size", type=click.Choice(["network", "image"]), default="network",
              show_default=True, help="As the network saw images, or brought back to each: classes "
              "from the nearest pixel, numbers bilinearly, unknown if not seen.")  # fmt: skip
@click.option("--paint", is_flag=True, help="Beside each map of numbers, a PNG to look at.")
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
    maps: Path | None,
    map_size: MapSize,
    paint: bool,
    grid: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Ask a model directory about images, and write a table.

    IMAGES are files, folders, patterns in quotes, or tables with a column of paths. They are made
    ready as in training. The table has a column `file`, one for each task, in its own units and
    class names, and behind it probabilities. Of a task of pixels it holds the path of a map, as
    seen from the table's folder: a PNG whose values are classes (the largest one: unknown), or a
    NPY of depths, directions or probabilities (nan: unknown).

    Example: recon-search predict runs/mine/model 'photos/**/*.jpg' --out found.csv --grid found.png
    """
    from recon_search.data.gallery import Picture, find_pictures
    from recon_search.data.pictures import read_picture
    from recon_search.disk import refuse_same
    from recon_search.errors import DataError, ReconSearchError
    from recon_search.stages.predict import Predictor
    from recon_search.views.counting import counting
    from recon_search.views.grid import lines_of, n_shown, prediction_grid, with_maps
    from recon_search.views.map_files import map_files
    from recon_search.views.plots import save_figure
    from recon_search.views.rows import check_ending, rows_file

    check_ending(out)
    if grid is not None:
        check_picture(grid, "--grid")
    predictor = Predictor.load(model, choose_device(device), every=probabilities, map_size=map_size)
    if not predictor.dense and (maps is not None or paint or map_size != "network"):
        raise ReconSearchError(
            "--maps, --map-size and --paint are for tasks of pixels, of which the model has none. "
            "Leave them out."
        )
    pictures = find_pictures(images, column=column, root=root)
    given = [*map(Path, images), *(picture.path for picture in pictures)]
    refuse_same(out, "--out", given)
    if grid is not None:
        refuse_same(grid, "--grid", given)
    folder = out.with_suffix("") if maps is None else maps
    if predictor.dense and folder.is_file():
        raise ReconSearchError(f"--maps must be a folder, got the file {folder}. Name another.")
    skipped: list[str] = []

    def skip(picture: Picture, error: DataError) -> None:
        skipped.append(picture.name)
        click.echo(f"skipped: {error}", err=True)

    shown: list[Any] = []
    done, n_maps = 0, len(predictor.dense)
    with (
        counting("predict", "images") as tell_count,
        rows_file(out) as write,
        map_files(folder, pictures, is_painted=paint) as files,
    ):
        batches = predictor.predict(pictures, batch_size, skip if skip_unreadable else None)
        for read, columns in batches:
            for row, picture in enumerate(read[: n_shown(n_maps) - len(shown) if grid else 0]):
                lines = lines_of(columns, row, predictor.tasks)
                seen = predictor.seen(read_picture(picture.path, picture.name, 3))
                shown.append((with_maps(seen, columns, row, predictor.dense), lines))
            for task in predictor.dense:
                paths = files.write(task, read, columns[task.name])
                columns[task.name] = [_from(out.parent, path) for path in paths]
            write(columns)
            done += len(read)
            tell_count(done + len(skipped), len(pictures))
        if not done:
            raise DataError(f"IMAGES must hold one image at least, none of {len(pictures)} is one.")
        if grid is not None:
            save_figure(prediction_grid(shown, [task.name for task in predictor.dense]), grid)
    if as_json:
        written: dict[str, Any] = {"out": str(out), "images": done, "skipped": skipped}
        written |= {"grid": grid and str(grid), **({"maps": str(folder)} if n_maps else {})}
        tell_json(written)
        return
    tell(f"Written: {out}, {done:,} images" + f", {len(skipped):,} skipped" * bool(skipped))
    if n_maps:
        tell(f"Written: {folder}, {n_maps * done:,} maps {_size_of(predictor)}")
    if grid is not None:
        tell(f"Written: {grid}")


def _size_of(predictor: Predictor) -> str:
    """Say how large maps are, and what of the images they show."""
    preparation = predictor.preparation
    height, width = preparation.size
    is_cut = preparation.resize == "crop"
    if predictor.map_size == "network":
        how = "whose middle they show" if is_cut else "stretched"
        return f"of {height} x {width}, the network's size, not the images', {how}; see --map-size"
    return "of the images' sizes" + ", unknown outside the middle that the network saw" * is_cut


def _from(folder: Path, path: Path) -> str:
    """Return a path as seen from a folder that it lies in, else whole."""
    path, folder = path.absolute(), folder.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
