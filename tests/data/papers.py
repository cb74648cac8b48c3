"""Data sets of papers in miniature, each written exactly in its layout."""

import itertools

import numpy as np
import pyarrow
import pyarrow.parquet
import scipy.io
from PIL import Image

from recon_search.data.celeba import ATTRIBUTES
from tests.data.files import picture

H, W = 16, 24
"""Sides of what is dense."""

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
"""Of Data_Entry_2017.csv: the commas in brackets are not quoted."""


def scene(generator, n_classes=13, far=9.0):
    """Labels of pixels: one with -1, a zero depth and a zero normal."""
    label = generator.integers(0, n_classes, (H, W)).astype(np.float32)
    depth = generator.uniform(0.01, far, (H, W, 1)).astype(np.float32)
    normal = generator.normal(size=(H, W, 3))
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    label[0, 0], depth[0, 1], normal[0, 2] = -1, 0, 0
    image = generator.random((H, W, 3)).astype(np.float32)
    return {"image": image, "label": label, "depth": depth, "normal": normal.astype(np.float32)}


def write_nyuv2(root, sizes=(6, 2)):
    """MTAN's folders; returns what they hold, by part and number."""
    written = {}
    for index, (part, n) in enumerate(zip(("train", "val"), sizes, strict=True)):
        for number in range(n):
            own = written[part, number] = scene(np.random.default_rng([index, number]))
            for folder, array in own.items():
                (root / part / folder).mkdir(parents=True, exist_ok=True)
                np.save(root / part / folder / f"{number}.npy", array)
    return written


def write_nyuv2_mirror(root, sizes=(6, 2)):
    """The same samples as the hub holds them: channels first, several files a part."""
    (root / "data").mkdir(parents=True)
    for index, (part, n) in enumerate(zip(("train", "val"), sizes, strict=True)):
        rows = []
        for number in range(n):
            own = scene(np.random.default_rng([index, number]))
            rows.append(
                {
                    "image": np.moveaxis(own["image"], 2, 0).tolist(),
                    "segmentation": own["label"].astype(np.int64).tolist(),
                    "depth": np.moveaxis(own["depth"], 2, 0).tolist(),
                    "normal": np.moveaxis(own["normal"], 2, 0).tolist(),
                    "noise": np.zeros((1, H, W)).tolist(),
                }
            )
        for shard, start in enumerate(range(0, n, 4)):
            name = f"{part}-{shard:05}-of-{-(-n // 4):05}.parquet"
            table = pyarrow.Table.from_pylist(rows[start : start + 4])
            pyarrow.parquet.write_table(table, root / "data" / name)


def write_cityscapes(root, sizes=(6, 2), label="label_7"):
    """MTAN's folders of seven classes, under a name, and of 19."""
    for index, (part, n) in enumerate(zip(("train", "val"), sizes, strict=True)):
        for number in range(n):
            generator = np.random.default_rng([index, number])
            own = scene(generator, 7, 0.49)
            arrays = {
                "image": own["image"],
                label: own["label"],
                "label_19": scene(generator, 19)["label"],
                "depth": own["depth"],
            }
            for folder, array in arrays.items():
                (root / part / folder).mkdir(parents=True, exist_ok=True)
                np.save(root / part / folder / f"{number}.npy", array)


def celeba_rows(n):
    """Answers, -1 or 1: of every attribute both in each part of four images."""
    return [[1 if (row + column) % 2 else -1 for column in range(40)] for row in range(n)]


def write_celeba(root, layout="official", n=12, size=(22, 26)):
    """Lists and images: Anno, Eval and Img; torchvision's folder; or CSV files."""
    at = {
        "official": ("Anno/", "Eval/", "Img/img_align_celeba/"),
        "torchvision": ("celeba/", "celeba/", "celeba/img_align_celeba/"),
        "csv": ("", "", "img_align_celeba/img_align_celeba/"),
    }[layout]
    for folder in at:
        (root / folder).mkdir(parents=True, exist_ok=True)
    names = [f"{number:06}.jpg" for number in range(1, n + 1)]
    parts = [("0", "0", "1", "2")[number % 4] for number in range(n)]
    for number, name in enumerate(names):
        picture(number, size=size).save(root / at[2] / name)
    rows = list(zip(names, celeba_rows(n), strict=True))
    if layout == "csv":
        lines = [",".join(["image_id", *ATTRIBUTES])]
        lines += [",".join([name, *map(str, row)]) for name, row in rows]
        (root / "list_attr_celeba.csv").write_text("\n".join(lines))
        lines = ["image_id,partition"]
        lines += [f"{name},{part}" for name, part in zip(names, parts, strict=True)]
        (root / "list_eval_partition.csv").write_text("\n".join(lines))
        return
    lines = [str(n), " ".join(ATTRIBUTES) + " "]
    for name, row in rows:
        cells = "".join(f" {answer}" if answer < 0 else f"  {answer}" for answer in row)
        lines.append(f"{name}{cells}")  # two blanks before what has no sign
    (root / at[0] / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    lines = [f"{name} {part}" for name, part in zip(names, parts, strict=True)]
    (root / at[1] / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")


FOUND = ("No Finding", "Atelectasis|Effusion", "Pleural_Thickening", "Mass|Hernia")


def write_chestxray14(root, n=16, layout="nih"):
    """The table with its broken header, the lists, and grey images; one is RGBA."""
    lines, lists = [HEADER], {"train_val_list.txt": [], "test_list.txt": []}
    for number in range(n):
        patient = number // 2 + 1
        name = f"{patient:08}_{number % 2:03}.png"
        cells = f"{name},{FOUND[number % 4]},{number % 2},{patient},58,M,PA,2682,2749,0.143,0.143,"
        lines.append(cells)
        lists["test_list.txt" if number >= n - 4 else "train_val_list.txt"].append(name)
        folder = "images" if layout == "nih" else f"images_{number % 2 + 1:03}/images"
        (root / folder).mkdir(parents=True, exist_ok=True)
        grey = picture(number, size=(32, 32), mode="L")
        if number == 1:
            grey = Image.merge("RGBA", [*[grey] * 3, Image.new("L", grey.size, 255)])
        grey.save(root / folder / name)
    (root / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")
    for name, own in lists.items():
        (root / name).write_text("\n".join(own) + "\n")


def structure(rows, names):
    """An array of Matlab's structures."""
    found = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for place, row in enumerate(rows):
        for name in names:
            found[0, place][name] = row[name]
    return found


def write_parts(path, people, shape):
    """An annotation: a list of (class number, {part: mask})."""
    objects = [
        {
            "class": "person" if number == 15 else "dog",
            "class_ind": number,
            "mask": np.any([*parts.values()], axis=0) if parts else np.ones(shape, bool),
            "parts": structure(
                [{"part_name": name, "mask": mask} for name, mask in parts.items()],
                ("part_name", "mask"),
            )
            if parts
            else np.zeros((0, 0)),
        }
        for number, parts in people
    ]
    anno = {
        "imname": path.stem,
        "objects": structure(objects, ("class", "class_ind", "mask", "parts")),
    }
    scipy.io.savemat(path, {"anno": anno})


def half(top, shape):
    """A mask of the upper or the lower half."""
    mask = np.zeros(shape, np.uint8)
    mask[: shape[0] // 2] = top
    mask[shape[0] // 2 :] = not top
    return mask


def write_pascal_context(root, sizes=(6, 2)):
    """PASCAL_MT: images of several sizes; with a person, with a dog, with nothing."""
    numbers = itertools.count(1)
    folders = ("JPEGImages", "ImageSets/Context", "semseg/VOC12", "semseg/pascal-context")
    folders += ("pascal-context/trainval", "human_parts", "normals_distill", "sal_distill")
    for folder in folders:
        (root / folder).mkdir(parents=True)
    for part, n in zip(("train", "val"), sizes, strict=True):
        names = [f"2008_{next(numbers):06}" for _ in range(n)]
        (root / "ImageSets/Context" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            number = int(name[5:])
            generator = np.random.default_rng(number)
            shape = (H + number % 3, W + number % 2)
            picture(number, size=shape[::-1]).save(root / f"JPEGImages/{name}.jpg")
            classes = Image.fromarray(generator.integers(0, 21, shape).astype(np.uint8), "P")
            classes.putpalette(list(range(256)) * 3)
            classes.putpixel((0, 0), 255)
            kind = "VOC12" if number % 2 else "pascal-context"
            classes.save(root / f"semseg/{kind}/{name}.png")
            context = np.where(half(True, shape), 72, 2).astype(np.uint16)  # chair, aeroplane
            scipy.io.savemat(root / f"pascal-context/trainval/{name}.mat", {"LabelMap": context})
            people = {
                0: [(12, {})],
                1: [(15, {"hair": half(True, shape), "luleg": half(False, shape)}), (12, {})],
                2: [],
            }[number % 3]
            write_parts(root / f"human_parts/{name}.mat", people, shape)
            normals = generator.integers(0, 256, (*shape, 3)).astype(np.uint8)
            normals[..., 2] = 255
            Image.fromarray(normals).save(root / f"normals_distill/{name}.png")
            salient = Image.fromarray(generator.integers(0, 256, (16, 24)).astype(np.uint8))
            salient.save(root / f"sal_distill/{name}.png")  # smaller than its image


WRITERS = {
    "nyuv2": write_nyuv2,
    "cityscapes": write_cityscapes,
    "celeba": write_celeba,
    "chestxray14": write_chestxray14,
    "pascal-context": write_pascal_context,
}
