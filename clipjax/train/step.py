"""The training step, a pure function compiled over the mesh, and its accumulating form.

    loss, gradient = value_and_grad(task.loss(model(task.inputs(batch)), batch))
    updates        = optimizer.update(gradient)
    params         = params + updates

`Program` holds the compiled functions of one (model, task, optimizer); the seed and the rates are
arguments at run time (`Controls`), so runs that differ in nothing else share one compilation.
Large batches are accumulated by the host: it counts micro-batches, one compiled function adds a
micro-batch's gradient, another applies the mean. (A `lax.scan` around a convolution's gradient is
41 times slower on CPU.) How much the micro-batches' gradients differ tells the variance of the
gradient, at the cost of their norms: the metric `gradient_variance`.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from clipjax.train import mesh as meshes
from clipjax.train.state import TrainState
from clipjax.typing import Batch, Params, Statistics, Task


class Controls(NamedTuple):
    """What may differ between runs of one compiled program."""

    seed: jax.Array
    """uint32 (): initial parameters and dropout are functions of it (and of the step)."""
    rates: dict[str, jax.Array]
    """float32 () each: learning rate, clip level, smoothness, ..."""


class Accumulator(NamedTuple):
    """Sums over the micro-batches of one optimizer step."""

    gradients: Params
    deviation: jax.Array
    """Of the micro-batches' gradients from their mean, squared."""
    examples: jax.Array
    loss: jax.Array
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
        model: a Flax module, `apply(variables, x, train=..., rngs=..., mutable=...)`.
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

    def __post_init__(self):
        whole, parts = meshes.replicated(self.mesh), meshes.split(self.mesh)

        def compiled(fn, in_shardings, donate=()):
            return meshes.jit(fn, self.mesh, in_shardings, donate_argnums=donate)

        for name, fn in {
            # The weights are an argument: as constants they would be compiled in.
            "init": functools.partial(compiled(self._init, (whole, whole, parts)), self.pretrained),
            "train_step": compiled(self._train_step, (whole, parts, whole), (0,)),
            "accumulate": compiled(self._accumulate, (whole, whole, parts, whole, whole), (1,)),
            "apply_accumulated": compiled(self._apply_accumulated, (whole,) * 4, (0,)),
            "evaluate": compiled(self._evaluate, (whole, whole, parts)),
            "predict": compiled(self._predict, (whole, whole, parts)),
            "average": compiled(self.evaluation_params, (whole, whole)),
        }.items():
            object.__setattr__(self, name, fn)

    def _init(self, pretrained: Params | None, controls: Controls, batch: Batch) -> TrainState:
        key = jax.random.key(controls.seed)
        variables = self.model.init(key, self.task.inputs(batch)[:1], train=False)
        params = overlay(variables.pop("params"), pretrained or {})
        return TrainState(
            jnp.zeros((), jnp.int32), params, self.optimizer(controls.rates).init(params), variables
        )

    def _loss(self, params, model_state, batch, key):
        """Return the loss, and (new model state, statistics) on the side."""
        outputs, model_state = self.model.apply(
            {"params": params, **model_state},
            self.task.inputs(batch),
            train=True,
            rngs={"dropout": key},
            mutable=list(model_state),
        )
        return self.task.loss(outputs, batch), (model_state, self.task.statistics(outputs, batch))

    def _gradient(self, state, model_state, batch, controls, micro_step):
        key = jax.random.fold_in(jax.random.key(controls.seed), state.step)
        key = jax.random.fold_in(key, micro_step)
        return jax.value_and_grad(self._loss, has_aux=True)(state.params, model_state, batch, key)

    def _update(self, state, gradients, model_state, controls):
        updates, opt_state = self.optimizer(controls.rates).update(
            gradients, state.opt_state, state.params
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
        state = self._update(state, gradients, model_state, controls)
        return state, self._metrics(state, loss, gradients, statistics, controls)

    def _accumulate(self, state: TrainState, so_far, batch: Batch, controls: Controls, micro_step):
        """Add a micro-batch; `so_far` is (model state, sums), the sums None at the first."""
        model_state, sums = so_far
        (loss, (model_state, statistics)), gradients = self._gradient(
            state, model_state, batch, controls, micro_step
        )
        examples = jnp.asarray(len(batch["mask"]), jnp.float32)
        new = Accumulator(gradients, jnp.zeros_like(loss), examples, loss, statistics)
        if sums is None:
            return model_state, new
        total = jax.tree.map(jnp.add, sums, new)
        moved = squared_deviation(gradients, total.gradients, micro_step + 1)
        return model_state, total._replace(deviation=total.deviation + moved)

    def _apply_accumulated(self, state: TrainState, so_far, controls: Controls, micro_steps):
        model_state, sums = so_far
        gradients, loss = jax.tree.map(
            lambda total: total / micro_steps.astype(total.dtype), (sums.gradients, sums.loss)
        )
        state = self._update(state, gradients, model_state, controls)
        metrics = self._metrics(state, loss, gradients, sums.statistics, controls)
        # Unbiased for independent micro-batches: Ĉ² = b Σ‖g_i − ḡ‖² / (m − 1).
        size = sums.examples / micro_steps
        metrics["scalars"]["gradient_variance"] = size * sums.deviation / (micro_steps - 1)
        return state, metrics

    def _predict(self, params: Params, model_state, batch: Batch) -> jax.Array:
        return self.model.apply(
            {"params": params, **model_state}, self.task.inputs(batch), train=False
        )

    def _evaluate(self, params: Params, model_state, batch: Batch) -> Statistics:
        return self.task.statistics(self._predict(params, model_state, batch), batch)


def squared_deviation(gradient: Params, total: Params, count: jax.typing.ArrayLike) -> jax.Array:
    r"""Return what the k-th gradient adds to Σ‖g_i − ḡ‖², k = `count` ≥ 2.

    .. math:: \frac{k}{k - 1} \|g_k - \bar g_k\|^2, \qquad \bar g_k = \text{total} / k

    (Welford 1962.) The difference Σ‖g_i‖² − m‖ḡ‖² would cancel where the noise is small.

    Examples:
        >>> print(squared_deviation(jnp.array(5.0), jnp.array(8.0), 2))  # 3 and 5, their mean 4
        2.0
    """
    squares = jax.tree.map(lambda g, s: jnp.sum((g - s / count) ** 2), gradient, total)
    return jnp.asarray(sum(jax.tree.leaves(squares)) * (count / (count - 1)))


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

    With several, the gradient is the mean of the micro-batches' gradients (the trajectory of
    `clipjax.accumulate_gradients`), BatchNorm sees them one after another.

    Args:
        program: the compiled functions.
        state: the state before; its buffers are donated.
        micro_batches: equal parts of the global batch, placed on the mesh.
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
    return program.apply_accumulated(state, so_far, controls, jnp.int32(len(micro_batches)))
