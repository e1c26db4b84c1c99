"""Public functions called with wrong values: an answer, or an error that names the argument.

Each public name has a valid call; one argument at a time is replaced by each wrong value. `make
test` takes a seeded sample of these calls, `make test-faults` takes all of them.
"""

import collections
import contextlib
import inspect
import pathlib
import random
import signal
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax import analysis, data, losses, metrics, models, problems, theory

MODULES = {
    "": clipjax,
    "theory.": theory,
    "problems.": problems,
    "analysis.": analysis,
    "losses.": losses,
    "metrics.": metrics,
    "models.": models,
    "data.": data,
}
SECONDS = 20
"""After which a call counts as hanging; a compilation on a busy machine takes a few."""

SAMPLE = 300
"""Calls in `make test`."""


def square(x):
    return jnp.sum(x**2)


WRONG = {
    "None": None,
    "text": "text",
    "empty text": "",
    "empty list": [],
    "mixed list": [1, "a"],
    "ragged list": [[1.0], [1.0, 2.0]],
    "matrix": np.full((2, 3), 0.5),
    "matrix of ones": np.ones((2, 3), int),
    "array of text": np.array(["a", "b"]),
    "object": object(),
    "function": square,
    "dict": {"a": 1},
    "complex": 1j,
    "2**62": 2**62,
    "10**30": 10**30,
    "10**400": 10**400,
    "1e308": 1e308,
    "-1": -1,
    "nan": float("nan"),
    "inf": float("inf"),
}


def loss(x, example):
    return jnp.sum((x - example) ** 2)


def _calls():
    """Return the valid call of each public name, without results' types and error types."""
    key, sample = jax.random.key(0), np.arange(1.0, 41.0)
    schedule = clipjax.graduated_schedule(0.1, 8, 2)
    plan = clipjax.plan_stages(schedule, 2, 4)
    sgd, x = optax.sgd(0.1), jnp.ones(2)
    sizes = theory.BatchSizes(0.0)
    single = theory.ClippedSGDConstants(10, 0.1, 1.0, sizes, 0.5)
    counted = clipjax.accumulate_gradients(sgd, 2)
    measured = clipjax.measure_gradient_variance(counted, 4).init(x)
    averaged = clipjax.average_iterates(sgd)
    adam = dict(learning_rate=0.1, b1=0.9, b2=0.99, eps=1e-5)
    shampoo = dict(
        decay=0.9,
        eps=1e-6,
        exponent=0.25,
        block_size=4,
        update_every=2,
        grafting="rmsprop",
        initial_accumulator_value=0.0,
    )
    noise = dict(learning_rate=0.1, batch_size=8, gradient_std=1.0, kind="shb_stationary")
    smooth = dict(smoothness=1.0, distance=1.0, noise_scale=0.1, failure_probability=0.01)
    holder = dict(smooth, holder_constant=1.0, holder_exponent=0.5, accuracy=0.1)
    del holder["smoothness"]
    strong = dict(smooth, strong_convexity=0.1, accuracy=0.1)
    u = analysis.noise_quadrature(points=16)
    times = np.array([[1.0, 2.0], [3.0, 1.0]])
    search = dict(fn=square, levels=[1.0, 0.5], quadrature=u, box=3.0)
    dimension = dict(dimension=2)
    curve = dict(lower=0.1, upper=0.9, rate=2.0, shape=0.5, start=0.2)
    flip, view = data.flip(), data.center_crop(4)
    pictures = jnp.ones((1, 12, 12))
    network = dict(bn_momentum=0.9, dtype=jnp.float32)
    return {
        "GraduatedSchedule": dict(
            levels=(1.0,), learning_rates=(0.1,), batch_sizes=(8,), momenta=(0.0,), kind="sgd"
        ),
        "StagePlan": dict(schedule=schedule, steps=(2, 2), micro_batch_size=1),
        "acclip": dict(adam, alpha=2.0, normalize=False),
        "accumulate_gradients": dict(inner=sgd, every=2),
        "average_iterates": dict(inner=sgd, start=0, decay=0.9, weights=None),
        "clip_by_adaptive_norm": dict(relative=1.05, absolute=1.0, decay=0.98, warmup_steps=2),
        "clip_by_global_norm": dict(max_norm=1.0),
        "clip_by_quantile": dict(quantile=0.5, window=4, per_tensor=False),
        "clip_by_tensor_norm": dict(max_norm=1.0),
        "clip_by_value": dict(max_value=1.0),
        "clip_by_zscore": dict(
            threshold=2.5, decay=0.9, warmup_steps=2, max_norm=1.0, mode="mean", clip_factor=1.0
        ),
        "clip_stats": dict(opt_state=clipjax.clip_by_value(1.0).init(x)),
        "clip_with_probability": dict(max_norm=1.0, base=0.5, key=key, power=1),
        "clipped_adagrad": dict(
            learning_rate=0.1,
            clip_level=1.0,
            initial_accumulator_value=0.1,
            eps=1e-7,
            clip="value",
            moment="coordinate",
        ),
        "clipped_adam": dict(
            adam, clip_level=1.0, eps_root=0.0, clip="value", moment="coordinate", mu_dtype=None
        ),
        "clipped_sgd": dict(learning_rate=0.1, clip_level=1.0, clip="value", momentum=0.9),
        "clipped_sstm": dict(
            learning_rate=0.1,
            smoothness=1.0,
            clip_level=1.0,
            clip="value",
            holder_exponent=1.0,
            step_offset=2,
            max_averaging_ratio=1.0,
            clip_start=None,
        ),
        "eval_params": dict(opt_state=averaged.init(x), params=x),
        "explicit_graduated_optimization": dict(
            fn=square,
            x0=x,
            key=key,
            levels=[1.0],
            learning_rate=0.1,
            steps_per_stage=1,
            num_samples=2,
            distribution="ball",
            df=3.0,
            estimator="first_order",
            batch_size=None,
            direction=None,
        ),
        "graduated_schedule": dict(
            learning_rate=0.1,
            batch_size=8,
            num_stages=2,
            power=0.9,
            decay="polynomial",
            batch_share=0.0,
            momentum_share=0.0,
            momentum=0.0,
            max_batch_size=64,
            kind="shb_stationary",
            gradient_std=1.0,
            dataset_size=100,
        ),
        "hazan_schedule": dict(
            strong_convexity=1.0, num_stages=2, delta_init=1.0, step_constant=1.0
        ),
        "implicit_graduated_optimization": dict(
            schedule=schedule, steps_per_stage=2, micro_batch_size=4, inner=optax.sgd
        ),
        "measure_gradient_variance": dict(inner=counted, micro_batch_size=4, decay=0.9),
        "noise_level": dict(noise, momentum=0.5),
        "normalize_by_global_norm": {},
        "per_example_variance": dict(loss=loss, params=x, examples=np.ones((4, 2)), chunk_size=2),
        "plan_stages": dict(
            schedule=schedule, steps_per_stage=2, micro_batch_size=4, dataset_size=100
        ),
        "scale_by_similar_triangles": dict(step_size=0.1, max_averaging_ratio=1.0),
        "scale_by_shampoo": shampoo,
        "shampoo": dict(shampoo, learning_rate=0.1, momentum=0.9),
        "smoothed_value_and_grad": dict(
            fn=square,
            delta=0.1,
            num_samples=2,
            key=key,
            distribution="ball",
            df=3.0,
            estimator="first_order",
            batch_size=None,
        ),
        "smoothing_levels": dict(
            num_stages=3, delta_init=1.0, delta_final=0.1, decay="polynomial", power=1.0
        ),
        "solve_batch_size": dict(
            noise=0.1, learning_rate=0.1, gradient_std=1.0, momentum=0.5, kind="shb_stationary"
        ),
        "solve_learning_rate": dict(
            noise=0.1, batch_size=8, gradient_std=1.0, momentum=0.5, kind="shb_stationary"
        ),
        "solve_momentum": dict(noise, noise=0.1),
        "sstm_step_size": dict(
            learning_rate=0.1, smoothness=1.0, holder_exponent=1.0, step_offset=2
        ),
        "staged": dict(inner=optax.sgd, plan=plan),
        "variance_stats": dict(opt_state=measured),
        "with_restarts": dict(inner=averaged, restart_steps=2),
        "theory.BatchSizes": dict(scale=1.0, exponent=0.0, offset=0, minimum=1),
        "theory.ClippedSGDConstants": dict(
            iterations=10, learning_rate=0.1, clip_level=1.0, batch_sizes=sizes, bound=0.5
        ),
        "theory.ClippedSSTMConstants": dict(
            iterations=10,
            learning_rate=0.1,
            smoothness=1.0,
            clip_level=1.0,
            batch_sizes=sizes,
            bound=0.5,
            holder_exponent=1.0,
            step_offset=2,
        ),
        "theory.RestartedConstants": dict(runs=(single,)),
        "theory.clipped_sgd_constants": dict(smooth, iterations=100, batch_size=1),
        "theory.clipped_sstm_constants": dict(smooth, accuracy=0.1, batch_size=1),
        "theory.estimate_noise_scale": dict(gradients=jnp.ones((4, 2)), moment=2.0, mean=x),
        "theory.estimate_smoothness": dict(fn=square, params=x, key=key, steps=2),
        "theory.estimate_smoothness_from_gradients": dict(
            points=jnp.ones((4, 2)), gradients=jnp.ones((4, 2))
        ),
        "theory.holder_clipped_sgd_constants": holder,
        "theory.holder_clipped_sstm_constants": dict(holder, batch_size=1),
        "theory.infinite_variance_clipped_sgd_constants": dict(smooth, moment=1.5, iterations=100),
        "theory.infinite_variance_clipped_sstm_constants": dict(
            smooth, moment=1.5, accuracy=0.1, batch_size=1
        ),
        "theory.restarted_clipped_sgd_constants": dict(strong, batch_size=1),
        "theory.restarted_clipped_sstm_constants": dict(strong, batch_size=1),
        "theory.restarted_infinite_variance_clipped_sstm_constants": dict(
            strong, moment=1.5, batch_size=1
        ),
        "theory.exponential_schedule": dict(learning_rate=0.1, weight_decay=0.1, momentum=0.0),
        "theory.sgd_convex_schedule": dict(distance=1.0, noise_scale=1.0, iterations=10),
        "theory.sgd_decreasing_schedule": dict(initial_step=0.1),
        "theory.sgd_pl_schedule": dict(strong_convexity=0.1),
        **{
            f"problems.{name}": dimension
            for name in (
                "Ackley",
                "Alpine1",
                "Ellipsoid",
                "Griewank",
                "Salomon",
                "Schwefel",
                "Schwefel221",
                "Sphere",
            )
        },
        "problems.AdditiveNoise": dict(problem=problems.Sphere(), noise=problems.Normal()),
        "problems.BurrXII": dict(c=1.0, d=2.3, scale=1.0),
        "problems.DropWave": dict(dimension, frequency=12.0),
        "problems.Exponential": dict(scale=1.0),
        "problems.Function": dict(
            function=square, minimiser=(0.0,), smoothness=2.0, strong_convexity=2.0
        ),
        "problems.HappyCat": dict(dimension, exponent=0.125),
        "problems.LogisticRegression": dict(
            features=np.eye(3), labels=np.array([1, -1, 1]), ridge=0.0
        ),
        "problems.Minibatch": dict(
            problem=problems.LogisticRegression(np.eye(3), np.array([1, -1, 1])), batch_size=2
        ),
        "problems.Normal": dict(scale=1.0),
        "problems.Pareto": dict(index=3.0, scale=1.0),
        "problems.PowerRegression": dict(features=np.eye(3), targets=np.ones(3), exponent=0.5),
        "problems.Quadratic": dict(spectrum=(1.0, 2.0)),
        "problems.Rastrigin": dict(dimension, amplitude=10.0),
        "problems.Rosenbrock": dict(dimension, curvature=100.0),
        "problems.Standardised": dict(noise=problems.Normal(), scale=1.0),
        "problems.StudentT": dict(df=3.0, scale=1.0),
        "problems.SymmetricStable": dict(alpha=1.5, scale=1.0),
        "problems.Weibull": dict(shape=0.2, scale=1.0),
        "analysis.alignment_probability": dict(threshold=0.3, dimension=3),
        "analysis.alignment_probability_uniform_angle": dict(threshold=0.3),
        "analysis.alignment_threshold": dict(distance=2.0, noise_norm=1.0, r=1.0, a=2.0),
        "analysis.arrival_level": dict(distance=2.0, noise_norm=1.0, cosine=1.0, r=1.0, a=2.0),
        "analysis.benchmark_score": dict(times=times),
        "analysis.block_tail_index": dict(sample=sample, block_size=2),
        "analysis.bootstrap_ranks": dict(size=40, level=0.5, confidence=0.95),
        "analysis.check_new_sigma_nice": dict(
            search, strong_convexity=1.0, minimiser=[0.0], max_radius=1.0
        ),
        "analysis.check_sigma_nice": dict(search, strong_convexity=1.0, max_radius=1.0),
        "analysis.compare_exponential_rates": dict(
            gradient=lambda w, k: w,
            params=x,
            learning_rate=0.1,
            weight_decay=0.1,
            momentum=0.0,
            steps=2,
            clip_level=1.0,
        ),
        "analysis.d_bounds": dict(a=2.0),
        "analysis.direction_error": dict(params=np.ones((2, 2)), weights=[1.0, 2.0]),
        "analysis.gamma_lower_bound": dict(d_next=1.25),
        "analysis.gaussian_control": dict(sample=sample, seed=0),
        "analysis.gradient_noise": dict(loss=loss, params=x, examples=np.ones((4, 2)), chunk=2),
        "analysis.hard_margin_separator": dict(x=np.eye(2), labels=[1, 2]),
        "analysis.hill_curve": dict(sample=sample, ks=[4]),
        "analysis.hill_tail_index": dict(sample=sample, k=4),
        "analysis.lowest_curvature": dict(
            fn=square, centre=[0.0], radius=1.0, resolution=4, directions=4
        ),
        "analysis.margin_gap": dict(params=x, x=np.eye(2), labels=[1, 2], weights=[1.0, 2.0]),
        "analysis.mean_gradient": dict(loss=loss, params=x, examples=np.ones((4, 2)), chunk=2),
        "analysis.median_block_tail_index": dict(sample=sample, block_sizes=(2, 5)),
        "analysis.minibatch_noise": dict(
            loss=loss,
            params=x,
            examples=np.ones((4, 2)),
            mean=np.ones(2),
            batch_size=2,
            num_batches=1,
            seed=0,
        ),
        "analysis.minimiser_path": dict(
            fn=square, levels=[1.0], quadrature=u, start=[0.1], max_step=0.1, max_steps=100
        ),
        "analysis.moments": dict(sample=sample),
        "analysis.noise_quadrature": dict(distribution="student_t", dimension=1, points=16, df=3.0),
        "analysis.normal_quantiles": dict(sample=sample),
        "analysis.outlier_ratios": dict(sample=sample),
        "analysis.performance_profile": dict(times=times, taus=[1.0, 2.0]),
        "analysis.performance_ratios": dict(times=times),
        "analysis.quantiles": dict(sample=sample, levels=[0.5], confidence=0.95),
        "analysis.smooth": dict(fn=square, delta=0.5, quadrature=u),
        "analysis.smoothed_minimisers": dict(search, grid=11, starts=1),
        "analysis.strong_convexity_radius": dict(
            fn=square,
            centre=[0.0],
            strong_convexity=1.0,
            max_radius=1.0,
            resolution=4,
            directions=4,
        ),
        "analysis.sufficient_level": dict(
            gradient_norm=0.1, next_gradient_norm=0.05, strong_convexity=2.0, gamma=0.5
        ),
        "analysis.survival": dict(sample=sample),
        "analysis.workload_times": dict(times=times),
        "losses.generalized_logistic": dict(curve, t=x),
        "losses.generalized_logistic_loss": dict(curve, margin=x),
        "losses.generalized_softmax": dict(
            logits=jnp.ones((2, 3)), lower=0.1, upper=0.9, rate=2.0, axis=-1, normalize=True
        ),
        "losses.growth_constant": dict(lower=0.1, upper=0.9, start=0.2),
        "losses.growth_exponent": dict(t=x, c=-1.0, r=0.5),
        "losses.growth_exponent_is_positive": dict(t=x, c=-1.0, r=0.5),
        "losses.growth_exponent_turn": dict(c=-1.0, r=0.5),
        "losses.growth_rate": dict(t=4 * x, c=-1.0, r=0.5),
        "losses.lambert_w": dict(x=x),
        "losses.masked_mean": dict(values=x, weights=x),
        "losses.masked_sum": dict(values=x, weights=x),
        "losses.softmax_cross_entropy": dict(logits=jnp.ones((2, 3)), labels=jnp.array([0, 1])),
        "losses.squared_error": dict(predictions=jnp.ones((2, 3)), targets=jnp.ones((2, 3))),
        "metrics.confusion_matrix": dict(
            labels=jnp.zeros((1, 4), int),
            predictions=jnp.zeros((1, 4), int),
            weights=jnp.ones(1),
            num_classes=2,
        ),
        "metrics.inner_mean": dict(values=pictures, sizes=jnp.array([[12, 12]]), margin=1),
        "metrics.intersection_over_union": dict(confusion=np.eye(2)),
        "metrics.luma": dict(images=jnp.ones((1, 3))),
        "metrics.majority_confusion": dict(confusion=np.eye(2)),
        "metrics.mean_intersection_over_union": dict(confusion=np.eye(2)),
        "metrics.peak_signal_to_noise_ratio": dict(squared_errors=x, data_range=1.0),
        "metrics.structural_similarity_map": dict(a=pictures, b=pictures, data_range=1.0),
        "metrics.top_k_correct": dict(logits=jnp.ones((2, 3)), labels=jnp.array([0, 1]), k=1),
        "models.FCN32s": dict(
            network,
            num_classes=2,
            width=4,
            fc_width=4,
            fc_kernel=3,
            pool_stages=1,
            block_sizes=(1,),
            dropout=0.0,
        ),
        "models.MLP": dict(num_outputs=2, hidden=(4,), dtype=jnp.float32),
        "models.ResNet18": dict(network, num_classes=2, width=4, stem="small", stage_sizes=(1,)),
        "models.SRResNet": dict(
            network,
            scale=2,
            num_blocks=1,
            channels=4,
            out_channels=3,
            kernel_size=3,
            global_skip=None,
        ),
        "models.VGG16Features": dict(network, width=4, pool_stages=1, block_sizes=(1,)),
        "data.Augment": dict(num_draws=1, function=flip.function),
        "data.View": dict(num_draws=0, function=view.function),
        "data.Views": dict(train=view, calibrate=view, evaluate=view),
        "data.aligned_crop": dict(size=4),
        "data.center_crop": dict(size=4),
        "data.credits": {},
        "data.default_data_dir": {},
        "data.dihedral": {},
        "data.flip": {},
        "data.is_prepared": dict(name="digits", data_dir="/proc/nonexistent"),
        "data.load": dict(name="digits", split="train", data_dir="prepared"),  # by the first call
        "data.pad_crop": dict(padding=1),
        "data.prepare": dict(name="digits", data_dir="/proc/nonexistent"),
        "data.random_crop": dict(size=4),
        "data.random_resized_crop": dict(size=4, area=(0.1, 1.0), ratio=(0.5, 2.0)),
        "data.random_scale_crop": dict(size=4, scales=(0.5, 2.0)),
        "data.read_libsvm": dict(path=pathlib.Path("/proc/nonexistent"), num_features=3),
        "data.resize_center_crop": dict(resize=8, size=4),
        "data.splits": dict(name="digits", data_dir="/proc/nonexistent"),
    }


LEFT_OUT = {"data.compose", "data.Pipeline", "data.Source"}
"""Any number of arguments; values made by other functions, tested with them."""


def public(prefix, module):
    """Return the functions and constructors of a module; not results, protocols or errors."""
    own = [name for name in vars(module) if not name.startswith("_")]
    for name in getattr(module, "__all__", own):
        value = getattr(module, name)
        if not callable(value) or prefix + name in LEFT_OUT:
            continue
        if isinstance(value, type) and (
            issubclass(value, tuple | Exception) or getattr(value, "_is_protocol", False)
        ):
            continue
        if hasattr(module, "__all__") or value.__module__ == module.__name__:
            yield prefix + name, value


FUNCTIONS = dict(pair for item in MODULES.items() for pair in public(*item))


class Hang(BaseException):
    pass


@contextlib.contextmanager
def limit(seconds):
    def stop(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def use_problem(result):
    """Draw from a noise or an oracle, or evaluate a problem, by shapes alone."""
    if hasattr(result, "gradient"):
        draw = jax.eval_shape(lambda key: result.sample(key, jnp.float32), jax.random.key(0))
        jax.eval_shape(result.gradient, jnp.ones(result.problem.dimension), draw)
    elif hasattr(result, "sample"):
        jax.eval_shape(lambda key: result.sample(key, (2,), jnp.float32), jax.random.key(0))
        assert isinstance(result.variance, float | int)
        assert isinstance(result.tail_index, float | int)
    else:
        jax.eval_shape(result.value, jnp.ones(result.dimension))


def use(name, arguments):
    """Call, and use the result once; by shapes alone where that finds the same mistakes."""
    result = FUNCTIONS[name](**arguments)
    if isinstance(result, optax.GradientTransformation):
        x = jnp.ones(2)
        state = jax.eval_shape(result.init, x)
        jax.eval_shape(result.update, x, state, x)
    elif name == "smoothed_value_and_grad":
        jax.eval_shape(result, jnp.ones(2))
    elif name == "analysis.smooth":
        jax.eval_shape(result, jnp.ones(1))
    elif name == "sstm_step_size":
        result(0)
    elif name.startswith("problems."):
        use_problem(result)
    elif name.startswith("models."):
        jax.eval_shape(
            lambda key: result.init(key, jnp.zeros((1, 8, 8, 3)), train=False), jax.random.key(0)
        )


def outcome(name, argument, wrong, calls):
    """Return what a wrong call came to: "returned", "named", or what is wrong with it."""
    try:
        with limit(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use(name, {**calls[name], argument: WRONG[wrong]})
    except Hang:
        return "hang"
    except (ValueError, TypeError) as error:
        quoted = isinstance(WRONG[wrong], str) and repr(WRONG[wrong]) in str(error)
        return (
            "named"
            if argument in str(error) or quoted
            else f"{type(error).__name__} without the name"
        )
    except OSError:  # of a path
        return "named" if name.startswith("data.") else "OSError"
    except Exception as error:  # every kind is counted
        return type(error).__name__
    return "returned"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # text is a fine name of a folder, and some calls make it


@pytest.fixture(scope="module")
def calls():
    return _calls()


def every(calls):
    return [(n, a, w) for n, arguments in calls.items() for a in arguments for w in WRONG]


UNNAMED = ()
"""The only functions with refusals that do not name the argument: none."""


def check(chosen, calls):
    found = {call: outcome(*call, calls) for call in chosen}
    counts = collections.Counter(found.values())
    print(dict(counts))
    unnamed = [f"{n}({a}={w})" for (n, a, w), o in found.items() if o.endswith("without the name")]
    fine = ("returned", "named", "ValueError without the name", "TypeError without the name")
    bad = [f"{n}({a}={w}): {o}" for (n, a, w), o in found.items() if o not in fine]
    assert not bad, f"{dict(counts)}\n" + "\n".join(bad)
    unnamed = [call for call in unnamed if not call.startswith(UNNAMED)]
    assert not unnamed, "\n".join(unnamed)


def test_every_public_name_has_a_call(calls):
    assert set(calls) == set(FUNCTIONS)
    for name, arguments in calls.items():
        assert set(arguments) <= set(inspect.signature(FUNCTIONS[name]).parameters), name


def test_a_sample_of_wrong_values_is_refused(calls):
    check(random.Random(14).sample(every(calls), SAMPLE), calls)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_every_wrong_value_is_refused(calls):
    check(every(calls), calls)
