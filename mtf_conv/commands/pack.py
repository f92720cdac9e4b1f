"""mtf_conv pack: a trained model as a folder for others."""

from mtf_conv.base import modules
from mtf_conv.commands import answer_flags


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  parser.add_argument(
      'model_dir', help='the folder that t5_mesh_conv trained in')
  parser.add_argument('out_dir', help='a new folder')
  answer_flags.add_checkpoint(parser)
  modules.add_flag(parser)

  def run(args):
    modules.import_all(args.module_import)
    from mtf_conv.exchange import pack
    scores = evaluation(args.model_dir, args.checkpoint)
    checkpoint = pack.write(
        args.model_dir, args.out_dir, scores, args.checkpoint)
    print(f'Wrote {args.out_dir} from {checkpoint}, with {len(scores)} scores; '
          f'mtf_conv verify {args.out_dir} looks whether it holds')

  return run


def evaluation(model_dir, step=None):
  """Collects what runs/eval.gin has found of a checkpoint.

  Args:
    model_dir: the folder of a run.
    step: of the checkpoint; None for the last one.

  Returns:
    A list of dicts, as exchange.pack.write takes them.
  """
  from mtf_conv.model_dir import checkpoints, events
  from mtf_conv.report import uncertainty
  if step is None:
    step = checkpoints.steps_to_read(model_dir, -1)
  found = []
  for name, score in sorted(events.evaluation(model_dir, step).items()):
    task, metric = name.rsplit('/', 1)
    rows = events.predictions(model_dir, task, step)
    influence = uncertainty.influence(task, metric, rows) if rows else None
    found.append({
        'task': task, 'metric': metric, 'score': score, 'rows': len(rows),
        'error': influence and uncertainty.error([influence[1]])})
  return found
