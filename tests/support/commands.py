"""Commands as users meet them, held against the programs that they name."""

import contextlib
import importlib
import io
import pathlib
import re
import shlex

import gin
import mtf_harness as harness
import seqio
from absl import flags
from t5.models import mesh_transformer_main  # noqa: F401, defines its flags

from mtf_conv import cli, tasks, training  # noqa: F401, for the registry
from mtf_conv.base import command_line, gin_files

ROOT = pathlib.Path(__file__).resolve().parents[2]
T5_MAINS = ('t5_mesh_conv', 't5_mesh_transformer')
_PROGRAM = re.compile(
    r'^(\w+=\S* |source )*(t5_mesh_conv|t5_mesh_transformer|mtf_conv|'
    r'run_scripts/\S+)( |$)')


def written_in(text):
  """Lists the commands of a page or of a script's comments.

  Args:
    text: Markdown, or a shell script.

  Returns:
    A list of lists of words, variables first: those of lines that begin with a
    program of this repository, and of code within a sentence.
  """
  if text.startswith('#!') or text.startswith('# shellcheck'):
    lines = '\n'.join(re.findall(r'^# ? ?(.*)', text, re.M))
    inline = ''
  else:
    fences = r'^```\w*\n(.*?)^```'
    lines = '\n'.join(re.findall(fences, text, re.M | re.S))
    inline = re.sub(fences, '', text, flags=re.M | re.S)
  found = lines.replace('\\\n', ' ').splitlines()
  found += [re.sub(r'\s+', ' ', code)
            for code in re.findall(r'`([^`]+)`', inline)]
  return [shlex.split(line, comments=True) for line in map(str.strip, found)
          if _PROGRAM.match(line)]


def bindings_in(text):
  """Lists the blocks of a page that are gin bindings, as lists of lines."""
  blocks = [block.strip().splitlines() for block in re.findall(
      r'^```\w*\n(.*?)^```', text, re.M | re.S)]
  return [lines for lines in blocks
          if all(re.match(r'[\w/.]+ = ', line) for line in lines)]


def check(words):
  """Checks a command.

  Args:
    words: a list, variables and `source` first.

  Raises:
    AssertionError: a flag, a verb, a script, a gin file or a name in gin that
      is not there.
  """
  while '=' in words[0] or words[0] == 'source':
    words = words[1:]
  program, args = words[0], words[1:]
  if program in T5_MAINS:
    check_t5(args)
  elif program == 'mtf_conv':
    check_verb(args)
  else:
    assert (ROOT / program).is_file(), program


def check_verb(args):
  """Checks the arguments of mtf_conv; a verb alone is one that is mentioned."""
  if not args or args[0] == 'VERB':
    return
  assert args[0] in cli.VERBS, args[0]
  parser = command_line.Parser(prog=args[0])
  importlib.import_module(f'mtf_conv.commands.{args[0]}').add_flags(parser)
  # In `--lowering=NAME` only the flag is one.
  placeholders = [arg for arg in args if re.fullmatch(r'--\w+=[A-Z_]+', arg)]
  for arg in placeholders:
    assert arg.split('=')[0] in parser._option_string_actions, arg
  args = [arg for arg in args if arg not in placeholders]
  if args[1:]:
    said = io.StringIO()
    try:
      with contextlib.redirect_stderr(said):
        parser.parse_args(args[1:])
    except SystemExit as error:
      assert not error.code, f'{args}: {said.getvalue()}'


def check_t5(args):
  """Checks the flags of T5's main, and parses all that they say in gin."""
  files, params = [], []
  for arg in args:
    if arg == '$@':
      continue  # In a function, where others are added.
    name, equals, value = arg.partition('=')
    name = name.lstrip('-')
    if name == 'verbose' and not equals:
      continue  # Of t5_mesh_conv, defined when it runs.
    assert equals and name in flags.FLAGS, f'no flag {arg!r}'
    flags.FLAGS[name].parser.parse(value)
    if name == 'gin_file':
      files.append(value)
    elif name == 'gin_param':
      params.append(value)
  if not files:
    return
  assert set(files) <= set(gin_files.list_gin_files()), files
  harness.parse_gin(files)
  macros = {scope for scope, selector in gin.config._CONFIG
            if selector == 'gin.macro'}
  for param in params:
    name = param.partition('=')[0].strip()
    assert '.' in name or name in macros, (
        f'{name} is set, and no gin file of {files} has it')
  harness.parse_gin(files, params)  # Unknown names are errors.
  gin.finalize()
  mixture = gin.query_parameter('MIXTURE_NAME/macro.value')
  assert mixture in seqio.TaskRegistry.names() | (
      seqio.MixtureRegistry.names()), mixture
