"""The bench on which both packages are put to work: config.yaml -> settings, notebooks -> results, one command line.

``settings``   the schema of config.yaml, read and checked in one go
``notebooks``  executes notebooks into results/, and saves their figures
``__main__``   python -m workbench

Nothing heavy is imported here: ``python -m workbench --help`` answers before torch could be loaded.
"""

import signal
import sys

# As a program, end at Ctrl-C without a traceback until `workbench.terminal.Stopping` takes over.
if sys.orig_argv[1:3] == ["-m", "workbench"] or any(word.endswith("compute-alike") for word in sys.orig_argv[:2]):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
