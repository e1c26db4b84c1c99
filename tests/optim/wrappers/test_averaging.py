"""Evaluation points: SSTM's y from one buffer, means of iterates, and groups put together again."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import clipjax
from clipjax.optim.evaluation_point import EvaluationPoint
from tests.optim import reference
from tests.optim.problems import assert_rows_close, gradients, run, tree

STEPS = 20


def means(xs, start=0, decay=None):
    """The averages after 1, 2, ... updates, of x^0, x^1, ... written out."""
    rows = []
    for n in range(1, len(xs) + 1):
        seen = xs[start:n]
        if not seen:
            rows.append(None)
        elif decay is None:
            rows.append({i: np.mean([x[i] for x in seen], axis=0) for i in seen[0]})
        else:
            mean = seen[0]
            for x in seen[1:]:
                mean = {i: decay * mean[i] + (1 - decay) * x[i] for i in mean}
            rows.append(mean)
    return rows


@pytest.mark.parametrize(
    ("start", "decay"), [(0, None), (1, None), (7, None), (0, 0.9), (7, 0.9), (1, 0.0)]
)
def test_averages_equal_those_written_out(start, decay):
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(STEPS, jnp.float64)
        inner = clipjax.clipped_sgd(0.1, 0.7, momentum=0.9)
        tx = clipjax.average_iterates(inner, start=start, decay=decay)
        state, xs, averages = run(tx, params, grads, evaluate=True)
    iterates = reference.sgd(params, grads, lambda k: 0.1, lambda k: 0.7, "global_norm", 0.9)
    assert_rows_close(xs, iterates, rtol=1e-12, atol=1e-13)
    # The iterates averaged are x^0 … x^{N−1}; before step `start` the answer is x^N itself.
    expected = means([reference.double(params), *iterates[:-1]], start, decay)
    expected = [mean or x for mean, x in zip(expected, iterates, strict=True)]
    assert_rows_close(averages, expected, rtol=1e-12, atol=1e-13)
    assert (int(state.count), int(state.averaged)) == (STEPS, STEPS - start)


WEIGHTS = {
    "steps": lambda k: 0.1 / (k + 1.0) ** 0.5,
    "some are zero": lambda k: 1.0 * (k % 3 == 1),
    "huge": lambda k: 1e37 * (1.0 + k % 2),
    "growing": lambda k: (k + 1.0) ** 2,
}


@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weighted_averages_equal_those_written_out(name, start):
    """The number of the weight is that of the iterate, and of the step that starts there."""
    weights = WEIGHTS[name]
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(STEPS, jnp.float64)
        inner = clipjax.clipped_sgd(weights if name == "steps" else 0.1, 0.7)
        tx = clipjax.average_iterates(inner, start=start, weights=weights)
        state, xs, averages = run(tx, params, grads, evaluate=True)
    rate = weights if name == "steps" else lambda k: 0.1
    iterates = reference.sgd(params, grads, rate, lambda k: 0.7, "global_norm")
    assert_rows_close(xs, iterates, rtol=1e-12, atol=1e-13)
    seen, expected = [reference.double(params), *iterates[:-1]], []
    for n in range(1, STEPS + 1):
        w = np.array([weights(k) for k in range(start, n)])
        if np.sum(w) == 0:
            expected.append(iterates[n - 1])
            continue
        rows = seen[start:n]
        expected.append({i: np.average([x[i] for x in rows], axis=0, weights=w) for i in rows[0]})
    assert_rows_close(averages, expected, rtol=1e-12, atol=1e-13)
    assert (int(state.count), int(state.averaged)) == (STEPS, STEPS - start)


def test_constant_weights_give_the_uniform_mean_whatever_they_are():
    params, grads = tree(), gradients(STEPS)
    sgd = clipjax.clipped_sgd(0.1, 0.7)
    _, _, uniform = run(clipjax.average_iterates(sgd), params, grads, evaluate=True)
    for weight in (1e-30, 3.0, 1e30):
        tx = clipjax.average_iterates(sgd, weights=weight)
        _, _, averages = run(tx, params, grads, evaluate=True)
        chex.assert_trees_all_close(averages, uniform, rtol=1e-5, atol=1e-6)


def test_a_sum_of_weights_grows_beyond_the_precision_of_float32():
    """2^24 + 1 is 2^24 in float32: without the second number W would stand still there."""
    tx = clipjax.average_iterates(optax.identity(), weights=1.0)
    x = jnp.zeros(1)
    state = tx.init(x)
    _, state = tx.update(x, state, x)
    state = state._replace(total=jnp.float32(2.0**24))
    step = jax.jit(lambda state: tx.update(x, state, x)[1])
    for _ in range(100):
        state = step(state)
    assert float(state.total) + float(state.rest) == 2.0**24 + 100


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_bad_weight_of_a_schedule_is_seen(weight):
    tx = clipjax.average_iterates(optax.sgd(0.1), weights=lambda k: jnp.where(k == 1, weight, 1.0))
    x = jnp.ones(2)
    state, answers = tx.init(x), []
    for _ in range(3):
        _, state = tx.update(x, state, x)
        answers.append(bool(np.all(np.isfinite(clipjax.eval_params(state, x)))))
    assert answers == [True, False, False]


def weighted_mean(points, weights):
    """Return the mean that was kept of the points, which `update` is given one after another."""
    tx = clipjax.average_iterates(optax.identity(), weights=lambda k: jnp.asarray(weights)[k])
    state = tx.init(jnp.asarray(points[0]))
    for x in points:
        _, state = tx.update(jnp.zeros(()), state, jnp.asarray(x))
    return float(clipjax.eval_params(state, jnp.asarray(points[-1])))


def test_an_iterate_of_weight_zero_may_be_anything():
    assert weighted_mean([1.0, np.nan, 3.0], [1.0, 0.0, 1.0]) == 2.0


def test_the_first_iterate_with_a_weight_is_the_mean_to_the_bit():
    """The mean before is the start, 1e30: 1e30 + (1 - 1e30) would be 0 in float32."""
    assert weighted_mean([1e30, 1.0], [0.0, 1.0]) == 1.0


def test_without_weights_the_state_is_what_it_was():
    """Checkpoints of runs that average uniformly or with a decay stay readable."""
    for options in ({}, {"decay": 0.9}):
        state = clipjax.average_iterates(optax.sgd(0.1), **options).init(jnp.ones(1))
        assert type(state) is clipjax.AverageIteratesState
        assert state._fields == ("count", "averaged", "mean", "inner_state")


def test_the_answer_of_sstm_is_y_of_its_three_sequences():
    """From N = 0, where θ = 1 and y⁰ = x⁰, on; with α_k = (k + 1)/20 and a pause of three steps."""
    steps = [0.0 if 8 <= k < 11 else (k + 1) / 20 for k in range(STEPS + 1)]
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(STEPS, jnp.float64)
        tx = clipjax.scale_by_similar_triangles(jnp.asarray(steps).__getitem__)
        rows = reference.sstm(params, grads, steps.__getitem__, None)
        assert rows[0]["theta"] == 1
        start = clipjax.eval_params(tx.init(params), params)
        _, xs, answers = run(tx, params, grads, evaluate=True)
        assert_rows_close(jax.tree.map(lambda leaf: leaf[None], start), [reference.double(params)])
        assert_rows_close(answers, [row["y"] for row in rows], rtol=1e-12, atol=1e-12)
        assert not np.allclose(answers["vector"], xs["vector"], rtol=1e-3)


def test_before_the_first_update_the_answer_is_the_parameters():
    """Also if they were changed by hand after `init`, and for θ = 1 of SSTM."""
    for tx in (
        clipjax.average_iterates(optax.sgd(0.1)),
        clipjax.clipped_sstm(0.1, 1.0, 1.0),
        clipjax.clipped_sstm(0.1, 1.0, None),
    ):
        state = tx.init(tree())
        moved = tree(1)
        for answer in (
            clipjax.eval_params(state, moved),
            jax.jit(clipjax.eval_params)(state, moved),
        ):
            for name in moved:
                np.testing.assert_array_equal(answer[name], moved[name])


def test_the_mean_of_low_precision_parameters_is_kept_in_float32():
    """A bfloat16 mean of 1 and 1 + 1/128 would be one of the two; the buffer knows better."""
    tx = clipjax.average_iterates(optax.identity())
    xs = [jnp.asarray([1.0], jnp.bfloat16), jnp.asarray([1.0078125], jnp.bfloat16)]
    state = tx.init(xs[0])
    for x in xs:
        _, state = tx.update(jnp.zeros_like(x), state, x)
    assert state.mean.dtype == jnp.float32
    np.testing.assert_array_equal(state.mean, [1.00390625])
    assert clipjax.eval_params(state, xs[0]).dtype == jnp.bfloat16


def test_whatever_moves_the_parameters_is_averaged():
    """A transformation after it in a chain changes the iterates, and so the mean: x = 0, −2, −4."""
    tx = optax.chain(clipjax.average_iterates(optax.sgd(1.0)), optax.scale(2.0))
    x = jnp.zeros(1)
    state = tx.init(x)
    for _ in range(3):
        updates, state = tx.update(jnp.ones(1), state, x)
        x = optax.apply_updates(x, updates)
    np.testing.assert_array_equal(x, [-6.0])
    np.testing.assert_array_equal(clipjax.eval_params(state, x), [-2.0])


def test_extra_arguments_reach_the_inner_transformation():
    def update(updates, state, params=None, *, value, **extra):
        return jax.tree.map(lambda g: g * value, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda params: (), update)
    tx = clipjax.average_iterates(inner)
    updates, _ = tx.update(jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1), value=3.0)
    np.testing.assert_array_equal(updates, [3.0])


@pytest.mark.parametrize("wrap", ["masked", "prefix", "partition"])
def test_groups_are_put_together_again(wrap):
    """SSTM on one leaf, an average on another, plain SGD on the third: each as if it were alone."""
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(STEPS, jnp.float64)
        sstm = clipjax.clipped_sstm(0.3, 2.0, 0.7)
        mean = clipjax.average_iterates(clipjax.clipped_sgd(0.1, 0.5))
        sgd = optax.sgd(0.1)
        labels = {"matrix": "sstm", "vector": "mean", "scalar": "sgd"}
        nested = {"weights": {n: params[n] for n in ("matrix", "vector")}, "rest": params["scalar"]}
        if wrap == "partition":
            # A group to which nothing belongs does no harm.
            groups = {"sstm": sstm, "mean": mean, "sgd": sgd, "nobody": sstm}
            tx = optax.partition(groups, labels)
        elif wrap == "masked":
            tx = optax.chain(
                *(
                    optax.masked(part, {n: labels[n] == label for n in labels})
                    for label, part in (("sstm", sstm), ("mean", mean), ("sgd", sgd))
                )
            )
        else:  # one mask for the subtree "weights"
            tx = optax.masked(sstm, {"weights": False, "rest": True})
            state = tx.init(nested)
            answer = clipjax.eval_params(state, nested)
            np.testing.assert_array_equal(answer["weights"]["matrix"], params["matrix"])
            return
        _, _, answers = run(tx, params, grads, evaluate=True)
        for name, part in (("matrix", sstm), ("vector", mean), ("scalar", None)):
            alone = {name: params[name]}
            own = [{name: g[name]} for g in grads]
            _, _, expected = run(part or sgd, alone, own, evaluate=part is not None)
            np.testing.assert_allclose(answers[name], expected[name], rtol=1e-12, atol=1e-12)


def test_found_at_any_depth_of_wrappers():
    params = tree()
    inner = optax.chain(optax.add_decayed_weights(1e-4), clipjax.clipped_sstm(0.1, 1.0, 1.0))
    tx = optax.apply_if_finite(optax.chain(optax.identity(), inner), 3)
    tx = optax.MultiSteps(tx, 1)
    state = tx.init(params)
    updates, state = tx.update(params, state, params)
    x = optax.apply_updates(params, updates)
    # After one step θ = 1, so y¹ = z¹, and x² = y¹ + θ'(z¹ − y¹) = y¹.
    for name, leaf in clipjax.eval_params(state, x).items():
        np.testing.assert_allclose(leaf, x[name], rtol=1e-6)


def test_schedule_free_is_evaluated_as_optax_says():
    tx = optax.chain(clipjax.clip_by_global_norm(1.0), optax.contrib.schedule_free_sgd(0.3))
    params = tree()
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
    expected = optax.contrib.schedule_free_eval_params(state[1], params)
    chex.assert_trees_all_close(clipjax.eval_params(state, params), expected, rtol=1e-6)


class Elsewhere(NamedTuple):
    """The state of somebody else's method, which answers with twice what it stores."""

    stored: optax.Params

    def evaluation_point(self):
        return EvaluationPoint(self.stored, lambda x, stored: 2 * stored)


def test_a_state_says_itself_where_to_evaluate():
    params = {"w": jnp.ones(2)}
    state = (optax.EmptyState(), Elsewhere({"w": jnp.array([1.0, 3.0])}))
    np.testing.assert_array_equal(clipjax.eval_params(state, params)["w"], [2.0, 6.0])


def test_under_vmap_each_replica_has_its_own_answer():
    tx = clipjax.clipped_sstm(0.3, 2.0, 0.7)
    starts = jnp.arange(6.0).reshape(3, 2)

    def answer(x):
        state = tx.init(x)
        for _ in range(3):
            updates, state = tx.update(x - 1, state, x)
            x = optax.apply_updates(x, updates)
        return clipjax.eval_params(state, x)

    together = jax.vmap(answer)(starts)
    for row, start in zip(together, starts, strict=True):
        np.testing.assert_allclose(row, answer(start), rtol=1e-5)


def test_no_state_with_an_evaluation_point():
    state = optax.chain(clipjax.clip_by_value(1.0), optax.adam(0.1)).init(tree())
    with pytest.raises(
        ValueError, match=r"holds: ClipState, ScaleByAdamState, .*Evaluate such a method at its"
    ):
        clipjax.eval_params(state, tree())


def test_two_states_that_cover_one_parameter():
    tx = clipjax.average_iterates(clipjax.clipped_sstm(0.1, 1.0, 1.0))
    match = (
        r"two states that cover one parameter: AverageIteratesState at opt_state, "
        r"SimilarTrianglesState at opt_state\.inner_state\.similar_triangles"
    )
    with pytest.raises(ValueError, match=match):
        clipjax.eval_params(tx.init(tree()), tree())
    half = optax.masked(clipjax.clipped_sstm(0.1, 1.0, None), {"w": True, "b": True})
    other = optax.masked(clipjax.average_iterates(optax.sgd(0.1)), {"w": False, "b": True})
    params = {"w": jnp.ones(2), "b": jnp.ones(1)}
    with pytest.raises(ValueError, match=r"opt_state\[0\]\.inner_state, .*opt_state\[1\]"):
        clipjax.eval_params(optax.chain(half, other).init(params), params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": -1}, "start must be a whole number >= 0, got -1"),
        ({"start": 1.5}, "start must be a whole number >= 0, got 1.5"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), got 1.0"),
        ({"decay": -0.5}, r"decay must lie in \[0, 1\), got -0.5"),
        ({"decay": "0.9"}, "decay must be a number or a schedule, got '0.9'"),
        ({"weights": -1.0}, r"weights must lie in \[0, inf\), got -1.0"),
        ({"weights": np.inf}, r"weights must lie in \[0, inf\), got inf"),
        ({"weights": 1.0, "decay": 0.9}, r"weights or a decay, not both \(decay=0.9\)"),
    ],
)
def test_bad_numbers_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        clipjax.average_iterates(optax.sgd(0.1), **change)


def test_missing_and_integer_parameters_are_refused():
    tx = clipjax.average_iterates(optax.sgd(0.1))
    with pytest.raises(ValueError, match="average_iterates reads the current parameters"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    with pytest.raises(ValueError, match=r"\['n'\] has dtype int32"):
        tx.init({"w": jnp.ones(2), "n": jnp.array(3)})
