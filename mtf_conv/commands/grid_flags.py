"""The flags of mtf_conv replicate and report that say which grid it is."""

from mtf_conv.base import modules
from mtf_conv.replicate import grid

# Of t5_mesh_conv, which hands them to TensorFlow.
_TPU_FLAGS = {'tpu': 'the TPU that jobs run on, one at a time',
              'tpu_zone': 'the zone it is in', 'gcp_project': 'its project'}


def add(parser):
  """Adds them to a parser."""
  parser.add_argument('--scale', default='demo', help=(
      f'{", ".join(grid.scale_names())}, or the path of a .json file like '
      'theirs (default: %(default)s)'))
  parser.add_argument(
      '--root', default='replicate_runs', metavar='DIR',
      help='the folder of all runs (default: %(default)s)')
  for name in ('models', 'tasks', 'init'):
    parser.add_argument(f'--{name}', metavar='NAME,...', type=_list(str),
                        help='only these')
  parser.add_argument('--pretrain_only', action='store_true',
                      help='leave fine-tuning for later')
  parser.add_argument('--learning_rates', metavar='RATE,...', type=_list(float),
                      help="instead of the scale's")
  parser.add_argument('--seeds', metavar='N,...', type=_list(int),
                      help="one grid for each, instead of the scale's")
  parser.add_argument('--hardware', choices=['cpu', 'gpu', 'tpu'],
                      help="instead of the scale's")
  parser.add_argument(
      '--checkpoints', metavar='DIR',
      help='where all model_dirs go, for a TPU gs://BUCKET/... (default: ROOT)')
  parser.add_argument(
      '--raw_dir', metavar='DIR', help='the raw files that data is prepared '
      'from, as for mtf_conv prepare; without it they are downloaded')
  modules.add_flag(parser)
  for name, help_ in _TPU_FLAGS.items():
    parser.add_argument(f'--{name}', metavar='NAME', help=help_)
  parser.add_argument(
      '--gin_param', action='append', default=[], metavar='BINDING',
      help="of every command, for instance TPU_TOPOLOGY='v3-8'; repeatable")


def make(args):
  """Makes the grid of parsed flags.

  Args:
    args: as the parser of `add` returns them.

  Returns:
    (the scale, a list of grid.Run).

  Raises:
    errors.UserError: a name or a value is none of the scale's.
  """
  scale = grid.load_scale(args.scale)
  flags = [f'--{name}={getattr(args, name)}' for name in _TPU_FLAGS
           if getattr(args, name)]
  flags += [f'--module_import={name}' for name in args.module_import]
  flags += [f'--gin_param={binding}' for binding in args.gin_param]
  hardware = args.hardware or ('tpu' if args.tpu else None)
  runs = grid.make(
      scale, args.root, args.models, args.tasks, args.init, args.learning_rates,
      args.seeds, hardware, args.checkpoints, flags, args.raw_dir)
  return scale, [run for run in runs
                 if run.stage in ('prepare', 'pretrain')
                 or not args.pretrain_only]


def _list(kind):
  def parse(text):
    return [kind(part) for part in text.split(',')]
  parse.__name__ = f'list of {kind.__name__}'
  return parse
