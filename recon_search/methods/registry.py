"""The gradient methods by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn
from torchjd import aggregation, scalarization

from recon_search.errors import RecipeError, nearest
from recon_search.methods import adapters
from recon_search.methods.adapters import counting, sampled, without_tasks
from recon_search.methods.method import Method
from recon_search.methods.rotograd import RotoGrad


def find_method(name: str) -> Method:
    """Return a method by name.

    Raises:
        RecipeError: unknown; with near names.
    """
    if name not in METHODS:
        raise RecipeError(
            f"The method must be one of {', '.join(METHODS)}, got '{name}'.{nearest(name, METHODS)}"
        )
    return METHODS[name]


def check_method(
    name: str,
    options: Mapping[str, Any] | None = None,
    tasks: Sequence[str] | None = None,
    where: str = "options",
) -> None:
    """Refuse what a training would refuse at its start, without a model.

    Args:
        name: of the method.
        options: of the method.
        tasks: what is to be combined, at most; None where that is not known yet: too few tasks and
            options that name tasks are then not noticed.
        where: what messages call the options.

    Raises:
        RecipeError: unknown method or options, with near names; options out of range; too few
            tasks; a missing package, with the pip line.
    """
    method = find_method(name)
    complete = method.complete(options or {}, where)
    if method.needs == "features":
        stub = nn.Module()
        stub.heads = nn.ModuleDict({"a": nn.Linear(1, 1)})
        method.create(stub, None, options=options or {}, where=where)
        check_method(find_inner(method, complete, where).name, None, tasks, f"{where}.weighting")
        return
    if tasks is None:
        if "weights" in method.options:  # by name of the task
            return
        tasks = ("a", "b", "c")
    if len(tasks) > 1 or method.needs == "losses":
        method.create(tuple(tasks), options=options or {}, where=where)


def find_inner(method: Method, options: Mapping[str, Any], where: str = "options") -> Method:
    """Return the method that combines the paths of one on features.

    Args:
        method: one on features.
        options: all of that method.
        where: what messages call the options.

    Raises:
        RecipeError: it is unknown, or none on gradients.
    """
    inner = find_method(options["weighting"])
    if inner.needs in ("losses", "features"):
        raise RecipeError(
            f"`{where}.weighting` of '{method.name}' must be 'joint' or a method on gradients, got "
            f"'{inner.name}'. Name one that `recon-search ls methods` lists under Gramian."
        )
    return inner


def _smoothed(tasks: tuple[str, ...], weighting: str, alpha: float) -> Any:
    inner = find_method(weighting)
    if inner.needs != "Gramian" or weighting == "cr-mogm":
        raise ValueError(f"`weighting` must name another Gramian method, got '{weighting}'.")
    return aggregation.CRMOGMWeighting(inner.create(tasks, options={}), alpha=alpha)


_QUADPROG = "torchjd[quadprog_projector]"
_IMTL = "Towards Impartial Multi-task Learning"
_JACOBIAN_DESCENT = "Jacobian Descent for Multi-Objective Optimization"
_RANDOM = "Reasonable Effectiveness of Random Weighting"
_ROTOGRAD = "RotoGrad: Gradient Homogenization in Multitask Learning"
_ROTATIONS = {
    "lr": 1e-3,
    "decay": 0.999,
    "every": 8,
    "map": "cayley",
    "burn_in": 20,
    "normalize_losses": False,
    "weighting": "joint",
}


def _by_name(methods: Iterable[Method]) -> dict[str, Method]:
    return {method.name: method for method in methods}


METHODS: dict[str, Method] = _by_name(
    [
        Method(
            "joint",
            "nothing",
            "Multitask Learning (sum of losses)",
            "ML 28, 1997",
            without_tasks(scalarization.Sum),
        ),
        # On losses: one backward pass; the weights reach heads and private copies too.
        Method(
            "uw",
            "losses",
            "Multi-Task Learning Using Uncertainty to Weigh Losses",
            "arXiv 1705.07115",
            counting(scalarization.UW),
        ),
        Method("imtl-l", "losses", _IMTL, "ICLR 2021", counting(scalarization.IMTLL)),
        Method(
            "dwa",
            "losses",
            "End-to-End Multi-Task Learning with Attention",
            "arXiv 1803.10704",
            without_tasks(scalarization.DWA),
            {"temperature": 2.0},
        ),
        Method(
            "famo",
            "losses",
            "FAMO: Fast Adaptive Multitask Optimization",
            "arXiv 2306.03792",
            counting(adapters.EagerFAMO),
            {"lr": 0.025, "weight_decay": 1e-3},
        ),
        Method(
            "gls",
            "losses",
            "MultiNet++: Geometric Loss Strategy for Multi-Task Learning",
            "arXiv 1904.08492",
            without_tasks(scalarization.GeometricMean),
        ),
        Method(
            "stch",
            "losses",
            "Smooth Tchebycheff Scalarization for Multi-Objective Optimization",
            "arXiv 2402.19078",
            without_tasks(scalarization.STCH),
            {"mu": 0.1},
        ),
        Method("rlw", "losses", _RANDOM, "arXiv 2111.10603", without_tasks(scalarization.Random)),
        Method(
            "constant",
            "losses",
            "Fixed weights by task",
            "folklore",
            adapters.constant,
            {"weights": {}},
        ),
        # On the Gramian of what is shared: what a task owns keeps that task's own gradient.
        Method(
            "mean",
            "Gramian",
            _JACOBIAN_DESCENT,
            "arXiv 2406.16232",
            without_tasks(aggregation.MeanWeighting),
        ),
        Method(
            "random",
            "Gramian",
            _RANDOM,
            "arXiv 2111.10603",
            without_tasks(aggregation.RandomWeighting),
        ),
        Method(
            "pcgrad",
            "Gramian",
            "Gradient Surgery for Multi-Task Learning",
            "arXiv 2001.06782",
            without_tasks(aggregation.PCGradWeighting),
        ),
        Method(
            "gradvac",
            "Gramian",
            "Gradient Vaccine: Multi-task Optimization in Multilingual Models",
            "arXiv 2010.05874",
            without_tasks(aggregation.GradVacWeighting),
            {"beta": 0.5, "eps": 1e-8},
        ),
        Method(
            "mgda",
            "Gramian",
            "Multi-Task Learning as Multi-Objective Optimization",
            "arXiv 1810.04650",
            without_tasks(aggregation.MGDAWeighting),
            {"epsilon": 1e-3, "max_iters": 100},
        ),
        Method(
            "cagrad",
            "Gramian",
            "Conflict-Averse Gradient Descent for Multi-task Learning",
            "arXiv 2110.14048",
            sampled(aggregation.CAGradWeighting),
            {"c": 0.5, "norm_eps": 1e-4, "tasks_per_step": 0},
            install="torchjd[cagrad]",
            others="mean",
        ),
        Method(
            "nash-mtl",
            "Gramian",
            "Multi-Task Learning as a Bargaining Game",
            "arXiv 2202.01017",
            counting(adapters.NashMTLWeighting),
            {"max_norm": 1.0, "update_weights_every": 1, "optim_niter": 20},
            install="torchjd[nash_mtl]",
        ),
        Method("imtl-g", "Gramian", _IMTL, "ICLR 2021", without_tasks(aggregation.IMTLGWeighting)),
        Method(
            "aligned-mtl",
            "Gramian",
            "Independent Component Alignment for Multi-Task Learning",
            "arXiv 2305.19000",
            without_tasks(aggregation.AlignedMTLWeighting),
            {"scale_mode": "min"},
        ),
        Method(
            "fairgrad",
            "Gramian",
            "Fair Resource Allocation in Multi-Task Learning",
            "arXiv 2402.15638",
            adapters.fair_grad,
            {"alpha": 2.0, "max_iters": 0},
            install="torchjd[fairgrad]",
        ),
        Method(
            "upgrad",
            "Gramian",
            _JACOBIAN_DESCENT,
            "arXiv 2406.16232",
            sampled(aggregation.UPGradWeighting),
            {"tasks_per_step": 0},
            install=_QUADPROG,
            others="nothing",
        ),
        Method(
            "dualproj",
            "Gramian",
            "Gradient Episodic Memory for Continual Learning",
            "arXiv 1706.08840",
            without_tasks(aggregation.DualProjWeighting),
            install=_QUADPROG,
        ),
        Method(
            "pcd",  # the first of the tasks that share is the primary one
            "Gramian",
            "Not All Objectives Are Born Equal: Priority-Constrained Descent",
            "arXiv 2606.29521",
            without_tasks(aggregation.PCDWeighting),
            {"tau": 0.02, "beta": 0.999, "eps": 1e-8},
        ),
        Method(
            "cr-mogm",
            "Gramian",
            "On the Convergence of Stochastic Multi-Objective Gradient Manipulation",
            "NeurIPS 2022",
            _smoothed,
            {"weighting": "mgda", "alpha": 0.9},
        ),
        Method(
            "krum",
            "Gramian",
            "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
            "NeurIPS 2017",
            adapters.krum,
            {"n_byzantine": 0, "n_selected": 1},
        ),
        # On the full gradients of what is shared.
        Method(
            "graddrop",
            "gradients",
            "Just Pick a Sign: Gradient Sign Dropout",
            "arXiv 2010.06808",
            counting(adapters.grad_drop),
            {"leak": 0.0},
        ),
        Method(
            "config",
            "gradients",
            "ConFIG: Conflict-free Training of Physics Informed Neural Networks",
            "arXiv 2408.11104",
            without_tasks(aggregation.ConFIG),
        ),
        Method(
            "excess-mtl",
            "gradients",
            "Robust Multi-Task Learning with Excess Risks",
            "arXiv 2402.02009",
            without_tasks(aggregation.ExcessMTL),
            {"robust_step_size": 1.0, "n_warmup_steps": 0},
        ),
        Method(
            "trimmed-mean",
            "gradients",
            "Byzantine-Robust Distributed Learning",
            "arXiv 1803.01498",
            adapters.trimmed_mean,
            {"trim_number": 1},
        ),
        # On the gradients of the features that the heads read.
        Method(
            "rotograd",
            "features",
            _ROTOGRAD,
            "arXiv 2103.02631",
            partial(RotoGrad, rescale=True),
            _ROTATIONS,
        ),
        Method(
            "rotate-only",
            "features",
            _ROTOGRAD,
            "arXiv 2103.02631",
            partial(RotoGrad, rescale=False),
            _ROTATIONS,
        ),
    ]
)
"""Every gradient method, from those that need least to those that need most.

Not here, although TorchJD has them: `MoDoWeighting` and `SDMGradWeighting` take inner products
between the gradients of independent batches, which are no Gramian (SDMGrad-OS, arXiv 2305.18409,
samples tasks, too); `PBI` and `COSMOS` trace Pareto
fronts over sampled preferences; `Sum` is `joint`, and `Mean` of losses is `joint` with another
learning rate.
"""
