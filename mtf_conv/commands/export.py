"""mtf_conv export: a trained model as a SavedModel, to serve it."""

from mtf_conv.base import modules
from mtf_conv.commands import answer_flags


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  parser.add_argument(
      'model_dir', help='the folder that t5_mesh_conv trained in')
  parser.add_argument('out_dir', help='a new folder, for the SavedModel')
  answer_flags.add_checkpoint(parser)
  for name, what in (('inputs', 'inputs'), ('targets', 'answers and targets')):
    parser.add_argument(
        f'--{name}_length', type=int, metavar='N', help=f'how many tokens '
        f'{what} have at most; as many as in training when it is not given')
  parser.add_argument(
      '--truncate', action='store_true', help='cut inputs and targets that are '
      'longer; without it they are an error')
  parser.add_argument(
      '--batch_size', type=int, default=8, metavar='N', help='rows that are '
      'computed at once, whatever a request has (default: %(default)s)')
  answer_flags.add_beams(parser.add_argument_group('beam search'))
  parser.add_argument('--overwrite', action='store_true',
                      help='replace a SavedModel that is there')
  modules.add_flag(parser)

  def run(args):
    from mtf_conv.base import errors
    for name in ('inputs_length', 'targets_length', 'batch_size', 'beam_size'):
      value = getattr(args, name)
      if value is not None and value < 1:
        raise errors.UserError(f'--{name} (={value}) must be at least 1')
    modules.import_all(args.module_import)
    from mtf_conv.answer import engine, trained
    from mtf_conv.exchange import saved_model
    found = trained.load(args.model_dir, args.checkpoint)
    longest = saved_model.write(
        found, engine.Engine(found), args.out_dir, args.overwrite,
        **{name: getattr(args, name) for name in (
            'inputs_length', 'targets_length', 'truncate', 'batch_size',
            'beam_size', 'alpha')})
    print(f'Wrote {args.out_dir} from {found.checkpoint}: signatures predict '
          f'(inputs) and score (inputs, targets); inputs of at most '
          f'{longest["inputs"]} tokens, answers and targets of at most '
          f'{longest["targets"]}')

  return run
