"""Every rule written out in float64 NumPy, one line of the paper a line: what the tests compare to.

Gradients are dicts of arrays. Nothing here is shared with the library.
"""

import numpy as np

Tree = dict[str, np.ndarray]


def double(tree: Tree) -> Tree:
    return {name: np.asarray(leaf, np.float64) for name, leaf in tree.items()}


def global_norm(g: Tree) -> float:
    return float(np.sqrt(sum(float(np.sum(leaf**2)) for leaf in g.values())))


def clip(kind: str, g: Tree, level: float) -> Tree:
    g = double(g)
    if kind == "global_norm":
        norm = global_norm(g)
        factor = np.minimum(1.0, level / norm) if norm != 0 else 1.0  # NaN if the norm is
        return {n: leaf * factor for n, leaf in g.items()}
    if kind == "tensor_norm":
        return {n: clip("global_norm", {n: leaf}, level)[n] for n, leaf in g.items()}
    if kind == "value":
        return {n: np.minimum(np.maximum(leaf, -level), level) for n, leaf in g.items()}
    raise AssertionError(kind)


def norm(kind: str, g: Tree) -> float:
    g = double(g)
    if kind == "global_norm":
        return global_norm(g)
    if kind == "tensor_norm":
        return float(np.max([global_norm({n: leaf}) for n, leaf in g.items()]))
    return float(np.max([np.max(np.abs(leaf)) for leaf in g.values()]))


def sgd(x0, grads, rate, level, kind, momentum=0.0, nesterov=False, clip_after=False):
    """The iterates x^1, x^2, ... of clipped SGD; rate and level are functions of k."""
    x = double(x0)
    v = {n: np.zeros_like(leaf) for n, leaf in x.items()}
    xs = []
    for k, g in enumerate(grads):
        g = double(g)
        if not clip_after:
            g = clip(kind, g, level(k))
        v = {n: momentum * v[n] + g[n] for n in x}
        d = {n: g[n] + momentum * v[n] for n in x} if nesterov else v
        if clip_after:
            d = clip(kind, d, level(k))
        x = {n: x[n] - rate(k) * d[n] for n in x}
        xs.append(x)
    return xs


def sstm(x0, grads, step_size, level, kind="global_norm", max_averaging_ratio=1.0):
    """SSTM in its own three sequences. step_size(k) is α_{k+1}; level(k) is λ_{k+1}, or None.

    Returns, for each step, x^{k+2} (the next query point), y^{k+1}, z^{k+1} and θ_{k+1}.
    """
    y = double(x0)
    z = double(x0)
    A = 0.0
    rows = []

    def next_query(k, A, y, z):
        alpha = step_size(k)
        A_next = A + alpha
        if A_next > 0 and A / A_next > max_averaging_ratio:
            A = alpha * max_averaging_ratio / (1 - max_averaging_ratio)
            A_next = A + alpha
        theta = alpha / A_next if alpha > 0 else 0.0
        x = {n: (1 - theta) * y[n] + theta * z[n] for n in y}
        return alpha, A_next, theta, x

    alpha, A, theta, x = next_query(0, A, y, z)
    for k, g in enumerate(grads):
        g = double(g)
        if level is not None:
            g = clip(kind, g, level(k))
        z_next = {n: z[n] - alpha * g[n] for n in z}
        y = {n: (1 - theta) * y[n] + theta * z_next[n] for n in y}
        z = z_next
        used = theta
        alpha, A, theta, x = next_query(k + 1, A, y, z)
        rows.append({"x": x, "y": y, "z": z, "theta": used, "A": A})
    return rows
