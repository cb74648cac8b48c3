"""Office-Home and Office-31: layouts, lists, the cut, and faults named by file and line."""

from collections import Counter

import pytest
import torch

from recon_search.data.office import OFFICES
from recon_search.data.registry import find_source
from recon_search.data.source import PARTS
from recon_search.errors import DataError, RecipeError
from recon_search.recipe import DataConfig, TaskConfig
from tests.data.benchmarks import write_office
from tests.data.files import write_image

PUBLISHED = {
    "office-home": (4, 65, "Calendar", "Trash_Can"),
    "office-31": (3, 31, "back_pack", "punchers"),
}


def source(root, name="office-home", tasks=None, **settings):
    config = DataConfig(name=name, root=str(root), image_size=(8, 8), **settings)
    return find_source(config, tasks)


def labels(found):
    """By part and task, the labels of all samples in order."""
    return {
        part: {
            task: [int(samples.targets(row)[task]) for row in lane.rows]
            for lane, task in zip(found.data.lanes(part), found.schema.names, strict=True)
        }
        for part, samples in found.data.parts.items()
    }


@pytest.mark.parametrize("name", OFFICES)
def test_the_classes_are_those_of_the_lists_that_papers_use(name):
    n_domains, n_classes, first, last = PUBLISHED[name]
    office = OFFICES[name]
    assert (len(office.domains), len(set(office.classes))) == (n_domains, n_classes)
    assert (office.classes[0], office.classes[-1]) == (first, last)


@pytest.mark.parametrize("name", OFFICES)
def test_lists_say_which_image_is_in_which_part(name, tmp_path):
    write_office(tmp_path, name)
    found = source(tmp_path, name)
    schema = found.schema
    assert schema.names == tuple(OFFICES[name].domains)
    assert schema.apart
    assert schema.complete == set(schema.names)
    assert [task.n_outputs for task in schema.tasks] == [len(OFFICES[name].classes)] * len(
        schema.names
    )
    first, second = labels(found)["train"], labels(found)["test"]
    for number, task in enumerate(schema.names):
        n = 1 + number % 2
        assert first[task] == [0] * 4 * n + [1] * 4 * n + [2] * 4 * n
        assert second[task] == [0] * n + [1] * n + [2] * n
    step = next(iter(found.open(torch.device("cpu")).steps("train", 4, (0, 0))))
    assert [batch.inputs.shape for batch in step] == [(4, 3, 8, 8)] * len(schema.names)


@pytest.mark.parametrize("spelt", [{}, {"Real_World": "Real World"}])
@pytest.mark.parametrize("inner", ["", "office-home"])
def test_a_domain_is_spelt_in_two_ways_and_the_set_may_have_a_folder_of_its_own(
    spelt, inner, tmp_path
):
    write_office(tmp_path / inner, spelt=spelt)
    assert source(tmp_path).schema.names == ("Art", "Clipart", "Product", "Real_World")


def test_lists_may_lie_elsewhere_and_must_then_be_there(tmp_path):
    write_office(tmp_path / "set")
    (tmp_path / "set/data_txt/office-home").rename(tmp_path / "lists")
    found = source(tmp_path / "set", file=str(tmp_path / "lists"))
    assert len(found.data.parts["test"]) == 18
    (tmp_path / "lists/Product_val.txt").unlink()
    with pytest.raises(
        DataError, match=r"needs the list file Product_val.txt .* found 11 of 12 in"
    ):
        source(tmp_path / "set", file=str(tmp_path / "lists"))


def test_without_lists_each_class_of_each_domain_is_cut_and_the_seed_says_how(tmp_path):
    write_office(tmp_path, "office-31", classes=31, lists=False, size=(8, 8))
    found, again, other = (source(tmp_path, "office-31", seed=seed) for seed in (0, 0, 1))
    assert labels(found) == labels(again)
    names = [[s.data.name("test", row) for row in range(9)] for s in (found, again, other)]
    assert names[0] == names[1] != names[2]
    sizes = {part: Counter() for part in PARTS}
    for part, by_task in labels(found).items():
        for task, own in by_task.items():
            sizes[part][task] = len(own)
            if task == "amazon" and part == "train":
                assert set(Counter(own).values()) <= {3, 4}
    total = sum(sum(own.values()) for own in sizes.values())
    assert total == 31 * (6 + 12 + 6)
    shares = [sum(sizes[part].values()) / total for part in PARTS]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.01)


def spoil(root, line, number=1, domain="Art"):
    """Replace a line of a list."""
    path = root / f"data_txt/office-home/{domain}_train.txt"
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Art/Calendar/00000.jpg 7", r"^Art_train.txt line 2: class .* number 0, found '7'"),
        ("Art/Calender/00000.jpg 0", r"line 2: a class must be one of .* Did you mean 'Calendar'"),
        ("Art/Calendar/9.jpg 0", r"line 2: an image must exist, found none at .*Calendar/9.jpg"),
        ("Clipart/Calendar/00000.jpg 0", r"line 2: a line must be Art/CLASS/FILE NUMBER, found"),
        ("Art/Calendar", "line 2: a line must be"),
        ("Art/../Art/Calendar/00000.jpg 0", "line 2: a line must be"),
        ("Art/Calendar/00000.jpg 0", r"listed once, found it in Art_train.txt line 1 "),
    ],
)  # fmt: skip
def test_a_line_that_is_of_no_use_is_named(line, message, tmp_path):
    write_office(tmp_path)
    spoil(tmp_path, line, 2)
    with pytest.raises(DataError, match=message):
        source(tmp_path)


@pytest.mark.parametrize("between", ["  ", "\t"])
def test_what_parts_path_and_number_may_be_any_blank(between, tmp_path):
    write_office(tmp_path)
    before = source(tmp_path).schema.fingerprint
    for path in (tmp_path / "data_txt").rglob("*.txt"):
        path.write_text(path.read_text().replace(" ", between), encoding="utf-8-sig")
    assert source(tmp_path).schema.fingerprint == before


def test_an_image_that_does_not_decode_is_named_by_file_and_line(tmp_path):
    write_office(tmp_path)
    path = tmp_path / "Clipart/Calendar/00001.jpg"
    content = path.read_bytes()
    path.write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"^Clipart_train.txt line 2 .*00001.jpg\): the file must be"
    ):
        source(tmp_path)
    path.write_bytes(content[:-60])
    with pytest.raises(DataError, match=r"Clipart_train.txt line 2 .*00001.jpg\).* whole image"):
        source(tmp_path)


def test_what_is_missing_is_said_with_where_it_was_looked_for_and_where_people_get_it(tmp_path):
    with pytest.raises(
        DataError, match=r"found none of them in .* nor in .*office-home.*hemanthdv"
    ):
        source(tmp_path)
    write_office(tmp_path, lists=False)
    with pytest.raises(
        DataError, match=r"Art must hold a folder for each of 65 .* for File_Cabinet"
    ):
        source(tmp_path)
    write_office(tmp_path)
    (tmp_path / "Product").rename(tmp_path / "product")
    with pytest.raises(DataError, match=r"needs the folder Product, found none in"):
        source(tmp_path)


def test_a_folder_that_is_no_class_is_named(tmp_path):
    write_office(tmp_path, "office-31", classes=31, lists=False, size=(8, 8))
    write_image(tmp_path / "dslr/images/mugs/1.jpg")
    with pytest.raises(DataError, match=r"dslr/images/mugs: a class .* found 'mugs'. Did you mean"):
        source(tmp_path, "office-31")


def test_options_of_tasks_may_be_changed_and_what_is_known_not(tmp_path):
    write_office(tmp_path)
    found = source(tmp_path, tasks={"Art": TaskConfig(weight=0.5)})
    assert [task.weight for task in found.schema.tasks] == [0.5, 1.0, 1.0, 1.0]
    with pytest.raises(RecipeError, match=r"`tasks.Art.kind` is known"):
        source(tmp_path, tasks={"Art": TaskConfig(kind="binary")})
    with pytest.raises(RecipeError, match=r"`tasks.art` must be a task of the data"):
        source(tmp_path, tasks={"art": TaskConfig()})


def test_the_fingerprint_is_of_contents_and_parts(tmp_path):
    write_office(tmp_path / "a")
    write_office(tmp_path / "b", spelt={"Real_World": "Real World"})
    first = source(tmp_path / "a").schema.fingerprint
    assert first == source(tmp_path / "b").schema.fingerprint
    write_image(tmp_path / "b/Art/Calendar/00000.jpg", 77, size=(16, 14))
    assert first != source(tmp_path / "b").schema.fingerprint
