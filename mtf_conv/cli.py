"""mtf_conv VERB: the table of verbs.

The flags of a verb and its work are in the module of mtf_conv.commands that has
its name. It imports the rest when the work begins: `mtf_conv --help` does not
wait for TensorFlow.
"""

import os
import sys

from mtf_conv import commands
from mtf_conv.base import errors

# What each verb does, in a line.
VERBS = {
    'list': 'the models, tasks and gin files there are',
    'doctor': 'what is installed, found and missing, and how to mend it',
    'prepare': "a task's data, from raw files or from the network",
    'train_vocabulary': 'a SentencePiece model of your own text, for T5',
    'predict': "a trained model's answers to the lines of a file",
    'score': 'how likely given targets are to a trained model, or classes',
    'embed': 'the mean state of a trained encoder, for each line of a file',
    'export': 'a trained model as a SavedModel, to serve it',
    'pack': 'a trained model as a folder for others, with a card and sums',
    'verify': 'whether a packed model is what it was, and scores so',
    'convert': "checkpoints into PyTorch and back; the authors' into ours",
    'replicate': "the paper's grid: plan it, run it, see how it stands",
    'report': "Table 2 of a grid beside the paper's, as pages and tables",
    'check': 'whether a mixer may be trained: causality, packing, ...',
    'params': 'parameters, memory and FLOPs of models',
    'bench': 'speed, as ratios that are measured in turn',
}


def _usage():
  width = max(map(len, VERBS))
  return 'usage: mtf_conv VERB ...; mtf_conv VERB --help\n\n' + ''.join(
      f'  {verb.ljust(width)}  {what}\n' for verb, what in VERBS.items())


def main(argv=None):
  """Runs a verb.

  Args:
    argv: the command line, the program's name first; sys.argv when None.

  Returns:
    The exit code.
  """
  args = (sys.argv if argv is None else argv)[1:]
  if not args or args[0] in ('-h', '--help', 'help'):
    print(_usage(), end='')
    return 0 if args else 2
  verb = args[0]
  if verb not in VERBS:
    print(f'mtf_conv: unknown verb {verb!r}: choose from {", ".join(VERBS)}'
          + errors.nearest(verb, VERBS), file=sys.stderr)
    return 2
  try:
    return commands.run(verb, args[1:], f'Verb {verb}: {VERBS[verb]}.')
  except KeyboardInterrupt:
    return 130
  except BrokenPipeError:  # As in `mtf_conv list | head`.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == '__main__':
  sys.exit(main())
