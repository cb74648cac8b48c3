"""Samples that are kept to look at."""

import tomllib

import pytest
import torch

from recon_search import artefact
from recon_search.errors import ArtefactError
from recon_search.model.network import build_model
from recon_search.recipe import parse_recipe
from recon_search.runs.run import Run
from recon_search.stages.examples import (
    MAPS,
    load_examples,
    make_examples,
    save_examples,
    show_examples,
)
from recon_search.training.evaluation import evaluate
from recon_search.views.report.showing import show
from tests.stages.pixels import SCENES
from tests.stages.recipes import TINY


def begin(text, out):
    """A run whose model has learned nothing."""

    run = Run(parse_recipe(tomllib.loads(text)), out)
    recipe, schema = run.recipe, run.schema
    model = build_model(recipe.backbone, recipe.heads, schema.tasks, shape=schema.shape, seed=0)
    shape = list(schema.shape)
    model.config |= {"input": {"shape": shape, "mean": [0.0] * shape[0], "std": [1.0] * shape[0]}}
    model.save(out / "model")
    return run, model


@pytest.fixture(scope="module", params=[TINY, SCENES], ids=["classes", "pixels"])
def shown(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("shown")
    run, model = begin(request.param, out)
    show_examples(run)
    return run, model, load_examples(out / "examples.safetensors")


def test_mistakes_are_of_the_whole_part_and_agree_with_the_metrics(shown):
    run, model, found = shown
    metrics = evaluate(model, run.feed, "test", run.recipe.train)
    assert [own.task.name for own in found] == list(model.tasks)
    for own in found:
        assert own.n_labelled == run.recipe.data.test
        counts = own.mistakes.counts.double()
        name = "accuracy" if "accuracy" in metrics[own.task.name] else "pixel-accuracy"
        if own.mistakes.shape == "confusion" and name in metrics[own.task.name]:
            share = 100 * counts.diagonal().sum() / counts.sum()
            assert float(share) == pytest.approx(metrics[own.task.name][name], abs=1e-4)


def test_few_are_kept_and_they_are_told_right_from_wrong(shown):
    _, _, found = shown
    for own in found:
        if own.task.reads == "pyramid":
            assert len(own.images) == len(own.maps) == MAPS
            assert own.right == [None] * MAPS
            assert all(label.shape[-2:] == answer.shape[-2:] for label, answer in own.maps)
            continue
        assert 1 <= len(own.images) <= 12
        assert own.right.count(False) == 6  # it has learned nothing
        for truth, said, right in zip(own.truth, own.said, own.right, strict=True):
            assert (truth == said) == right
        assert all(image.dtype == torch.uint8 for image in own.images)


def test_what_is_written_is_read_again(shown, tmp_path):
    _, _, found = shown
    save_examples(found, tmp_path / "a.safetensors")
    save_examples(load_examples(tmp_path / "a.safetensors"), tmp_path / "b.safetensors")
    first, second = (tmp_path / f"{name}.safetensors" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_pictures_have_alternatives_in_words(shown):
    for own in shown[2]:
        task = show(own)
        pictures = [shown for row in task.examples for shown in row]
        assert pictures
        assert all(each.alt and each.source.startswith("data:image/") for each in pictures)
        assert task.what
        assert (task.matrix is not None) + (task.plot is not None) + (task.grid is not None) == 1


def test_damaged_examples_are_refused_in_a_line(shown, tmp_path):
    path = tmp_path / "examples.safetensors"
    save_examples(shown[2], path)
    tensors, metadata = artefact.read_tensors(path, "file")
    tensors["0/mistakes"] = torch.zeros(1, dtype=torch.int64)
    artefact.write_tensors(path, tensors, metadata)
    with pytest.raises(ArtefactError, match="does not") as caught:
        load_examples(path)
    assert "\n" not in str(caught.value)
    artefact.write_tensors(path, tensors, {"format": "other"})
    with pytest.raises(ArtefactError, match="must have format"):
        load_examples(path)


def test_another_part_can_be_shown(tmp_path):
    run, _ = begin(TINY, tmp_path)
    found = make_examples(run, tmp_path / "model", "validation")
    assert {own.part for own in found} == {"validation"}
    assert all(own.n_labelled == 32 for own in found)
