"""Runs jobs that are commands of t5_mesh_conv, and others like them."""

import dataclasses
import os
import tempfile

from mtf_conv import t5_main
from mtf_conv.base import errors
from mtf_conv.replicate import jobs


def run_jobs(root, all_jobs, at_once, threads, environment=None,
             main=t5_main.console_entry_point, check=False):
  """Runs jobs, see jobs.run.

  To be called before TensorFlow is imported: some of the environment is read
  then.

  Args:
    root: the folder of the records, held by jobs.lock.
    all_jobs: a list of jobs.Job.
    at_once: how many run at a time.
    threads: of each job.
    environment: environment variables that this process and each job gets.
    main: a function of a job's argv.
    check: whether the settings of all are looked at before the first begins.

  Returns:
    A list of (job, reason) of those that failed.

  Raises:
    errors.UserError: settings that no job could run with; nothing was begun.
  """
  # TensorFlow takes all of a GPU's memory, and the next job would find none.
  os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
  os.environ.update(environment or {}, MTF_CONV_PROGRESS='0', **dict.fromkeys(
      ('OMP_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS'),
      str(threads)))
  t5_main.preload()
  if check:
    _check(all_jobs, at_once)
  return jobs.run(root, all_jobs, main, at_once)


def _check(all_jobs, at_once):
  """Looks at the settings of the jobs, each of them at least once.

  A job whose every argument another one has is not looked at again.

  Raises:
    errors.UserError: says what is wrong, and with which job.
  """
  seen, checks = set(), []
  with tempfile.TemporaryDirectory() as folder:
    for job in all_jobs:
      program, *args = job.argv
      args = [arg for arg in args if not arg.startswith('--model_dir=')]
      if program == 't5_mesh_conv' and not seen.issuperset(args):
        seen.update(args)
        checks.append(dataclasses.replace(
            job, needs=(), outputs=(), progress=None, argv=(
                program, '--check_settings', f'--model_dir={folder}/{job.name}',
                *args)))
    failed = jobs.run(
        folder, checks, t5_main.console_entry_point, at_once, show=False)
    found = {}  # From what is wrong to the first job that has it.
    for job, reason in failed:
      with open(jobs.Records(folder).log(job), errors='replace') as f:
        lines = [line for line in f.read().splitlines() if folder not in line]
      for line in lines or [reason]:
        found.setdefault(line, job.name)
  if found:
    raise errors.UserError('\n'.join(
        f'{name}: {line}' for line, name in found.items()))
