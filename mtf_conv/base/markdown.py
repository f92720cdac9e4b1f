"""Tables in Markdown."""


def table(frame, numbers=()) -> str:
  """Writes a table.

  Args:
    frame: a pd.DataFrame of strings; its index is left out.
    numbers: the positions of the columns of numbers, which stand on the right.

  Returns:
    Lines, the last with its end.
  """
  sides = ['right' if column in numbers else 'left'
           for column in range(frame.shape[1])]
  return frame.to_markdown(
      index=False, colalign=sides, disable_numparse=True) + '\n'
