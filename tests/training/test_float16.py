"""float16 training is torch's own recipe: scale, differentiate, unscale, clip, step, update."""

import pytest
import torch
from torch.nn.utils import clip_grad_norm_

from recon_search.errors import TrainingError
from recon_search.methods.surgeon import create_surgeon
from recon_search.recipe import TrainConfig
from recon_search.training import scaler as module
from recon_search.training.loop import fit
from recon_search.training.optimisation import create_optimizer, create_scheduler
from recon_search.training.scaler import Scaler
from recon_search.training.step import Learner, Stepper
from tests.methods.gradients import randomise
from tests.training.test_options import make

CONFIG = TrainConfig(
    epochs=1, batch_size=16, lr=0.05, momentum=0.5, precision="float16", clip_grad=1.0
)
CPU = torch.device("cpu")


def by_hand(data, config, scale):
    """The loop of torch's documentation for the sum of the losses; returns model and scales."""
    model = make(config).train()
    torch.manual_seed(0)
    optimizer = create_optimizer(model, config)
    n_updates = data.n_steps("train", config.batch_size, shuffled=True)
    schedule = create_scheduler(optimizer, config, n_updates)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    learner = Learner(model, data.schema.select(model.tasks), data, config)
    scales = []
    for number, step in enumerate(data.steps("train", config.batch_size, (0, 0))):
        schedule.step_update(number)
        optimizer.zero_grad()
        (batch,) = step
        with torch.autocast("cpu", torch.float16):
            outputs = model(data.inputs.normalise(batch.inputs))
            losses = [t.loss(outputs[t.name], batch.targets[t.name]) for t in learner.tasks]
        scaler.scale(sum(losses)).backward()
        scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), config.clip_grad)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return model, scales


@pytest.mark.parametrize("scale", [2.0**16, 2.0**40], ids=["fits", "overflows at first"])
def test_joint_training_is_the_loop_of_torchs_documentation(data, monkeypatch, scale):
    expected, scales = by_hand(data, CONFIG, scale)
    plain = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: plain(device, init_scale=scale))
    model = make(CONFIG)
    fit(model, data, CONFIG, seed=0)
    assert (min(scales) < scale) is (scale > 2.0**16), "some steps are skipped"
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize("method", ["joint", "pcgrad", "rotograd", "uw", "graddrop"])
def test_a_step_that_overflows_moves_nothing_and_halves_the_scale(data, method):
    config = CONFIG.model_copy(update={"method": method})
    model = make(config)
    surgeon = create_surgeon(model, method)
    optimizer = torch.optim.SGD([*model.parameters(), *surgeon.parameters()], lr=0.1)
    learner = Learner(model, data.schema.select(model.tasks), data, config)
    stepper = Stepper(learner, surgeon, optimizer, None, None, 10, 0, scaler=Scaler(CPU))
    steps = list(data.steps("train", 16, (0, 0)))

    def take(number):
        stepper.begin(number)
        stepper.add(steps[number], 1.0)
        stepper.finish()
        return stepper.scaler.state_dict()["scale"], [p.clone() for p in model.parameters()]

    scale, start = take(0)
    assert scale == 2.0**16
    stepper.scaler.load_state_dict({**stepper.scaler.state_dict(), "scale": 2.0**60})
    found, after = take(1)
    assert found == 2.0**59
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(after, start, strict=True))
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


@pytest.mark.parametrize("method", ["joint", "pcgrad", "rotograd"])
def test_gradients_that_float16_would_lose_are_learned_from(data, method):
    """Losses of a tiny weight: gradients below 2^-24 are zero in float16 unless scaled."""
    tasks = [type(t)(t.name, t.n_classes, weight=2.0**-18) for t in data.schema.tasks]
    (step, *_) = data.steps("train", 16, (0, 0))

    def gradient(precision, scaler):
        config = CONFIG.model_copy(update={"method": method, "precision": precision})
        model = randomise(make(config)).train()
        surgeon = create_surgeon(model, method)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        learner = Learner(model, tuple(tasks), data, config)
        stepper = Stepper(learner, surgeon, optimizer, None, None, 1, 0, scaler=scaler)
        stepper.begin(0)
        stepper.add(step, 1.0)
        surgeon.combine()
        return torch.cat([p.grad.flatten() for p in model.backbone.parameters()])

    expected = gradient("float32", None)

    def error(scaler):
        return float((gradient("float16", scaler) - expected).norm() / expected.norm())

    assert error(Scaler(CPU)) < 0.15 < error(None)


def test_gradients_that_overflow_at_any_scale_end_the_training(data, monkeypatch):
    monkeypatch.setattr(module, "LEAST", 2.0**17)
    with pytest.raises(TrainingError, match=r"finite in float16 at some scale.*by update 6 .*6.6e"):
        fit(make(CONFIG), data, CONFIG, seed=0)
