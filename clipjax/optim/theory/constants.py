"""What a theorem gives back: the numbers of a method, in the form its factory and wrappers take.

The classes here are plain values; the theorems that fill them in are in `clipjax.theory`.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clipjax.optim._checks import check_count, check_instance, check_interval, check_positive
from clipjax.typing import Schedule

LARGEST_BATCH = 2**31 - 128
"""The largest int32 that is also a float32."""


@dataclass(frozen=True)
class BatchSizes:
    r"""Numbers of stochastic gradients to average in each step, a schedule.

    .. math:: m_k = \max\{\text{minimum}, \lceil \text{scale} \cdot (k + s)^e \rceil\}

    Attributes:
        scale: factor; 0 if there is no noise, or if the batch is fixed.
        exponent: e, the growth; 0 for a constant batch.
        offset: s, the `step_offset` of the step sizes.
        minimum: 1, or the fixed batch.

    Examples:
        >>> sizes = BatchSizes(scale=0.1, exponent=2.0, offset=2)
        >>> print([int(sizes(k)) for k in range(6)])  # 0.4, 0.9, 1.6, 2.5, 3.6, 4.9
        [1, 1, 2, 3, 4, 5]
        >>> sizes.total(6)
        16
    """

    scale: float
    exponent: float = 0.0
    offset: int = 0
    minimum: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError for a number that is NaN or out of range."""
        for name, value in (("scale", self.scale), ("exponent", self.exponent)):
            check_interval(name, value, 0, math.inf, closed_high=False)
        check_count("offset", self.offset)
        check_count("minimum", self.minimum, minimum=1)

    def __call__(self, count: jax.typing.ArrayLike) -> jax.Array:
        """Return m_k for `count` = k, the number of the (outer) step, from 0.

        The same operations on the host and in a trace, and so the same sizes in both. Unless x64 is
        enabled they are in float32, where a product within 1e-7 of a whole number may be rounded
        past it.

        Returns:
            An int32 scalar, at most 2^31 − 128. `int(sizes(k))` is a number for the host.
        """
        # The count becomes a float first: an integer square overflows at 46 341.
        steps = jnp.asarray(count, float) + self.offset
        scale = min(self.scale, float(jnp.finfo(steps.dtype).max))  # larger ones end at the maximum
        size = jnp.ceil(scale * steps ** _whole(self.exponent))
        return jnp.clip(size, self.minimum, LARGEST_BATCH).astype(jnp.int32)

    def total(self, steps: int) -> int:
        """Return Σ_{k<steps} m_k, by float64 arithmetic, in time proportional to `steps`."""
        if not self.scale or not self.exponent:
            return steps * min(max(self.minimum, math.ceil(self.scale)), LARGEST_BATCH)
        chunk, total = 2**20, 0
        for start in range(0, steps, chunk):
            k = np.arange(start, min(start + chunk, steps), dtype=np.float64) + self.offset
            sizes = np.ceil(self.scale * k ** _whole(self.exponent))
            total += int(np.clip(sizes, self.minimum, LARGEST_BATCH).astype(np.int64).sum())
        return total


def _whole(exponent: float) -> float | int:
    """Return an int where possible: an integer power is a product, the same in every backend."""
    return int(exponent) if float(exponent).is_integer() else exponent


def _check_constants(constants: "ClippedSGDConstants | ClippedSSTMConstants") -> None:
    """Raise ValueError or TypeError for an attribute that no run could use."""
    check_count("iterations", constants.iterations, minimum=1, maximum=2**53)
    check_positive("learning_rate", constants.learning_rate, finite=True)
    check_positive("clip_level", constants.clip_level)
    check_instance("batch_sizes", constants.batch_sizes, BatchSizes, "a schedule")
    check_interval("bound", constants.bound, 0, math.inf)


@dataclass(frozen=True)
class ClippedSGDConstants:
    """Constants of clipped-SGD.

    Attributes:
        iterations: N, the number of steps.
        learning_rate: γ.
        clip_level: λ.
        batch_sizes: m_k; `clipjax.accumulate_gradients(inner, every=batch_sizes)` averages them.
        bound: what f(x̄^N) − f* stays under with probability 1 − β, where x̄^N is the mean of the
            points at which gradients were taken: `clipjax.average_iterates`.

    Examples:
        >>> import clipjax
        >>> constants = ClippedSGDConstants(100, 0.1, 2.0, BatchSizes(0.0), 0.5)
        >>> tx = clipjax.average_iterates(clipjax.clipped_sgd(**constants.arguments))
        >>> constants.oracle_calls
        100
    """

    iterations: int
    learning_rate: float
    clip_level: float
    batch_sizes: BatchSizes
    bound: float

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for an attribute that no run could use."""
        _check_constants(self)

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `clipjax.clipped_sgd`."""
        return {"learning_rate": self.learning_rate, "clip_level": self.clip_level}

    @property
    def oracle_calls(self) -> int:
        """Return the number of stochastic gradients in all, Σ_k m_k."""
        return self.batch_sizes.total(self.iterations)


@dataclass(frozen=True)
class ClippedSSTMConstants:
    """Constants of clipped-SSTM.

    Attributes:
        iterations: N, the number of steps.
        learning_rate: 1/a.
        smoothness: L, or what stands in its place for a Hölder-continuous gradient.
        clip_level: B; the level of step k is λ_{k+1} = B/α_{k+1}.
        batch_sizes: m_k; `clipjax.accumulate_gradients(inner, every=batch_sizes)` averages them.
        bound: what f(y^N) − f* stays under with probability 1 − β; y^N is
            `clipjax.eval_params(opt_state, params)`.
        holder_exponent: ν.
        step_offset: s in α_{k+1} = (k + s)^{2ν/(1+ν)} / (2aL).

    Examples:
        >>> import clipjax
        >>> constants = ClippedSSTMConstants(100, 0.1, 1.0, 2.0, BatchSizes(0.0), 0.5)
        >>> tx = clipjax.clipped_sstm(**constants.arguments)
    """

    iterations: int
    learning_rate: float
    smoothness: float
    clip_level: float
    batch_sizes: BatchSizes
    bound: float
    holder_exponent: float = 1.0
    step_offset: int = 2

    def __post_init__(self) -> None:
        """Raise ValueError or TypeError for an attribute that no run could use."""
        _check_constants(self)
        check_positive("smoothness", self.smoothness, finite=True)
        check_interval("holder_exponent", self.holder_exponent, 0, 1)
        check_count("step_offset", self.step_offset, minimum=1)

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `clipjax.clipped_sstm`."""
        return {
            "learning_rate": self.learning_rate,
            "smoothness": self.smoothness,
            "clip_level": self.clip_level,
            "holder_exponent": self.holder_exponent,
            "step_offset": self.step_offset,
        }

    @property
    def oracle_calls(self) -> int:
        """Return the number of stochastic gradients in all, Σ_k m_k."""
        return self.batch_sizes.total(self.iterations)


Single = TypeVar("Single", ClippedSGDConstants, ClippedSSTMConstants)


@dataclass(frozen=True)
class RestartedConstants(Generic[Single]):
    """Constants of a restarted method: each run starts at the evaluation point of the one before.

    Attributes:
        runs: the constants of every run, in order; run t starts within R_t of the solution.

    Examples:
        >>> import clipjax
        >>> first = ClippedSSTMConstants(100, 0.1, 5.0, 1.0, BatchSizes(0.0), 0.5)
        >>> second = ClippedSSTMConstants(100, 0.1, 5.0, 0.7, BatchSizes(2.5), 0.25)
        >>> constants = RestartedConstants((first, second))
        >>> tx = clipjax.with_restarts(
        ...     lambda t: clipjax.clipped_sstm(**constants.arguments(t)), constants.restart_steps
        ... )
        >>> tx = clipjax.accumulate_gradients(tx, every=constants.batch_sizes)
        >>> print([int(constants.batch_sizes(k)) for k in (0, 99, 100, 199)])
        [1, 1, 3, 3]
        >>> constants.iterations, constants.oracle_calls
        (200, 400)
    """

    runs: tuple[Single, ...]

    def __post_init__(self) -> None:
        """Raise TypeError unless there are constants of one run or more."""
        kinds = ClippedSGDConstants | ClippedSSTMConstants
        runs = self.runs if isinstance(self.runs, tuple) else ()
        if not runs or not all(isinstance(run, kinds) for run in runs):
            raise TypeError(
                "runs must be a tuple of ClippedSGDConstants or ClippedSSTMConstants, at least "
                f"one, got {self.runs!r}."
            )

    @property
    def restart_steps(self) -> tuple[int, ...]:
        """Return the numbers of steps after which a run ends, the last one included.

        So the parameters end at the answer, and the statistics of the clipping end at zero.
        """
        return tuple(np.cumsum([run.iterations for run in self.runs]).tolist())

    @property
    def iterations(self) -> int:
        """Return the number of steps of all runs."""
        return sum(run.iterations for run in self.runs)

    @property
    def oracle_calls(self) -> int:
        """Return the number of stochastic gradients of all runs."""
        return sum(run.oracle_calls for run in self.runs)

    @property
    def bound(self) -> float:
        """Return what f − f* stays under at the end of the last run, with probability 1 − β."""
        return self.runs[-1].bound

    @property
    def batch_sizes(self) -> Schedule:
        """Return the batch size as a schedule of the step, counted through all runs."""
        starts = self.restart_steps[:-1]
        schedule: Any = optax.join_schedules([run.batch_sizes for run in self.runs], starts)
        return schedule

    def arguments(self, run: jax.typing.ArrayLike) -> dict[str, Any]:
        """Return the arguments of the factory for run number `run` from 0, which may be traced."""
        columns = [one.arguments for one in self.runs]
        return {name: _pick([column[name] for column in columns], run) for name in columns[0]}


def _pick(values: list[float], index: jax.typing.ArrayLike) -> float | jax.Array:
    """Return values[index]; a number, not an array, where they are all the same."""
    return values[0] if len(set(values)) == 1 else jnp.asarray(values, float)[jnp.asarray(index)]


def for_accuracy_or_iterations(
    constants: Callable[[int], Single],
    accuracy: float | None,
    iterations: int | None,
    first: int = 1,
    condition: str = "",
    given: str = "",
) -> Single:
    """Return `constants(N)` for the N given, or for the smallest N whose bound is the accuracy.

    The bounds contain ln(4N/β): they fall, but their equation has no closed solution. N is found by
    doubling and bisection, so the bound holds at N and fails at N − 1. (Near a moment of 1 a bound
    rises a little before it falls; the N found may then be a later one of several.)

    Args:
        constants: N -> the constants of a run of N iterations.
        accuracy: ε; or None.
        iterations: N; or None.
        first: the smallest N to which the theorem applies.
        condition: why, for the message.
        given: what the constants follow from, for the other message.

    Raises:
        ValueError: unless exactly one of the two is given, for numbers out of range, or if the
            accuracy takes more than 2^53 iterations.

    Examples:
        >>> def constants(n):
        ...     return ClippedSGDConstants(n, 1.0, 1.0, BatchSizes(0.0), bound=10 / n)
        >>> for_accuracy_or_iterations(constants, accuracy=0.3, iterations=None).iterations
        34
    """
    if iterations is not None and accuracy is None:
        check_count("iterations", iterations, minimum=1, maximum=2**53)
        if iterations < first:
            raise ValueError(f"iterations must be at least {first}{condition}, got {iterations}.")
        return constants(int(iterations))
    if iterations is None and accuracy is not None:
        check_positive("accuracy", accuracy, finite=True)

        def reached(n: int) -> bool:
            return constants(n).bound <= accuracy

        return constants(_smallest(reached, first, accuracy, given))
    raise ValueError(
        f"Give either accuracy or iterations, got accuracy={accuracy} and iterations={iterations}."
    )


def _smallest(reached: Callable[[int], bool], first: int, accuracy: float, given: str) -> int:
    if reached(first):
        return first
    failing = first
    while not reached(2 * failing):
        failing *= 2
        if failing > 2**52:
            raise ValueError(
                f"accuracy {accuracy} takes more than 2^53 iterations{given}; ask for less "
                "accuracy, or average more gradients in each."
            )
    candidates = range(failing + 1, 2 * failing + 1)
    return candidates[bisect_left(candidates, True, key=reached)]
