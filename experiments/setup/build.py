"""From a config to the objects that training needs. Everything of clipjax meets here."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

import clipjax
from clipjax import data as datasets
from clipjax import models, tasks
from clipjax.models import pretrained
from clipjax.optim.clipping.norms import all_clip_stats
from clipjax.train.loop import Plan, Stage
from clipjax.train.step import Controls, Program, controls
from clipjax.typing import Batch, Task
from experiments.setup import config, inputs, memory, rule_building
from experiments.setup.evaluation import evaluation_point
from experiments.setup.rule_building import Setting
from experiments.setup.schedules import schedule_shape as schedule_shape

FACTORIES: dict[type, Callable[..., optax.GradientTransformationExtraArgs]] = {
    config.SGD: optax.sgd,
    config.Adam: optax.adam,
    config.ClippedSGD: clipjax.clipped_sgd,
    config.ClippedSSTM: clipjax.clipped_sstm,
}

Moments = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET_MOMENTS: Moments = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's channels on the scale [0, 1], as torchvision's."""

MOMENTS: dict[str, Moments] = {
    "digits": ((0.3056,), (0.376,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.286,), (0.353,)),
    "cifar100": ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)),
}
"""Of datasets unlike ImageNet; a test compares them with the training images."""

Sources = tuple[datasets.Source, datasets.Source]
"""Training and held-out records."""


def load_sources(run: config.Run, data_dir: Path | None) -> Sources:
    """Return a run's training and held-out records; embedded sets are prepared on first use.

    Raises:
        ValueError: no such data set or split, or the two data sets do not go together.
    """
    training = datasets.load(run.dataset, run.train_split, data_dir)
    other = run.evaluation_dataset or run.dataset
    split = run.evaluation_split
    if split is None:
        split = inputs.held_out(datasets.splits(other, data_dir), other)
    held_out = datasets.load(other, split, data_dir)
    if run.evaluation_dataset is not None:
        _check_goes_with(training, held_out)
    return training, held_out


def _check_goes_with(training: datasets.Source, held_out: datasets.Source) -> None:
    """Refuse held-out examples of another kind than those that a network is trained on."""
    kinds = [set(source[0]) & {"label", "target"} for source in (training, held_out)]
    classes = [source.class_names or source.num_classes for source in (training, held_out)]
    sizes = [source.image_shape for source in (training, held_out)]
    what = None
    if kinds[0] != kinds[1]:
        what = f"the one has {sorted(kinds[0])}, the other {sorted(kinds[1])}"
    elif classes[0] != classes[1]:
        what = f"their classes differ: {_shortened(classes[0])} and {_shortened(classes[1])}"
    elif sizes[0][-1] != sizes[1][-1]:
        what = f"their pictures have {sizes[0][-1]} and {sizes[1][-1]} channels"
    elif "target" not in kinds[0] and sizes[0] != sizes[1]:
        what = f"their pictures are {sizes[0]} and {sizes[1]}"
    if what is not None:
        raise ValueError(
            f"a network trained on {training.name!r} cannot be evaluated on {held_out.name!r}: "
            f"{what}. Choose another evaluation_dataset, or leave it out"
        )


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def make_data(run: config.Run, sources: Sources, mesh: Mesh) -> datasets.Pipeline:
    """Return the run's micro-batches; evaluation batches are rounded up to split over devices."""
    return datasets.Pipeline(
        *sources,
        batch_size=run.batch_size // run.accumulation,
        evaluation_batch_size=-(-run.evaluation_batch_size // mesh.size) * mesh.size,
        augment=inputs.augment(run, sources[0]),
        seed=run.seed,
        views=inputs.views(run, *sources),
        threads=run.input_threads,
        workers=run.input_workers,
    )


def make_task(
    run: config.Run, source: datasets.Source, weights: pretrained.Pretrained | None = None
) -> Task:
    """Return what is lost and measured.

    Images are normalised as pretrained weights ask for, else by their dataset's moments.
    """
    record = source[0]
    suited = "classification" if record.get("label", record["image"]).ndim == 0 else "segmentation"
    suited = "super_resolution" if "target" in record else suited
    if run.task != suited:
        raise ValueError(f"dataset {run.dataset!r} is made for {suited}, not for {run.task}")
    mean, std = MOMENTS.get(run.dataset, IMAGENET_MOMENTS)
    if weights is not None:
        mean, std = weights.mean, weights.std
    match run.task:
        case "classification":
            return tasks.Classification(source.num_classes, mean, std)
        case "segmentation":
            return tasks.Segmentation(source.num_classes, mean, std)
        case "super_resolution":
            return tasks.SuperResolution()


def make_model(run: config.Run, num_classes: int) -> Any:
    """Return the Flax module; the number of classes comes from the data."""
    fields = {f.name: getattr(run.model, f.name) for f in dataclasses.fields(run.model)}
    if isinstance(run.model, config.MLP):
        fields["num_outputs"] = num_classes
    elif not isinstance(run.model, config.SRResNet):
        fields["num_classes"] = num_classes
    fields["dtype"] = jnp.dtype(run.model.dtype)
    return getattr(models, type(run.model).__name__)(**fields)


def rates(optimizer: config.Optimizer) -> dict[str, float]:
    """Return the optimizer's run-time values.

    Examples:
        >>> rates(config.ClippedSGD(0.1, clip_level=None))
        {'learning_rate': 0.1}
        >>> rates(config.Rule("adamw(lr, weight_decay=wd)", lr=0.1, wd=0.05))
        {'lr': 0.1, 'wd': 0.05}
    """
    if isinstance(optimizer, config.Rule):
        return dict(optimizer.rates)
    values = {name: getattr(optimizer, name, None) for name in config.RATES}
    return {name: value for name, value in values.items() if value is not None}


def stage_plan(run: config.Run, num_train: int, learning_rate: Any = 1.0) -> clipjax.StagePlan:
    """Return the stages of a graduated run: rates, batches and momenta, and how long they last."""
    assert run.graduated is not None
    options = {f.name: getattr(run.graduated, f.name) for f in dataclasses.fields(run.graduated)}
    del options["whole_batches"]
    schedule = clipjax.graduated_schedule(
        learning_rate,
        run.batch_size,
        momentum=getattr(run.optimizer, "momentum", None) or 0.0,
        dataset_size=num_train,
        **options,
    )
    examples = run.duration.in_examples(num_train)
    ends = [round(examples * (m + 1) / schedule.num_stages) for m in range(schedule.num_stages)]
    return clipjax.plan_stages(
        schedule,
        None,
        run.batch_size // run.accumulation,
        examples_per_stage=[end - start for start, end in zip([0, *ends], ends, strict=False)],
        dataset_size=num_train,
    )


def make_graduated_optimizer(
    run: config.Run, num_train: int
) -> Callable[[Mapping[str, jax.Array]], optax.GradientTransformationExtraArgs]:
    """Return rates -> the run's method with the rates and momenta of its stages."""
    fields = {f.name: getattr(run.optimizer, f.name) for f in dataclasses.fields(run.optimizer)}
    factory = FACTORIES[type(run.optimizer)]

    def build(values: Mapping[str, jax.Array]) -> optax.GradientTransformationExtraArgs:
        arguments = fields | dict(values)
        plan = stage_plan(run, num_train, arguments.pop("learning_rate"))
        if any(plan.schedule.momenta):
            del arguments["momentum"]  # `staged` gives it
        inner = functools.partial(factory, **arguments)
        return optax.with_extra_args_support(clipjax.staged(inner, plan))

    return build


def make_optimizer(
    optimizer: config.Optimizer, shape: optax.Schedule | None
) -> Callable[[Mapping[str, jax.Array]], optax.GradientTransformationExtraArgs]:
    """Return rates -> transformation of a dataclass, for use inside compiled functions."""
    static = {f.name: getattr(optimizer, f.name) for f in dataclasses.fields(optimizer)}

    def build(values: Mapping[str, jax.Array]) -> optax.GradientTransformationExtraArgs:
        arguments = static | dict(values)
        if shape is not None:
            factor = shape
            arguments["learning_rate"] = lambda count: values["learning_rate"] * factor(count)
        return FACTORIES[type(optimizer)](**arguments)

    return build


def make_step_metrics(optimizer: config.Optimizer, shape: optax.Schedule | None) -> Callable:
    """Return (opt_state, rates, step) -> learning rate and clip stats, of methods that have these.

    Of several clippings in one method the outermost has the plain names, the second `clip_level_2`
    and so on.
    """
    name = "lr" if isinstance(optimizer, config.Rule) else "learning_rate"

    def step_metrics(opt_state, values, step):
        logged = {}
        if name in values:
            rate = values[name]
            logged["learning_rate"] = rate if shape is None else rate * shape(step)
        for number, stats in enumerate(all_clip_stats(opt_state), 1):
            place = "" if number == 1 else f"_{number}"
            logged |= {
                f"clip_level{place}": stats.level,
                f"clipped_fraction{place}": stats.fraction,
            }
        return logged

    return step_metrics


def plan(run: config.Run, num_train: int) -> Plan:
    """Return when what happens, in optimizer steps."""

    def steps(duration: config.Duration) -> int:
        return duration.in_steps(run.batch_size, num_train)

    stages = (Stage(0, run.accumulation),)
    total = steps(run.duration)
    if run.graduated is not None:
        found = stage_plan(run, num_train)
        total, starts = found.total_steps, (0, *found.step_ends)
        stages = tuple(map(Stage, starts, found.accumulations))
    return Plan(
        steps=total,
        log_every=run.log_every,
        evaluate_every=steps(run.evaluate_every),
        checkpoint_every=steps(run.checkpoint_every),
        stages=stages,
        whole_batches=run.graduated is not None and run.graduated.whole_batches,
        calibration_batches=run.calibration_batches,
    )


def program_key(run: config.Run, num_train: int) -> Any:
    """Return what a compiled program depends on; runs with equal keys share it."""
    values, micro_batches = dict.fromkeys(rates(run.optimizer), 1.0), None
    if isinstance(run.optimizer, config.Rule):
        optimizer = dataclasses.replace(run.optimizer, rates=values, label=None)
        micro_batches = run.accumulation if run.optimizer.uses("micro_batches") else None
    else:
        optimizer = dataclasses.replace(run.optimizer, **values)
    steps = plan(run, num_train).steps if run.needs_duration else None
    stages = None
    if run.graduated is not None:
        stages = run.graduated, run.batch_size, run.accumulation, run.duration
    data = run.dataset, run.train_split, run.evaluation_dataset, run.evaluation_split
    weights = run.pretrained, run.pretrained_require
    how = optimizer, run.schedule, steps, micro_batches, stages
    return run.task, data, run.model, weights, how


def make_setting(run: config.Run, num_train: int, allow: tuple[str, ...] = ()) -> Setting:
    """Return what a run gives to its optimizer beside the optimizer's own values."""
    steps = plan(run, num_train).steps
    shape = None
    if run.graduated is not None:
        shape = stage_plan(run, num_train).learning_rate  # that of a first rate of 1
    elif run.schedule != config.LearningRateSchedule():
        shape = schedule_shape(run.schedule, steps)
    return Setting(steps, run.accumulation, shape, allow)


def check_text(run: config.Run, allow: tuple[str, ...] = ()) -> None:
    """Raise ValueError if the optimizer of a run is a text that builds none; needs no data."""
    if isinstance(run.optimizer, config.Rule):
        some_examples = max(run.batch_size, 10**6)  # how many there are is not known yet
        rule_building.check(run.optimizer, make_setting(run, some_examples, allow))


def check_training(
    run: config.Run,
    program: Program,
    example: Batch,
    num_train: int,
    allow: tuple[str, ...] = (),
) -> None:
    """Raise ValueError if a run cannot train: its optimizer on its network, or its memory.

    Only shapes are computed.
    """
    if isinstance(run.optimizer, config.Rule):
        setting = make_setting(run, num_train, allow)
        rule_building.check(run.optimizer, setting, program.parameter_shapes(example))
    memory.check_training(program, make_controls(run), example)


def make_program(
    run: config.Run, sources: Sources, mesh: Mesh, allow: tuple[str, ...] = ()
) -> Program:
    """Return the compiled functions of a run; `allow` are packages that a `Rule` may name."""
    setting = make_setting(run, len(sources[0]), allow)
    if isinstance(run.optimizer, config.Rule):
        optimizer = rule_building.make_rule(run.optimizer, setting)
    elif run.graduated is not None:
        optimizer = make_graduated_optimizer(run, len(sources[0]))
    else:
        optimizer = make_optimizer(run.optimizer, setting.shape)
    model = make_model(run, sources[0].num_classes)
    weights = None
    if run.pretrained is not None:
        weights = pretrained.load_vgg16(run.pretrained, require=run.pretrained_require)
        if jax.process_index() == 0:
            print(weights.describe(), file=sys.stderr)
    return Program(
        model=model,
        task=make_task(run, sources[0], weights),
        optimizer=optimizer,
        evaluation_params=evaluation_point,
        step_metrics=make_step_metrics(run.optimizer, setting.shape),
        mesh=mesh,
        pretrained=None if weights is None else initial_params(run, model, weights),
    )


def initial_params(run: config.Run, model: Any, weights: pretrained.Pretrained) -> dict[str, Any]:
    """Return the part of the model's parameters that pretrained weights stand for."""
    image = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(lambda key: model.init(key, image, train=False), jax.random.key(0))
    return pretrained.fit(weights, shapes["params"], run.pretrained_require)


def make_controls(run: config.Run) -> Controls:
    """Return the run's seed and rates."""
    made = controls(run.seed, rates(run.optimizer))
    if isinstance(run.optimizer, config.Rule) and run.optimizer.uses("key"):
        return made._replace(rates=made.rates | {"seed": made.seed})
    return made
