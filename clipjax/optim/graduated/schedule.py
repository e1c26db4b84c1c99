r"""What graduated optimisation plans ahead: the levels of the noise, and who pays for each decay.

The noise level δ = ηC/√b (with momentum: `clipjax.noise_level`) is to fall stage by stage,
δ_{m+1} = γ_m δ_m. A smaller learning rate, a larger batch or less momentum all lower it, and a plan
splits each decay between them by *shares*: with ℓ_m = δ_m/δ_1 the batch lowers the noise by
ℓ^{batch share}, momentum by ℓ^{momentum share}, the learning rate by the rest. For SGD that is
Algorithm 3 of the paper,

    η_{m+1} = κ_m η_m,   b_{m+1} = λ_m b_m,   κ_m/√λ_m = γ_m,

and a halving of δ² is "lr": η · 0.7071, "batch": b · 2, or "hybrid": η · 0.8660 and b · 1.5.

Everything here is host arithmetic in float64: `graduated_schedule` gives the numbers of each stage,
`clipjax.plan_stages` adds how long the stages last. `implicit_graduated_optimization` trains by a
plan; a training loop with batches of its own reads the same numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from clipjax.optim._checks import check_choice, check_count, check_interval, check_positive
from clipjax.optim.graduated.noise_levels import (
    BOUNDED,
    FACTORS,
    WITHOUT_MOMENTUM,
    check_noise_arguments,
    noise_level,
    solve_momentum,
    variance_factor,
)


@dataclass(frozen=True)
class GraduatedSchedule:
    """The numbers of each stage, first to last, and the noise formula that they follow.

    Attributes:
        levels: δ_m/δ_1, the relative noise levels; 1 first.
        learning_rates: η_m.
        batch_sizes: b_m, in examples; whole numbers.
        momenta: β_m, in [0, 1).
        kind: which formula of `noise_level` ties them together.
        gradient_std: C, or None where it cancels out of the relative levels.
        gradient_bound: K, for the kinds that have it.
        max_batch_size: the largest batch that was allowed, or None.
    """

    levels: tuple[float, ...]
    learning_rates: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    momenta: tuple[float, ...]
    kind: str = "shb_stationary"
    gradient_std: float | None = None
    gradient_bound: float | None = None
    max_batch_size: int | None = None

    def __post_init__(self):
        lengths = set()
        for name in ("levels", "learning_rates", "batch_sizes", "momenta"):
            value = getattr(self, name)
            if not isinstance(value, Sequence | np.ndarray | jax.Array):
                raise TypeError(f"{name} must be one number for each stage, got {value!r}.")
            object.__setattr__(self, name, tuple(value))
            lengths.add(len(getattr(self, name)))
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                "levels, learning_rates, batch_sizes and momenta need one number per stage, at "
                f"least one, got {sorted(lengths)} numbers."
            )
        check_choice("kind", self.kind, FACTORS)
        for level, eta, batch, beta in zip(
            self.levels, self.learning_rates, self.batch_sizes, self.momenta, strict=True
        ):
            check_positive("levels", level, finite=True)
            check_positive("learning_rates", eta, finite=True)
            check_count("batch_sizes", batch, minimum=1)
            check_interval("momenta", beta, 0, 1, closed_high=False)

    @property
    def num_stages(self) -> int:
        """Number of stages, M."""
        return len(self.levels)

    def noise_levels(
        self, gradient_std: float | None = None, gradient_bound: float | None = None
    ) -> tuple[float, ...]:
        """Return δ_m of each stage, from the numbers of the stages alone.

        Args:
            gradient_std: C, such as one measured in training; None for the schedule's own.
            gradient_bound: K; None for the schedule's own.

        Examples:
            >>> graduated_schedule(0.125, 100, 4, power=1.0).noise_levels(gradient_std=80.0)
            (1.0, 0.75, 0.5, 0.25)
        """
        gradient_std = self.gradient_std if gradient_std is None else gradient_std
        gradient_bound = self.gradient_bound if gradient_bound is None else gradient_bound
        if gradient_std is None:
            raise ValueError(
                "noise_levels needs gradient_std, the C of δ = ηC/√b: this schedule was made "
                "without one. Its attribute `levels` holds δ_m/δ_1."
            )
        numbers = zip(self.learning_rates, self.batch_sizes, self.momenta, strict=True)
        return tuple(
            float(
                noise_level(
                    eta,
                    batch,
                    gradient_std,
                    momentum=beta,
                    gradient_bound=gradient_bound,
                    kind=self.kind,
                )
            )
            for eta, batch, beta in numbers
        )

    def in_multiples_of(self, micro_batch_size: int) -> "GraduatedSchedule":
        """Return the schedule with every batch a multiple of `micro_batch_size`, at the same noise.

        Batches go to the nearest multiple that `max_batch_size` allows, at least one; what that
        does to the noise the learning rate makes good.

        Raises:
            ValueError: if a stage's batch (or `max_batch_size`) is smaller than a micro-batch.

        Examples:
            >>> schedule = graduated_schedule(0.1, 4, 3, power=1.0, batch_share=1.0)
            >>> schedule.batch_sizes, schedule.in_multiples_of(4).batch_sizes
            ((4, 9, 36), (4, 8, 36))
            >>> a, b = schedule.noise_levels(1.0), schedule.in_multiples_of(4).noise_levels(1.0)
            >>> max(abs(x - y) for x, y in zip(a, b)) < 1e-15
            True
        """
        check_count("micro_batch_size", micro_batch_size, minimum=1)
        if min(self.batch_sizes) < micro_batch_size:
            raise ValueError(
                f"micro_batch_size={micro_batch_size} is larger than a batch of the schedule, "
                f"which has {min(self.batch_sizes)} examples. Take smaller micro-batches."
            )
        batches = tuple(
            micro_batch_size * _whole(b / micro_batch_size, self.max_batch_size, micro_batch_size)
            for b in self.batch_sizes
        )
        rates = tuple(
            eta * (self._squared(old, beta) / self._squared(new, beta)) ** 0.5
            for eta, old, new, beta in zip(
                self.learning_rates, self.batch_sizes, batches, self.momenta, strict=True
            )
        )
        return replace(self, learning_rates=rates, batch_sizes=batches)

    def _squared(self, batch_size: float, momentum: float) -> float:
        """Return δ²/η² (times an unknown constant where C is not known)."""
        gradient_std = 1.0 if self.gradient_std is None else self.gradient_std
        return variance_factor(self.kind, momentum, batch_size, gradient_std, self.gradient_bound)


def _whole(wanted: float, limit: int | None, unit: int = 1) -> int:
    """Return the nearest whole number >= 1, at most limit/unit."""
    nearest = max(1, round(wanted))
    return nearest if limit is None else min(nearest, limit // unit)


def polynomial_levels(num_stages: int, power: float) -> tuple[float, ...]:
    r"""Return ((M − m + 1)/M)^p for m = 1, ..., M: the product of γ_m = ((M − m)/(M − m + 1))^p.

    Examples:
        >>> polynomial_levels(4, 1.0)
        (1.0, 0.75, 0.5, 0.25)
    """
    return tuple(((num_stages - m) / num_stages) ** power for m in range(num_stages))


def cosine_levels(num_stages: int) -> tuple[float, ...]:
    """Return (1 + cos(π(m − 1)/M))/2 for m = 1, ..., M.

    Examples:
        >>> [round(level, 3) for level in cosine_levels(4)]
        [1.0, 0.854, 0.5, 0.146]
    """
    return tuple((1 + math.cos(math.pi * m / num_stages)) / 2 for m in range(num_stages))


def geometric_levels(num_stages: int, factor: float) -> tuple[float, ...]:
    """Return γ^{m−1} for m = 1, ..., M.

    Examples:
        >>> geometric_levels(4, 0.5)
        (1.0, 0.5, 0.25, 0.125)
    """
    return tuple(factor**m for m in range(num_stages))


def exponential_levels(num_stages: int, final_level: float) -> tuple[float, ...]:
    """Return the geometric levels that end at `final_level`.

    Examples:
        >>> [round(level, 3) for level in exponential_levels(3, 0.01)]
        [1.0, 0.1, 0.01]
    """
    last = max(num_stages - 1, 1)
    return tuple(final_level ** (m / last) for m in range(num_stages))


DECAYS = ("polynomial", "geometric", "cosine", "exponential", "constant")


def _levels(
    decay: str, num_stages: int, power: float, factor: float | None, final_level: float | None
) -> tuple[float, ...]:
    check_choice("decay", decay, DECAYS)
    for name, value, owner in (
        ("factor", factor, "geometric"),
        ("final_level", final_level, "exponential"),
    ):
        if value is not None and decay != owner:
            raise ValueError(
                f"{name} belongs to decay={owner!r}, got {name}={value} with decay={decay!r}."
            )
        check_interval(name, value, 0, 1, closed_low=False, optional=True)
    if decay == "polynomial":
        check_interval("power", power, 0, 1, closed_low=False)
        return polynomial_levels(num_stages, power)
    if decay == "cosine":
        return cosine_levels(num_stages)
    if decay == "geometric":
        return geometric_levels(num_stages, 0.5**0.5 if factor is None else factor)
    if decay == "exponential":
        return exponential_levels(num_stages, 0.01 if final_level is None else final_level)
    return (1.0,) * num_stages


def graduated_schedule(
    learning_rate: float,
    batch_size: int,
    num_stages: int,
    *,
    power: float = 0.9,
    decay: str = "polynomial",
    batch_share: float = 0.0,
    momentum_share: float = 0.0,
    momentum: float = 0.0,
    max_batch_size: int | None = None,
    kind: str = "shb_stationary",
    gradient_std: float | None = None,
    gradient_bound: float | None = None,
    factor: float | None = None,
    final_level: float | None = None,
    dataset_size: int | None = None,
) -> GraduatedSchedule:
    r"""Plan the learning rate, batch size and momentum of each stage so that the noise falls.

    The relative levels ℓ_m = δ_m/δ_1 of the stages m = 1, ..., M:

    | decay       | ℓ_m                                                                          |
    |-------------|------------------------------------------------------------------------------|
    | polynomial  | ((M − m + 1)/M)^power, from γ_m = ((M − m)/(M − m + 1))^power                |
    | geometric   | factor^{m−1}; 1/√2 by default, as in the experiments (Hazan et al. halve)    |
    | cosine      | (1 + cos(π(m − 1)/M))/2                                                      |
    | exponential | geometric from 1 to final_level, 0.01 by default                             |
    | constant    | 1, the baseline                                                              |

    The paper's algorithm has one more, (M + 1)-th, level of noise 0: gradient descent on f itself.
    No learning rate above 0 and no finite batch has it, so the stages here end at the last positive
    level, (1/M)^power.

    Each decay is split by shares: the batch is b_1 ℓ^{−2·batch_share}, rounded to a whole number
    and capped; the momentum is solved so that at η_1 and b_1 it lowers the noise by
    ℓ^{momentum_share}; the learning rate is what the formula then asks for, so that δ_m = ℓ_m δ_1
    holds to rounding however the batch was rounded or capped. Shares 0 and 0 leave all to the
    learning rate; a batch_share of 1 leaves it (all but the rounding) constant. "hybrid"
    (η · 0.8660, b · 1.5 for δ · 0.7071) is batch_share = log2(1.5) = 0.585.

    Args:
        learning_rate: η_1 > 0; may be traced, the others are concrete.
        batch_size: b_1 ≥ 1, in examples.
        num_stages: M ≥ 1.
        power: p in (0, 1], the range of the theorem; of "polynomial" only.
        decay: one of the table.
        batch_share: share of each decay (in its logarithm) that the batch size pays, in [0, 1].
        momentum_share: share that momentum pays; the two sum to 1 at most.
        momentum: β_1 in [0, 1), constant unless `momentum_share` > 0.
        max_batch_size: largest batch allowed; beyond it the learning rate pays.
        kind: the formula of `noise_level`. By default δ² = η²C²/((1 − β)b). At constant momentum
            every kind but "shb_2024" and "nshb_2024" gives the same schedule.
        gradient_std: C; needed by "shb_2024" and "nshb_2024", cancels otherwise.
        gradient_bound: K; for those two only.
        factor: γ in (0, 1], of "geometric".
        final_level: ℓ_M in (0, 1], of "exponential".
        dataset_size: number of training examples; a batch larger than that is refused.

    Returns:
        A `GraduatedSchedule` of per-stage tuples.

    Raises:
        ValueError: for numbers out of range, a misspelt decay or kind (with the nearest name),
            shares that sum to more than 1, a batch larger than the data set, a momentum share
            without momentum, or one that asks for a momentum below 0 (with the largest possible).

    Examples:
        >>> schedule = graduated_schedule(0.1, 32, 3, decay="geometric", batch_share=1.0)
        >>> schedule.batch_sizes
        (32, 64, 128)
        >>> [round(rate, 6) for rate in schedule.learning_rates]
        [0.1, 0.1, 0.1]
        >>> half = graduated_schedule(0.1, 32, 3, decay="geometric", batch_share=0.5)
        >>> half.batch_sizes, [round(rate, 6) for rate in half.learning_rates]
        ((32, 45, 64), [0.1, 0.083853, 0.070711])

    References:
        Sato, Iiduka, 2024 (https://arxiv.org/abs/2311.08745), Algorithm 3 (implicit graduated
        optimisation).
    """
    check_positive("learning_rate", learning_rate, finite=True)
    check_count("batch_size", batch_size, minimum=1)
    check_count("num_stages", num_stages, minimum=1)
    _check_shares(batch_share, momentum_share, momentum, kind)
    check_noise_arguments(kind, momentum, gradient_bound)
    if gradient_std is not None:
        check_positive("gradient_std", gradient_std, finite=True)
        check_interval("gradient_std", gradient_std, 0, 1e100)
    elif kind in BOUNDED:
        raise ValueError(f"kind={kind!r} needs gradient_std: its C does not cancel.")
    if max_batch_size is not None:
        check_count("max_batch_size", max_batch_size, minimum=1)
        if max_batch_size < batch_size:
            raise ValueError(
                f"max_batch_size={max_batch_size} is smaller than the first batch, "
                f"batch_size={batch_size}."
            )
    levels = _levels(decay, num_stages, power, factor, final_level)
    batches = tuple(
        _whole(batch_size * level ** (-2 * batch_share), max_batch_size) for level in levels
    )
    check_dataset(batches, dataset_size)
    known = 1.0 if gradient_std is None else float(gradient_std)
    momenta = (float(momentum),) * num_stages
    if momentum_share > 0:
        momenta = _momenta(
            levels, momentum_share, momentum, batch_size, known, gradient_bound, kind
        )
    first = variance_factor(kind, momentum, batch_size, known, gradient_bound)
    rates = tuple(
        level
        * learning_rate
        * (first / variance_factor(kind, beta, batch, known, gradient_bound)) ** 0.5
        for level, batch, beta in zip(levels, batches, momenta, strict=True)
    )
    return GraduatedSchedule(
        levels,
        rates,
        batches,
        momenta,
        kind=kind,
        gradient_std=gradient_std,
        gradient_bound=gradient_bound,
        max_batch_size=max_batch_size,
    )


def _check_shares(batch_share: float, momentum_share: float, momentum: float, kind: str) -> None:
    check_interval("batch_share", batch_share, 0, 1)
    check_interval("momentum_share", momentum_share, 0, 1)
    check_interval("momentum", momentum, 0, 1, closed_high=False)
    if batch_share + momentum_share > 1 + 1e-12:
        raise ValueError(
            "batch_share and momentum_share must sum to 1 at most, the learning rate pays the "
            f"rest; got {batch_share} + {momentum_share} = {batch_share + momentum_share:.6g}."
        )
    if momentum_share > 0 and momentum == 0:
        raise ValueError(
            f"momentum_share={momentum_share} needs a momentum to take from, got momentum=0."
        )
    if momentum_share > 0 and kind in WITHOUT_MOMENTUM:
        raise ValueError(
            f"momentum_share={momentum_share} needs a kind whose noise depends on momentum, got "
            f"kind={kind!r}."
        )


def check_dataset(batch_sizes: Sequence[int], dataset_size: int | None) -> None:
    """Refuse a batch larger than the data set, if its size is given."""
    if dataset_size is None:
        return
    check_count("dataset_size", dataset_size, minimum=1)
    if max(batch_sizes) > dataset_size:
        stage = next(m for m, batch in enumerate(batch_sizes, 1) if batch > dataset_size)
        raise ValueError(
            f"Stage {stage} asks for batches of {batch_sizes[stage - 1]} examples, but the data "
            f"set has dataset_size={dataset_size}. Set max_batch_size to {dataset_size} or less."
        )


def _momenta(levels, share, momentum, batch_size, gradient_std, gradient_bound, kind):
    """Return β_m that lowers δ by ℓ_m^share at the first stage's learning rate and batch."""
    arguments = {"gradient_std": gradient_std, "gradient_bound": gradient_bound, "kind": kind}
    start = noise_level(1.0, batch_size, momentum=momentum, **arguments)
    least = noise_level(1.0, batch_size, momentum=0.0, **arguments)
    if min(levels) ** share * start < least * (1 - 1e-12):
        most = math.log(least / start) / math.log(min(levels))
        raise ValueError(
            f"momentum_share={share} would take the momentum below 0: from {momentum} to 0 it "
            f"lowers the noise to {least / start:.6g} of the first level, its share of the last "
            f"one asks for {min(levels) ** share:.6g}. Set momentum_share to "
            f"{math.floor(most * 1e4) / 1e4} or less."
        )
    return tuple(
        momentum
        if level == 1
        else solve_momentum(
            max(level**share * start, least), 1.0, batch_size=batch_size, **arguments
        )
        for level in levels
    )
