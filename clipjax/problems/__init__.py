"""Objectives and noises whose constants are known exactly.

A stochastic method sees an objective through an *oracle*: it draws ξ, then answers queries
∇f(x, ξ). Drawing apart from answering lets several methods query one draw (common random numbers:
their paths differ by what the methods do and by nothing else) and lets one method query two points
with it.

A `Problem` states its constants: L, μ, f* and x*. A `Noise` states its tail. `AdditiveNoise` joins
one of each into an oracle; `Minibatch` samples the examples of a finite sum.
"""

from clipjax.problems.benchmark_functions import (
    Ackley,
    Alpine1,
    DropWave,
    Ellipsoid,
    Griewank,
    HappyCat,
    Rastrigin,
    Salomon,
    Schwefel,
    Schwefel221,
    Sphere,
)
from clipjax.problems.finite_sums import FiniteSum, LogisticRegression, PowerRegression
from clipjax.problems.functions import Function
from clipjax.problems.noises import Normal, StudentT, SymmetricStable
from clipjax.problems.objectives import Quadratic, Rosenbrock
from clipjax.problems.oracles import AdditiveNoise, Minibatch
from clipjax.problems.protocols import Noise, Oracle, Problem
from clipjax.problems.skewed_noises import BurrXII, Exponential, Pareto, Standardised, Weibull

__all__ = [
    "Ackley",
    "AdditiveNoise",
    "Alpine1",
    "BurrXII",
    "DropWave",
    "Ellipsoid",
    "Exponential",
    "FiniteSum",
    "Function",
    "Griewank",
    "HappyCat",
    "LogisticRegression",
    "Minibatch",
    "Noise",
    "Normal",
    "Oracle",
    "Pareto",
    "PowerRegression",
    "Problem",
    "Quadratic",
    "Rastrigin",
    "Rosenbrock",
    "Salomon",
    "Schwefel",
    "Schwefel221",
    "Sphere",
    "Standardised",
    "StudentT",
    "SymmetricStable",
    "Weibull",
]
