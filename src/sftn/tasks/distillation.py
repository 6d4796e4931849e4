"""Distillation: the objective ce·CE + kd·KD + Σ weight·method, and the student that is trained by it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sftn.data.batch import check_batch, check_index
from sftn.errors import InputError
from sftn.methods import options
from sftn.methods.base import Batch, Method, to_float32
from sftn.methods.ensemble import Voices
from sftn.methods.kd import distillation_loss
from sftn.methods.logits import LogitMethod, check_standardised
from sftn.networks.alignment import Pair
from sftn.networks.ensemble import Ensemble, first_of
from sftn.networks.fast.inference_folding import folded
from sftn.networks.fast.product_choices import Choices
from sftn.networks.staged import Activations, Shape, StagedNet
from sftn.spec.alignment import Alignment
from sftn.spec.objective import Objective
from sftn.spec.run import Weighting
from sftn.spec.schedule import Schedule
from sftn.training.phase import Phase
from sftn.training.teacher_outputs import TeacherOutputs


class Distiller(nn.Module):
    """A student, its frozen teacher and an objective: (images, labels, index) -> the loss that trains the student.

    Args:
        student: the network that learns; trained in place. A method may change it (SimKD gives it the teacher's head).
        teacher: the network that is learned from; frozen, in eval mode. With an `sftn.networks.ensemble.Ensemble`, KD
            and methods that compare logits (`LogitMethod`) learn from all teachers, other methods from the first.
        objective: what is minimised; `sftn.tasks.recipes.objective("crd")` has the paper's.
        image: (C, H, W) of the images.
        labels: (N,) of the training images; needed by methods that keep something for each image (CRD).
        alignment: which student stage goes with which teacher stage; None for `sftn.networks.alignment.align`'s answer.
        methods: the objective's methods by name; None for the registered ones (`sftn.methods.METHODS`).
        teacher_outputs: where the teacher's outputs come from in the main phase; None runs the teacher on every batch.
        ensemble: how several teachers are weighted (`sftn.methods.ensemble.teacher_weights`).

    Raises:
        InputError: the networks cannot be aligned, or lack what a method needs; or of several teachers all but the
            first would not be listened to.
    """

    def __init__(
        self,
        student: StagedNet,
        teacher: StagedNet,
        objective: Objective,
        image: Shape,
        *,
        labels: Tensor | None = None,
        alignment: Alignment | None = None,
        methods: Mapping[str, type[Method]] | None = None,
        teacher_outputs: TeacherOutputs | None = None,
        ensemble: Weighting = "mean",
    ) -> None:
        super().__init__()
        from sftn.methods import METHODS

        known = METHODS if methods is None else methods
        labels = torch.empty(0, dtype=torch.long) if labels is None else labels
        for term in objective.terms:
            options.check(term.method, known[term.method], term.options)
        chosen = first_of(teacher)
        rebuild(student, chosen, objective, image, known)
        self.pair = Pair.of(chosen, student, image, labels, alignment)
        self.objective, self.ensemble = objective, ensemble
        channels, height, width = image
        self.image = (channels, height, width)
        self._entered = False  # whether a first batch has been checked
        self.watched = False
        """Whether the loop finds numbers that are not finite itself; if not, the first batch is searched for them."""
        self.student = student
        self.methods = nn.ModuleDict(
            {term.method: known[term.method](self.pair, **term.options) for term in objective.terms}
        )
        if objective.standardise:
            check_standardised(self.pair.classes)
        if isinstance(teacher, Ensemble):
            self._check_ensemble(teacher)
        self.scheduled = any(term.warmup or term.fade for term in objective.terms)
        # A tensor, so that a step that was recorded as a CUDA graph reads what `set_epoch` wrote.
        self.register_buffer("factors", torch.ones(len(objective.terms)), persistent=False)
        viewers = [name for name, method in self._each() if type(method).views is not Method.views]
        if len(viewers) > 1:
            raise InputError(f"{' and '.join(viewers)} each want views of their own: use one of them at a time")
        self.viewer = viewers[0] if viewers else None
        self.needs_features = any({"features", "preacts"} & set(method.teacher_outputs) for _, method in self._each())
        """Whether a method reads the teacher's maps; if not, they are freed before the student makes its own."""
        self.foldable = not any(method.batch_statistics for _, method in self._each())
        self.teacher = (teacher if self.foldable else with_batch_statistics(teacher)).requires_grad_(False).eval()
        self.teacher_outputs = TeacherOutputs() if teacher_outputs is None else teacher_outputs
        for _, method in self._each():
            method.attach(student, first_of(self.teacher), image)

    factors: Tensor
    """What the terms' weights are multiplied by in this epoch."""

    def _each(self) -> list[tuple[str, Method]]:
        return list(self.methods.items())  # type: ignore[arg-type]

    def _check_ensemble(self, teacher: Ensemble) -> None:
        if not self.objective.kd and not any(isinstance(method, LogitMethod) for _, method in self._each()):
            raise InputError(
                f"{self.objective.name} compares no logits, so it would learn from the first teacher only: give one "
                "teacher, or add KD"
            )
        for member in teacher.members:
            classes = member.shapes(self.image).logits
            if classes != self.pair.classes:
                raise InputError(
                    f"{member.name} has {classes} classes and the others {self.pair.classes}: give teachers of the "
                    "same classes"
                )

    @property
    def copies(self) -> int:
        """How many independently cropped copies of each image a batch must have."""
        return max([1, *[method.copies for _, method in self._each()]])  # a form that torch.compile can read

    @property
    def flip(self) -> bool:
        """Whether every method tolerates mirrored images."""
        return all(method.flip for _, method in self._each())

    def train(self, mode: bool = True) -> Distiller:
        """Train or evaluate the student; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def keep_teacher_in(self, dtype: torch.dtype) -> None:
        """Keep the frozen teacher's convolutions and linear layers in the precision of autocast.

        Autocast would cast them to it in every step: no bit of the activations changes. Only for a teacher that nobody
        uses outside of autocast any more.
        """
        for module in self.teacher.modules():
            if type(module) in (nn.Conv2d, nn.Linear):
                module.to(dtype)

    def fold_teacher(self, dtype: torch.dtype = torch.float32, choices: Choices | None = None) -> None:
        """Let a folded copy answer for the teacher: faster, the same up to rounding.

        `sftn.networks.fast.inference_folding` does it. A teacher that normalises by the batch's statistics cannot be
        folded and stays. To be called before `phases`.

        Args:
            dtype: of its weights; in half precision as in `keep_teacher_in`.
            choices: which of its convolutions are products of matrices; None for none.
        """
        if self.foldable:

            def fold(network: StagedNet) -> StagedNet:
                return folded(network, self.image, dtype, choices)

            self.teacher = self.teacher.each(fold) if isinstance(self.teacher, Ensemble) else fold(self.teacher)
        elif dtype != torch.float32:
            self.keep_teacher_in(dtype)

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Set the weights that change with the epoch; to be called when one of the main phase begins.

        A loop that never calls it trains with the full weights.

        Args:
            epoch: counted from 0.
            epochs: of the main phase.
        """
        if self.scheduled:
            self.factors.copy_(torch.tensor([term.factor(epoch, epochs) for term in self.objective.terms]))
        for _, method in self._each():
            method.set_epoch(epoch, epochs)

    def phases(self, schedule: Schedule) -> list[Phase]:
        """The methods' first stages, then the main phase.

        Raises:
            InputError: a weight's schedule is longer than the main phase.
        """
        for term in self.objective.terms:
            term.factor(0, schedule.epochs)
        warmups = [method.warmup(self.student, first_of(self.teacher), schedule) for _, method in self._each()]
        trained = [module for _, method in self._each() for module in method.trains()]
        main = Phase("distil", self, (self.student, *trained), schedule)
        return [*(phase for phase in warmups if phase is not None), main]

    def _check(self, images: Tensor, labels: Tensor, index: Tensor | None) -> None:
        """Check a batch; what costs only once."""
        first = not self._entered
        check_batch(
            images,
            labels,
            self.student,
            image=self.image,
            classes=self.pair.classes,
            copies=self.copies,
            training=self.training,
            first=first,
            watched=self.watched,
        )
        needing = [name for name, method in self._each() if method.needs_index]
        if needing:
            if index is None or len(index) != len(labels):
                raise InputError(f"{needing[0]} must know which training images a batch holds: give index, (B,) int64")
            check_index(index, len(self.pair.labels), first)
        if not torch.compiler.is_compiling():
            self._entered = True

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        index: Tensor | None = None,
        teacher_outputs: TeacherOutputs | None = None,
    ) -> dict[str, Tensor]:
        """The loss and its terms, unweighted.

        Args:
            images: (B·copies, C, H, W)
            labels: (B,)
            index: (B,) which training images these are; only for methods that keep something for each image.
            teacher_outputs: for this batch alone, in place of those that the distiller was built with.

        Returns:
            `loss`, `ce`, `kd`, a term for each method, and the student's `accuracy` on the batch in percent. All are
            scalars; only `loss` carries a gradient.

        Raises:
            InputError: this is not such a batch (`sftn.data.batch.check_batch`), or a method must know which images
                these are.
        """
        self._check(images, labels, index)
        index = torch.zeros_like(labels) if index is None else index
        batch = Batch(images, labels, index)
        if self.viewer is not None:
            images = self.methods[self.viewer].views(images)  # type: ignore[operator]
        views = len(images) // len(labels)
        with torch.no_grad():  # before the student's activations are there, which are kept for the backward
            outputs = self.teacher_outputs if teacher_outputs is None else teacher_outputs
            teacher = outputs(self.teacher, images, index)
        if not self.needs_features:
            teacher = teacher._replace(features=(), preacts=())
        student, teacher = _float(self.student.activations(images)), _float(teacher)
        logits = student.logits[::views]
        voices = None
        if isinstance(self.teacher, Ensemble):
            voices = Voices.of(teacher.logits, labels, len(self.teacher), self.ensemble)
            teacher = teacher._replace(logits=voices.first)

        terms = {"ce": F.cross_entropy(logits, labels)}
        # Weighted by zero, an infinite cross-entropy would be NaN, and the weights that it alone trains would decay.
        loss = self.objective.ce * terms["ce"] if self.objective.ce else torch.zeros_like(terms["ce"])
        if self.objective.kd:
            temperature = self.objective.temperature
            theirs = teacher.logits if voices is None else voices.together(temperature)
            terms["kd"] = distillation_loss(logits, theirs[::views], temperature, self.objective.standardise)
            loss = loss + self.objective.kd * terms["kd"]
        aligned = self.pair.aligned(student, teacher)
        plain = aligned if views == 1 else tuple(_first_views(activations, views) for activations in aligned)
        for number, term in enumerate(self.objective.terms):
            ours, told = aligned if term.method == self.viewer else plain
            method = self.methods[term.method]
            if voices is not None and isinstance(method, LogitMethod):
                said = voices.together(method.softness())
                told = told._replace(logits=said if term.method == self.viewer else said[::views])
            terms[term.method] = method(ours, told, batch)
            weight = term.weight * self.factors[number] if self.scheduled else term.weight
            loss = loss + weight * terms[term.method]
        terms["accuracy"] = 100 * (logits.argmax(1) == labels).float().mean()
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}


def rebuilds(objective: Objective, methods: Mapping[str, type[Method]]) -> bool:
    """Whether a method of an objective changes the student (`Method.rebuild`)."""
    return any(methods[term.method].rebuild.__func__ is not Method.rebuild.__func__ for term in objective.terms)  # type: ignore[attr-defined]


def rebuild(
    student: StagedNet, teacher: StagedNet, objective: Objective, image: Shape, methods: Mapping[str, type[Method]]
) -> None:
    """Change a student, in place, into the network that an objective trains; most objectives train it as it is."""
    for term in objective.terms:
        methods[term.method].rebuild(student, teacher, image, **term.options)


def with_batch_statistics(network: StagedNet) -> StagedNet:
    """A copy whose batch norms normalise by the batch's own statistics in any mode, and so have no state to spoil."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return network


def _float(activations: Activations) -> Activations:
    return activations._replace(logits=to_float32(activations.logits), embedding=to_float32(activations.embedding))


def _first_views(activations: Activations, views: int) -> Activations:
    """The activations of the images themselves, where each stands first among its views."""
    return Activations(
        activations.logits[::views],
        activations.embedding[::views],
        tuple(feature[::views] for feature in activations.features),
        tuple(preact[::views] for preact in activations.preacts),
    )
