"""What t5_mesh_conv adds to T5's training: progress, a loss curve, a guard.

These are session hooks; `train_model` takes the place of T5's function of the
same name through `utils.run.train_model_fn` and hands everything on to it.
"""

import json
import os
import re
import time

import gin
import mesh_tensorflow as mtf
import tensorflow.compat.v1 as tf
import tqdm
from mesh_tensorflow.transformer import utils

from mtf_conv.base import autograph, errors, files, gin_values, terminal
from mtf_conv.model_dir import checkpoints, record

_PROGRESS_SECONDS = 2  # How often progress.json is written.


@gin.configurable
def virtual_devices(mesh_shape=gin.REQUIRED):
  """Names a virtual CPU device for each processor of a mesh.

  Args:
    mesh_shape: such as 'batch:4;model:2'.

  Returns:
    A list for utils.run.mesh_devices and for train_model.
  """
  return [f'cpu:{i}' for i in range(mtf.convert_to_shape(mesh_shape).size)]


@gin.configurable
def train_model(estimator, vocabulary, sequence_length, *args, seed=None,
                cpu_devices=None, held_out=None, partial_checkpoint=False,
                hours=None, **kwargs):
  """T5's train_model with progress and a record, refusing other models.

  Off the TPU it trains resource variables that are read once a step. T5's
  reference variables are updated in place while the backward pass still reads
  them, so that gradients mix weights of two steps.

  Args:
    estimator: a TPUEstimator.
    vocabulary: a vocabulary, or a pair of them.
    sequence_length: of T5's train_model.
    *args: of T5's train_model.
    seed: of the initial weights and of dropout; another one each time when
      None.
    cpu_devices: a list with the names of CPU devices that the mesh has;
      TensorFlow has only one unless it is told of more, and would place
      everything there.
    held_out: what measures each checkpoint, such as held_out.HeldOutLoss: a
      function of model_dir, vocabulary and sequence_length.
    partial_checkpoint: whether weights that a checkpoint to be fine-tuned does
      not have may begin at random.
    hours: that the training may take. The number of steps follows from it
      before it begins (model_dir.budget), so that a schedule ends with it.
    **kwargs: of T5's train_model.

  Returns:
    What T5's train_model returns.

  Raises:
    errors.UserError: the folder holds another model, or checkpoints of which
      none is whole.
  """
  del hours  # The steps among args are those.
  checkpoints.go_back(estimator.model_dir)
  if seed is not None:
    estimator._config = estimator.config.replace(tf_random_seed=seed)
  if cpu_devices:
    estimator._session_config.device_count['CPU'] = len(cpu_devices)
  # Whether variables are resources is settled for training only: what restores
  # these for an evaluation does not look at shapes.
  if not estimator._ctx._use_tpu:
    estimator._create_global_step = _create_global_step
    estimator._call_model_fn = _without_graph_files(estimator._call_model_fn)
    if not tf.config.list_physical_devices('GPU'):
      rewrite_little(estimator._session_config.graph_options.rewrite_options)
  if held_out:
    held_out = held_out(estimator.model_dir, vocabulary, sequence_length)
  try:
    return utils.train_model(
        _Watched(estimator, vocabulary, seed, held_out, partial_checkpoint),
        vocabulary, sequence_length, *args, **kwargs)
  finally:
    for name in ('_create_global_step', '_call_model_fn'):
      vars(estimator).pop(name, None)


class _Watched:
  """Stands for an estimator, and adds the hooks to its training."""

  def __init__(self, estimator, vocabulary, seed, held_out,
               partial_checkpoint):
    self._estimator = estimator
    self._partial_checkpoint = partial_checkpoint
    self._vocabulary = vocabulary
    self._seed = seed
    self._held_out = held_out
    self._pretrained = estimator.init_checkpoint  # t5_patches puts it there.

  def __getattr__(self, name):
    return getattr(self._estimator, name)

  def train(self, input_fn, max_steps, hooks=()):
    """Trains what is left to be trained."""
    model_dir, pretrained = self.model_dir, self._pretrained
    if self.latest_checkpoint():
      pretrained = None  # All is read from model_dir.
      done = int(self.get_variable_value('global_step'))
      if done >= max_steps:
        terminal.say(f'{model_dir} is trained already: {done} steps.')
        return
      terminal.say(f'{model_dir}: goes on at step {done}.')
    curve = LossCurve(max_steps, model_dir)
    self._estimator.train(
        input_fn=lambda params: autograph.avoid(input_fn, params),
        max_steps=max_steps,
        hooks=[ModelDirGuard(model_dir),
               PretrainedGuard(pretrained, self._partial_checkpoint),
               ProgressBar(max_steps, model_dir, self._held_out), curve,
               record.Recorder(model_dir, self._vocabulary, self._seed),
               *hooks],
        saving_listeners=[
            DivergenceGuard(model_dir), curve.listener,
            *filter(None, [self._held_out])])


def _without_graph_files(call_model_fn):
  """Has no hook write the graph beside checkpoints: gin builds it anew.

  As text, in graph.pbtxt, it takes half a second of a tiny model's start and
  more of others'; model.ckpt-*.meta is as large as a mini model's weights. The
  graph that TensorBoard shows is in the event file.
  """
  def call(*args, **kwargs):
    spec = call_model_fn(*args, **kwargs)
    for hook in spec.training_chief_hooks:
      if isinstance(hook, tf.train.CheckpointSaverHook):
        hook._save_graph_def = False
    return spec

  return call


def _create_global_step(graph):
  """Creates the first variable of a graph of training, and says how all are."""
  read_once(tf.get_variable_scope())
  return tf.train.create_global_step(graph)


def read_once(scope):
  """Has each variable read once a step, which comes before its update.

  Each operation that takes a resource variable would read it for itself, and
  nothing would keep a late one from finding what the step has written.

  Args:
    scope: a tf.VariableScope, to which variables will be added.
  """
  scope.set_use_resource(True)
  scope.set_caching_device(lambda op: op.device)


def rewrite_little(options):
  """Has TensorFlow inline functions and drop dependencies, and no more.

  All its passes over a graph of training take longer than building it, twice,
  and a step on the CPU is no faster for the others: the operations of a model
  are in few passes already.

  Args:
    options: a RewriterConfig, which is changed.
  """
  for field in options.DESCRIPTOR.fields:
    if field.enum_type is options.Toggle.DESCRIPTOR:
      setattr(options, field.name, options.OFF)
  options.memory_optimization = options.NO_MEM_OPT
  options.function_optimization = options.ON
  options.dependency_optimization = options.ON


class ModelDirGuard(tf.train.SessionRunHook):
  """Stops before anything is written when model_dir holds another model.

  Raises:
    errors.UserError: names both models.
  """

  def __init__(self, model_dir):
    self._model_dir = model_dir

  def begin(self):
    """Compares the graph's variables with the checkpoint's."""
    checkpoint = tf.train.latest_checkpoint(self._model_dir)
    if not checkpoint:
      return
    found = {name: tuple(shape) for name, shape
             in tf.train.list_variables(checkpoint)}
    wanted = {v.op.name: tuple(v.shape.as_list())
              for v in tf.global_variables()}
    if found != wanted:
      differs = min(set(found.items()) ^ set(wanted.items()))[0]
      raise errors.UserError(
          f'{self._model_dir} holds another model ({describe(found)}) than '
          f'the one to be trained ({describe(wanted)}; {differs} differs): '
          'choose another --model_dir')


class PretrainedGuard(tf.train.SessionRunHook):
  """Says how much of a model is in the checkpoint that it begins with.

  T5 leaves what is not in it at random, without a word.

  Raises:
    errors.UserError: names what is not in it.
  """

  def __init__(self, checkpoint, partial):
    """Constructor.

    Args:
      checkpoint: the prefix of a checkpoint; None for none.
      partial: whether it may lack variables.
    """
    self._checkpoint = checkpoint
    self._partial = partial

  def begin(self):
    """Compares the graph's weights with the checkpoint's."""
    if not self._checkpoint:
      return
    pattern = gin_values.bound(
        'utils.tpu_estimator_model_fn.init_variable_filter') or ''
    found = {name: shape for name, shape
             in tf.train.list_variables(self._checkpoint)
             if record.is_weight(name) and re.search(pattern, name)}
    shapes = {v.op.name: v.shape.as_list() for v in tf.global_variables()
              if record.is_weight(v.op.name)}
    # The names that T5 is going to look for.
    sources = {name: utils.init_checkpoint_variable_mapping(name)
               for name in shapes if utils.should_load_variable(name)}
    wanted = {name: source for name, source in sources.items()
              if re.search(pattern, source)}
    differ = [name for name, source in wanted.items()
              if found.get(source, shapes[name]) != shapes[name]]
    if differ:
      raise errors.UserError(
          f'PRETRAINED ({self._checkpoint}) is of another model '
          f'({describe(found)}) than the one to be trained '
          f'({describe(shapes)}): {differ[0]} is {found[wanted[differ[0]]]}, '
          f'not {shapes[differ[0]]}')
    missing = [name for name, source in wanted.items() if source not in found]
    unused = [name for name in found if name not in wanted.values()]
    there = len(wanted) - len(missing)
    said = [f'{there} of {len(wanted)} variables are in it']
    if missing:
      said.append(f'{len(missing)} are not: {_first(missing)}')
    if unused:
      said.append(f'{len(unused)} of its own are not in the model: '
                  f'{_first(unused)}')
    said = f'PRETRAINED ({self._checkpoint}): {", ".join(said)}.'
    if not there or (missing or unused) and not self._partial:
      would = ' and '.join(
          ['begin with the former at random'] * bool(missing)
          + ['leave these out'] * bool(unused))
      raise errors.UserError(
          f'{said} It is of another model ({describe(found)}); '
          'mtf_conv.training.train_model.partial_checkpoint = True would '
          f'{would}')
    if missing:
      said += ' Those begin at random.'
    if len(wanted) < len(shapes):
      said += (f' {len(shapes) - len(wanted)} others are not to be read from '
               'it and begin at random.')
    terminal.say(said)


def _first(names):
  return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')


class DivergenceGuard(tf.train.CheckpointSaverListener):
  """Ends a training before it saves weights that have diverged.

  Raises:
    errors.UserError: says what to do.
  """

  _LARGEST = 1e10  # What a step at far too high a rate leaves is beyond.

  def __init__(self, model_dir):
    self._model_dir = model_dir

  def begin(self):
    """Adds what looks at all weights."""
    self._is_sound = tf.reduce_all([
        tf.reduce_all(tf.abs(tf.cast(v, tf.float32)) < self._LARGEST)
        for v in tf.global_variables() if record.is_weight(v.op.name)])

  def before_save(self, session, global_step_value):
    """Looks at them."""
    if not session.run(self._is_sound):
      raise errors.UserError(
          f'{self._model_dir}: weights are not numbers after step '
          f'{global_step_value}, or beyond {self._LARGEST:g}, and are not '
          'saved: lower the learning rate; the same command goes on from the '
          'last checkpoint')


def describe(variables):
  """Names a model by its variables.

  Args:
    variables: a dict from the names of variables to their shapes.

  Returns:
    For instance 'LightConv, 2+2 blocks, d_model 64, 1234 weights'.
  """
  blocks = {stack: len({m.group() for m in (
      re.match(stack + r'/block_\d+', name) for name in variables) if m})
      for stack in ('encoder', 'decoder')}
  kinds = sorted({name.split('/')[3] for name in variables if re.match(
      r'(encoder|decoder)/block_\d+/layer_000/(?!rms_norm)', name)})
  weights = record.count_parameters(variables)
  d_model = [shape[-1] for name, shape in variables.items()
             if name.endswith('shared/embedding')]
  return ', '.join(
      [' and '.join(kinds) or 'no block that is known'] +
      [f'{blocks["encoder"]}+{blocks["decoder"]} blocks'] +
      [f'd_model {size}' for size in d_model] + [f'{weights:,} weights'])


class _StepAndLoss(tf.train.SessionRunHook):
  """Fetches the loss where there is one, and the step that it belongs to."""

  def begin(self):
    """Finds them in the graph."""
    self._step = tf.train.get_or_create_global_step()
    losses = tf.get_collection(tf.GraphKeys.LOSSES)
    self._fetches = {'loss': losses[-1]} if losses else {}

  def before_run(self, run_context):
    """Fetches the loss."""
    return tf.train.SessionRunArgs(self._fetches)

  def step_done(self, run_context):
    """Reads the step now: beside the update it is that before or after it."""
    return int(run_context.session.run(self._step))


class LossCurve(_StepAndLoss):
  """Writes 50 losses of a run to its event file, at least one in 100 steps.

  Estimator writes one in 100: of a run of 200 steps that is no curve. It also
  writes the file every two minutes only: a training that is killed would go on
  from a checkpoint behind a gap in the curve.

  Attributes:
    listener: writes the file out before each checkpoint.
  """

  def __init__(self, max_steps, model_dir):
    self._every = max(1, min(100, max_steps // 50))
    self._model_dir = model_dir
    self._written = None
    self.listener = _Listener(self)

  def begin(self):
    """Keeps the loss in the session, where it is found before it is fetched."""
    super().begin()
    self._kept = None
    if 'loss' in self._fetches:
      with tf.variable_scope('loss_curve', reuse=tf.AUTO_REUSE):
        self._kept = tf.get_variable(
            'loss', [], trainable=False, collections=[
                tf.GraphKeys.LOCAL_VARIABLES],
            initializer=tf.zeros_initializer())
      self._fetches['loss'] = tf.assign(self._kept, self._fetches['loss'])

  def after_create_session(self, session, coord):
    """Fetches Estimator's summaries in every step.

    It fetches them in one of 100. A step with them and a step without them are
    two graphs, and TensorFlow takes its time to prepare each.
    """
    del coord
    summaries = session.graph.get_collection(tf.GraphKeys.SUMMARY_OP)
    if summaries and summaries[0] is not None:
      self._fetches['summary'] = summaries[0]

  def before_run(self, run_context):
    """Fetches the loss."""
    self._written = self._written or 0  # From now on there is one to write.
    return super().before_run(run_context)

  def after_run(self, run_context, run_values):
    """Writes the loss if it is its turn."""
    if 'loss' in run_values.results:
      self._write(self.step_done(run_context), run_values.results['loss'])

  def before_save(self, session, step):
    """Writes the loss of a checkpoint's own step, and the file."""
    if self._kept is not None and self._written is not None:
      self._write(step, session.run(self._kept))
    self._writer().flush()

  def _write(self, step, loss):
    if step % self._every == 0 and step != self._written:
      value = tf.Summary.Value(tag='loss', simple_value=float(loss))
      self._writer().add_summary(tf.Summary(value=[value]), step)
      self._written = step

  def _writer(self):
    # That of Estimator's own summaries: one event file for all.
    return tf.summary.FileWriterCache.get(self._model_dir)


class _Listener(tf.train.CheckpointSaverListener):

  def __init__(self, curve):
    self._curve = curve

  def before_save(self, session, global_step_value):
    self._curve.before_save(session, int(global_step_value))


class ProgressBar(_StepAndLoss):
  """Step, loss, steps per second and time left, on the terminal.

  The same goes to <model_dir>/progress.json, for whoever started this process
  and for those who want to know how a run stands.
  """

  def __init__(self, max_steps, model_dir, held_out=None):
    """Constructor.

    Args:
      max_steps: where the bar ends.
      model_dir: the folder of the checkpoints.
      held_out: what measures them, if anything does.
    """
    self._max_steps = max_steps
    self._path = os.path.join(model_dir, 'progress.json')
    self._held_out = held_out
    self._bar = None

  def after_create_session(self, session, coord):
    """Starts the bar at the step of the checkpoint."""
    self._bar = tqdm.tqdm(
        desc='training', total=self._max_steps,
        initial=int(session.run(self._step)), unit='step',
        file=terminal.stream(), dynamic_ncols=True, mininterval=0.5,
        disable=not terminal.shows_progress())
    self._first = None

  def after_run(self, run_context, run_values):
    """Moves the bar."""
    step = self.step_done(run_context)
    progress = {'step': step, 'total': self._max_steps}
    if 'loss' in run_values.results:
      progress['loss'] = float(run_values.results['loss'])
      shown = {'loss': f'{progress["loss"]:.3f}'}
      if self._held_out and self._held_out.latest() is not None:
        progress['held_out'] = self._held_out.latest()
        shown['held_out'] = '{:.2f} (pieces {:.2f}, pairs {:.2f})'.format(
            progress['held_out'], *map(
                self._held_out.measured.get, ('unigram', 'bigram')))
      self._bar.set_postfix(shown, refresh=False)
    self._bar.update(max(0, step - self._bar.n))
    now = time.monotonic()
    if self._first is None:  # The first step warms up: it does not count.
      self._first, self._written = (now, step), now
    elif (now > self._written + _PROGRESS_SECONDS
          or step >= self._max_steps):
      progress['steps_per_second'] = (
          (step - self._first[1]) / (now - self._first[0]))
      self._written = now
      files.write_whole(self._path, json.dumps(progress))

  def end(self, session):
    """Leaves the finished bar on the terminal."""
    self._bar.update(int(session.run(self._step)) - self._bar.n)
    self._bar.close()
