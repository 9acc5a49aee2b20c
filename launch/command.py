"""How every command here ends: well, or with one sentence on stderr and a status that is not zero.

    if __name__ == '__main__':
        command.run(main, 'training')

What a user can mend is raised as ValueError with a sentence, or comes from the machine (a full disk, no memory, Ctrl-C),
and is printed as `error: ...`. Anything else is a fault of ours: its sentence names the file its traceback was written
to. --debug shows the traceback of either.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import site
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags, logging

_DEBUG = flags.DEFINE_bool('debug', False, 'Show the traceback of whatever stops the command.')

INTERRUPTED = 130
"""The status of what Ctrl-C stopped, as shells have it."""

_MEND = {
    errno.ENOSPC: 'free some space and give the same command again: it goes on from what is saved',
    errno.EDQUOT: 'free some space and give the same command again: it goes on from what is saved',
    errno.EFBIG: 'allow larger files there (ulimit -f) and give the same command again: it goes on from what is saved',
    errno.EROFS: 'name a folder that can be written',
    errno.EACCES: 'name a file or folder that you may read and write, or change its permissions',
    errno.EPERM: 'name a file or folder that you may read and write, or change its permissions',
    errno.ENOTDIR: 'name a folder; something on this path is a file',
    errno.EISDIR: 'name a file; this is a folder',
    errno.EEXIST: 'name another path; this one is taken',
    errno.ENAMETOOLONG: 'name a shorter path',
    errno.ELOOP: 'name a path whose links lead somewhere',
    errno.EMFILE: 'allow more open files (ulimit -n)',
    errno.EIO: 'look after the disk: it fails to read or write',
    errno.ESTALE: 'look after the network disk, and give the same command again',
}


def run(
    main: Callable[[list[str]], None],
    doing: str,
    takes_words: bool = False,
    before_flags: Callable[[list[str]], list[str]] = list,
) -> NoReturn:
    """Read the flags, call `main` with what is left of the command line, and exit.

    Args:
      main: raises what went wrong.
      doing: what it does, for the sentences: 'training'.
      takes_words: whether there may be arguments that are no flags.
      before_flags: takes out of the command line what is read elsewhere.
    """

    def checked(argv: list[str]) -> None:
        if argv[1:] and not takes_words:
            raise _Usage(f'unexpected arguments {shlex.join(argv[1:])}: everything is given as --flag=value')
        if not _DEBUG.value:
            _hush()
        try:
            main(argv)
        except app.UsageError as error:  # absl would print the whole help
            raise _Usage(str(error)) from error

    try:
        app.run(checked, flags_parser=lambda argv: flags.FLAGS(before_flags(argv)))
    except SystemExit:
        raise
    except BaseException as error:
        status = tell(error, doing)
        if not _debugging():  # a full disk fails once more for everything that is closed at exit
            sys.unraisablehook = threading.excepthook = lambda _: None
        # What is left unwritten would raise again while Python shuts down.
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(status)
    raise AssertionError('app.run exits')


def tell(error: BaseException, doing: str) -> int:
    """Print what stopped a command in one line, and return the status to exit with."""
    if isinstance(error, BrokenPipeError):
        return 1  # nobody reads any more
    debug = _debugging()
    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        sentence = f'stopped by Ctrl-C while {doing}.'
    else:
        sentence = sentence_of(error)
    if sentence is None:
        said = f': {_one_line(str(error))}' if str(error).strip() else ''
        kept = 'it is above' if debug else f'its traceback is in {_keep(error)}, and --debug shows it'
        sentence = f'unexpected {type(error).__name__} while {doing}{said} ({kept}).'
    print(f'error: {sentence}', file=sys.stderr)
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def sentence_of(error: BaseException) -> str | None:
    """The sentence for a person where the person can do something about it, else None."""
    text = _one_line(str(error))
    if isinstance(error, (app.UsageError, _Usage, flags.Error)):
        return f'{_flag_sentence(error)} (--help lists the flags).'
    if _is_out_of_memory(error):
        return (
            f'out of memory ({text[:200] or type(error).__name__}): give a smaller model, config.data.batch_size or '
            'segment_length, or less at once.'
        )
    if isinstance(error, OSError) and error.errno in _MEND:
        named = f'{error.filename}: ' if error.filename else ''
        return f'{named}{os.strerror(error.errno)}; {_MEND[error.errno]}.'
    if isinstance(error, (ValueError, FloatingPointError)) and text and not _is_raised_by_others(error):
        return text
    return None


def _debugging() -> bool:
    return _DEBUG.value if flags.FLAGS.is_parsed() else '--debug' in sys.argv


def _hush() -> None:
    """No traceback from threads: what fails there is raised again where it is waited for, or is told in one line."""
    logging.get_absl_handler().addFilter(lambda record: not (record.exc_info or '\nTraceback' in record.getMessage()))

    def one_line(failed: threading.ExceptHookArgs) -> None:
        name = failed.thread.name if failed.thread else 'a thread'
        print(f'warning: {name}: {failed.exc_type.__name__}: {_one_line(str(failed.exc_value))}', file=sys.stderr)

    def unraisable(failed: Any) -> None:
        # tensorstore reports to an event loop that Orbax has closed because another of its reads or writes failed.
        if str(failed.exc_value) != 'Event loop is closed':
            sys.__unraisablehook__(failed)

    threading.excepthook, sys.unraisablehook = one_line, unraisable


class _Usage(Exception):
    """A UsageError on its way past absl."""


def _flag_sentence(error: Exception) -> str:
    """absl's words for a bad flag, as a sentence."""
    text = _one_line(str(error)).rstrip('. ')
    if isinstance(error, flags.UnrecognizedFlagError):
        near = re.search(r'Did you mean: ([\w.]+)', text)
        return f'there is no flag --{error.flagname}' + (f': did you mean --{near[1]}?' if near else '')
    missing = re.search(r'Flag (--[\w.]+) must have a value', text)
    if missing:
        return f'{missing[1]} is missing: give {missing[1]}=VALUE'
    text = re.sub(r"invalid literal for int\(\) with base \d+: ('.*')", r'\1 is not a whole number', text)
    text = re.sub(r"could not convert string to float: ('.*')", r'\1 is not a number', text)
    return re.sub(r'^flag --', '--', text)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    words = ('RESOURCE_EXHAUSTED: Out of memory', 'RESOURCE_EXHAUSTED: Failed to allocate', 'Out of memory allocating')
    return type(error).__name__ in ('XlaRuntimeError', 'JaxRuntimeError') and any(w in str(error) for w in words)


def _is_raised_by_others(error: BaseException) -> bool:
    """Whether the line that raised is Python's or a package's: then its words are no sentence for a person."""
    frames = traceback.extract_tb(error.__traceback__)
    paths = sysconfig.get_paths()
    foreign = {paths[k] for k in ('stdlib', 'platstdlib', 'purelib', 'platlib')} | {*site.getsitepackages()}
    return bool(frames) and (
        frames[-1].filename.startswith('<frozen') or any(frames[-1].filename.startswith(f + os.sep) for f in foreign)
    )


def _keep(error: BaseException) -> str:
    """Write the traceback beside the run, or where temporary files go, and return the file's name."""
    name = f'traceback-{time.strftime("%Y%m%d-%H%M%S")}-{os.getpid()}.txt'
    workdir = flags.FLAGS['workdir'].value if 'workdir' in flags.FLAGS else None
    for folder in (workdir, tempfile.gettempdir()):
        if folder and os.path.isdir(folder):
            try:
                path = os.path.abspath(os.path.join(folder, name))
                with open(path, 'w') as file:
                    file.write(f'{shlex.join(sys.orig_argv)}\n\n')
                    traceback.print_exception(error, file=file)
                return path
            except OSError:
                continue
    return 'no file, as none could be written'


def _one_line(text: str, most: int = 1500) -> str:
    text = ' '.join(text.split())
    return text if len(text) <= most else text[: most - 3] + '...'
