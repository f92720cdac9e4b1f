"""Runs jobs that need each other, several at a time; resumes what was killed.

A job is one command. It runs in a process forked from this one, which has
imported TensorFlow and T5 once for all of them: that saves each job ten
seconds. Nothing here knows what a command does.

What is known about a job lies in <root>/jobs: <name>.json is its record, and
<name>.log what it would have shown on the terminal. A job is done when its
record says that this very command ended well and its outputs are still there.
"""

import contextlib
import dataclasses
import glob
import json
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from multiprocessing import connection
from typing import Optional

from rich import progress as bars

from mtf_conv.base import errors, files

_POLL_SECONDS = 0.5
_LINE_SECONDS = 60  # How often a running job gets a line without a terminal.
_LAST_LINES = 12  # How much of the log of a failed job is shown.


@dataclasses.dataclass(frozen=True)
class Job:
  """One command, and what must be there before and after it.

  Attributes:
    name: a file name, different from that of every other job.
    argv: the command, a tuple of strings.
    outputs: globs, each of which matches something once the job is done.
    needs: the names of the jobs that must be done before it.
    seconds: about how long it takes; says what part of all the work it is.
    progress: the path of the file in which it tells how far it is: JSON with
      the step, the total, and what else is worth showing.
  """

  name: str
  argv: tuple
  outputs: tuple = ()
  needs: tuple = ()
  seconds: float = 1.0
  progress: Optional[str] = None

  def command(self):
    """Returns the command as a shell takes it."""
    return shlex.join(self.argv)


@contextlib.contextmanager
def lock(root, patience=3):
  """Holds the folder `root` against every other runner.

  The forked jobs hold it too: as long as one of them still ends, nobody else
  can start a second process in its model_dir. It goes with the processes, so
  that nothing needs to be removed after a crash.

  Args:
    root: a folder, made if need be.
    patience: seconds to wait for the jobs of a runner that was just killed.

  Yields:
    None.

  Raises:
    errors.UserError: another runner has it.
  """
  os.makedirs(root, exist_ok=True)
  try:
    with files.lock(os.path.join(root, 'lock'), patience):
      yield
  except TimeoutError:
    raise errors.UserError(
        f'{root} is in use by another run: wait for it, or choose another '
        '--root') from None


class Records:
  """What is known about the jobs of a root."""

  def __init__(self, root):
    self._folder = os.path.join(root, 'jobs')

  def log(self, job):
    """Returns the path of the log of a job."""
    return os.path.join(self._folder, job.name + '.log')

  def read(self, job):
    """Returns the record of a job, empty if it has never been started."""
    try:
      with open(self._path(job)) as f:
        return json.load(f)
    except FileNotFoundError:
      return {}

  def write(self, job, **record):
    """Writes the record of a job, whole or not at all."""
    os.makedirs(self._folder, exist_ok=True)
    files.write_whole(self._path(job), json.dumps(
        {'command': list(job.argv), **record}, indent=1))

  def is_done(self, job):
    """Whether the job has ended well and what it wrote is there.

    Args:
      job: the job.

    Returns:
      A boolean.

    Raises:
      errors.UserError: another command has been run under its name, so that
        going on would mix the results of two.
    """
    record = self.read(job)
    if record and record['command'] != list(job.argv):
      raise errors.UserError(
          f'{self._path(job)} is of another command: choose another --root, '
          f'or give the same flags as then:\n  {shlex.join(record["command"])}')
    return record.get('exit_code') == 0 and not missing_outputs(job)

  def _path(self, job):
    return os.path.join(self._folder, job.name + '.json')


def read_progress(job):
  """Returns what a job tells about how far it is; {} if nothing yet."""
  try:
    with open(job.progress) as f:
      return json.load(f)
  except (TypeError, OSError, ValueError):
    return {}


def missing_outputs(job):
  """Returns the globs among the job's outputs that match nothing."""
  return [pattern for pattern in job.outputs if not _matches(pattern)]


def _matches(pattern):
  if not files.is_remote(pattern):
    return glob.glob(pattern)
  from tensorflow.io import gfile  # Slow to import, and knows buckets.
  return gfile.glob(pattern)


def run(root, jobs, main, at_once=1, show=True):
  """Runs the jobs that are not done, each once those it needs are.

  Args:
    root: the folder of the records, held by `lock`.
    jobs: a list of Jobs; of several that could start, the first does.
    main: a function of a job's argv, called in the job's process.
    at_once: how many jobs run at a time.
    show: whether the terminal shows how they stand.

  Returns:
    A list of (job, reason) of those that failed or could not be started.

  Raises:
    errors.UserError: a job of this name has been run with another command.
  """
  records = Records(root)
  done = {job.name for job in jobs if records.is_done(job)}
  waiting = [job for job in jobs if job.name not in done]
  failed, running = {}, []
  show = (_Display if not show else _Bars if sys.stdout.isatty() else _Lines)(
      jobs, done)
  # A job knows by the end of this pipe that its parent is gone.
  pipe = os.pipe()
  try:
    while waiting or running:
      for job in list(waiting):
        blocked = [name for name in job.needs if name in failed]
        if blocked:
          failed[job.name] = (job, f'needs {blocked[0]}, which failed')
          waiting.remove(job)
        elif len(running) < at_once and done.issuperset(job.needs):
          waiting.remove(job)
          running.append(_Run(job, records, main, pipe))
          show.started(job)
      connection.wait([r.process.sentinel for r in running], _POLL_SECONDS)
      for run_ in list(running):
        if run_.process.is_alive():
          show.progressed(run_.job, read_progress(run_.job))
          continue
        running.remove(run_)
        reason = run_.ended()
        if reason:
          failed[run_.job.name] = (run_.job, reason)
        else:
          done.add(run_.job.name)
        show.ended(run_.job, run_.seconds(), reason)
  finally:
    for run_ in running:
      run_.stop()
    for end in pipe:
      os.close(end)
    show.close()
  return [failed[job.name] for job in jobs if job.name in failed]


def describe_failure(root, job, reason):
  """Returns the lines that tell a failed job: why, its last words, its log."""
  path = Records(root).log(job)
  lines = [f'{job.name} failed: {reason}']
  if os.path.exists(path):
    with open(path, errors='replace') as f:
      lines += ['  ' + line.rstrip() for line in f.readlines()[-_LAST_LINES:]]
    lines.append(f'  log: {path}')
  return '\n'.join(lines)


class _Run:
  """A job that runs."""

  def __init__(self, job, records, main, pipe):
    self.job = job
    self._records = records
    self._start = time.monotonic()
    records.write(job, started=time.time())
    if job.progress and os.path.exists(job.progress):
      os.remove(job.progress)  # Of the run before this one.
    self.process = multiprocessing.get_context('fork').Process(
        target=_in_child, name=job.name, daemon=True,
        args=(job, main, pipe, records.log(job)))
    self.process.start()

  def seconds(self):
    """Returns how long it has run."""
    return time.monotonic() - self._start

  def ended(self):
    """Notes how it ended; returns why it failed, or None."""
    self.process.join()
    code = self.process.exitcode
    self._records.write(
        self.job, started=self._records.read(self.job)['started'],
        seconds=round(self.seconds(), 1), exit_code=code)
    if code < 0:
      return f'ended by {signal.Signals(-code).name}'
    if code:
      return f'exit code {code}'
    missing = missing_outputs(self.job)
    return f'it ended well without {missing[0]}' if missing else None

  def stop(self):
    """Ends it."""
    self.process.terminate()
    self.process.join(5)
    self.process.kill()
    self.process.join()


def _in_child(job, main, pipe, log):
  """Runs a job in its own process."""
  # Ctrl-C reaches all processes of a terminal; the parent ends its children.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  alive, hold = pipe
  os.close(hold)
  threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
  fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
  for output in (1, 2):
    os.dup2(fd, output)
  os.close(fd)
  sys.stdout, sys.stderr = (
      open(output, 'w', buffering=1, closefd=False) for output in (1, 2))
  sys.argv = list(job.argv)
  main(list(job.argv))


def _end_with_parent(alive):
  os.read(alive, 1)  # Nobody writes: it returns when the parent has ended.
  os._exit(1)


class _Display:
  """Knows what part of all the work is done, and shows nothing."""

  def __init__(self, jobs, done):
    self._total = sum(job.seconds for job in jobs)
    self._fractions = {job.name: float(job.name in done) for job in jobs}
    self._seconds = {job.name: job.seconds for job in jobs}

  def _finished(self):
    """Returns how many of the jobs have ended well."""
    return sum(fraction == 1.0 for fraction in self._fractions.values())

  def _work(self):
    """Returns the done part of the work, from 0 to 1."""
    return sum(fraction * self._seconds[name]
               for name, fraction in self._fractions.items()) / self._total

  def started(self, job):
    """Takes note of the start of a job."""

  def progressed(self, job, progress):
    """Takes note of what a job tells; part of a job is never all of it."""
    if progress:
      self._fractions[job.name] = min(
          0.99, progress['step'] / max(1, progress['total']))

  def ended(self, job, seconds, reason):
    """Takes note of the end of a job."""
    self._fractions[job.name] = float(reason is None)

  def close(self):
    """Ends what is shown."""


def _outcome(job, seconds, reason):
  return f'{job.name}: {reason or "done"} ({seconds:.0f} s)'


def _describe(progress):
  """Returns what a job tells beside its step, for instance its loss."""
  return ', '.join(
      f'{key.replace("_", " ")} {value:.3g}' for key, value in progress.items()
      if key not in ('step', 'total'))


class _Lines(_Display):
  """Plain lines, for a log or a pipe."""

  def __init__(self, jobs, done):
    super().__init__(jobs, done)
    self._last = {}

  def started(self, job):
    """Says that a job has been started."""
    self._last[job.name] = time.monotonic()
    print(f'{job.name}: started', flush=True)

  def progressed(self, job, progress):
    """Says now and then how far a job is."""
    super().progressed(job, progress)
    if progress and time.monotonic() > self._last[job.name] + _LINE_SECONDS:
      self._last[job.name] = time.monotonic()
      print(f'{job.name}: step {progress["step"]} of {progress["total"]}, '
            + _describe(progress), flush=True)

  def ended(self, job, seconds, reason):
    """Says how a job ended, and how much of all is done."""
    super().ended(job, seconds, reason)
    print(f'{_outcome(job, seconds, reason)}; {self._finished()} of '
          f'{len(self._fractions)} jobs', flush=True)


class _Bars(_Display):
  """A bar for all the work and one for each running job."""

  def __init__(self, jobs, done):
    super().__init__(jobs, done)
    # A thread that refreshes could hold its lock at the moment of a fork.
    self._progress = bars.Progress(
        '{task.description}', bars.BarColumn(),
        bars.TaskProgressColumn(), bars.TimeElapsedColumn(),
        '{task.fields[says]}', auto_refresh=False, transient=True)
    self._bars = {}
    self._all = self._progress.add_task('', total=1.0, says='')
    self._progress.start()
    self._refresh()

  def started(self, job):
    """Opens a bar."""
    self._bars[job.name] = self._progress.add_task(
        '  ' + job.name, total=None, says='')
    self._refresh()

  def progressed(self, job, progress):
    """Moves the bar of a job, and that of all the work."""
    super().progressed(job, progress)
    if progress:
      self._progress.update(
          self._bars[job.name], total=progress['total'],
          completed=progress['step'], says=_describe(progress))
    self._refresh()

  def ended(self, job, seconds, reason):
    """Leaves a line in the place of the bar."""
    super().ended(job, seconds, reason)
    self._progress.remove_task(self._bars.pop(job.name))
    self._progress.print(_outcome(job, seconds, reason), markup=False,
                         highlight=False, soft_wrap=True)
    self._refresh()

  def close(self):
    """Removes all bars."""
    self._progress.stop()

  def _refresh(self):
    self._progress.update(
        self._all, completed=self._work(),
        description=f'{self._finished()}/{len(self._fractions)} jobs')
    self._progress.refresh()
