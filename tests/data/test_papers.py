"""Readers of papers' data sets: what each reads of its layout, and what it refuses."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from recon_search.data.celeba import ATTRIBUTES
from recon_search.data.chestxray14 import FINDINGS
from recon_search.data.pascal_context import read_target
from recon_search.data.registry import find_source
from recon_search.data.source import PARTS
from recon_search.errors import DataError, ReconSearchError
from recon_search.recipe import parse_recipe
from recon_search.tasks.metrics import IGNORED
from tests.data import papers
from tests.data.papers import H, W

REST = {
    "backbone": {"name": "resnet18"},
    "train": {"epochs": 1, "batch_size": 4, "lr": 0.1},
    "probe": {"epochs": 1},
}


def source(name, root, tables=None, /, **settings):
    if name == "pascal-context":
        settings = {"image_size": [H, W], "resize": "stretch", **settings}
    raw = {"data": {"name": name, "root": str(root), **settings}, "tasks": tables or {}, **REST}
    recipe = parse_recipe(raw)
    return find_source(recipe.data, recipe.tasks)


def read(found, part):
    """All samples of a part: inputs and targets."""
    ((batch,),) = found.open(torch.device("cpu")).steps(part, 100)
    return batch.inputs, batch.targets


class PaperContract:
    """What each reader obeys; sizes are of train, validation and test."""

    NAME: str
    SIZES: tuple[int, int, int]
    SHAPE = (3, H, W)
    TASKS: tuple[str, ...]
    METRICS: tuple[str, ...]

    @classmethod
    def write(cls, root):
        papers.WRITERS[cls.NAME](root)

    @pytest.fixture(scope="class")
    @classmethod
    def root(cls, tmp_path_factory):
        root = tmp_path_factory.mktemp("tree")
        cls.write(root)
        return root

    @pytest.fixture(scope="class")
    @classmethod
    def found(cls, root):
        return source(cls.NAME, root)

    def test_its_tasks_are_those_of_papers(self, found):
        assert found.schema.names == self.TASKS
        assert tuple({name: 1 for task in found.schema.tasks for name in task.metrics}) == (
            self.METRICS
        )

    def test_every_sample_is_in_one_part(self, found):
        feed = found.open(torch.device("cpu"))
        assert tuple(feed.lengths(part)[0] for part in PARTS) == self.SIZES
        rows = [row.numpy().tobytes() for part in PARTS for row in read(found, part)[0]]
        assert len(set(rows)) == sum(self.SIZES)

    def test_inputs_have_one_shape_and_range(self, found):
        for part in PARTS:
            inputs, targets = read(found, part)
            assert found.schema.shape == tuple(inputs.shape[1:]) == self.SHAPE
            most = 1 if inputs.is_floating_point() else 255
            assert 0 <= inputs.min() < 0.2 * most < 0.8 * most < inputs.max() <= most
            assert targets.keys() == set(self.TASKS)

    def test_it_is_known_by_what_its_files_hold(self, root, found, tmp_path):
        copy = shutil.copytree(root, tmp_path / "elsewhere")
        assert source(self.NAME, copy).schema.fingerprint == found.schema.fingerprint
        assert source(self.NAME, copy, seed=5).schema.fingerprint == found.schema.fingerprint

    def test_a_recipe_chooses_tasks_and_their_options(self, root):
        first, last = self.TASKS[0], self.TASKS[-1]
        tasks = {"*": {"weight": 3.0}, last: {"weight": 2.0}}
        found = source(self.NAME, root, tasks, tasks=[last, first]).schema.tasks
        assert [(task.name, task.weight) for task in found] == [(first, 3.0), (last, 2.0)]

    def test_missing_files_are_told_with_where_people_get_them(self, root, tmp_path):
        for place, message in (
            (tmp_path / "nowhere", "`data.root` must be a folder, found none at"),
            (tmp_path, rf"'{self.NAME}' data need .*, found none in {tmp_path} \(looked for"),
        ):
            with pytest.raises(DataError, match=message) as caught:
                source(self.NAME, place)
            assert "\n" not in str(caught.value)
            assert re.search(r"(Download|Get) .* --data-root\.$", str(caught.value))

    @pytest.mark.parametrize(
        ("tasks", "settings", "message"),
        [
            ({"what": {}}, {}, "`tasks.what` must be a task of the data, which has"),
            ({"*": {"head": {"kind": "mlp"}}}, {}, r"`tasks.\*.head` cannot be chosen"),
            ({}, {"tasks": ["what"]}, "`data.tasks` must name tasks of the data, which has"),
            ({}, {"canvas": 24}, "`data.canvas` is of no use"),
            ({}, {"group": "x"}, "`data.group` is for table and parquet data"),
        ],
    )
    def test_a_recipe_that_does_not_fit_is_one_line(self, root, tasks, settings, message):
        with pytest.raises(ReconSearchError, match=message) as caught:
            source(self.NAME, root, tasks, **settings)
        assert "\n" not in str(caught.value)

    def test_what_is_the_data_sets_own_cannot_be_chosen(self, root):
        first, last = self.TASKS[0], self.TASKS[-1]
        with pytest.raises(ReconSearchError, match=f"`tasks.{first}.kind` cannot be chosen"):
            source(self.NAME, root, {first: {"kind": "values"}})
        with pytest.raises(ReconSearchError, match=rf"`tasks.{last}` must be among `data.tasks`"):
            source(self.NAME, root, {last: {"weight": 2}}, tasks=[first])

    def test_only_what_is_public_is_downloaded(self, root):
        if self.NAME != "celeba":
            with pytest.raises(DataError, match=r"`data.download` must be false"):
                source(self.NAME, root, download=True)


class OfArrays(PaperContract):
    """NYUv2 and CityScapes: arrays of one size, each with a pixel that is not valid."""

    SIZES = (5, 1, 2)

    def test_pixels_that_are_not_valid_are_masked_and_others_are_not(self, found):
        for part in PARTS:
            _, targets = read(found, part)
            n = len(targets["depth"])
            for name, target in targets.items():
                task = {task.name: task for task in found.schema.tasks}[name]
                assert int(task.n_labels(target)) == n * (H * W - 1)
            assert (targets["segmentation"][:, 0, 0] == IGNORED).all()
            assert targets["depth"][:, 0, 1].isnan().all()
            if "normals" in targets:
                length = targets["normals"].norm(dim=1)
                assert (length[:, 0, 2] == 0).all()
                torch.testing.assert_close(length.sum(), torch.tensor(n * (H * W - 1.0)))


class TestNYUv2(OfArrays):
    NAME = "nyuv2"
    TASKS = ("segmentation", "depth", "normals")
    METRICS = (
        *("miou", "pixel-accuracy", "abs-error", "rel-error", "mean-angle", "median-angle"),
        *("within-11.25", "within-22.5", "within-30"),
    )

    def test_val_is_the_test_part_and_values_are_those_of_files(self, root, found):
        inputs, targets = read(found, "test")
        stored = np.stack([np.load(root / f"val/image/{n}.npy") for n in range(2)])
        np.testing.assert_array_equal(inputs, np.moveaxis(stored, 3, 1))
        stored = np.stack([np.load(root / f"val/depth/{n}.npy") for n in range(2)])[..., 0]
        np.testing.assert_array_equal(targets["depth"].nan_to_num(0), stored)
        assert found.schema.tasks[0].class_names[11] == "wall"


class TestNYUv2Mirror(TestNYUv2):
    @classmethod
    def write(cls, root):
        papers.write_nyuv2_mirror(root)

    def test_val_is_the_test_part_and_values_are_those_of_files(self, found, tmp_path):
        """And validation the same samples as of the folders."""
        papers.write_nyuv2(tmp_path)
        other = source("nyuv2", tmp_path)
        for part in PARTS:
            (mine, targets), (theirs, expected) = read(found, part), read(other, part)
            assert torch.equal(mine, theirs)
            for name, target in targets.items():
                torch.testing.assert_close(target, expected[name], equal_nan=True)

    def test_a_row_that_is_of_no_use_is_named(self, tmp_path):
        import pyarrow
        import pyarrow.parquet as parquet

        self.write(tmp_path)
        path = next((tmp_path / "data").glob("train-00000*"))
        rows = parquet.read_table(path).to_pylist()
        rows[1]["segmentation"][3][2] = 13
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        with pytest.raises(DataError, match=rf"{path.name} row 2: Task 'segm.*found 13") as caught:
            read(source("nyuv2", tmp_path), "train")
        assert "\n" not in str(caught.value)
        del rows[0]["depth"]
        parquet.write_table(pyarrow.Table.from_pylist([{"image": 0}]), path)
        with pytest.raises(DataError, match=f"{path.name} must have the column 'segmentation'"):
            source("nyuv2", tmp_path)


class TestCityScapes(OfArrays):
    NAME = "cityscapes"
    TASKS = ("segmentation", "depth")
    METRICS = ("miou", "pixel-accuracy", "abs-error", "rel-error")

    def test_labels_are_found_under_either_name_and_19_classes_by_theirs(self, found, tmp_path):
        assert found.schema.tasks[0].class_names[6] == "vehicle"
        papers.write_cityscapes(tmp_path, label="label")
        other = source("cityscapes", tmp_path)
        assert torch.equal(
            read(other, "test")[1]["segmentation"], read(found, "test")[1]["segmentation"]
        )
        many = source("cityscapes", tmp_path, {"segmentation": {"target": "label_19"}})
        assert many.schema.tasks[0].class_names[18] == "bicycle"
        assert 7 < read(many, "train")[1]["segmentation"].max() <= 18
        with pytest.raises(DataError, match="'cityscapes' data need train/label_8, found none"):
            source("cityscapes", tmp_path, {"segmentation": {"target": "label_8"}})

    @pytest.mark.parametrize(
        ("file", "array", "message"),
        [
            ("label_7/1.npy", np.full((H, W), 7), "0 to 6, found 7"),
            ("depth/1.npy", b"\x93NUMPY", "does not load"),
            ("depth/1.npy", None, "must hold a counterpart of every file, found none of"),
        ],
    )
    def test_a_file_that_is_of_no_use_is_named(self, tmp_path, file, array, message):
        papers.write_cityscapes(tmp_path)
        path = tmp_path / "val" / file
        if array is None:
            path.unlink()
        elif isinstance(array, bytes):
            path.write_bytes(array)
        else:
            np.save(path, array)
        with pytest.raises(DataError, match=message) as caught:
            read(source("cityscapes", tmp_path), "test")
        assert str(path.parent) in str(caught.value)
        assert "1.npy" in str(caught.value)
        assert "\n" not in str(caught.value)


class TestCelebA(PaperContract):
    NAME = "celeba"
    SIZES = (6, 3, 3)
    SHAPE = (3, 26, 22)
    TASKS = ATTRIBUTES
    METRICS = ("error",)

    @pytest.mark.parametrize("layout", ["official", "torchvision", "csv"])
    def test_answers_and_parts_are_those_of_the_lists(self, tmp_path, layout):
        papers.write_celeba(tmp_path, layout)
        found = source("celeba", tmp_path)
        answers = np.array(papers.celeba_rows(12)) > 0
        for part, rows in (("train", [0, 1, 4, 5, 8, 9]), ("validation", [2, 6, 10])):
            _, targets = read(found, part)
            stacked = torch.stack([targets[name] for name in ATTRIBUTES], 1)
            np.testing.assert_array_equal(stacked, answers[rows])
        assert found.schema.complete == set(ATTRIBUTES)

    @pytest.mark.parametrize(
        ("file", "old", "new", "message"),
        [
            (
                "Anno/list_attr_celeba.txt",
                "000003.jpg -1",
                "000003.jpg 2",
                "attr_celeba.txt row 5",
            ),
            (
                "Anno/list_attr_celeba.txt",
                "000003.jpg -1",
                "000003.jpg",
                "row 5: a row must have 41",
            ),
            ("Anno/list_attr_celeba.txt", "12\n5_o", "13\n5_o", "found '13' and 12 rows"),
            ("Anno/list_attr_celeba.txt", " Young", " Old", "row 2: must name .* called Young"),
            ("Eval/list_eval_partition.txt", "000003.jpg 1", "000003.jpg 4", "000003.jpg, found 4"),
            ("Eval/list_eval_partition.txt", "000003.jpg 1\n", "", "000003.jpg, found None"),
            (
                "Eval/list_eval_partition.txt",
                "000003.jpg 1",
                "000003.jpg 1\n000003.jpg 0",
                r"partition.txt row 4: .* one row, 000003.jpg has .*partition.txt row 3",
            ),
            (
                "Anno/list_attr_celeba.txt",
                "\n000003.jpg",
                "\n000002.jpg",
                r"attr_celeba.txt row 5: .* one row, 000002.jpg has .*celeba.txt row 4",
            ),
        ],
    )
    def test_a_list_that_is_of_no_use_is_named_with_its_row(
        self, tmp_path, file, old, new, message
    ):
        papers.write_celeba(tmp_path)
        text = (tmp_path / file).read_text()
        assert text.count(old) == 1
        (tmp_path / file).write_text(text.replace(old, new))
        with pytest.raises(DataError, match=message) as caught:
            source("celeba", tmp_path)
        assert "\n" not in str(caught.value)

    def test_lists_that_other_tools_saved_say_the_same(self, tmp_path):
        """With a mark of UTF-8, and of tables the answers as fractions."""
        papers.write_celeba(tmp_path, "csv")
        before = read(source("celeba", tmp_path), "train")[1]
        path = tmp_path / "list_attr_celeba.csv"
        path.write_text(re.sub(r",(-?1)", r",\1.0 ", path.read_text()), encoding="utf-8-sig")
        after = read(source("celeba", tmp_path), "train")[1]
        assert all(torch.equal(before[name], after[name]) for name in ATTRIBUTES)
        path.write_text(path.read_text(encoding="utf-8-sig").replace("3.jpg,-1.0", "3.jpg,"))
        with pytest.raises(DataError, match=r"csv row 4 .*5_o_Clock_Shadow must be -1 or 1, found"):
            source("celeba", tmp_path)

    def test_an_image_that_is_none_is_named_with_its_row(self, tmp_path):
        papers.write_celeba(tmp_path)
        path = tmp_path / "Img/img_align_celeba/000003.jpg"
        content = path.read_bytes()
        path.write_bytes(b"not an image")
        with pytest.raises(DataError, match=r"celeba.txt row 5 \(.*000003.jpg\): .*an image"):
            source("celeba", tmp_path)
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=r"celeba.txt row 5 .*image, it does not (open|decode)"):
            read(source("celeba", tmp_path), "validation")
        path.unlink()
        with pytest.raises(DataError, match=r"row 5: an image must exist, found none at .*000003"):
            source("celeba", tmp_path)

    def test_a_download_that_fails_is_one_line(self, tmp_path, monkeypatch):
        import torchvision

        def fail(root, download):
            raise RuntimeError("no network\nat all")

        monkeypatch.setattr(torchvision.datasets, "CelebA", fail)
        with pytest.raises(
            DataError, match=r"Downloading CelebA into .* no network at all"
        ) as caught:
            source("celeba", tmp_path, download=True)
        assert "\n" not in str(caught.value)


class TestChestXray14(PaperContract):
    NAME = "chestxray14"
    SIZES = (10, 2, 4)
    SHAPE = (3, 32, 32)
    TASKS = FINDINGS
    METRICS = ("auroc",)

    def test_findings_are_those_of_the_table_in_either_layout(self, found, tmp_path):
        papers.write_chestxray14(tmp_path, layout="kaggle")
        for data in (found, source("chestxray14", tmp_path)):
            inputs, targets = read(data, "test")  # No Finding, two, one, two
            shown = {name: own.tolist() for name, own in targets.items() if own.any()}
            assert shown == {
                "Atelectasis": [0, 1, 0, 0],
                "Effusion": [0, 1, 0, 0],
                "Mass": [0, 0, 0, 1],
                "Pleural_Thickening": [0, 0, 1, 0],
                "Hernia": [0, 0, 0, 1],
            }
            assert torch.equal(inputs[:, 0], inputs[:, 2])

    def test_no_patient_stands_in_two_parts(self, found):
        patients = [
            {Path(found.data.name(part, row)).name[:8] for row in range(n)}
            for part, n in zip(PARTS, self.SIZES, strict=True)
        ]
        assert [len(own) for own in patients] == [n // 2 for n in self.SIZES]
        assert not set.union(*(a & b for a in patients for b in patients if a is not b))

    def test_rgba_is_read_as_grey(self, root):
        for channels in (1, 3):
            found = source("chestxray14", root, channels=channels)
            every = torch.cat([read(found, part)[0] for part in PARTS])
            with Image.open(root / "images/00000001_001.png") as picture:
                assert picture.mode == "RGBA"
                grey = torch.from_numpy(np.array(picture)[..., 0])
            assert every.shape[1] == channels
            assert (every == grey).all(dim=(1, 2, 3)).sum() == 1

    @pytest.mark.parametrize(
        ("file", "old", "new", "message"),
        [
            ("Data_Entry_2017.csv", "Atelectasis|Effusion,1,1,", "Atelectasis|Efusion,1,1,",
             r"2017.csv row 3 .*found 'Efusion'. Did you mean 'Effusion'"),
            ("Data_Entry_2017.csv", "Patient ID", "Patient", "must have the column 'Patient ID'"),
            ("Data_Entry_2017.csv", "00000002_000.png,", "00000099_000.png,",
             "train_val_list.txt row 3: an image must have a row"),
            ("Data_Entry_2017.csv", "No Finding,0,1,", "No Finding|Mass,0,1,", "findings or none"),
            ("test_list.txt", "00000008_001.png\n", "", "00000008_001.png is in none"),
            ("test_list.txt", "00000008_001.png", "00000001_000.png", "has two"),
        ],
    )  # fmt: skip
    def test_a_list_that_is_of_no_use_is_named_with_its_row(
        self, tmp_path, file, old, new, message
    ):
        papers.write_chestxray14(tmp_path)
        text = (tmp_path / file).read_text()
        assert text.count(old) == 1
        (tmp_path / file).write_text(text.replace(old, new))
        with pytest.raises(DataError, match=message):
            source("chestxray14", tmp_path)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (r",\n(?=\d|$)", "\n"),
            (r",2682.*", ""),
            (r"(OriginalImage\S+?\]),(\S+?\]),", r'"\1","\2"'),
            (r"^", "\ufeff"),
        ],
    )
    def test_the_broken_header_may_have_any_rows(self, found, tmp_path, old, new):
        """Without the last comma, without sizes, with the brackets quoted, with a mark of UTF-8."""
        papers.write_chestxray14(tmp_path)
        for name in ("Data_Entry_2017.csv", "test_list.txt"):
            path = tmp_path / name
            path.write_text(re.sub(old, new, path.read_text()))
        other = source("chestxray14", tmp_path)
        assert all(
            torch.equal(own, read(found, "test")[1][name])
            for name, own in read(other, "test")[1].items()
        )

    @pytest.mark.parametrize(
        ("patient", "message"),
        [("", "row 16: .* group in column 'Patient ID'"), ("1.0", "group '1' must stand in one")],
    )
    def test_patients_are_known_however_they_are_written(self, tmp_path, patient, message):
        papers.write_chestxray14(tmp_path)
        path = tmp_path / "Data_Entry_2017.csv"
        path.write_text(path.read_text().replace(",8,58", f",{patient},58"))
        with pytest.raises(DataError, match=message):
            source("chestxray14", tmp_path)

    def test_a_missing_or_damaged_image_is_named(self, tmp_path):
        papers.write_chestxray14(tmp_path)
        path = tmp_path / "images/00000008_001.png"
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(
            DataError, match=r"2017.csv row 17 .*image, it does not (open|decode)"
        ) as caught:
            read(source("chestxray14", tmp_path), "test")
        assert "\n" not in str(caught.value)
        path.unlink()
        with pytest.raises(DataError, match=r"row 17: an image must exist, found no 00000008_001"):
            source("chestxray14", tmp_path)


class TestPascalContext(PaperContract):
    NAME = "pascal-context"
    SIZES = (5, 1, 2)
    TASKS = ("semseg", "parts", "saliency", "normals", "edge")
    METRICS = (
        *("miou", "pixel-accuracy", "best-jaccard", "mean-angle", "median-angle", "within-11.25"),
        *("within-22.5", "within-30", "best-f1"),
    )

    def test_labels_are_made_of_their_files(self, root):
        name = "2008_000001"
        parts = read_target("parts", root / f"human_parts/{name}.mat")
        assert np.unique(parts[:8]).tolist() == [1]
        assert np.unique(parts[-8:]).tolist() == [5]
        normals = read_target("normals", root / f"normals_distill/{name}.png")
        assert normals[: len(normals) // 2].any(-1).all(), "of a chair, which NYUv2 has"
        assert not normals[len(normals) // 2 :].any(), "of an aeroplane"
        edge = read_target("edge", root / f"pascal-context/trainval/{name}.mat")
        assert edge.sum(0).max() == 1, "one pixel wide"
        assert edge[:, 2:-2].sum(0).min() == 1

    def test_an_image_without_a_person_has_no_label_of_parts(self, found):
        every = {
            Path(found.data.name(part, row)).stem: target
            for part in PARTS
            for row, target in enumerate(read(found, part)[1]["parts"])
        }
        for name, target in every.items():
            assert (target == IGNORED).all() == (int(name[5:]) % 3 != 1)

    @pytest.mark.parametrize(
        ("file", "damage", "message"),
        [
            ("human_parts/2008_000007.mat", lambda p: p.write_bytes(b"x" * 200), "does not load"),
            ("human_parts/2008_000007.mat", lambda p: scipy.io.savemat(p, {"anno": 3}), "in anno"),
            ("human_parts/2008_000007.mat", lambda p: scipy.io.savemat(p, {"b": 3}), "with anno"),
            ("pascal-context/trainval/2008_000007.mat",
             lambda p: scipy.io.savemat(p, {"LabelMap": "x"}), "a class a pixel in LabelMap"),
            ("pascal-context/trainval/2008_000007.mat",
             lambda p: scipy.io.savemat(p, {"LabelMap": np.full((H, W), np.nan)}), "class a pixel"),
            ("normals_distill/2008_000007.png",
             lambda p: Image.fromarray(np.ones((H, W), np.uint8)).save(p), "three numbers a pixel"),
            ("sal_distill/2008_000007.png", lambda p: p.write_bytes(b""), "does not load"),
        ],
    )  # fmt: skip
    def test_a_file_that_is_of_no_use_is_named(self, tmp_path, file, damage, message):
        papers.write_pascal_context(tmp_path)
        damage(tmp_path / file)
        with pytest.raises(DataError, match=message) as caught:
            source("pascal-context", tmp_path)
        assert str(tmp_path / file) in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(("part", "row"), [("train", 7), ("val", 3)])
    def test_an_image_is_listed_once(self, tmp_path, part, row):
        papers.write_pascal_context(tmp_path)
        path = tmp_path / f"ImageSets/Context/{part}.txt"
        path.write_text(path.read_text() + "2008_000001\n")
        with pytest.raises(DataError, match=rf"{part}.txt row {row}: .* is in train.txt row 1"):
            source("pascal-context", tmp_path)

    def test_a_file_that_is_missing_is_named_with_its_row(self, tmp_path):
        papers.write_pascal_context(tmp_path)
        (tmp_path / "semseg/VOC12/2008_000003.png").unlink()
        with pytest.raises(
            DataError, match=r"train.txt row 3: .*VOC12.* and .*pascal-context/2008"
        ):
            source("pascal-context", tmp_path)
