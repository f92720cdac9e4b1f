"""What gin binds for a run, looked at before anything is built.

All that is wrong is said at once, a line each with the value, what is expected
and a binding that works. T5 finds most of it late, in a traceback, or never: a
run without the gin file of a model trains the sizes of T5's own defaults.
"""

import numbers
import re

import gin
import mesh_tensorflow as mtf
from gin import config as gin_config

from mtf_conv.base import errors, gin_values, terminal

_MODES = ('train', 'eval', 'perplexity_eval', 'score_eval', 'infer',
          'score_from_strings', 'score_from_file', 'score_from_dataset',
          'export', 'export_infer', 'export_score')
_FEATURES = ('inputs', 'targets')
_BATCHES = tuple(f'{unit}_per_{part}' for unit in ('sequences', 'tokens')
                 for part in ('batch', 'replica'))

# Values of macros that a gin file leaves open, and what else there is.
_EXAMPLES = {
    'MIXTURE_NAME': ("'trec'", '; mtf_conv list tasks names them'),
    'PRETRAINED': ("'FOLDER'", ', that of pre-training, or None to begin with '
                   'random weights'),
}

# Mesh TensorFlow's defaults.gin, which is the size of no published model.
_DEFAULT_SIZE = {
    'num_layers': 6, 'd_model': 1024, 'd_ff': 4096, 'num_heads': 8,
    'd_kv': 128}


def require(flags):
  """Looks at all that gin binds, once it is parsed.

  Args:
    flags: of t5_mesh_conv.

  Raises:
    errors.UserError: something is wrong; all but the last is said before.
  """
  found = problems(flags.tpu, flags.gin_param or ())
  for line in found[:-1]:
    terminal.say(line)
  if found:
    raise errors.UserError(found[-1])


def problems(tpu=None, given=()):
  """Returns a list of lines: what is wrong with gin's bindings.

  Args:
    tpu: the name or address of a TPU.
    given: bindings of the command line.
  """
  found = [*_required(), *_no_model(), *_no_run(), *_no_hardware(tpu)]
  for parameter, check in _CHECKS.items():
    value = _value(parameter)
    line = check(value) if _is_set(parameter, value) else None
    if line:
      found.append(f'{_name(parameter)} (={value!r}) {line}')
  found = list(dict.fromkeys(found))  # A macro has one line, not one a use.
  found += [*_no_length(), *_mesh(), *_beam_and_temperature()]
  return found or [*_without_effect(given)]  # A file that is missing has some.


def _value(parameter):
  """Returns what gin binds; None where that is nothing or still open."""
  try:
    value = gin_values.bound(parameter)
  except (ValueError, TypeError, RuntimeError):  # One that needs more.
    return None
  return None if value is gin.REQUIRED else value


def _is_set(parameter, value):
  """Whether there is a value to look at: a None is one where it was written.

  It is not where it came from a configurable that has yet to run.
  """
  if value is not None:
    return True
  try:
    written = gin.query_parameter(parameter)
    if _name(parameter) != parameter:
      written = gin.query_parameter(f'{_name(parameter)}/gin.macro.value')
  except ValueError:
    return False
  return written is None


def _name(parameter):
  """Returns the macro that a parameter takes its value from, or itself."""
  value = gin.query_parameter(parameter)
  if isinstance(value, gin_config.ConfigurableReference) and (
      value.selector == 'gin.macro'):
    return value.scoped_selector.rpartition('/')[0]
  return parameter.removesuffix('/gin.macro.value')


def _required():
  for (scope, selector), bindings in gin_config._CONFIG.items():
    for parameter, value in bindings.items():
      if isinstance(value, gin_config.ConfigurableReference) and (
          value.scoped_selector == 'gin.REQUIRED/gin.constant'):
        name = scope if selector == 'gin.macro' else f'{selector}.{parameter}'
        example, others = _EXAMPLES.get(name, ('...', ''))
        yield (f'{name} is not set: give --gin_param="{name} = {example}"'
               f'{others}')


def _no_model():
  layers = _value('encoder/transformer.make_layer_stack.layers')
  size = {name: _value(f'{name}/gin.macro.value') for name in _DEFAULT_SIZE}
  if size == _DEFAULT_SIZE and layers and [
      getattr(layer, '__name__', None) for layer in layers] == [
          'SelfAttention', 'DenseReluDense']:
    yield ('No gin file says which model: give one, such as '
           '--gin_file=models/lightconv.base.gin; mtf_conv list models names '
           'them')


def _no_run():
  try:
    gin.query_parameter('utils.run.train_dataset_fn')
  except ValueError:
    if _value('utils.run.mode') in (None, 'train'):
      yield ('No gin file says what is done: give one, such as '
             '--gin_file=runs/finetune.gin or runs/eval.gin')


def _no_hardware(tpu):
  try:
    mesh = gin.query_parameter('utils.run.mesh_shape')
  except ValueError:
    return
  if tpu or isinstance(mesh, str) or not str(mesh).endswith('tpu_mesh_shape()'):
    return
  try:
    gin.query_parameter('tpu_mesh_shape.tpu_topology')
  except ValueError:
    yield ('No gin file says what the run is computed on: give '
           '--gin_file=hardware/cpu.gin, hardware/gpu.gin or hardware/tpu.gin')


def _is_count(value):
  return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _count(example):
  def check(value):
    if not _is_count(value):
      whole = isinstance(value, float) and value >= 1 and value == value // 1
      return ('must be a whole number above 0, such as '
              f'{int(value) if whole else example}')
  return check


def _rate(value):
  if isinstance(value, bool) or not isinstance(
      value, numbers.Real) or not 0 <= value:
    return 'must be a number that is not below 0, such as 0.001'


def _or_none(check):
  return lambda value: None if value is None else check(value)


def _whole(value):
  if isinstance(value, bool) or not isinstance(value, int) or value < 0:
    return 'must be a whole number that is not below 0, such as 0, or None'


def _folder(value):
  if not isinstance(value, str):
    return "must be a checkpoint or the folder of one in quotes, or None"


def _split(value):
  if not isinstance(value, str) or not value:
    return "must be the name of a split in quotes, such as 'validation'"


def _shape_of_mesh(value):
  if value is None:
    return "must be such as 'batch:4;model:2', or '' for one device"


def _hours(value):
  if isinstance(value, bool) or not isinstance(
      value, numbers.Real) or not 0 < value < float('inf'):
    return 'must be a number above 0, such as 2.5'


def _share(value):
  if isinstance(value, bool) or not isinstance(
      value, numbers.Real) or not 0 <= value < 1:
    return 'must be a number from 0 up to 1, such as 0.1'


def _mode(value):
  if value not in _MODES:
    return (f'must be one of {", ".join(_MODES)}'
            + errors.nearest(value, _MODES))


def _batch_size(value):
  if _is_count(value):
    return None
  if (not isinstance(value, (tuple, list)) or len(value) != 2
      or value[0] not in _BATCHES or not _is_count(value[1])):
    near = errors.nearest(value[0], _BATCHES) if (
        isinstance(value, (tuple, list)) and value
        and value[0] not in _BATCHES) else ''
    return f"must be such as ('sequences_per_batch', 64){near}"
  length = _value('utils.run.sequence_length')
  unit, count = value
  if not unit.startswith('tokens'):
    return None
  if length is None:
    return ("counts tokens, and no sequence_length is set: give "
            "('sequences_per_batch', 64)")
  longest = max(length.values()) if isinstance(length, dict) else length
  if unit == 'tokens_per_batch' and _is_count(longest) and count % longest:
    return (f'must be a multiple of the sequence length {longest}, such as '
            f"('{unit}', {max(1, count // longest) * longest})")


def _sequence_length(value):
  if _is_count(value):
    return None
  if not isinstance(value, dict) or not value or not all(
      map(_is_count, value.values())):
    return "must be such as {'inputs': 512, 'targets': 128}"
  for name in value:
    if name not in _FEATURES:
      return f'has {name!r}: expected inputs and targets' + errors.nearest(
          name, _FEATURES)
  needed = ('inputs',) if _value('utils.run.mode') == 'infer' else _FEATURES
  for name in needed:
    if name not in value:
      return f'has no {name!r}: give {({**value, name: 128})!r}'


def _name_of_task(value):
  if not isinstance(value, str):
    return "must be the name of a task in quotes, such as 'trec'"


def _steps_to_read(value):
  wanted = value if isinstance(value, (list, tuple)) else [value]
  if value != 'all' and not (wanted and all(
      _is_count(step) or step == -1 for step in wanted)):
    return ("must be 'all', -1 for the last checkpoint, a step above 0, or a "
            'list of steps')


_CHECKS = {
    'utils.run.mode': _mode,
    'utils.run.train_steps': _count(10000),
    'utils.run.save_checkpoints_steps': _count(1000),
    'utils.run.batch_size': _batch_size,
    'utils.run.sequence_length': _or_none(_sequence_length),
    'utils.run.eval_checkpoint_step': _or_none(_steps_to_read),
    'learning_rate_schedules.constant_learning_rate.learning_rate': _rate,
    'Bitransformer.decode.beam_size': _count(4),
    'Bitransformer.decode.temperature': _rate,
    'Bitransformer.decode.max_decode_length': _or_none(_count(128)),
    'mtf_conv.evaluation.eval_dataset_fn.decode_length': _or_none(_count(128)),
    'utils.run.dataset_split': _split,
    'utils.run.init_checkpoint': _or_none(_folder),
    'utils.run.keep_checkpoint_max': _or_none(_whole),
    'utils.run.mesh_shape': _shape_of_mesh,
    'mesh_train_dataset_fn.seed': _or_none(_whole),
    'mtf_conv.training.train_model.seed': _or_none(_whole),
    **{f'{name}/gin.macro.value': _count(size)
       for name, size in _DEFAULT_SIZE.items()},
    'dropout_rate/gin.macro.value': _share,
    'MIXTURE_NAME/gin.macro.value': _name_of_task,
    'mtf_conv.training.train_model.hours': _or_none(_hours),
}


def _beam_and_temperature():
  beams = _value('Bitransformer.decode.beam_size')
  temperature = _value('Bitransformer.decode.temperature')
  if _is_count(beams) and beams > 1 and temperature:
    yield (f'Bitransformer.decode.temperature (={temperature!r}) must be 0 '
           f'with a beam_size of {beams}: T5 searches with beams or samples')


def _mesh():
  devices = _value('utils.run.mesh_devices')
  if not devices:  # A TPU's mesh follows from its topology.
    return
  mesh = _value('utils.run.mesh_shape')
  subject = f'{_name("utils.run.mesh_shape")} (={mesh!r})'
  try:
    shape = mtf.convert_to_shape('' if mesh is None else mesh)
  except (ValueError, TypeError, AttributeError):
    yield f"{subject} must be such as 'batch:4;model:2'"
    return
  if shape.size != len(devices):
    yield (f'{subject} has {shape.size} processors, and '
           f'utils.run.mesh_devices names {len(devices)}: give '
           f'--gin_file=hardware/cpu_mesh.gin with --gin_param="MESH_SHAPE = '
           f'{mesh!r}", or leave it to the file of the hardware')
    return
  count = {dim.name: dim.size for dim in shape.dims}.get('batch', 1)
  batch = _value('utils.run.batch_size')
  if isinstance(batch, (tuple, list)) and len(batch) == 2 and (
      batch[0] == 'sequences_per_batch' and _is_count(batch[1])
      and batch[1] % count):
    yield (f'utils.run.batch_size (={batch!r}) must be a multiple of the '
           f"{count} parts of batch in {subject}, such as ('{batch[0]}', "
           f'{max(1, batch[1] // count) * count})')


def _without_effect(given):
  """Finds macros of the command line that nothing takes its value from."""
  used = {reference.scoped_selector.rpartition('/')[0] for reference
          in gin_config.iterate_references(gin_config._CONFIG)
          if reference.selector == 'gin.macro'}
  used.add('MIXTURE_NAME')  # T5 asks for it by name.
  for name in re.findall(r'^[ \t]*(\w+)[ \t]*=', '\n'.join(given), re.M):
    if name not in used:
      yield (f'{name} is used by no gin file of this run'
             + errors.nearest(name, used))


def _no_length():
  mode = _value('utils.run.mode')
  if mode in ('perplexity_eval', 'score_eval') and (
      _value('utils.run.sequence_length') is None):
    yield (f'utils.run.sequence_length is not set, and mode {mode!r} needs it: '
           "give --gin_param=\"utils.run.sequence_length = {'inputs': 512, "
           "'targets': 128}\"")
