"""Every public rule as a step in float64 NumPy, for gradients that are not finite or very large.

Each function returns `step(g) -> update` with the rule's memory inside. Nothing is guarded: NaN and
infinite numbers go where the formulas take them. One convention is the library's: a norm that is
not finite never enters a history of norms. Gradients and updates are dicts of arrays.
"""

import jax
import numpy as np

from tests.optim import reference
from tests.optim.reference import Tree, clip, double, global_norm


def rate_of_descent(k):
    """The schedule of `DESCENT` in the contract."""
    return 0.5 / (1 + 0.1 * k)


def descent(clipping):
    """A clipping, given as clipping(k, g), and SGD after it."""
    count = iter(range(1000))

    def step(g: Tree) -> Tree:
        k = next(count)
        return {n: -rate_of_descent(k) * leaf for n, leaf in clipping(k, double(g)).items()}

    return step


def normalize(k, g):
    norm = global_norm(g)
    return {n: leaf / norm if norm != 0 else leaf for n, leaf in g.items()}


def quantile_per_tensor(quantile, window):
    history: dict[str, list[float]] = {}

    def clipping(k, g):
        out = {}
        for n in g:
            norm = global_norm({n: g[n]})
            if np.isfinite(norm):
                history[n] = [*history.get(n, []), norm][-window:]
            level = np.quantile(history[n], quantile) if n in history else np.inf
            out |= clip("global_norm", {n: g[n]}, level)
        return out

    return clipping


def zscore(threshold, decay, warmup_steps, max_norm):
    history, mean, variance = [], 0.0, 0.0

    def clipping(k, g):
        nonlocal mean, variance
        norm, level = global_norm(g), np.inf
        if len(history) < warmup_steps:
            if np.isfinite(norm):
                history.append(norm)
                mean, variance = np.mean(history), np.var(history)
        else:
            deviation = np.sqrt(variance)
            if norm > mean + threshold * deviation:
                level = mean + (threshold * deviation) ** 2 / (norm - mean)
            fed = min(norm, level)
            if np.isfinite(norm):
                mean = decay * mean + (1 - decay) * fed
                variance = decay * variance + (1 - decay) * (fed - mean) ** 2
        return clip("global_norm", g, min(level, max_norm))

    return clipping


def adaptive_norm(relative, absolute, decay, warmup_steps):
    gamma: dict[str, float] = {}

    def clipping(k, g):
        warm = k < warmup_steps
        whole = clip("global_norm", g, absolute)
        out = {}
        for n in g:
            known = gamma.get(n, np.inf)
            out |= {n: whole[n]} if warm else clip("global_norm", {n: g[n]}, relative * known)
            norm = global_norm({n: out[n]})
            # In the warm-up the norm that must be finite is that of the whole gradient. Zeros
            # do not enter; beside the largest float a norm of 1, clipped, is zero in float32.
            finite = np.isfinite(global_norm(g if warm else {n: g[n]}))
            if finite and norm > np.finfo(np.float32).tiny:
                mixed = decay * known + (1 - decay) * norm if n in gamma else norm
                gamma[n] = min(known, norm) if warm else mixed
        return out

    return clipping


def at_random(max_norm, base, key):
    def clipping(k, g):
        norm = global_norm(g)
        uniform = float(jax.random.uniform(jax.random.fold_in(key, k)))
        drawn = norm > max_norm and uniform < base ** (max_norm / norm)
        return clip("global_norm", g, max_norm if drawn else np.inf)

    return clipping


def sgd(rate, level, kind="global_norm", momentum=None, *, nesterov=False, after=False):
    """`momentum` and `rate` are numbers or functions of the step; None keeps no velocity."""
    v: Tree = {}
    count = iter(range(1000))

    def step(g: Tree) -> Tree:
        k = next(count)
        eta = rate(k) if callable(rate) else rate
        mu = momentum(k) if callable(momentum) else momentum
        g = double(g) if after else clip(kind, g, level)
        for n in g:
            v[n] = g[n] if mu is None or n not in v else mu * v[n] + g[n]
        d = {n: g[n] + mu * v[n] if nesterov else v[n] for n in g}
        d = clip(kind, d, level) if after else d
        return {n: -eta * leaf for n, leaf in d.items()}

    return step


def heavy_ball(inner, momentum):
    """Momentum after another rule's updates."""
    v: Tree = {}

    def step(g: Tree) -> Tree:
        for n, leaf in inner(g).items():
            v[n] = momentum * v.get(n, 0) + leaf
        return dict(v)

    return step


def triangles(x0, step_size, level=None, kind="global_norm", cap=1.0):
    """x^{k+2} − x^{k+1} of the method's three sequences; level(k) is λ_{k+1}."""
    state = {"y": double(x0), "z": double(x0), "A": 0.0, "k": 0, "x": double(x0)}

    def query(k):
        alpha, A = step_size(k), state["A"]
        if A / (A + alpha) > cap:
            A = alpha * cap / (1 - cap)
        theta = alpha / (A + alpha)
        x = {n: (1 - theta) * state["y"][n] + theta * state["z"][n] for n in x0}
        return alpha, A + alpha, theta, x

    def step(g: Tree) -> Tree:
        k = state["k"]
        g = double(g) if level is None else clip(kind, g, level(k))
        alpha, total, theta, x = query(k)
        z = {n: state["z"][n] - alpha * g[n] for n in g}
        y = {n: (1 - theta) * state["y"][n] + theta * z[n] for n in g}
        state.update(y=y, z=z, A=total, k=k + 1, x=x)
        return {n: query(k + 1)[3][n] - x[n] for n in g}

    step.answer = lambda: state["y"]
    return step


def mean_of_iterates(x0, inner, start):
    """The updates are those of `inner`; the answer is the mean of x^start, ..., x^{N-1}."""
    x, seen = [double(x0)], []

    def step(g: Tree) -> Tree:
        seen.append(x[-1])
        update = inner(g)
        x.append({n: x[-1][n] + update[n] for n in update})
        return update

    step.answer = lambda: {n: np.mean([x[n] for x in seen[start:]], axis=0) for n in x0}
    return step


def restarted(x0, method, ends):
    """method(x, t) is run t from x; a run ends after each step that `ends(steps so far)` names."""
    state = {"x": double(x0), "run": 0, "count": 0, "method": method(double(x0), 0)}

    def step(g: Tree) -> Tree:
        before, update = state["x"], state["method"](g)
        state["count"] += 1
        state["x"] = {n: before[n] + update[n] for n in before}
        if not ends(state["count"]):
            return update
        state["x"], state["run"] = state["method"].answer(), state["run"] + 1
        state["method"] = method(state["x"], state["run"])
        return {n: state["x"][n] - before[n] for n in before}

    return step


def moments(
    rate, level, kind="global_norm", *, b1=None, b2=None, eps=0.0, eps_root=0.0, initial=0.0,
    norm=False, delayed=False, correct=False,
):  # fmt: skip
    """Adam, or AdaGrad if b1 and b2 are None."""
    m: Tree = {}
    v: Tree = {}
    count = iter(range(1, 1000))

    def step(g: Tree) -> Tree:
        t, out = next(count), {}
        g = double(g) if level is None else clip(kind, g, level)
        whole = sum(np.sum(leaf**2) for leaf in g.values())
        for n, leaf in g.items():
            square = whole if norm else leaf**2
            old = v.get(n, np.full_like(leaf, initial))
            v[n] = old + square if b2 is None else b2 * old + (1 - b2) * square
            m[n] = leaf if b1 is None else b1 * m.get(n, 0 * np.ones_like(leaf)) + (1 - b1) * leaf
            b = old if delayed else v[n]
            m_hat, b_hat = (m[n] / (1 - b1**t), b / (1 - b2**t)) if correct else (m[n], b)
            out[n] = -rate * m_hat / (np.sqrt(b_hat + eps_root) + eps)
        return out

    return step


def acclip(rate, b1=0.9, b2=0.99, eps=1e-5, alpha=2.0, *, normalize=False):
    memory: dict[str, list] = {}

    def step(g: Tree) -> Tree:
        out = {}
        for n, leaf in double(g).items():
            zero = np.zeros_like(leaf)
            m, power, v = memory.get(n, (zero, zero, zero))
            m = b1 * m + (1 - b1) * leaf
            power = b2 * power + (1 - b2) * np.abs(leaf) ** alpha
            v = b2 * v + (1 - b2) * leaf**2
            memory[n] = [m, power, v]
            factor = np.minimum(power ** (1 / alpha) / (np.abs(m) + eps), 1)
            out[n] = -rate * factor * m / ((np.sqrt(b2 * v) + eps) if normalize else 1)
        return out

    return step


def inverse_root(a, exponent, eps):
    """A^{-e}, eigenvalues at least eps times the largest; NaN where A is not finite."""
    if not np.all(np.isfinite(a)):
        return np.full_like(a, np.nan)
    values, vectors = np.linalg.eigh(a)
    if values[-1] <= 0:
        return np.zeros_like(a)
    return vectors * np.maximum(values, eps * values[-1]) ** -exponent @ vectors.T


def shampoo(
    rate, decay, *, eps=1e-6, exponent=0.25, block=128, every=1, grafting="rmsprop", correct=True,
    initial=0.0,
):  # fmt: skip
    """Block by block, with loops; `block` is the size of all blocks but the last."""
    diagonal: Tree = {}
    left: Tree = {}
    right: Tree = {}
    roots: dict = {}
    count = iter(range(1000))

    def mean(old, new, beta):
        return old + new if beta is None else beta * old + (1 - beta) * new

    def step(g: Tree) -> Tree:
        k, out = next(count), {}
        bias = 1 - decay ** (k + 1) if correct and decay is not None else 1
        for n, leaf in double(g).items():
            beta = None if grafting == "adagrad" else decay
            diagonal[n] = mean(diagonal.get(n, initial), leaf**2, beta)
            v = diagonal[n] / (1 if beta is None else bias)
            own = leaf if grafting == "sgd" else leaf / np.sqrt(np.where(v == 0, np.inf, v))
            w = leaf.reshape(-1, leaf.shape[-1]) if leaf.ndim > 1 else leaf.reshape(1, -1)
            if min(w.shape) < 2:
                out[n] = -rate * own
                continue
            d = np.zeros_like(w)
            for i in range(0, w.shape[0], block):
                for j in range(0, w.shape[1], block):
                    at, b = (n, i, j), w[i : i + block, j : j + block]
                    L = left.get(at, initial * np.eye(b.shape[0]))
                    R = right.get(at, initial * np.eye(b.shape[1]))
                    left[at], right[at] = mean(L, b @ b.T, decay), mean(R, b.T @ b, decay)
                    if k % every == 0:
                        roots[at] = [
                            inverse_root(m[at] / bias, exponent, eps) for m in (left, right)
                        ]
                    d[i : i + block, j : j + block] = roots[at][0] @ b @ roots[at][1]
            size = np.linalg.norm(d)
            graft = 1 if grafting == "none" else np.linalg.norm(own) / (size if size != 0 else 1)
            out[n] = -rate * graft * d.reshape(leaf.shape)
        return out

    return step


def preconditioned(decay, **options):
    """Shampoo as what comes before a descent: its steps with the rate −1."""
    step = shampoo(-1.0, decay, **options)
    return lambda k, g: step(g)


def clipper(kind, level):
    return lambda k, g: reference.clip(kind, g, level)
