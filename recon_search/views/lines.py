"""Progress in a line: of a training, of a stage, of a trial; as much of it as there is room for."""

from __future__ import annotations

from collections.abc import Mapping

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from recon_search.disk import in_one_line
from recon_search.training.loop import Progress
from recon_search.training.stopping import Record

FEW = 3
"""So many tasks are shown with their losses; of more the highest and the lowest."""

LEAST_NAME, TASKS, BAR = 12, 28, 12
"""Columns."""


def duration(seconds: float) -> str:
    """Say how long: to the second below a minute, to the minute below a day."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def short(text: str, width: int) -> str:
    """A name in so many columns at most, its middle left out: names differ at either end."""
    text = in_one_line(text)
    if cell_len(text) <= width:
        return text
    tail = min(8, width // 3)
    end = text
    while cell_len(end) > tail:
        end = end[1:]
    return set_cell_size(text, width - 1 - cell_len(end)) + "…" + end


def describe_losses(losses: Mapping[str, float], width: int) -> str:
    """Losses by task in so many columns; of many the highest and the lowest, or the former alone.

    "" where nothing fits, or where there are not two.
    """
    if len(losses) < 2:
        return ""
    ordered = sorted(losses, key=lambda task: -losses[task])
    highest, lowest = {ordered[0]: "highest "}, {ordered[-1]: "lowest "}
    for chosen in (dict.fromkeys(losses, ""), highest | lowest, highest):
        if len(chosen) > FEW:
            continue
        for longest in (24, 12, 8):
            text = ", ".join(
                f"{word}{short(task, longest)} {number(losses[task])}"
                for task, word in chosen.items()
            )
            if cell_len(text) <= width:
                return text
    return ""


def number(value: float) -> str:
    """A loss with three digits, or four from a thousand on."""
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}" if value else "0"
    return f"{value:.{2 if abs(value) >= 1 else 3}f}" if abs(value) < 1000 else f"{value:,.0f}"


def bar(share: float, width: int, *, plain: bool = False) -> Text:
    """A bar, a share of which is done."""
    done = round(max(0.0, min(1.0, share)) * width)
    full, rest = ("#", "-") if plain else ("━", "━")
    return Text.assemble((full * done, "cyan"), (rest * (width - done), "bright_black"))


def training_line(
    name: str,
    progress: Progress,
    left: float | None,
    width: int,
    *,
    name_width: int = 28,
    with_tasks: bool = True,
    plain: bool = False,
) -> Text:
    """Where one training stands, in `width` columns at most.

    Epoch and loss are shown in any case; time left, speed, the tasks' losses and a bar in that
    order as far as there is room.

    Args:
        name: of the training.
        progress: where it stands.
        left: seconds; None where that is not known yet.
        width: columns of the terminal.
        name_width: columns of the name; equal ones stand under each other.
        with_tasks: leave room for the tasks' losses; all lines that stand under each other agree.
        plain: ASCII alone.
    """
    of = str(progress.n_epochs)
    epoch = f"epoch {progress.epoch:>{len(of)}}/{of}"
    loss = f"loss {number(progress.loss):>6}"
    columns: dict[str, Text | str] = {"epoch": epoch, "loss": loss}
    name_width = max(LEAST_NAME, min(name_width, width - len(epoch) - len(loss) - 4))
    room = width - name_width - len(epoch) - len(loss) - 4
    speed, rest, more = progress.images_per_second, "", ""
    if progress.step >= progress.n_steps:
        rest = "evaluates"
    elif left is not None:
        rest, more = duration(left), " left"
    if room >= 18 + 18 + 2:
        optional = {
            "left": f"{rest + more:>16}",
            "speed": f"{speed:>7,.0f} images/s",
        }
    else:
        optional = {
            "left": f"{rest:>11}",
            "speed": f"{speed:>6,.0f} img/s",
        }
    for key, text in optional.items():
        if room >= len(text) + 2:
            columns[key] = text
            room -= len(text) + 2
    if room >= BAR + 2 + with_tasks * (TASKS + 2):
        columns["bar"] = bar(progress.step / max(1, progress.n_steps), BAR, plain=plain)
        room -= BAR + 2
    if tasks := describe_losses(progress.losses, room - 2):
        columns["tasks"] = set_cell_size(tasks, min(room - 2, 2 * TASKS))
    line = Text(set_cell_size(short(name, name_width), name_width), no_wrap=True)
    styles = {"epoch": "dim", "tasks": "dim", "speed": "dim"}
    for key in ("epoch", "bar", "loss", "tasks", "speed", "left"):
        found = columns.get(key, "")
        if len(found):
            own = found if isinstance(found, Text) else Text(found, style=styles.get(key, ""))
            line.append("  ").append_text(own)
    return line


def total_line(
    title: str,
    done: int,
    total: int,
    unit: str,
    share: float,
    left: float | None,
    width: int,
    *,
    plain: bool = False,
) -> Text:
    """How much of the whole is done, in `width` columns at most."""
    numbers = f"  {done}/{total} {unit}"
    percent = 100 if done >= total else min(99, int(100 * share))
    end = f"  {percent:3} %" + (f"  about {duration(left)} left" if left else "")
    line = Text(short(title, max(LEAST_NAME, width // 3)), style="bold", no_wrap=True)
    line.append(numbers, style="not bold")
    room = min(40, width - line.cell_len - len(end) - 2)
    if room >= 4:
        line.append("  ").append_text(bar(share, room, plain=plain))
    if line.cell_len + len(end) <= width:
        line.append(end, style="not bold")
    return line


def epoch_line(title: str, name: str, record: Record, n_epochs: int) -> str:
    """A finished epoch, in words: its losses and its time."""
    losses = dict(record["train"])
    mean = sum(losses.values()) / len(losses) if losses else float("nan")
    tasks = describe_losses(losses, 200)
    of = f"/{n_epochs}" if n_epochs else ""
    detail = f" ({tasks})" if tasks else ""
    return (
        f"{title}: {in_one_line(name)}, epoch {record['epoch']}{of}: training loss {number(mean)}"
        f"{detail}, {record['seconds']:.1f} s"
    )
