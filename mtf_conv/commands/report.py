"""mtf_conv report: Table 2 of a grid beside the paper's."""

import os

from mtf_conv.commands import grid_flags

_NOTES = 12  # Lines of what is missing or doubtful on the terminal.


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  grid_flags.add(parser)
  parser.add_argument('--out', default='report', metavar='DIR',
                      help='a folder for the report (default: %(default)s)')
  parser.add_argument(
      '--figures', metavar='DIR',
      help='of mtf_conv bench figure1 --out=DIR and mtf_conv params '
      '--figure=DIR (default: ROOT/figures)')

  def run(args):
    scale, runs = grid_flags.make(args)
    figures = args.figures or os.path.join(args.root, 'figures')
    return show(runs, scale, args.out, figures)

  return run


def show(runs, scale, out_dir, figures_dir):
  """Writes the report of a grid, finished or not, and prints its table."""
  from mtf_conv.report import page
  table, notes = page.write(runs, out_dir, scale.get('about', ''), figures_dir)
  print(table, end='')
  if notes:
    print('\nMissing or doubtful:', *notes[:_NOTES], sep='\n* ')
    if len(notes) > _NOTES:
      print(f'* and {len(notes) - _NOTES} more, which index.html has')
    print()
  print(f'Written to {os.path.abspath(out_dir)}: index.html, table2.md, .csv, '
        '.tex, differences.csv, curves')
  return 0
