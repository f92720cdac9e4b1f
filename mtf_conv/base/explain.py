"""Turns what T5, gin and SeqIO raise for wrong input into one line."""

import ast
import importlib.util
import inspect
import re
import tokenize
import traceback

from mtf_conv.base import errors


def _unknown_configurable(name):
  from gin import config
  names = {part for selector, _ in config._REGISTRY.items()
           for part in (selector, selector.split('.')[-1])}
  return errors.nearest(name, names)


def _unknown_parameter(name, configurable):
  from gin import config
  return errors.nearest(
      name, inspect.signature(config.get_configurable(configurable)).parameters)


def _unknown_gin_file(name):
  from mtf_conv.base import gin_files
  return errors.nearest(name, gin_files.list_gin_files())


def _unknown_task(name):
  import seqio
  return errors.nearest(
      name, [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()])


# A pattern of the library's message whose group is the wrong name; what to
# call it; what finds the nearest valid name from the groups.
_UNKNOWN = (
    (r"No configurable matching (?:reference )?'@?(?:\S*/)?(?P<name>[^/']+)'",
     'gin configurable', _unknown_configurable),
    (r"Configurable '(?P<configurable>[^']+)' doesn't have a parameter named "
     r"'(?P<name>[^']+)'", 'parameter', _unknown_parameter),
    (r'Unable to open file: (?P<name>[^\n]*?)\. Searched', 'gin file',
     _unknown_gin_file),
    (r"No Task or Mixture found with name[: ]+'?(?P<name>[^'\s,]+)", 'task',
     _unknown_task),
)


def one_line(error):
  """Explains an exception that a user can mend.

  Args:
    error: the exception.

  Returns:
    One line, or None for an error of the program, which needs its traceback.
  """
  user_message = errors.user_message(error)
  if user_message:
    return user_message
  message = str(error)
  for pattern, kind, nearest in _UNKNOWN:
    match = re.search(pattern, message)
    if match:
      return (f'Unknown {kind} {match["name"]!r}{_place(message)}'
              f'{nearest(**match.groupdict())}')
  for explain in (_unbound, _no_layer, _no_module, _another_model,
                  _another_dtype, _damaged_checkpoint, _split_to_train_on,
                  _not_a_number, _without_quotes, _not_cached):
    line = explain(message)
    if line:
      return line
  return _not_gin(error) or _not_read(error)


def unexpected(error, given=()):
  """Says what is known of an exception that `one_line` does not know.

  Args:
    error: the exception.
    given: bindings of the command line, such as 'TRAIN_STEPS = 100'.

  Returns:
    One or two lines: what was raised, in which of gin's configurables, and
    which bindings may be the cause: those whose value it names, else all.
  """
  message = str(error)
  where = re.search(r"In call to configurable '(\w+)'", message)
  said = message.strip().partition('\n')[0][:300]
  line = (f'{type(error).__name__}: {said}'
          + (f' (in {where.group(1)})' if where else ''))
  named = [binding for binding in given
           if binding.partition('=')[2].strip().strip('\'"') in said]
  bindings = '; '.join(named or given)[:300]
  return f'{line}\nIs a value wrong? {bindings}' if bindings else line


def _not_read(error):
  """Explains that the input pipeline failed, or gave what is no text."""
  message = str(error)
  bytes_ = re.match(
      r"'utf-8' codec can't decode (byte 0x\w+) in position (\d+)", message)
  if bytes_:
    return ('The data of the run cannot be read: not UTF-8: '
            f'{bytes_.group(1)} at position {bytes_.group(2)} of a text')
  if (not type(error).__module__.endswith('framework.errors_impl')
      or 'IteratorGetNext' not in message):
    return None
  said = [line for line in message.splitlines()
          if line and '[[' not in line and not line.endswith(' error:')]
  return f'The data of the run cannot be read: {said[0]}' if said else None


def _not_gin(error):
  """Explains what gin's parser did not understand."""
  frames = traceback.extract_tb(error.__traceback__)
  if not isinstance(error, (SyntaxError, tokenize.TokenError)) or not any(
      frame.filename.endswith('config_parser.py') for frame in frames):
    return None
  text = (getattr(error, 'text', None) or '').strip()
  what = str(error).partition('\n')[0] + (f' {text!r}' if text else '')
  return (f'gin cannot read a file or a binding: {what}: expected '
          'NAME = VALUE, as in --gin_param="TRAIN_STEPS = 100"')


def _place(message):
  """The file and line that gin names, in brackets; '' if it names none."""
  where = re.search(r'In file "([^"]+)", line (\d+)', message)
  return f' ({where.group(1)}:{where.group(2)})' if where else ''


def _unbound(message):
  """Explains that the gin files lack a value."""
  required = re.search(
      r'Required bindings for `(\S+)` not provided in config: (\[.*?\])',
      message)
  macro = re.search(r"macro\(\) missing .*'value'(?:.|\n)*?in scope '(\S+)'|"
                    r"No bindings specified for '(\S+)/gin\.macro'", message)
  if required:
    names = ast.literal_eval(required.group(2))
    return (f'No gin file binds {" and ".join(names)} of {required.group(1)}: '
            f'expected a line such as {required.group(1)}.{names[0]} = '
            f'%{names[0]}')
  if macro:
    name = macro.group(1) or macro.group(2)
    return f'No gin file binds the macro {name}: expected a line {name} = ...'
  return None


def _no_layer(message):
  """Explains that a stack was to be made of something else than layers."""
  found = re.search(
      r"'(\w+)' object (?:has no attribute 'set_name'|is not callable)\n"
      r".*make_layer_stack", message)
  if not found:
    return None
  return (f'{found.group(1)} is no layer: expected a subclass of '
          "mesh_tensorflow's transformer.TransformerLayer, for a mixer one of "
          'mtf_conv.mixer.GatedMixer')


def _no_module(message):
  """Explains what gin says of modules and packages."""
  missing = re.search(
      r"""No module named (['"])([^\n]+?)\1(?:\n\s+In file|$)""", message)
  if message == 'Empty module name':
    return ('--module_import names no module: give one, such as '
            '--module_import=my_tasks')
  if missing:
    return (f'Unknown module {missing.group(2)!r}{_place(message)}: it must be '
            'installed, or its folder in PYTHONPATH')
  if not message.startswith(
      'expected str, bytes or os.PathLike object, not NoneType'):
    return None
  from mtf_conv.base import gin_files
  for name in sorted({path.split('/')[0] for path
                      in gin_files.list_gin_files()}):
    spec = importlib.util.find_spec(name)
    if spec and spec.origin is None:
      return (f'gin takes {spec.submodule_search_locations[0]} for a Python '
              'package: a folder of gin files must not be in PYTHONPATH')
  return None


def _another_model(message):
  """Explains that a checkpoint does not fit the graph."""
  missing = re.search(r'Key (\S+) not found in checkpoint', message)
  shapes = re.search(r'Assign requires shapes of both tensors to match. '
                     r'lhs shape= (\S+) rhs shape= (\S+)', message)
  pretrained = re.search(
      r"Shape of variable (\S+):0 \((.*)\) doesn't match with shape of tensor "
      r'\S+ \((.*)\) from checkpoint', message)
  if missing:
    differs = f'it has no {missing.group(1)}'
  elif shapes:
    differs = f'a variable of shape {shapes.group(2)}, not {shapes.group(1)}'
  elif pretrained:
    name, wanted, found = pretrained.groups()
    return (f'PRETRAINED is of another model: {name} is '
            f'[{found.strip("[]()")}], not [{wanted.strip("[]()")}]: give the '
            'gin files of its model, or another checkpoint')
  else:
    return None
  return ('The checkpoint holds another model than the gin files describe '
          f'({differs}): give the gin files of its model, or another '
          '--model_dir')


def _another_dtype(message):
  """Explains that a checkpoint has the same variables of another type."""
  differ = re.search(
      r'expected dtype (\w+) does not equal original dtype (\w+)', message)
  if not differ:
    return None
  expected, found = ({'float': 'float32'}.get(dtype, dtype)
                     for dtype in differ.groups())
  return (f"The checkpoint is in {found}, and {expected} was to be read: give "
          f"--gin_param=\"utils.get_variable_dtype.master_dtype = '{found}'\"")


def _split_to_train_on(message):
  """Explains what T5 trains on."""
  if 'requires dataset_split=="train"' not in message:
    return None
  return "utils.run.dataset_split has to be 'train' to train: T5 takes no other"


def _damaged_checkpoint(message):
  """Explains that a checkpoint was read as far as what is wrong in it."""
  damaged = re.search(
      r'TensorBundle at (\S+) shard \d+ .*Checksum does not match', message)
  if not damaged:
    return None
  return (f'{damaged.group(1)} is damaged: its bytes do not have the checksum '
          'that was stored with them; take another checkpoint, and delete the '
          f'files {damaged.group(1)}.* for training to go on from the one '
          'before')


def _not_cached(message):
  """Explains that a task was to be read from SeqIO's cache."""
  found = re.search(
      r"'(\S+)' does not exist in any of the task cache directories", message)
  if not found:
    return None
  return (f'use_cached (=True): {found.group(1)} is in no cache of SeqIO: '
          'leave it False, or name the folder of the cache by '
          '--additional_task_cache_dirs')


def _not_a_number(message):
  """Explains how a loss becomes one, and what to do."""
  if not message.startswith('NaN loss during training'):
    return None
  return ('The loss is not a number: lower the learning rate; the same command '
          'goes on from the last checkpoint')


def _without_quotes(message):
  """Explains a value that gin does not understand."""
  word = re.search(r"Failed to parse token '(\S+)' \(line", message)
  if not (word and message.startswith('malformed node')):
    return None
  return (f"gin does not know the value {word.group(1)}{_place(message)}: a "
          f"string has quotes, as in --gin_param=\"MIXTURE_NAME = "
          f"'{word.group(1)}'\"")
