"""The paper's grid as jobs: pre-train, fine-tune, evaluate.

A scale says how large all of it is: a JSON file in scales/, or one like it.
Its stages, `pretrain`, `finetune` and `evaluate`, hold gin files, gin bindings
and the numbers that these take (`%(steps)d`, ...); an entry of `tasks` holds
what differs from `finetune` for one task, and under `evaluate_on` the tasks it
is scored on, where that is not the task alone. A task `sst2@2000` is sst2 with
2,000 labelled rows. With `dev` so many rows are taken out of a task's training
set, checkpoints are scored on them as well, and the report chooses by them.
`prepare` names the tasks whose data is prepared first, and under `vocabulary` a
task on whose text a vocabulary of a `size` is trained for all, and in whose
text the rows that are scored are looked for; all lie in the folder of the grid.
`environment` holds environment variables of all jobs: without oneDNN, training
on one thread is repeatable to the last bit, and with checkpoints in float32 a
restart changes nothing.
`hardware` is what they run on. `seeds` are those of fine-tuning; each has its
own pre-training, unless `pretrain` has a `seed`: then all go on from that one.
`like` names the scale from which comes all that a file does not say itself,
stage by stage. The lengths of fine-tuning are those of gin/sequence_lengths
unless they are given. `models` are all that have the scale's size unless they
are given; `without` takes some of them out.
"""

import dataclasses
import glob
import json
import os
from typing import Optional

from mtf_conv.base import errors, gin_files
from mtf_conv.replicate import jobs, paper

_SCALES = os.path.join(os.path.dirname(__file__), 'scales')
DEV = 'dev'  # The split of mtf_conv.tasks.labels.
_STAGES = ('pretrain', 'finetune', 'evaluate')

# About what a tiny model takes on one core: they say what part of all the work
# a job is.
_START_SECONDS = 15  # Building the graph.
_TOKENS_PER_SECOND = 3e4


@dataclasses.dataclass(frozen=True)
class Run:
  """One job of the grid, and its place in it.

  Attributes:
    stage: 'prepare', 'pretrain', 'finetune' or 'evaluate'.
    model: the name of a model; None where data is prepared.
    seed: of the weights and of the order of the data.
    job: what is to be done.
    model_dir: the folder of its checkpoints.
    task: of fine-tuning, with its number of labels if that is limited; None in
      pre-training, as the next two.
    init: 'raw' or 'pretrained'.
    learning_rate: of fine-tuning.
    numbers: steps, sequences, inputs, targets of training.
    split: that an evaluation scores.
  """

  stage: str
  model: str
  seed: int
  job: jobs.Job
  model_dir: str
  task: Optional[str] = None
  init: Optional[str] = None
  learning_rate: Optional[float] = None
  numbers: dict = dataclasses.field(default_factory=dict)
  split: str = 'validation'


def scale_names():
  """Lists the scales that come with the package."""
  return sorted(os.path.basename(path)[:-5]
                for path in glob.glob(os.path.join(_SCALES, '*.json')))


def load_scale(name):
  """Reads a scale.

  Args:
    name: one of scale_names(), or the path of a JSON file.

  Returns:
    A dict.

  Raises:
    errors.UserError: there is no such scale, or it lacks something.
  """
  path = name
  if not name.endswith('.json'):
    path = os.path.join(_SCALES, f'{name}.json')
    if not os.path.exists(path):
      raise errors.UserError(
          f'unknown scale {name!r}: choose from {", ".join(scale_names())}, or '
          f'give the path of a .json file{errors.nearest(name, scale_names())}')
  try:
    with open(path) as f:
      scale = json.load(f)
  except OSError as error:
    raise errors.UserError(f'{path}: {error.strerror}') from error
  except ValueError as error:
    raise errors.UserError(f'{path} is not JSON: {error}') from error
  if 'like' in scale:
    like = load_scale(scale['like'])
    stages = {stage: {**like[stage], **scale[stage]}
              for stage in _STAGES if stage in like and stage in scale}
    scale = {**like, **scale, **stages}
  missing = {'size', 'hardware', 'pretrain', 'tasks', 'evaluate'} - set(scale)
  if missing:
    raise errors.UserError(f'{path} lacks {", ".join(sorted(missing))}')
  return scale


def registered(task):
  """Returns the task that SeqIO knows: 'sst2' of 'sst2@2000'."""
  return task.partition('@')[0]


def _registered(scale):
  """Returns the tasks of a scale that SeqIO knows, each once."""
  return list(dict.fromkeys(map(registered, scale['tasks'])))


def _labels(task, dev):
  """Returns gin bindings: the training rows of a task.

  Args:
    task: its name, which may say how many there are.
    dev: how many are taken out, to choose by.
  """
  _, limited, count = task.partition('@')
  if limited and not count.isdecimal():
    raise errors.UserError(
        f'task {task!r}: expected a number of labels after @, as in '
        f'{registered(task)}@2000')
  return [*([f'mtf_conv.tasks.labels.limit = {count}'] if limited else []),
          *([f'mtf_conv.tasks.labels.dev = {dev}'] if dev else [])]


def make(scale, root, models=None, tasks=None, inits=None, learning_rates=None,
         seeds=None, hardware=None, checkpoints=None, flags=(), raw_dir=None):
  """Makes the runs of a grid; None takes all that the scale has.

  Args:
    scale: as load_scale returns it.
    root: the folder of all runs.
    models: names of models.
    tasks: names of tasks.
    inits: 'raw', 'pretrained'.
    learning_rates: of fine-tuning.
    seeds: integers; those of the scale, or 0, when None.
    hardware: 'cpu', 'gpu' or 'tpu'; the scale's when None.
    checkpoints: the folder of all model_dirs, which may be in a bucket; root
      when None.
    flags: of t5_mesh_conv, which every command gets.
    raw_dir: the folder of raw files, where the scale prepares data.

  Returns:
    A list of Runs, those first that others need.

  Raises:
    errors.UserError: a name that the scale does not have.
  """
  chosen = {
      'models': _choose('model', models, _models(scale)),
      'tasks': _choose('task', tasks, scale['tasks']),
      'inits': _choose('init', inits, paper.INITS)}
  rates = learning_rates or scale.get('learning_rates', paper.LEARNING_RATES)
  runs, more_flags = _preparation(scale, os.path.abspath(root), raw_dir)
  grid = _Grid(scale, checkpoints or os.path.abspath(root),
               hardware or scale['hardware'], [*flags, *more_flags],
               [run.job.name for run in runs])
  made = set()
  for seed in seeds or scale.get('seeds', [0]):
    for model in chosen['models']:
      if 'pretrained' in chosen['inits']:
        pretrain = grid.pretrain(model, seed)
        if pretrain.job.name not in made:
          made.add(pretrain.job.name)
          runs.append(pretrain)
    for model in chosen['models']:
      for task in chosen['tasks']:
        for init in chosen['inits']:
          for rate in rates:
            runs += grid.finetune(model, task, init, rate, seed)
  return runs


def _preparation(scale, root, raw_dir):
  """Returns the Runs that prepare data, and the flags of those that read it."""
  if 'prepare' not in scale:
    if raw_dir:
      raise errors.UserError(
          '--raw_dir: this scale prepares no data; mtf_conv prepare does')
    return [], []
  stage = scale['prepare']
  data = os.path.join(root, 'data')
  raw = [f'--raw_dir={os.path.abspath(raw_dir)}'] if raw_dir else []
  prepare = jobs.Job(
      name='prepare', argv=('mtf_conv', 'prepare', *stage['tasks'], *raw,
                            f'--data_dir={data}'),
      outputs=(os.path.join(glob.escape(data), 'mtf_conv', '*.json'),),
      seconds=60)
  made, flags = [prepare], [f'--t5_tfds_data_dir={data}']
  if 'vocabulary' in stage:
    model = os.path.join(root, 'vocabulary.model')
    wanted = stage['vocabulary']
    made.append(jobs.Job(
        name='vocabulary', argv=(
            'mtf_conv', 'train_vocabulary', f'--task={wanted["task"]}',
            f'--data_dir={data}', f'--size={wanted["size"]}', f'--out={model}',
            *(['--lowercase'] if wanted.get('lowercase') else [])),
        outputs=(glob.escape(model),), needs=('prepare',), seconds=60))
    flags.append('--gin_param=mtf_conv.vocabulary.sentencepiece_model_path = '
                 f'{model!r}')
    made.append(jobs.Job(
        name='overlap', argv=(
            'mtf_conv', 'prepare', *_registered(scale), *raw,
            f'--data_dir={data}', f'--overlap={wanted["task"]}'),
        outputs=(os.path.join(glob.escape(data), 'mtf_conv', 'overlap.json'),),
        needs=('prepare',), seconds=60))
  return [Run('prepare', model=None, seed=0, job=job, model_dir=data)
          for job in made], flags


def _models(scale):
  """Returns the models of a scale: those it names, or all of its size."""
  known = gin_files.model_names(scale['size'])
  names = scale.get('models', known)
  without = scale.get('without', ())
  for name in [*names, *without]:
    if name not in known:
      raise errors.UserError(
          f'the scale names the model {name!r}, which has no gin file '
          f'models/{name}.{scale["size"]}.gin: there are {", ".join(known)}'
          f'{errors.nearest(name, known)}')
  return [name for name in paper.in_order(names) if name not in without]


def _choose(kind, wanted, known):
  for name in wanted or ():
    if name not in known:
      raise errors.UserError(
          f'unknown {kind} {name!r}: choose from {", ".join(known)}'
          f'{errors.nearest(name, known)}')
  return [name for name in known if not wanted or name in wanted]


class _Grid:
  """Makes single runs."""

  def __init__(self, scale, root, hardware, flags, needs):
    self._scale = scale
    self._needs = tuple(needs)
    self._root = root
    self._hardware = hardware
    self._flags = flags

  def pretrain(self, model, seed):
    """Returns the Run of the pre-training that a seed goes on from."""
    stage = self._scale['pretrain']
    if stage.get('seed') is not None:
      seed = stage['seed']
    folder = self._folder(model, f'seed{seed}', 'pretrain')
    return self._train('pretrain', stage, folder, seed, model=model)

  def finetune(self, model, task, init, learning_rate, seed):
    """Returns the Runs of fine-tuning and of its evaluations."""
    folder = self._folder(
        model, f'seed{seed}', task, f'{init}_lr{learning_rate:g}')
    pretrain_dir = self.pretrain(model, seed).model_dir
    pretrained = init == 'pretrained'
    where = dict(model=model, task=task, init=init, learning_rate=learning_rate)
    stage = {**gin_files.sequence_lengths(registered(task)),
             **self._scale.get('finetune', {}), **self._scale['tasks'][task]}
    train = self._train(
        'finetune', stage, folder, seed,
        bindings=[
            f'LEARNING_RATE = {learning_rate!r}', 'PRETRAINED = ' + (
                repr(pretrain_dir) if pretrained else 'None'),
            *_labels(task, stage.get('dev'))],
        needs=(self._name(pretrain_dir),) if pretrained else (), **where)
    runs = [train]
    for scored in stage.get('evaluate_on', [task]):
      # One after the other: event files are named by the second.
      runs.append(self._evaluate(
          folder, scored, task, seed, runs[-1].job.name, where))
    if stage.get('dev'):
      runs.append(self._evaluate(
          folder, task, task, seed, runs[-1].job.name, where, DEV,
          [f'utils.run.dataset_split = {DEV!r}', *_labels(task, stage['dev'])]))
    return runs

  def _evaluate(self, folder, scored, task, seed, after, where,
                split='validation', bindings=()):
    known = registered(scored)
    name = f'{self._name(folder)}.evaluate'
    if scored != task:
      name += f'_{scored}'
    if split != 'validation':
      name += f'_{split}'
    job = jobs.Job(
        name=name, argv=self._command(
            where['model'], folder,
            {'gin_params': [], **self._scale['evaluate'], 'task': known},
            [f"MIXTURE_NAME = '{known}'", *bindings]),
        outputs=(os.path.join(glob.escape(folder), f'{split}_eval',
                              f'{known}_*_predictions'),),
        needs=(after,), seconds=_START_SECONDS)
    return Run('evaluate', seed=seed, job=job, model_dir=folder, split=split,
               **{**where, 'task': scored})

  def _train(self, stage_name, stage, folder, seed, model, task=None,
             bindings=(), needs=(), **where):
    numbers = {key: stage[key]
               for key in ('steps', 'sequences', 'inputs', 'targets')}
    job = jobs.Job(
        name=self._name(folder),
        argv=self._command(
            model, folder, {**stage, 'task': task and registered(task)},
            [*bindings, f'DATA_SEED = {seed}',
             f'mtf_conv.training.train_model.seed = {seed}']),
        outputs=(os.path.join(
            glob.escape(folder), f'model.ckpt-{stage["steps"]}.index'),),
        needs=(*self._needs, *needs),
        progress=os.path.join(folder, 'progress.json'),
        seconds=_START_SECONDS + stage['steps'] * stage['sequences'] * (
            stage['inputs'] + stage['targets']) / _TOKENS_PER_SECOND)
    return Run(stage_name, model=model, task=task, seed=seed, job=job,
               model_dir=folder, numbers=numbers, **where)

  def _command(self, model, folder, stage, bindings):
    files = [f'models/{model}.{self._scale["size"]}.gin',
             *stage['gin_files'], *self._scale.get('gin_files', []),
             f'hardware/{self._hardware}.gin']
    bindings = [*self._scale.get('gin_params', []),
                *stage.get('gin_params', []), *bindings]
    return ('t5_mesh_conv', f'--model_dir={folder}', *self._flags,
            *(f'--gin_file={path % stage}' for path in files),
            *(f'--gin_param={binding % stage}' for binding in bindings))

  def _folder(self, *parts):
    return os.path.join(self._root, *parts)

  def _name(self, folder):
    return os.path.relpath(folder, self._root).replace(os.sep, '.')
