"""The training step, a pure function compiled over the mesh, and its accumulating form.

    loss, gradient = value_and_grad(task.loss(model(task.inputs(batch)), batch))
    updates        = optimizer.update(gradient)
    params         = params + updates

`Program` holds the compiled functions of one (model, task, optimizer); the seed and the rates are
arguments at run time (`Controls`), so runs that differ in nothing else share one compilation.
Large batches are accumulated by the host: one compiled function adds a micro-batch's gradient,
another applies the mean. (A `lax.scan` around a convolution's gradient is 41 times slower on CPU.)
The mean is weighed by `Task.weight`, so loss and gradient are those of the one large batch however
many pixels or examples of each micro-batch count.

How much the micro-batches' gradients differ tells the variance of the gradient, at the cost of
their norms: the metric `gradient_variance`, the variance C² of one example's gradient. It assumes
that a micro-batch's gradient has a variance inversely proportional to its weight, as the mean over
so many independent things has; where all weigh the same, nothing is assumed. With N examples that
count, in m micro-batches of positive weight,

    C² = N / (m - 1) · Σ w_i ‖g_i − ḡ‖² / Σ w_i,

so that C² / N is the variance of the step's gradient. It is NaN where m is 0 or 1.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from clipjax._weighted_means import relative_weight, squared_deviation
from clipjax.train import mesh as meshes
from clipjax.train.state import TrainState
from clipjax.typing import Batch, Params, Statistics, Task


class Controls(NamedTuple):
    """What may differ between runs of one compiled program."""

    seed: jax.Array
    """uint32 (): initial parameters and dropout are functions of it (and of the step)."""
    rates: dict[str, jax.Array]
    """float32 () each: learning rate, clip level, smoothness, ...; what else an optimizer takes at
    run time, such as a seed, has its own dtype."""


class Accumulator(NamedTuple):
    """Sums over the micro-batches of one optimizer step, weights in units of `unit`.

    A micro-batch of weight 0 adds to the statistics only.
    """

    gradients: Params
    """Each times its micro-batch's weight."""
    loss: jax.Array
    """Likewise."""
    weight: jax.Array
    unit: jax.Array
    """The first positive weight."""
    deviation: jax.Array
    """Of the micro-batches' gradients from their mean, squared, times the weight."""
    examples: jax.Array
    counted: jax.Array
    """Micro-batches of positive weight."""
    statistics: Statistics


OptimizerFn = Callable[[Mapping[str, jax.Array]], optax.GradientTransformationExtraArgs]
StepMetricsFn = Callable[[Any, Mapping[str, jax.Array], jax.Array], dict[str, jax.Array]]
EvaluationParamsFn = Callable[[Any, Params], Params]


def controls(seed: int, rates: Mapping[str, float]) -> Controls:
    """Return a run's controls as arrays.

    Examples:
        >>> controls(3, {"learning_rate": 0.1}).seed.dtype
        dtype('uint32')
    """
    return Controls(
        jnp.asarray(seed, jnp.uint32), {k: jnp.asarray(v, jnp.float32) for k, v in rates.items()}
    )


@dataclass(frozen=True)
class Program:
    """One (model, task, optimizer) over one mesh, each function compiled at its first use.

    Attributes:
        model: a Flax module, `apply(variables, x, train=..., rngs=..., mutable=...)`; in
            evaluation with `size=...`, too, where batches have it (whole pictures, padded).
        task: what is lost and measured.
        optimizer: the rates -> the transformation; called inside the compiled functions.
        evaluation_params: (opt_state, params) -> the parameters to evaluate; the identity for
            methods that do not average.
        step_metrics: (opt_state after the step, rates, the step's number from 0) -> scalars to
            log, such as the share of clipped steps.
        mesh: the devices.
        pretrained: a tree with some of the branches of the parameters, which start at these
            values; None where all start at random.
    """

    model: Any
    task: Task
    optimizer: OptimizerFn
    evaluation_params: EvaluationParamsFn
    step_metrics: StepMetricsFn
    mesh: Mesh
    pretrained: Params | None = None
    init: Callable[[Controls, Batch], TrainState] = field(init=False)
    train_step: Callable[..., tuple[TrainState, dict[str, Any]]] = field(init=False)
    accumulate: Callable[..., tuple[dict[str, Any], Accumulator]] = field(init=False)
    apply_accumulated: Callable[..., tuple[TrainState, dict[str, Any]]] = field(init=False)
    evaluate: Callable[[Params, dict[str, Any], Batch], Statistics] = field(init=False)
    predict: Callable[[Params, dict[str, Any], Batch], jax.Array] = field(init=False)
    average: Callable[[Any, Params], Params] = field(init=False)
    is_finite: Callable[[TrainState], jax.Array] = field(init=False)

    def __post_init__(self):
        whole, parts = meshes.replicated(self.mesh), meshes.split(self.mesh)

        def compiled(fn, in_shardings, donate=()):
            return meshes.jit(fn, self.mesh, in_shardings, donate_argnums=donate)

        for name, fn in {
            # The weights are an argument: as constants they would be compiled in.
            "init": functools.partial(compiled(self._init, (whole, whole, parts)), self.pretrained),
            "train_step": compiled(self._train_step, (whole, parts, whole), (0,)),
            "accumulate": compiled(self._accumulate, (whole, whole, parts, whole, whole), (1,)),
            "apply_accumulated": compiled(self._apply_accumulated, (whole,) * 3, (0,)),
            "evaluate": compiled(self._evaluate, (whole, whole, parts)),
            "predict": compiled(self._predict, (whole, whole, parts)),
            "is_finite": compiled(self._is_finite, (whole,)),
            "average": compiled(self.evaluation_params, (whole, whole)),
        }.items():
            object.__setattr__(self, name, fn)

    def parameter_shapes(self, batch: Batch) -> Params:
        """Return the shapes of the parameters; nothing is computed."""

        def params(batch: Batch) -> Params:
            inputs = self.task.inputs(batch)[:1]
            return self.model.init(jax.random.key(0), inputs, train=False)["params"]

        return jax.eval_shape(params, batch)

    def _init(self, pretrained: Params | None, controls: Controls, batch: Batch) -> TrainState:
        key = jax.random.key(controls.seed)
        variables = self.model.init(key, self.task.inputs(batch)[:1], train=False)
        params = overlay(variables.pop("params"), pretrained or {})
        return TrainState(
            jnp.zeros((), jnp.int32), params, self.optimizer(controls.rates).init(params), variables
        )

    def _loss(self, params, model_state, batch, key, share=None):
        """Return the loss, `share` times if given; (new model state, statistics) on the side."""
        outputs, model_state = self.model.apply(
            {"params": params, **model_state},
            self.task.inputs(batch),
            train=True,
            rngs={"dropout": key},
            mutable=list(model_state),
        )
        loss = self.task.loss(outputs, batch)
        loss = loss if share is None else loss * share.astype(loss.dtype)
        return loss, (model_state, self.task.statistics(outputs, batch))

    def _gradient(self, state, model_state, batch, controls, micro_step, share=None):
        key = jax.random.fold_in(jax.random.key(controls.seed), state.step)
        key = jax.random.fold_in(key, micro_step)
        return jax.value_and_grad(self._loss, has_aux=True)(
            state.params, model_state, batch, key, share
        )

    def _update(self, state, gradients, model_state, controls, weight):
        """Apply a gradient; its weight is for methods that accumulate, others leave it alone."""
        optimizer = optax.with_extra_args_support(self.optimizer(controls.rates))
        updates, opt_state = optimizer.update(
            gradients, state.opt_state, state.params, weight=weight
        )
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state, model_state)

    def _metrics(self, state, loss, gradients, statistics, controls):
        """Return what is logged of a step; `statistics` become metrics on the host."""
        return {
            "statistics": statistics,
            "scalars": {
                "loss": loss,
                "gradient_norm": optax.tree.norm(gradients),
                **self.step_metrics(state.opt_state, controls.rates, state.step - 1),
            },
        }

    def _train_step(self, state: TrainState, batch: Batch, controls: Controls):
        (loss, (model_state, statistics)), gradients = self._gradient(
            state, state.model_state, batch, controls, 0
        )
        weight = self.task.weight(batch)
        state = self._update(state, gradients, model_state, controls, weight)
        return state, self._metrics(state, loss, gradients, statistics, controls)

    def _accumulate(self, state: TrainState, so_far, batch: Batch, controls: Controls, micro_step):
        """Add a micro-batch; `so_far` is (model state, sums), the sums None at the first."""
        model_state, sums = so_far
        # In the loss's dtype or wider: float32, or float64 where that is switched on.
        weight = jnp.asarray(self.task.weight(batch), float)
        unit = jnp.zeros_like(weight) if sums is None else sums.unit
        share, unit = relative_weight(weight, unit)
        # The loss is weighed, not its gradient: where all weigh the same the sums are compiled as
        # they would be without weights, to the same bits.
        (loss, (model_state, statistics)), gradients = self._gradient(
            state, model_state, batch, controls, micro_step, share
        )
        counts = (share != 0).astype(jnp.float32)
        new = Accumulator(
            gradients=gradients,
            loss=loss,
            weight=share,
            unit=jnp.zeros_like(unit) if sums is not None else unit,
            deviation=jnp.zeros_like(loss),
            examples=counts * jnp.sum(batch["mask"] > 0, dtype=jnp.float32),
            counted=counts,
            statistics=statistics,
        )
        if sums is None:
            return model_state, new
        total = jax.tree.map(jnp.add, sums, new)
        own = jax.tree.map(lambda g: g / jnp.where(share == 0, 1, share).astype(g.dtype), gradients)
        moved = squared_deviation(own, total.gradients, sums.weight, share)
        deviation = total.deviation + moved.astype(loss.dtype)
        return model_state, total._replace(unit=unit, deviation=deviation)

    def _apply_accumulated(self, state: TrainState, so_far, controls: Controls):
        model_state, sums = so_far
        total = jnp.where(sums.weight == 0, 1, sums.weight)  # nothing counts: 0, as in one batch
        # Once the reciprocal, as compilers do for a count: the same bits where all weigh the same.
        inverse = 1 / total
        gradients, loss = jax.tree.map(
            lambda summed: summed * inverse.astype(summed.dtype), (sums.gradients, sums.loss)
        )
        state = self._update(state, gradients, model_state, controls, sums.weight * sums.unit)
        metrics = self._metrics(state, loss, gradients, sums.statistics, controls)
        variance = sums.examples * (sums.deviation / sums.weight) / (sums.counted - 1)
        metrics["scalars"]["gradient_variance"] = variance
        return state, metrics

    def _is_finite(self, state: TrainState) -> jax.Array:
        """Return whether [the parameters, the optimizer's memory of them] are finite, bool (2,).

        The parameters that are evaluated are among the first. The memory is every array of the
        optimizer's state that belongs to a parameter and has its shape: momentum, moments,
        averages. Others, such as clip levels and windows of norms, are infinite where there is
        none yet. BatchNorm's running statistics are not looked at: training does not use them, and
        evaluation recomputes them.
        """
        evaluated = self.evaluation_params(state.opt_state, state.params)
        memory = mirrors(state.opt_state, state.params)
        return jnp.stack([_all_finite((state.params, evaluated)), _all_finite(memory)])

    def _predict(self, params: Params, model_state, batch: Batch) -> jax.Array:
        # Pictures padded to one size: the model is told how much of each is real.
        size = {"size": batch["size"]} if "size" in batch else {}
        return self.model.apply(
            {"params": params, **model_state}, self.task.inputs(batch), train=False, **size
        )

    def _evaluate(self, params: Params, model_state, batch: Batch) -> Statistics:
        return self.task.statistics(self._predict(params, model_state, batch), batch)


def _all_finite(tree: Any) -> jax.Array:
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(finite)) if finite else jnp.bool_(True)


def mirrors(opt_state: Any, params: Params) -> list[jax.Array]:
    """Return the arrays of an optimizer's state that belong to one parameter and have its shape.

    An array belongs to the parameter with whose path its own ends.

    Examples:
        >>> params = {"w": jnp.zeros(2), "b": jnp.zeros(3)}
        >>> state = optax.sgd(0.1, momentum=0.9).init(params), {"w": jnp.inf}  # a level a tensor
        >>> [leaf.shape for leaf in mirrors(state, params)]
        [(3,), (2,)]
    """
    shapes = {path: leaf.shape for path, leaf in jax.tree.leaves_with_path(params)}
    return [
        leaf
        for path, leaf in jax.tree.leaves_with_path(opt_state)
        if any(shapes.get(path[i:]) == jnp.shape(leaf) for i in range(len(path) + 1))
    ]


def overlay(params: Params, given: Mapping[str, Any]) -> Params:
    """Return the parameters with some branches replaced, in their own dtypes.

    Examples:
        >>> params = {"a": {"w": jnp.zeros(2), "b": jnp.zeros(1)}, "c": jnp.zeros(1)}
        >>> overlay(params, {"a": {"w": jnp.ones(2)}})["a"]["w"].tolist()
        [1.0, 1.0]

    Raises:
        ValueError: If there is no such branch, or it has another shape.
    """
    if unknown := set(given) - set(params):
        raise ValueError(f"the parameters have no {sorted(unknown)}; they have {sorted(params)}")
    result = dict(params)
    for name, value in given.items():
        if isinstance(value, Mapping):
            result[name] = overlay(params[name], value)
            continue
        if value.shape != params[name].shape:
            raise ValueError(f"{name} is {value.shape}, in the parameters {params[name].shape}")
        result[name] = jnp.asarray(value, params[name].dtype)
    return result


def step(
    program: Program, state: TrainState, micro_batches: list[Batch], controls: Controls
) -> tuple[TrainState, dict[str, Any]]:
    """Do one optimizer step on one global batch, given as one or more micro-batches.

    With several, loss and gradient are the means of the micro-batches', weighed by `Task.weight`
    (the trajectory of `clipjax.accumulate_gradients` with these weights): those of the one large
    batch, to rounding, for networks that treat examples one by one. BatchNorm does not. It sees the
    micro-batches one after another and normalises each by its own moments, so there the gradient
    is another than the large batch's. A micro-batch of weight 0 changes nothing but BatchNorm's
    running statistics. Where all weigh 0, loss and gradient are 0, as for one batch in which
    nothing counts; the optimizer does its step with that.

    Args:
        program: the compiled functions.
        state: the state before; its buffers are donated.
        micro_batches: parts of the global batch, of one shape, placed on the mesh.
        controls: seed and rates.

    Returns:
        The state after, and what to log: {"scalars": ..., "statistics": ...}, still on device.
    """
    if len(micro_batches) == 1:
        return program.train_step(state, micro_batches[0], controls)
    # The first model state is copied: `so_far` is donated, `state` is still needed.
    so_far: Any = (jax.tree.map(jnp.copy, state.model_state), None)
    for index, batch in enumerate(micro_batches):
        so_far = program.accumulate(state, so_far, batch, controls, jnp.int32(index))
    return program.apply_accumulated(state, so_far, controls)
