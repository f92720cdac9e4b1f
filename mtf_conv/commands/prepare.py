"""mtf_conv prepare: a task's data, from raw files or from the network.

`mtf_conv prepare vocabulary` does the same for T5's vocabulary.
"""

from mtf_conv.base import modules


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  parser.add_argument(
      'task', nargs='+', help='tasks whose data is prepared: trec, ...; '
      "mixtures; or all; or vocabulary, which is T5's own")
  modules.add_flag(parser)
  parser.add_argument(
      '--raw_dir', help='the folder of the raw files or archives under their '
      "original names, or of folders with the tasks' names; without it they "
      'are downloaded')
  parser.add_argument(
      '--data_dir', help="TFDS's data folder, to be given to t5_mesh_conv as "
      "--t5_tfds_data_dir; TFDS's default when it is not given")
  parser.add_argument(
      '--lengths', action='store_true', help='also measure the lengths of the '
      'examples in the vocabulary in use')
  parser.add_argument(
      '--table', action='store_true', help="also print the paper's Table 1 "
      'with what is prepared')
  parser.add_argument(
      '--overlap', metavar='TASK', help='also count how many rows to be '
      'scored on lie in the text of a task of pre-training')
  parser.add_argument(
      '--speed', action='store_true', help='also measure how many tokens per '
      'second there are to train on, prepared and in a cache of SeqIO, and how '
      'many a mini model takes')

  def run(args):
    from mtf_conv import vocabulary
    from mtf_conv.prepare import builders
    modules.import_all(args.module_import)
    if 'vocabulary' in args.task:
      print(vocabulary.prepare(args.raw_dir))
    names = [name for name in args.task if name != 'vocabulary']
    tasks = builders.task_names(names)
    if args.lengths or args.speed:
      vocabulary.model_path()  # Before anything that takes long.
    try:
      builders.prepare_all(names, args.raw_dir, args.data_dir)
    finally:  # Of what there is, when some of all tasks cannot be had.
      if args.lengths:
        from mtf_conv.prepare import lengths
        lengths.show_all(tasks, args.data_dir)
      if args.table:
        from mtf_conv.report import table1
        print(table1.table(args.data_dir), end='')
      if args.speed:
        from mtf_conv.prepare import input_speed
        input_speed.show_all(tasks, args.data_dir)
    if args.overlap:
      from mtf_conv.prepare import overlap
      overlap.measure(args.overlap, tasks, args.data_dir)

  return run
