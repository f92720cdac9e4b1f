"""mtf_conv check: whether a mixer may be trained, property by property."""

from mtf_conv.base import modules


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  parser.add_argument(
      'model', help='a model or its gin file: models/my.tiny.gin, '
      'lightconv.tiny, or lightconv for its tiny size. A small one is enough: '
      'its layers and heads are kept, its channels are not')
  modules.add_flag(parser)
  parser.add_argument(
      '--gin_param', action='append', default=[], metavar='BINDING',
      help='a gin binding that comes after the file; may be repeated')

  def run(args):
    modules.import_all(args.module_import)
    return show(args.model, args.gin_param)

  return run


def show(model, bindings=()) -> int:
  """Prints a line for each property as soon as it is checked.

  Args:
    model: see testing.check_mixer.
    bindings: gin bindings that come after the model's file.

  Returns:
    The exit code: 1 if a property fails.

  Raises:
    errors.UserError: there is no such model, or it cannot be built.
  """
  from mtf_conv import testing
  width = max(map(len, testing.PROPERTIES))
  head = f'{"property".ljust(width)}  result  difference  allowed  what it says'

  def say(result):
    nonlocal head
    if head:  # All that can be wrong with the input has been found by now.
      print(head)
      head = None
    difference = ('-' if result.difference is None
                  else f'{result.difference:.1e}')
    print(f'{result.name.ljust(width)}  {"ok" if result.passed else "FAILED":6}'
          f'  {difference:>10}  {result.tolerance:7.0e}  {result.detail}',
          flush=True)

  results = testing.check_mixer(model, bindings, say=say)
  failed = [result.name for result in results if not result.passed]
  print(f'{model} fails {", ".join(failed)}.' if failed else
        f'{model} has all {len(results)} properties.')
  return int(bool(failed))
