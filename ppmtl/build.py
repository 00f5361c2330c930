"""Settings -> classes, tasks, sources, model: the one composition root, and the only file that knows all parts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppmtl.config import ConfigError, ConfigTree, check, load_config, stored_config, suggestion, target_of
from ppmtl.config.settings import ClassSettings, Settings
from ppmtl.data.classes import read_class_file, read_vocabulary
from ppmtl.data.reader import Reader
from ppmtl.data.source import Source, SourceView
from ppmtl.models.multitask import MultiTaskModel
from ppmtl.predict.evaluate import EvalSet
from ppmtl.predict.pipeline import Backend
from ppmtl.structures import ClassList
from ppmtl.tasks.base import Task
from ppmtl.weights.location import BEST, STATE, checkpoint_folder_of, find_weights
from ppmtl.weights.whole import holds_heads, own_names

Tasks = dict[str, Task[Any]]
_RENDERED = (("track1_train_data",), ("track1_test_data",))  # what tools/make_demo_data.py writes


@dataclass(frozen=True)
class Run:
    """The one truth about a run: settings, and the config that they were checked from, which is what is saved."""

    tree: ConfigTree
    settings: Settings

    def changed(self, values: Mapping[str, Any], origin: str) -> Run:
        """The run with other values.

        Args:
            values: {dotted key: value}.
            origin: who says so, for error messages, e.g. "--fast_dev_run".

        Raises:
            ConfigError: if a value is not allowed.
        """
        return _checked(self.tree.with_values(values, origin)) if values else self


def load(config: str, overrides: Sequence[str] = (), tasks: Sequence[str] | None = None) -> Run:
    """Reads and checks a config.

    Args:
        config: YAML file.
        overrides: "a.b=value" each.
        tasks: use only these; no head, source or data set of another one is left. None = all.

    Raises:
        ConfigError: with all problems at once.
    """
    return _selected(load_config(config, overrides), tasks)


def load_stored(weights: str, overrides: Sequence[str] = (), tasks: Sequence[str] | None = None) -> Run:
    """The run that the config inside a checkpoint describes; what is made of it goes beside the checkpoint.

    Args:
        weights: what ``find_weights`` takes; needs a checkpoint folder, or a file in one.
        overrides, tasks: as for ``load``. Unless they say otherwise the device is chosen anew, and ``save_dir`` is the
            folder of the checkpoint's run; for a checkpoint that lies elsewhere, output/<name of its folder>.

    Raises:
        ConfigError: with all problems at once; also if the weights carry no config, or one that names code elsewhere.
    """
    from ppmtl.train.checkpoint import read_state

    found = find_weights(weights)
    folder = checkpoint_folder_of(found)
    data = read_state(found).get("config")
    if not isinstance(data, dict):
        raise ConfigError([f"weights: {found} carries no config, as checkpoint folders do; give the config: -c FILE"])
    of_run = folder.name == BEST or folder.name.startswith(("step_", "latest", "."))
    save_dir = folder.parent if of_run else Path("output") / folder.resolve().name
    defaults = {"save_dir": str(save_dir), "device": "auto"}
    return _selected(stored_config(data, str(folder / STATE), defaults, overrides), tasks)


def _selected(tree: ConfigTree, tasks: Sequence[str] | None) -> Run:
    if "classes" in tree.data:  # configs of version 0.1, also those saved beside checkpoints
        raise ConfigError(
            ["classes: the classes of a task stand in tasks.<task>.classes now; move them there"], tree.file
        )
    run = _checked(tree)
    return run if tasks is None else select_tasks(run, tasks)


def _checked(tree: ConfigTree) -> Run:
    settings = check(Settings, tree)
    check_agreement(settings)
    return Run(tree, settings)


def select_tasks(run: Run, names: Sequence[str]) -> Run:
    """The run with only the tasks named.

    Raises:
        ConfigError: if a name is no task of the config, or none is given.
    """
    settings = run.settings
    unknown = [f"--tasks: got {n!r}{suggestion(n, settings.tasks)}" for n in names if n not in settings.tasks]
    if unknown or not names:
        raise ConfigError(unknown or [f"--tasks: names no task; the config has {', '.join(settings.tasks)}"])
    gone = [f"tasks.{name}" for name in settings.tasks if name not in names]
    gone += [f"model.heads.{head}" for head, task in settings.model.answers().items() if task not in names]
    gone += [f"train.loss_weights.{name}" for name in settings.train.loss_weights if name not in names]
    gone += [f"eval.expected.{name}" for name in settings.eval.expected if name not in names]
    kept: dict[str, Any] = {}

    def narrow(where: str, tasks: Sequence[str]) -> None:
        left = [task for task in tasks if task in names]
        if not left:
            gone.append(where)
        elif len(left) < len(tasks):
            kept[f"{where}.tasks"] = left

    for name, source in settings.sources.items():
        if not set(source.all_tasks(name)) & set(names):
            gone.append(f"sources.{name}")
            continue
        for view, of_view in source.all_views(name).items():
            narrow(f"sources.{name}" + (f".views.{view}" if view else ""), of_view.tasks)
    for name, tasks in settings.eval.tasks().items():
        narrow(f"eval.datasets.{name}", tasks)
    return _checked(run.tree.without(gone).with_values(kept, "--tasks"))


def check_agreement(settings: Settings) -> None:
    """Checks that the names in a config lead from task to head, from source to task and from evaluation set to task.

    Raises:
        ConfigError: with every disagreement.
    """
    tasks, answers = settings.tasks, settings.model.answers()
    wires = [(f"model.heads.{head}.answers", task) for head, task in answers.items()]
    wires += [(f"train.loss_weights.{name}", name) for name in settings.train.loss_weights]
    wires += [(f"eval.expected.{name}", name) for name in settings.eval.expected]
    for name, source in settings.sources.items():
        for view, of_view in source.all_views(name).items():
            wires += [(f"sources.{name}{'.views.' + view if view else ''}.tasks", task) for task in of_view.tasks]
    evaluated = [(name, task) for name, of_set in settings.eval.tasks().items() for task in of_set]
    wires += [(f"eval.datasets.{name}.tasks", task) for name, task in evaluated]
    problems = [
        f"{where}: '{name}' is no task of this config{suggestion(name, tasks)}"
        for where, name in wires
        if name not in tasks
    ]
    problems += [f"model.heads: no head answers task '{task}'" for task in tasks if task not in answers.values()]
    for where, named in (("model.heads", list(answers.values())), ("eval.datasets", [task for _, task in evaluated])):
        problems += [
            f"{where}: task '{t}' has {named.count(t)} entries, one is allowed" for t in tasks if named.count(t) > 1
        ]
    for name, head in settings.model.heads.items():
        asked = target_of(tasks[answers[name]].part).task_type if answers[name] in tasks else None
        part = target_of(head.part)
        if asked and getattr(part, "task_type", None) != asked:
            problems.append(
                f"model.heads.{name}: {part.__name__} answers {getattr(part, 'task_type', 'no task type')}, but "
                f"tasks.{answers[name]} asks {asked}"
            )
    if problems:
        raise ConfigError(problems)


def require_work(settings: Settings) -> None:
    """Checks that every optimizer step takes a batch; raises ConfigError if all sources leave out some."""
    every = {name: source.every for name, source in settings.sources.items()}
    if every and min(every.values()) > 1:
        name, number = min(every.items(), key=lambda item: item[1])
        raise ConfigError(
            [
                f"sources.{name}.every: got {number}, and no other source takes part in every step either: some steps would "
                f"have no batch; set -o sources.{name}.every=1"
            ]
        )


def require_data(settings: Settings, *, training: bool, evaluation: bool) -> None:
    """Checks that every data path of the run exists, class files included, without reading any.

    Raises:
        ConfigError: listing what is missing and how to get it.
    """
    missing = missing_paths(settings, training=training, evaluation=evaluation)
    if missing:
        listed = "\n".join(f"  {path}" for path in missing)
        root = Path(settings.data_root)
        here = "" if root.is_dir() else ", which is no folder"
        # The renderer writes the challenge's tree, which helps a config that asks for nothing else
        rendered = all(path.is_relative_to(root) and path.relative_to(root).parts[:1] in _RENDERED for path in missing)
        demo = f"\nor render demo data in the same layout: python tools/make_demo_data.py --out {root}"
        raise ConfigError(
            [
                f"data: {len(missing)} of the paths that this config names do not exist:\n{listed}\n"
                f"Paths start from data_root, {root}{here}. Correct them in the config (docs/data.md says what each\n"
                f"reader wants), or point data_root at your copy:  -o data_root=/path/to/datasets{demo if rendered else ''}"
            ]
        )


def missing_paths(settings: Settings, *, training: bool, evaluation: bool) -> list[Path]:
    """Every data path of the run that does not exist."""
    root = Path(settings.data_root)
    parts = [(s.dataset, s.all_tasks(name)) for name, s in settings.sources.items()] if training else []
    if evaluation:
        parts += [(settings.eval.datasets[name].part, of_set) for name, of_set in settings.eval.tasks().items()]
    wanted = [path for part, of in parts for path in target_of(part).required_paths(root, of, **part.keywords)]
    files = [task.classes.names for task in settings.tasks.values()]
    files += [name for task in settings.tasks.values() for name in task.classes.captions if training]
    wanted += [root / name for name in files if isinstance(name, str)]
    return sorted({path for path in wanted if not path.exists()})


def build_tasks(settings: Settings, stored: Mapping[str, Any] | None = None) -> Tasks:
    """{name: task} with their classes.

    Args:
        settings: the run.
        stored: {task: {"names", "ids"}} of the checkpoint in use; it wins, because these are the classes that the
            weights answer in. None = read the config's lists and files.

    Raises:
        ConfigError: if a class file is missing or unreadable, or its length is not ``count``.
    """
    tasks, problems = {}, []
    for name, task in settings.tasks.items():
        try:
            if stored and name in stored:
                classes = ClassList(tuple(stored[name]["names"]), tuple(stored[name]["ids"]))
            else:
                classes = _class_list(task.classes, Path(settings.data_root))
        except (ValueError, OSError) as error:
            problems.append(f"tasks.{name}.classes: {error}")
            continue
        tasks[name] = task.part(name, classes)
    if problems:
        raise ConfigError(problems)
    return tasks


def _class_list(wanted: ClassSettings, root: Path) -> ClassList:
    if wanted.captions:
        classes = read_vocabulary([root / name for name in wanted.captions], wanted.min_count)
        source = f"{', '.join(wanted.captions)} (min_count {wanted.min_count})"
    elif wanted.names is None:
        assert wanted.count is not None
        return ClassList(tuple(str(index) for index in range(wanted.count)))
    elif isinstance(wanted.names, str):
        classes, source = read_class_file(root / wanted.names), wanted.names
    else:
        classes, source = ClassList(wanted.names, wanted.ids), str(wanted.names)
    if wanted.count not in (None, len(classes)):
        raise ValueError(
            f"count is {wanted.count}, but {source} has {len(classes)} classes; set count to {len(classes)}, or name "
            "the right file"
        )
    return classes


def build_model(settings: Settings, tasks: Mapping[str, Task[Any]]) -> MultiTaskModel:
    """The network with freshly initialised weights; seed Paddle before calling it.

    Raises:
        ConfigError: if a head's key contradicts what its task knows (``Task.for_head``).
    """
    backbone, answers = settings.model.backbone(), settings.model.answers()
    heads = {}
    for name, head in settings.model.heads.items():
        task = tasks[answers[name]]
        known = _known_to_task(f"model.heads.{name}", head.part, task)
        heads[name] = head.part(backbone.out_specs, len(task.classes), **known)
    mean, std, own = settings.model.mean, settings.model.std, settings.model.own_normalisation()
    return MultiTaskModel(backbone, heads, answers=answers, mean=mean, std=std, own=own)


def _known_to_task(where: str, part: Any, task: Task[Any]) -> dict[str, Any]:
    """The keyword arguments of a head that its task knows."""
    wrong = [
        f"{where}.{key}: got {part.keywords[key]!r}, but task '{task.name}' has {value!r} by its classes; leave the key out"
        for key, value in task.for_head().items()
        if part.keywords.get(key, value) != value
    ]
    if wrong:
        raise ConfigError(wrong)
    accepted = inspect.signature(target_of(part)).parameters
    return {key: value for key, value in task.for_head().items() if key in accepted}


def build_sources(
    settings: Settings,
    tasks: Mapping[str, Task[Any]],
    *,
    rank: int = 0,
    world_size: int = 1,
    repeat: int | None = None,
) -> dict[str, Source]:
    """{name: stream}, in the order of the config; the last three arguments as in ``Source``."""
    return {
        name: build_source(settings, name, build_reader(settings, source.dataset, source.all_tasks(name), tasks), tasks,
                           rank=rank, world_size=world_size, repeat=repeat)
        for name, source in settings.sources.items()
    }  # fmt: skip


def build_source(
    settings: Settings,
    name: str,
    reader: Reader,
    tasks: Mapping[str, Task[Any]],
    *,
    rank: int = 0,
    world_size: int = 1,
    repeat: int | None = None,
) -> Source:
    """The stream called ``name`` over its data set; the last three arguments as in ``Source``."""
    source = settings.sources[name]
    views = {
        view: SourceView(tuple(transform() for transform in of_view.transforms), {t: tasks[t] for t in of_view.tasks})
        for view, of_view in source.all_views(name).items()
    }
    return Source(
        name,
        reader,
        views,
        batch_size=source.batch_size,
        seed=settings.seed,
        sampler=source.sampler,
        pad=source.pad,
        skip_unreadable=settings.train.unreadable == "skip",
        rank=rank,
        world_size=world_size,
        every=source.every,
        repeat=repeat,
        total_batches=-(-settings.train.total_steps // source.every) * settings.train.accumulate,
    )


def build_eval_sets(settings: Settings, tasks: Mapping[str, Task[Any]]) -> dict[str, EvalSet]:
    """{name: labelled data set with the tasks that it measures}."""
    return {
        name: EvalSet(build_reader(settings, settings.eval.datasets[name].part, of_set, tasks), of_set)
        for name, of_set in settings.eval.tasks().items()
    }


def overfit_sets(settings: Settings, sources: Mapping[str, Source]) -> dict[str, EvalSet]:
    """{source: the images that it repeats}, without its transforms; a task of several sources is measured on the first."""
    sets, measured = dict[str, EvalSet](), set[str]()
    for name, source in sources.items():
        tasks = tuple(task for task in settings.sources[name].all_tasks(name) if task not in measured)
        if tasks:
            sets[name] = EvalSet(source.repeated(), tasks)
            measured |= set(tasks)
    return sets


def build_reader(settings: Settings, part: Any, names: Sequence[str], tasks: Mapping[str, Task[Any]]) -> Reader:
    """The data set that a source or an evaluation set names, with labels for the tasks named.

    Raises:
        DataError: if its lists or annotations are wrong.
    """
    reader: Reader = part(Path(settings.data_root), {name: tasks[name].classes for name in names})
    return reader


def require_weights(settings: Settings) -> str:
    """The checkpoint folder or file that ``weights`` means; raises ConfigError if the config names none."""
    if settings.weights is None:
        raise ConfigError([f"weights: nothing to load; add -o weights={settings.save_dir}"])
    return str(find_weights(settings.weights))


def load_model(settings: Settings) -> tuple[Tasks, MultiTaskModel]:
    """The tasks and the network with ``settings.weights``; classes come from the checkpoint if it has them."""
    from ppmtl.train import checkpoint, distributed

    weights = require_weights(settings)
    arrays = checkpoint.read_tensors(weights)
    tasks = build_tasks(settings, checkpoint.read_state(weights).get("classes"))
    distributed.start(settings.device)
    model = build_model(settings, tasks)
    arrays = own_names(arrays, model)
    if not holds_heads(arrays):
        raise ValueError(
            f"weights: {weights} holds a backbone and no head, so it answers nothing yet; a training can start from it "
            "(tools/train.py -o weights=...)"
        )
    checkpoint.load_weights(model, arrays, weights)
    return tasks, model


def open_trained(settings: Settings, tta: Mapping[str, Any]) -> tuple[Tasks, Backend]:
    """The tasks and a backend with ``settings.weights``; ``tta`` replaces fields of every task's augmentation."""
    from ppmtl.models.backend import PaddleBackend

    tasks, model = load_model(settings)
    for task in tasks.values():
        task.change_tta(tta)
    return tasks, PaddleBackend(model)


def open_exported(folder: str, settings: Settings, tta: Mapping[str, Any]) -> tuple[Tasks, Backend]:
    """The settings' tasks as an exported bundle knows them, and a backend that runs it.

    Args:
        folder: what tools/export_model.py wrote.
        settings: for the names of the tasks and the device.
        tta: replaces these fields of every task's test-time augmentation.
    """
    from ppmtl.bundle.engines.backend import open_backend
    from ppmtl.bundle.reading import read_bundle
    from ppmtl.train import distributed

    bundle = read_bundle(folder, list(settings.tasks))
    distributed.start(settings.device)
    for task in bundle.tasks.values():
        task.change_tta(tta)
    device = "cpu" if settings.device == "auto" else settings.device
    return bundle.tasks, open_backend(bundle, device=device)


def exported_tasks(folder: str) -> list[str]:
    """The names of the tasks of an exported bundle."""
    from ppmtl.bundle.reading import read_settings

    return list(read_settings(Path(folder)).tasks)


def describe(run: Run, tasks: Mapping[str, Task[Any]]) -> dict[str, Any]:
    """What every checkpoint carries besides tensors: config, class lists, environment."""
    from ppmtl.train.environment import environment

    classes = {name: {"names": list(t.classes.names), "ids": list(t.classes.ids)} for name, t in tasks.items()}
    return {"config": run.tree.data, "classes": classes, "environment": environment()}
