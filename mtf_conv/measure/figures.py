"""The pictures."""

from mtf_conv.base.drawing import plt, ticker

# Whether a ratio is as it has to be; without a goal it is neither.
_COLORS = {'hoped': 'C2', 'required': 'C0', 'no': 'C3', '': '0.7'}


def ratios(path, frame):
  """Draws ratios as points, and what is required of them as marks.

  Args:
    path: where the PNG goes.
    frame: a pd.DataFrame with results.COLUMNS and `machine`.
  """
  figure, axes = plt.subplots(
      figsize=(9, 1 + 0.22 * len(frame)), layout='constrained')
  places = range(len(frame))
  colors = frame.met.map(_COLORS)
  axes.axvline(1, color='0.4', linewidth=1)
  axes.hlines(places, 1, frame.ratio, colors)
  axes.scatter(frame.ratio, places, color=colors, zorder=2)
  for place, required in zip(places, frame.required):
    if required:
      axes.plot(float(required.split()[1]), place, 'k|', markersize=9)
  axes.set_yticks(places, frame.name, fontsize='x-small')
  axes.invert_yaxis()
  axes.set_xscale('log')
  # A few percent are not to look like much.
  left, right = axes.get_xlim()
  axes.set_xlim(min(left, 0.5), max(right, 2))
  axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter('{x:g}')
  axes.xaxis.set_minor_formatter('')
  axes.grid(axis='x', alpha=0.3)
  axes.set_xlabel('ratio; the mark is what is required of it\n'
                  'green: as hoped, blue: as required, red: neither')
  _sign(figure, frame.machine[0])
  figure.savefig(path, dpi=120)
  plt.close(figure)


def lines(path, frame, what, length, machine=''):
  """Draws one line for every model over input length, both in log scale.

  Args:
    path: where the PNG goes.
    frame: a pd.DataFrame, a column for every model, indexed by length.
    what: the label of the values.
    length: the label of the lengths.
    machine: where it was measured, if it was.
  """
  figure, axes = plt.subplots(figsize=(6, 4.5), layout='constrained')
  for model, marker in zip(frame, 'osD^v<>P'):
    axes.plot(frame.index, frame[model], marker=marker, label=model)
  axes.set_xscale('log', base=2)
  axes.set_yscale('log')
  axes.set_xticks(frame.index, frame.index)
  axes.set_xlabel(length)
  axes.set_ylabel(what)
  axes.grid(alpha=0.3)
  axes.legend()
  _sign(figure, machine)
  figure.savefig(path, dpi=120)
  plt.close(figure)


def bars(path, frame, what, machine=''):
  """Draws a bar for each row, made of the values of its columns.

  Args:
    path: where the PNG goes.
    frame: a pd.DataFrame of numbers.
    what: the label of the values.
    machine: where it was measured, or what estimates it.
  """
  figure, axes = plt.subplots(
      figsize=(9, 1.5 + 0.5 * len(frame)), layout='constrained')
  frame.plot.barh(stacked=True, ax=axes, colormap='tab20', width=0.7)
  axes.invert_yaxis()
  axes.set_xlabel(what)
  axes.set_ylabel('')
  axes.grid(axis='x', alpha=0.3)
  axes.legend(fontsize='x-small', bbox_to_anchor=(1, 1))
  _sign(figure, machine)
  figure.savefig(path, dpi=120)
  plt.close(figure)


def _sign(figure, machine):
  figure.supxlabel(machine, fontsize='xx-small', color='0.4')
